//! A server that stamps late, loses answers and is talked to by a process that is killed and by a second client: it must never see
//! more than it allows.
//!
//! The long form, a hundred times as many cases, is `INSTEP_LONG=1 cargo test --lib quota::simulation`.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::clock::Timestamp;

const EPOCH: Timestamp = Timestamp(1_773_461_839_000_000);
const QUEUE: Duration = Duration::from_secs(4);
const TIMEOUT: Duration = Duration::from_secs(1);

fn is_long() -> bool {
    std::env::var_os("INSTEP_LONG").is_some_and(|value| value != "0")
}

/// What goes wrong in a run, and what the limiter is spared for the counter-proofs.
#[derive(Clone, Copy, Debug)]
struct Faults {
    latency_max: Duration,
    /// Requests without an answer, in a thousand.
    lost_per_mille: u64,
    /// Mean time between kills.
    killed_every: Option<Duration>,
    /// Commits whose outcome nobody learns, in a thousand; half of them happened.
    unsure_per_mille: u64,
    /// Ends of the process that are orderly, in a thousand.
    orderly_per_mille: u64,
    /// How long after the sender gave up the server may still stamp.
    queue: Duration,
    forgets_blocks: bool,
    trusts_timeouts: bool,
    is_never_wary: bool,
}

const HONEST: Faults = Faults {
    latency_max: Duration::from_millis(500),
    lost_per_mille: 0,
    killed_every: None,
    unsure_per_mille: 0,
    orderly_per_mille: 0,
    queue: QUEUE,
    forgets_blocks: false,
    trusts_timeouts: false,
    is_never_wary: false,
};

/// One request: when it was sent, when it ends, whether with an answer, and how late the server stamps it (0..=1 of what is possible).
struct Wire {
    id: PermitId,
    sent: Duration,
    ends: Duration,
    answered: bool,
    lateness: f64,
    server_ms: u64,
}

struct World {
    faults: Faults,
    random: u64,
    now: Duration,
    limits: Limits,
    limiter: Limiter,
    booted: Duration,
    wires: Vec<Wire>,
    rows: BTreeMap<i64, StoredBlock>,
    next_row: i64,
    /// (instant, server milliseconds) of every request that the server counted.
    stamps: Vec<(Duration, u64)>,
}

impl World {
    fn new(limits: Limits, faults: Faults, seed: u64) -> Self {
        let queue = if faults.trusts_timeouts { Duration::ZERO } else { faults.queue };
        let limits = limits.with_max_server_queue(queue);
        Self {
            faults,
            random: seed,
            now: Duration::ZERO,
            limiter: Limiter::new(limits.clone(), 0),
            limits,
            booted: Duration::ZERO,
            wires: Vec::new(),
            rows: BTreeMap::new(),
            next_row: 0,
            stamps: Vec::new(),
        }
    }

    /// Runs to `end` with endless demand and returns every stamp, in order.
    fn run(mut self, end: Duration) -> Vec<(Duration, u64)> {
        let mut kill_at = self.next_kill();
        while self.now < end {
            self.end_wires();
            let asked_again = self.send_all();
            let news_due = self.write_news();
            let next_end = self.wires.iter().map(|wire| wire.ends).min();
            let next = [Some(kill_at), asked_again, news_due, next_end].into_iter().flatten().min().expect("a kill is always ahead");
            self.now = next.max(self.now + Duration::from_micros(1));
            if self.now >= kill_at {
                self.kill();
                kill_at = self.next_kill();
            }
        }
        self.kill();
        self.stamps.sort_unstable();
        self.stamps
    }

    fn draw(&mut self, below: u64) -> u64 {
        // splitmix64: a seed gives a run.
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % below.max(1)
    }

    fn draw_up_to(&mut self, span: Duration) -> Duration {
        Duration::from_micros(self.draw(u64::try_from(span.as_micros()).expect("short spans") + 1))
    }

    fn next_kill(&mut self) -> Duration {
        let every = self.faults.killed_every.unwrap_or(Duration::from_secs(1_000_000));
        self.now + every / 10 + self.draw_up_to(every * 2)
    }

    fn clocks(&self) -> (Duration, Timestamp) {
        // Monotonic time begins anew in every process.
        (self.now - self.booted, EPOCH.plus(self.now))
    }

    /// Sends as long as permits are granted; returns when to ask again.
    fn send_all(&mut self) -> Option<Duration> {
        loop {
            let (now, wall) = self.clocks();
            match self.limiter.acquire(now, Class::Live, "/tasks") {
                Decision::Granted(id) => self.send(id),
                Decision::NeedsBlock => {
                    if !self.book(now, wall) {
                        return Some(self.now + Duration::from_millis(500));
                    }
                }
                Decision::Wait { until, .. } => return until.map(|until| self.booted + until),
            }
        }
    }

    /// False if nobody knows whether it was written.
    fn book(&mut self, now: Duration, wall: Timestamp) -> bool {
        let bookings = self.limiter.bookings(now);
        let is_unsure = self.draw(1000) < self.faults.unsure_per_mille;
        if is_unsure && self.draw(2) == 0 {
            return false;
        }
        let ids = self.write(&bookings);
        if !is_unsure {
            self.limiter.booked(&bookings, &ids, now, wall);
        }
        !is_unsure
    }

    /// Returns when to write more.
    fn write_news(&mut self) -> Option<Duration> {
        let (now, wall) = self.clocks();
        if self.limiter.news_due().is_some_and(|due| due <= now) && !self.book(now, wall) {
            return Some(self.now + Duration::from_millis(500));
        }
        self.limiter.news_due().map(|due| self.booted + due)
    }

    fn send(&mut self, id: PermitId) {
        let answered = self.draw(1000) >= self.faults.lost_per_mille;
        let takes = if answered { self.draw_up_to(self.faults.latency_max) } else { TIMEOUT };
        // The extremes are where proofs fail, so a third of the stamps each is as early and as late as can be.
        let lateness = match self.draw(3) {
            0 => 0.0,
            1 => 1.0,
            _ => self.draw(1000) as f64 / 1000.0,
        };
        // The server worked all the time: the most that the limiter must reckon with.
        let server_ms = u64::try_from(takes.as_millis()).expect("short spans");
        self.wires.push(Wire { id, sent: self.now, ends: self.now + takes, answered, lateness, server_ms });
    }

    fn end_wires(&mut self) {
        let (now, wall) = self.clocks();
        let ended: Vec<Wire> = {
            let at = self.now;
            self.wires.extract_if(.., |wire| wire.ends <= at).collect()
        };
        for wire in ended {
            let known = if wire.answered {
                let known = self.limiter.settle(wire.id, now, wall, Outcome::default());
                self.stamp(&wire, self.now);
                known
            } else {
                let known = self.limiter.lost(wire.id, now, wall);
                self.stamp(&wire, self.now + self.faults.queue);
                known
            };
            assert!(known, "a permit of this process");
        }
    }

    fn stamp(&mut self, wire: &Wire, latest: Duration) {
        self.stamps.push((wire.sent + (latest - wire.sent).mul_f64(wire.lateness), wire.server_ms));
    }

    fn kill(&mut self) {
        if self.draw(1000) < self.faults.orderly_per_mille {
            self.stop();
        }
        for wire in std::mem::take(&mut self.wires) {
            // The server may read an answerless request from its queue long after its sender died.
            self.stamp(&wire, self.now + self.faults.queue);
        }
        let down = self.draw_up_to(Duration::from_millis(500));
        self.now += down;
        self.booted = self.now;
        let incarnation = self.draw(u64::MAX);
        self.limiter = Limiter::new(self.limits.clone(), incarnation);
        let (now, wall) = self.clocks();
        let mut rows: Vec<StoredBlock> = self.rows.values().cloned().collect();
        if self.faults.is_never_wary {
            // As a limiter counts that does not know its predecessor was killed.
            let ends = wall.plus(self.faults.queue);
            rows.retain(|row| !row.is_marker());
            rows.iter_mut().for_each(|row| row.finished_at = row.finished_at.or(Some(ends)));
            self.rows = rows.iter().map(|row| (row.id.0, row.clone())).collect();
        }
        if !self.faults.forgets_blocks {
            self.limiter.restore(&rows, now, wall);
        }
    }

    /// Every request is waited for, then the books are closed.
    fn stop(&mut self) {
        self.now = self.wires.iter().map(|wire| wire.ends).max().unwrap_or(self.now).max(self.now);
        self.end_wires();
        let (now, wall) = self.clocks();
        let bookings = self.limiter.close(now);
        let ids = self.write(&bookings);
        self.limiter.booked(&bookings, &ids, now, wall);
        let unfinished = self.rows.values().filter(|row| row.finished_at.is_none()).count();
        assert!(unfinished == 0 || self.faults.unsure_per_mille > 0, "an ordered end leaves {unfinished} blocks unfinished");
    }

    fn write(&mut self, bookings: &Bookings) -> Vec<BlockId> {
        let is_sure = self.faults.unsure_per_mille == 0;
        for finished in &bookings.finished {
            // A row may be gone by a transaction whose outcome was not learned; the database then updates nothing.
            let Some(row) = self.rows.get_mut(&finished.id.0) else {
                assert!(!is_sure, "a row of ours");
                continue;
            };
            row.amount = finished.amount;
            row.finished_at = Some(finished.finished_at);
        }
        for expired in &bookings.expired {
            assert!(self.rows.remove(&expired.0).is_some() || !is_sure, "a row is deleted once");
        }
        let insert = |request: &BlockRequest| {
            self.next_row += 1;
            let id = BlockId(self.next_row);
            let row = StoredBlock { id, limit: request.limit.clone(), amount: request.amount, finished_at: None };
            self.rows.insert(id.0, row);
            id
        };
        let ids = bookings.wanted.iter().map(insert).collect();
        let bounded = self.rows.len() <= 200 * self.limits.list().len();
        assert!(bounded || self.faults.forgets_blocks || !is_sure, "rows are bounded: {}", self.rows.len());
        ids
    }
}

fn limit(id: &str, amount: u64, shape: Shape, unit: Unit) -> Limit {
    Limit { id: id.into(), amount, shape, unit, share: 1.0 }
}

const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(15);
const MINUTE: Duration = Duration::from_secs(60);

fn limits(list: Vec<Limit>) -> Limits {
    let expected = Expected { server_ms: 3_001, ..Expected::default() };
    Limits::new(list, Concurrency { cap: 12, floor: 6 }, [expected; 5]).expect("valid")
}

fn windows() -> Limits {
    limits(vec![limit("short", 20, Shape::Window(SHORT), Unit::Requests), limit("long", 60, Shape::Window(LONG), Unit::Requests)])
}

/// More than `amount` within any sliding window, exactly as a log of instants would count.
fn refused_sliding(stamps: &[(Duration, u64)], amount: usize, window: Duration) -> usize {
    stamps.windows(amount + 1).filter(|run| run[amount].0 - run[0].0 < window).count()
}

/// The fullest fixed window whose boundaries lie at `offset` plus multiples of the length.
fn fullest_fixed(stamps: &[(Duration, u64)], window: Duration, offset: Duration, cost: fn(u64) -> u64) -> u64 {
    let mut sums = BTreeMap::<u128, u64>::new();
    for (at, server_ms) in stamps {
        *sums.entry((*at + offset).as_nanos() / window.as_nanos()).or_default() += cost(*server_ms);
    }
    sums.into_values().max().unwrap_or(0)
}

/// How often a leaking bucket overflowed.
fn overflows(stamps: &[(Duration, u64)], capacity: f64, per_second: f64) -> usize {
    let (mut level, mut at) = (0.0_f64, Duration::ZERO);
    let mut count = 0;
    for (stamp, _) in stamps {
        level = (level - (*stamp - at).as_secs_f64() * per_second).max(0.0) + 1.0;
        at = *stamp;
        count += usize::from(level > capacity + 1e-6);
    }
    count
}

fn faults() -> impl Strategy<Value = Faults> {
    let ends = (prop::option::of(1_u64..30), 0_u64..500, prop::sample::select(vec![0_u64, 0, 20, 200]));
    (1_u64..3_000, 0_u64..100, ends).prop_map(|(latency, lost_per_mille, (killed, orderly_per_mille, unsure_per_mille))| Faults {
        latency_max: Duration::from_millis(latency),
        lost_per_mille,
        killed_every: killed.map(Duration::from_secs),
        orderly_per_mille,
        unsure_per_mille,
        ..HONEST
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if is_long() { 9_600 } else { 96 }, ..ProptestConfig::default() })]

    #[test]
    fn no_window_ever_holds_more_than_it_may(seed: u64, faults in faults(), offset in 0_u64..15_000) {
        let stamps = World::new(windows(), faults, seed).run(Duration::from_secs(120));
        prop_assert!(!stamps.is_empty());
        prop_assert_eq!(refused_sliding(&stamps, 20, SHORT), 0);
        prop_assert_eq!(refused_sliding(&stamps, 60, LONG), 0);
        let offset = Duration::from_millis(offset);
        prop_assert!(fullest_fixed(&stamps, SHORT, offset, |_| 1) <= 20);
        prop_assert!(fullest_fixed(&stamps, LONG, offset, |_| 1) <= 60);
    }

    #[test]
    fn a_second_client_that_keeps_to_the_rest_is_never_refused_and_never_has_us_refused(seed: u64, faults in faults(), offset in 0_u64..2_000) {
        let list = vec![Limit { share: 0.75, ..limit("shared", 20, Shape::Window(SHORT), Unit::Requests) }];
        let mut stamps = World::new(limits(list), faults, seed).run(Duration::from_secs(120));
        prop_assert_eq!(refused_sliding(&stamps, 15, SHORT), 0);
        let phase = SHORT * u32::try_from(seed % 997).expect("small") / 997;
        // All of its quarter at once, as soon as it may: what a bad neighbour does who still keeps to the rules.
        let bursts = (0..60).flat_map(|burst| std::iter::repeat_n((SHORT * burst + phase, 0), 5));
        stamps.extend(bursts);
        stamps.sort_unstable();
        prop_assert_eq!(refused_sliding(&stamps, 20, SHORT), 0);
        prop_assert!(fullest_fixed(&stamps, SHORT, Duration::from_millis(offset), |_| 1) <= 20);
    }

    #[test]
    fn no_aligned_window_of_server_time_is_exceeded(seed: u64, faults in faults(), skew in 0_u64..60) {
        let hourly = limit("hour", 60_000, Shape::Aligned(MINUTE), Unit::ServerMillis);
        let stamps = World::new(limits(vec![hourly]), faults, seed).run(Duration::from_secs(600));
        // The server's clock is up to 30 s before or behind ours.
        let phase = Duration::from_micros((EPOCH.0 as u64) % 60_000_000) + MINUTE - Duration::from_secs(30);
        let fullest = fullest_fixed(&stamps, MINUTE, phase + Duration::from_secs(skew), |ms| ms);
        prop_assert!(fullest <= 60_000, "{}", fullest);
    }

    #[test]
    fn no_bucket_overflows(seed: u64, faults in faults()) {
        let bucket = limit("bucket", 40, Shape::Bucket { refill_per_second: 2.0 }, Unit::Requests);
        let stamps = World::new(limits(vec![bucket]), faults, seed).run(Duration::from_secs(300));
        prop_assert_eq!(overflows(&stamps, 40.0, 2.0), 0);
    }
}

fn refusals(faults: Faults) -> usize {
    (0..20).map(|seed| refused_sliding(&World::new(windows(), faults, seed).run(MINUTE * 2), 20, SHORT)).sum()
}

#[test]
fn the_simulation_sees_a_limiter_that_forgets_its_blocks() {
    let killed = Faults { killed_every: Some(Duration::from_secs(4)), ..HONEST };
    assert_eq!(refusals(killed), 0);
    assert!(refusals(Faults { forgets_blocks: true, ..killed }) > 0);
}

#[test]
fn the_simulation_sees_a_limiter_that_returns_lost_permits_at_the_timeout() {
    let lossy = Faults { lost_per_mille: 200, ..HONEST };
    assert_eq!(refusals(lossy), 0);
    assert!(refusals(Faults { trusts_timeouts: true, ..lossy }) > 0);
}

#[test]
fn nine_tenths_of_a_ten_second_window_are_used() {
    let ten = Duration::from_secs(10);
    let list = vec![limit("token", 90, Shape::Window(ten), Unit::Requests)];
    let stamps = World::new(limits(list), HONEST, 7).run(Duration::from_secs(220));
    let steady = stamps.iter().filter(|(at, _)| *at >= ten * 2 && *at < ten * 22).count();
    assert!(steady >= 20 * 81, "{steady} of {} in twenty windows", 20 * 90);
}

/// The part of our share that is used in ten minutes of kills, after a first window and queue; and the part that can be had.
fn used(latency_max: Duration, lost_per_mille: u64, killed_every: Duration, is_never_wary: bool) -> (f64, f64) {
    let (ten, queue) = (Duration::from_secs(10), Duration::from_secs(60));
    let faults = Faults { latency_max, lost_per_mille, killed_every: Some(killed_every), queue, is_never_wary, ..HONEST };
    let list = vec![limit("token", 90, Shape::Window(ten), Unit::Requests)];
    let (begin, end) = (MINUTE + ten, MINUTE * 11 + ten);
    let stamps = World::new(limits(list), faults, 7).run(end);
    assert_eq!(refused_sliding(&stamps, 90, ten), 0);
    let n = stamps.iter().filter(|(at, _)| *at >= begin && *at < end).count();
    // Kills are drawn between a tenth and 2.1 of their mean, and a request is longer under way where it is long anyway.
    let (t, p, k) = (latency_max.as_secs_f64() / 2.0, lost_per_mille as f64 / 1000.0, killed_every.as_secs_f64() * 1.1 + 0.25);
    let bound = 10.0 / (10.0 + t + (p + t / k) * 60.0 + p * TIMEOUT.as_secs_f64());
    (n as f64 / (9.0 * (end - begin).as_secs_f64()), bound)
}

#[test]
fn whoever_is_killed_every_few_seconds_uses_what_can_be_had_of_its_share() {
    let spans = [(40, 4), (40, 10), (200, 4), (200, 10), (200, 20), (1_000, 20), (1_000, 60)];
    for (latency, every) in spans {
        let (latency, every) = (Duration::from_millis(latency), Duration::from_secs(every));
        let (used, bound) = used(latency, 2, every, false);
        println!("simulation: killed every {every:?}, answers within {latency:?}: {:.1} % of {:.1} %", used * 100.0, bound * 100.0);
        assert!(used >= bound - 0.05, "{used:.3} of {bound:.3}");
    }
    let few = Duration::from_secs(4);
    let (quick, _) = used(Duration::from_millis(40), 0, few, false);
    assert!(quick >= 0.9, "quick answers leave nine tenths at four seconds between kills: {quick:.3}");
    let (careless, _) = used(Duration::from_millis(40), 0, few, true);
    assert!(careless < 0.5, "whole blocks would be nearly all wasted: {careless:.3}");
}
