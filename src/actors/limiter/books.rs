//! What is known of a scope's permits: accounts and breakers, kept beside the actor.
//!
//! An end must be entered whoever lives at that moment: a mailbox dies with its actor, and an end that died in it would hold its
//! permit for ever. So ends are entered by whoever held the permit, and a new incarnation of the actor goes on with the same books.
//! A panic while they are open leaves them in doubt: then they are thrown away, and the next incarnation reads the rows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Options, Verdict};
use crate::quota::{Breaker, BreakerOptions, Class, Decision, Limiter, Outcome, PermitId, State as BreakerState, StoredBlock, headers};
use crate::report::{BreakerClosed, BreakerOpened, RateLimited};

/// Without a header that says otherwise a 429 pauses this long and a 503 half of it.
const DEFAULT_PAUSE: Duration = Duration::from_secs(10);

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
    pub(super) breakers: HashMap<String, Breaker>,
}

/// What is to be done about a request that waits.
pub(super) enum Step {
    Granted(PermitId),
    Wait(Duration),
    Book,
}

impl Books {
    /// The books as the rows tell them.
    pub(super) fn restored(options: &Options, blocks: &[StoredBlock]) -> Self {
        let mut limiter = Limiter::new(options.limits.clone(), rand::random());
        limiter.restore(blocks, options.clock.monotonic(), options.clock.now());
        Self { options: options.clone(), limiter, breakers: HashMap::new() }
    }

    /// Whether a request may go now; `later` is when to ask again where nothing better is known.
    pub(super) fn decide(&mut self, class: Class, endpoint: &str, now: Duration, later: Duration) -> Step {
        // The breaker's probe is taken only when the limits let it go, or a waiting probe would keep everybody out.
        match self.breakers.get(endpoint).map(Breaker::state) {
            Some(BreakerState::Open(until)) if now < until => return Step::Wait(until),
            Some(BreakerState::HalfOpen) => return Step::Wait(later),
            _ => {}
        }
        match self.limiter.acquire(now, class, endpoint) {
            Decision::Granted(id) => {
                if let Some(breaker) = self.breakers.get_mut(endpoint) {
                    // Passes or becomes the probe: what would wait was turned away above.
                    let _ = breaker.gate(now);
                }
                Step::Granted(id)
            }
            Decision::Wait { until, .. } => Step::Wait(until.unwrap_or(later)),
            Decision::NeedsBlock => Step::Book,
        }
    }

    /// Enters the end of a request; without a verdict it is lost. Ends of other books' permits are ignored.
    pub(super) fn ended(&mut self, id: PermitId, endpoint: &str, verdict: Option<Verdict>) {
        let (now, wall) = (self.options.clock.monotonic(), self.options.clock.now());
        let breaker = self.breakers.entry(endpoint.to_owned()).or_insert_with(|| Breaker::new(BreakerOptions::default()));
        let was = breaker.state();
        match verdict {
            None => {
                self.limiter.lost(id, now, wall);
                breaker.failed(now);
            }
            Some(Verdict::Unused) => {
                self.limiter.unused(id, now, wall);
                if was == BreakerState::HalfOpen {
                    // It was the probe, and nothing was probed.
                    breaker.failed(now);
                }
            }
            Some(Verdict::NotSent) => {
                self.limiter.settle(id, now, wall, Outcome::default());
                breaker.failed(now);
            }
            Some(Verdict::Answered { status, wait, bytes }) => {
                self.limiter.settle(id, now, wall, Outcome { bytes: Some(bytes), ..Outcome::default() });
                let longest = self.options.limits.longest_window();
                let asked = wait.and_then(|value| headers::wait(&value, wall, longest));
                match status {
                    429 => {
                        self.limiter.refused(now, now + asked.unwrap_or(DEFAULT_PAUSE), None);
                        let seconds = asked.unwrap_or(DEFAULT_PAUSE).as_secs_f64();
                        let (source, scope) = (self.options.source.clone(), self.options.scope.clone());
                        self.options.reporter.emit(RateLimited { source, scope, seconds });
                    }
                    503 => self.limiter.unavailable(now, endpoint, now + asked.unwrap_or(DEFAULT_PAUSE / 2)),
                    _ => {}
                }
                if status >= 500 { breaker.failed(now) } else { breaker.succeeded() }
            }
        }
        let (source, endpoint) = (self.options.source.clone(), endpoint.to_owned());
        match (was, breaker.state()) {
            (BreakerState::Open(_), BreakerState::Open(_)) => {}
            (_, BreakerState::Open(until)) => {
                let seconds = until.saturating_sub(now).as_secs_f64();
                self.options.reporter.emit(BreakerOpened { source, endpoint, seconds });
            }
            (BreakerState::HalfOpen, BreakerState::Closed) => self.options.reporter.emit(BreakerClosed { source, endpoint }),
            _ => {}
        }
    }
}
