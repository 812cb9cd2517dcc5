//! What is known of a scope's permits: accounts and breakers, kept beside the actor.
//!
//! An end must be entered whoever lives at that moment: a mailbox dies with its actor, and an end that died in it would hold its
//! permit for ever. So ends are entered by whoever held the permit, and a new incarnation of the actor goes on with the same books.
//! A panic while they are open leaves them in doubt: then they are thrown away, and the next incarnation reads the rows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Health, Options, Target, Verdict};
use crate::clock::Timestamp;
use crate::quota::{Breaker, Class, Decision, Limiter, Outcome, PermitId, State as BreakerState, StoredBlock, headers};
use crate::report::{BreakerClosed, BreakerOpened, RateLimited};
use crate::retry::RetryPolicy;

/// Without a header that says otherwise a 429 pauses this long and a 503 half of it.
const DEFAULT_PAUSE: Duration = Duration::from_secs(10);
/// A 429 that asks for a shorter pause than the first, for none or for one in the past, pauses this long instead, doubling with each
/// further one up to the second: who refuses all the same is not to be asked without end.
const PAUSE_MIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Pauses shorter than a restart need not outlive one.
const PAUSE_KEPT: Duration = Duration::from_secs(2);

/// The books, while there are any.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf(Arc<Mutex<Option<Books>>>);

impl Shelf {
    /// Opens the books; `None` while nothing is known, and from a panic inside on.
    pub(super) fn open<T>(&self, look: impl FnOnce(&mut Books) -> T) -> Option<T> {
        let mut books = self.0.lock().unwrap_or_else(|poisoned| {
            let mut books = poisoned.into_inner();
            *books = None;
            self.0.clear_poison();
            books
        });
        books.as_mut().map(look)
    }

    /// Puts new books there.
    pub(super) fn put(&self, new: Books) {
        // What was there, also what a panic left in doubt, is replaced.
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(new);
        self.0.clear_poison();
    }
}

/// Accounts and breakers of a scope.
#[derive(Debug)]
pub(super) struct Books {
    options: Options,
    pub(super) limiter: Limiter,
    pub(super) breakers: HashMap<Target, Breaker>,
    /// Pauses in a row that a 429 asked for.
    refusals: u32,
    /// A pause that has to be written down.
    pub(super) unwritten: Option<Timestamp>,
}

/// What is to be done about a request that waits.
pub(super) enum Step {
    Granted(PermitId),
    Wait(Duration),
    Book,
}

impl Books {
    /// The books as the rows tell them.
    pub(super) fn restored(options: &Options, blocks: &[StoredBlock], paused_until: Option<Timestamp>) -> Self {
        let (now, wall) = (options.clock.monotonic(), options.clock.now());
        let mut limiter = Limiter::new(options.limits.clone(), rand::random());
        limiter.restore(blocks, now, wall);
        if let Some(until) = paused_until {
            limiter.pause(now, now + until.since(wall));
        }
        Self { options: options.clone(), limiter, breakers: HashMap::new(), refusals: 0, unwritten: None }
    }

    /// Whether a request may go now; `later` is when to ask again where nothing better is known.
    pub(super) fn decide(&mut self, class: Class, target: &Target, now: Duration, later: Duration) -> Step {
        // The pause after a 429 may be over, but only an answer shows that the refusing is.
        if self.refusals > 0 && self.limiter.in_flight() > 0 {
            return Step::Wait(later);
        }
        let concerned = [target.clone(), target.whole()];
        // A breaker's probe is taken only when the limits let it go, or a waiting probe would keep everybody out.
        for breaker in concerned.iter().filter_map(|target| self.breakers.get(target)) {
            match breaker.state() {
                BreakerState::Open(until) if now < until => return Step::Wait(until),
                BreakerState::HalfOpen => return Step::Wait(later),
                _ => {}
            }
        }
        match self.limiter.acquire(now, class, &target.name()) {
            Decision::Granted(id) => {
                for target in concerned {
                    if let Some(breaker) = self.breakers.get_mut(&target) {
                        // Passes or becomes the probe: what would wait was turned away above.
                        let _ = breaker.gate(now);
                    }
                }
                Step::Granted(id)
            }
            Decision::Wait { until, .. } => Step::Wait(until.unwrap_or(later)),
            Decision::NeedsBlock => Step::Book,
        }
    }

    /// Enters the end of a request; without a verdict it is lost. Ends of other books' permits are ignored.
    pub(super) fn ended(&mut self, id: PermitId, target: &Target, verdict: Option<Verdict>) {
        let (now, wall) = (self.options.clock.monotonic(), self.options.clock.now());
        match verdict {
            None | Some(Verdict::BrokenOff) => {
                if verdict.is_some() {
                    self.limiter.settle(id, now, wall, Outcome::default());
                } else {
                    self.limiter.lost(id, now, wall);
                }
                self.judge(target, Some(false), now);
                // Somebody was there to keep silent; a probe of the source that was lost has not shown it well, either.
                self.judge(&target.whole(), None, now);
            }
            Some(Verdict::Unused) => {
                self.limiter.unused(id, now, wall);
                self.judge(target, None, now);
                self.judge(&target.whole(), None, now);
            }
            Some(Verdict::NotReached) => {
                self.limiter.settle(id, now, wall, Outcome::default());
                self.judge(target, None, now);
                self.judge(&target.whole(), Some(false), now);
            }
            Some(Verdict::Answered { status, wait, bytes, health }) => {
                self.limiter.settle(id, now, wall, Outcome { bytes: Some(bytes), ..Outcome::default() });
                let longest = self.options.limits.longest_window();
                let asked = wait.and_then(|value| headers::wait(&value, wall, longest));
                if status == 429 {
                    self.refused(asked, now, wall);
                } else {
                    self.refusals = 0;
                    if status == 503 {
                        self.limiter.unavailable(now, &target.name(), now + asked.unwrap_or(DEFAULT_PAUSE / 2));
                    }
                }
                let is_well = (status != 429).then_some(health == Health::Well);
                self.judge(target, is_well.filter(|_| health != Health::Denied), now);
                self.judge(&target.whole(), (status != 429).then_some(health != Health::Denied), now);
            }
        }
    }

    /// Everything of the scope pauses. Refusals that were under way when the pause began belong to it.
    fn refused(&mut self, asked: Option<Duration>, now: Duration, wall: Timestamp) {
        if !self.limiter.is_paused(now) {
            self.refusals = self.refusals.saturating_add(1);
        }
        let (first, last) = PAUSE_MIN;
        let least = RetryPolicy::new(first, last, 2.0, 0.0).expect("invariant: the constants are a valid policy");
        let asked = asked.unwrap_or(DEFAULT_PAUSE);
        let pause = if asked < first { least.delay(self.refusals, 0) } else { asked }.min(self.options.limits.longest_window());
        self.limiter.refused(now, now + pause, None);
        if pause >= PAUSE_KEPT {
            self.unwritten = self.unwritten.max(Some(wall.plus(pause)));
        }
        let (source, scope) = (self.options.source.clone(), self.options.scope.clone());
        self.options.reporter.emit(RateLimited { source, scope, seconds: pause.as_secs_f64() });
    }

    /// Tells a breaker how a request of its ended; `None`: without a word about the upstream.
    fn judge(&mut self, target: &Target, is_well: Option<bool>, now: Duration) {
        let options = self.options.breaker;
        let breaker = self.breakers.entry(target.clone()).or_insert_with(|| Breaker::new(options));
        let was = breaker.state();
        match is_well {
            Some(true) => breaker.succeeded(),
            Some(false) => breaker.failed(now),
            None => breaker.abandoned(now),
        }
        let Target { source, endpoint } = target.clone();
        match (was, breaker.state()) {
            (BreakerState::Open(_), BreakerState::Open(_)) => {}
            (_, BreakerState::Open(until)) if is_well == Some(false) => {
                let seconds = until.saturating_sub(now).as_secs_f64();
                self.options.reporter.emit(BreakerOpened { source, endpoint, seconds });
            }
            (BreakerState::HalfOpen, BreakerState::Closed) => self.options.reporter.emit(BreakerClosed { source, endpoint }),
            _ => {}
        }
    }
}
