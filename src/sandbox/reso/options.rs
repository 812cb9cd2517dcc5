//! How the fake producer is made and how it behaves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::sandbox::faults::Shares;

/// Whose manners the producer has. What of them is kept is said at each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// RESO's reference server: no limits unless they are given
    Plain,
    /// MLS Grid: limits of requests and bytes, one OriginatingSystemName, gzip demanded, `MlgCanView`
    Mlsgrid,
    /// Bridge: limits, pages of 200
    Bridge,
    /// Trestle: limits, pages of 1,000, keys alone up to 300,000
    Trestle,
    /// Spark: limits, pages of 1,000, `$skiptoken`
    Spark,
}

/// How a page leads to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum NextLinks {
    /// `$skip`, as RESO's reference server: unsafe where rows disappear meanwhile
    Skip,
    /// `$skiptoken`: from the last row on
    Skiptoken,
    /// Not at all
    None,
}

/// Everything that can be chosen when a sandbox starts.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  instep sandbox reso --port 8722 --entities 5000\n  instep sandbox reso --profile mlsgrid --window-scale 0.01\n  \
    instep sandbox reso --push-url http://127.0.0.1:8080/hooks/mls --push-token secret --push-batch 50\n  \
    curl -H 'Authorization: Bearer static-token' 'http://127.0.0.1:8722/odata/Property?$top=2'"
)]
pub struct Options {
    /// Port on the loopback address; 0 lets the system choose
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// Everything invented is a function of this number
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// About how many listings there are; the rest is in proportion
    #[arg(long, default_value_t = 2_000)]
    pub entities: u64,
    /// How many events the log holds at the start; at least one of each record
    #[arg(long, default_value_t = 0)]
    pub events_at_start: u64,
    /// Whose manners the producer has
    #[arg(long, value_enum, default_value_t = Profile::Plain)]
    pub profile: Profile,
    /// What the windows of limits, and the 7 days of MLS Grid, are multiplied by
    #[arg(long, default_value_t = 1.0)]
    pub window_scale: f64,
    /// Value of OriginatingSystemName
    #[arg(long, default_value = "demo")]
    pub originating_system: String,

    /// The client's id
    #[arg(long, default_value = "instep")]
    pub client_id: String,
    /// The client's secret
    #[arg(long, default_value = "client-secret")]
    pub client_secret: String,
    /// A token that does not expire; none when empty
    #[arg(long, default_value = "static-token")]
    pub token: String,
    /// How long a token by client credentials lives, in milliseconds
    #[arg(long, default_value_t = 3_600_000)]
    pub token_ttl_ms: u64,

    /// Rows of a page where none are asked for; 0 for the profile's
    #[arg(long, default_value_t = 0)]
    pub page: usize,
    /// Rows of a page at most; 0 for the profile's
    #[arg(long, default_value_t = 0)]
    pub page_max: usize,
    /// How a page leads to the next one; the profile's when absent
    #[arg(long, value_enum)]
    pub next_links: Option<NextLinks>,
    /// Refuse `lt`, `le`, `gt` and `ge` on texts
    #[arg(long)]
    pub no_key_order: bool,
    /// Refuse `in`
    #[arg(long)]
    pub no_in: bool,
    /// Refuse `$orderby`
    #[arg(long)]
    pub no_orderby: bool,
    /// Answer 403 instead of 401 to bad tokens, as the standard's table has it
    #[arg(long)]
    pub forbidden: bool,
    /// Milliseconds that every request takes at least
    #[arg(long, default_value_t = 0)]
    pub latency_ms: u64,
    /// Requests in any second; 0 for the profile's
    #[arg(long, default_value_t = 0)]
    pub requests_per_second: u64,

    /// Where pushes are sent to; nowhere when empty
    #[arg(long, default_value = "")]
    pub push_url: String,
    /// Bearer token of pushes
    #[arg(long, default_value = "push-token")]
    pub push_token: String,
    /// EntityEventSource of pushes; none when empty
    #[arg(long, default_value = "")]
    pub push_label: String,
    /// Events in one push at most; 1 sends single objects
    #[arg(long, default_value_t = 1)]
    pub push_batch: usize,
    /// How long a receiver may take, in milliseconds
    #[arg(long, default_value_t = 5_000)]
    pub push_timeout_ms: u64,
    /// From a failed push to its next try, in milliseconds
    #[arg(long, default_value_t = 500)]
    pub push_retry_ms: u64,
    /// Failures in a row after which the push stops
    #[arg(long, default_value_t = 10)]
    pub push_failures_max: u64,
    /// Once the push has stopped, never send what waits and what happens until it is resumed
    #[arg(long)]
    pub push_forgets: bool,
    /// Tries after which an event is given up for good; 0 for never
    #[arg(long, default_value_t = 0)]
    pub push_tries: u64,
    /// Try again at once, whatever Retry-After says
    #[arg(long)]
    pub push_impatient: bool,

    /// From one compaction of the log to the next, in milliseconds; 0 for never
    #[arg(long, default_value_t = 0)]
    pub compaction_ms: u64,
    /// What lies below a removed listing goes without events of its own
    #[arg(long)]
    pub silent_children: bool,

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
            events_at_start: 0,
            profile: Profile::Plain,
            window_scale: 1.0,
            originating_system: "demo".to_owned(),
            client_id: "instep".to_owned(),
            client_secret: "client-secret".to_owned(),
            token: "static-token".to_owned(),
            token_ttl_ms: 3_600_000,
            page: 0,
            page_max: 0,
            next_links: None,
            no_key_order: false,
            no_in: false,
            no_orderby: false,
            forbidden: false,
            latency_ms: 0,
            requests_per_second: 0,
            push_url: String::new(),
            push_token: "push-token".to_owned(),
            push_label: String::new(),
            push_batch: 1,
            push_timeout_ms: 5_000,
            push_retry_ms: 500,
            push_failures_max: 10,
            push_forgets: false,
            push_tries: 0,
            push_impatient: false,
            compaction_ms: 0,
            silent_children: false,
            faults: Faults::default(),
        }
    }
}

impl Options {
    /// Rows of a page: where none are asked for, and at most.
    pub(super) fn pages(&self) -> (usize, usize) {
        let (page, max) = match self.profile {
            Profile::Plain => (1_000, 1_000),
            Profile::Mlsgrid => (500, 5_000),
            Profile::Bridge => (10, 200),
            Profile::Trestle => (10, 1_000),
            Profile::Spark => (1_000, 1_000),
        };
        let max = if self.page_max == 0 { max } else { self.page_max };
        (if self.page == 0 { page } else { self.page }.min(max), max)
    }

    pub(super) fn links(&self) -> NextLinks {
        self.next_links.unwrap_or(if self.profile == Profile::Spark { NextLinks::Skiptoken } else { NextLinks::Skip })
    }

    /// How long a record that may no longer be viewed is still told of, with `MlgCanView=false`.
    pub(super) fn farewell_us(&self) -> i64 {
        let week_us = 7.0 * 24.0 * 3_600.0 * 1_000_000.0;
        if self.profile == Profile::Mlsgrid { (week_us * self.window_scale) as i64 } else { 0 }
    }
}

/// Injected faults. Shares are probabilities from 0 to 1; each is drawn from the seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Share of events that are never pushed
    #[arg(long, default_value_t = 0.0)]
    pub push_lost: f64,
    /// Share of events that are pushed twice
    #[arg(long, default_value_t = 0.0)]
    pub push_duplicated: f64,
    /// Share of events that are held back until later ones may have overtaken them
    #[arg(long, default_value_t = 0.0)]
    pub push_reordered: f64,
    /// Share of events whose number is allotted at once and visible late
    #[arg(long, default_value_t = 0.0)]
    pub events_late: f64,
    /// The longest time until such an event is visible, in milliseconds
    #[arg(long, default_value_t = 200)]
    pub events_late_max_ms: u64,
    /// Share of events before which a number is left out: an event that this client may not see
    #[arg(long, default_value_t = 0.0)]
    pub events_hidden: f64,
    /// Share of events before which one names a record that this client may not see
    #[arg(long, default_value_t = 0.0)]
    pub events_foreign: f64,
    /// Share of changes whose event is never written
    #[arg(long, default_value_t = 0.0)]
    pub events_unwritten: f64,
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
    /// Resources whose collections answer 404
    #[arg(long)]
    pub lost_permission: Vec<String>,
    /// Every request is answered 500
    #[arg(long)]
    pub failing: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            push_lost: 0.0,
            push_duplicated: 0.0,
            push_reordered: 0.0,
            events_late: 0.0,
            events_late_max_ms: 200,
            events_hidden: 0.0,
            events_foreign: 0.0,
            events_unwritten: 0.0,
            upstream_5xx: 0.0,
            timeouts: 0.0,
            timeout_hang_ms: 30_000,
            truncated: 0.0,
            inject_429: 0.0,
            lost_permission: Vec::new(),
            failing: false,
        }
    }
}

impl Shares for Faults {
    fn shares(&self) -> BTreeMap<&'static str, f64> {
        let whether = |on: bool| if on { 1.0 } else { 0.0 };
        BTreeMap::from([
            ("push_lost", self.push_lost),
            ("push_duplicated", self.push_duplicated),
            ("push_reordered", self.push_reordered),
            ("events_late", self.events_late),
            ("events_hidden", self.events_hidden),
            ("events_foreign", self.events_foreign),
            ("events_unwritten", self.events_unwritten),
            ("upstream_5xx", self.upstream_5xx),
            ("timeouts", self.timeouts),
            ("truncated", self.truncated),
            ("inject_429", self.inject_429),
            ("lost_permission", whether(!self.lost_permission.is_empty())),
            ("failing", whether(self.failing)),
        ])
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
