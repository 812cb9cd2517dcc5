//! Ownership of a source.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use sea_orm::sea_query::{Expr, ExprTrait, OnConflict, Query};
use sea_orm::{ConnectionTrait, QueryResult};

use crate::model::{SourceName, Tick};
use crate::store::connect::{Lane, Store, Tx};
use crate::store::error::Error;

/// The right to write for a source, and the source's logical clock. Every transaction of the subtree carries it; when another
/// owner has claimed the source since, the transaction fails with [`crate::store::Kind::Fenced`] and the subtree stops.
#[derive(Clone, Debug)]
pub struct Fence {
    source: SourceName,
    epoch: i64,
    counter: Arc<AtomicI64>,
}

impl Fence {
    /// Whose.
    #[must_use]
    pub fn source(&self) -> &SourceName {
        &self.source
    }

    /// The incarnation of its owner.
    #[must_use]
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// The next instant of the logical clock. A read takes one when its request is issued.
    #[must_use]
    pub fn tick(&self) -> Tick {
        Tick { epoch: self.epoch, counter: self.counter.fetch_add(1, Ordering::Relaxed) + 1 }
    }

    /// Locks the source's row and returns the next free change number. 0 rows: fenced.
    pub(crate) async fn lock(&self, tx: &Tx<'_>) -> Result<i64, Error> {
        self.allocate(tx, 0).await
    }

    /// Takes `n` change numbers under the lock; returns the next free one.
    pub(crate) async fn allocate(&self, tx: &Tx<'_>, n: i64) -> Result<i64, Error> {
        let update = Query::update()
            .table("instep_source")
            .value("next_change", Expr::col("next_change").add(n))
            .and_where(Expr::col("name").eq(self.source.as_str()))
            .and_where(Expr::col("epoch").eq(self.epoch))
            .returning_col("next_change")
            .take();
        match tx.db.query_one(&update).await? {
            Some(row) => Ok(next(&row)?),
            None => Err(Error::fenced(self.source.as_str())),
        }
    }
}

fn next(row: &QueryResult) -> Result<i64, sea_orm::DbErr> {
    row.try_get("", "next_change")
}

impl Store {
    /// Takes a source over: raises its epoch, so that nothing that a former owner still does can be committed.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn claim(&self, source: &SourceName, owner: &str) -> Result<Fence, Error> {
        self.run(|| self.claim_once(source, owner)).await
    }

    async fn claim_once(&self, source: &SourceName, owner: &str) -> Result<Fence, Error> {
        let tx = self.begin(Lane::Work, "claim").await?;
        let now = self.now().0;
        let claim = Query::insert()
            .into_table("instep_source")
            .columns(["name", "epoch", "owner", "next_change", "claimed_at"])
            .values_panic([source.as_str().into(), 1.into(), owner.into(), 1.into(), now.into()])
            .on_conflict(
                OnConflict::column("name")
                    .value("epoch", Expr::col(("instep_source", "epoch")).add(1))
                    .update_columns(["owner", "claimed_at"])
                    .to_owned(),
            )
            .returning_col("epoch")
            .take();
        let row = tx.db.query_one(&claim).await?;
        let epoch = row.map(|row| row.try_get("", "epoch")).transpose()?.unwrap_or(1);
        tx.commit().await?;
        Ok(Fence { source: source.clone(), epoch, counter: Arc::new(AtomicI64::new(0)) })
    }
}
