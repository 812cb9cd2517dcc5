//! What was found, for people and for scripts, and how far it is.

use std::io::{self, IsTerminal as _, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::doubts::Finding;
use crate::clock::Clock;

/// Differences that are kept for the JSON answer; further ones are counted.
const LISTED_MAX: usize = 10_000;

/// What was found of one resource.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) source: String,
    pub(super) resource: String,
    pub(super) compared: u64,
    pub(super) differences: Vec<Finding>,
    pub(super) n_differences: u64,
    pub(super) n_repaired: u64,
    pub(super) unrepaired: Keys,
    pub(super) unsettled: Keys,
    pub(super) unread: Keys,
    pub(super) n_unreadable: u64,
    /// Why it could not be compared to the end.
    pub(super) refused: Option<String>,
}

/// Keys of which the first are kept for the JSON answer.
#[derive(Debug, Default)]
pub(super) struct Keys {
    pub(super) n: u64,
    listed: Vec<String>,
}

impl Keys {
    pub(super) fn add(&mut self, keys: Vec<String>) {
        self.n += keys.len() as u64;
        self.listed.extend(keys);
        self.listed.truncate(LISTED_MAX);
    }
}

impl Outcome {
    /// Takes a difference that counts.
    pub(super) fn found(&mut self, finding: Finding) {
        self.n_differences += 1;
        if self.differences.len() < LISTED_MAX {
            self.differences.push(finding);
        }
    }

    /// Whether nothing differs any more, as far as it was compared.
    pub(super) fn is_right(&self) -> bool {
        self.n_differences <= self.n_repaired && self.refused.is_none()
    }

    fn json(&self) -> Value {
        let one = |found: &Finding| {
            json!({ "key": found.key, "kind": found.kind, "members": found.members, "upstream_version": found.upstream,
                    "replica_version": found.held, "mark_open": found.open })
        };
        json!({
            "source": self.source, "resource": self.resource, "compared": self.compared, "n_differences": self.n_differences,
            "agreement_percent": agreement(self.compared, self.n_differences), "repaired": self.n_repaired,
            "differences": self.differences.iter().map(one).collect::<Vec<_>>(), "unrepaired": self.unrepaired.listed,
            "unsettled": self.unsettled.listed, "unread": self.unread.listed, "unreadable": self.n_unreadable, "refused": self.refused,
        })
    }
}

/// Per cent that agree, cut to two decimals: a difference is never rounded away.
pub(super) fn agreement(compared: u64, differences: u64) -> f64 {
    if compared == 0 {
        return 100.0;
    }
    let basis_points = compared.saturating_sub(differences).saturating_mul(10_000) / compared;
    basis_points as f64 / 100.0
}

/// The whole answer for scripts.
pub(super) fn json(outcomes: &[Outcome]) -> Value {
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    let (compared, differences) = (sum(|one| one.compared), sum(|one| one.n_differences));
    json!({
        "compared": compared, "n_differences": differences, "agreement_percent": agreement(compared, differences),
        "repaired": sum(|one| one.n_repaired), "resources": outcomes.iter().map(Outcome::json).collect::<Vec<_>>(),
    })
}

/// A difference as a line.
pub(super) fn line(out: &mut impl Write, outcome: &Outcome, found: &Finding) -> io::Result<()> {
    let members = if found.members.is_empty() { String::new() } else { format!(": {}", found.members.join(", ")) };
    let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "none".to_owned());
    let versions = match found.kind.as_str() {
        "stale" | "ahead" => format!(" (version {} upstream, {} here)", version(&found.upstream), version(&found.held)),
        _ => String::new(),
    };
    writeln!(out, "{} {} {}: {}{members}{versions}", outcome.source, outcome.resource, found.key, found.kind)
}

/// What became of a resource, as a line.
pub(super) fn summary(out: &mut impl Write, outcome: &Outcome) -> io::Result<()> {
    let Outcome { source, resource, compared, n_differences, .. } = outcome;
    if let Some(reason) = &outcome.refused {
        return writeln!(out, "{source} {resource}: {reason}");
    }
    write!(out, "{source} {resource}: {compared} compared, {:.2} % agree", agreement(*compared, *n_differences))?;
    let notes = [
        (*n_differences, "differ"),
        (outcome.n_repaired, "repaired"),
        (outcome.unrepaired.n, "not repaired: see `instep status`"),
        (outcome.unsettled.n, "changed at every look and are left out"),
        (outcome.unread.n, "could not be read"),
        (outcome.n_unreadable, "not readable, see the quarantine"),
    ];
    for (n, what) in notes.into_iter().filter(|(n, _)| *n > 0) {
        write!(out, ", {n} {what}")?;
    }
    writeln!(out)
}

/// How far it is, on standard error.
pub(super) struct Progress {
    clock: Clock,
    begun: Duration,
    told: Duration,
    is_terminal: bool,
}

impl Progress {
    pub(super) fn new(clock: Clock) -> Self {
        let now = clock.monotonic();
        Self { clock, begun: now, told: now, is_terminal: io::stderr().is_terminal() }
    }

    /// Says so, once a second to a person and every ten to a log.
    pub(super) fn tell(&mut self, what: &str, done: u64, total: u64) {
        let now = self.clock.monotonic();
        let every = if self.is_terminal { 1 } else { 10 };
        if now.saturating_sub(self.told) < Duration::from_secs(every) {
            return;
        }
        self.told = now;
        let left = left(now.saturating_sub(self.begun), done, total);
        let left = left.map_or_else(String::new, |left| format!(", about {} left", humantime::format_duration(left)));
        let (before, after) = if self.is_terminal { ("\r\x1b[K", "") } else { ("", "\n") };
        let mut err = io::stderr().lock();
        // Nobody is left to tell where standard error is closed.
        let _ = write!(err, "{before}{what}: {done} of about {total}{left}{after}").and_then(|()| err.flush());
    }

    /// Begins anew with another thing.
    pub(super) fn restart(&mut self) {
        self.begun = self.clock.monotonic();
    }

    /// Leaves the line to what comes after it.
    pub(super) fn clear(&self) {
        if self.is_terminal {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

fn left(passed: Duration, done: u64, total: u64) -> Option<Duration> {
    let (done, total) = (u32::try_from(done).ok()?, u32::try_from(total).ok()?);
    let to_go = total.checked_sub(done)?;
    Some(Duration::from_secs((passed.checked_div(done)? * to_go).as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_never_rounded_away() {
        assert_eq!(format!("{:.2}", agreement(20_000, 1)), "99.99");
        assert_eq!(format!("{:.2}", agreement(20_000, 0)), "100.00");
        assert_eq!(format!("{:.2}", agreement(3, 1)), "66.66");
    }

    #[test]
    fn the_time_left_is_what_the_rest_takes_at_the_same_pace() {
        assert_eq!(left(Duration::from_secs(10), 50, 200), Some(Duration::from_secs(30)));
        assert_eq!(left(Duration::from_secs(10), 0, 200), None);
        assert_eq!(left(Duration::from_secs(10), 300, 200), None);
    }

    #[test]
    fn a_line_names_what_differs() {
        let outcome = Outcome { source: "pmp".into(), resource: "tasks".into(), compared: 3, ..Outcome::default() };
        let found = Finding {
            key: "7".into(),
            kind: "stale".into(),
            members: vec!["title".into(), "due_date".into()],
            upstream: Some("2026-02-02".into()),
            held: None,
            fingerprint: String::new(),
            open: false,
        };
        let mut out = Vec::new();
        line(&mut out, &outcome, &found).expect("shown");
        let text = String::from_utf8(out).expect("text");
        assert_eq!(text, "pmp tasks 7: stale: title, due_date (version 2026-02-02 upstream, none here)\n");
    }
}
