//! What each arm is: sizes, faults, and the configuration of its daemon.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::connectors::productive::resource_names;

/// Name of the source, the first part of the views' names.
pub(super) const SOURCE: &str = "demo";
/// The fake organisation's number.
pub(super) const ORGANIZATION: u64 = 435;
/// How far the fake organisation's reads lag, where they do.
const READ_LAG_MS: u64 = 300;

/// One way of keeping in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Arm {
    /// Webhooks alone, after the backfill
    Hooks,
    /// Passes and event feeds alone
    Passes,
    /// Both, with lost hooks and a failing upstream
    Both,
}

impl Arm {
    pub(super) const ALL: [Self; 3] = [Self::Hooks, Self::Passes, Self::Both];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Hooks => "hooks",
            Self::Passes => "passes",
            Self::Both => "both",
        }
    }

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Hooks => "(a) hooks only",
            Self::Passes => "(b) passes and feeds only",
            Self::Both => "(c) both, with lost hooks and upstream errors",
        }
    }

    pub(super) const fn hooks(self) -> bool {
        matches!(self, Self::Hooks | Self::Both)
    }
}

/// The numbers of one arm's run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) arm: Arm,
    pub(super) seed: u64,
    pub(super) entities: u64,
    /// Changes that the churn makes: fewer than 5 % of the entities.
    pub(super) changes: u64,
    pub(super) per_second: f64,
    /// From one incremental pass to the next.
    pub(super) poll: Duration,
    /// From one sweep to the next.
    pub(super) sweep: Duration,
    /// The same as `poll` for the event feeds.
    pub(super) feed_poll: Duration,
    /// How long hints gather before a read: a second where visibility is promised; longer where every change is told twice, by
    /// a hook and by a feed, and requests are what counts.
    pub(super) linger: Duration,
    quick: bool,
}

impl Plan {
    pub(super) fn new(arm: Arm, seed: u64, quick: bool) -> Self {
        let seconds = Duration::from_secs;
        let (entities, changes, per_second) = match (arm, quick) {
            (_, false) => (52_000, 2_450, 40.0),
            (Arm::Passes, true) => (4_000, 100, 15.0),
            (_, true) => (10_000, 480, 70.0),
        };
        let (poll, feed_poll) = match (arm, quick) {
            // A sweep of everything is 280 pages: 31 s within the token's limit, and on a slow machine as long as its database needs.
            (Arm::Passes, false) => (seconds(120), seconds(20)),
            (Arm::Passes, true) => (seconds(12), seconds(3)),
            (_, false) => (seconds(60), seconds(30)),
            (_, true) => (seconds(120), seconds(10)),
        };
        let linger = seconds(if arm == Arm::Both { 3 } else { 1 });
        let sweep = if arm == Arm::Passes { poll } else { seconds(24 * 3600) };
        Self { arm, seed, entities, changes, per_second, poll, sweep, feed_poll, linger, quick }
    }

    /// Faults of deliveries and reads, which hold from the start.
    pub(super) fn faults(&self) -> Value {
        let mut faults = json!({ "read_lag_ms": READ_LAG_MS });
        if self.arm.hooks() {
            for (name, share) in [("hooks_duplicated", 0.1), ("hooks_delayed", 0.1), ("hooks_reordered", 0.1)] {
                faults[name] = json!(share);
            }
            faults["hooks_delay_max_ms"] = json!(2_000);
        }
        if self.arm == Arm::Both {
            faults["hooks_lost"] = json!(0.05);
        }
        faults
    }

    /// Faults of the upstream's answers, which hold while people work. Shares are larger where there are fewer requests, so that
    /// each kind surely happens.
    pub(super) fn upstream_errors(&self) -> Option<Value> {
        let scale = if self.quick { 3.0 } else { 1.0 };
        let errors =
            json!({ "upstream_5xx": 0.02 * scale, "timeouts": 0.015 * scale, "timeout_hang_ms": 3_000, "truncated": 0.02 * scale });
        (self.arm == Arm::Both).then_some(errors)
    }

    pub(super) fn churn(&self) -> Value {
        let kinds = if self.arm == Arm::Passes { "all" } else { "hooks" };
        // People update far more than they remove: of the churn's own mix every third delete and restore is made.
        json!({ "changes": self.changes, "per_second": self.per_second, "kinds": kinds, "seed": self.seed, "removals": 0.3 })
    }

    /// The source of the daemon's configuration; the daemon takes hooks at the port `hooks`.
    pub(super) fn config(&self, source: &str, api: &str, token: &Path, hooks: u16) -> String {
        let token = token.display();
        let mut text = format!(
            "[sources.{source}]\nkind = \"productive\"\norganization = {ORGANIZATION}\nurl = \"{api}\"\ntoken = {{ file = \"{token}\" }}\n\
             read_lag = \"500ms\"\nlist_lag = \"1s\"\nlinger = \"{}s\"\n",
            self.linger.as_secs()
        );
        let alone = !matches!(self.arm, Arm::Hooks);
        let _ = writeln!(text, "passes = {alone}\nfeeds = {alone}\nfeed_poll = \"{}s\"", self.feed_poll.as_secs());
        if self.arm.hooks() {
            let _ = writeln!(text, "manage_token = {{ file = \"{token}\" }}\npublic_url = \"http://127.0.0.1:{hooks}\"");
        }
        for name in resource_names() {
            let (poll, sweep) = (self.poll.as_secs(), self.sweep.as_secs());
            let _ = writeln!(text, "[sources.{source}.resources.{name}]\npoll = \"{poll}s\"\nsweep = \"{sweep}s\"");
        }
        text
    }
}
