//! Logins against a small upstream, with a real limiter.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::actors::limiter;
use crate::actors::testing::{PATIENCE, source};
use crate::connectors::{Asked, ListQuery};
use crate::store::testing::{on_both, source as name};
use crate::store::{Fence, Store};
use crate::supervision::{Ended, Policy, Roster, STEP_BUDGET, Tree, run_root};
use crate::upstream::testing::{Fake, Told, answer};

const PLENTY: u64 = 1_000;
const PAGE: &str = r#"{"_links":{},"_embedded":{"items":[{"code":"ecommerce"}]}}"#;

struct Running {
    source: Source,
    fence: Fence,
    cx: Context,
    fake: Fake,
    root: tokio::task::JoinHandle<Ended>,
}

impl Running {
    /// `answers` gets each request and how many of its kind (login, resource) came before it.
    async fn start(store: &Store, requests: u64, patience: Duration, answers: fn(&str, usize) -> Told) -> Self {
        let counts = [AtomicUsize::new(0), AtomicUsize::new(0)];
        let fake = Fake::start(move |asked| {
            let nth = counts[usize::from(is_login(asked))].fetch_add(1, Ordering::SeqCst);
            answers(asked, nth)
        })
        .await;
        let source = source(store, &fake.url, requests, patience);
        let fence = store.claim(&name(), "test").await.expect("claimed");
        let stopping = CancellationToken::new();
        let root = run(&source, stopping.clone());
        let cx = Context::new("test", source.clock, STEP_BUDGET, stopping);
        let granting = async {
            while source.limiter.observe().await.is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, granting).await.expect("the limiter starts");
        Self { source, fence, cx, fake, root }
    }

    async fn ask(&self) -> Result<usize, AskError> {
        let spec = &self.source.connector.resources()[0];
        let query = ListQuery { variant: 0, since: None, cursor: None, halvings: 0 };
        let request = self.source.connector.list(spec, query);
        let read = |response: &crate::connectors::Response| self.source.connector.read(spec, Asked::Page(query), response);
        let answer = self.source.ask(&self.cx, &self.fence, Class::Live, &request, read).await;
        answer.map(|answer| answer.what.records.len()).map_err(|(error, _)| error)
    }

    /// What was asked, in order: how a login was, or with which token a resource.
    fn asked(&self) -> Vec<&'static str> {
        let word = |asked: &String| match asked {
            asked if asked.contains("\"refresh_token\"") && is_login(asked) => "refresh",
            asked if asked.contains("\"password\":\"hunter2\"") && is_login(asked) => "password",
            asked if is_login(asked) => "login",
            asked if asked.contains("Bearer token-0") => "first",
            asked if asked.contains("Bearer token-1") => "second",
            _ => "other",
        };
        self.fake.asked().iter().map(word).collect()
    }

    async fn stop(self) {
        self.cx.stopping.cancel();
        assert_eq!(self.root.await.expect("joined"), Ended::Stopped);
    }
}

fn is_login(asked: &str) -> bool {
    asked.starts_with("POST /api/oauth/v1/token ")
}

fn token(nth: usize, lasts: u64) -> Told {
    answer(200, &format!(r#"{{"access_token":"token-{nth}","expires_in":{lasts},"token_type":"bearer","refresh_token":"again-{nth}"}}"#))
}

fn run(source: &Source, stopping: CancellationToken) -> tokio::task::JoinHandle<Ended> {
    let backoff = RetryPolicy::new(Duration::from_millis(1), Duration::from_millis(5), 2.0, 0.0).expect("valid");
    let policy = Policy { backoff, intensity: 2, period: Duration::from_secs(60), park: Duration::from_secs(3600) };
    let options = limiter::Options {
        source: source.name.to_string(),
        scope: source.scope.clone(),
        limits: source.limits.clone(),
        store: source.store.clone(),
        clock: source.clock,
        breaker: source.settings.breaker,
        anchors: None,
        reporter: source.reporter.clone(),
    };
    let children = vec![limiter::spec(options, source.limiter.clone())];
    let (roster, reporter) = (Roster::default(), source.reporter.clone());
    let tree = Tree { path: "root".into(), children, policy, roster, reporter, clock: source.clock };
    let cx = Context::new("limiter", source.clock, STEP_BUDGET, stopping);
    TaskTracker::new().spawn(async move { run_root(tree, cx).await.expect("the root starts") })
}

#[tokio::test]
async fn many_who_ask_at_once_share_one_login() {
    on_both(|store| async move {
        let answers = |asked: &str, nth| if is_login(asked) { token(nth, 3600) } else { answer(200, PAGE) };
        let running = Running::start(&store, PLENTY, PATIENCE, answers).await;
        let answers = futures_util::future::join_all((0..12).map(|_| running.ask())).await;
        assert_eq!(answers, vec![Ok(1); 12]);
        assert_eq!(running.asked().iter().filter(|word| **word == "password").count(), 1, "{:?}", running.asked());
        let basic = running.fake.asked().remove(0);
        assert!(basic.contains("authorization: Basic M194OmNsaWVudC1zZWNyZXQ=\r\n"), "3_x:client-secret");
        running.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_session_that_is_refused_is_refreshed_once_and_the_request_sent_once_more() {
    on_both(|store| async move {
        let revoked = |asked: &str, nth| match asked {
            asked if is_login(asked) => token(nth, 3600),
            asked if asked.contains("Bearer token-1") => answer(200, PAGE),
            _ => answer(401, r#"{"code":401}"#),
        };
        let running = Running::start(&store, PLENTY, PATIENCE, revoked).await;
        assert_eq!(running.ask().await, Ok(1));
        assert_eq!(running.asked(), ["password", "first", "refresh", "second"]);
        assert!(running.fake.asked()[2].contains("\"refresh_token\":\"again-0\""));
        running.stop().await;

        let never = |asked: &str, nth| if is_login(asked) { token(nth, 3600) } else { answer(401, "{}") };
        let running = Running::start(&store, PLENTY, PATIENCE, never).await;
        assert_eq!(running.ask().await, Err(AskError::Read(ReadError::Denied(401))));
        assert_eq!(running.asked(), ["password", "first", "refresh", "second"], "once more, and no more");
        running.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_session_is_replaced_before_its_end_and_by_the_password_where_the_refresh_is_refused() {
    on_both(|store| async move {
        // It is over at once, so that every question needs another.
        let short = |asked: &str, nth| match asked {
            asked if is_login(asked) && asked.contains("again-1") => answer(422, r#"{"code":422,"message":"no"}"#),
            asked if is_login(asked) => token(nth, 0),
            _ => answer(200, PAGE),
        };
        let running = Running::start(&store, PLENTY, PATIENCE, short).await;
        for _ in 0..3 {
            assert_eq!(running.ask().await, Ok(1));
        }
        assert_eq!(running.asked(), ["password", "first", "refresh", "second", "refresh", "password", "other"]);
        running.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_login_that_is_refused_is_not_tried_again_by_everybody() {
    on_both(|store| async move {
        for status in [400, 401, 422] {
            let refused = match status {
                400 => |_: &str, _| answer(400, "{}"),
                401 => |_: &str, _| answer(401, "{}"),
                _ => |_: &str, _| answer(422, r#"{"code":422,"message":"hunter2"}"#),
            };
            let running = Running::start(&store, PLENTY, PATIENCE, refused).await;
            let answers = futures_util::future::join_all((0..8).map(|_| running.ask())).await;
            assert_eq!(answers, vec![Err(AskError::Read(ReadError::Denied(status))); 8]);
            assert_eq!(running.asked(), ["password"]);
            running.stop().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_login_takes_a_permit_of_its_own() {
    on_both(|store| async move {
        let answers = |asked: &str, nth| if is_login(asked) { token(nth, 3600) } else { answer(200, PAGE) };
        let running = Running::start(&store, 1, Duration::from_secs(3), answers).await;
        assert_eq!(running.ask().await, Err(NoPermit.into()), "the login has spent the only one");
        assert_eq!(running.asked(), ["password"]);
        running.stop().await;
    })
    .await;
}

#[test]
fn nothing_of_a_session_is_printed() {
    let session = Session { token: "hunter2".into(), refresh: Some("hunter3".into()), lasts: None };
    let sessions = Sessions::default();
    sessions.hold(session, Duration::ZERO);
    assert!(!format!("{sessions:?}").contains("hunter"), "{sessions:?}");
}
