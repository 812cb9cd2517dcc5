//! What is held of many entities at once, which of them to look at, and the withdrawal of trust in rows that were found wrong.

use std::collections::HashMap;

use sea_orm::sea_query::{Expr, ExprTrait, Func, Order, Query};
use sea_orm::{ConnectionTrait, FromQueryResult};

use crate::model::{Entity, Key, ResourceName, SourceName};
use crate::store::connect::{Lane, Store};
use crate::store::error::Error;
use crate::store::fence::Fence;
use crate::store::marks::{MarkReason, renew};
use crate::store::removals::live;
use crate::store::rows::{ENTITY_COLUMNS, EntityRow, MARK_COLUMNS, MarkRow};
use crate::store::sql::{of_resource, padded};
use crate::store::status::Replica;

/// Keys of one statement.
const KEYS_MAX: usize = 200;

impl Store {
    /// What is held of these entities; those of which nothing is are left out.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn replicas(&self, source: &SourceName, resource: &ResourceName, keys: &[Key]) -> Result<HashMap<Key, Replica>, Error> {
        let mut held: HashMap<Key, Replica> = HashMap::new();
        let key = |text: &str| Key::new(text).map_err(|_| Error::new(crate::store::Kind::Bug, "a stored key is no key"));
        for group in keys.chunks(KEYS_MAX) {
            let of_group = of_resource(source, resource).and(Expr::col("key").is_in(padded(group.iter().map(Key::as_str))));
            let mut select = Query::select();
            select.columns(ENTITY_COLUMNS).expr_as(Expr::col("payload").cast_as("text"), "payload").from("instep_entity");
            for row in self.reader().query_all(select.and_where(of_group.clone())).await? {
                let entity = EntityRow::from_query_result(&row, "")?;
                let replica = Replica { row: Some(entity.row()), mark: None, payload: row.try_get("", "payload")? };
                held.insert(key(&entity.key)?, replica);
            }
            let mut select = Query::select();
            select.columns(MARK_COLUMNS).from("instep_mark").and_where(of_group);
            for row in self.reader().query_all(&select).await? {
                let row = MarkRow::from_query_result(&row, "")?;
                let empty = || Replica { row: None, mark: None, payload: None };
                held.entry(key(&row.key)?).or_insert_with(empty).mark = Some(row.mark());
            }
        }
        Ok(held)
    }

    /// Keys of live rows in their order, those behind `after`.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn live_keys(&self, source: &SourceName, resource: &ResourceName, after: Option<&Key>, n: u64) -> Result<Vec<Key>, Error> {
        let mut select = live(source, resource);
        select.column("key").order_by("key", Order::Asc).limit(n);
        if let Some(after) = after {
            select.and_where(Expr::col("key").gt(after.as_str()));
        }
        self.keys(&select).await
    }

    /// So many keys of live rows, chosen at random; looks at every one of them.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn random_keys(&self, source: &SourceName, resource: &ResourceName, n: u64) -> Result<Vec<Key>, Error> {
        let mut select = live(source, resource);
        select.column("key").order_by_expr(Func::random().into(), Order::Asc).limit(n);
        self.keys(&select).await
    }

    /// Rows that were found to say something else than the upstream lose version and hash, and are marked: the next read by key decides
    /// what they hold, whatever version it shows, and also where the hash was right and the payload was not. In one transaction; at
    /// most 200 keys.
    ///
    /// # Errors
    /// [`crate::store::Kind::Fenced`], [`crate::store::Kind::Unavailable`].
    pub async fn distrust(&self, fence: &Fence, resource: &ResourceName, keys: &[Key]) -> Result<(), Error> {
        let mut keys = keys.to_vec();
        keys.sort();
        keys.dedup();
        self.run(|| self.distrust_once(fence, resource, &keys)).await
    }

    async fn distrust_once(&self, fence: &Fence, resource: &ResourceName, keys: &[Key]) -> Result<(), Error> {
        let tx = self.begin(Lane::Work, "distrust").await?;
        fence.lock(&tx).await?;
        let mut update = Query::update();
        update.table("instep_entity");
        for column in ["version_field", "version_value", "version_precision", "hash"] {
            update.value(column, Expr::cust("null"));
        }
        update.and_where(of_resource(fence.source(), resource)).and_where(Expr::cust("deleted_at is null"));
        update.and_where(Expr::col("key").is_in(padded(keys.iter().map(Key::as_str))));
        tx.db.execute(&update).await?;
        let entities: Vec<Entity> = keys.iter().map(|key| Entity { resource: resource.clone(), key: key.clone() }).collect();
        let now = self.now();
        renew(&tx, fence, &entities, MarkReason::Refresh, (now, now)).await?;
        tx.commit().await
    }
}
