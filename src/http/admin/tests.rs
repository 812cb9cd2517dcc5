use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::http::edge;
use crate::http::testing::{Served, serve};
use crate::report::DeliveryAccepted;

const JSON: (&str, &str) = ("content-type", "application/json");

#[derive(Default)]
struct Fake {
    ill: AtomicBool,
    done: Mutex<Vec<(String, Value)>>,
}

impl StatusSource for Fake {
    fn ready(&self) -> Condition {
        self.health()
    }

    fn health(&self) -> Condition {
        Condition { wrong: self.ill.load(Ordering::SeqCst).then(|| "the store is away".to_owned()).into_iter().collect() }
    }

    fn status(&self) -> BoxFuture<'_, Value> {
        Box::pin(async {
            if self.ill.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            json!({ "wrong": [], "sources": {} })
        })
    }
}

impl Control for Fake {
    fn control(&self, verb: String, request: Value) -> BoxFuture<'_, Result<Value, ControlError>> {
        Box::pin(async move {
            match verb.as_str() {
                "approve" => {
                    self.done.lock().expect("no panic under the lock").push((verb, request));
                    Ok(json!({ "approved": 1 }))
                }
                "park" => Err(ControlError::Conflict("is parked already".into())),
                _ => Err(ControlError::Unknown),
            }
        })
    }
}

fn token() -> (Token, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let token = Token::ensure(&folder.path().join("token"), [9; 32]).expect("made");
    let bearer = format!("Bearer {}", token.expose());
    (token, bearer)
}

async fn start(options: Options) -> (Arc<Fake>, Reporter, Served) {
    let (fake, reporter) = (Arc::new(Fake::default()), Reporter::new());
    let options = Options { status_deadline: Duration::from_millis(100), ..options };
    let routes = routes(options, reporter.clone(), Arc::clone(&fake) as _, Arc::clone(&fake) as _);
    (fake, reporter, serve(routes, edge::Options::default()).await)
}

#[tokio::test]
async fn health_tells_good_from_bad() {
    let (fake, _, served) = start(Options::default()).await;
    for path in ["/livez", "/readyz", "/healthz", "/status"] {
        assert_eq!(served.ask("GET", path, &[], "").await.status, 200, "{path}");
    }
    fake.ill.store(true, Ordering::SeqCst);
    assert_eq!(served.ask("GET", "/livez", &[], "").await.status, 200);
    let ready = served.ask("GET", "/readyz", &[], "").await;
    assert_eq!((ready.status, ready.body.as_str()), (503, r#"{"ok":false,"wrong":["the store is away"]}"#));
    assert_eq!(served.ask("GET", "/healthz", &[], "").await.status, 503);
    assert_eq!(served.ask("GET", "/status", &[], "").await.status, 503, "a status that hangs");
}

#[tokio::test]
async fn metrics_show_what_was_reported() {
    let (_, reporter, served) = start(Options::default()).await;
    reporter.emit(DeliveryAccepted { source: "pmp".into() });
    let answer = served.ask("GET", "/metrics", &[], "").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(METRICS_TYPE)));
    assert!(answer.body.contains("instep_deliveries_accepted_total{source=\"pmp\"} 1"), "{}", answer.body);
}

#[tokio::test]
async fn only_known_hosts_are_served() {
    let (_, _, served) = start(Options { hosts: vec!["instep.internal".into(), "10.0.0.5".into()], ..Options::default() }).await;
    for host in ["localhost", "LocalHost:9090", "127.0.0.1:1", "127.0.0.1", "[::1]", "[::1]:9090", "instep.internal:80", "10.0.0.5"] {
        assert_eq!(served.ask("GET", "/livez", &[("host", host)], "").await.status, 200, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example", "10.0.0.6", "localhost@evil.example:80", "127.0.0.1.evil.example"] {
        assert_eq!(served.ask("GET", "/livez", &[("host", host)], "").await.status, 403, "{host}");
        assert_eq!(served.ask("GET", "/metrics", &[("host", host)], "").await.status, 403, "{host}");
    }
}

#[tokio::test]
async fn a_verb_needs_the_token_and_json_and_no_browser() {
    let (token, bearer) = token();
    let (fake, _, served) = start(Options { tokens: vec![token], ..Options::default() }).await;
    let auth = ("authorization", bearer.as_str());
    let wrong = ("authorization", "Bearer 0000000000000000");
    let refusals = [
        (&[JSON][..], "{}", 401),
        (&[JSON, wrong][..], "{}", 401),
        (&[auth][..], "{}", 415),
        (&[auth, ("content-type", "text/plain")][..], "{}", 415),
        (&[auth, JSON, ("origin", "http://localhost")][..], "{}", 403),
        (&[auth, JSON][..], "{", 400),
        (&[auth, JSON, ("host", "evil.example")][..], "{}", 403),
    ];
    for (headers, body, status) in refusals {
        assert_eq!(served.ask("POST", "/control/approve", headers, body).await.status, status, "{headers:?}");
    }
    assert_eq!(served.ask("POST", "/control/approve", &[auth, JSON], &" ".repeat(70_000)).await.status, 413);
    assert_eq!(served.ask("GET", "/control/approve", &[auth], "").await.status, 405);
    assert!(fake.done.lock().expect("no panic under the lock").is_empty());

    let answer = served.ask("POST", "/control/approve", &[auth, JSON], r#"{"source":"pmp"}"#).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"approved":1}"#));
    assert_eq!(*fake.done.lock().expect("no panic under the lock"), [("approve".to_owned(), json!({ "source": "pmp" }))]);
    assert_eq!(served.ask("POST", "/control/park", &[auth, JSON], "{}").await.status, 409);
    assert_eq!(served.ask("POST", "/control/dance", &[auth, JSON], "{}").await.status, 404);
}

#[tokio::test]
async fn without_a_token_nothing_can_be_changed() {
    let (fake, _, served) = start(Options::default()).await;
    assert_eq!(served.ask("POST", "/control/approve", &[JSON, ("authorization", "Bearer ")], "{}").await.status, 403);
    assert!(fake.done.lock().expect("no panic under the lock").is_empty());
}

#[tokio::test]
async fn where_reads_need_the_token_everything_needs_it() {
    let (token, bearer) = token();
    let (_, _, served) = start(Options { tokens: vec![token], token_for_reads: true, ..Options::default() }).await;
    for path in ["/livez", "/readyz", "/healthz", "/metrics", "/status", "/nothing"] {
        let answer = served.ask("GET", path, &[], "").await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")), "{path}");
    }
    assert_eq!(served.ask("GET", "/metrics", &[("authorization", &bearer)], "").await.status, 200);
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let (_, _, served) = start(Options::default()).await;
    assert_eq!(served.ask("GET", "/", &[], "").await.status, 404);
    assert_eq!(served.ask("GET", "/livez/more", &[], "").await.status, 404);
    assert_eq!(served.ask("POST", "/livez", &[], "").await.status, 405);
    assert_eq!(served.ask("DELETE", "/status", &[], "").await.status, 405);
}
