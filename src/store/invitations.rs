//! Invitations: tokens of ours that senders show, known by their SHA-256 alone.

use sea_orm::sea_query::{Expr, ExprTrait, OnConflict, Order, Query};
use sea_orm::{ConnectionTrait, FromQueryResult, Value};

use crate::model::SourceName;
use crate::store::connect::{Lane, Store};
use crate::store::error::Error;
use crate::store::fence::Fence;
use crate::store::sql::of_source;

/// So many live at once: the one in use, and the one that is to take its place.
pub const INVITATIONS_MAX: usize = 2;

/// An invitation as we know it: without its token.
#[derive(Clone, PartialEq, Eq, FromQueryResult)]
pub struct StoredInvitation {
    /// What it is called in verbs.
    pub id: String,
    /// The route below `/hooks/{source}/` it was made for.
    pub route: String,
    /// Lower-case hex SHA-256 of its token.
    pub token_sha256: String,
    /// When it was made, in microseconds.
    pub created_at: i64,
    /// When it was ended.
    pub revoked_at: Option<i64>,
}

impl StoredInvitation {
    /// Whether its token is let in.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.revoked_at.is_none()
    }
}

impl std::fmt::Debug for StoredInvitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredInvitation").field("id", &self.id).field("route", &self.route).finish_non_exhaustive()
    }
}

/// What became of a wish to invite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invited {
    /// It stands.
    Made,
    /// These live already, and no more may.
    Full(Vec<StoredInvitation>),
}

impl Store {
    /// Stores an invitation, unless [`INVITATIONS_MAX`] others live.
    ///
    /// # Errors
    /// [`crate::store::Kind::Fenced`], [`crate::store::Kind::Unavailable`].
    pub async fn put_invitation(&self, fence: &Fence, id: &str, route: &str, token_sha256: &str) -> Result<Invited, Error> {
        self.run(|| async {
            let tx = self.begin(Lane::Work, "put_invitation").await?;
            fence.lock(&tx).await?;
            let mut select = select(fence.source());
            // An earlier try whose outcome was not heard is no other one.
            select.and_where(Expr::col("revoked_at").is_null()).and_where(Expr::col("id").ne(id));
            let rows = tx.db.query_all(&select).await?;
            if rows.len() >= INVITATIONS_MAX {
                return Ok(Invited::Full(read(&rows)?));
            }
            let values: [Value; 5] = [fence.source().as_str().into(), id.into(), route.into(), token_sha256.into(), self.now().0.into()];
            let insert = Query::insert()
                .into_table("instep_invitation")
                .columns(["source", "id", "route", "token_sha256", "created_at"])
                .values_panic(values.into_iter().map(Expr::val))
                .on_conflict(OnConflict::columns(["source", "id"]).do_nothing().to_owned())
                .take();
            tx.db.execute(&insert).await?;
            tx.commit().await?;
            Ok(Invited::Made)
        })
        .await
    }

    /// Ends an invitation; whether there is one of that id. One that has ended already stays as it is.
    ///
    /// # Errors
    /// [`crate::store::Kind::Fenced`], [`crate::store::Kind::Unavailable`].
    pub async fn revoke_invitation(&self, fence: &Fence, id: &str) -> Result<bool, Error> {
        self.run(|| async {
            let tx = self.begin(Lane::Work, "revoke_invitation").await?;
            fence.lock(&tx).await?;
            let update = Query::update()
                .table("instep_invitation")
                .value("revoked_at", Expr::col("revoked_at").if_null(self.now().0))
                .and_where(of_source(fence.source()))
                .and_where(Expr::col("id").eq(id))
                .take();
            let is_known = tx.db.execute(&update).await?.rows_affected() == 1;
            tx.commit().await?;
            Ok(is_known)
        })
        .await
    }

    /// The invitations of a source, the newest first, with those that were ended.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn invitations(&self, source: &SourceName) -> Result<Vec<StoredInvitation>, Error> {
        read(&self.reader().query_all(&select(source)).await?)
    }
}

fn select(source: &SourceName) -> sea_orm::sea_query::SelectStatement {
    let mut select = Query::select();
    select.columns(["id", "route", "token_sha256", "created_at", "revoked_at"]).from("instep_invitation");
    select.and_where(of_source(source)).order_by("created_at", Order::Desc).order_by("id", Order::Asc);
    select
}

fn read(rows: &[sea_orm::QueryResult]) -> Result<Vec<StoredInvitation>, Error> {
    rows.iter().map(|row| Ok(StoredInvitation::from_query_result(row, "")?)).collect()
}
