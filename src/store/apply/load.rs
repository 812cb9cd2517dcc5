//! Reading the rows and marks that a batch touches.

use std::collections::BTreeMap;

use sea_orm::sea_query::{Expr, ExprTrait, Query};
use sea_orm::{ConnectionTrait, FromQueryResult};

use crate::model::{Entity, ResourceName, SourceName};
use crate::store::apply::fold::Slot;
use crate::store::connect::Tx;
use crate::store::error::Error;
use crate::store::rows::{ENTITY_COLUMNS, EntityRow, MARK_COLUMNS, MarkRow};
use crate::store::sql::{of_resource, padded};

/// Fills the slots. Keys stay within both stores' variable limits, because a batch does.
pub(crate) async fn slots(tx: &Tx<'_>, source: &SourceName, slots: &mut BTreeMap<Entity, Slot>) -> Result<(), Error> {
    let mut by_resource: BTreeMap<ResourceName, Vec<Entity>> = BTreeMap::new();
    for entity in slots.keys() {
        by_resource.entry(entity.resource.clone()).or_default().push(entity.clone());
    }
    for (resource, entities) in &by_resource {
        let keys = padded(entities.iter().map(|entity| entity.key.as_str()));
        let mut rows = Query::select();
        rows.columns(ENTITY_COLUMNS).from("instep_entity").and_where(of_resource(source, resource));
        rows.and_where(Expr::col("key").is_in(keys.clone()));
        for row in tx.db.query_all(&rows).await? {
            let row = EntityRow::from_query_result(&row, "")?;
            if let Some(slot) = slot(slots, entities, &row.key) {
                slot.load_row(row);
            }
        }
        let mut marks = Query::select();
        marks.columns(MARK_COLUMNS).from("instep_mark").and_where(of_resource(source, resource));
        marks.and_where(Expr::col("key").is_in(keys));
        for row in tx.db.query_all(&marks).await? {
            let row = MarkRow::from_query_result(&row, "")?;
            if let Some(slot) = slot(slots, entities, &row.key) {
                slot.load_mark(row);
            }
        }
    }
    Ok(())
}

/// `entities` is sorted, as it comes out of the map.
fn slot<'a>(slots: &'a mut BTreeMap<Entity, Slot>, entities: &[Entity], key: &str) -> Option<&'a mut Slot> {
    let at = entities.binary_search_by(|entity| entity.key.as_str().cmp(key)).ok()?;
    slots.get_mut(&entities[at])
}
