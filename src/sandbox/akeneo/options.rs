//! How the fake PIM is made and how it behaves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::sandbox::faults::Shares;
use crate::sandbox::micros;

/// Everything that can be chosen when a sandbox starts. Limits, timeouts and retries default to what the vendor's contract says.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Port on the loopback address; 0 lets the system choose
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// Everything invented is a function of this number
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// About how many products the PIM has; the rest is in proportion
    #[arg(long, default_value_t = 2_000)]
    pub entities: u64,
    /// Zone of the PIM's server, in minutes east of UTC: stamps are written in it and zone-less filters are read in it
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub zone_offset_minutes: i32,

    /// The connection's client id
    #[arg(long, default_value = "1_instep")]
    pub client_id: String,
    /// The connection's secret
    #[arg(long, default_value = "connection-secret")]
    pub client_secret: String,
    /// The connection's technical user
    #[arg(long, default_value = "instep_0001")]
    pub username: String,
    /// That user's password
    #[arg(long, default_value = "connection-password")]
    pub password: String,
    /// An App's token, which does not expire; none when empty
    #[arg(long, default_value = "")]
    pub app_token: String,
    /// How long an access token lives, in milliseconds
    #[arg(long, default_value_t = 3_600_000)]
    pub token_ttl_ms: u64,
    /// How long a refresh token lives, in milliseconds
    #[arg(long, default_value_t = 1_209_600_000)]
    pub refresh_ttl_ms: u64,

    /// Calls of one connection at a time
    #[arg(long, default_value_t = 4)]
    pub connection_calls: usize,
    /// Calls of all connections at a time
    #[arg(long, default_value_t = 10)]
    pub pim_calls: usize,
    /// Requests a second of all connections
    #[arg(long, default_value_t = 100)]
    pub requests_per_second: usize,
    /// Share of refusals that say when to come again
    #[arg(long, default_value_t = 0.5)]
    pub retry_after_share: f64,
    /// Requests a second of a second connection
    #[arg(long, default_value_t = 0.0)]
    pub second_client_rps: f64,
    /// Milliseconds that every request takes at least
    #[arg(long, default_value_t = 0)]
    pub latency_ms: u64,

    /// Where the Events API sends to; nowhere when empty
    #[arg(long, default_value = "")]
    pub events_url: String,
    /// The Events API's secret
    #[arg(long, default_value = "events-api-secret")]
    pub events_secret: String,
    /// Events in one request of the Events API, at most
    #[arg(long, default_value_t = 10)]
    pub events_per_request: usize,
    /// How long a receiver may take to answer the Events API, in milliseconds
    #[arg(long, default_value_t = 500)]
    pub events_timeout_ms: u64,
    /// Requests of the Events API at a time
    #[arg(long, default_value_t = 5)]
    pub events_in_flight: usize,
    /// Requests of the Events API in an hour
    #[arg(long, default_value_t = 4_000)]
    pub events_requests_per_hour: usize,
    /// Length of that hour in milliseconds
    #[arg(long, default_value_t = 3_600_000)]
    pub events_hour_ms: u64,
    /// Age at which an event that still waits is discarded, in milliseconds
    #[arg(long, default_value_t = 7_200_000)]
    pub events_age_max_ms: u64,
    /// Products in events as the identifier format has them
    #[arg(long)]
    pub events_by_identifier: bool,
    /// Call the time of an event `event_date`, as early versions did
    #[arg(long)]
    pub events_date_alias: bool,

    /// How long a receiver may take to answer the Event Platform, in milliseconds
    #[arg(long, default_value_t = 5_000)]
    pub platform_timeout_ms: u64,
    /// What the 5, 10 and 20 minutes until a retry are multiplied by
    #[arg(long, default_value_t = 1.0)]
    pub platform_retry_scale: f64,
    /// Length of the hour over which successes are counted, in milliseconds
    #[arg(long, default_value_t = 3_600_000)]
    pub platform_hour_ms: u64,
    /// Deliveries in that hour from which on the share of successes counts
    #[arg(long, default_value_t = 20)]
    pub platform_sample_min: usize,
    /// Events a second of the Event Platform at first
    #[arg(long, default_value_t = 10.0)]
    pub platform_rate_start: f64,
    /// Events a second of the Event Platform at most
    #[arg(long, default_value_t = 100.0)]
    pub platform_rate_max: f64,
    /// How long a new or changed subscription takes until it is live, in milliseconds
    #[arg(long, default_value_t = 0)]
    pub platform_activation_ms: u64,
    /// Resumptions in that hour after which a subscription is revoked
    #[arg(long, default_value_t = 5)]
    pub platform_resumes_max: usize,

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
            zone_offset_minutes: 0,
            client_id: "1_instep".to_owned(),
            client_secret: "connection-secret".to_owned(),
            username: "instep_0001".to_owned(),
            password: "connection-password".to_owned(),
            app_token: String::new(),
            token_ttl_ms: 3_600_000,
            refresh_ttl_ms: 1_209_600_000,
            connection_calls: 4,
            pim_calls: 10,
            requests_per_second: 100,
            retry_after_share: 0.5,
            second_client_rps: 0.0,
            latency_ms: 0,
            events_url: String::new(),
            events_secret: "events-api-secret".to_owned(),
            events_per_request: 10,
            events_timeout_ms: 500,
            events_in_flight: 5,
            events_requests_per_hour: 4_000,
            events_hour_ms: 3_600_000,
            events_age_max_ms: 7_200_000,
            events_by_identifier: false,
            events_date_alias: false,
            platform_timeout_ms: 5_000,
            platform_retry_scale: 1.0,
            platform_hour_ms: 3_600_000,
            platform_sample_min: 20,
            platform_rate_start: 10.0,
            platform_rate_max: 100.0,
            platform_activation_ms: 0,
            platform_resumes_max: 5,
            faults: Faults::default(),
        }
    }
}

/// Injected faults. Shares are probabilities from 0 to 1; each is drawn from the seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Share of the Events API's events that are never sent
    #[arg(long, default_value_t = 0.0)]
    pub events_api_lost: f64,
    /// Share of the Events API's events that are sent twice
    #[arg(long, default_value_t = 0.0)]
    pub events_api_duplicated: f64,
    /// Share of the Events API's events that are sent late
    #[arg(long, default_value_t = 0.0)]
    pub events_api_delayed: f64,
    /// Share of the Events API's events that are held back until later ones may have overtaken them
    #[arg(long, default_value_t = 0.0)]
    pub events_api_reordered: f64,
    /// Share of the Event Platform's events that are never sent
    #[arg(long, default_value_t = 0.0)]
    pub event_platform_lost: f64,
    /// Share of the Event Platform's events that are sent twice
    #[arg(long, default_value_t = 0.0)]
    pub event_platform_duplicated: f64,
    /// Share of the Event Platform's events that are sent late
    #[arg(long, default_value_t = 0.0)]
    pub event_platform_delayed: f64,
    /// Share of the Event Platform's events that are held back until later ones may have overtaken them
    #[arg(long, default_value_t = 0.0)]
    pub event_platform_reordered: f64,
    /// The longest delay of an event in milliseconds
    #[arg(long, default_value_t = 2_000)]
    pub hooks_delay_max_ms: u64,
    /// Share of requests answered 500, 502 or 503
    #[arg(long, default_value_t = 0.0)]
    pub upstream_5xx: f64,
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
    /// When such an answer says to come again, in seconds; 0 for not at all
    #[arg(long, default_value_t = 1)]
    pub inject_429_retry_after_s: u64,
    /// Lists and searches show the state of this many milliseconds ago
    #[arg(long, default_value_t = 0)]
    pub index_lag_ms: u64,
    /// Resources that the connection may no longer see
    #[arg(long)]
    pub lost_permission: Vec<String>,
    /// Lists of such resources are empty instead of 404
    #[arg(long)]
    pub lost_permission_empty: bool,
    /// Every request is answered 500, those for tokens too
    #[arg(long)]
    pub failing: bool,
    /// Root that links to the next page begin with instead of the PIM's own; none when empty
    #[arg(long, default_value = "")]
    pub next_root: String,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            events_api_lost: 0.0,
            events_api_duplicated: 0.0,
            events_api_delayed: 0.0,
            events_api_reordered: 0.0,
            event_platform_lost: 0.0,
            event_platform_duplicated: 0.0,
            event_platform_delayed: 0.0,
            event_platform_reordered: 0.0,
            hooks_delay_max_ms: 2_000,
            upstream_5xx: 0.0,
            timeouts: 0.0,
            timeout_hang_ms: 30_000,
            truncated: 0.0,
            inject_429: 0.0,
            inject_429_retry_after_s: 1,
            index_lag_ms: 0,
            lost_permission: Vec::new(),
            lost_permission_empty: false,
            failing: false,
            next_root: String::new(),
        }
    }
}

impl Shares for Faults {
    fn shares(&self) -> BTreeMap<&'static str, f64> {
        let whether = |on: bool| if on { 1.0 } else { 0.0 };
        BTreeMap::from([
            ("events_api_lost", self.events_api_lost),
            ("events_api_duplicated", self.events_api_duplicated),
            ("events_api_delayed", self.events_api_delayed),
            ("events_api_reordered", self.events_api_reordered),
            ("event_platform_lost", self.event_platform_lost),
            ("event_platform_duplicated", self.event_platform_duplicated),
            ("event_platform_delayed", self.event_platform_delayed),
            ("event_platform_reordered", self.event_platform_reordered),
            ("upstream_5xx", self.upstream_5xx),
            ("timeouts", self.timeouts),
            ("truncated", self.truncated),
            ("inject_429", self.inject_429),
            ("index_lag", whether(self.index_lag_ms > 0)),
            ("lost_permission", whether(!self.lost_permission.is_empty())),
            ("failing", whether(self.failing)),
            ("next_root", whether(!self.next_root.is_empty())),
        ])
    }
}

impl Faults {
    /// How long ago the state is that a list shows.
    pub(super) fn lag_us(&self) -> Option<i64> {
        (self.index_lag_ms > 0).then(|| micros(self.index_lag_ms))
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
