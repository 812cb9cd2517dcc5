//! The numbers that every part of a trial has, what they must be, and how they are shown.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};

use serde_json::Value;

use super::arm::number;
use super::compare::{Comparison, Difference};
use super::outcome::{Seen, Visible, show_differences, visible};
use super::upstream::Change;

/// What a part of a trial showed of one source.
#[derive(Debug, serde::Serialize)]
pub(super) struct Figures {
    entities: usize,
    changes: usize,
    changed_entities: usize,
    operations: BTreeMap<String, usize>,
    n_differences: usize,
    pub(super) differences: Vec<Difference>,
    visible: Visible,
    requests: u64,
    requests_per_changed: f64,
    /// Since the start.
    refusals: u64,
    violations: u64,
    pub(super) settled_s: f64,
    pub(super) vm_hwm_kib: u64,
}

/// What was observed.
pub(super) struct Observed<'a> {
    pub(super) comparison: Comparison,
    pub(super) changes: &'a [Change],
    pub(super) rows: &'a [Seen],
    /// The sandbox's reports before and after.
    pub(super) before: &'a Value,
    pub(super) after: &'a Value,
}

impl Figures {
    pub(super) fn new(observed: Observed<'_>) -> Self {
        let Observed { comparison, changes, rows, before, after } = observed;
        let changed: HashSet<(&str, &str)> = changes.iter().map(|change| (change.resource.as_str(), change.key.as_str())).collect();
        let mut operations = BTreeMap::new();
        for change in changes {
            *operations.entry(change.operation.clone()).or_default() += 1;
        }
        let requests = number(after, "/requests_total") - number(before, "/requests_total");
        Self {
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
            settled_s: 0.0,
            vm_hwm_kib: 0,
        }
    }

    /// What did not hold of that which must hold everywhere.
    pub(super) fn failures(&self) -> Vec<String> {
        let must = [
            (self.differences.is_empty(), format!("{} differences instead of 0", self.differences.len())),
            (self.entities > 0 && self.changed_entities > 0, "nothing was compared or nothing changed".to_owned()),
            (self.violations == 0, format!("{} writes reached the upstream", self.violations)),
            (self.refusals == 0, format!("{} requests were refused for a rate limit", self.refusals)),
        ];
        must.into_iter().filter(|(holds, _)| !holds).map(|(_, what)| what).collect()
    }

    /// The table: title and verdict, these numbers, `rows`, what did not hold, and the first differences.
    pub(super) fn show(&self, out: &mut dyn Write, title: &str, rows: &[(&str, String)], failures: &[String]) -> io::Result<()> {
        writeln!(out, "\n{title}: {}", if failures.is_empty() { "holds" } else { "DOES NOT HOLD" })?;
        let visible = &self.visible;
        let ours = [
            ("entities", self.entities.to_string()),
            ("changed entities", format!("{} ({} changes: {})", self.changed_entities, self.changes, list(&self.operations))),
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
        ];
        let last = [
            ("settled after the last delivery", format!("{:.1} s", self.settled_s)),
            ("daemon's VmHWM", format!("{:.1} MiB", self.vm_hwm_kib as f64 / 1024.0)),
        ];
        for (name, value) in ours.iter().chain(rows).chain(&last) {
            writeln!(out, "  {name:<32} {value}")?;
        }
        for failure in failures {
            writeln!(out, "  FAILED: {failure}")?;
        }
        show_differences(out, &self.differences)
    }
}

/// How often each configured fault happened since the start.
pub(super) fn faults(report: &Value) -> BTreeMap<String, u64> {
    let all = report.pointer("/faults").and_then(Value::as_object);
    let is_set = |fault: &Value| fault.get("configured").and_then(Value::as_f64).is_some_and(|share| share > 0.0);
    let set = all.into_iter().flatten().filter(|(_, fault)| is_set(fault));
    set.map(|(name, fault)| (name.clone(), number(fault, "/count"))).collect()
}

/// Counts in words.
pub(super) fn list<N: std::fmt::Display>(counts: &BTreeMap<String, N>) -> String {
    let words: Vec<String> = counts.iter().map(|(name, n)| format!("{name} {n}")).collect();
    if words.is_empty() { "-".to_owned() } else { words.join(", ") }
}
