//! The numbers of a phase, what they must be, and how they are shown.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{self, Write};

use serde_json::Value;

use super::super::arm::number;
use super::super::compare::{Comparison, Difference};
use super::super::outcome::{Seen, Visible, show_differences, visible};
use super::super::upstream::Change;
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
    pub(super) phase: Phase,
    entities: usize,
    changes: usize,
    changed_entities: usize,
    operations: BTreeMap<String, usize>,
    n_differences: usize,
    differences: Vec<Difference>,
    visible: Visible,
    requests: u64,
    requests_per_changed: f64,
    refusals: u64,
    violations: u64,
    suspensions: u64,
    /// Longest time to an acknowledgement since the start, as the sender measured it.
    events_api_ack_max_ms: u64,
    event_platform_ack_max_ms: u64,
    /// Rows of coverage, and those in which the daemon's count is not the sender's.
    coverage_rows: usize,
    coverage_differences: Vec<String>,
    never_happened: Vec<String>,
    pub(super) settled_s: f64,
    pub(super) vm_hwm_kib: u64,
    pub(super) failures: Vec<String>,
}

/// What was observed in a phase.
pub(super) struct Observed<'a> {
    pub(super) comparison: Comparison,
    pub(super) changes: &'a [Change],
    pub(super) rows: &'a [Seen],
    /// The sandbox's reports before and after.
    pub(super) before: &'a Value,
    pub(super) after: &'a Value,
    /// The daemon's count.
    pub(super) coverage: Coverage,
}

impl Outcome {
    pub(super) fn new(phase: Phase, observed: Observed<'_>) -> Self {
        let Observed { comparison, changes, rows, before, after, coverage } = observed;
        let changed: HashSet<(&str, &str)> = changes.iter().map(|change| (change.resource.as_str(), change.key.as_str())).collect();
        let mut operations = BTreeMap::new();
        for change in changes {
            *operations.entry(change.operation.clone()).or_default() += 1;
        }
        let requests = number(after, "/requests_total") - number(before, "/requests_total");
        let sent = sent_coverage(after);
        let never = after.pointer("/never_happened").and_then(Value::as_array).cloned().unwrap_or_default();
        Self {
            phase,
            entities: comparison.entities,
            changes: changes.len(),
            changed_entities: changed.len(),
            operations,
            n_differences: comparison.differences.len(),
            differences: comparison.differences,
            visible: visible(changes, rows),
            requests,
            requests_per_changed: requests as f64 / changed.len().max(1) as f64,
            refusals: number(after, "/refusals_total"),
            violations: number(after, "/violations_total"),
            suspensions: number(after, "/suspensions"),
            events_api_ack_max_ms: number(after, "/deliveries/events_api/acks/max_ms"),
            event_platform_ack_max_ms: number(after, "/deliveries/event_platform/acks/max_ms"),
            coverage_rows: sent.len(),
            coverage_differences: coverage_differences(&sent, &coverage),
            never_happened: never.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect(),
            settled_s: 0.0,
            vm_hwm_kib: 0,
            failures: Vec::new(),
        }
    }

    /// Writes down what did not hold.
    pub(super) fn judge(&mut self) {
        let mut failures = Vec::new();
        let mut must = |holds: bool, what: String| {
            if !holds {
                failures.push(what);
            }
        };
        must(self.differences.is_empty(), format!("{} differences instead of 0", self.differences.len()));
        must(self.entities > 0 && self.changed_entities > 0, "nothing was compared or nothing changed".to_owned());
        must(self.violations == 0, format!("{} writes reached the upstream", self.violations));
        must(self.refusals == 0, format!("{} requests were refused for a rate limit", self.refusals));
        must(self.suspensions == 0, format!("{} suspensions", self.suspensions));
        must(self.coverage_rows > 0 && self.coverage_differences.is_empty(), "the coverage is not the sender's".to_owned());
        let acks = [(self.events_api_ack_max_ms, EVENTS_API_ACK_MAX_MS), (self.event_platform_ack_max_ms, PLATFORM_ACK_MAX_MS)];
        for (took, max) in acks {
            must(took <= max, format!("an acknowledgement took {took} ms, more than {max}"));
        }
        if self.phase == Phase::Both {
            must(self.never_happened.is_empty(), format!("configured faults never happened: {}", self.never_happened.join(", ")));
        }
        self.failures = failures;
    }

    pub(super) fn holds(&self) -> bool {
        self.failures.is_empty()
    }

    /// The table.
    pub(super) fn show(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "\n{}: {}", self.phase.title(), if self.holds() { "holds" } else { "DOES NOT HOLD" })?;
        let operations: Vec<String> = self.operations.iter().map(|(name, n)| format!("{name} {n}")).collect();
        let visible = &self.visible;
        let rows = [
            ("entities", self.entities.to_string()),
            ("changed entities", format!("{} ({} changes: {})", self.changed_entities, self.changes, operations.join(", "))),
            ("differences", self.n_differences.to_string()),
            (
                "change to visible",
                format!(
                    "p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms beyond the injected delay (of {} entities)",
                    visible.p50_ms, visible.p99_ms, visible.max_ms, visible.n
                ),
            ),
            ("requests", self.requests.to_string()),
            ("requests per changed entity", format!("{:.3}", self.requests_per_changed)),
            ("refusals caused", self.refusals.to_string()),
            ("violations (writes)", self.violations.to_string()),
            ("suspensions", self.suspensions.to_string()),
            (
                "slowest acknowledgement",
                format!("Events API {} ms, Event Platform {} ms", self.events_api_ack_max_ms, self.event_platform_ack_max_ms),
            ),
            (
                "coverage",
                format!(
                    "{} rows as the sender counts them, {} others",
                    self.coverage_rows - self.coverage_differences.len().min(self.coverage_rows),
                    self.coverage_differences.len()
                ),
            ),
            ("settled after the last delivery", format!("{:.1} s", self.settled_s)),
            ("daemon's VmHWM", format!("{:.1} MiB", self.vm_hwm_kib as f64 / 1024.0)),
        ];
        for (name, value) in rows {
            writeln!(out, "  {name:<32} {value}")?;
        }
        for failure in self.failures.iter().chain(&self.coverage_differences) {
            writeln!(out, "  FAILED: {failure}")?;
        }
        show_differences(out, &self.differences)
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
