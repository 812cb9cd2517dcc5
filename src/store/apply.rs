//! The one transaction in which replica, changes, marks, delivery states and cursors move together.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use sea_orm::ConnectionTrait;

use crate::clock::Timestamp;
use crate::connectors::{Record, ResourceSpec, Unreadable};
use crate::model::ordering::{By, Reason, Spans, Started};
use crate::model::{DeliveryId, Entity, Event, ResourceName, Sequence, Tick};
use crate::store::connect::{Lane, Store, Tx};
use crate::store::error::{Error, Kind};
use crate::store::feeds::FeedStep;
use crate::store::fence::Fence;
use crate::store::logs::{self, LogStep};
use crate::store::passes::PassStep;

mod fold;
mod load;
mod overtaken;
mod reasons;
mod seen;
mod write;

pub(crate) use fold::rested;

/// How we came to know something; stored in change rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LearnedBy {
    /// A webhook.
    Hook,
    /// An event feed.
    Feed,
    /// A page of a pass.
    Pass,
    /// A read that a mark asked for.
    Mark,
    /// A read that somebody waited for.
    Refresh,
}

impl LearnedBy {
    /// Whether the entity itself was looked at, because somebody or something asked for that.
    pub(crate) fn is_look(self) -> bool {
        matches!(self, Self::Mark | Self::Refresh)
    }

    /// As it stands in `instep_changes.learned_by`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hook => "hook",
            Self::Feed => "feed",
            Self::Pass => "pass",
            Self::Mark => "mark",
            Self::Refresh => "refresh",
        }
    }
}

/// What was observed of an entity.
#[derive(Clone, Debug)]
pub enum What {
    /// A statement of a delivery or event feed.
    Event(Event),
    /// A state that was read.
    Record {
        /// How.
        by: By,
        /// When its request was issued.
        started: Started,
        /// The state.
        record: Record,
    },
    /// A list or bulk read that should have held it did not.
    Missing {
        /// When its request was issued.
        started: Started,
    },
    /// Its absence is confirmed, or stated by the upstream. The caller has asked the removal budget before.
    Gone {
        /// When the confirming request was issued.
        started: Started,
        /// For `deleted_reason`, e.g. `not found`.
        reason: &'static str,
        /// A mark of this tick had it looked for: a person who keeps the row takes that mark away, and this with it.
        by_mark: Option<Tick>,
    },
    /// A record that cannot be read: quarantined by its key. It counts as seen, and a mark that asked for it is cleared.
    Unreadable {
        /// When its request was issued.
        started: Started,
        /// Bytes and reason.
        unreadable: Unreadable,
    },
}

/// One observation.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Of which entity.
    pub entity: Entity,
    /// What.
    pub what: What,
    /// The delivery that told, if one did.
    pub delivery: Option<DeliveryId>,
}

/// What becomes of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryEnd {
    /// All its events are in the batch.
    Done,
    /// It cannot be processed, for this reason.
    Quarantined(String),
}

/// What the store needs to know of a resource while it applies.
#[derive(Clone, Debug)]
pub struct ResourceRules {
    /// Lags and skews.
    pub spans: Spans,
    /// How long a tombstone keeps its payload; 0: it is dropped in the same transaction.
    pub keep_deleted: Duration,
    /// JSON pointers of the maps whose entries are named in `changed`.
    pub roots: Vec<String>,
    /// The resource of the records above its own.
    pub parent: Option<ResourceName>,
    /// What changes the record above changes these too; what removes it always may have.
    pub inherits: bool,
}

impl ResourceRules {
    /// As the connector declares; `changed` names what stands beside the columns.
    #[must_use]
    pub fn of(spec: &ResourceSpec) -> Self {
        let root = |pointer: &str| pointer.match_indices('/').nth(1).map(|(at, _)| pointer[..at].to_owned());
        let mut roots: BTreeSet<String> = spec.columns.iter().filter_map(|column| root(&column.pointer)).collect();
        if roots.is_empty() {
            roots.insert(String::new());
        }
        Self {
            spans: spec.spans,
            keep_deleted: spec.keep_deleted,
            roots: roots.into_iter().collect(),
            parent: spec.parent.clone(),
            inherits: spec.inherits,
        }
    }
}

/// What moves together. Callers keep a batch within 200 observations and 1 MiB, so that the transaction ends soon.
#[derive(Clone, Debug)]
pub struct Batch {
    /// In the order in which they are to be weighed.
    pub observations: Vec<Observed>,
    /// Unreadable records whose key could not be read either.
    pub keyless: Vec<(ResourceName, Unreadable)>,
    /// Deliveries that are done with this batch.
    pub deliveries: Vec<(DeliveryId, DeliveryEnd)>,
    /// The page of a pass that this is.
    pub pass: Option<PassStep>,
    /// The page of an event feed that this is.
    pub feed: Option<FeedStep>,
    /// The page of a log that this is.
    pub log: Option<LogStep>,
    /// How we know.
    pub learned_by: LearnedBy,
    /// Rules of every resource that occurs.
    pub rules: HashMap<ResourceName, ResourceRules>,
    /// Entities of which a read is under way.
    pub in_flight: HashSet<Entity>,
    /// How long a fresh mark waits for company.
    pub linger: Duration,
    /// Write a row of `instep_events` for every event.
    pub outcomes: bool,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new(learned_by: LearnedBy, rules: HashMap<ResourceName, ResourceRules>) -> Self {
        Self {
            observations: Vec::new(),
            keyless: Vec::new(),
            deliveries: Vec::new(),
            pass: None,
            feed: None,
            log: None,
            learned_by,
            rules,
            in_flight: HashSet::new(),
            linger: Duration::ZERO,
            outcomes: true,
        }
    }
}

/// What a batch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Change rows written.
    pub changes: u64,
    /// Number of the first of them.
    pub first_number: Option<i64>,
    /// Verdicts by resource and reason.
    pub counts: HashMap<(ResourceName, Reason), u64>,
    /// Resources that have new or renewed marks, or will have because of what stands above their rows.
    pub marks_set: BTreeSet<ResourceName>,
    /// Records put into quarantine.
    pub quarantined: u64,
    /// Events whose numbers were known, by resource.
    pub duplicates: BTreeMap<ResourceName, u64>,
    /// Events whose numbers are noted for other records.
    pub conflicts: Vec<Conflict>,
}

/// A number that was said of another record before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The number.
    pub sequence: Sequence,
    /// Of which record it is said now.
    pub entity: Entity,
}

impl Store {
    /// Applies a batch in one transaction.
    ///
    /// A payload that the database refuses (PostgreSQL: a number with more digits than it can hold) is put into quarantine, and
    /// the rest is applied.
    ///
    /// # Errors
    /// [`Kind::Fenced`]: stop. [`Kind::Moved`]: the page's cursor is not where the step begins: reload. [`Kind::Unavailable`]: the
    /// outcome may be unknown; forget everything, reload from rows.
    pub async fn apply(&self, fence: &Fence, batch: &Batch) -> Result<Applied, Error> {
        match self.run(|| self.apply_once(fence, batch)).await {
            Err(error) if error.kind() == Kind::Data => {
                let cleaned = self.without_refused(batch).await?.ok_or(error)?;
                self.run(|| self.apply_once(fence, &cleaned)).await
            }
            done => done,
        }
    }

    async fn apply_once(&self, fence: &Fence, batch: &Batch) -> Result<Applied, Error> {
        let tx = self.begin(Lane::Work, "apply").await?;
        let next_number = fence.lock(&tx).await?;
        let now = self.now();
        let mut fold = fold::Fold::new(fence, batch, next_number, now);
        load::slots(&tx, fence.source(), &mut fold.slots).await?;
        let sifted = logs::sift(&tx, fence.source(), batch).await?;
        for (index, observed) in batch.observations.iter().enumerate() {
            match sifted.known.contains(&index) {
                true => fold.know(observed),
                false => fold.weigh(observed)?,
            }
        }
        overtaken::mark(&tx, fence.source(), &mut fold).await?;
        let mut done = fold.finish();
        if !done.changes.is_empty() {
            fence.allocate(&tx, i64::try_from(done.changes.len()).unwrap_or(i64::MAX)).await?;
        }
        let descents = write::all(&tx, fence, batch, &done, now).await?;
        logs::note(&Context { tx: &tx, fence, now }, &sifted).await?;
        done.applied.conflicts = sifted.conflicts.into_iter().map(|(conflict, _)| conflict).collect();
        done.applied.marks_set.extend(descents);
        tx.commit().await?;
        Ok(done.applied)
    }

    /// The batch with every payload that the database refuses turned into an unreadable record; `None` if it refuses none of them.
    async fn without_refused(&self, batch: &Batch) -> Result<Option<Batch>, Error> {
        let mut cleaned = batch.clone();
        let mut found = false;
        for observed in &mut cleaned.observations {
            let (text, started, raw) = match &observed.what {
                What::Record { started, record, .. } => (&record.document.text, Some(*started), record.document.raw.clone()),
                What::Event(Event { push: crate::model::Push::Whole(document), .. }) => (&document.text, None, None),
                _ => continue,
            };
            let probe = self.raw("select cast($1 as jsonb) is null as refused", [text.to_string().into()]);
            match self.reader().query_one_raw(probe).await.map_err(Error::from) {
                Ok(_) => continue,
                Err(error) if error.kind() == Kind::Data => {}
                Err(error) => return Err(error),
            }
            found = true;
            let raw = raw.map_or_else(|| bytes::Bytes::from(text.to_string()), |raw| bytes::Bytes::from(raw.into_vec()));
            let reason = "the database cannot hold a value of it".to_owned();
            let key = Some(observed.entity.key.clone());
            match (&mut observed.what, started) {
                (What::Event(event), _) => event.push = crate::model::Push::Hint,
                (what, Some(started)) => *what = What::Unreadable { started, unreadable: Unreadable { key, reason, raw } },
                (_, None) => {}
            }
        }
        Ok(found.then_some(cleaned))
    }
}

/// Shared by the parts of a transaction.
pub(crate) struct Context<'a> {
    pub(crate) tx: &'a Tx<'a>,
    pub(crate) fence: &'a Fence,
    pub(crate) now: Timestamp,
}
