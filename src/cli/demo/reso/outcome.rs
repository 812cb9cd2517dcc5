//! The numbers of a phase, what they must be, and how they are shown.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::Value;

use super::super::arm::number;
use super::super::figures::{Figures, list};
use super::super::ground::Part;
use super::phase::Phase;

/// The most memory of the daemon in any phase, whatever the size of the demo: that of 200,000 records in the tests of memory.
pub(in super::super) const MEMORY_MAX_KIB: u64 = 128 * 1024;

/// How the pushes of a phase went, as the producer counted.
#[derive(Debug, Default, serde::Serialize)]
pub(in super::super) struct Pushes {
    /// Events that were to be pushed, some of them twice.
    events: u64,
    acknowledged: u64,
    requests: u64,
    /// Events that came after later ones.
    overtaken: u64,
    /// Our answers: 429, and how many of them said when to come again.
    status_429: u64,
    retry_after: u64,
    /// Others that were no 2xx.
    refused: u64,
    /// Requests that nobody answered, or not in time.
    unanswered: u64,
    /// Whether the producer waited for as long as it was told.
    pauses_honoured: u64,
    pauses_broken: u64,
    asked_to_wait_ms: u64,
    waited_ms: u64,
    waiting: u64,
    is_stopped: bool,
    /// Longest time to an answer since the start, as the producer measured it.
    slowest_ms: u64,
}

impl Pushes {
    /// Between two reports.
    pub(in super::super) fn between(before: &Value, after: &Value) -> Self {
        let n = |name: &str| {
            let pointer = format!("/push/{name}");
            number(after, &pointer) - number(before, &pointer)
        };
        Self {
            events: n("queued"),
            acknowledged: n("sent"),
            requests: n("requests"),
            overtaken: n("overtaken"),
            status_429: n("status_429"),
            retry_after: n("retry_after"),
            refused: n("refused"),
            unanswered: n("unanswered") + n("abandoned"),
            pauses_honoured: n("pauses_honoured"),
            pauses_broken: n("pauses_broken"),
            asked_to_wait_ms: n("asked_to_wait_ms"),
            waited_ms: n("waited_ms"),
            waiting: number(after, "/push/waiting"),
            slowest_ms: number(after, "/push/slowest_ms"),
            is_stopped: after.pointer("/push/is_stopped").and_then(Value::as_bool).unwrap_or(true),
        }
    }

    /// What did not hold.
    pub(in super::super) fn failures(&self) -> Vec<String> {
        let Self { events, acknowledged, waiting, .. } = self;
        let must = [
            (self.events > 0, "nothing was pushed".to_owned()),
            (
                acknowledged == events && *waiting == 0 && !self.is_stopped,
                format!("{acknowledged} of {events} events were acknowledged, {waiting} wait"),
            ),
            (self.unanswered == 0, format!("{} pushes were not answered in time", self.unanswered)),
            (self.refused == 0, format!("{} pushes were answered neither 2xx nor 429", self.refused)),
            (self.retry_after == self.status_429, format!("{} of {} answers 429 had a Retry-After", self.retry_after, self.status_429)),
            (
                self.pauses_broken == 0 && self.pauses_honoured == self.retry_after,
                format!("of {} pauses {} were kept and {} broken", self.retry_after, self.pauses_honoured, self.pauses_broken),
            ),
        ];
        must.into_iter().filter(|(holds, _)| !holds).map(|(_, what)| what).collect()
    }

    pub(in super::super) fn rows(&self) -> Vec<(&'static str, String)> {
        let Self { events, acknowledged, requests, status_429, retry_after, pauses_honoured, .. } = self;
        vec![
            (
                "pushed events acknowledged",
                format!(
                    "{acknowledged} of {events}, in {requests} requests; {} overtaken; the slowest answer took {} ms",
                    self.overtaken, self.slowest_ms
                ),
            ),
            (
                "our 429s",
                format!(
                    "{status_429}, {retry_after} with Retry-After; {pauses_honoured} pauses honoured, {} broken; asked to wait {} ms, waited {} ms",
                    self.pauses_broken, self.asked_to_wait_ms, self.waited_ms
                ),
            ),
        ]
    }
}

/// How the first feed went.
#[derive(Debug, serde::Serialize)]
pub(super) struct FirstFeed {
    pub(super) backfill_s: f64,
    /// Events that were acknowledged before the backfill had ended.
    pub(super) acknowledged_meanwhile: u64,
    pub(super) acknowledged_s: f64,
}

/// What else was observed in a phase.
pub(super) struct Observed<'a> {
    pub(super) before: &'a Value,
    /// When people had worked and faults were still on.
    pub(super) worked: &'a Value,
    pub(super) after: &'a Value,
    pub(super) first_feed: Option<FirstFeed>,
}

/// What a phase showed.
#[derive(Debug, serde::Serialize)]
pub(super) struct Outcome {
    phase: Phase,
    #[serde(flatten)]
    figures: Figures,
    /// Requests of ours that were answered by 4xx other than 404, which says that a record is gone.
    turned_away: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pushes: Option<Pushes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_feed: Option<FirstFeed>,
    /// Requests for the log, and events that were compacted away.
    log_reads: u64,
    compacted: u64,
    /// Every injected kind: how often.
    faults: BTreeMap<String, u64>,
    never_happened: Vec<String>,
    failures: Vec<String>,
}

impl Outcome {
    pub(super) fn new(phase: Phase, figures: Figures, observed: Observed<'_>) -> Self {
        let Observed { before, worked, after, first_feed } = observed;
        let since = |count: &dyn Fn(&Value) -> u64| count(after) - count(before);
        let mut outcome = Self {
            phase,
            figures,
            turned_away: since(&turned_away),
            pushes: phase.has_pushes().then(|| Pushes::between(before, after)),
            first_feed,
            log_reads: since(&|report: &Value| log_reads(report, |_| true)),
            compacted: since(&|report: &Value| number(report, "/events/compacted")),
            faults: faults(phase, before, worked),
            never_happened: Vec::new(),
            failures: Vec::new(),
        };
        outcome.never_happened = outcome.faults.iter().filter(|(_, n)| **n == 0).map(|(name, _)| name.clone()).collect();
        outcome.failures = outcome.judge();
        outcome
    }

    /// What did not hold.
    fn judge(&self) -> Vec<String> {
        let mut failures = self.figures.failures();
        failures.extend(self.pushes.iter().flat_map(Pushes::failures));
        let mut must = |holds: bool, what: String| {
            if !holds {
                failures.push(what);
            }
        };
        must(self.turned_away == 0, format!("{} requests were answered by 4xx other than 404", self.turned_away));
        must(self.never_happened.is_empty(), format!("configured faults never happened: {}", self.never_happened.join(", ")));
        must((self.log_reads > 0) == self.phase.has_log(), format!("the log was asked for {} times", self.log_reads));
        let (hwm, most) = (self.figures.vm_hwm_kib, MEMORY_MAX_KIB);
        must((1..=most).contains(&hwm), format!("the daemon's VmHWM is {hwm} KiB, at most {most}"));
        if let (Some(feed), Some(pushes)) = (&self.first_feed, &self.pushes) {
            must(pushes.status_429 > 0, "no push was answered 429: the backlog never reached its mark".to_owned());
            must(feed.acknowledged_meanwhile > 0, "nothing was pushed while the backfill ran".to_owned());
        }
        if self.phase == Phase::Log {
            must(self.compacted > 0, "no event was compacted away".to_owned());
        }
        failures
    }
}

impl Part for Outcome {
    fn holds(&self) -> bool {
        self.failures.is_empty()
    }

    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut rows = vec![("answered 4xx other than 404", self.turned_away.to_string())];
        rows.extend(self.pushes.iter().flat_map(Pushes::rows));
        if let Some(FirstFeed { backfill_s, acknowledged_meanwhile, acknowledged_s }) = &self.first_feed {
            rows.push(("backfill", format!("{backfill_s:.1} s, {acknowledged_meanwhile} pushed events acknowledged meanwhile")));
            rows.push(("last event acknowledged", format!("after {acknowledged_s:.1} s")));
        }
        if self.phase.has_log() {
            rows.push(("the log", format!("asked for {} times; {} events compacted away", self.log_reads, self.compacted)));
        }
        if !self.faults.is_empty() {
            rows.push(("injected faults", list(&self.faults)));
        }
        self.figures.show(out, self.phase.title(), &rows, &self.failures)
    }
}

fn requests(report: &Value, counts: impl Fn(&Value) -> bool) -> u64 {
    let rows = report.get("requests").and_then(Value::as_array);
    rows.into_iter().flatten().filter(|row| counts(row)).map(|row| number(row, "/count")).sum()
}

fn turned_away(report: &Value) -> u64 {
    requests(report, |row| matches!(number(row, "/status"), 400..=403 | 405..=499))
}

/// Requests for the log with such a status.
pub(super) fn log_reads(report: &Value, has: impl Fn(u64) -> bool) -> u64 {
    requests(report, |row| row.get("collection").and_then(Value::as_str) == Some("EntityEvent") && has(number(row, "/status")))
}

/// How often each fault of the phase happened.
fn faults(phase: Phase, before: &Value, worked: &Value) -> BTreeMap<String, u64> {
    let count = |report: &Value, name: &str| number(report, &format!("/faults/{name}/count"));
    let set = phase.shares().into_iter().filter(|(_, share)| *share > 0.0);
    set.map(|(name, _)| (name.to_owned(), count(worked, name) - count(before, name))).collect()
}
