//! Whatever an upstream hands out, requests and credentials go to the configured origin only.
//!
//! The fake upstream here answers with hostile addresses wherever an answer can hold one: next links, redirects, headers,
//! registrations. Each would, if it were followed, reach one of two listeners on the loopback range; they count connections.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::universe::{READ_TOKEN, about_task};
use crate::support::{Database, Setup, Universe, eventually, on_both};

on_both!(no_address_of_an_upstream_is_followed_elsewhere);

/// Every redirect that clients follow.
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

/// Addresses that lead to `evil` or `other`, if a reader of URLs errs; `own` is the configured origin, `page` the cursor within them.
fn hostile(own: &str, evil: &str, other: &str, page: usize) -> Vec<String> {
    let (host, port) = evil.split_once(':').expect("an address with a port");
    assert_eq!(host, "127.0.0.2", "the forms below name this host");
    let q = format!("?page[after]={page}");
    vec![
        format!("http://{evil}/{q}"),
        format!("http://{other}/{q}"),
        format!("https://{evil}/{q}"),
        format!("https://{own}/{q}"),
        format!("//{evil}/{q}"),
        format!("///{evil}/{q}"),
        format!("/\\{evil}/{q}"),
        format!("\\\\{evil}\\{q}"),
        format!("http:\\\\{evil}\\{q}"),
        format!("http:/{evil}/{q}"),
        format!("http:{evil}/{q}"),
        format!("http:////{evil}/{q}"),
        format!("HTTP://{evil}/{q}"),
        format!(" http://{evil}/{q}"),
        format!("ht\ttp://{evil}/{q}"),
        format!("http://{evil}\r\n/{q}"),
        format!("http://{own}@{evil}/{q}"),
        format!("http://{own}:pw@{evil}/{q}"),
        format!("http://someone:secret@{own}/{q}"),
        format!("http://@{evil}/{q}"),
        format!("http://{own}%40{evil}/{q}"),
        format!("http://{own}\\@{evil}/{q}"),
        format!("http://{evil}\\@{own}/{q}"),
        format!("http://{evil}/{q}#@{own}/"),
        format!("http://{evil}/{q}&x=@{own}/"),
        format!("http://{evil}/{own}/{q}"),
        format!("http://2130706434:{port}/{q}"),
        format!("http://0x7f000002:{port}/{q}"),
        format!("http://017700000002:{port}/{q}"),
        format!("http://0177.0.0.2:{port}/{q}"),
        format!("http://0x7f.0.0.2:{port}/{q}"),
        format!("http://127.2:{port}/{q}"),
        format!("http://127.0.2:{port}/{q}"),
        format!("http://127.0.0.2.:{port}/{q}"),
        format!("http://[::ffff:127.0.0.2]:{port}/{q}"),
        format!("http://[::ffff:7f00:2]:{port}/{q}"),
        format!("http://[0:0:0:0:0:ffff:127.0.0.2]:{port}/{q}"),
        format!("http://[::ffff:127.0.0.2%25lo]:{port}/{q}"),
        format!("http://\u{ff11}\u{ff12}\u{ff17}.0.0.2:{port}/{q}"),
        format!("http://127\u{3002}0\u{3002}0\u{3002}2:{port}/{q}"),
        format!("http://%31%32%37.0.0.2:{port}/{q}"),
        format!("http://127.0.0.\u{2460}:{port}/{q}"),
        format!("http://127.0.0.2\u{ad}:{port}/{q}"),
        format!("http://127.0.0.2%00:{port}/{q}"),
        format!("http://127.0.0.2:{port} {own}/{q}"),
        format!("http://127.0.0.2:{port}:80/{q}"),
        format!("http://127.0.0.2:0{port}/{q}"),
        format!("ws://{evil}/{q}"),
        format!("ftp://{evil}/{q}"),
        format!("gopher://{evil}/_GET%20/{q}"),
        format!("file://{evil}/etc/passwd{q}"),
        format!("data:text/plain,{evil}{q}"),
        format!("javascript:fetch('http://{evil}/'){q}"),
        format!("unix:/run/x.sock:http://{evil}/{q}"),
        format!("/api/v2/tasks{q} HTTP/1.1\r\nHost: {evil}\r\n\r\nGET /"),
        format!("/api/v2/tasks{q}%0d%0aHost:%20{evil}"),
        format!("/api/v2/tasks{q}\u{0}@{evil}"),
        format!("../../../../{q}"),
        format!("/api/v2/tasks/..;/..;/{q}"),
        format!("/api/v2/%2e%2e/%2e%2e/{q}"),
        format!("?page[after]={page}&url=http://{evil}/"),
        format!("?page[after]={page}%20HTTP/1.1%0d%0aX-Auth-Token:%20x"),
    ]
}

/// A fake upstream at its origin, and what it was asked.
struct Hostile {
    own: String,
    elsewhere: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
    pages: usize,
    _tasks: JoinSet<()>,
}

struct Teller {
    own: String,
    evil: String,
    other: String,
    pages: usize,
    asked: Mutex<HashMap<String, usize>>,
}

impl Teller {
    /// The answer to a request: its first telling is hostile, later ones let the daemon go on.
    fn answer(&self, head: &str) -> Vec<u8> {
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let write = !head.starts_with("GET");
        let times = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let times = asked.entry(target.clone()).or_default();
            *times += 1;
            *times
        };
        let page = self.page(&target);
        let addresses = hostile(&self.own, &self.evil, &self.other, page + 1);
        let address = &addresses[page % addresses.len()];
        let single_line: String = address.chars().filter(|c| !c.is_control()).collect();
        let is_redirect = write || times == 1 && page % 12 == 7;
        let status = if is_redirect { REDIRECTS[page / 12 % REDIRECTS.len()] } else { 200 };
        let next = match () {
            () if page + 1 >= self.pages || target.contains("filter%5Bid%5D") => json!(null),
            () if times == 1 + usize::from(page % 12 == 7) => json!(address),
            () => json!(format!("/api/v2/tasks?page[after]={}", page + 1)),
        };
        let kind = if target.contains("/webhooks") { "webhooks" } else { "tasks" };
        let row = json!({ "id": (page + 1).to_string(), "type": kind, "links": { "self": address },
            "attributes": { "title": address, "updated_at": "2026-01-01T00:00:00.000Z", "target_url": address, "state_id": 1 },
            "relationships": { "project": { "data": null, "links": { "related": address } } } });
        let body = json!({ "data": [row], "links": { "next": next, "self": address, "first": address } }).to_string();
        let head = format!(
            "HTTP/1.1 {status} Said\r\nlocation: {single_line}\r\nrefresh: 0; url={single_line}\r\ncontent-location: {single_line}\r\n\
             link: <{single_line}>; rel=\"next\"\r\nalt-svc: http/1.1=\"{}\"\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            self.evil,
            body.len()
        );
        (head + &body).into_bytes()
    }

    fn page(&self, target: &str) -> usize {
        let cursor = target.split("page%5Bafter%5D=").nth(1).unwrap_or_default();
        let digits: String = cursor.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(0).min(self.pages - 1)
    }
}

impl Hostile {
    async fn start() -> Self {
        let bind = async |host: &str| TcpListener::bind((host, 0)).await.expect("a loopback address");
        let (listener, evil, other) = (bind("127.0.0.1").await, bind("127.0.0.2").await, bind("127.0.0.1").await);
        let address = |listener: &TcpListener| listener.local_addr().expect("bound").to_string();
        let own = address(&listener);
        let pages = hostile(&own, "127.0.0.2:1", "", 0).len();
        let teller = Teller { own: own.clone(), evil: address(&evil), other: address(&other), pages, asked: Mutex::default() };
        let (heads, elsewhere, teller) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)), Arc::new(teller));
        let mut tasks = JoinSet::new();
        for forbidden in [evil, other] {
            let elsewhere = Arc::clone(&elsewhere);
            tasks.spawn(async move {
                while forbidden.accept().await.is_ok() {
                    elsewhere.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let noted = Arc::clone(&heads);
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.spawn(serve(stream, Arc::clone(&teller), Arc::clone(&noted)));
            }
        });
        Self { own, elsewhere, heads, pages, _tasks: tasks }
    }
}

async fn serve(mut stream: TcpStream, teller: Arc<Teller>, heads: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let answer = teller.answer(&head);
    heads.lock().unwrap_or_else(PoisonError::into_inner).push(head);
    // A client that has gone needs no answer.
    let _ = stream.write_all(&answer).await;
    let _ = stream.shutdown().await;
}

async fn no_address_of_an_upstream_is_followed_elsewhere(database: Database) {
    let upstream = Hostile::start().await;
    let mut universe = Universe::new(database, &Setup { entities: 100, source: "feeds = true\npasses = true\n", ..Setup::default() });
    let text = std::fs::read_to_string(universe.config()).expect("it was written");
    let text = text.replace(&universe.sandbox.url, &format!("http://{}/api/v2/", upstream.own));
    std::fs::write(universe.config(), text).expect("our own folder");
    universe.run().await;
    let pages = upstream.pages as i64;
    eventually("every page was read", Duration::from_secs(60), async || {
        let rows = universe.database.try_number("select count(*) as n from pmp_tasks").await?;
        if rows == pages { Ok(()) } else { Err(format!("{rows} of {pages} rows")) }
    })
    .await;
    let asked = || upstream.heads.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut number = 0;
    eventually("a hint was followed", Duration::from_secs(30), async || {
        // A pass that lists the record meanwhile answers the hint as well.
        number += 1;
        universe.deliver("task-updated", &about_task("1", &format!("hint {number}"))).await?;
        if asked().iter().any(|head| head.contains("filter%5Bid%5D")) { Ok(()) } else { Err("no bulk read".to_owned()) }
    })
    .await;
    // Registering is refused by a redirect that keeps method and body.
    let registered = universe.verb(&["hooks", "create", "pmp"]);
    let heads = asked();
    assert!(heads.iter().any(|head| head.starts_with("POST /api/v2/webhooks ")), "{registered:?}");
    for head in &heads {
        let (line, rest) = head.split_once("\r\n").expect("a request line");
        assert!(line.split(' ').nth(1).is_some_and(|target| target.starts_with("/api/v2/")), "{line}");
        assert!(rest.contains(&format!("host: {}\r\n", upstream.own)), "{head}");
        assert_eq!(rest.matches(&format!("x-auth-token: {READ_TOKEN}\r\n")).count(), 1, "{head}");
    }
    let elsewhere = upstream.elsewhere.load(Ordering::Relaxed);
    println!(
        "origin {:?}: {pages} hostile addresses in next links, headers and redirects; {} requests, {elsewhere} connections elsewhere",
        universe.database.engine,
        heads.len()
    );
    assert_eq!(elsewhere, 0);
    assert!(pages >= 60);
}
