//! Webhook registrations made upstream, and the secrets that their deliveries are signed with.

use std::time::Duration;

use sea_orm::sea_query::{Condition, Expr, ExprTrait, OnConflict, Order, Query};
use sea_orm::{ConnectionTrait, FromQueryResult, Value};

use crate::connectors::{HookSecret, SecretForm};
use crate::model::SourceName;
use crate::store::connect::{Lane, Store};
use crate::store::error::Error;
use crate::store::fence::Fence;
use crate::store::invitations::StoredInvitation;
use crate::store::sql::{clean, of_source};

/// How long a replaced secret stays valid: retries signed with it are genuine.
const REPLACED_VALID: Duration = Duration::from_secs(72 * 3600);

/// A registration as we know it. Its secret is never printed.
#[derive(Clone, PartialEq, Eq, FromQueryResult)]
pub struct StoredRegistration {
    /// The route below `/hooks/{source}/`.
    pub route: String,
    /// The upstream's id.
    pub upstream_id: String,
    /// What its deliveries are signed with.
    pub secret: Option<String>,
    /// When we stored it, in microseconds.
    pub created_at: i64,
    /// When another one took its place.
    pub replaced_at: Option<i64>,
    /// What the upstream says about it.
    pub state: String,
    /// When it was last seen to be delivered to; `None`: never since this is noted.
    pub healthy_at: Option<i64>,
}

impl StoredRegistration {
    /// Whether none has taken its place, and nobody has removed it by way of us.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.replaced_at.is_none()
    }
}

impl std::fmt::Debug for StoredRegistration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredRegistration")
            .field("route", &self.route)
            .field("upstream_id", &self.upstream_id)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Stores a registration. Others of the same route count as replaced from now on; their secrets stay valid for 72 h.
    ///
    /// # Errors
    /// [`crate::store::Kind::Fenced`], [`crate::store::Kind::Unavailable`].
    pub async fn put_registration(
        &self,
        fence: &Fence,
        route: &str,
        upstream_id: &str,
        secret: Option<&str>,
        state: &str,
    ) -> Result<(), Error> {
        self.run(|| async {
            let tx = self.begin(Lane::Work, "put_registration").await?;
            fence.lock(&tx).await?;
            let now = self.now().0;
            let replace = Query::update()
                .table("instep_registration")
                .value("replaced_at", now)
                .and_where(of_source(fence.source()))
                .and_where(Expr::col("route").eq(route))
                .and_where(Expr::col("upstream_id").ne(upstream_id))
                .and_where(Expr::col("replaced_at").is_null())
                .take();
            tx.db.execute(&replace).await?;
            let values: [Value; 6] = [
                fence.source().as_str().into(),
                route.into(),
                upstream_id.into(),
                secret.map(str::to_owned).into(),
                now.into(),
                clean(state).into(),
            ];
            let insert = Query::insert()
                .into_table("instep_registration")
                .columns(["source", "route", "upstream_id", "secret", "created_at", "state"])
                .values_panic(values.into_iter().map(Expr::val))
                .on_conflict(
                    OnConflict::columns(["source", "route", "upstream_id"])
                        .update_column("state")
                        .value("replaced_at", Option::<i64>::None)
                        .value("secret", Expr::cust("coalesce(excluded.secret, instep_registration.secret)"))
                        .to_owned(),
                )
                .take();
            tx.db.execute(&insert).await?;
            tx.commit().await
        })
        .await
    }

    /// Notes that a registration is gone upstream; its secret stays valid for 72 h.
    ///
    /// # Errors
    /// [`crate::store::Kind::Fenced`], [`crate::store::Kind::Unavailable`].
    pub async fn drop_registration(&self, fence: &Fence, upstream_id: &str) -> Result<(), Error> {
        self.run(|| async {
            let tx = self.begin(Lane::Work, "drop_registration").await?;
            fence.lock(&tx).await?;
            let update = Query::update()
                .table("instep_registration")
                .value("replaced_at", self.now().0)
                .value("state", "deleted")
                .and_where(of_source(fence.source()))
                .and_where(Expr::col("upstream_id").eq(upstream_id))
                .and_where(Expr::col("replaced_at").is_null())
                .take();
            tx.db.execute(&update).await?;
            tx.commit().await
        })
        .await
    }

    /// Notes that these registrations were seen to be delivered to now.
    ///
    /// # Errors
    /// [`crate::store::Kind::Fenced`], [`crate::store::Kind::Unavailable`].
    pub async fn note_healthy(&self, fence: &Fence, upstream_ids: &[&str]) -> Result<(), Error> {
        self.run(|| async {
            let tx = self.begin(Lane::Work, "note_healthy").await?;
            fence.lock(&tx).await?;
            let update = Query::update()
                .table("instep_registration")
                .value("healthy_at", self.now().0)
                .and_where(of_source(fence.source()))
                .and_where(Expr::col("upstream_id").is_in(upstream_ids.iter().copied()))
                .take();
            tx.db.execute(&update).await?;
            tx.commit().await
        })
        .await
    }

    /// The registrations of a source, with those that were replaced less than 72 h ago.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn registrations(&self, source: &SourceName) -> Result<Vec<StoredRegistration>, Error> {
        let mut select = Query::select();
        select.columns(["route", "upstream_id", "secret", "created_at", "replaced_at", "state", "healthy_at"]).from("instep_registration");
        let valid =
            Condition::any().add(Expr::col("replaced_at").is_null()).add(Expr::col("replaced_at").gt(self.now().minus(REPLACED_VALID).0));
        select.and_where(of_source(source)).cond_where(valid);
        select.order_by("route", Order::Asc).order_by("created_at", Order::Desc);
        let rows = self.reader().query_all(&select).await?;
        rows.iter().map(|row| Ok(StoredRegistration::from_query_result(row, "")?)).collect()
    }

    /// The secrets by which deliveries of a source are verified, from the database as it stands.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn hook_secrets(&self, source: &SourceName) -> Result<Vec<HookSecret>, Error> {
        let registrations = self.registrations(source).await?;
        let secret = |registration: StoredRegistration| {
            registration.secret.map(|text| HookSecret { route: Some(registration.route), text, form: SecretForm::Whole })
        };
        let mut secrets: Vec<HookSecret> = registrations.into_iter().filter_map(secret).collect();
        let invitations = self.invitations(source).await?.into_iter().filter(StoredInvitation::is_live);
        secrets.extend(invitations.map(|one| HookSecret { route: Some(one.route), text: one.token_sha256, form: SecretForm::Digest }));
        Ok(secrets)
    }
}
