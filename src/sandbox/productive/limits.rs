//! The vendor's rate limits, kept as a server keeps them. Written without a look at the client's limiter.
//!
//! The vendor does not say whether its windows slide or are aligned to the clock. A window aligned to the clock never holds more
//! than a sliding one of the same length, so the sliding one, which is held here, refuses whatever either would refuse.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

const SECOND_US: i64 = 1_000_000;
const HOUR_US: i64 = 3600 * SECOND_US;
const DAY_US: i64 = 24 * HOUR_US;

/// The sizes of the limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) token_requests: usize,
    pub(super) token_period_us: i64,
    pub(super) organization_requests: usize,
    pub(super) organization_period_us: i64,
    pub(super) server_us_per_hour: i64,
    pub(super) server_us_per_day: i64,
    /// Requests a second of a second client, with a token of its own.
    pub(super) second_client_rps: f64,
}

/// Why a request is refused with 429.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exceeded {
    /// `token`, `organization`, `server_hour` or `server_day`.
    pub(super) scope: &'static str,
    title: &'static str,
    limit: i64,
    period_s: i64,
    pub(super) reset_s: i64,
}

impl Exceeded {
    /// The refusal that a fault injects: as if the token's window were full.
    pub(super) fn injected(reset_s: i64) -> Self {
        Self { scope: "injected", title: "Too many requests", limit: 100, period_s: 10, reset_s }
    }

    pub(super) fn error(&self) -> Value {
        json!({
            "status": 429, "title": self.title, "detail": format!("Limit of {} exceeded, try again in {} s", self.limit, self.reset_s),
            "limit": self.limit, "period": self.period_s,
        })
    }
}

/// A sliding window.
#[derive(Debug)]
struct Window {
    amount: usize,
    period_us: i64,
    stamps: VecDeque<i64>,
}

impl Window {
    fn new(amount: usize, period_us: i64) -> Self {
        Self { amount, period_us, stamps: VecDeque::new() }
    }

    /// How long until one more request fits; 0 when it does now.
    fn wait_us(&mut self, now_us: i64) -> i64 {
        while self.stamps.front().is_some_and(|stamp| *stamp <= now_us - self.period_us) {
            self.stamps.pop_front();
        }
        let over = (self.stamps.len() + 1).saturating_sub(self.amount);
        match over.checked_sub(1).map(|index| self.stamps.get(index)) {
            Some(Some(stamp)) => stamp + self.period_us - now_us,
            Some(None) => self.period_us,
            None => 0,
        }
    }

    fn take(&mut self, now_us: i64) {
        self.stamps.push_back(now_us);
    }
}

/// The state of all limits of one organisation.
#[derive(Debug)]
pub(super) struct Limits {
    sizes: Sizes,
    tokens: BTreeMap<String, Window>,
    organization: Window,
    hour: (i64, i64),
    day: (i64, i64),
    pub(super) server_us: i64,
    second_client: SecondClient,
}

/// A client that is only simulated: it spends the organisation's limit.
#[derive(Debug, Default)]
struct SecondClient {
    since_us: Option<i64>,
    made: u64,
    refused: u64,
}

impl Limits {
    pub(super) fn new(sizes: Sizes) -> Self {
        Self {
            sizes,
            tokens: BTreeMap::new(),
            organization: Window::new(sizes.organization_requests, sizes.organization_period_us),
            hour: (0, 0),
            day: (0, 0),
            server_us: 0,
            second_client: SecondClient::default(),
        }
    }

    /// Admits a request, or says what it exceeds. Refused requests do not count.
    pub(super) fn admit(&mut self, token: &str, now_us: i64) -> Result<(), Exceeded> {
        self.run_second_client(now_us);
        self.roll(now_us);
        let sizes = self.sizes;
        let reset = |wait_us: i64| (wait_us + SECOND_US - 1) / SECOND_US;
        let of_time = |scope, limit_us: i64, period_us: i64| Exceeded {
            scope,
            title: "Server time limit exceeded",
            limit: limit_us / SECOND_US,
            period_s: period_us / SECOND_US,
            reset_s: reset(period_us - now_us.rem_euclid(period_us)),
        };
        if self.hour.1 >= sizes.server_us_per_hour {
            return Err(of_time("server_hour", sizes.server_us_per_hour, HOUR_US));
        }
        if self.day.1 >= sizes.server_us_per_day {
            return Err(of_time("server_day", sizes.server_us_per_day, DAY_US));
        }
        let window = self.tokens.entry(token.to_owned()).or_insert_with(|| Window::new(sizes.token_requests, sizes.token_period_us));
        for (scope, window) in [("token", &mut *window), ("organization", &mut self.organization)] {
            let wait_us = window.wait_us(now_us);
            if wait_us > 0 {
                let limit = i64::try_from(window.amount).unwrap_or(i64::MAX);
                return Err(Exceeded {
                    scope,
                    title: "Too many requests",
                    limit,
                    period_s: window.period_us / SECOND_US,
                    reset_s: reset(wait_us),
                });
            }
        }
        window.take(now_us);
        self.organization.take(now_us);
        Ok(())
    }

    /// Books the time that the server worked for a request.
    pub(super) fn book(&mut self, worked_us: i64, now_us: i64) {
        self.roll(now_us);
        self.hour.1 += worked_us;
        self.day.1 += worked_us;
        self.server_us += worked_us;
    }

    /// What the second client did so far.
    pub(super) fn second_client(&mut self, now_us: i64) -> Value {
        self.run_second_client(now_us);
        json!({ "requests": self.second_client.made, "refused": self.second_client.refused })
    }

    fn roll(&mut self, now_us: i64) {
        for (kept, period_us) in [(&mut self.hour, HOUR_US), (&mut self.day, DAY_US)] {
            let number = now_us.div_euclid(period_us);
            if kept.0 != number {
                *kept = (number, 0);
            }
        }
    }

    /// Makes the requests of the second client that are due since the last look, at their own instants.
    fn run_second_client(&mut self, now_us: i64) {
        if self.sizes.second_client_rps <= 0.0 {
            return;
        }
        let step_us = ((SECOND_US as f64 / self.sizes.second_client_rps) as i64).max(1);
        let mut due_us = self.second_client.since_us.unwrap_or(now_us);
        while due_us <= now_us {
            if self.organization.wait_us(due_us) == 0 {
                self.organization.take(due_us);
                self.second_client.made += 1;
            } else {
                self.second_client.refused += 1;
            }
            due_us += step_us;
        }
        self.second_client.since_us = Some(due_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes {
        token_requests: 3,
        token_period_us: 10 * SECOND_US,
        organization_requests: 5,
        organization_period_us: 60 * SECOND_US,
        server_us_per_hour: 100,
        server_us_per_day: 150,
        second_client_rps: 0.0,
    };

    fn scope(result: Result<(), Exceeded>) -> (&'static str, i64) {
        result.map_or_else(|exceeded| (exceeded.scope, exceeded.reset_s), |()| ("admitted", 0))
    }

    #[test]
    fn a_burst_over_the_border_of_two_aligned_windows_is_refused() {
        let mut limits = Limits::new(SIZES);
        for second in [8, 9, 9] {
            assert_eq!(scope(limits.admit("a", second * SECOND_US)).0, "admitted");
        }
        assert_eq!(scope(limits.admit("a", 11 * SECOND_US)), ("token", 7));
        assert_eq!(scope(limits.admit("a", 18 * SECOND_US)).0, "admitted");
    }

    #[test]
    fn the_organisation_is_shared_by_tokens_and_by_the_second_client() {
        let mut limits = Limits::new(SIZES);
        for token in ["a", "a", "b", "b", "c"] {
            assert_eq!(scope(limits.admit(token, 0)).0, "admitted");
        }
        assert_eq!(scope(limits.admit("d", SECOND_US)), ("organization", 59));
        let mut limits = Limits::new(Sizes { second_client_rps: 1.0, ..SIZES });
        assert_eq!(scope(limits.admit("a", 0)).0, "admitted");
        assert_eq!(scope(limits.admit("a", 10 * SECOND_US)).0, "organization");
        assert_eq!(limits.second_client(10 * SECOND_US), json!({ "requests": 4, "refused": 7 }));
    }

    #[test]
    fn server_time_is_kept_by_hour_and_day() {
        let mut limits = Limits::new(SIZES);
        limits.book(100, 0);
        assert_eq!(scope(limits.admit("a", SECOND_US)), ("server_hour", 3599));
        assert_eq!(scope(limits.admit("a", HOUR_US)).0, "admitted");
        limits.book(50, HOUR_US);
        assert_eq!(scope(limits.admit("a", HOUR_US)).0, "server_day");
        assert_eq!(scope(limits.admit("a", DAY_US)).0, "admitted");
    }
}
