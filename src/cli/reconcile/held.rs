//! `instep reconcile held` and `reject`: removals that wait for a person.

use std::io::{self, Write};

use serde_json::Value;

use crate::cli::{field, rows};

/// What the daemon answers to either.
pub(super) fn show(out: &mut impl Write, answer: &Value) -> io::Result<()> {
    let number = |row: &Value, name: &str| row.get(name).and_then(Value::as_u64);
    let (source, resource) = (field(answer, "source"), field(answer, "resource"));
    if let Some(n) = number(answer, "rejected") {
        return writeln!(out, "{source} {resource}: {n} record(s) are kept; a later sweep that does not meet them suspects them again");
    }
    for row in rows(answer, "held") {
        let resource = field(row, "resource");
        writeln!(out, "{source} {resource}: {} held: {}", number(row, "keys").unwrap_or(0), field(row, "why"))?;
        let sample: Vec<&str> = rows(row, "sample").iter().filter_map(Value::as_str).collect();
        writeln!(out, "  missing since {}, looked at again {}", field(row, "missing_since"), field(row, "looked_at_again"))?;
        let of = |name: &str| number(row, name).unwrap_or(0);
        let (live, removed, left) = (of("live_rows"), of("removed_in_24h"), of("budget_left"));
        writeln!(out, "  {live} live rows, {removed} removed within 24 h, budget left {left}; such as {}", sample.join(", "))?;
        if row.get("by_budget") == Some(&Value::Bool(true)) {
            writeln!(out, "  decide: instep reconcile approve {source} {resource}, or instep reconcile reject {source} {resource}")?;
        }
    }
    if rows(answer, "held").is_empty() { writeln!(out, "{source}: nothing is held") } else { Ok(()) }
}
