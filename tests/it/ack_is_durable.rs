//! The 200 is written after the disk has the delivery, as the kernel sees it: `fdatasync` or `fsync`, as SQLite
//! was built.

use std::time::Duration;

use crate::support::universe::about_task;
use crate::support::{Database, Engine, Setup, Strace, Universe, eventually, run, skipped};

const TRACED: &str = "fdatasync,fsync,write,sendto,writev,pwrite64,read,recvfrom,readv";

#[test]
fn the_sync_returns_before_the_200_is_written() {
    if !Strace::is_here() {
        skipped("ack_is_durable: there is no strace");
        return;
    }
    run(Engine::Sqlite, trace_one_delivery);
}

async fn trace_one_delivery(database: Database) {
    let mut universe = Universe::started(database, &Setup { entities: 100, ..Setup::default() }).await;
    let key = universe.sandbox.keys("tasks").await.remove(0);
    let (trace, log) = (universe.folder("trace"), universe.folder("strace.log"));
    let trace_at = trace.to_str().expect("a path of text");
    let arguments = ["-y", "-s", "64", "-e", &format!("trace={TRACED}"), "-o", trace_at];
    let strace = Strace::attach(universe.daemon().pid(), &arguments, &log).await;
    let body = about_task(&key, "traced");
    universe.deliver_surely("task-updated", &body).await;
    let lines = eventually("the answer is in the trace", Duration::from_secs(10), async || {
        let text = std::fs::read_to_string(&trace).map_err(|error| error.to_string())?;
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if lines.iter().any(|line| line.contains("HTTP/1.1 200")) { Ok(lines) } else { Err(format!("{} lines", lines.len())) }
    })
    .await;
    strace.detach().await;
    judge(&lines);
}

/// The order of the lines is the order in which the kernel told of entries and returns.
fn judge(lines: &[String]) {
    let find = |from: usize, what: &str, is_it: &dyn Fn(&str) -> bool| {
        let found = lines.iter().skip(from).position(|line| is_it(line)).map(|at| from + at);
        found.unwrap_or_else(|| panic!("no {what} after line {from} of\n{}", lines.join("\n")))
    };
    let arrived = find(0, "request", &|line| line.contains("POST /hooks/pmp/task-updated"));
    let written = find(arrived, "write to the log", &|line| line.contains("pwrite64(") && line.contains("replica.db-wal"));
    let asked = find(written, "sync", &|line| line.contains("sync(") && line.contains("replica.db-wal"));
    let thread = lines[asked].split_whitespace().next().unwrap_or_default();
    let returned = match lines[asked].contains("<unfinished") {
        false => asked,
        true => find(asked, "return of the sync", &|line| line.starts_with(thread) && line.contains("sync resumed")),
    };
    assert!(lines[returned].contains("= 0"), "the disk refused: {}", lines[returned]);
    let answered = find(arrived, "answer", &|line| line.contains("HTTP/1.1 200"));
    println!("ack_is_durable: request {arrived}, log written {written}, sync returned {returned}, 200 written {answered}");
    assert!(returned < answered, "the 200 was written at line {answered}, before the sync returned at {returned}:\n{}", lines.join("\n"));
}

/// A judge that lets everything pass would prove nothing.
#[test]
#[should_panic(expected = "before the sync returned")]
fn a_200_before_the_sync_is_seen() {
    let lines = [
        "7 recvfrom(20<socket:[1]>, \"POST /hooks/pmp/task-updated HTTP\"..., 8192) = 300",
        "8 pwrite64(14</tmp/replica.db-wal>, \"\"..., 4096, 0) = 4096",
        "8 fdatasync(14</tmp/replica.db-wal> <unfinished ...>",
        "7 writev(20<socket:[1]>, \"HTTP/1.1 200 OK\"...) = 90",
        "8 <... fdatasync resumed>) = 0",
    ];
    judge(&lines.map(str::to_owned));
}
