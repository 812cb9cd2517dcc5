use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::*;
use crate::clock::Timestamp;
use crate::http::testing::{Answer, Served, eventually, serve, to_end, until};
use crate::http::{BoxFuture, edge};

const SHORT: Duration = Duration::from_millis(200);
const BODY_MAX: u64 = 300_000;
const SIGNED: (&str, &str) = ("x-signature", "good");

/// A source whose signature is the word `good`; its journal can be stuck, refuse or panic.
#[derive(Default)]
struct Fake {
    overload: Mutex<Option<Overload>>,
    manner: Mutex<Manner>,
    /// What somebody known is refused with.
    known: Mutex<Option<Refusal>>,
    unavailable: AtomicBool,
    panics: AtomicBool,
    stuck: AtomicBool,
    released: Notify,
    journalling: AtomicBool,
    stored: Mutex<Vec<VerifiedDelivery>>,
    ended: Mutex<Vec<(u16, &'static str)>>,
    strangers: Mutex<u32>,
}

impl Fake {
    fn ended(&self) -> Vec<(u16, &'static str)> {
        self.ended.lock().expect("no panic under the lock").clone()
    }

    fn stored(&self) -> Vec<VerifiedDelivery> {
        self.stored.lock().expect("no panic under the lock").clone()
    }
}

struct FakeDoor(Arc<Fake>);

impl Door for FakeDoor {
    fn source(&self, name: &str) -> Option<Arc<dyn SourceDoor>> {
        (name == "pmp").then(|| Arc::clone(&self.0) as Arc<dyn SourceDoor>)
    }

    fn unknown(&self) {
        *self.0.strangers.lock().expect("no panic under the lock") += 1;
    }
}

impl SourceDoor for Fake {
    fn body_max(&self, _route: &str) -> u64 {
        BODY_MAX
    }

    fn precheck(&self, head: &RequestHead) -> bool {
        head.header("x-signature").is_some()
    }

    fn admit(&self, _route: &str) -> Result<(), Overload> {
        self.overload.lock().expect("no panic under the lock").map_or(Ok(()), Err)
    }

    fn manner(&self, _route: &str) -> Manner {
        *self.manner.lock().expect("no panic under the lock")
    }

    fn verify(&self, head: RequestHead, body: Bytes, now: Timestamp) -> BoxFuture<'_, Verdict> {
        Box::pin(async move {
            if head.header("x-signature") != Some("good") {
                return Verdict::Refused(Refusal::Signature("mac"));
            }
            if let Some(refusal) = self.known.lock().expect("no panic under the lock").clone() {
                return Verdict::Refused(refusal);
            }
            Verdict::Accepted(VerifiedDelivery { head, body, received_at: now, dedupe: String::new() })
        })
    }

    fn journal(&self, delivery: VerifiedDelivery) -> BoxFuture<'_, Result<(), Unavailable>> {
        Box::pin(async move {
            self.journalling.store(true, Ordering::SeqCst);
            if self.stuck.load(Ordering::SeqCst) {
                self.released.notified().await;
            }
            assert!(!self.panics.load(Ordering::SeqCst), "a bug, for the test");
            if self.unavailable.load(Ordering::SeqCst) {
                return Err(Unavailable { retry_after: Duration::from_millis(1500) });
            }
            self.stored.lock().expect("no panic under the lock").push(delivery);
            Ok(())
        })
    }

    fn answered(&self, _route: &str, status: u16, took: Duration) {
        assert!(took < Duration::from_secs(60), "{took:?}");
        self.ended.lock().expect("no panic under the lock").push((status, "answered"));
    }

    fn refused(&self, _route: &str, status: u16, refusal: &Refusal) {
        self.ended.lock().expect("no panic under the lock").push((status, refusal.name()));
    }
}

async fn start() -> (Arc<Fake>, Hooks, Served) {
    // Nobody is late here, however busy the machine is.
    start_with(SHORT * 50).await
}

async fn start_with(deadline: Duration) -> (Arc<Fake>, Hooks, Served) {
    let fake = Arc::new(Fake::default());
    let options = Options { body_deadline: deadline, accept_deadline: deadline, ..Options::default() };
    let hooks = Hooks::new(Arc::new(FakeDoor(Arc::clone(&fake))), options, Clock::system());
    let served = serve(hooks.routes(), edge::Options { linger: SHORT, ..edge::Options::default() }).await;
    (fake, hooks, served)
}

#[tokio::test]
async fn a_signed_delivery_is_stored_as_it_came_and_then_acknowledged() {
    let (fake, _hooks, served) = start().await;
    let answer = served.ask("POST", "/hooks/pmp/task/%C3%BCpdated?event=24&x=%20", &[SIGNED, ("x-More", "Yes")], "{\"id\": 1}").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
    let stored = fake.stored();
    assert_eq!(stored.len(), 1);
    let head = &stored[0].head;
    assert_eq!((head.route.as_str(), head.query.as_str()), ("task/%C3%BCpdated", "event=24&x=%20"));
    assert_eq!(head.header("x-more"), Some("Yes"));
    assert_eq!(stored[0].body, "{\"id\": 1}");
    assert_eq!(fake.ended(), [(200, "answered")]);
}

#[tokio::test]
async fn a_kept_alive_connection_delivers_again_until_one_comes_in_chunks() {
    let (fake, _hooks, served) = start().await;
    let mut stream = served.connect().await;
    let head = "POST /hooks/pmp/x HTTP/1.1\r\nHost: a\r\nX-Signature: good\r\n";
    for body in [
        "Content-Length: 5\r\n\r\nabcde",
        "Content-Length: 5\r\n\r\nabcde",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    ] {
        stream.write_all(format!("{head}{body}").as_bytes()).await.expect("sent");
        assert!(until(&mut stream, "ok\n").await.starts_with("HTTP/1.1 200"));
    }
    // What follows chunks is not read: whoever stands between may have read them otherwise.
    assert_eq!(stream.read(&mut [0; 16]).await.expect("closed in order"), 0);
    assert!(fake.stored().iter().all(|delivery| delivery.body == "abcde"));
    assert_eq!(fake.stored().len(), 3);
}

#[tokio::test]
async fn strangers_get_one_and_the_same_401_whatever_they_try() {
    let (fake, _hooks, served) = start().await;
    let targets = [
        "/hooks/pmp",
        "/hooks/pmp/",
        "/hooks/pmp/task",
        "/hooks/pmp/a/b/c?d=e",
        "/hooks/PMP/task",
        "/hooks/%70mp/task",
        "/hooks/nobody",
        "/hooks/nobody/task",
        "/hooks/",
        "/hooks",
        "/hooks//",
        "/hooks//pmp",
        "/hooks/../pmp",
        "/hooks/pmp/../../x",
        "/hooks/.",
        "/hooks/pmp%2Ftask",
        "/hooks/nobody?x=%00",
    ];
    let long_route = format!("/hooks/pmp/{}", "r".repeat(300));
    let long_query = format!("/hooks/pmp/r?{}", "q".repeat(3000));
    let long_source = format!("/hooks/{}/r", "s".repeat(65));
    let methods = ["POST", "GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"];
    let mut first: Option<Answer> = None;
    let mut tried = 0;
    for method in methods {
        for target in targets.into_iter().chain([long_route.as_str(), &long_query, &long_source]) {
            for headers in [&[][..], &[("x-signature", "bad")], &[("content-encoding", "gzip")]] {
                let answer = served.ask(method, target, headers, "{}").await;
                let expected = first.get_or_insert_with(|| answer.clone());
                assert_eq!(answer, *expected, "{method} {target} {headers:?}");
                tried += 1;
            }
        }
        let head = served.ask("HEAD", "/hooks/pmp/task", &[], "").await;
        assert_eq!((head.status, head.body.as_str()), (401, ""));
    }
    assert!(tried > 30);
    let first = first.expect("some were tried");
    let challenges: Vec<&str> = first.headers.iter().filter_map(|line| line.strip_prefix("www-authenticate: ")).collect();
    assert_eq!((first.status, challenges), (401, vec![r#"Bearer realm="instep""#, "Signature"]));
    assert!(fake.stored().is_empty());
    assert!(fake.ended().iter().all(|(status, reason)| *status == 401 && ["method", "unsigned", "mac"].contains(reason)));
    assert!(*fake.strangers.lock().expect("no panic under the lock") > 0);
}

#[tokio::test]
async fn an_encoded_body_is_refused_and_identity_is_none() {
    let (fake, _hooks, served) = start().await;
    assert_eq!(served.ask("POST", "/hooks/pmp/x", &[SIGNED, ("content-encoding", "gzip")], "x").await.status, 415);
    assert_eq!(served.ask("POST", "/hooks/pmp/x", &[SIGNED, ("content-encoding", "Identity")], "x").await.status, 200);
    assert_eq!(fake.ended(), [(415, "encoding"), (200, "answered")]);
}

#[tokio::test]
async fn a_long_body_is_refused_by_its_length_before_it_is_sent() {
    let (fake, _hooks, served) = start().await;
    let request = "POST /hooks/pmp/x HTTP/1.1\r\nHost: a\r\nX-Signature: good\r\nExpect: 100-continue\r\nContent-Length: 300001\r\n\r\n";
    assert_eq!(Answer::parse(&served.raw(request.as_bytes()).await).status, 413);
    assert_eq!(served.ask("POST", "/hooks/pmp/x", &[SIGNED], &"x".repeat(300_000)).await.status, 200);
    assert_eq!(fake.ended(), [(413, "too_large"), (200, "answered")]);
}

/// Sends chunks until the server stops taking them; returns what was taken and what was answered.
async fn pour(served: &Served, signature: &str) -> (usize, Answer) {
    let mut stream = served.connect().await;
    let head = format!("POST /hooks/pmp/x HTTP/1.1\r\nHost: a\r\n{signature}Transfer-Encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let (mut reader, mut writer) = stream.into_split();
    let chunk = [b"10000\r\n".as_slice(), &vec![b'x'; 65_536], b"\r\n"].concat();
    let pouring = async {
        let mut poured = 0;
        while poured < 100_000_000 && writer.write_all(&chunk).await.is_ok() {
            poured += 65_536;
        }
        poured
    };
    let hearing = async {
        let mut bytes = Vec::new();
        let mut part = [0; 1024];
        while let Ok(read @ 1..) = tokio::io::AsyncReadExt::read(&mut reader, &mut part).await {
            bytes.extend_from_slice(&part[..read]);
        }
        Answer::parse(&String::from_utf8_lossy(&bytes))
    };
    tokio::join!(pouring, hearing)
}

#[tokio::test]
async fn an_endless_chunked_body_is_cut_off_and_the_caller_hears_why() {
    let (fake, _hooks, served) = start().await;
    let (poured, answer) = pour(&served, "X-Signature: good\r\n").await;
    assert_eq!(answer.status, 413);
    assert!(poured < 50_000_000, "{poured} bytes were taken");
    let (poured, answer) = pour(&served, "").await;
    assert_eq!(answer.status, 401);
    assert!(poured < 50_000_000, "{poured} bytes were taken");
    assert_eq!(fake.ended(), [(413, "too_large"), (401, "unsigned")]);
}

#[tokio::test]
async fn a_half_sent_body_is_given_up_in_time() {
    let (fake, _hooks, served) = start_with(SHORT).await;
    let request = "POST /hooks/pmp/x HTTP/1.1\r\nHost: a\r\nX-Signature: good\r\nContent-Length: 10\r\n\r\nhalf";
    let answer = tokio::time::timeout(SHORT * 10, served.raw(request.as_bytes())).await.expect("within its limit");
    assert_eq!(Answer::parse(&answer).status, 408);
    assert_eq!(fake.ended(), [(408, "too_slow")]);
}

#[tokio::test]
async fn a_caller_who_hangs_up_in_the_body_is_counted_and_nothing_is_stored() {
    let (fake, _hooks, served) = start().await;
    let mut stream = served.connect().await;
    let request = b"POST /hooks/pmp/x HTTP/1.1\r\nHost: a\r\nX-Signature: good\r\nContent-Length: 10\r\n\r\nhalf";
    stream.write_all(request).await.expect("sent");
    drop(stream);
    eventually(|| !fake.ended().is_empty()).await;
    assert!(matches!(fake.ended()[..], [(400, "broken") | (499, "caller_gone")]), "{:?}", fake.ended());
    assert!(fake.stored().is_empty());
}

#[tokio::test]
async fn a_caller_who_hangs_up_after_the_body_is_counted_and_the_delivery_is_stored() {
    let fake = Arc::new(Fake::default());
    fake.stuck.store(true, Ordering::SeqCst);
    let hooks = Hooks::new(Arc::new(FakeDoor(Arc::clone(&fake))), Options::default(), Clock::system());
    let served = serve(hooks.routes(), edge::Options::default()).await;
    let mut stream = served.connect().await;
    let request = b"POST /hooks/pmp/x HTTP/1.1\r\nHost: a\r\nX-Signature: good\r\nContent-Length: 4\r\n\r\nbody";
    stream.write_all(request).await.expect("sent");
    eventually(|| fake.journalling.load(Ordering::SeqCst)).await;
    drop(stream);
    eventually(|| fake.ended() == [(499, "caller_gone")]).await;
    assert!(fake.stored().is_empty());
    fake.released.notify_one();
    hooks.settled().await;
    assert_eq!(fake.stored().len(), 1);
}

#[tokio::test]
async fn a_stuck_journal_is_a_503_in_time_and_the_delivery_may_yet_be_stored() {
    let (fake, hooks, served) = start_with(SHORT).await;
    fake.stuck.store(true, Ordering::SeqCst);
    let answer = tokio::time::timeout(SHORT * 10, served.ask("POST", "/hooks/pmp/x", &[SIGNED], "{}")).await.expect("no hang");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
    assert_eq!(fake.ended(), [(503, "store_slow")]);
    fake.released.notify_one();
    hooks.settled().await;
    assert_eq!(fake.stored().len(), 1);
}

#[tokio::test]
async fn a_store_that_cannot_commit_and_a_panic_are_told_apart() {
    let (fake, _hooks, served) = start().await;
    fake.unavailable.store(true, Ordering::SeqCst);
    let answer = served.ask("POST", "/hooks/pmp/x", &[SIGNED], "{}").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("2")));
    fake.panics.store(true, Ordering::SeqCst);
    assert_eq!(served.ask("POST", "/hooks/pmp/x", &[SIGNED], "{}").await.status, 500);
    assert_eq!(fake.ended(), [(503, "store_unavailable"), (500, "internal")]);
}

#[tokio::test]
async fn above_the_backlog_mark_the_connector_chooses_the_answer() {
    let (fake, _hooks, served) = start().await;
    let retry_after = Duration::from_secs(30);
    for (overload, status) in [(Overload::TooManyRequests { retry_after }, 429), (Overload::Unavailable { retry_after }, 503)] {
        *fake.overload.lock().expect("no panic under the lock") = Some(overload);
        let answer = served.ask("POST", "/hooks/pmp/x", &[SIGNED], "{}").await;
        assert_eq!((answer.status, answer.header("retry-after")), (status, Some("30")));
    }
    assert_eq!(fake.ended(), [(429, "overload"), (503, "overload")]);
}

#[tokio::test]
async fn only_somebody_known_hears_that_it_sent_something_else() {
    let (fake, _hooks, served) = start().await;
    for (refusal, status) in [(Refusal::MediaType, 415), (Refusal::Shape, 400)] {
        *fake.known.lock().expect("no panic under the lock") = Some(refusal);
        assert_eq!(served.ask("POST", "/hooks/pmp/x", &[SIGNED], "{}").await.status, status);
        assert_eq!(served.ask("POST", "/hooks/pmp/x", &[("x-signature", "bad")], "{}").await.status, 401);
    }
    assert_eq!(fake.ended(), [(415, "media_type"), (401, "mac"), (400, "shape"), (401, "mac")]);
    assert!(fake.stored().is_empty());
}

#[tokio::test]
async fn a_route_says_when_to_come_again_in_its_own_manner() {
    let (fake, _hooks, served) = start().await;
    fake.unavailable.store(true, Ordering::SeqCst);
    let span = Duration::from_secs(600);
    *fake.manner.lock().expect("no panic under the lock") = Manner { is_slowed: true, is_dated: false, span: Some(span) };
    let answer = served.ask("POST", "/hooks/pmp/x", &[SIGNED], "{}").await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("600")));
    *fake.manner.lock().expect("no panic under the lock") = Manner { is_slowed: false, is_dated: true, span: Some(span) };
    let before = Clock::system().now();
    let answer = served.ask("POST", "/hooks/pmp/x", &[SIGNED], "{}").await;
    let date = answer.header("retry-after").and_then(crate::quota::headers::http_date).expect("a date");
    assert_eq!(answer.status, 503);
    assert!(date >= before.plus(span) && date <= before.plus(span * 2), "{date}");
}

#[tokio::test]
async fn an_exhausted_budget_is_a_503_and_ends_with_its_cause() {
    let fake = Arc::new(Fake::default());
    fake.stuck.store(true, Ordering::SeqCst);
    let options =
        Options { body_budget_bytes: 1, budget_wait: Duration::from_millis(20), accept_deadline: SHORT * 20, ..Options::default() };
    let hooks = Hooks::new(Arc::new(FakeDoor(Arc::clone(&fake))), options, Clock::system());
    let served = serve(hooks.routes(), edge::Options::default()).await;
    let mut holder = served.connect().await;
    let request = b"POST /hooks/pmp/x HTTP/1.1\r\nHost: a\r\nX-Signature: good\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody";
    holder.write_all(request).await.expect("sent");
    eventually(|| fake.journalling.load(Ordering::SeqCst)).await;
    let answer = served.ask("POST", "/hooks/pmp/x", &[SIGNED], "{}").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
    fake.stuck.store(false, Ordering::SeqCst);
    fake.released.notify_one();
    assert_eq!(Answer::parse(&to_end(&mut holder).await).status, 200);
    assert_eq!(served.ask("POST", "/hooks/pmp/x", &[SIGNED], "{}").await.status, 200);
}
