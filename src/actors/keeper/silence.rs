//! Whether webhooks are lost in silence: changes that a feed or a pass showed, and of which no delivery told.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::actors::source::Source;
#[cfg(test)]
use crate::actors::{probe, source::Watch};
use crate::clock::Timestamp;
use crate::model::ResourceName;
use crate::reconcile::Terms;
use crate::report::WebhooksMissed;
use crate::store::{self, Change};

/// The cause of a gap: webhooks did not come, and nobody said why.
const SILENCE: &str = "silence";
/// Missed changes count together within this time, or twice that at most, while the gap of those before is not to be opened again.
const TOGETHER: Duration = Duration::from_secs(3600);
/// Looked at this often at most, and ten times within the time after which a webhook is late.
const TURN_EVERY: Duration = Duration::from_secs(30);
/// Changes are judged by what was said up to so long before they were learned, at least.
const HORIZON_MIN: Duration = Duration::from_secs(3600);
/// And at most, however seldom a resource is polled.
const HORIZON_MAX: Duration = Duration::from_secs(24 * 3600);
/// Pages of changes in one turn.
const PAGES_MAX: usize = 10;
/// A transaction of the source may end this long after its instant; until then its rows are not to be seen.
const COMMITS_WITHIN: Duration = Duration::from_secs(15);
/// Missed changes remembered, however many are asked for.
const MISSED_MAX: usize = 1_000;

/// Changes are judged this often.
fn turn_every(late: Duration) -> Duration {
    (late / 10).min(TURN_EVERY)
}

/// What was said until now is known so much later.
fn known_after(late: Duration) -> Duration {
    (late / 4).min(COMMITS_WITHIN)
}

#[cfg(test)]
impl Watch {
    /// The longest time until lost webhooks are noticed: by registrations, by the public address, and by changes that are learned within
    /// this time otherwise.
    pub(crate) fn noticed_within(&self, learned: Duration) -> [Duration; 3] {
        let judged = self.late + known_after(self.late) + turn_every(self.late);
        [self.look, probe::noticed_within(self.probe), learned + judged]
    }
}

/// How far the changes are judged, and what was missed.
#[derive(Debug)]
pub(super) struct Silence {
    terms: Terms,
    /// When a delivery first spoke of a resource, of what was looked at.
    first_heard: BTreeMap<ResourceName, Timestamp>,
    /// Whether it is known of which resources deliveries spoke before this process began.
    recalled: bool,
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
        let late = source.settings.watch.late;
        let polls = source.connector.resources().iter().map(|spec| spec.poll).max().unwrap_or_default();
        let horizon = (polls + late * 3).clamp(HORIZON_MIN, HORIZON_MAX);
        // An upstream's clock may be off by as much as a delivery may be late: what is doubtful counts as told.
        let terms = Terms { within: late, slack: late, unstamped: late * 2, horizon, ahead_us: 0 };
        let (first_heard, missed) = (BTreeMap::new(), VecDeque::new());
        Self { terms, first_heard, recalled: false, judged: None, missed, opened_at: None, next_at: Duration::ZERO }
    }

    fn every(&self) -> Duration {
        turn_every(self.terms.within)
    }

    /// Judges what has become old enough; how long until the next turn.
    pub(super) async fn turn(&mut self, source: &Source) -> Result<Duration, store::Error> {
        let now = source.clock.monotonic();
        if self.next_at > now {
            return Ok(self.next_at - now);
        }
        self.next_at = now + self.every();
        let missed = self.judge(source).await?;
        if missed > 0 {
            source.reporter.emit(WebhooksMissed { source: source.name.to_string(), changes: missed });
        }
        self.open(source).await?;
        Ok(self.every())
    }

    /// Up to when everything is known that was said: no delivery that came before waits to be worked in.
    async fn known_until(&self, source: &Source) -> Result<Timestamp, store::Error> {
        let until = source.clock.now().minus(known_after(self.terms.within));
        Ok(source.store.backlog(&source.name).await?.oldest.map_or(until, |oldest| until.min(oldest)))
    }

    /// A sender that was heard before this process began is one that may fall silent, or has.
    async fn recall(&mut self, source: &Source) -> Result<(), store::Error> {
        let since = source.clock.now().minus(self.terms.horizon);
        for spec in source.connector.resources() {
            if source.store.was_told(&source.name, &spec.name).await? {
                self.first_heard.insert(spec.name.clone(), since);
            }
        }
        self.recalled = true;
        Ok(())
    }

    /// Judges the changes whose time is over; how many were missed. Where nothing was delivered since one of them was learned, the sender
    /// may have stopped.
    async fn judge(&mut self, source: &Source) -> Result<u64, store::Error> {
        let until = self.known_until(source).await?.minus(self.terms.within);
        let mut judged = match self.judged {
            Some(number) => number,
            None => source.store.last_change_until(&source.name, source.clock.now().minus(self.terms.within)).await?,
        };
        self.judged = Some(judged);
        let registered = self.registered(source).await?;
        if registered.is_none() && !self.recalled {
            self.recall(source).await?;
        }
        let kept_since = source.store.statements_since().await?;
        let (mut n_missed, mut n_since_heard) = (0, 0);
        for _ in 0..PAGES_MAX {
            let changes = source.store.changes_until(&source.name, judged, until).await?;
            let Some(last) = changes.last() else { break };
            judged = last.number;
            for (change, told) in source.store.who_told(&source.name, changes, &self.terms).await? {
                if let Some(at) = told.hooked_at() {
                    self.first_heard.entry(change.record.resource.clone()).and_modify(|first| *first = at.min(*first)).or_insert(at);
                }
                let live_since = self.live_since(source, registered.as_ref(), &change);
                let is_kept = kept_since.is_none_or(|since| self.terms.span(&change.learned).0 >= since);
                if let Some(happened) = live_since.filter(|_| is_kept).and_then(|since| told.missed(since, &self.terms)) {
                    n_missed += 1;
                    n_since_heard += usize::from(source.pushes.is_silent_since(told.change.at));
                    self.missed.push_back((happened, told.change.at));
                }
            }
            self.judged = Some(judged);
        }
        source.unannounced(n_since_heard);
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

    /// When each route's oldest registration was made; `None` where registrations are not watched.
    async fn registered(&self, source: &Source) -> Result<Option<BTreeMap<String, Timestamp>>, store::Error> {
        if !source.settings.manages_hooks || source.connector.registrations().is_empty() {
            return Ok(None);
        }
        let mut registered: BTreeMap<String, Timestamp> = BTreeMap::new();
        for one in source.store.registrations(&source.name).await? {
            let at = Timestamp(one.created_at);
            registered.entry(one.route).and_modify(|since| *since = at.min(*since)).or_insert(at);
        }
        Ok(Some(registered))
    }

    /// Since when deliveries tell of such changes; `None` where they do not. Where registrations are watched they say so, elsewhere the
    /// first delivery that was met.
    fn live_since(&self, source: &Source, registered: Option<&BTreeMap<String, Timestamp>>, change: &Change) -> Option<Timestamp> {
        let resource = &change.record.resource;
        let routes = source.connector.announced_by(resource, change.operation);
        match registered {
            Some(registered) => routes.iter().filter_map(|route| registered.get(*route)).min().copied(),
            None => self.first_heard.get(resource).copied().filter(|_| !routes.is_empty()),
        }
    }
}
