//! Permits of a scope, booked in blocks before they are used, so that a restart cannot spend them twice.

use sea_orm::ConnectionTrait;
use sea_orm::sea_query::{Cond, Condition, Expr, ExprTrait, Order, Query};

use crate::clock::Timestamp;
use crate::quota::{BlockId, Bookings, StoredBlock};
use crate::store::connect::{Lane, Store};
use crate::store::error::{Error, Kind};

/// A pause stands among the blocks of its scope under this name, which is no limit's: it binds all of them.
const PAUSE: &str = "pause";

impl Store {
    /// Writes what a limiter wants written, in one transaction: new blocks (their rows are returned in the order of
    /// `bookings.wanted`), blocks that ended, blocks that bind nothing any more.
    ///
    /// # Errors
    /// [`Kind::Unavailable`]: use no permit of the wanted blocks; a row written after all counts as unfinished at the next start.
    pub async fn book(&self, scope: &str, bookings: &Bookings) -> Result<Vec<BlockId>, Error> {
        self.run(|| self.book_once(scope, bookings)).await
    }

    async fn book_once(&self, scope: &str, bookings: &Bookings) -> Result<Vec<BlockId>, Error> {
        let tx = self.begin(Lane::Work, "permit_block").await?;
        let now = self.now().0;
        let amount = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let mut finished = bookings.finished.clone();
        finished.sort_by_key(|block| block.id);
        for block in finished {
            let update = Query::update()
                .table("instep_permit_block")
                .value("amount", amount(block.amount))
                .value("finished_at", block.finished_at.0)
                .and_where(Expr::col("id").eq(block.id.0))
                .and_where(Expr::col("scope").eq(scope))
                .take();
            tx.db.execute(&update).await?;
        }
        if !bookings.expired.is_empty() {
            let delete = Query::delete()
                .from_table("instep_permit_block")
                .and_where(Expr::col("scope").eq(scope))
                .and_where(Expr::col("id").is_in(bookings.expired.iter().map(|id| id.0)))
                .take();
            tx.db.execute(&delete).await?;
        }
        let mut ids = Vec::with_capacity(bookings.wanted.len());
        for block in &bookings.wanted {
            let insert = Query::insert()
                .into_table("instep_permit_block")
                .columns(["scope", "limit_id", "amount", "booked_at"])
                .values_panic([scope.into(), block.limit.as_str().into(), amount(block.amount).into(), now.into()])
                .returning_col("id")
                .take();
            let row = tx.db.query_one(&insert).await?;
            let row = row.ok_or_else(|| Error::new(Kind::Bug, "an inserted block has no id"))?;
            ids.push(BlockId(row.try_get("", "id")?));
        }
        tx.commit().await?;
        Ok(ids)
    }

    /// Remembers until when the upstream wants to hear nothing from a scope.
    ///
    /// # Errors
    /// [`Kind::Unavailable`].
    pub async fn keep_pause(&self, scope: &str, until: Timestamp) -> Result<(), Error> {
        self.run(|| async {
            let tx = self.begin(Lane::Work, "pause").await?;
            let delete = Query::delete().from_table("instep_permit_block").cond_where(pause_of(scope)).take();
            tx.db.execute(&delete).await?;
            let insert = Query::insert()
                .into_table("instep_permit_block")
                .columns(["scope", "limit_id", "amount", "booked_at", "finished_at"])
                .values_panic([scope.into(), PAUSE.into(), 0_i64.into(), self.now().0.into(), until.0.into()])
                .take();
            tx.db.execute(&insert).await?;
            tx.commit().await
        })
        .await
    }

    /// Until when the upstream wanted to hear nothing from a scope, as far as that was written down.
    ///
    /// # Errors
    /// [`Kind::Unavailable`].
    pub async fn kept_pause(&self, scope: &str) -> Result<Option<Timestamp>, Error> {
        let select = Query::select().column("finished_at").from("instep_permit_block").cond_where(pause_of(scope)).take();
        let row = self.reader().query_one(&select).await?;
        Ok(row.map(|row| row.try_get("", "finished_at")).transpose()?.flatten().map(Timestamp))
    }

    /// The blocks of a scope, in the order in which they were booked.
    ///
    /// # Errors
    /// [`Kind::Unavailable`].
    pub async fn blocks(&self, scope: &str) -> Result<Vec<StoredBlock>, Error> {
        let mut select = Query::select();
        select.columns(["id", "limit_id", "amount", "finished_at"]).from("instep_permit_block");
        select.and_where(Expr::col("scope").eq(scope)).and_where(Expr::col("limit_id").ne(PAUSE)).order_by("id", Order::Asc);
        let rows = self.reader().query_all(&select).await?;
        let block = |row: &sea_orm::QueryResult| -> Result<StoredBlock, Error> {
            Ok(StoredBlock {
                id: BlockId(row.try_get("", "id")?),
                limit: row.try_get("", "limit_id")?,
                amount: u64::try_from(row.try_get::<i64>("", "amount")?).unwrap_or(0),
                finished_at: row.try_get::<Option<i64>>("", "finished_at")?.map(Timestamp),
            })
        };
        rows.iter().map(block).collect()
    }
}

fn pause_of(scope: &str) -> Condition {
    Cond::all().add(Expr::col("scope").eq(scope)).add(Expr::col("limit_id").eq(PAUSE))
}
