//! How the fake organisation is made and how it behaves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::sandbox::faults::Shares;

/// What a capped webhook does with deliveries over its cap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OverCap {
    /// They are never sent.
    #[default]
    Drop,
    /// They are sent when the cap allows it.
    Delay,
}

/// The organisation's plan; webhooks need the highest one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Plan {
    /// Webhooks may be registered.
    #[default]
    Ultimate,
    /// `POST /webhooks` is answered 403 `webhooks_limit_exceeded`.
    BelowUltimate,
}

/// Everything that can be chosen when a sandbox starts. Limits and retries default to what the vendor's contract says.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Port on the loopback address; 0 lets the system choose
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// Everything invented is a function of this number
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// About how many records the organisation has
    #[arg(long, default_value_t = 2_000)]
    pub entities: u64,
    /// The organisation's id
    #[arg(long, default_value_t = 435)]
    pub organization: u64,
    /// Accepted tokens; any token when none is given
    #[arg(long = "token")]
    pub tokens: Vec<String>,
    /// Tokens that may not register webhooks
    #[arg(long = "read-only-token")]
    pub read_only_tokens: Vec<String>,
    /// The organisation's plan
    #[arg(long, value_enum, default_value_t = Plan::Ultimate)]
    pub plan: Plan,

    /// Requests a token may make per token period
    #[arg(long, default_value_t = 100)]
    pub token_requests: usize,
    /// Length of the token's window in milliseconds
    #[arg(long, default_value_t = 10_000)]
    pub token_period_ms: u64,
    /// Requests the organisation may make per organisation period
    #[arg(long, default_value_t = 4_000)]
    pub organization_requests: usize,
    /// Length of the organisation's window in milliseconds
    #[arg(long, default_value_t = 1_800_000)]
    pub organization_period_ms: u64,
    /// Server time the organisation may use per clock hour, in milliseconds
    #[arg(long, default_value_t = 1_800_000)]
    pub server_ms_per_hour: u64,
    /// Server time the organisation may use per UTC day, in milliseconds
    #[arg(long, default_value_t = 21_600_000)]
    pub server_ms_per_day: u64,
    /// Requests a second of a second client that shares the organisation's limit
    #[arg(long, default_value_t = 0.0)]
    pub second_client_rps: f64,
    /// Milliseconds that every request takes at least
    #[arg(long, default_value_t = 0)]
    pub latency_ms: u64,

    /// Hide archived projects, people and companies when no status is asked for
    #[arg(long)]
    pub hide_archived: bool,
    /// Collections that refuse `filter[id]`
    #[arg(long = "no-id-filter")]
    pub no_id_filter: Vec<String>,

    /// Further attempts after a failed delivery; then the webhook is deactivated
    #[arg(long, default_value_t = 12)]
    pub retries: u32,
    /// Time over which the retries are spread, in milliseconds
    #[arg(long, default_value_t = 172_800_000)]
    pub retries_over_ms: u64,
    /// How long a receiver may take to answer a delivery, in milliseconds
    #[arg(long, default_value_t = 10_000)]
    pub delivery_timeout_ms: u64,
    /// Deliveries in flight at once
    #[arg(long, default_value_t = 32)]
    pub deliveries_in_flight: usize,
    /// Deliveries per webhook and cap period; 0 for no cap
    #[arg(long, default_value_t = 0)]
    pub hook_cap: usize,
    /// Length of the cap's window in milliseconds
    #[arg(long, default_value_t = 300_000)]
    pub hook_cap_per_ms: u64,
    /// What happens to deliveries over the cap
    #[arg(long, value_enum, default_value_t = OverCap::Drop)]
    pub hook_cap_then: OverCap,

    /// Injected faults
    #[command(flatten)]
    pub faults: Faults,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: 0,
            seed: 1,
            entities: 2_000,
            organization: 435,
            tokens: Vec::new(),
            read_only_tokens: Vec::new(),
            plan: Plan::Ultimate,
            token_requests: 100,
            token_period_ms: 10_000,
            organization_requests: 4_000,
            organization_period_ms: 1_800_000,
            server_ms_per_hour: 1_800_000,
            server_ms_per_day: 21_600_000,
            second_client_rps: 0.0,
            latency_ms: 0,
            hide_archived: false,
            no_id_filter: Vec::new(),
            retries: 12,
            retries_over_ms: 172_800_000,
            delivery_timeout_ms: 10_000,
            deliveries_in_flight: 32,
            hook_cap: 0,
            hook_cap_per_ms: 300_000,
            hook_cap_then: OverCap::Drop,
            faults: Faults::default(),
        }
    }
}

/// Injected faults. Shares are probabilities from 0 to 1; each is drawn from the seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Share of deliveries that are never sent
    #[arg(long, default_value_t = 0.0)]
    pub hooks_lost: f64,
    /// Share of deliveries that are sent twice
    #[arg(long, default_value_t = 0.0)]
    pub hooks_duplicated: f64,
    /// Share of deliveries that are sent late
    #[arg(long, default_value_t = 0.0)]
    pub hooks_delayed: f64,
    /// The longest delay in milliseconds
    #[arg(long, default_value_t = 2_000)]
    pub hooks_delay_max_ms: u64,
    /// Share of deliveries that are held back until later ones may have overtaken them
    #[arg(long, default_value_t = 0.0)]
    pub hooks_reordered: f64,
    /// Share of requests answered 500, 502 or 503
    #[arg(long, default_value_t = 0.0)]
    pub upstream_5xx: f64,
    /// Share of requests that wait before they are looked at and counted
    #[arg(long, default_value_t = 0.0)]
    pub queued: f64,
    /// The longest such wait in milliseconds
    #[arg(long, default_value_t = 1_000)]
    pub queue_max_ms: u64,
    /// Share of requests that hang
    #[arg(long, default_value_t = 0.0)]
    pub timeouts: f64,
    /// How long a hanging request hangs, in milliseconds
    #[arg(long, default_value_t = 30_000)]
    pub timeout_hang_ms: u64,
    /// Share of answers whose body ends early
    #[arg(long, default_value_t = 0.0)]
    pub truncated: f64,
    /// Share of requests answered 429 although nothing is exceeded
    #[arg(long, default_value_t = 0.0)]
    pub inject_429: f64,
    /// When such an answer says to come again, in seconds
    #[arg(long, default_value_t = 1)]
    pub inject_429_reset_s: i64,
    /// Lists show the state of this many milliseconds ago
    #[arg(long, default_value_t = 0)]
    pub read_lag_ms: u64,
    /// Reads by key lag as well
    #[arg(long)]
    pub read_lag_all: bool,
    /// Collections that the token may no longer see
    #[arg(long)]
    pub lost_permission: Vec<String>,
    /// Lists of such collections are empty instead of 404
    #[arg(long)]
    pub lost_permission_empty: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            hooks_lost: 0.0,
            hooks_duplicated: 0.0,
            hooks_delayed: 0.0,
            hooks_delay_max_ms: 2_000,
            hooks_reordered: 0.0,
            upstream_5xx: 0.0,
            queued: 0.0,
            queue_max_ms: 1_000,
            timeouts: 0.0,
            timeout_hang_ms: 30_000,
            truncated: 0.0,
            inject_429: 0.0,
            inject_429_reset_s: 1,
            read_lag_ms: 0,
            read_lag_all: false,
            lost_permission: Vec::new(),
            lost_permission_empty: false,
        }
    }
}

impl Shares for Faults {
    fn shares(&self) -> BTreeMap<&'static str, f64> {
        BTreeMap::from([
            ("hooks_lost", self.hooks_lost),
            ("hooks_duplicated", self.hooks_duplicated),
            ("hooks_delayed", self.hooks_delayed),
            ("hooks_reordered", self.hooks_reordered),
            ("upstream_5xx", self.upstream_5xx),
            ("queued", self.queued),
            ("timeouts", self.timeouts),
            ("truncated", self.truncated),
            ("inject_429", self.inject_429),
            ("read_lag", if self.read_lag_ms > 0 { 1.0 } else { 0.0 }),
            ("lost_permission", if self.lost_permission.is_empty() { 0.0 } else { 1.0 }),
        ])
    }
}

impl Faults {
    /// How long ago the state is that a read shows.
    pub(super) fn lag_us(&self, by_key: bool) -> Option<i64> {
        let shown = self.read_lag_ms > 0 && (!by_key || self.read_lag_all);
        shown.then(|| crate::sandbox::micros(self.read_lag_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn defaults_of_the_command_line_are_the_defaults() {
        let parsed = Command::try_parse_from(["sandbox"]).expect("no argument is required").options;
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Options::default()));
    }
}
