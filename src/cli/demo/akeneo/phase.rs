//! The phases of a move from the Events API to the Event Platform, and the daemon's configuration in each.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::connectors::akeneo::resource_names;

/// How far the fake PIM's lists and bulk reads lag.
const INDEX_LAG_MS: u64 = 300;
/// The secrets of both event systems, as the fake PIM has them by default.
pub(super) const SECRETS: [&str; 2] = ["events-api-secret", "platform-primary-secret"];
/// Of these the Events API tells.
const TOLD_BY_EVENTS_API: [&str; 2] = ["products", "product-models"];
/// Of these the Event Platform tells without a gap; of a family it does not tell when its list of attributes changes.
const TOLD_BY_PLATFORM: [&str; 8] = [
    "products",
    "product-models",
    "attributes",
    "attribute-options",
    "attribute-groups",
    "categories",
    "assets",
    "reference-entity-records",
];

/// One way of keeping in step with a PIM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(in super::super) enum Phase {
    /// The Events API alone, after the backfill.
    Events,
    /// Both systems, with lost events, and passes.
    Both,
    /// The Event Platform alone.
    Platform,
    /// Passes alone.
    Passes,
}

impl Phase {
    /// In the order of the move.
    pub(super) const ALL: [Self; 4] = [Self::Events, Self::Both, Self::Platform, Self::Passes];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Both => "both",
            Self::Platform => "platform",
            Self::Passes => "passes",
        }
    }

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Events => "(1) Events API only",
            Self::Both => "(2) both event systems, with lost events, and passes",
            Self::Platform => "(3) Event Platform only",
            Self::Passes => "(4) passes only",
        }
    }

    pub(super) const fn has_events_api(self) -> bool {
        matches!(self, Self::Events | Self::Both)
    }

    pub(super) const fn has_platform(self) -> bool {
        matches!(self, Self::Both | Self::Platform)
    }

    /// Whether passes have to find what events do not tell.
    pub(super) const fn has_passes(self) -> bool {
        matches!(self, Self::Both | Self::Passes)
    }

    /// Which resources people change: where only events bring news, those of which they tell.
    fn changing(self) -> Vec<&'static str> {
        match self {
            Self::Events => TOLD_BY_EVENTS_API.to_vec(),
            Self::Platform => TOLD_BY_PLATFORM.to_vec(),
            // All of them.
            Self::Both | Self::Passes => Vec::new(),
        }
    }

    /// What disturbs events; the index lags always.
    pub(in super::super) fn faults(self) -> Value {
        let mut faults = json!({ "index_lag_ms": INDEX_LAG_MS, "hooks_delay_max_ms": 2_000 });
        for (system, is_on) in [("events_api", self.has_events_api()), ("event_platform", self.has_platform())] {
            for fault in ["duplicated", "delayed", "reordered"] {
                faults[format!("{system}_{fault}")] = json!(if is_on { 0.1 } else { 0.0 });
            }
            faults[format!("{system}_lost")] = json!(if self == Self::Both { 0.05 } else { 0.0 });
        }
        faults
    }

    /// Which of the fake PIM's two systems send, and where the Events API sends to: the daemon listens at `hooks`.
    pub(in super::super) fn subscription(self, source: &str, hooks: u16) -> Value {
        let url = format!("http://127.0.0.1:{hooks}/hooks/{source}/events");
        json!({
            "events_api": { "url": url, "secret": SECRETS[0], "enabled": self.has_events_api() },
            "event_platform": { "enabled": self.has_platform() },
        })
    }
}

/// The numbers of a run through all phases.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Plan {
    pub(in super::super) seed: u64,
    /// About how many products there are.
    pub(in super::super) products: u64,
    /// Changes in each phase.
    changes: u64,
    per_second: f64,
    /// From one incremental pass to the next in phases with passes, and from one sweep to the next.
    pub(in super::super) poll: Duration,
    pub(in super::super) sweep: Duration,
}

impl Plan {
    pub(in super::super) fn new(seed: u64, quick: bool) -> Self {
        let seconds = Duration::from_secs;
        if quick {
            Self { seed, products: 2_000, changes: 120, per_second: 30.0, poll: seconds(4), sweep: seconds(8) }
        } else {
            Self { seed, products: 20_000, changes: 1_200, per_second: 30.0, poll: seconds(20), sweep: seconds(60) }
        }
    }

    pub(in super::super) fn churn(&self, phase: Phase) -> Value {
        let seed = self.seed + phase as u64;
        json!({ "changes": self.changes, "per_second": self.per_second, "resources": phase.changing(), "seed": seed, "removals": 0.3 })
    }

    /// The source of the daemon's configuration in a phase. `files` holds the secrets, each under its own name; the daemon takes hooks
    /// at the port `hooks`.
    pub(in super::super) fn config(&self, phase: Phase, source: &str, root: &str, files: &Path, hooks: u16) -> String {
        let secret = |name: &str| format!("{{ file = \"{}\" }}", files.join(name).display());
        let mut text = format!(
            "[sources.{source}]\nkind = \"akeneo\"\nurl = \"{root}\"\npublic_url = \"http://127.0.0.1:{hooks}\"\n\
             auth = {{ client_id = \"1_instep\", secret = {}, username = \"instep_0001\", password = {} }}\n\
             read_lag = \"500ms\"\nlist_lag = \"1s\"\nlinger = \"1s\"\npasses = {}\n",
            secret("connection-secret"),
            secret("connection-password"),
            phase.has_passes(),
        );
        for (table, name, is_on) in
            [("events_api", SECRETS[0], phase.has_events_api()), ("event_platform", SECRETS[1], phase.has_platform())]
        {
            if is_on {
                let _ = writeln!(text, "[sources.{source}.{table}]\nsecrets = [{}]", secret(name));
            }
        }
        if phase.has_platform() {
            let _ = writeln!(text, "manage = true\ncontact = \"ops@example.test\"\nurl = \"{root}event-platform/api/v1\"");
        }
        for name in resource_names() {
            let (poll, sweep) = (self.poll.as_secs(), self.sweep.as_secs());
            let _ = writeln!(text, "[sources.{source}.resources.{name}]\npoll = \"{poll}s\"\nsweep = \"{sweep}s\"");
        }
        text
    }
}
