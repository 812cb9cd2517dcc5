//! The vendor's limits, kept as a server keeps them. Written without a look at the client's limiter.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

use super::options::Options;

const SECOND_US: i64 = 1_000_000;
/// The connection that is tested.
const OURS: &str = "connection";
/// One that is only simulated: it spends the PIM's limit.
const SECOND: &str = "second-client";

/// The limits of one PIM: calls at a time and requests in any second.
#[derive(Debug)]
pub(super) struct Limits {
    connection_calls: usize,
    pim_calls: usize,
    requests_per_second: usize,
    second_client_rps: f64,
    running: usize,
    most_running: usize,
    stamps: VecDeque<i64>,
    second_due_us: Option<i64>,
    second_made: u64,
    /// By client and scope.
    refusals: BTreeMap<(&'static str, &'static str), u64>,
}

impl Limits {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            connection_calls: options.connection_calls,
            pim_calls: options.pim_calls,
            requests_per_second: options.requests_per_second,
            second_client_rps: options.second_client_rps,
            running: 0,
            most_running: 0,
            stamps: VecDeque::new(),
            second_due_us: None,
            second_made: 0,
            refusals: BTreeMap::new(),
        }
    }

    /// Begins a call, or says what it exceeds. Refused calls do not count.
    pub(super) fn begin(&mut self, now_us: i64) -> Result<(), &'static str> {
        self.run_second_client(now_us);
        let scope = if self.running >= self.connection_calls {
            "connection_calls"
        } else if self.running >= self.pim_calls {
            "pim_calls"
        } else if !self.has_room(now_us) {
            "requests_per_second"
        } else {
            self.stamps.push_back(now_us);
            self.running += 1;
            self.most_running = self.most_running.max(self.running);
            return Ok(());
        };
        self.refuse(scope);
        Err(scope)
    }

    /// Counts a refusal of the tested connection.
    pub(super) fn refuse(&mut self, scope: &'static str) {
        *self.refusals.entry((OURS, scope)).or_default() += 1;
    }

    pub(super) fn end(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    pub(super) fn refusals(&mut self, now_us: i64) -> Vec<Value> {
        self.run_second_client(now_us);
        let row = |((client, scope), count): (&(&str, &str), &u64)| json!({ "client": client, "scope": scope, "count": count });
        self.refusals.iter().map(row).collect()
    }

    /// Refusals of the tested connection.
    pub(super) fn refused(&self) -> u64 {
        self.refusals.iter().filter(|((client, _), _)| *client == OURS).map(|(_, count)| count).sum()
    }

    pub(super) fn second_made(&self) -> u64 {
        self.second_made
    }

    /// The most calls that ever ran at a time.
    pub(super) fn most_running(&self) -> usize {
        self.most_running
    }

    fn has_room(&mut self, now_us: i64) -> bool {
        while self.stamps.front().is_some_and(|stamp| *stamp <= now_us - SECOND_US) {
            self.stamps.pop_front();
        }
        self.stamps.len() < self.requests_per_second
    }

    /// Makes the requests of the second client that are due since the last look, at their own instants.
    fn run_second_client(&mut self, now_us: i64) {
        if self.second_client_rps <= 0.0 {
            return;
        }
        let step_us = ((SECOND_US as f64 / self.second_client_rps) as i64).max(1);
        let mut due_us = self.second_due_us.unwrap_or(now_us);
        while due_us <= now_us {
            if self.has_room(due_us) {
                self.stamps.push_back(due_us);
                self.second_made += 1;
            } else {
                *self.refusals.entry((SECOND, "requests_per_second")).or_default() += 1;
            }
            due_us += step_us;
        }
        self.second_due_us = Some(due_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_at_a_time_and_requests_a_second_are_limited() {
        let mut limits = Limits::new(&Options { requests_per_second: 5, ..Options::default() });
        for _ in 0..4 {
            assert_eq!(limits.begin(0), Ok(()));
        }
        assert_eq!(limits.begin(0), Err("connection_calls"));
        limits.end();
        assert_eq!(limits.begin(0), Ok(()));
        limits.end();
        assert_eq!(limits.begin(SECOND_US - 1), Err("requests_per_second"));
        assert_eq!(limits.begin(SECOND_US), Ok(()));
        assert_eq!((limits.refused(), limits.most_running()), (2, 4));
    }

    #[test]
    fn a_second_client_spends_the_same_limit() {
        let mut limits = Limits::new(&Options { requests_per_second: 3, second_client_rps: 4.0, ..Options::default() });
        assert_eq!(limits.begin(0), Ok(()));
        assert_eq!(limits.begin(SECOND_US - 1), Err("requests_per_second"));
        assert_eq!(limits.second_made(), 2);
        assert_eq!(limits.refusals(SECOND_US - 1)[1], json!({ "client": "second-client", "scope": "requests_per_second", "count": 2 }));
    }
}
