//! Weighing a batch in memory: every observation meets the row and mark that the ones before it left.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::connectors::Unreadable;
use crate::model::ordering::{self, Mark, MarkAction, Observation, Reason, Row, RowAction, Started, Verdict};
use crate::model::{DeliveryId, Document, Entity, Key, ResourceName, Tick, Version};
use crate::store::apply::overtaken::Below;
use crate::store::apply::reasons::{mark_reason, why};
use crate::store::apply::seen::{by_key, compared_at, content, observation};
use crate::store::apply::{Applied, Batch, Observed, ResourceRules, What};
use crate::store::cascade::Cause;
use crate::store::error::{Error, Kind};
use crate::store::fence::Fence;
use crate::store::marks::MarkReason;
use crate::store::rows::{EntityRow, MarkRow};

/// A hot entity is read at most so often …
const HOT_MIN_MS: i64 = 1_000;
/// … doubling up to this while hints keep coming.
const HOT_MAX_MS: i64 = 30_000;

/// `deleted_reason` of a record that is there and is not to be held.
const OUT_OF_SCOPE: &str = "out of scope";

/// One entity during a batch.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) row: Option<Row>,
    pub(crate) mark: Option<Mark>,
    pub(crate) book: MarkBook,
    /// The state to write; `None`: the stored payload stays.
    pub(crate) content: Option<Content>,
    pub(crate) deleted: Option<(i64, &'static str)>,
    pub(crate) drop_payload: bool,
    pub(crate) row_touched: bool,
    pub(crate) mark_touched: bool,
    pub(crate) first_change: i64,
    pub(crate) last_change: i64,
    pub(crate) looked_at: Option<i64>,
    pub(crate) hot_ms: i64,
    /// The key of the record above it, as the last read showed it.
    pub(crate) parent: Option<String>,
    /// When the last read was issued that showed what is held.
    pub(crate) compared_at: Option<i64>,
}

/// What a mark carries beside what the rule knows.
#[derive(Debug, Default)]
pub(crate) struct MarkBook {
    pub(crate) reason: String,
    pub(crate) attempts: i64,
    pub(crate) not_before: i64,
    pub(crate) missing_since: Option<i64>,
    pub(crate) confirm: bool,
    pub(crate) held: bool,
    pub(crate) note: Option<String>,
}

/// A state on its way into the table.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) document: Document,
    pub(crate) changed_at: Option<Timestamp>,
}

/// The state that a change replaces.
#[derive(Debug)]
pub(crate) enum Before {
    /// None: an insert, a delete, a revival.
    Nothing,
    /// What the table holds.
    Stored,
    /// What an earlier observation of the same batch left.
    Text(Box<str>),
}

/// A change row to be.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) entity: Entity,
    pub(crate) number: i64,
    pub(crate) operation: &'static str,
    pub(crate) version: Option<Version>,
    pub(crate) upstream_at: Option<Timestamp>,
    pub(crate) delivery: Option<DeliveryId>,
    pub(crate) before: Before,
    pub(crate) after: Option<Box<str>>,
    pub(crate) unannounced: bool,
}

/// A row of the log of events to be.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) entity: Entity,
    pub(crate) operation: &'static str,
    pub(crate) delivery: Option<DeliveryId>,
    pub(crate) via: &'static str,
    pub(crate) outcome: &'static str,
    pub(crate) reason: Option<&'static str>,
}

/// A record for the quarantine.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) entity: Entity,
    pub(crate) delivery: Option<DeliveryId>,
    pub(crate) unreadable: Unreadable,
}

/// What a resource's progress learns from a batch.
#[derive(Debug, Default)]
pub(crate) struct Alive {
    pub(crate) newest: Option<Timestamp>,
    pub(crate) key: Option<String>,
}

/// The outcome of weighing, to be written.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) slots: BTreeMap<Entity, Slot>,
    pub(crate) changes: Vec<Change>,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) refused: Vec<Refused>,
    pub(crate) alive: BTreeMap<ResourceName, Alive>,
    /// Rows that changed or went and whose children are to be looked at, in resources that may have children.
    pub(crate) causes: BTreeMap<ResourceName, BTreeMap<Key, Cause>>,
    pub(crate) applied: Applied,
}

/// A batch being weighed.
pub(crate) struct Fold<'a> {
    pub(crate) slots: BTreeMap<Entity, Slot>,
    pub(super) batch: &'a Batch,
    pub(super) fresh: Tick,
    pub(super) now: Timestamp,
    /// Applied states of records that stand below others.
    pub(super) below: Vec<Below>,
    next_number: i64,
    pub(super) done: Done,
}

impl Slot {
    pub(crate) fn load_row(&mut self, stored: EntityRow) {
        self.row = Some(stored.row());
        self.deleted = stored.deleted_at.map(|at| (at, ""));
        (self.first_change, self.last_change) = (stored.first_change, stored.last_change);
        (self.looked_at, self.hot_ms) = (stored.looked_at, stored.hot_ms);
        self.parent = stored.parent;
        self.compared_at = stored.compared_at;
    }

    pub(crate) fn load_mark(&mut self, stored: MarkRow) {
        self.mark = Some(stored.mark());
        let MarkRow { reason, attempts, not_before, missing_since, confirm, held, note, .. } = stored;
        self.book = MarkBook { reason, attempts, not_before, missing_since, confirm, held, note };
    }

    /// Notes what stands above the record. A push does not tell.
    fn descends(&mut self, what: &What) {
        if let What::Record { record, .. } = what {
            self.parent = record.parent.as_ref().map(|parent| parent.as_str().to_owned());
        }
    }

    fn live(&self) -> bool {
        self.row.as_ref().is_some_and(|row| !row.deleted)
    }

    /// Whether the mark by which a removal was looked for is gone, and no read that it was answered by.
    fn was_taken_back(&self, what: &What) -> bool {
        let What::Gone { by_mark: Some(tick), .. } = what else { return false };
        self.mark.is_none() && self.row.as_ref().is_some_and(|row| row.tick <= *tick)
    }

    /// Notes that the entity was read because of a mark, and how long it rests after that.
    fn looked(&mut self, now: Timestamp) {
        let hot = self.hot_ms.max(HOT_MIN_MS);
        let again = self.looked_at.is_some_and(|at| (0..2 * hot * 1_000).contains(&(now.0 - at)));
        self.hot_ms = if again { (hot * 2).min(HOT_MAX_MS) } else { HOT_MIN_MS };
        self.looked_at = Some(now.0);
        // The rest is remembered beside a mark or in the row; without a row there is nothing to remember it for.
        self.row_touched |= self.row.is_some();
    }

    /// `wanted`, or later while the entity rests. An instant too far ahead (the clock was set back) does not count.
    pub(super) fn rested(&self, wanted: Timestamp, now: Timestamp) -> i64 {
        rested(self.looked_at, self.hot_ms, wanted, now)
    }
}

/// `wanted`, or later while an entity rests that was looked at `looked_at` and is to rest for `hot_ms`.
pub(crate) fn rested(looked_at: Option<i64>, hot_ms: i64, wanted: Timestamp, now: Timestamp) -> i64 {
    let rest = looked_at.map_or(0, |at| at + hot_ms.max(HOT_MIN_MS) * 1_000);
    if rest > now.0 + HOT_MAX_MS * 1_000 { wanted.0 } else { wanted.0.max(rest) }
}

impl<'a> Fold<'a> {
    pub(crate) fn new(fence: &Fence, batch: &'a Batch, next_number: i64, now: Timestamp) -> Self {
        let slots: BTreeMap<_, _> = batch.observations.iter().map(|o| (o.entity.clone(), Slot::default())).collect();
        let done = Done {
            slots: BTreeMap::new(),
            changes: Vec::new(),
            outcomes: Vec::new(),
            refused: Vec::new(),
            alive: BTreeMap::new(),
            causes: BTreeMap::new(),
            applied: Applied::default(),
        };
        Self { slots, batch, fresh: fence.tick(), now, below: Vec::new(), next_number, done }
    }

    pub(crate) fn finish(mut self) -> Done {
        let applied = &mut self.done.applied;
        applied.changes = u64::try_from(self.done.changes.len()).unwrap_or(u64::MAX);
        applied.first_number = self.done.changes.first().map(|change| change.number);
        applied.quarantined = u64::try_from(self.done.refused.len() + self.batch.keyless.len()).unwrap_or(u64::MAX);
        Done { slots: self.slots, ..self.done }
    }

    /// An event whose number is known has been told before.
    pub(crate) fn know(&mut self, observed: &Observed) {
        let entity = &observed.entity;
        *self.done.applied.duplicates.entry(entity.resource.clone()).or_default() += 1;
        if let (What::Event(event), true) = (&observed.what, self.batch.outcomes) {
            self.done.outcomes.push(Outcome {
                entity: entity.clone(),
                operation: event.operation.name(),
                delivery: observed.delivery,
                via: event.via,
                outcome: "duplicate",
                reason: Some("its number is known"),
            });
        }
    }

    /// Weighs one observation.
    pub(crate) fn weigh(&mut self, observed: &Observed) -> Result<(), Error> {
        let entity = &observed.entity;
        let (Some(rules), Some(mut slot)) = (self.batch.rules.get(&entity.resource), self.slots.remove(entity)) else {
            return Err(Error::new(Kind::Bug, "a batch holds an observation of a resource without rules"));
        };
        if let What::Unreadable { started, unreadable } = &observed.what {
            self.refuse(observed, *started, unreadable.clone(), &mut slot);
        } else if slot.was_taken_back(&observed.what) {
            self.count(observed, Reason::Stale, &slot);
        } else if let Some(observation) = observation(&observed.what) {
            let in_flight = self.batch.in_flight.contains(entity);
            let verdict = ordering::decide(&observation, slot.row.as_ref(), slot.mark.as_ref(), in_flight, &rules.spans, self.now);
            self.enact(observed, &observation, &verdict, rules, &mut slot);
        }
        self.slots.insert(entity.clone(), slot);
        Ok(())
    }

    fn enact(&mut self, observed: &Observed, seen: &Observation, verdict: &Verdict, rules: &ResourceRules, slot: &mut Slot) {
        let was_live = slot.live();
        let existed = slot.row.is_some();
        let unannounced = !slot.mark.as_ref().is_some_and(|mark| mark.announced_delete);
        let had_mark = slot.mark.is_some();
        let (row, mark) = verdict.applied_to(seen, slot.row.take(), slot.mark.take(), self.fresh, self.now);
        (slot.row, slot.mark) = (row, mark);
        match verdict.row {
            RowAction::Keep => {}
            RowAction::Apply => self.put(observed, slot, was_live, existed),
            RowAction::Raise => self.raise(observed, slot),
            RowAction::Tombstone => self.bury(observed, slot, rules, was_live, unannounced),
        }
        slot.compared_at = compared_at(slot.compared_at, seen, verdict.row, &rules.spans);
        if !was_live && self.batch.learned_by.is_look() {
            self.cause_unheld(observed, unannounced);
        }
        if self.batch.learned_by.is_look() && matches!(seen, Observation::Read { .. }) {
            slot.looked(self.now);
        }
        self.note_mark(observed, seen, verdict, rules, slot, had_mark);
        self.count(observed, verdict.reason, slot);
    }

    /// Somebody told of a record that is not held: what stands below it may be all the same, and nothing is here to compare it with.
    fn cause_unheld(&mut self, observed: &Observed, unannounced: bool) {
        match &observed.what {
            What::Record { record, .. } if !record.in_scope => self.cause(&observed.entity, Cause::Changed),
            What::Gone { .. } => self.cause(&observed.entity, Cause::Removed { announced: !unannounced }),
            _ => {}
        }
    }

    fn put(&mut self, observed: &Observed, slot: &mut Slot, was_live: bool, existed: bool) {
        let Some(content) = content(&observed.what) else {
            return;
        };
        let operation = match (existed, was_live) {
            (_, true) => "update",
            (true, false) => "revive",
            (false, false) => "insert",
        };
        let before = match (was_live, slot.content.take()) {
            (false, _) => Before::Nothing,
            (true, Some(content)) => Before::Text(content.document.text),
            (true, None) => Before::Stored,
        };
        let number = self.number(slot);
        let version = slot.row.as_ref().and_then(|row| row.version.clone());
        let upstream_at = content.changed_at.or_else(|| version.as_ref().and_then(Version::at));
        let after = Some(content.document.text.clone());
        let (entity, delivery) = (observed.entity.clone(), observed.delivery);
        self.done.changes.push(Change { entity, number, operation, version, upstream_at, delivery, before, after, unannounced: false });
        slot.content = Some(content);
        slot.deleted = None;
        slot.drop_payload = false;
        slot.row_touched = true;
        slot.descends(&observed.what);
        self.stands_below(observed);
        let cause = match observed.what {
            What::Record { started, .. } if operation == "insert" => Cause::Appeared(started.tick),
            _ => Cause::Changed,
        };
        self.cause(&observed.entity, cause);
    }

    fn raise(&mut self, observed: &Observed, slot: &mut Slot) {
        slot.row_touched = true;
        if slot.live() {
            slot.content = content(&observed.what).or_else(|| slot.content.take());
            slot.descends(&observed.what);
        }
    }

    fn stands_below(&mut self, observed: &Observed) {
        let resource = self.batch.rules.get(&observed.entity.resource).and_then(|rules| rules.parent.clone());
        if let (What::Record { started, record, .. }, Some(resource)) = (&observed.what, resource)
            && let Some(parent) = record.parent.clone()
        {
            self.below.push(Below { entity: observed.entity.clone(), parent: (resource, parent), tick: started.tick });
        }
    }

    /// What stands above others changed or went: they are looked at as well.
    fn cause(&mut self, entity: &Entity, cause: Cause) {
        if self.batch.rules.values().any(|rules| rules.parent.as_ref() == Some(&entity.resource)) {
            let of_resource = self.done.causes.entry(entity.resource.clone()).or_default();
            of_resource.entry(entity.key.clone()).and_modify(|known| *known = known.and(cause)).or_insert(cause);
        }
    }

    fn bury(&mut self, observed: &Observed, slot: &mut Slot, rules: &ResourceRules, was_live: bool, unannounced: bool) {
        // The record itself says that it is out of scope: no absence, and no removal upstream that its children would share.
        let is_outside = matches!(observed.what, What::Record { .. });
        let unannounced = unannounced && !is_outside;
        if was_live || slot.deleted.is_none() {
            let reason = match observed.what {
                What::Gone { reason, .. } => reason,
                _ => OUT_OF_SCOPE,
            };
            slot.deleted = Some((self.now.0, reason));
        }
        slot.row_touched = true;
        self.cause(&observed.entity, if is_outside { Cause::Changed } else { Cause::Removed { announced: !unannounced } });
        if rules.keep_deleted == Duration::ZERO {
            slot.drop_payload = true;
            slot.content = None;
            if let Some(row) = &mut slot.row {
                row.hash = None;
            }
        }
        if was_live {
            let number = self.number(slot);
            let version = slot.row.as_ref().and_then(|row| row.version.clone());
            let (entity, delivery) = (observed.entity.clone(), observed.delivery);
            self.done.changes.push(Change {
                entity,
                number,
                operation: "delete",
                version,
                upstream_at: None,
                delivery,
                before: Before::Nothing,
                after: None,
                unannounced,
            });
        }
    }

    fn number(&mut self, slot: &mut Slot) -> i64 {
        let number = self.next_number;
        self.next_number += 1;
        if slot.first_change == 0 {
            slot.first_change = number;
        }
        slot.last_change = number;
        number
    }

    fn note_mark(
        &mut self,
        observed: &Observed,
        seen: &Observation,
        verdict: &Verdict,
        rules: &ResourceRules,
        slot: &mut Slot,
        had_mark: bool,
    ) {
        slot.mark_touched |= had_mark || slot.mark.is_some();
        let Some(mark) = &slot.mark else {
            slot.book = MarkBook::default();
            return;
        };
        let (mark_tick, settles) = (mark.tick, mark.settles_at(&rules.spans));
        if !had_mark {
            slot.book = MarkBook { reason: mark_reason(seen).to_owned(), not_before: i64::MAX, ..MarkBook::default() };
        }
        // Whatever was weighed before, something new was said since.
        slot.book.held &= !matches!(verdict.mark, MarkAction::Set { .. });
        match (&observed.what, verdict.reason) {
            (What::Missing { started }, _) => {
                // An instant ahead of us was dated by a wall clock that was set back since.
                let since = slot.book.missing_since.filter(|since| *since <= started.at.0);
                slot.book.missing_since = since.or(Some(started.at.0));
                // Its parent's removal is one witness, and a later bulk read is the other: no read by key.
                slot.book.confirm = slot.book.reason != MarkReason::Cascade.as_str();
            }
            (_, Reason::Confirm) => slot.book.confirm = true,
            (_, Reason::Applied | Reason::Same | Reason::Revived | Reason::Removed | Reason::OutOfScope) => {
                slot.book.missing_since = None;
                slot.book.confirm = false;
            }
            _ => {}
        }
        let soon = slot.rested(self.now.plus(self.batch.linger), self.now);
        let read = matches!(seen, Observation::Read { .. } | Observation::Gone { .. });
        let looked = read && self.batch.learned_by.is_look();
        if looked {
            slot.book.attempts = 0;
        }
        let newer_hint = mark_tick > seen.tick(self.fresh);
        slot.book.not_before = match &verdict.mark {
            MarkAction::Set { .. } if slot.book.attempts > 0 => slot.book.not_before,
            MarkAction::Set { .. } => slot.book.not_before.min(soon),
            // The second look of two.
            _ if verdict.reason == Reason::Confirm && !slot.book.confirm => self.now.plus(rules.spans.read_lag).0,
            // What a list could not tell, a read by key can, at once. What a read by key could not tell, only time can.
            _ if verdict.reason == Reason::Confirm && !by_key(seen) => self.now.0,
            _ if verdict.reason == Reason::Confirm => soon,
            _ if looked && newer_hint => soon,
            MarkAction::Again { .. } => soon.max(settles.0),
            _ if looked => soon.max(settles.0),
            _ => slot.book.not_before.min(soon.max(settles.0)),
        };
        if !matches!(verdict.mark, MarkAction::Keep) || looked {
            self.done.applied.marks_set.insert(observed.entity.resource.clone());
        }
    }

    fn count(&mut self, observed: &Observed, reason: Reason, slot: &Slot) {
        let resource = &observed.entity.resource;
        *self.done.applied.counts.entry((resource.clone(), reason)).or_default() += 1;
        match &observed.what {
            What::Event(event) if self.batch.outcomes => self.done.outcomes.push(Outcome {
                entity: observed.entity.clone(),
                operation: event.operation.name(),
                delivery: observed.delivery,
                via: event.via,
                outcome: reason.name(),
                reason: why(event, reason, slot),
            }),
            What::Record { record, .. } if slot.live() => {
                let alive = self.done.alive.entry(resource.clone()).or_default();
                let stamp = record.changed_at.or_else(|| record.version.as_ref().and_then(Version::at));
                alive.newest = alive.newest.max(stamp);
                alive.key = Some(observed.entity.key.as_str().to_owned());
            }
            _ => {}
        }
    }

    fn refuse(&mut self, observed: &Observed, started: Started, unreadable: Unreadable, slot: &mut Slot) {
        if slot.mark.as_ref().is_some_and(|mark| mark.tick <= started.tick) {
            slot.mark = None;
            slot.mark_touched = true;
        }
        self.done.refused.push(Refused { entity: observed.entity.clone(), delivery: observed.delivery, unreadable });
    }
}
