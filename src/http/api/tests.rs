//! Who is let in, and what a path names.

use std::sync::Mutex;

use super::*;
use crate::http::admin::Token;
use crate::http::edge;
use crate::http::testing::{self, serve};

/// Tells what it was asked.
#[derive(Default)]
struct Echo(Mutex<Vec<Asked>>);

impl Replica for Echo {
    fn answer(&self, asked: Asked) -> BoxFuture<'_, Answer> {
        let stale = matches!(&asked.what, What::Fresh { .. });
        self.0.lock().expect("no panic").push(asked);
        let answer = Answer { status: 200, body: "{}".to_owned(), tag: Some("t1".to_owned()), is_stale: stale, ..Answer::default() };
        Box::pin(async move { answer })
    }
}

const PORTAL: &str = "a-token-of-the-portal";
const REPORTS: &str = "a-token-of-the-reports";

fn api() -> (Arc<Echo>, Routes) {
    let token = |text| Token::from_text(text).expect("a token");
    let clients = vec![
        Client { tokens: vec![token(PORTAL)], scopes: vec![Scope::Read, Scope::Refresh], sources: Some(vec!["pmp".to_owned()]) },
        Client { tokens: vec![token("another-token-of-reports"), token(REPORTS)], scopes: vec![Scope::Read], sources: None },
    ];
    let echo = Arc::new(Echo::default());
    (Arc::clone(&echo), routes(clients, echo))
}

struct Heard {
    status: u16,
    answer: testing::Answer,
    asked: Option<Asked>,
}

async fn ask(method: &str, path: &str, headers: &[(&str, &str)]) -> Heard {
    let (echo, routes) = api();
    let answer = serve(routes, edge::Options::default()).await.ask(method, path, headers, "").await;
    let asked = echo.0.lock().expect("no panic").pop();
    Heard { status: answer.status, answer, asked }
}

async fn as_portal(method: &str, path: &str) -> Heard {
    ask(method, path, &[("authorization", &format!("Bearer {PORTAL}"))]).await
}

#[tokio::test]
async fn who_bears_no_token_costs_nothing() {
    for (bearing, challenge) in [
        (None, "Bearer"),
        (Some("Bearer nobody-knows-this-token".to_owned()), "Bearer error=\"invalid_token\""),
        (Some(format!("Basic {PORTAL}")), "Bearer error=\"invalid_token\""),
        (Some(format!("Bearer {PORTAL}x")), "Bearer error=\"invalid_token\""),
        (Some(format!("Bearer {}", &PORTAL[1..])), "Bearer error=\"invalid_token\""),
    ] {
        for (method, path) in [("GET", "/v1/pmp/tasks/1"), ("POST", "/v1/pmp/tasks/1/refresh"), ("GET", "/"), ("PUT", "/v2")] {
            let headers: Vec<_> = bearing.iter().map(|value| ("authorization", value.as_str())).collect();
            let heard = ask(method, path, &headers).await;
            assert_eq!((heard.status, heard.asked), (401, None), "{bearing:?} {method} {path}");
            assert_eq!(heard.answer.header("www-authenticate"), Some(challenge));
        }
    }
}

#[tokio::test]
async fn a_token_is_for_its_scopes_and_sources() {
    let reports = format!("bearer {REPORTS}");
    let reports: &[(&str, &str)] = &[("authorization", &reports)];
    assert_eq!(ask("GET", "/v1/pmp/tasks/1", reports).await.status, 200);
    for (method, path) in
        [("POST", "/v1/pmp/tasks/1/refresh"), ("GET", "/v1/pmp/tasks/1?max_age=5s"), ("GET", "/v1/pmp/tasks/1?wait_for=7")]
    {
        let heard = ask(method, path, reports).await;
        assert_eq!((heard.status, heard.asked), (403, None), "{method} {path}");
        assert_eq!(heard.answer.header("www-authenticate"), Some("Bearer error=\"insufficient_scope\", scope=\"refresh\""));
    }
    for source in ["pim", "nobody"] {
        let heard = as_portal("GET", &format!("/v1/{source}/tasks/1")).await;
        assert_eq!((heard.status, heard.asked), (403, None), "{source}: whether it exists is not told");
    }
}

#[tokio::test]
async fn a_path_names_one_key_decoded_once() {
    for (path, key) in [
        ("1", "1"),
        ("a%2Fb%20c", "a/b c"),
        ("%25", "%"),
        ("a%252Fb", "a%2Fb"),
        ("a+b", "a+b"),
        ("sch%C3%B6n", "schön"),
        ("%F0%9F%91%9F", "👟"),
        ("history", "history"),
        ("a%3Fb%23c", "a?b#c"),
        ("..%2F..", "../.."),
    ] {
        for (method, action) in [("GET", ""), ("GET", "/history"), ("POST", "/refresh")] {
            let heard = as_portal(method, &format!("/v1/pmp/tasks/{path}{action}")).await;
            assert_eq!((heard.status, heard.asked.map(|asked| asked.key).as_deref()), (200, Some(key)), "{path}{action}");
        }
    }
    for (path, status) in [
        ("a/b", 404),
        ("", 404),
        ("1/", 404),
        ("1/nothing", 404),
        ("1/history/2", 404),
        ("%", 400),
        ("%4", 400),
        ("%zz", 400),
        ("%FF", 400),
        ("%+1", 400),
    ] {
        let heard = as_portal("GET", &format!("/v1/pmp/tasks/{path}")).await;
        assert_eq!((heard.status, heard.asked), (status, None), "{path}");
    }
    for (method, path, allowed) in [("POST", "1", "GET, HEAD"), ("DELETE", "1/history", "GET, HEAD"), ("GET", "1/refresh", "POST")] {
        let heard = as_portal(method, &format!("/v1/pmp/tasks/{path}")).await;
        assert_eq!((heard.status, heard.answer.header("allow")), (405, Some(allowed)), "{method} {path}");
    }
}

#[tokio::test]
async fn a_query_says_what_it_may_and_nothing_else() {
    let span = Duration::from_secs;
    let what = async |path: &str, method: &str| as_portal(method, &format!("/v1/pmp/tasks/{path}")).await.asked.map(|asked| asked.what);
    assert_eq!(what("1", "GET").await, Some(What::Row));
    assert_eq!(what("1?max_age=5", "GET").await, Some(What::Fresh { max_age: span(5), timeout: None }));
    assert_eq!(what("1/refresh?timeout=2s", "POST").await, Some(What::Refresh { max_age: span(1), timeout: Some(span(2)) }));
    let version = "2026-01-01T00:00:00+01:00".to_owned();
    let expected = Some(What::Version { version, timeout: Some(Duration::from_millis(300)) });
    assert_eq!(what("1?wait_for=2026-01-01T00:00:00%2B01:00&timeout=300ms", "GET").await, expected);
    assert_eq!(what("1?wait_for=2026-01-01T00:00:00+01:00&timeout=300ms", "GET").await, expected, "the plus was not encoded");
    assert_eq!(what("1/history?limit=3", "GET").await, Some(What::History { limit: Some("3".to_owned()) }));
    for bad in [
        "1?maxage=5",
        "1?max_age=soon",
        "1?max_age=-1",
        "1?timeout=5s",
        "1?max_age=1&max_age=2",
        "1?max_age=1&wait_for=2",
        "1?wait_for=1&timeout=16s",
        "1/history?max_age=1",
        "1?limit=3",
    ] {
        let heard = as_portal("GET", &format!("/v1/pmp/tasks/{bad}")).await;
        assert_eq!((heard.status, heard.asked), (400, None), "{bad}");
    }
}

#[tokio::test]
async fn a_state_that_the_caller_has_is_not_sent_again() {
    let bearer = format!("Bearer {PORTAL}");
    for (known, path, status) in [
        ("W/\"t1\"", "/v1/pmp/tasks/1", 304),
        ("\"t0\", \"t1\"", "/v1/pmp/tasks/1", 304),
        ("*", "/v1/pmp/tasks/1", 304),
        ("W/\"t0\"", "/v1/pmp/tasks/1", 200),
        // It is older than was asked for, which has to be said.
        ("W/\"t1\"", "/v1/pmp/tasks/1?max_age=1", 200),
    ] {
        let heard = ask("GET", path, &[("authorization", &bearer), ("if-none-match", known)]).await;
        assert_eq!((heard.status, heard.answer.header("etag")), (status, Some("W/\"t1\"")), "{known} {path}");
        assert_eq!(heard.answer.header("warning").is_some(), path.contains('?'));
    }
}
