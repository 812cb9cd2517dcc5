//! `instep reconcile plan`: what passes would cost, before any runs.

use std::io::{self, Write};

use serde_json::Value;

use crate::cli::{field, rows};

/// The answer as a table.
pub(super) fn show(out: &mut impl Write, answer: &Value) -> io::Result<()> {
    let number = |row: &Value, pointer: &str| row.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    writeln!(out, "{}: what passes cost, with nothing else on the quota and answers that take no time", field(answer, "source"))?;
    writeln!(out, "{:<24} {:>10} {:>6}  {:<26}  incremental", "resource", "live rows", "page", "sweep")?;
    for row in rows(answer, "resources") {
        let (rows, page) = (number(row, "/live_rows"), number(row, "/page"));
        let incremental = row.get("incremental").filter(|cost| cost.is_object()).map_or_else(|| "-".to_owned(), cost);
        let sweep = row.get("sweep").map_or_else(|| "-".to_owned(), cost);
        writeln!(out, "{:<24} {rows:>10} {page:>6}  {sweep:<26}  {incremental}", field(row, "resource"))?;
    }
    let all = |name: &str| answer.get(name).map_or_else(|| "-".to_owned(), cost);
    writeln!(out, "{:<24} {:>10} {:>6}  {:<26}  {}", "all", "", "", all("sweeps"), all("incrementals"))?;
    let (feeds, every) = (number(answer, "/feeds/requests"), number(answer, "/feeds/every_s"));
    if feeds == 0 { Ok(()) } else { writeln!(out, "event feeds: {feeds} request(s) every {every} s") }
}

fn cost(cost: &Value) -> String {
    let number = |name: &str| cost.get(name).and_then(Value::as_u64);
    let seconds = cost.get("seconds").and_then(Value::as_f64).unwrap_or(0.0);
    let every = number("every_s").map_or_else(String::new, |every| format!(" / {}", span(every)));
    format!("{} req, {}{every}", number("requests").unwrap_or(0), span(seconds.ceil() as u64))
}

fn span(seconds: u64) -> String {
    humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_plan_says_what_each_kind_of_pass_costs() {
        let cost = |requests: u64, seconds: f64| json!({ "requests": requests, "seconds": seconds, "every_s": 300 });
        let resources = json!([{ "resource": "tasks", "live_rows": 1290, "page": 200, "sweep": cost(7, 0.0), "incremental": cost(1, 0.0) },
                               { "resource": "boards", "live_rows": 3, "page": 200, "sweep": cost(2, 10.0), "incremental": null }]);
        let answer = json!({ "source": "pmp", "resources": resources, "feeds": { "requests": 3, "every_s": 30 } });
        let mut out = Vec::new();
        show(&mut out, &answer).expect("shown");
        let text = String::from_utf8(out).expect("text");
        assert!(text.contains("tasks                          1290    200  7 req, 0s / 5m              1 req, 0s / 5m\n"), "{text}");
        assert!(text.contains("2 req, 10s / 5m             -\n") && text.contains("event feeds: 3 request(s) every 30 s"), "{text}");
    }
}
