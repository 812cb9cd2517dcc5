//! What strangers can do to the public socket: nothing that an upstream would suspend a subscription for, and nothing that costs
//! memory or a connection for long.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::universe::{TOKEN, about_task, signature};
use crate::support::{Database, Setup, Universe, monotonic, on_both};

on_both!(below_hooks_there_is_no_404_405_or_redirect, a_stranger_sends_400_mb_for_nothing, slow_connections_are_closed);

/// What remains of a deadline for the machine to be late.
const LATE: Duration = Duration::from_secs(3);

fn setup(tables: &'static str) -> Setup {
    Setup { entities: 100, tables, ..Setup::default() }
}

/// Sends bytes as they are and reads until the end; status and everything but the date.
async fn raw(port: u16, request: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
    // What is refused early is not read to its end; the answer is there all the same.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.expect("an end");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no status in {answer:?}"));
    let lines: Vec<&str> = answer.lines().filter(|line| !line.to_ascii_lowercase().starts_with("date:")).collect();
    (status, lines.join("\n"))
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nhost: hooks.example\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}")
        .into_bytes()
}

async fn below_hooks_there_is_no_404_405_or_redirect(database: Database) {
    let mut universe = Universe::new(database, &setup(""));
    universe.run().await;
    let port = universe.hooks_port;
    let long = format!("/hooks/pmp/{}", "x".repeat(4_000));
    let paths = [
        "/hooks/",
        "/hooks",
        "/hooks//",
        "/hooks/pmp",
        "/hooks/pmp/",
        "/hooks/pmp//",
        "/hooks/pmp/task-updated",
        "/hooks/pmp/task-updated/",
        "/hooks/pmp/task-updated?x=1",
        "/hooks/pmp/no-such-route",
        "/hooks/other/task-updated",
        "/hooks/PMP/task-updated",
        "/hooks/pmp/../pmp",
        "/hooks/./pmp/task-updated",
        "/hooks/%70mp/task-updated",
        "/hooks/pmp/%00",
        "/hooks/pmp/%",
        "/hooks/pmp/a%2fb",
        "/hooks/pmp;x=1/task-updated",
        long.as_str(),
    ];
    let methods = ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "BREW", "POST"];
    let mut requests: Vec<(String, Vec<u8>)> = Vec::new();
    requests.extend(paths.iter().map(|path| (format!("POST {path}"), request("POST", path, "", "{}"))));
    requests.extend(methods.iter().map(|method| (format!("{method} task-updated"), request(method, "/hooks/pmp/task-updated", "", ""))));
    let wrong = format!("productive-signature: {}\r\n", signature("not the token", "{}"));
    requests.push(("wrong signature".to_owned(), request("POST", "/hooks/pmp/task-updated", &wrong, "{}")));
    requests.push(("absolute form".to_owned(), request("POST", "http://hooks.example/hooks/pmp/task-updated", "", "{}")));
    for (name, bytes) in &requests {
        let (status, answer) = raw(port, bytes).await;
        assert!(!matches!(status, 404 | 405 | 300..=399), "{name}: {status}");
        assert!(!(200..300).contains(&status), "{name}: {status} for a stranger");
        if !name.starts_with("HEAD") && status == 401 {
            let (_, known) = raw(port, &requests[6].1).await;
            assert_eq!(answer, known, "{name}: strangers learn nothing from the answer");
        }
    }
    println!("edge {:?}: {} variants, none of them 404, 405 or 3xx", universe.database.engine, requests.len());
    assert!(requests.len() >= 30);
    let body = about_task("1", "the right one");
    universe.deliver_surely("task-updated", &body).await;
}

async fn a_stranger_sends_400_mb_for_nothing(database: Database) {
    const CHUNK: usize = 1 << 20;
    let mut universe = Universe::started(database, &setup("")).await;
    let port = universe.hooks_port;
    // The first request of each kind may load what every later one shares.
    raw(port, &request("POST", "/hooks/pmp/task-updated", "", "{}")).await;
    let daemon = universe.daemon();
    daemon.forget_peak();
    let before = daemon.memory_kib("VmHWM");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
    let head = "POST /hooks/pmp/task-updated HTTP/1.1\r\nhost: hooks.example\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    let chunk = [format!("{CHUNK:x}\r\n").as_bytes(), &vec![b'x'; CHUNK], b"\r\n"].concat();
    let mut sent = 0;
    for _ in 0..400 {
        if stream.write_all(&chunk).await.is_err() {
            break;
        }
        sent += 1;
    }
    drop(stream);
    let added = universe.daemon().memory_kib("VmHWM").saturating_sub(before);
    println!("edge {:?}: {sent} MiB of 400 went out before the connection was closed; {added} KiB more memory", universe.database.engine);
    assert!(added <= 2 * 1024, "{added} KiB");
    // With a signature of the right form the body is read up to its limit, and no further.
    let forged = format!("productive-signature: {}\r\n", signature(TOKEN, "another body"));
    let (status, _) = raw(port, &request("POST", "/hooks/pmp/task-updated", &forged, &"x".repeat(3 << 20))).await;
    assert_eq!(status, 413);
}

async fn slow_connections_are_closed(database: Database) {
    let tables = "[limits]\nheader_timeout = \"1s\"\nbody_timeout = \"2s\"\n";
    let mut universe = Universe::new(database, &setup(tables));
    universe.run().await;
    let body_head = format!(
        "POST /hooks/pmp/task-updated HTTP/1.1\r\nhost: hooks.example\r\nproductive-signature: {}\r\ncontent-length: 100\r\n\r\nhalf",
        signature(TOKEN, "")
    );
    let kinds = [
        ("silent", String::new(), Duration::from_secs(1)),
        ("half a header", "POST /hooks/pmp/task-upd".to_owned(), Duration::from_secs(1)),
        ("half a body", body_head, Duration::from_secs(2)),
    ];
    for (name, bytes, limit) in kinds {
        let mut stream = TcpStream::connect(("127.0.0.1", universe.hooks_port)).await.expect("connected");
        let begin = monotonic();
        stream.write_all(bytes.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        let end = tokio::time::timeout(limit + LATE, stream.read_to_end(&mut answer)).await;
        let took = monotonic() - begin;
        assert!(end.is_ok(), "{name}: still open after {took:?}");
        assert!(took + Duration::from_millis(100) >= limit, "{name}: closed after {took:?}, before its limit");
        let first = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
        println!("edge {:?}: {name} closed after {took:.1?} (limit {limit:?}): {first:?}", universe.database.engine);
    }
}
