//! A breaker for one endpoint of a source: after failures in a row it lets nothing through but a probe now and then.

use std::time::Duration;

/// When a breaker opens and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerOptions {
    /// Failures in a row that open it; at least 1.
    pub failures: u32,
    /// How long it stays open the first time.
    pub open_for: Duration,
    /// Each failed probe doubles that, up to this.
    pub open_max: Duration,
}

impl Default for BreakerOptions {
    /// Five in a row are no accident; ten seconds spare an ailing server; five minutes bound the delay after it recovered.
    fn default() -> Self {
        Self { failures: 5, open_for: Duration::from_secs(10), open_max: Duration::from_secs(300) }
    }
}

/// What a breaker says about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Gate {
    /// Send it.
    Pass,
    /// Send it: it is the one probe.
    Probe,
    /// Do not; ask again at this monotonic instant, or when the probe under way has ended (none).
    Wait(Option<Duration>),
}

/// The state, for status and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Everything passes.
    Closed,
    /// Nothing passes until this monotonic instant.
    Open(Duration),
    /// One probe is under way.
    HalfOpen,
}

/// The breaker of one (source, endpoint).
#[derive(Clone, Copy, Debug)]
pub struct Breaker {
    options: BreakerOptions,
    state: State,
    failures: u32,
    open_for: Duration,
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(options: BreakerOptions) -> Self {
        Self { options, state: State::Closed, failures: 0, open_for: options.open_for }
    }

    /// Whether a request may go. After [`Gate::Probe`] the caller must tell its end, also if it was dropped.
    pub fn gate(&mut self, now: Duration) -> Gate {
        match self.state {
            State::Closed => Gate::Pass,
            State::Open(until) if now < until => Gate::Wait(Some(until)),
            State::Open(_) => {
                self.state = State::HalfOpen;
                Gate::Probe
            }
            State::HalfOpen => Gate::Wait(None),
        }
    }

    /// A request got an answer that shows the endpoint well. A success while open is a late one and closes nothing.
    pub fn succeeded(&mut self) {
        if matches!(self.state, State::Open(_)) {
            return;
        }
        *self = Self::new(self.options);
    }

    /// A request failed (5xx, timeout, connection). Failures of requests sent before it opened change nothing.
    pub fn failed(&mut self, now: Duration) {
        match self.state {
            State::Open(_) => {}
            State::HalfOpen => {
                self.open_for = (self.open_for * 2).min(self.options.open_max);
                self.state = State::Open(now + self.open_for);
            }
            State::Closed => {
                self.failures += 1;
                if self.failures >= self.options.failures {
                    self.state = State::Open(now + self.open_for);
                }
            }
        }
    }

    /// The probe ended without a word about the upstream (it was not sent, or refused by a rate limit): another may go at once.
    pub fn abandoned(&mut self, now: Duration) {
        if self.state == State::HalfOpen {
            self.state = State::Open(now);
        }
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn opened() -> Breaker {
        let mut breaker = Breaker::new(BreakerOptions { failures: 2, open_for: SECOND * 10, open_max: SECOND * 15 });
        breaker.failed(SECOND);
        breaker.failed(SECOND);
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let mut breaker = Breaker::new(BreakerOptions { failures: 2, ..BreakerOptions::default() });
        breaker.failed(SECOND);
        breaker.succeeded();
        breaker.failed(SECOND);
        assert_eq!(breaker.gate(SECOND), Gate::Pass);
        assert_eq!(opened().gate(SECOND * 2), Gate::Wait(Some(SECOND * 11)));
    }

    #[test]
    fn one_probe_goes_and_its_success_closes() {
        let mut breaker = opened();
        assert_eq!(breaker.gate(SECOND * 11), Gate::Probe);
        assert_eq!(breaker.gate(SECOND * 11), Gate::Wait(None));
        breaker.succeeded();
        assert_eq!(breaker.gate(SECOND * 11), Gate::Pass);
    }

    #[test]
    fn a_failed_probe_doubles_the_pause_up_to_its_cap() {
        let mut breaker = opened();
        assert_eq!(breaker.gate(SECOND * 11), Gate::Probe);
        breaker.failed(SECOND * 12);
        assert_eq!(breaker.state(), State::Open(SECOND * 27));
        assert_eq!(breaker.gate(SECOND * 26), Gate::Wait(Some(SECOND * 27)));
    }

    #[test]
    fn a_probe_that_tells_nothing_is_followed_by_another_at_once() {
        let mut breaker = opened();
        assert_eq!(breaker.gate(SECOND * 11), Gate::Probe);
        breaker.abandoned(SECOND * 12);
        assert_eq!(breaker.gate(SECOND * 12), Gate::Probe);
        breaker.failed(SECOND * 13);
        assert_eq!(breaker.state(), State::Open(SECOND * 28), "the pause had not grown meanwhile");
    }

    #[test]
    fn late_answers_of_requests_sent_before_it_opened_change_nothing() {
        let mut breaker = opened();
        breaker.succeeded();
        breaker.failed(SECOND * 5);
        assert_eq!(breaker.state(), State::Open(SECOND * 11));
    }
}
