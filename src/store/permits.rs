//! Permits of a scope, booked in blocks before they are used, so that a restart cannot spend them twice.

use sea_orm::sea_query::{Expr, ExprTrait, Order, Query};
use sea_orm::{ConnectionTrait, Value};

use crate::clock::Timestamp;
use crate::quota::{BlockId, Bookings, StoredBlock};
use crate::store::connect::{Lane, Store};
use crate::store::error::Error;

impl Store {
    /// Writes one turn of bookkeeping in one transaction: new blocks, ended ones, expired ones. Answers with the new blocks' ids.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`]: use none of it; a block that was written all the same counts as spent at the next start.
    pub async fn book(&self, scope: &str, bookings: &Bookings, at: Timestamp) -> Result<Vec<BlockId>, Error> {
        // Random, so that processes that share a scope need no common counter.
        let ids: Vec<BlockId> = bookings.wanted.iter().map(|_| BlockId(rand::random::<i64>() & i64::MAX)).collect();
        self.run(|| async {
            let tx = self.begin(Lane::Work).await?;
            for (wanted, id) in bookings.wanted.iter().zip(&ids) {
                let amount = i64::try_from(wanted.amount).unwrap_or(i64::MAX);
                let values: [Value; 5] =
                    [scope.into(), wanted.limit.as_str().into(), id.0.to_string().into(), amount.into(), at.0.into()];
                let insert = Query::insert()
                    .into_table("instep_permit_block")
                    .columns(["scope", "limit_id", "id", "amount", "booked_at"])
                    .values_panic(values.into_iter().map(Expr::val))
                    .take();
                tx.db.execute(&insert).await?;
            }
            for block in &bookings.finished {
                let update = Query::update()
                    .table("instep_permit_block")
                    .value("finished_at", block.finished_at.0)
                    .value("amount", i64::try_from(block.amount).unwrap_or(i64::MAX))
                    .and_where(Expr::col("scope").eq(scope))
                    .and_where(Expr::col("id").eq(block.id.0.to_string()))
                    .take();
                tx.db.execute(&update).await?;
            }
            let expired = bookings.expired.iter().map(|id| id.0.to_string());
            let delete = Query::delete()
                .from_table("instep_permit_block")
                .and_where(Expr::col("scope").eq(scope))
                .and_where(Expr::col("id").is_in(expired))
                .take();
            tx.db.execute(&delete).await?;
            tx.commit().await
        })
        .await?;
        Ok(ids)
    }

    /// The blocks of a scope, the oldest first.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn blocks(&self, scope: &str) -> Result<Vec<StoredBlock>, Error> {
        let mut select = Query::select();
        select.columns(["id", "limit_id", "amount", "finished_at"]).from("instep_permit_block");
        select.and_where(Expr::col("scope").eq(scope)).order_by("booked_at", Order::Asc).order_by("id", Order::Asc);
        let rows = self.reader().query_all(&select).await?;
        let block = |row: &sea_orm::QueryResult| -> Result<StoredBlock, Error> {
            Ok(StoredBlock {
                id: BlockId(row.try_get::<String>("", "id")?.parse().unwrap_or(0)),
                limit: row.try_get("", "limit_id")?,
                amount: u64::try_from(row.try_get::<i64>("", "amount")?).unwrap_or(0),
                finished_at: row.try_get::<Option<i64>>("", "finished_at")?.map(Timestamp),
            })
        };
        rows.iter().map(block).collect()
    }
}
