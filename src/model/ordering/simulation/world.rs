//! One upstream with one entity, and one daemon that does only what the rule says.
//!
//! The upstream changes; its events come late, in any order, some of them twice; reads are issued, looked up and answered at
//! moments of their own; the daemon dies. In the end everything told has come, and the daemon looks at its mark until it is gone.

use std::sync::Arc;
use std::time::Duration;

use super::{Freshness, Pushes, Rule, Setting, Stamps};
use crate::clock::Timestamp;
use crate::model::document::Hash;
use crate::model::ids::Tick;
use crate::model::ordering::{By, Mark, Observation, Reason, Row, Spans, Started};
use crate::model::version::{Value, Version};

/// Milliseconds since the epoch.
const BEGIN: i64 = 1_700_000_000_000;
const LAG_MS: i64 = 5_000;
const CHANGES_MAX: usize = 7;
const FLIGHTS_MAX: usize = 3;
const STEPS: u32 = 40;
/// Places from which a schedule draws its steps.
const TEMPER: usize = 12;
/// Steps after the upstream has told all: lists and reads go on.
const CALM_STEPS: u32 = 12;
/// Looks at one mark after everything has come. With half a second between two looks the lag passes twice in forty.
const LOOKS_MAX: u32 = 100;
/// Contents that the entity can have: few, so that reverts are frequent, and more than two, so that not every change is one.
const CONTENTS: u64 = 4;

/// How a schedule ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Right,
    Wrong,
    /// The mark never went away.
    Restless,
}

/// A state of the entity, from `at` until the next.
#[derive(Clone, Copy, Debug)]
struct State {
    at: i64,
    alive: bool,
    in_scope: bool,
    stamp: i64,
    content: u8,
}

/// An event on its way.
#[derive(Clone, Debug)]
struct Told {
    observation: Observation,
    copies: u8,
}

/// A read on its way.
#[derive(Clone, Debug)]
struct Flight {
    by: By,
    started: Started,
    shown: Option<State>,
}

/// What may happen next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Change,
    Deliver,
    LookAtMark,
    List,
    Key,
    LookUp,
    Answer,
    Restart,
    PassTime,
}

impl Step {
    const ALL: [Self; 9] =
        [Self::Change, Self::Deliver, Self::LookAtMark, Self::LookUp, Self::Answer, Self::PassTime, Self::List, Self::Key, Self::Restart];
}

pub(super) struct World {
    setting: Setting,
    rule: Rule,
    random: Random,
    trace: bool,
    field: Arc<str>,
    spans: Spans,
    knows_flights: bool,
    /// The steps of this schedule are drawn from here: some schedules are full of lists, others have slow events or none of one kind.
    temper: [Step; TEMPER],
    deletes_one_in: u64,
    now: i64,
    tick: Tick,
    history: Vec<State>,
    told: Vec<Told>,
    flights: Vec<Flight>,
    row: Option<Row>,
    mark: Option<Mark>,
    by_key: bool,
    reads: u64,
}

impl World {
    pub(super) fn new(setting: Setting, rule: Rule) -> Self {
        let none = Duration::ZERO;
        let lag = Duration::from_millis(LAG_MS.unsigned_abs());
        let (read_lag, list_lag) = match setting.freshness {
            Freshness::Consistent => (none, none),
            Freshness::ListsLag => (none, lag),
            Freshness::AllLag => (lag, lag),
        };
        let spans = Spans { read_lag, list_lag, version_skew: none, tombstones: Duration::from_secs(90 * 86_400) };
        Self {
            setting,
            rule,
            random: Random(1),
            trace: false,
            field: Arc::from("updated_at"),
            spans,
            knows_flights: false,
            temper: [Step::PassTime; TEMPER],
            deletes_one_in: 1,
            now: 0,
            tick: Tick::default(),
            history: Vec::with_capacity(CHANGES_MAX + 1),
            told: Vec::with_capacity(CHANGES_MAX),
            flights: Vec::with_capacity(FLIGHTS_MAX),
            row: None,
            mark: None,
            by_key: false,
            reads: 0,
        }
    }

    /// Requests sent since the world was made.
    pub(super) fn reads(&self) -> u64 {
        self.reads
    }

    /// Runs the schedule that `seed` stands for. With `trace` its steps are printed.
    pub(super) fn run(&mut self, seed: u64, trace: bool) -> End {
        self.begin(seed, trace);
        for _ in 0..STEPS {
            self.step(true);
        }
        while !self.told.is_empty() {
            self.deliver();
            for _ in 0..self.random.below(8) {
                self.step(false);
            }
        }
        for _ in 0..CALM_STEPS {
            self.step(false);
        }
        while !self.flights.is_empty() {
            self.answer();
            self.pass_time();
        }
        for _ in 0..LOOKS_MAX {
            if self.mark.is_none() {
                return if self.agrees() { End::Right } else { End::Wrong };
            }
            self.look_at_mark();
            self.look_up();
            self.answer();
            self.pass(1_000);
        }
        End::Restless
    }

    fn begin(&mut self, seed: u64, trace: bool) {
        self.random = Random::seeded(seed);
        self.trace = trace;
        self.now = BEGIN;
        self.tick = Tick::default();
        self.history.clear();
        self.told.clear();
        self.flights.clear();
        (self.row, self.mark, self.by_key) = (None, None, false);
        self.knows_flights = self.random.one_in(2);
        for place in 0..TEMPER {
            // Deaths and reads that nobody asked for are rarer than the rest.
            let kinds = if place < 3 { Step::ALL.len() } else { Step::ALL.len() - 2 };
            self.temper[place] = Step::ALL[self.random.index(kinds)];
        }
        self.temper[TEMPER - 1] = Step::Change;
        self.deletes_one_in = [2, 3, 6][self.random.index(3)];
        self.spans.version_skew = Duration::from_millis([0, 0, 1_000, 60_000][self.random.index(4)]);
        let alive = self.random.one_in(2);
        let in_scope = self.scope();
        let first = State { at: self.now, alive, in_scope, stamp: self.now, content: 0 };
        self.history.push(first);
        if alive && in_scope {
            let tick = self.next_tick();
            self.row = Some(Row { deleted: false, version: self.version(first), hash: Some(hash(first)), tick });
        }
        self.pass_time();
    }

    fn step(&mut self, upstream_changes: bool) {
        match self.temper[self.random.index(TEMPER)] {
            Step::Change if upstream_changes => self.change(),
            Step::Change | Step::PassTime => self.pass_time(),
            Step::Deliver => self.deliver(),
            Step::LookAtMark if self.mark.is_some() => self.look_at_mark(),
            Step::LookAtMark | Step::LookUp => self.look_up(),
            Step::List => self.issue(By::List),
            Step::Key => self.issue(By::Key),
            Step::Answer => self.answer(),
            Step::Restart => self.restart(),
        }
    }

    /// The upstream creates, updates, deletes or restores, and tells of it.
    fn change(&mut self) {
        if self.history.len() > CHANGES_MAX {
            return;
        }
        let old = *self.history.last().expect("a history begins with a state");
        let never = !old.alive && self.history.iter().all(|state| !state.alive);
        let content = u8::try_from(self.random.below(CONTENTS)).unwrap_or(0);
        let fresh = State { at: self.now, alive: true, in_scope: self.scope(), stamp: self.now, content };
        let new = match (old.alive, self.random.below(self.deletes_one_in)) {
            (true, 0) => State { at: self.now, alive: false, ..old },
            (true, _) => fresh,
            (false, _) if never => fresh,
            (false, 0) if self.setting.restore => fresh,
            // From the bin: the stamp and the content of before.
            (false, _) if self.setting.restore => State { at: self.now, alive: true, ..old },
            (false, _) => return,
        };
        self.history.push(new);
        let observation = self.event(new);
        self.note("upstream", &observation);
        let copies = 1 + u8::from(self.random.one_in(4));
        self.told.push(Told { observation, copies });
    }

    /// Whether the next state is to be held. Where scopes change, they do so often.
    fn scope(&mut self) -> bool {
        !self.setting.scopes || !self.random.one_in(2)
    }

    fn event(&mut self, state: State) -> Observation {
        if !state.alive {
            // What a delete's stamp means differs: of the delete, of the last change, of whatever a cache held.
            let any = self.random.index(self.history.len());
            let stamp = if self.random.one_in(2) { self.now } else { self.history[any].stamp };
            let version = self.version(State { stamp, ..state }).filter(|_| !self.random.one_in(3));
            return Observation::Push { delete: true, version, hash: None };
        }
        let whole = match self.setting.pushes {
            Pushes::Whole => true,
            Pushes::Thin => false,
            Pushes::Mixed => self.random.one_in(2),
        };
        // Of a state that is not to be held nothing comes along.
        let whole = whole && state.in_scope;
        let version = self.version(state).filter(|_| whole || !self.random.one_in(3));
        Observation::Push { delete: false, version, hash: whole.then(|| hash(state)) }
    }

    fn deliver(&mut self) {
        if self.told.is_empty() {
            return;
        }
        let at = self.random.index(self.told.len());
        let observation = self.told[at].observation.clone();
        self.told[at].copies -= 1;
        if self.told[at].copies == 0 {
            self.told.swap_remove(at);
        }
        self.apply(&observation);
    }

    fn look_at_mark(&mut self) {
        let by = if self.by_key || self.random.one_in(3) { By::Key } else { By::Bulk };
        self.issue(by);
    }

    fn issue(&mut self, by: By) {
        if self.flights.len() == FLIGHTS_MAX {
            return;
        }
        self.reads += 1;
        let started = Started { tick: self.next_tick(), at: self.wall() };
        self.flights.push(Flight { by, started, shown: None });
    }

    /// The upstream looks a request up: this is the moment whose state it shows, or one up to the lag before.
    fn look_up(&mut self) {
        let Some(at) = (!self.flights.is_empty()).then(|| self.random.index(self.flights.len())) else { return };
        if self.flights[at].shown.is_some() {
            return;
        }
        let lag = match (self.setting.freshness, self.flights[at].by) {
            (Freshness::AllLag, _) | (Freshness::ListsLag, By::List) => LAG_MS,
            _ => 0,
        };
        let last = self.history.len() - 1;
        // A state may be shown for the lag after the next one has replaced it.
        let replaced = |index: usize| self.history[index + 1].at;
        let oldest = if lag == 0 { last } else { (0..last).find(|index| replaced(*index) > self.now - lag).unwrap_or(last) };
        let shown = oldest + self.random.index(last - oldest + 1);
        self.flights[at].shown = Some(self.history[shown]);
    }

    fn answer(&mut self) {
        let Some(at) = (!self.flights.is_empty()).then(|| self.random.index(self.flights.len())) else { return };
        if self.flights[at].shown.is_none() {
            return self.look_up();
        }
        let Flight { by, started, shown } = self.flights.swap_remove(at);
        let Some(state) = shown.filter(|_| !self.random.one_in(8)) else { return };
        let observation = match (state.alive, by) {
            (true, _) => Observation::Read { by, started, version: self.version(state), hash: hash(state), in_scope: state.in_scope },
            (false, By::Key) => Observation::Gone { started },
            (false, By::Bulk) => Observation::Missing { started },
            // A list is compared with the live rows that we hold.
            (false, By::List) if self.row.as_ref().is_some_and(|row| !row.deleted) => Observation::Missing { started },
            (false, By::List) => return,
        };
        self.apply(&observation);
    }

    fn apply(&mut self, observation: &Observation) {
        let (fresh, now) = (self.next_tick(), self.wall());
        let in_flight = self.knows_flights && !self.flights.is_empty();
        let verdict = (self.rule)(observation, self.row.as_ref(), self.mark.as_ref(), in_flight, &self.spans, now);
        (self.row, self.mark) = verdict.applied_to(observation, self.row.take(), self.mark.take(), fresh, now);
        self.by_key = verdict.reason == Reason::Confirm;
        self.note("daemon", observation);
    }

    /// What is in memory is lost: the reads on their way and the knowledge of how to look next.
    fn restart(&mut self) {
        self.flights.clear();
        self.by_key = false;
        self.tick = Tick { epoch: self.tick.epoch + 1, counter: 0 };
    }

    fn pass_time(&mut self) {
        let most = [1, 2, 1_000, 2_500, 6_000][self.random.index(5)];
        self.pass(most);
    }

    fn pass(&mut self, most: u64) {
        self.now += i64::try_from(self.random.below(most)).unwrap_or(0);
    }

    fn agrees(&self) -> bool {
        let truth = *self.history.last().expect("a history begins with a state");
        let live = self.row.as_ref().filter(|row| !row.deleted);
        live.and_then(|row| row.hash) == (truth.alive && truth.in_scope).then(|| hash(truth))
    }

    fn next_tick(&mut self) -> Tick {
        self.tick.counter += 1;
        self.tick
    }

    fn wall(&self) -> Timestamp {
        Timestamp(self.now * 1_000)
    }

    fn version(&self, state: State) -> Option<Version> {
        let precision_ms = match self.setting.stamps {
            Stamps::Millis => 1,
            Stamps::Seconds => 1_000,
            Stamps::None => return None,
        };
        let at = Timestamp((state.stamp - state.stamp % precision_ms) * 1_000);
        Some(Version { field: self.field.clone(), value: Value::Stamp { at, precision_us: precision_ms * 1_000 } })
    }

    fn note(&self, who: &str, what: &Observation) {
        if !self.trace {
            return;
        }
        let instant = |at: Timestamp| at.0 / 1_000 - BEGIN;
        let version = |version: &Version| version.at().map(instant);
        let tick = |tick: Tick| format!("{}.{}", tick.epoch, tick.counter);
        let what = match what {
            Observation::Push { delete, version: v, hash } => {
                format!("push delete {delete} version {:?} content {:?}", v.as_ref().map(version), hash.map(|hash| hash.0[0]))
            }
            Observation::Read { by, started, version: v, hash, in_scope } => {
                format!(
                    "{by:?} at {} tick {} version {:?} content {} in scope {in_scope}",
                    instant(started.at),
                    tick(started.tick),
                    v.as_ref().map(version),
                    hash.0[0]
                )
            }
            Observation::Missing { started } => format!("missing at {} tick {}", instant(started.at), tick(started.tick)),
            Observation::Gone { started } => format!("gone at {} tick {}", instant(started.at), tick(started.tick)),
        };
        let row =
            self.row.as_ref().map(|row| (row.deleted, row.version.as_ref().map(version), row.hash.map(|hash| hash.0[0]), tick(row.tick)));
        let mark = self.mark.as_ref().map(|mark| {
            (tick(mark.tick), mark.hint.as_ref().map(version), mark.versionless, instant(mark.last_hint_at), mark.agreeing.is_some())
        });
        println!("{:>6} {who:<8} {what}\n       row {row:?} mark {mark:?}", self.now - BEGIN);
    }
}

fn hash(state: State) -> Hash {
    Hash([state.content; 32])
}

/// Xorshift: quick, seeded, good enough to choose steps.
struct Random(u64);

impl Random {
    /// Neighbouring seeds give unlike schedules (the finaliser of SplitMix64).
    fn seeded(seed: u64) -> Self {
        let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Self((z ^ (z >> 31)) | 1)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % most.max(1)
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
