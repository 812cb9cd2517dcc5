//! Reports: what happens in the daemon, one struct each. Emitting one writes its log line and counts its metric together,
//! so that the two never disagree.
//!
//! To add a report, add an entry to `reports!` below: the doc comment is the metric's help, the names before the semicolon are
//! labels (and logged), those after it are logged only. Labels come from small fixed sets (source, resource, status, reason):
//! never a key, a path or anything a stranger chooses. Gauges work the same way.
//!
//! The registry belongs to a [`Reporter`]; there is nothing global, so several daemons fit into one test process.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Prefix of every metric.
const PREFIX: &str = "instep";

/// Label names with their values.
type Labels = Vec<(&'static str, String)>;
type Counters = HashMap<&'static str, Family<Labels, Counter>>;
type Gauges = HashMap<&'static str, Family<Labels, Gauge<f64, AtomicU64>>>;
type Timings = HashMap<&'static str, Family<Labels, Histogram, fn() -> Histogram>>;

/// Upper ends of the buckets of times, in seconds: from a commit without a disk to callers that have given up.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2];

/// The same for what an upstream takes its time for: from a webhook at once to the last retry of one.
const LONG_SECONDS: [f64; 12] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0];

/// Something that happened. Implemented by the structs of this module only.
pub trait Report: sealed::Declared {
    /// The metric it counts, without prefix and `_total`.
    const COUNTER: &'static str;
    /// The metric's labels.
    fn labels(&self) -> Labels;
    /// By how much it counts.
    fn amount(&self) -> u64;
    /// Writes the log line.
    fn log(&self);
}

/// Something that has a level. Implemented by the structs of this module only.
pub trait Measure: sealed::Declared {
    /// The metric it sets, without prefix.
    const GAUGE: &'static str;
    /// The metric's labels.
    fn labels(&self) -> Labels;
}

/// Something that takes its time. Implemented by the structs of this module only.
pub trait Timing: sealed::Declared {
    /// The metric it is counted in, without prefix.
    const HISTOGRAM: &'static str;
    /// The metric's labels.
    fn labels(&self) -> Labels;
}

mod sealed {
    /// Only declared reports and gauges are registered, so nothing else may be emitted.
    pub trait Declared {}
}

/// Takes reports and levels, and renders them. Cheap to clone; clones share the registry.
#[derive(Clone)]
pub struct Reporter(Arc<Metrics>);

struct Metrics {
    registry: Registry,
    counters: Counters,
    gauges: Gauges,
    timings: Timings,
}

impl Reporter {
    /// A reporter with a registry of its own, in which every metric is described from the start.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let mut counters = Counters::new();
        for (name, help) in COUNTERS {
            let family = Family::default();
            registry.register(*name, sentence(help), family.clone());
            counters.insert(name, family);
        }
        let mut gauges = Gauges::new();
        for (name, help) in GAUGES {
            let family = Family::default();
            registry.register(*name, sentence(help), family.clone());
            gauges.insert(name, family);
        }
        let mut timings = Timings::new();
        for (name, help, buckets) in TIMINGS {
            let family = Family::new_with_constructor(*buckets);
            registry.register(*name, sentence(help), family.clone());
            timings.insert(*name, family);
        }
        Self(Arc::new(Metrics { registry, counters, gauges, timings }))
    }

    /// Logs and counts what happened.
    pub fn emit<R: Report>(&self, report: R) {
        report.log();
        let family = self.0.counters.get(R::COUNTER).expect("every report is declared with its counter");
        family.get_or_create(&report.labels()).inc_by(report.amount());
    }

    /// Sets a level.
    pub fn set<M: Measure>(&self, measure: M, value: f64) {
        let family = self.0.gauges.get(M::GAUGE).expect("every measure is declared with its gauge");
        family.get_or_create(&measure.labels()).set(value);
    }

    /// Counts how long something took.
    pub fn observe<T: Timing>(&self, timing: T, took: Duration) {
        let family = self.0.timings.get(T::HISTOGRAM).expect("every timing is declared with its histogram");
        family.get_or_create(&timing.labels()).observe(took.as_secs_f64());
    }

    /// All metrics in the OpenMetrics text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.0.registry).expect("writing to a string does not fail");
        text
    }
}

impl Default for Reporter {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reporter")
    }
}

fn quick() -> Histogram {
    Histogram::new(SECONDS)
}

fn slow() -> Histogram {
    Histogram::new(LONG_SECONDS)
}

/// A doc comment as a metric's help, to which the encoder adds the stop.
fn sentence(doc: &str) -> &str {
    doc.trim().trim_end_matches('.')
}

macro_rules! reports {
    ($(
        #[doc = $help:literal]
        $name:ident($($label:ident),* $(; $($field:ident: $type:ty),+)?)
            $level:ident $text:literal counts $counter:literal $(by $amount:ident)?;
    )+) => {
        const COUNTERS: &[(&str, &str)] = &[$(($counter, $help)),+];
        $(
            #[doc = $help]
            #[derive(Clone, Debug)]
            pub struct $name {
                $(#[doc = concat!("Label `", stringify!($label), "`.")] pub $label: String,)*
                $($(#[doc = concat!("Logged as `", stringify!($field), "`.")] pub $field: $type,)+)?
            }

            impl sealed::Declared for $name {}

            impl Report for $name {
                const COUNTER: &'static str = $counter;

                fn labels(&self) -> Labels {
                    vec![$((stringify!($label), self.$label.clone())),*]
                }

                fn amount(&self) -> u64 {
                    [$(self.$amount,)? 1][0]
                }

                fn log(&self) {
                    tracing::$level!($($label = %self.$label,)* $($($field = %self.$field,)+)? $text);
                }
            }
        )+
    };
}

macro_rules! gauges {
    ($(#[doc = $help:literal] $name:ident($($label:ident),*) sets $gauge:literal;)+) => {
        const GAUGES: &[(&str, &str)] = &[$(($gauge, $help)),+];
        $(
            #[doc = $help]
            #[derive(Clone, Debug)]
            pub struct $name {
                $(#[doc = concat!("Label `", stringify!($label), "`.")] pub $label: String,)*
            }

            impl sealed::Declared for $name {}

            impl Measure for $name {
                const GAUGE: &'static str = $gauge;

                fn labels(&self) -> Labels {
                    vec![$((stringify!($label), self.$label.clone())),*]
                }
            }
        )+
    };
}

macro_rules! timings {
    ($(#[doc = $help:literal] $name:ident($($label:ident),*) counts $histogram:literal in $buckets:ident;)+) => {
        const TIMINGS: &[(&str, &str, fn() -> Histogram)] = &[$(($histogram, $help, $buckets)),+];
        $(
            #[doc = $help]
            #[derive(Clone, Debug)]
            pub struct $name {
                $(#[doc = concat!("Label `", stringify!($label), "`.")] pub $label: String,)*
            }

            impl sealed::Declared for $name {}

            impl Timing for $name {
                const HISTOGRAM: &'static str = $histogram;

                fn labels(&self) -> Labels {
                    vec![$((stringify!($label), self.$label.clone())),*]
                }
            }
        )+
    };
}

reports! {
    /// Deliveries committed to the journal and acknowledged.
    DeliveryAccepted(source) debug "delivery accepted" counts "deliveries_accepted";
    /// Requests of known sources that were refused, or whose callers were gone before the answer.
    DeliveryRefused(source, status, reason) warn "delivery refused" counts "deliveries_refused";
    /// Requests below the hooks that belong to no source.
    StrangerRefused() debug "request to no known source refused" counts "strangers_refused";
    /// Deliveries whose events were worked into the replica.
    DeliveriesProcessed(source; deliveries: u64) debug "deliveries processed" counts "deliveries_processed" by deliveries;
    /// Deliveries, records and keys that could not be processed and were put aside.
    ItemQuarantined(source, resource, reason) error "item quarantined" counts "items_quarantined";
    /// Commits of the journal.
    JournalCommitted(; deliveries: usize, seconds: f64) debug "journal committed" counts "journal_commits";
    /// Commits of the journal that failed.
    JournalFailed(; error: String) error "journal failed" counts "journal_failures";
    /// Times the store could not be reached or written.
    StoreLost(; error: String) error "store lost" counts "store_losses";
    /// Times the store came back.
    StoreRegained() info "store regained" counts "store_recoveries";
    /// Readers that kept a transaction open for longer than allowed.
    ReaderOverlong(; seconds: f64) warn "a reader keeps a transaction open" counts "overlong_readers";
    /// Settings of the database server without which a promise does not hold.
    SettingRisky(setting; risk: String) warn "a setting of the database server is off" counts "risky_settings";
    /// Events by what became of them.
    EventsDecided(source, resource, outcome; events: u64) debug "events decided" counts "events" by events;
    /// Effective changes of the replica.
    ChangesApplied(source; changes: u64) debug "changes applied" counts "changes_applied" by changes;
    /// Requests to upstreams by status.
    FetchAnswered(source, resource, status; seconds: f64) debug "fetch answered" counts "fetches";
    /// Requests to upstreams that got no usable answer.
    FetchFailed(source, resource, reason; error: String) warn "fetch failed" counts "fetch_failures";
    /// Refusals by upstreams because of a rate limit.
    RateLimited(source, scope; seconds: f64) warn "rate limited by upstream" counts "rate_limitings";
    /// Circuit breakers that opened.
    BreakerOpened(source, endpoint; seconds: f64) warn "breaker opened" counts "breaker_openings";
    /// Circuit breakers that closed again.
    BreakerClosed(source, endpoint) info "breaker closed" counts "breaker_closings";
    /// Passes begun.
    PassStarted(source, resource, mode) info "pass started" counts "passes_started";
    /// Passes completed.
    PassCompleted(source, resource, mode; records: u64) info "pass completed" counts "passes_completed";
    /// Passes given up until the next one.
    PassFailed(source, resource, mode; error: String) warn "pass failed" counts "passes_failed";
    /// Records read again by key that the upstream no longer has and that were removed.
    RemovalConfirmed(source, resource; records: u64) info "removal confirmed" counts "removals_confirmed" by records;
    /// Removals kept back because too much would have gone at once.
    RemovalHeld(source, resource, reason; records: u64) error "removal held" counts "removals_held" by records;
    /// Sources whose view of the upstream was lost.
    ViewLost(source, resource) error "view of the upstream lost" counts "views_lost";
    /// Periods opened or extended in which deliveries may have been lost.
    GapOpened(source, cause) warn "gap opened" counts "gaps_opened";
    /// Events whose number in their sender's log is another record's.
    SequenceConflicting(source, resource; number: i64) error "an event's number is another record's: the sender breaks its log's contract" counts "sequence_conflicts";
    /// Such periods repaired.
    GapClosed(source, cause) info "gap closed" counts "gaps_closed";
    /// Looks at which a route that its upstream has ended had been silent for a day.
    RouteSilent(source, route) warn "the upstream has ended this route: take it out of the configuration" counts "silent_routes";
    /// Sampled rows that said something else than the upstream, for longer than a change is under way.
    RowDiffered(source, resource, kind) warn "a sampled row differs from the upstream; it is read again" counts "sampled_rows_differing";
    /// Secrets read again because a signature did not match.
    SecretsReread(source) info "secrets read again" counts "secrets_reread";
    /// Times a sender that had stopped was asked to deliver again.
    ResumeAsked(source) warn "deliveries have stopped: the sender is asked to resume" counts "resumes_asked";
    /// Times such a request failed.
    ResumeRefused(source; error: String) error "the sender could not be asked to resume" counts "resumes_refused";
    /// Changes that a feed or a pass showed and of which no webhook told.
    WebhooksMissed(source; changes: u64) warn "no webhook told of changes" counts "webhooks_missed" by changes;
    /// Webhook registrations changed upstream.
    RegistrationChanged(source, operation) info "webhook registration changed" counts "registrations_changed";
    /// Sources fenced because another process owns them.
    SourceFenced(source) error "source fenced" counts "sources_fenced";
    /// Actors started for the first time.
    ActorStarted(actor) debug "actor started" counts "actors_started";
    /// Actors started again after a failure.
    ActorRestarted(actor; error: String, seconds: f64) error "actor restarted" counts "actor_restarts";
    /// Actors set aside after too many failures.
    ActorParked(actor; error: String) error "actor parked" counts "actors_parked";
    /// Actors killed because they gave no sign of life.
    ActorKilled(actor; seconds: f64) error "actor killed" counts "actors_killed";
    /// Rows removed because they were older or more than allowed.
    RowsExpired(table; rows: u64) info "rows expired" counts "rows_expired" by rows;
}

gauges! {
    /// Age of the oldest delivery that is not processed yet, in seconds.
    LagSeconds(source) sets "lag_seconds";
    /// Deliveries stored and not yet processed.
    BacklogDeliveries(source) sets "backlog_deliveries";
    /// Open marks.
    Marks(source, resource) sets "marks";
    /// Live rows of the replica.
    Rows(source, resource) sets "rows";
    /// Items in quarantine.
    Quarantined(source) sets "quarantined";
    /// Open gaps.
    GapsOpen(source) sets "gaps_open";
    /// Permits left in a window of a rate limit.
    PermitsLeft(scope, window) sets "permits_left";
    /// 1 while a breaker is open.
    BreakerOpen(source, endpoint) sets "breaker_open";
    /// 1 while a source receives deliveries, 0 while it lives on polling.
    LiveMode(source) sets "live_mode";
    /// 1 while the public address leads to this process, 0 while it does not.
    PublicUrlOk(source) sets "public_url_ok";
    /// Days until the certificate of the public address ends.
    CertificateDaysLeft(source) sets "certificate_days_left";
    /// Of the rows that were sampled lately, the part that says what the upstream says.
    AgreementRatio(source) sets "agreement_ratio";
    /// The greatest age of a state that a row sampled lately did not have yet, in seconds.
    StalenessSeconds(source) sets "staleness_seconds";
    /// Bytes of the database files.
    StoreBytes(file) sets "store_bytes";
    /// For how long a reader has held back the store's own cleaning, in seconds.
    ReaderSeconds() sets "reader_seconds";
    /// Bytes free where the database is.
    DiskFreeBytes() sets "disk_free_bytes";
    /// 1 while a delivery could be accepted durably.
    Ready() sets "ready";
}

timings! {
    /// Time from the last byte of a delivery to its acknowledgement, in seconds.
    AckSeconds(source) counts "ack_seconds" in quick;
    /// Time from the upstream's stamp of a change to the first webhook about it, in seconds.
    WebhookDelaySeconds(source) counts "webhook_delay_seconds" in slow;
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_report_is_counted_under_its_labels() {
        let reporter = Reporter::new();
        for _ in 0..2 {
            reporter.emit(DeliveryAccepted { source: "pmp".into() });
        }
        reporter.emit(ChangesApplied { source: "pmp".into(), changes: 40 });
        let text = reporter.render();
        assert!(text.contains("instep_deliveries_accepted_total{source=\"pmp\"} 2\n"), "{text}");
        assert!(text.contains("instep_changes_applied_total{source=\"pmp\"} 40\n"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn a_gauge_holds_the_last_value() {
        let reporter = Reporter::new();
        reporter.set(LagSeconds { source: "pmp".into() }, 4.0);
        reporter.set(LagSeconds { source: "pmp".into() }, 1.5);
        let text = reporter.render();
        assert!(text.contains("instep_lag_seconds{source=\"pmp\"} 1.5\n"), "{text}");
    }

    #[test]
    fn a_timing_falls_into_its_bucket() {
        let reporter = Reporter::new();
        for millis in [2, 30, 90_000] {
            reporter.observe(AckSeconds { source: "pmp".into() }, Duration::from_millis(millis));
        }
        let text = reporter.render();
        for line in ["bucket{le=\"0.0025\",source=\"pmp\"} 1", "bucket{le=\"0.05\",source=\"pmp\"} 2", "count{source=\"pmp\"} 3"] {
            assert!(text.contains(&format!("instep_ack_seconds_{line}\n")), "{text}");
        }
    }

    #[test]
    fn reporters_do_not_share_anything() {
        let (one, other) = (Reporter::new(), Reporter::new());
        one.emit(StrangerRefused {});
        assert!(one.render().contains("instep_strangers_refused_total{} 1\n"));
        assert!(!other.render().contains("instep_strangers_refused_total{} 1\n"));
    }

    #[test]
    fn names_are_unique_and_told_in_base_units() {
        let timings: Vec<_> = TIMINGS.iter().map(|(name, help, _)| (*name, *help)).collect();
        let all = || COUNTERS.iter().chain(GAUGES).chain(&timings);
        let names: Vec<&str> = all().map(|(name, _)| *name).collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        for name in names {
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert!(!["_ms", "_millis", "_kb", "_mb", "_total"].iter().any(|unit| name.ends_with(unit)), "{name}");
        }
        for (name, help) in all() {
            assert!(help.ends_with('.') && !sentence(help).ends_with('.'), "{name}: {help}");
        }
    }
}
