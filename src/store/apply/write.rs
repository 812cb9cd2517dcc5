//! Writing what a weighed batch left, in key order.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sea_orm::sea_query::{Expr, ExprTrait, OnConflict, Query};
use sea_orm::{ConnectionTrait, Value};

use crate::clock::Timestamp;
use crate::failpoint;
use crate::model::document::changed_fields;
use crate::model::{Entity, ResourceName, SourceName, Version};
use crate::store::apply::fold::{Alive, Before, Done, Slot};
use crate::store::apply::{Batch, Context};
use crate::store::cascade::Cause;
use crate::store::connect::{Engine, Tx};
use crate::store::error::Error;
use crate::store::fence::Fence;
use crate::store::quarantine::{QuarantineKind, Refusal};
use crate::store::rows::version_columns;
use crate::store::sql::{groups, of_resource, padded};
use crate::store::{cascade, deliveries, feeds, logs, passes, quarantine};

/// Everything of the batch; resources whose rows are to be marked because of what stands above them.
pub(crate) async fn all(tx: &Tx<'_>, fence: &Fence, batch: &Batch, done: &Done, now: Timestamp) -> Result<BTreeSet<ResourceName>, Error> {
    let context = Context { tx, fence, now };
    changes(&context, batch, done).await?;
    if !done.changes.is_empty() {
        failpoint::reach("apply", "changes_written").await?;
    }
    entities(&context, done).await?;
    if !done.changes.is_empty() {
        failpoint::reach("apply", "rows_written").await?;
    }
    marks(&context, done).await?;
    if done.slots.values().any(|slot| slot.mark_touched) {
        failpoint::reach("apply", "marks_written").await?;
    }
    let causes = done.causes.iter().map(|(resource, causes)| (resource, causes.iter().map(|(key, cause)| (key.as_str(), *cause))));
    let mut descents = BTreeSet::new();
    for (resource, causes) in causes {
        let causes: Vec<_> = causes.collect();
        for (child, rules) in batch.rules.iter().filter(|(_, rules)| rules.parent.as_ref() == Some(resource)) {
            let reaches = |(_, cause): &&(&str, Cause)| rules.inherits || cause.removed();
            let causes: Vec<_> = causes.iter().filter(reaches).copied().collect();
            descents.extend(cascade::note(tx, fence, std::iter::once(child), &causes, 0).await?);
        }
    }
    if !descents.is_empty() {
        failpoint::reach("apply", "cascades_written").await?;
    }
    outcomes(&context, done).await?;
    refused(&context, batch, done).await?;
    alive(&context, &done.alive).await?;
    deliveries::end(&context, &batch.deliveries).await?;
    if !batch.deliveries.is_empty() {
        failpoint::reach("apply", "deliveries_written").await?;
    }
    if let Some(step) = &batch.pass {
        passes::step(&context, step).await?;
        let seen: Vec<_> = done.refused.iter().map(|refused| refused.entity.key.as_str()).collect();
        passes::note_seen(&context, &passes::seen_label(&step.id), &seen).await?;
        failpoint::reach("apply", "page_written").await?;
    }
    if let Some(step) = &batch.feed {
        feeds::step(&context, step).await?;
        failpoint::reach("apply", "feed_written").await?;
    }
    if let Some(step) = &batch.log {
        logs::step(&context, step).await?;
        failpoint::reach("apply", "log_written").await?;
    }
    Ok(descents)
}

async fn changes(context: &Context<'_>, batch: &Batch, done: &Done) -> Result<(), Error> {
    let old = stored_payloads(context, done).await?;
    let source = context.fence.source().as_str();
    let mut rows: Vec<[Value; 12]> = Vec::with_capacity(done.changes.len());
    for change in &done.changes {
        let roots = batch.rules.get(&change.entity.resource).map(|rules| rules.roots.iter().map(String::as_str).collect());
        let roots: Vec<&str> = roots.unwrap_or_default();
        let before = match &change.before {
            Before::Nothing => None,
            Before::Stored => old.get(&change.entity).map(String::as_str),
            Before::Text(text) => Some(&**text),
        };
        let changed = match (before, &change.after) {
            (Some(before), Some(after)) => changed_fields(before, after, &roots),
            _ => Vec::new(),
        };
        let changed = serde_json::Value::from(changed).to_string();
        rows.push([
            source.into(),
            change.number.into(),
            context.fence.epoch().into(),
            change.entity.resource.as_str().into(),
            change.entity.key.as_str().into(),
            change.operation.into(),
            change.version.as_ref().map(Version::text).into(),
            change.upstream_at.map(|at| at.0).into(),
            context.now.0.into(),
            batch.learned_by.as_str().into(),
            change.delivery.map(|id| id.0.to_string()).into(),
            changed.into(),
        ]);
    }
    let mut at = 0;
    for group in groups(&rows) {
        let mut insert = Query::insert();
        insert.into_table("instep_change").columns([
            "source",
            "number",
            "epoch",
            "resource",
            "key",
            "operation",
            "version",
            "upstream_at",
            "at",
            "learned_by",
            "delivery_id",
            "changed",
            "unannounced",
        ]);
        for row in group {
            let unannounced = done.changes[at].unannounced;
            at += 1;
            let mut values: Vec<Expr> = row[..11].iter().cloned().map(Expr::val).collect();
            values.push(json(context.tx.engine, row[11].clone()));
            values.push(unannounced.into());
            insert.values_panic(values);
        }
        context.tx.db.execute(&insert).await?;
    }
    Ok(())
}

/// Text on its way into a JSON column.
fn json(engine: Engine, text: Value) -> Expr {
    match engine {
        Engine::Sqlite => Expr::val(text),
        Engine::Postgres => Expr::val(text).cast_as("jsonb"),
    }
}

/// The payloads that this batch replaces; only of rows that really change.
async fn stored_payloads(context: &Context<'_>, done: &Done) -> Result<HashMap<Entity, String>, Error> {
    let mut wanted: BTreeMap<&ResourceName, Vec<&Entity>> = BTreeMap::new();
    for change in done.changes.iter().filter(|change| matches!(change.before, Before::Stored)) {
        wanted.entry(&change.entity.resource).or_default().push(&change.entity);
    }
    let mut payloads = HashMap::new();
    for (resource, entities) in wanted {
        let mut select = Query::select();
        select.column("key").expr_as(Expr::col("payload").cast_as("text"), "payload").from("instep_entity");
        select.and_where(of_resource(context.fence.source(), resource));
        select.and_where(Expr::col("key").is_in(padded(entities.iter().map(|entity| entity.key.as_str()))));
        let mut found: HashMap<String, String> = HashMap::new();
        for row in context.tx.db.query_all(&select).await? {
            if let Some(payload) = row.try_get::<Option<String>>("", "payload")? {
                found.insert(row.try_get("", "key")?, payload);
            }
        }
        for entity in entities {
            if let Some(payload) = found.remove(entity.key.as_str()) {
                payloads.insert(entity.clone(), payload);
            }
        }
    }
    Ok(payloads)
}

const ENTITY: [&str; 21] = [
    "source",
    "resource",
    "key",
    "version",
    "version_field",
    "version_value",
    "version_precision",
    "hash",
    "deleted_at",
    "deleted_reason",
    "tick_epoch",
    "tick_counter",
    "first_change",
    "last_change",
    "looked_at",
    "hot_ms",
    "parent",
    "compared_at",
    "changed_at",
    "payload",
    "raw",
];
/// How many of [`ENTITY`] stand before the content.
const WITHOUT_CONTENT: usize = 18;
/// Where the version begins, after the key.
const AFTER_KEY: usize = 3;

async fn entities(context: &Context<'_>, done: &Done) -> Result<(), Error> {
    let touched: Vec<_> = done.slots.iter().filter(|(_, slot)| slot.row_touched && slot.row.is_some()).collect();
    let (whole, rest): (Vec<_>, Vec<_>) = touched.into_iter().partition(|(_, slot)| slot.content.is_some() || slot.drop_payload);
    for (slots, updated) in [(whole, &ENTITY[AFTER_KEY..]), (rest, &ENTITY[AFTER_KEY..WITHOUT_CONTENT])] {
        for group in groups(&slots) {
            let mut insert = Query::insert();
            insert.into_table("instep_entity").columns(ENTITY);
            for (entity, slot) in group {
                insert.values_panic(entity_values(context, entity, slot));
            }
            let mut conflict = OnConflict::columns(["source", "resource", "key"]);
            conflict.update_columns(updated.iter().copied().filter(|column| *column != "deleted_reason"));
            // A tombstone that is only looked at again keeps its reason.
            let reason = Expr::cust(
                "case when excluded.deleted_at is null then null else coalesce(excluded.deleted_reason, instep_entity.deleted_reason) end",
            );
            conflict.value("deleted_reason", reason);
            insert.on_conflict(conflict);
            context.tx.db.execute(&insert).await?;
        }
    }
    Ok(())
}

fn entity_values(context: &Context<'_>, entity: &Entity, slot: &Slot) -> Vec<Expr> {
    let row = slot.row.as_ref();
    let version = row.and_then(|row| row.version.as_ref());
    let (field, value, precision) = version_columns(version);
    let tick = row.map(|row| row.tick).unwrap_or_default();
    let content = slot.content.as_ref();
    let payload: Option<String> = content.map(|content| content.document.text.to_string());
    let raw: Option<Vec<u8>> = content.and_then(|content| content.document.raw.as_ref()).map(|raw| raw.to_vec());
    let values: [Value; WITHOUT_CONTENT] = [
        context.fence.source().as_str().into(),
        entity.resource.as_str().into(),
        entity.key.as_str().into(),
        version.map(Version::text).into(),
        field.into(),
        value.into(),
        precision.into(),
        row.and_then(|row| row.hash).map(|hash| hash.0.to_vec()).into(),
        slot.deleted.map(|(at, _)| at).into(),
        slot.deleted.map(|(_, reason)| reason).filter(|reason| !reason.is_empty()).map(str::to_owned).into(),
        tick.epoch.into(),
        tick.counter.into(),
        slot.first_change.into(),
        slot.last_change.into(),
        slot.looked_at.into(),
        slot.hot_ms.into(),
        slot.parent.clone().into(),
        slot.compared_at.into(),
    ];
    let mut values: Vec<Expr> = values.into_iter().map(Expr::val).collect();
    values.push(Expr::val(content.and_then(|content| content.changed_at).map(|at| at.0)));
    values.push(json(context.tx.engine, payload.into()));
    values.push(Expr::val(raw));
    values
}

const MARK: [&str; 22] = [
    "source",
    "resource",
    "key",
    "reason",
    "hint_field",
    "hint_value",
    "hint_precision",
    "versionless",
    "announced_delete",
    "last_hint_at",
    "tick_epoch",
    "tick_counter",
    "attempts",
    "not_before",
    "agreeing_hash",
    "agreeing_epoch",
    "agreeing_counter",
    "agreeing_since",
    "missing_since",
    "confirm",
    "held",
    "note",
];

async fn marks(context: &Context<'_>, done: &Done) -> Result<(), Error> {
    let source = context.fence.source();
    let touched: Vec<_> = done.slots.iter().filter(|(_, slot)| slot.mark_touched).collect();
    let (set, cleared): (Vec<_>, Vec<_>) = touched.into_iter().partition(|(_, slot)| slot.mark.is_some());
    let mut by_resource: BTreeMap<&ResourceName, Vec<&str>> = BTreeMap::new();
    for (entity, _) in cleared {
        by_resource.entry(&entity.resource).or_default().push(entity.key.as_str());
    }
    for (resource, keys) in by_resource {
        let mut delete = Query::delete();
        delete.from_table("instep_mark").and_where(of_resource(source, resource));
        delete.and_where(Expr::col("key").is_in(padded(keys)));
        context.tx.db.execute(&delete).await?;
    }
    for group in groups(&set) {
        let mut insert = Query::insert();
        insert.into_table("instep_mark").columns(MARK);
        for (entity, slot) in group {
            insert.values_panic(mark_values(source, entity, slot));
        }
        insert.on_conflict(
            OnConflict::columns(["source", "resource", "key"]).update_columns(MARK.iter().copied().skip(AFTER_KEY)).to_owned(),
        );
        context.tx.db.execute(&insert).await?;
    }
    Ok(())
}

fn mark_values(source: &SourceName, entity: &Entity, slot: &Slot) -> Vec<Expr> {
    let (mark, book) = (slot.mark.as_ref(), &slot.book);
    let (field, value, precision) = version_columns(mark.and_then(|mark| mark.hint.as_ref()));
    let tick = mark.map(|mark| mark.tick).unwrap_or_default();
    let agreeing = mark.and_then(|mark| mark.agreeing.as_ref());
    let values: [Value; 22] = [
        source.as_str().into(),
        entity.resource.as_str().into(),
        entity.key.as_str().into(),
        book.reason.as_str().into(),
        field.into(),
        value.into(),
        precision.into(),
        mark.is_some_and(|mark| mark.versionless).into(),
        mark.is_some_and(|mark| mark.announced_delete).into(),
        mark.map(|mark| mark.last_hint_at.0).unwrap_or_default().into(),
        tick.epoch.into(),
        tick.counter.into(),
        book.attempts.into(),
        book.not_before.into(),
        agreeing.map(|agreeing| agreeing.hash.0.to_vec()).into(),
        agreeing.map(|agreeing| agreeing.tick.epoch).into(),
        agreeing.map(|agreeing| agreeing.tick.counter).into(),
        agreeing.map(|agreeing| agreeing.since.0).into(),
        book.missing_since.into(),
        book.confirm.into(),
        book.held.into(),
        book.note.clone().into(),
    ];
    values.into_iter().map(Expr::val).collect()
}

async fn outcomes(context: &Context<'_>, done: &Done) -> Result<(), Error> {
    for group in groups(&done.outcomes) {
        let mut insert = Query::insert();
        insert.into_table("instep_outcome");
        insert.columns(["source", "via", "delivery_id", "resource", "key", "operation", "received_at", "outcome", "reason"]);
        for outcome in group {
            let values: [Value; 9] = [
                context.fence.source().as_str().into(),
                outcome.via.into(),
                outcome.delivery.map(|id| id.0.to_string()).into(),
                outcome.entity.resource.as_str().into(),
                outcome.entity.key.as_str().into(),
                outcome.operation.into(),
                context.now.0.into(),
                outcome.outcome.into(),
                outcome.reason.into(),
            ];
            insert.values_panic(values.into_iter().map(Expr::val));
        }
        context.tx.db.execute(&insert).await?;
    }
    Ok(())
}

async fn refused(context: &Context<'_>, batch: &Batch, done: &Done) -> Result<(), Error> {
    let keyed = done.refused.iter().map(|refused| {
        let Entity { resource, key } = &refused.entity;
        (resource, Some(key), &refused.unreadable, refused.delivery)
    });
    let keyless = batch.keyless.iter().map(|(resource, unreadable)| (resource, unreadable.key.as_ref(), unreadable, None));
    for (resource, key, unreadable, delivery) in keyed.chain(keyless) {
        let refusal = Refusal {
            kind: QuarantineKind::Record,
            resource: Some(resource.as_str()),
            key: key.map(|key| key.as_str()),
            reason: &unreadable.reason,
            body: Some(&unreadable.raw),
            delivery,
        };
        quarantine::put(context, &refusal).await?;
    }
    Ok(())
}

/// Notes per resource the newest stamp and a key that was just seen alive (the control of a removal).
async fn alive(context: &Context<'_>, alive: &BTreeMap<ResourceName, Alive>) -> Result<(), Error> {
    for (resource, alive) in alive {
        let newest: Option<i64> = alive.newest.map(|at| at.0);
        let mut insert = Query::insert();
        insert.into_table("instep_progress").columns(["source", "resource", "live_as_of", "control_key", "bulk_unsupported"]);
        let source = context.fence.source().as_str();
        insert.values_panic([source.into(), resource.as_str().into(), newest.into(), alive.key.clone().into(), false.into()]);
        let later = Expr::cust(
            "case when instep_progress.live_as_of is null or instep_progress.live_as_of < excluded.live_as_of \
             then excluded.live_as_of else instep_progress.live_as_of end",
        );
        insert.on_conflict(OnConflict::columns(["source", "resource"]).update_column("control_key").value("live_as_of", later).to_owned());
        context.tx.db.execute(&insert).await?;
    }
    Ok(())
}
