//! What is spent of one limit, exactly, in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use super::blocks::Blocks;
use super::limits::{Class, Limit, Shape};

/// Returns are kept in slots of a thousandth of the window, so that a day of requests is a thousand numbers.
const SLOTS: u32 = 1_000;

/// How often a halved burst grows by a twentieth of the limit, unless the window is shorter.
const RECOVERY_MAX: Duration = Duration::from_secs(600);

/// One limit with everything that is spent of it.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) limit: Limit,
    pub(crate) usable: u64,
    pub(crate) blocks: Blocks,
    /// Charges of requests without a verdict so far.
    in_flight: u64,
    /// Charges that come back (window) or begin to leak (bucket) at an instant, rounded up to a slot.
    slots: BTreeMap<u64, u64>,
    slotted: u64,
    slot: Duration,
    leaking: Leak,
    pace: Pace,
}

/// The part of a bucket that leaks. Empty for ever where the limit is a window.
#[derive(Debug)]
struct Leak {
    level: f64,
    per_second: f64,
    at: Duration,
}

/// How much may go at once. As long as the burst is the whole limit this says nothing that the window does not say.
#[derive(Debug)]
struct Pace {
    burst: u64,
    tokens: f64,
    at: Duration,
    recovered_at: Duration,
}

impl Account {
    pub(crate) fn new(limit: Limit, expected_max: u64, max_server_queue: Duration) -> Self {
        let usable = limit.usable();
        let per_second = match limit.shape {
            Shape::Bucket { refill_per_second } => refill_per_second * limit.share,
            Shape::Window(_) | Shape::Aligned(_) => 0.0,
        };
        Self {
            usable,
            blocks: Blocks::new(usable, limit.window(), max_server_queue, expected_max),
            in_flight: 0,
            slots: BTreeMap::new(),
            slotted: 0,
            slot: (limit.window() / SLOTS).max(Duration::from_millis(1)),
            leaking: Leak { level: 0.0, per_second, at: Duration::ZERO },
            pace: Pace { burst: usable, tokens: usable as f64, at: Duration::ZERO, recovered_at: Duration::ZERO },
            limit,
        }
    }

    /// Lets time pass: what is due comes back, buckets leak, a halved burst recovers.
    pub(crate) fn advance(&mut self, now: Duration) {
        while let Some(entry) = self.slots.first_entry() {
            let due = slot_end(*entry.key(), self.slot);
            if due > now {
                break;
            }
            let amount = entry.remove();
            self.slotted -= amount;
            if matches!(self.limit.shape, Shape::Bucket { .. }) {
                self.leaking.drain(due);
                self.leaking.level += amount as f64;
            }
        }
        self.leaking.drain(now);
        self.recover(now);
        self.blocks.expire(now);
    }

    /// Everything spent that is not back yet.
    pub(crate) fn spent(&self) -> u64 {
        self.in_flight + self.slotted + self.leaking.level.ceil() as u64
    }

    /// Whether a charge of `class` fits now: `Ok`, or when it may fit by itself, `None` if first a response must arrive.
    /// Call [`Account::advance`] before.
    pub(crate) fn fits(&self, now: Duration, class: Class, charge: u64) -> Result<(), Option<Duration>> {
        let ceiling = self.usable.saturating_sub(self.limit.reserved(class)).saturating_sub(charge);
        let over = self.spent().saturating_sub(ceiling);
        if over > 0 {
            return Err(self.back_by(now, over));
        }
        match self.paced_until(now, charge) {
            Some(until) => Err(Some(until)),
            None => Ok(()),
        }
    }

    pub(crate) fn take(&mut self, now: Duration, charge: u64) {
        self.in_flight += charge;
        self.refill(now);
        self.pace.tokens -= charge as f64;
    }

    /// Ends a request: what it reserved goes, what it really spent comes back at `at`.
    pub(crate) fn put_back(&mut self, reserved: u64, spent: u64, at: Duration) {
        self.in_flight -= reserved;
        self.schedule(spent, at);
    }

    /// Counts `amount` as spent until `at` (a bucket: leaking from then on).
    pub(crate) fn schedule(&mut self, amount: u64, at: Duration) {
        if amount == 0 {
            return;
        }
        let slot = at.as_nanos().div_ceil(self.slot.as_nanos());
        *self.slots.entry(u64::try_from(slot).unwrap_or(u64::MAX)).or_default() += amount;
        self.slotted += amount;
    }

    /// The upstream says that only `remaining` are left until `until`: holds the difference back for that long. Never gives more.
    /// What is in flight may not be in the upstream's number yet, so it counts against it.
    pub(crate) fn lower(&mut self, remaining: u64, until: Duration) {
        let free = self.usable.saturating_sub(self.spent());
        let held = free.saturating_sub(remaining.saturating_sub(self.in_flight));
        if matches!(self.limit.shape, Shape::Bucket { .. }) {
            self.leaking.level += held as f64;
        } else {
            self.schedule(held, until);
        }
    }

    /// Half as much at once from now on, growing back slowly.
    pub(crate) fn halve_burst(&mut self, now: Duration) {
        self.refill(now);
        self.pace.burst = (self.pace.burst / 2).max(1);
        self.pace.tokens = self.pace.tokens.min(self.pace.burst as f64);
        self.pace.recovered_at = now;
    }

    pub(crate) fn burst(&self) -> u64 {
        self.pace.burst
    }

    fn back_by(&self, now: Duration, over: u64) -> Option<Duration> {
        if let Shape::Bucket { .. } = self.limit.shape {
            let leaks = (self.leaking.level > 0.0).then(|| {
                let seconds = (over as f64).min(self.leaking.level) / self.leaking.per_second;
                now + Duration::from_secs_f64(seconds) + Duration::from_millis(1)
            });
            let joins = self.slots.first_key_value().map(|(slot, _)| slot_end(*slot, self.slot));
            return [leaks, joins].into_iter().flatten().min();
        }
        let mut back = 0;
        self.slots.iter().find_map(|(slot, amount)| {
            back += amount;
            (back >= over).then(|| slot_end(*slot, self.slot))
        })
    }

    /// A charge above the burst needs a full allowance and then owes the rest.
    fn paced_until(&self, now: Duration, charge: u64) -> Option<Duration> {
        if self.pace.burst >= self.usable {
            return None;
        }
        let missing = charge.min(self.pace.burst) as f64 - self.tokens(now);
        (missing > 0.0).then(|| now + Duration::from_secs_f64(missing / self.per_second()) + Duration::from_millis(1))
    }

    fn tokens(&self, now: Duration) -> f64 {
        let passed = now.saturating_sub(self.pace.at).as_secs_f64();
        (self.pace.tokens + passed * self.per_second()).min(self.pace.burst as f64)
    }

    fn refill(&mut self, now: Duration) {
        self.pace.tokens = self.tokens(now);
        self.pace.at = self.pace.at.max(now);
    }

    fn per_second(&self) -> f64 {
        self.usable as f64 / self.limit.window().as_secs_f64()
    }

    fn recover(&mut self, now: Duration) {
        let step = self.limit.window().min(RECOVERY_MAX);
        if self.pace.burst >= self.usable || now < self.pace.recovered_at + step {
            return;
        }
        self.refill(now);
        self.pace.burst = (self.pace.burst + (self.usable / 20).max(1)).min(self.usable);
        self.pace.recovered_at = now;
    }
}

impl Leak {
    fn drain(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.level = (self.level - passed * self.per_second).max(0.0);
        self.at = self.at.max(now);
    }
}

fn slot_end(slot: u64, length: Duration) -> Duration {
    let nanos = u128::from(slot) * length.as_nanos();
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
