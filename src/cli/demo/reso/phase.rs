//! The ways in which a producer's records are kept in step, one phase each, and the daemon's configuration in each.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::connectors::reso::DEFAULT_RESOURCES;

/// What the feed is called on both sides.
const LABEL: &str = "demo";
/// The producer's token for us, and ours for its pushes; each is the name of its file too.
pub(super) const TOKENS: [&str; 2] = ["static-token", "push-token"];
/// Requests that the producer allows in any second.
pub(super) const REQUESTS_PER_SECOND: u64 = 50;
/// From one look at the log to the next.
const LOG_POLL_S: u64 = 1;
/// An event becomes visible so much later than its number was given at most.
const LATE_MAX_MS: u64 = 500;

/// One way of keeping in step with a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(in super::super) enum Phase {
    /// The producer pushes its whole log while the backfill runs and people work.
    FirstFeed,
    /// Pushes alone, after the backfill.
    Push,
    /// The log alone.
    Log,
    /// Pushes, of which some are lost, and the log, at an upstream that fails now and then.
    Both,
    /// Passes alone.
    Passes,
    /// Everything at once, passes too, for some events are never written.
    Live,
}

impl Phase {
    /// In the order of the demo, which takes one replica through all of them. What is live stands beside other upstreams.
    pub(super) const ALL: [Self; 5] = [Self::FirstFeed, Self::Push, Self::Log, Self::Both, Self::Passes];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::FirstFeed => "first feed",
            Self::Push => "push",
            Self::Log => "log",
            Self::Both => "both",
            Self::Passes => "passes",
            Self::Live => "live",
        }
    }

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::FirstFeed => "(1) first feed: the whole log is pushed while the backfill runs, into a fresh replica",
            Self::Push => "(2) pushes only",
            Self::Log => "(3) the log only, polled, and compacted meanwhile",
            Self::Both => "(4) pushes and the log, with lost pushes and upstream errors",
            Self::Passes => "(5) passes only",
            Self::Live => "pushes, the log and passes",
        }
    }

    pub(in super::super) const fn has_pushes(self) -> bool {
        !matches!(self, Self::Log | Self::Passes)
    }

    pub(super) const fn has_log(self) -> bool {
        matches!(self, Self::Log | Self::Both | Self::Live)
    }

    pub(super) const fn has_passes(self) -> bool {
        matches!(self, Self::Passes | Self::Live)
    }

    /// What disturbs events while people work, and at an upstream that fails, answers: part of all of them.
    pub(super) fn shares(self) -> [(&'static str, f64); 10] {
        let share = |is_on: bool, share: f64| if is_on { share } else { 0.0 };
        let (pushes, log, fails) = (self.has_pushes(), self.has_log(), self == Self::Both);
        [
            ("push_duplicated", share(pushes, 0.1)),
            ("push_reordered", share(pushes, 0.1)),
            ("push_lost", share(pushes && log, 0.2)),
            ("events_late", share(log, 0.2)),
            ("events_hidden", share(log, 0.1)),
            ("events_foreign", share(log, 0.1)),
            // Only passes find what no event tells.
            ("events_unwritten", share(self.has_passes(), 0.1)),
            ("upstream_5xx", share(fails, 0.12)),
            ("truncated", share(fails, 0.12)),
            ("timeouts", share(fails, 0.1)),
        ]
    }

    /// The same as the producer is told.
    pub(in super::super) fn faults(self) -> Value {
        let mut faults = json!({ "events_late_max_ms": LATE_MAX_MS, "timeout_hang_ms": 3_000 });
        for (name, share) in self.shares() {
            faults[name] = json!(share);
        }
        faults
    }

    /// Where pushes go: the daemon takes hooks at the port `hooks`.
    pub(in super::super) fn receiver(self, source: &str, hooks: u16, batch: u64) -> Value {
        let url = if self.has_pushes() { format!("http://127.0.0.1:{hooks}/hooks/{source}/events") } else { String::new() };
        let receiver = json!({ "url": url, "token": TOKENS[1], "label": LABEL, "batch": batch });
        if self != Self::FirstFeed {
            return receiver;
        }
        let mut receiver = receiver;
        receiver["from"] = 0.into();
        receiver
    }
}

/// The numbers of a run through all phases.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Plan {
    pub(in super::super) seed: u64,
    /// How many listings there are.
    pub(in super::super) listings: u64,
    /// How many events the log has before anybody works.
    pub(super) events: u64,
    /// Changes in each phase.
    changes: u64,
    per_second: f64,
    /// Events in one push at most.
    pub(in super::super) batch: u64,
    /// Above so many pending deliveries we answer 429.
    pub(in super::super) backlog: u64,
    /// In phases with passes, from one incremental pass to the next, and from one sweep to the next.
    poll: Duration,
    sweep: Duration,
}

impl Plan {
    pub(in super::super) fn new(seed: u64, quick: bool) -> Self {
        let seconds = Duration::from_secs;
        if quick {
            let (listings, events, changes, per_second) = (2_000, 30_000, 120, 60.0);
            Self { seed, listings, events, changes, per_second, batch: 1_000, backlog: 10, poll: seconds(2), sweep: seconds(4) }
        } else {
            let (listings, events, changes, per_second) = (10_000, 200_000, 1_200, 40.0);
            Self { seed, listings, events, changes, per_second, batch: 500, backlog: 50, poll: seconds(10), sweep: seconds(30) }
        }
    }

    pub(in super::super) fn churn(&self, phase: Phase) -> Value {
        let seed = self.seed + phase as u64;
        json!({ "changes": self.changes, "per_second": self.per_second, "seed": seed, "removals": 0.3 })
    }

    /// The source of the daemon's configuration in a phase. `files` holds the tokens, each under its own name; the daemon takes hooks at
    /// the port `hooks`.
    pub(in super::super) fn config(&self, phase: Phase, source: &str, root: &str, files: &Path, hooks: u16) -> String {
        let token = |name: &str| format!("{{ file = \"{}\" }}", files.join(name).display());
        let read = if phase.has_log() { "yes" } else { "no" };
        let mut text = format!(
            "[sources.{source}]\nkind = \"reso\"\nurl = \"{root}\"\npublic_url = \"http://127.0.0.1:{hooks}\"\nauth = {{ token = {} }}\n\
             push = {{ tokens = [{}], label = \"{LABEL}\", retry_after = \"1s\" }}\nevents = {{ read = \"{read}\", poll = \"{LOG_POLL_S}s\" }}\n\
             quota = [{{ requests = {REQUESTS_PER_SECOND}, per = \"1s\" }}]\nquota_share = 0.9\nread_lag = \"0s\"\nlist_lag = \"0s\"\n\
             linger = \"500ms\"\npasses = {}\n",
            token(TOKENS[0]),
            token(TOKENS[1]),
            phase.has_passes(),
        );
        for name in DEFAULT_RESOURCES {
            let (poll, sweep) = (self.poll.as_secs(), self.sweep.as_secs());
            let _ = writeln!(text, "[sources.{source}.resources.{name}]\npoll = \"{poll}s\"\nsweep = \"{sweep}s\"");
        }
        text
    }
}
