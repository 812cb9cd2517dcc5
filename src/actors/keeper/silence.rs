//! Whether webhooks are lost in silence: a turn of the ledger of what was said and what was learned.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::actors::source::Source;
use crate::clock::Timestamp;
use crate::model::{Entity, Operation, ResourceName};
use crate::reconcile::{Ledger, Terms};
use crate::report::WebhooksMissed;
use crate::store;

/// The cause of a gap: webhooks did not come, and nobody said why.
const SILENCE: &str = "silence";
/// Missed changes count together within this time, or twice that at most, while the gap of those before is not to be opened again.
const TOGETHER: Duration = Duration::from_secs(3600);
/// Looked at this often at most, and ten times within the time after which a webhook is late.
const TURN_EVERY: Duration = Duration::from_secs(30);
/// Statements are remembered at least this long.
const HORIZON_MIN: Duration = Duration::from_secs(3600);
/// And at most, however seldom a resource is polled.
const HORIZON_MAX: Duration = Duration::from_secs(24 * 3600);
/// Pages of either kind in one turn.
const PAGES_MAX: usize = 10;
/// A transaction of the source may end this long after its instant; until then its rows are not to be seen.
const COMMITS_WITHIN: Duration = Duration::from_secs(15);
/// Missed changes remembered, however many are asked for.
const MISSED_MAX: usize = 1_000;

/// Since when deliveries tell of changes of a kind; empty where they do not.
type Live = BTreeMap<(ResourceName, &'static str), Timestamp>;

/// What was said and learned since this process began.
#[derive(Debug)]
pub(super) struct Silence {
    ledger: Ledger<Entity>,
    /// When a delivery first spoke of a resource, as far as this process knows.
    first_heard: BTreeMap<ResourceName, Timestamp>,
    late: Duration,
    /// Up to where statements were heard.
    heard: (i64, i64),
    /// The last change that was judged.
    judged: Option<i64>,
    /// When missed changes happened and when they were learned.
    missed: VecDeque<(Timestamp, Timestamp)>,
    /// When the gap was opened, in monotonic time, while the silence goes on.
    opened_at: Option<Duration>,
    next_at: Duration,
}

impl Silence {
    /// Changes are judged that were learned up to a little before now: an earlier process has judged no younger ones.
    pub(super) fn new(source: &Source) -> Self {
        let (late, now) = (source.settings.watch.late, source.clock.now());
        let polls = source.connector.resources().iter().map(|spec| spec.poll).max().unwrap_or_default();
        let horizon = (polls + late * 3).clamp(HORIZON_MIN, HORIZON_MAX);
        let since = now.minus(late * 4);
        let ledger = Ledger::new(Terms { late, horizon }, since);
        let first_heard = BTreeMap::new();
        Self {
            ledger,
            first_heard,
            late,
            heard: (since.0, i64::MIN),
            judged: None,
            missed: VecDeque::new(),
            opened_at: None,
            next_at: Duration::ZERO,
        }
    }

    fn every(&self) -> Duration {
        (self.late / 10).min(TURN_EVERY)
    }

    /// Hears what was said, judges what has become old enough; how long until the next turn.
    pub(super) async fn turn(&mut self, source: &Source) -> Result<Duration, store::Error> {
        let now = source.clock.monotonic();
        if self.next_at > now {
            return Ok(self.next_at - now);
        }
        self.next_at = now + self.every();
        let heard_until = self.hear(source).await?;
        let live = self.live(source).await?;
        let missed = self.judge(source, heard_until.minus(self.late), &live).await?;
        self.ledger.forget(source.clock.now());
        if missed > 0 {
            source.reporter.emit(WebhooksMissed { source: source.name.to_string(), changes: missed });
        }
        self.open(source).await?;
        Ok(self.every())
    }

    /// Up to when every statement is known now.
    async fn hear(&mut self, source: &Source) -> Result<Timestamp, store::Error> {
        let until = source.clock.now().minus((self.late / 4).min(COMMITS_WITHIN));
        for _ in 0..PAGES_MAX {
            let (statements, is_full) = source.store.statements(&source.name, self.heard).await?;
            for statement in statements {
                self.heard = statement.position;
                let at = Timestamp(statement.position.0);
                if !statement.by_feed {
                    self.first_heard.entry(statement.entity.resource.clone()).or_insert(at);
                }
                self.ledger.hear(statement.entity, at, statement.by_feed);
            }
            if !is_full {
                return Ok(until);
            }
        }
        Ok(until.min(Timestamp(self.heard.0)))
    }

    /// Judges the changes that were learned up to an instant; how many were missed.
    async fn judge(&mut self, source: &Source, until: Timestamp, live: &Live) -> Result<u64, store::Error> {
        let mut judged = match self.judged {
            Some(number) => number,
            None => source.store.last_change_until(&source.name, source.clock.now().minus(self.late)).await?,
        };
        self.judged = Some(judged);
        let mut n_missed = 0;
        for _ in 0..PAGES_MAX {
            let (changes, is_full) = source.store.changes_until(&source.name, judged, until).await?;
            for change in changes {
                judged = change.number;
                let kind = (change.learned.record.resource.clone(), change.operation.name());
                let happened = live.get(&kind).and_then(|since| self.ledger.missed(&change.learned, *since));
                if let Some(happened) = happened {
                    n_missed += 1;
                    self.missed.push_back((happened, change.learned.at));
                }
            }
            self.judged = Some(judged);
            if !is_full {
                break;
            }
        }
        while self.missed.len() > MISSED_MAX.max(source.settings.watch.missed as usize) {
            self.missed.pop_front();
        }
        Ok(n_missed)
    }

    /// Opens the gap once enough are missed, and while the silence goes on extends it once in [`TOGETHER`]: what it costs is a sweep where
    /// nothing tells of removals.
    async fn open(&mut self, source: &Source) -> Result<(), store::Error> {
        let now = source.clock.monotonic();
        if self.opened_at.is_some_and(|at| now.saturating_sub(at) < TOGETHER) {
            return Ok(());
        }
        let wanted = if self.opened_at.take().is_some() { 1 } else { source.settings.watch.missed as usize };
        let oldest = source.clock.now().minus(TOGETHER * 2);
        self.missed.retain(|(_, learned)| *learned >= oldest);
        let began = self.missed.iter().map(|(happened, _)| *happened).min();
        let ended = self.missed.iter().map(|(_, learned)| *learned).max();
        let (Some(began), true) = (began, self.missed.len() >= wanted) else { return Ok(()) };
        source.open_gap(SILENCE, began, ended).await?;
        self.missed.clear();
        self.opened_at = Some(now);
        Ok(())
    }

    /// Where registrations are watched they say since when; elsewhere the first delivery that this process knows of.
    async fn live(&self, source: &Source) -> Result<Live, store::Error> {
        let is_watched = source.settings.manages_hooks && !source.connector.registrations().is_empty();
        let mut registered: BTreeMap<String, Timestamp> = BTreeMap::new();
        for one in if is_watched { source.store.registrations(&source.name).await? } else { Vec::new() } {
            let at = Timestamp(one.created_at);
            registered.entry(one.route).and_modify(|since| *since = at.min(*since)).or_insert(at);
        }
        let mut live = Live::new();
        for spec in source.connector.resources() {
            for operation in [Operation::Create, Operation::Update, Operation::Delete] {
                let routes = source.connector.announced_by(&spec.name, operation);
                let since = match is_watched {
                    true => routes.iter().filter_map(|route| registered.get(*route)).min().copied(),
                    false => self.first_heard.get(&spec.name).copied().filter(|_| !routes.is_empty()),
                };
                live.extend(since.map(|since| ((spec.name.clone(), operation.name()), since)));
            }
        }
        Ok(live)
    }
}
