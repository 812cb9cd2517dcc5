//! `reconciler`: event feeds, passes, watermarks, gaps.
//!
//! One page a step, the most urgent first: feeds, then incremental passes, then sweeps; of either what an operator wants. Records of a page, the unreadable ones'
//! notes and the cursor move in one transaction, so a pass continues after a crash where its last page ended.
//! A page larger than one transaction is applied in parts; only the last part moves the cursor, and applying a part twice
//! changes nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::ask::{Answer, AskError};
use super::journal::Room;
use super::source::Source;
use super::sync::observed;
use crate::clock::Timestamp;
use crate::connectors::{Asked, ListQuery, Page, ReadError, ResourceSpec};
use crate::model::ResourceName;
use crate::model::ordering::By;
use crate::quota::Class;
use crate::reconcile::{self, History, LogShown, Mode, Next, Schedule, Tour};
use crate::report::{GapClosed, PassCompleted, PassFailed, PassStarted};
use crate::store::{self, Error, Fence, Kind, LearnedBy, NewPass, Pass, PassEnd, PassKind, PassPosition, PassStep, Progress, Wish};
use crate::supervision::{Bug, ChildSpec, Context, Meltdown, Rest, Work, worker};

mod feeds;
mod logs;
mod sampler;
mod suspects;
mod trouble;

use trouble::Trouble;

/// Without anything due the reconciler looks this often.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A list that turned out incomplete is not read again before this: a sweep is many requests.
const INCOMPLETE_REST: Duration = Duration::from_secs(3600);
/// A page is halved at most so often: then it holds one record.
const HALVINGS_MAX: u32 = 16;
/// A pass that led in a circle, or whose cursors were refused twice, is not begun again before this: its first pages are read well,
/// so nothing else would slow it down.
const GIVEN_UP_REST: Duration = Duration::from_secs(300);
/// Why a list that leads back to a page it has shown is given up.
const LEADS_BACK: &str = "the list leads back to a page that it has shown";
/// Failures in a row from which on a resource counts as ailing.
const AILING_AFTER: u32 = 3;
/// After the store failed.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// The child spec.
pub fn spec(source: Arc<Source>) -> ChildSpec {
    let waker = source.reconciler.clone();
    worker("reconciler", Meltdown::Park, Duration::from_secs(5), waker, move || Reconciler {
        trouble: Trouble::new(source.clock),
        source: Arc::clone(&source),
        known: HashMap::new(),
        unfiltered: HashSet::new(),
        polled: HashMap::new(),
        widest: HashMap::new(),
        shown: HashMap::new(),
        halvings: HashMap::new(),
        tours: HashMap::new(),
        heeded: HashMap::new(),
        sampler: sampler::Sampler::default(),
    })
}

struct Reconciler {
    source: Arc<Source>,
    /// Rows as they stand; this actor alone changes them, and forgets them whenever it is not sure that it did.
    known: HashMap<ResourceName, Known>,
    /// Resources whose filter or sort the upstream refused: only sweeps are left for them.
    unfiltered: HashSet<ResourceName>,
    trouble: Trouble,
    /// When a feed was last read to its end, in monotonic time.
    polled: HashMap<&'static str, Duration>,
    /// How many rows the longest page of a log had.
    widest: HashMap<&'static str, usize>,
    /// Which numbers a log has shown.
    shown: HashMap<&'static str, LogShown>,
    /// How often the pages of a resource are halved now, because they were larger than an answer may be.
    halvings: HashMap<ResourceName, u32>,
    /// The way through the list of a resource or feed, from its first page on.
    tours: HashMap<String, Tour>,
    /// The last wish for a pass of each resource, by when it was asked for.
    heeded: HashMap<ResourceName, Timestamp>,
    /// The rows that are compared now and then.
    sampler: sampler::Sampler,
}

#[derive(Clone)]
struct Known {
    progress: Progress,
    running: Option<Pass>,
}

impl Work for Reconciler {
    async fn step(&mut self, cx: &Context) -> Result<Rest, Bug> {
        let Some(fence) = self.source.fence(cx).await else { return Ok(Rest::For(LOOK_EVERY)) };
        match self.next(cx, &fence).await {
            Ok(rest) => Ok(rest),
            Err(error) => {
                self.known.clear();
                // The page that was not stored is read again, and leads where it led before: that is no circle.
                self.tours.clear();
                self.source.saw(&fence, &error);
                // A cursor that somebody else moved (an earlier incarnation's late commit) is read again at once.
                Ok(if error.kind() == Kind::Moved { Rest::Again } else { Rest::For(STORE_RETRY) })
            }
        }
    }
}

impl Reconciler {
    async fn next(&mut self, cx: &Context, fence: &Fence) -> Result<Rest, Error> {
        let source = Arc::clone(&self.source);
        let mut soonest = match self.poll_feeds(cx, fence).await? {
            Rest::Again => return Ok(Rest::Again),
            Rest::For(span) => span.min(LOOK_EVERY),
        };
        match self.sample(cx, fence).await? {
            Rest::Again => return Ok(Rest::Again),
            Rest::For(span) => soonest = soonest.min(span),
        }
        let gaps = source.store.open_gaps(&source.name).await?;
        let gap = |gap: store::Gap| reconcile::Gap { ended_at: gap.repairable_from(), wants_sweep: gap.wants_sweep() };
        let gaps: Vec<_> = gaps.into_iter().map(gap).collect();
        let wishes = source.store.wishes(&source.name).await?;
        let mut best: Option<(Rank, &ResourceSpec, Known, PassKind)> = None;
        for spec in source.connector.resources() {
            let wish = wishes.iter().find(|wish| wish.resource == spec.name);
            self.heed(wish);
            if let Some(rest) = self.trouble.rests(spec.name.as_str()) {
                soonest = soonest.min(rest);
                continue;
            }
            let known = self.known(&spec.name).await?;
            match self.wants(spec, &known, &gaps, wish) {
                Wanted::Pass(kind) => {
                    // Incremental passes first, for they are short; of either kind first what somebody wants. Of sweeps the one under
                    // way goes on, then whoever waits longest: else the first of the list, due again, would starve the last.
                    let is_sweep = kind == PassKind::Sweep;
                    let waits = is_sweep.then_some((known.running.is_none(), known.progress.sweep_at));
                    let rank = (is_sweep, wish.is_none(), waits);
                    if best.as_ref().is_none_or(|(least, ..)| rank < *least) {
                        best = Some((rank, spec, known, kind));
                    }
                }
                Wanted::Later(span) => soonest = soonest.min(span),
            }
        }
        match best {
            Some((_, spec, known, kind)) => self.advance(cx, fence, spec, known, kind).await,
            None => Ok(Rest::For(soonest.max(Duration::from_millis(10)))),
        }
    }

    /// Whoever asks for a pass now wants it tried now, whatever failed before: a new wish ends the rest of its resource.
    fn heed(&mut self, wish: Option<&Wish>) {
        if let Some(wish) = wish
            && self.heeded.insert(wish.resource.clone(), wish.at) != Some(wish.at)
        {
            self.trouble.over(wish.resource.as_str());
        }
    }

    async fn known(&mut self, resource: &ResourceName) -> Result<Known, Error> {
        if let Some(known) = self.known.get(resource) {
            return Ok(known.clone());
        }
        let store = &self.source.store;
        let progress = store.progress(&self.source.name, resource).await?;
        let running = store.running_pass(&self.source.name, resource).await?;
        let known = Known { progress, running };
        self.known.insert(resource.clone(), known.clone());
        Ok(known)
    }

    /// What a resource wants now: nothing while the disk is nearly full; else its running pass first, else what its schedule says. The first sweep, the backfill, always runs.
    fn wants(&self, spec: &ResourceSpec, known: &Known, gaps: &[reconcile::Gap], wish: Option<&Wish>) -> Wanted {
        if self.source.health.room() > Room::Enough {
            return Wanted::Later(LOOK_EVERY);
        }
        if let Some(running) = &known.running {
            return Wanted::Pass(running.kind);
        }
        if known.progress.sweep_at.is_some() && !self.source.settings.passes && wish.is_none() {
            return Wanted::Later(LOOK_EVERY);
        }
        let schedule = self.schedule(spec);
        let history = History {
            incremental_started_at: known.progress.incremental_at,
            sweep_started_at: known.progress.sweep_at,
            incremental_open: false,
            sweep_open: false,
            gaps: gaps.to_vec(),
            sweep_due_at: self
                .source
                .settings
                .sweep_at
                .as_ref()
                .and_then(|daily| Some(daily.at_or_after(reconcile::sweep_not_before(known.progress.sweep_at?, spec.sweep)?))),
            asked: wish.map(|wish| match wish.kind {
                PassKind::Incremental => reconcile::PassKind::Incremental,
                PassKind::Sweep => reconcile::PassKind::Sweep,
            }),
        };
        match reconcile::next(&history, &schedule, self.source.clock.now()) {
            Next::Begin(reconcile::PassKind::Incremental) => Wanted::Pass(PassKind::Incremental),
            Next::Begin(reconcile::PassKind::Sweep) => Wanted::Pass(PassKind::Sweep),
            Next::Wait(span) => Wanted::Later(span),
            // Only an open pass is resumed, and that was looked for above.
            Next::Resume(_) => Wanted::Later(Duration::ZERO),
        }
    }

    /// The next page of the resource's pass, which is begun if there is none.
    async fn advance(&mut self, cx: &Context, fence: &Fence, spec: &ResourceSpec, known: Known, kind: PassKind) -> Result<Rest, Error> {
        let source = Arc::clone(&self.source);
        // Whatever happens to the pass now, its row is read again for the next page.
        self.known.remove(&spec.name);
        let pass = match known.running {
            Some(pass) => pass,
            None => {
                let overlap = spec.spans.list_lag;
                let watermark = known.progress.watermark.filter(|_| kind == PassKind::Incremental);
                let lower_bound = watermark.map(|at| reconcile::lower_bound(at, overlap, spec.spans.read_lag));
                source.reporter.emit(PassStarted {
                    source: source.name.to_string(),
                    resource: spec.name.to_string(),
                    mode: kind.as_str().to_owned(),
                });
                source.store.start_pass(fence, &NewPass { resource: spec.name.clone(), kind, lower_bound }).await?
            }
        };
        if pass.position.variant >= spec.variants {
            return self.complete(cx, fence, spec, &pass).await;
        }
        let (variant, cursor) = (pass.position.variant, pass.position.cursor.as_deref());
        let halvings = self.halvings.get(&spec.name).copied().unwrap_or(0);
        let query = ListQuery { variant, since: pass.lower_bound, cursor, halvings };
        let request = source.connector.list(spec, query);
        let class = if pass.kind == PassKind::Sweep { Class::Sweep } else { Class::Incremental };
        let _reading = source.reading(&spec.name);
        match source.ask(cx, fence, class, &request, |response| source.connector.read(spec, Asked::Page(query), response)).await {
            Ok(answer) => self.page(fence, spec, &pass, answer).await,
            Err((error, _)) => self.page_failed(fence, spec, &pass, &error).await,
        }
    }

    async fn page(&mut self, fence: &Fence, spec: &ResourceSpec, pass: &Pass, answer: Answer<Page>) -> Result<Rest, Error> {
        let Answer { what: page, date, started } = answer;
        self.trouble.over(spec.name.as_str());
        self.source.ails(spec.name.as_str(), None);
        let stamps: Vec<Option<Timestamp>> =
            page.records.iter().map(|record| record.as_ref().ok().and_then(|record| record.changed_at)).collect();
        let is_old = spec.mode == Mode::SortAndStop && pass.lower_bound.is_some_and(|bound| reconcile::page_is_older(&stamps, bound));
        let next = page.next.clone().filter(|_| !is_old);
        if pass.position.cursor.is_none() {
            self.tours.remove(spec.name.as_str());
        }
        // A cursor that leads back to an earlier page would be followed for ever.
        let is_circle = next.as_ref().is_some_and(|next| self.tours.entry(spec.name.to_string()).or_default().leads_back(next));
        let to = match next {
            Some(cursor) => PassPosition { variant: pass.position.variant, cursor: Some(cursor) },
            None => PassPosition { variant: pass.position.variant + 1, cursor: None },
        };
        let records = page.records.len() as u64;
        let keyless = page.records.iter().filter_map(|record| record.as_ref().err().filter(|error| error.key.is_none()).cloned());
        let keyless: Vec<_> = keyless.map(|unreadable| (spec.name.clone(), unreadable)).collect();
        let mut parts = observed(&spec.name, By::List, page, started).into_iter().peekable();
        loop {
            let mut batch = self.source.batch(LearnedBy::Pass);
            batch.observations = super::ask::take_bounded(&mut parts);
            if parts.peek().is_some() {
                self.source.apply_batch(fence, batch).await?;
                continue;
            }
            if is_circle {
                self.source.apply_batch(fence, batch).await?;
                return self.circled(fence, spec, pass).await;
            }
            let high_stamp = stamps.iter().flatten().max().copied();
            batch.keyless = keyless;
            batch.pass = Some(PassStep { id: pass.id, from: pass.position.clone(), to, date, high_stamp, records });
            self.source.apply_batch(fence, batch).await?;
            return Ok(Rest::Again);
        }
    }

    /// What the list has shown is worked in, but nothing says that it was all.
    async fn circled(&mut self, fence: &Fence, spec: &ResourceSpec, pass: &Pass) -> Result<Rest, Error> {
        self.give_up(fence, spec, pass, LEADS_BACK.to_owned()).await?;
        self.source.ails(spec.name.as_str(), Some(LEADS_BACK.to_owned()));
        self.trouble.rest(spec.name.as_str(), GIVEN_UP_REST.min(every(spec, pass.kind)));
        Ok(Rest::Again)
    }

    async fn give_up(&self, fence: &Fence, spec: &ResourceSpec, pass: &Pass, error: String) -> Result<(), Error> {
        let (source, resource, mode) = (self.source.name.to_string(), spec.name.to_string(), pass.kind.as_str().to_owned());
        self.source.reporter.emit(PassFailed { source, resource, mode, error: error.clone() });
        self.source.store.finish_pass(fence, pass, &PassEnd::Stopped(error)).await
    }

    /// Every page was met: what a sweep did not meet is suspect, and the watermark moves.
    async fn complete(&mut self, cx: &Context, fence: &Fence, spec: &ResourceSpec, pass: &Pass) -> Result<Rest, Error> {
        let source = Arc::clone(&self.source);
        let (name, resource, mode) = (source.name.to_string(), spec.name.to_string(), pass.kind.as_str().to_owned());
        // The next pass finds out anew how much fits: every page of this one was asked for in the size that did.
        self.halvings.remove(&spec.name);
        if pass.kind == PassKind::Sweep
            && let Some(trouble) = self.suspect(cx, fence, spec, pass).await?
        {
            self.give_up(fence, spec, pass, trouble.clone()).await?;
            source.ails(&resource, Some(trouble));
            self.trouble.rest(&resource, INCOMPLETE_REST.min(spec.sweep));
            return Ok(Rest::Again);
        }
        // One that met nothing new is no proof that there was nothing (a lost view is empty): the next asks from the same bound.
        let is_idle = pass.kind == PassKind::Incremental && pass.high_stamp.is_none();
        let watermark = if is_idle { None } else { reconcile::watermark(pass.high_stamp, pass.first_date) };
        source.store.finish_pass(fence, pass, &PassEnd::Completed { watermark }).await?;
        source.reporter.emit(PassCompleted { source: name.clone(), resource, mode, records: pass.records });
        let repairing = |spec: &ResourceSpec| match reconcile::repairing(&self.schedule(spec)) {
            reconcile::PassKind::Incremental => PassKind::Incremental,
            reconcile::PassKind::Sweep => PassKind::Sweep,
        };
        let resources: Vec<_> = source.connector.resources().iter().map(|spec| (spec.name.clone(), repairing(spec))).collect();
        for _ in 0..source.store.close_gaps(fence, &resources).await? {
            source.reporter.emit(GapClosed { source: name.clone(), cause: "repaired".into() });
        }
        Ok(Rest::Again)
    }

    /// How often a resource is looked at, and how.
    fn schedule(&self, spec: &ResourceSpec) -> Schedule {
        let mode = if self.unfiltered.contains(&spec.name) { Mode::Sweep } else { spec.mode };
        Schedule { mode, ..self.source.schedule(spec) }
    }

    /// One more failure in a row; from the third on `/status` tells of it.
    fn fails(&mut self, name: &str, error: &AskError) {
        if self.trouble.met(name) >= AILING_AFTER {
            self.source.ails(name, Some(error.to_string()));
        }
    }

    /// Asks for half as many records from now on; `false` if it is one already.
    fn halve(&mut self, resource: &ResourceName) -> bool {
        let halvings = self.halvings.entry(resource.clone()).or_default();
        *halvings += 1;
        *halvings <= HALVINGS_MAX
    }

    async fn page_failed(&mut self, fence: &Fence, spec: &ResourceSpec, pass: &Pass, error: &AskError) -> Result<Rest, Error> {
        let source = Arc::clone(&self.source);
        let stop = match error {
            // Numbered pages cannot change their size on the way, so a list sorted by its changes is given up for a sweep.
            error if error.is_too_large() && spec.mode == Mode::SortAndStop && pass.kind == PassKind::Incremental => {
                self.unfiltered.insert(spec.name.clone());
                true
            }
            error if error.is_too_large() && self.halve(&spec.name) => return Ok(Rest::Again),
            AskError::Stopping | AskError::NoPermit(_) | AskError::Read(ReadError::RateLimited) => return Ok(Rest::Again),
            AskError::Read(ReadError::Unsupported) if pass.kind == PassKind::Incremental => {
                self.unfiltered.insert(spec.name.clone());
                true
            }
            AskError::Read(ReadError::CursorRefused | ReadError::Unsupported) => !source.store.restart_pass(fence, pass.id).await?,
            _ => false,
        };
        if stop {
            self.give_up(fence, spec, pass, error.to_string()).await?;
            if *error == AskError::Read(ReadError::CursorRefused) {
                // Its first page was read well, so failures in a row are none; the next pass would end where this one did.
                self.source.ails(spec.name.as_str(), Some(error.to_string()));
                self.trouble.rest(spec.name.as_str(), GIVEN_UP_REST.min(every(spec, pass.kind)));
                return Ok(Rest::Again);
            }
        }
        // The pass stays where it is; its resource rests, the others go on.
        self.fails(spec.name.as_str(), error);
        Ok(Rest::Again)
    }
}

/// Time between passes of a kind.
fn every(spec: &ResourceSpec, kind: PassKind) -> Duration {
    if kind == PassKind::Sweep { spec.sweep } else { spec.poll }
}

/// What goes first, the least first: see [`Reconciler::next`].
type Rank = (bool, bool, Option<(bool, Option<Timestamp>)>);

enum Wanted {
    Pass(PassKind),
    Later(Duration),
}
