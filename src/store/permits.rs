//! Permits of a scope, booked in blocks before they are used, so that a restart cannot spend them twice.

use sea_orm::sea_query::{Expr, ExprTrait, OnConflict, Order, Query};
use sea_orm::{ConnectionTrait, Value};

use crate::clock::Timestamp;
use crate::store::connect::{Lane, Store};
use crate::store::error::Error;

/// A block of permits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its id.
    pub id: String,
    /// Of which limit of the scope.
    pub limit: String,
    /// Permits in it, in the limit's unit.
    pub amount: u64,
    /// When it was booked.
    pub booked_at: Timestamp,
    /// When its last permit had been used up; `None`: not yet, or its process died.
    pub finished_at: Option<Timestamp>,
}

impl Store {
    /// Books a block durably, before any permit of it is used. The same id again is harmless.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`]: use none of it.
    pub async fn book_block(&self, scope: &str, block: &Block) -> Result<(), Error> {
        self.run(|| async {
            let values: [Value; 5] = [
                scope.into(),
                block.limit.as_str().into(),
                block.id.as_str().into(),
                i64::try_from(block.amount).unwrap_or(i64::MAX).into(),
                block.booked_at.0.into(),
            ];
            let insert = Query::insert()
                .into_table("instep_permit_block")
                .columns(["scope", "limit_id", "id", "amount", "booked_at"])
                .values_panic(values.into_iter().map(Expr::val))
                .on_conflict(OnConflict::new().do_nothing().to_owned())
                .take();
            let tx = self.begin(Lane::Work).await?;
            tx.db.execute(&insert).await?;
            tx.commit().await
        })
        .await
    }

    /// Notes that the last permit of a block has come back, and what of it was used.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn finish_block(&self, scope: &str, limit: &str, id: &str, used: u64, at: Timestamp) -> Result<(), Error> {
        self.run(|| async {
            let update = Query::update()
                .table("instep_permit_block")
                .value("finished_at", at.0)
                .value("amount", i64::try_from(used).unwrap_or(i64::MAX))
                .and_where(Expr::col("scope").eq(scope))
                .and_where(Expr::col("limit_id").eq(limit))
                .and_where(Expr::col("id").eq(id))
                .take();
            let tx = self.begin(Lane::Work).await?;
            tx.db.execute(&update).await?;
            tx.commit().await
        })
        .await
    }

    /// The blocks of a scope, the oldest first.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn blocks(&self, scope: &str) -> Result<Vec<Block>, Error> {
        let mut select = Query::select();
        select.columns(["id", "limit_id", "amount", "booked_at", "finished_at"]).from("instep_permit_block");
        select.and_where(Expr::col("scope").eq(scope)).order_by("booked_at", Order::Asc).order_by("id", Order::Asc);
        let rows = self.reader().query_all(&select).await?;
        let block = |row: &sea_orm::QueryResult| -> Result<Block, Error> {
            Ok(Block {
                id: row.try_get("", "id")?,
                limit: row.try_get("", "limit_id")?,
                amount: u64::try_from(row.try_get::<i64>("", "amount")?).unwrap_or(0),
                booked_at: Timestamp(row.try_get("", "booked_at")?),
                finished_at: row.try_get::<Option<i64>>("", "finished_at")?.map(Timestamp),
            })
        };
        rows.iter().map(block).collect()
    }

    /// Drops a limit's blocks that were booked before `before` (a window and its grace ago: they hold nothing back any more).
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn purge_blocks(&self, scope: &str, limit: &str, before: Timestamp) -> Result<u64, Error> {
        self.run(|| async {
            let finished = Expr::col("finished_at").lt(before.0);
            let delete = Query::delete()
                .from_table("instep_permit_block")
                .and_where(Expr::col("scope").eq(scope))
                .and_where(Expr::col("limit_id").eq(limit))
                .and_where(finished.or(Expr::col("finished_at").is_null()))
                .and_where(Expr::col("booked_at").lt(before.0))
                .take();
            let tx = self.begin(Lane::Work).await?;
            let purged = tx.db.execute(&delete).await?.rows_affected();
            tx.commit().await?;
            Ok(purged)
        })
        .await
    }
}
