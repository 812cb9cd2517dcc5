//! A record that was read before what stands above it was looked at last, and is applied after it.
//!
//! Its state may be from before a change above it, and the cascade of that change may have gone by before the record stood below
//! that parent. So it is looked at again.

use std::collections::{BTreeMap, HashMap};

use sea_orm::ConnectionTrait;
use sea_orm::sea_query::{Expr, ExprTrait, Query};

use crate::model::ordering::MarkAction;
use crate::model::{Entity, Key, ResourceName, SourceName, Tick};
use crate::store::apply::fold::{Fold, MarkBook};
use crate::store::connect::Tx;
use crate::store::error::Error;
use crate::store::marks::MarkReason;
use crate::store::sql::{of_resource, padded};

/// A record whose state was applied below another.
#[derive(Debug)]
pub(crate) struct Below {
    pub(crate) entity: Entity,
    pub(crate) parent: (ResourceName, Key),
    /// When the read of it was issued.
    pub(crate) tick: Tick,
}

/// Marks what was overtaken.
pub(crate) async fn mark(tx: &Tx<'_>, source: &SourceName, fold: &mut Fold<'_>) -> Result<(), Error> {
    let below = std::mem::take(&mut fold.below);
    let mut parents: BTreeMap<&ResourceName, Vec<&str>> = BTreeMap::new();
    for one in &below {
        parents.entry(&one.parent.0).or_default().push(one.parent.1.as_str());
    }
    for (resource, keys) in parents {
        let looked_at = ticks(tx, source, resource, keys).await?;
        for one in below.iter().filter(|one| one.parent.0 == *resource) {
            if looked_at.get(one.parent.1.as_str()).is_some_and(|tick| *tick > one.tick) {
                fold.look_again(&one.entity);
            }
        }
    }
    Ok(())
}

/// When records were last read, or marked to be read.
async fn ticks(tx: &Tx<'_>, source: &SourceName, resource: &ResourceName, keys: Vec<&str>) -> Result<HashMap<String, Tick>, Error> {
    let mut ticks: HashMap<String, Tick> = HashMap::new();
    let keys = padded(keys);
    for table in ["instep_entity", "instep_mark"] {
        let mut select = Query::select();
        select.columns(["key", "tick_epoch", "tick_counter"]).from(table).and_where(of_resource(source, resource));
        select.and_where(Expr::col("key").is_in(keys.clone()));
        for row in tx.db.query_all(&select).await? {
            let tick = Tick { epoch: row.try_get("", "tick_epoch")?, counter: row.try_get("", "tick_counter")? };
            let known = ticks.entry(row.try_get("", "key")?).or_default();
            *known = Ord::max(*known, tick);
        }
    }
    Ok(ticks)
}

impl Fold<'_> {
    fn look_again(&mut self, entity: &Entity) {
        let Some(slot) = self.slots.get_mut(entity) else { return };
        let had_mark = slot.mark.is_some();
        let again = MarkAction::Set { hint: None, announced_delete: false };
        slot.mark = again.applied_to(slot.mark.take(), self.fresh, self.now);
        slot.mark_touched = true;
        if !had_mark {
            let not_before = slot.rested(self.now.plus(self.batch.linger), self.now);
            slot.book = MarkBook { reason: MarkReason::Parent.as_str().to_owned(), not_before, ..MarkBook::default() };
        }
        self.done.applied.marks_set.insert(entity.resource.clone());
    }
}
