//! The numbers of an arm, what they must be, and how they are shown.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Write};

use serde_json::Value;

use super::arm::number;
use super::compare::{Comparison, Difference};
use super::figures::{faults, list};
use super::plan::{Arm, Plan};
use super::upstream::Change;
use crate::clock::Timestamp;

/// Latest visibility of 99 % of the changes beyond the delay that the sandbox itself injected.
const VISIBLE_WITHIN_MS: f64 = 2_000.0;
/// Requests for each changed entity.
const REQUESTS_PER_CHANGED: f64 = 0.3;
/// Part of the entities that may change.
const CHANGED_SHARE: f64 = 0.05;
/// Differences that are listed one by one.
const LISTED: usize = 20;

/// A change of the replica.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) resource: String,
    pub(super) key: String,
    pub(super) at: Timestamp,
}

/// The sandbox's reports at three moments.
#[derive(Debug)]
pub(super) struct Reports {
    pub(super) after_backfill: Value,
    pub(super) before_churn: Value,
    pub(super) end: Value,
}

/// From a change upstream to its row, in milliseconds beyond the injected delay.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(super) struct Visible {
    pub(super) n: usize,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
    /// The longest delay that was injected into any of them.
    pub(super) injected_max_ms: f64,
    /// Last changes that left no row: undone before anybody looked, or without any new content.
    pub(super) without_row: usize,
}

/// What an arm showed.
#[derive(Debug, serde::Serialize)]
pub(super) struct Outcome {
    arm: Arm,
    entities: usize,
    changes: usize,
    changed_entities: usize,
    poll_s: u64,
    feed_poll_s: u64,
    linger_s: u64,
    operations: BTreeMap<String, usize>,
    n_differences: usize,
    pub(super) differences: Vec<Difference>,
    visible: Visible,
    requests_total: u64,
    requests_backfill: u64,
    requests_waiting: u64,
    requests_churn: u64,
    requests_per_changed: f64,
    refusals: u64,
    violations: u64,
    deliveries: BTreeMap<String, u64>,
    /// Every injected kind: how often.
    faults: BTreeMap<String, u64>,
    never_happened: Vec<String>,
    pub(super) backfill_s: f64,
    pub(super) settled_s: f64,
    pub(super) vm_hwm_kib: u64,
    pub(super) tampered: Vec<String>,
    pub(super) tampering_found: Option<bool>,
    /// What did not hold.
    pub(super) failures: Vec<String>,
}

impl Outcome {
    pub(super) fn new(plan: &Plan, comparison: Comparison, changes: &[Change], rows: &[Seen], reports: &Reports) -> Self {
        let end = &reports.end;
        let total = |report: &Value| number(report, "/requests_total");
        let mut operations = BTreeMap::new();
        for change in changes {
            *operations.entry(change.operation.clone()).or_default() += 1;
        }
        let changed: HashSet<(&str, &str)> = changes.iter().map(|change| (change.resource.as_str(), change.key.as_str())).collect();
        let requests_churn = total(end) - total(&reports.before_churn);
        let counts = |pointer: &str| -> BTreeMap<String, u64> {
            let rows = end.pointer(pointer).and_then(Value::as_object).cloned().unwrap_or_default();
            rows.into_iter().filter_map(|(name, count)| Some((name, count.as_u64()?))).collect()
        };
        let never = end.pointer("/never_happened").and_then(Value::as_array).cloned().unwrap_or_default();
        Self {
            arm: plan.arm,
            entities: comparison.entities,
            changes: changes.len(),
            changed_entities: changed.len(),
            poll_s: plan.poll.as_secs(),
            feed_poll_s: plan.feed_poll.as_secs(),
            linger_s: plan.linger.as_secs(),
            operations,
            n_differences: comparison.differences.len(),
            differences: comparison.differences,
            visible: visible(changes, rows),
            requests_total: total(end),
            requests_backfill: total(&reports.after_backfill),
            requests_waiting: total(&reports.before_churn) - total(&reports.after_backfill),
            requests_churn,
            requests_per_changed: requests_churn as f64 / changed.len().max(1) as f64,
            refusals: number(end, "/refusals_total"),
            violations: number(end, "/violations_total"),
            deliveries: counts("/deliveries"),
            faults: faults(end),
            never_happened: never.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect(),
            backfill_s: 0.0,
            settled_s: 0.0,
            vm_hwm_kib: 0,
            tampered: Vec::new(),
            tampering_found: None,
            failures: Vec::new(),
        }
    }

    /// Writes down what did not hold.
    pub(super) fn judge(&mut self, plan: &Plan) {
        let mut failures = Vec::new();
        let mut must = |holds: bool, what: String| {
            if !holds {
                failures.push(what);
            }
        };
        must(self.differences.is_empty(), format!("{} differences instead of 0", self.differences.len()));
        must(self.entities > 0 && self.changed_entities > 0, "nothing was compared or nothing changed".to_owned());
        let share = self.changed_entities as f64 / self.entities.max(1) as f64;
        must(share < CHANGED_SHARE, format!("{:.1} % of the entities changed, not below 5 %", share * 100.0));
        must(self.violations == 0, format!("{} writes other than registrations reached the upstream", self.violations));
        must(self.refusals == 0, format!("{} requests were refused for a rate limit", self.refusals));
        must(self.never_happened.is_empty(), format!("configured faults never happened: {}", self.never_happened.join(", ")));
        if plan.arm == Arm::Hooks {
            let p99 = self.visible.p99_ms;
            must(p99 <= VISIBLE_WITHIN_MS, format!("p99 of change to visible is {p99:.0} ms beyond the injected delay, above 2000"));
        }
        if plan.arm.hooks() {
            let ratio = self.requests_per_changed;
            must(ratio < REQUESTS_PER_CHANGED, format!("{ratio:.3} requests for each changed entity, not below 0.3"));
            must(self.deliveries.get("2xx").is_some_and(|n| *n > 0), "no delivery was accepted".to_owned());
        } else {
            let limit = plan.poll.as_secs_f64() * 2.0;
            must(self.settled_s <= limit, format!("settled after {:.1} s, not within two poll intervals ({limit} s)", self.settled_s));
        }
        self.failures = failures;
    }

    /// Whether everything held.
    pub(super) fn holds(&self) -> bool {
        self.failures.is_empty()
    }

    fn intervals(&self) -> String {
        match self.arm {
            Arm::Hooks => format!("hints gather for {} s; no passes and no feeds after the backfill", self.linger_s),
            Arm::Passes => format!("every resource swept and polled every {} s, feeds every {} s", self.poll_s, self.feed_poll_s),
            Arm::Both => {
                let Self { linger_s, poll_s, feed_poll_s, .. } = self;
                format!("hints gather for {linger_s} s, incremental passes every {poll_s} s, feeds every {feed_poll_s} s, sweeps daily")
            }
        }
    }

    /// The table.
    pub(super) fn show(&self, out: &mut impl Write) -> io::Result<()> {
        let verdict = if self.holds() { "holds" } else { "DOES NOT HOLD" };
        writeln!(out, "\n{}: {verdict}", self.arm.title())?;
        let visible = &self.visible;
        let rows = [
            ("entities", self.entities.to_string()),
            ("changed entities", format!("{} ({} changes)", self.changed_entities, self.changes)),
            ("changes by operation", list(&self.operations)),
            ("differences", self.n_differences.to_string()),
            (
                "change to visible",
                format!(
                    "p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms beyond the injected delay",
                    visible.p50_ms, visible.p99_ms, visible.max_ms
                ),
            ),
            (
                "  measured on",
                format!(
                    "the last change of {} entities; {} left no row; injected delay up to {:.0} ms",
                    visible.n, visible.without_row, visible.injected_max_ms
                ),
            ),
            (
                "requests",
                format!(
                    "{} (backfill {}, registering {}, since the churn began {})",
                    self.requests_total, self.requests_backfill, self.requests_waiting, self.requests_churn
                ),
            ),
            ("requests per changed entity", format!("{:.3} (since the churn began / changed entities)", self.requests_per_changed)),
            ("refusals caused", self.refusals.to_string()),
            ("violations (writes)", self.violations.to_string()),
            ("deliveries", list(&self.deliveries)),
            ("injected faults", list(&self.faults)),
            ("intervals", self.intervals()),
            ("backfill", format!("{:.1} s", self.backfill_s)),
            ("settled after the last delivery", format!("{:.1} s", self.settled_s)),
            ("daemon's VmHWM", format!("{:.1} MiB", self.vm_hwm_kib as f64 / 1024.0)),
        ];
        for (name, value) in rows {
            writeln!(out, "  {name:<32} {value}")?;
        }
        for failure in &self.failures {
            writeln!(out, "  FAILED: {failure}")?;
        }
        show_differences(out, &self.differences)?;
        match self.tampering_found {
            Some(true) => writeln!(out, "  TAMPERED WITH after the end, and named by the comparison: {}", self.tampered.join(", ")),
            Some(false) => {
                writeln!(out, "  FAILED: the comparison named other records than those tampered with: {}", self.tampered.join(", "))
            }
            None => Ok(()),
        }
    }
}

/// The first differences, one by one.
pub(super) fn show_differences(out: &mut (impl Write + ?Sized), differences: &[Difference]) -> io::Result<()> {
    for Difference { resource, key, field, upstream, replica } in differences.iter().take(LISTED) {
        writeln!(out, "  difference: {resource} {key} {field}: upstream {upstream}, replica {replica}")?;
    }
    Ok(())
}

/// Measures the last change of every entity, which alone has a state of its own to wait for: those before may be passed over.
pub(super) fn visible(changes: &[Change], rows: &[Seen]) -> Visible {
    let last: HashMap<(&str, &str), &Change> =
        changes.iter().map(|change| ((change.resource.as_str(), change.key.as_str()), change)).collect();
    let shown: HashMap<(&str, &str), i64> = rows.iter().map(|row| ((row.resource.as_str(), row.key.as_str()), row.at.0)).collect();
    let ms = |us: i64| us as f64 / 1000.0;
    let mut visible = Visible::default();
    let mut spans = Vec::new();
    for (entity, change) in last {
        match shown.get(&entity).filter(|at| **at >= change.at_us) {
            Some(at) => {
                visible.injected_max_ms = visible.injected_max_ms.max(ms(change.settled_at_us - change.at_us));
                spans.push(ms((at - change.settled_at_us).max(0)));
            }
            None => visible.without_row += 1,
        }
    }
    spans.sort_unstable_by(f64::total_cmp);
    let rank = |share: f64| spans.get(((spans.len() as f64 * share).ceil() as usize).saturating_sub(1)).copied().unwrap_or(0.0);
    Visible { n: spans.len(), p50_ms: rank(0.5), p99_ms: rank(0.99), max_ms: rank(1.0), ..visible }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_change_is_measured_beyond_the_injected_delay() {
        let change = |key: &str, at_us: i64, settled_at_us: i64| Change {
            resource: "tasks".to_owned(),
            key: key.to_owned(),
            operation: "update".to_owned(),
            at_us,
            settled_at_us,
        };
        let seen = |key: &str, at: i64| Seen { resource: "tasks".to_owned(), key: key.to_owned(), at: Timestamp(at) };
        let changes = [change("1", 0, 0), change("1", 1_000_000, 1_300_000), change("2", 5_000_000, 5_000_000), change("3", 0, 500_000)];
        let rows = [seen("1", 900_000), seen("1", 2_000_000), seen("2", 4_000_000), seen("3", 400_000)];
        let measured = visible(&changes, &rows);
        assert_eq!((measured.n, measured.without_row), (2, 1));
        assert_eq!((measured.p50_ms, measured.max_ms, measured.injected_max_ms), (0.0, 700.0, 500.0));
    }
}
