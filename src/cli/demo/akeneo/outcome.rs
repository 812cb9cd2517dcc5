//! The numbers of a phase, what they must be, and how they are shown.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use serde_json::Value;

use super::super::arm::number;
use super::super::figures::Figures;
use super::super::ground::Part;
use super::phase::Phase;

/// The Events API hangs up after half a second.
const EVENTS_API_ACK_MAX_MS: u64 = 400;
/// The Event Platform after five.
const PLATFORM_ACK_MAX_MS: u64 = 4_000;

/// Different keys told of, by resource, operation and system (`events_api`, `event_platform`).
pub(super) type Coverage = BTreeMap<(String, String, &'static str), u64>;

/// What a phase showed.
#[derive(Debug, serde::Serialize)]
pub(super) struct Outcome {
    phase: Phase,
    #[serde(flatten)]
    figures: Figures,
    suspensions: u64,
    /// Longest time to an acknowledgement since the start, as the sender measured it.
    events_api_ack_max_ms: u64,
    event_platform_ack_max_ms: u64,
    /// Rows of coverage, and those in which the daemon's count is not the sender's.
    coverage_rows: usize,
    coverage_differences: Vec<String>,
    never_happened: Vec<String>,
    failures: Vec<String>,
}

impl Outcome {
    /// `after`: the sandbox's report at the end; `coverage`: the daemon's count.
    pub(super) fn new(phase: Phase, figures: Figures, after: &Value, coverage: &Coverage) -> Self {
        let sent = sent_coverage(after);
        let never = after.pointer("/never_happened").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut outcome = Self {
            phase,
            figures,
            suspensions: number(after, "/suspensions"),
            events_api_ack_max_ms: number(after, "/deliveries/events_api/acks/max_ms"),
            event_platform_ack_max_ms: number(after, "/deliveries/event_platform/acks/max_ms"),
            coverage_rows: sent.len(),
            coverage_differences: coverage_differences(&sent, coverage),
            never_happened: never.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect(),
            failures: Vec::new(),
        };
        outcome.failures = outcome.judge();
        outcome
    }

    /// What did not hold.
    fn judge(&self) -> Vec<String> {
        let mut failures = self.figures.failures();
        let mut must = |holds: bool, what: String| {
            if !holds {
                failures.push(what);
            }
        };
        must(self.suspensions == 0, format!("{} suspensions", self.suspensions));
        must(self.coverage_rows > 0 && self.coverage_differences.is_empty(), "the coverage is not the sender's".to_owned());
        let acks = [(self.events_api_ack_max_ms, EVENTS_API_ACK_MAX_MS), (self.event_platform_ack_max_ms, PLATFORM_ACK_MAX_MS)];
        for (took, max) in acks {
            must(took <= max, format!("an acknowledgement took {took} ms, more than {max}"));
        }
        if self.phase == Phase::Both {
            must(self.never_happened.is_empty(), format!("configured faults never happened: {}", self.never_happened.join(", ")));
        }
        failures
    }
}

impl Part for Outcome {
    fn holds(&self) -> bool {
        self.failures.is_empty()
    }

    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let (api, platform) = (self.events_api_ack_max_ms, self.event_platform_ack_max_ms);
        let n_other = self.coverage_differences.len();
        let n_same = self.coverage_rows - n_other.min(self.coverage_rows);
        let rows = [
            ("suspensions", self.suspensions.to_string()),
            ("slowest acknowledgement", format!("Events API {api} ms, Event Platform {platform} ms")),
            ("coverage", format!("{n_same} rows as the sender counts them, {n_other} others")),
        ];
        let failures: Vec<String> = self.failures.iter().chain(&self.coverage_differences).cloned().collect();
        self.figures.show(out, self.phase.title(), &rows, &failures)
    }
}

/// The sender's count of different keys; rows of nothing are left out.
fn sent_coverage(report: &Value) -> Coverage {
    let rows = report.get("coverage").and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |row: &Value, name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let systems = rows.iter().flat_map(|row| {
        ["events_api", "event_platform"]
            .map(|system| ((text(row, "resource"), text(row, "operation"), system), number(row, &format!("/keys/{system}"))))
    });
    systems.filter(|(_, n)| *n > 0).collect()
}

fn coverage_differences(sent: &Coverage, counted: &Coverage) -> Vec<String> {
    type Row = (String, String, &'static str);
    let all: BTreeSet<&Row> = sent.keys().chain(counted.keys()).collect();
    let count = |of: &Coverage, row: &Row| of.get(row).copied().unwrap_or(0);
    let differing = all.into_iter().filter(|row| count(sent, row) != count(counted, row));
    let told = |row: &Row| {
        let (resource, operation, system) = row;
        format!("{resource} {operation} by {system}: sent of {} keys, heard of {}", count(sent, row), count(counted, row))
    };
    differing.map(told).collect()
}
