//! The actor, the limiter and the rule, against a small upstream.

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::actors::home::Identity;
use crate::actors::journal::StoreHealth;
use crate::actors::limiter;
use crate::actors::source::{Audit, Brake, Process, Settings, Watch};
use crate::clock::Clock;
use crate::connectors::productive::{Options, Productive, ResourceOptions};
use crate::model::Operation;
use crate::quota::{BreakerOptions, Concurrency, Expected, Limit, Limits, Shape, Unit};
use crate::report::Reporter;
use crate::store::testing::{batch, hint, on_both, read, source as name, tasks, texts};
use crate::store::{Batch, Store};
use crate::supervision::{Ended, Policy, Roster, STEP_BUDGET, Tree, run_root};
use crate::upstream::testing::{Fake, Told, answer};
use crate::upstream::{ByteBudget, Options as Bounds, Upstream};

mod family;

/// Longest wait of a test for anything.
const PATIENCE: Duration = Duration::from_secs(20);
const OPERATIONS: &str = "select operation as v from instep_change where operation <> 'insert' order by number";

/// An upstream's keys and how it answers for them.
type Answer = fn(&str, &[u32]) -> Told;

struct Running {
    source: Arc<Source>,
    store: Store,
    fake: Fake,
    stopping: CancellationToken,
    root: tokio::task::JoinHandle<Ended>,
}

impl Running {
    /// Tasks 1 to `n` in the replica, the actor awake, hints for `hinted`.
    async fn start(store: &Store, n: u32, hinted: &[u32], brake: Brake, answers: Answer) -> Self {
        Self::start_lingering(store, n, hinted, (brake, Duration::ZERO), answers).await
    }

    async fn start_lingering(store: &Store, n: u32, hinted: &[u32], (brake, linger): (Brake, Duration), answers: Answer) -> Self {
        let fake = Fake::start(move |head| reply(head, answers)).await;
        let mut source = source(store, &fake, brake);
        source.settings.linger = linger;
        let source = Arc::new(source);
        let fence = store.claim(&name(), "test").await.expect("claimed");
        let rows = (1..=n).map(|key| read(&fence, &key.to_string(), 1, "before")).collect();
        store.apply(&fence, &batch(rows)).await.expect("applied");
        let hints = hinted.iter().map(|key| hint(&key.to_string(), Operation::Update)).collect();
        store.apply(&fence, &Batch { learned_by: LearnedBy::Hook, ..batch(hints) }).await.expect("marked");
        source.own(Some(fence));
        let (stopping, root) = run(&source);
        Self { source, store: store.clone(), fake, stopping, root }
    }

    async fn until(&self, what: &str, sql: &str, expected: &str) {
        let met = async {
            while texts(&self.store, sql).await != [expected] {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, met).await.is_err() {
            panic!("{what}: {:?} and not {expected}; asked: {:#?}", texts(&self.store, sql).await, self.fake.asked());
        }
    }

    async fn stop(self) {
        self.stopping.cancel();
        assert_eq!(self.root.await.expect("joined"), Ended::Stopped);
    }
}

/// What is asked for: the keys of a bulk read, or one key alone.
fn reply(head: &str, answers: Answer) -> Told {
    let target = head.split(' ').nth(1).unwrap_or_default();
    let list = target.split("filter%5Bid%5D=").nth(1);
    let text = match list {
        Some(list) => list.split('&').next().unwrap_or_default(),
        None => target.split('?').next().and_then(|path| path.rsplit('/').next()).unwrap_or_default(),
    };
    let keys: Vec<u32> = text.split("%2C").filter_map(|key| key.parse().ok()).collect();
    answers(if list.is_some() { "bulk" } else { "key" }, &keys)
}

fn task(key: u32) -> String {
    let relation = |name: &str| format!(r#""{name}":{{"data":{{"type":"{name}","id":"1"}}}}"#);
    let relations = ["project", "task_list", "assignee", "workflow_status", "creator"].map(relation).join(",");
    let attributes = r#"{"title":"after","updated_at":"2026-09-12T10:15:30.250+00:00"}"#;
    format!(r#"{{"id":"{key}","type":"tasks","attributes":{attributes},"relationships":{{{relations}}}}}"#)
}

/// The records of `keys`, as the way of asking has it.
fn records(by: &str, keys: &[u32]) -> Told {
    match (by, keys) {
        ("key", [key]) => answer(200, &format!(r#"{{"data":{}}}"#, task(*key))),
        _ => answer(200, &format!(r#"{{"data":[{}]}}"#, keys.iter().map(|key| task(*key)).collect::<Vec<_>>().join(","))),
    }
}

fn source(store: &Store, fake: &Fake, brake: Brake) -> Source {
    source_of(store, fake, brake, productive(fake))
}

fn productive(fake: &Fake) -> Productive {
    let day = Duration::from_secs(86_400);
    let connector = Productive::new(Options {
        url: fake.url.clone(),
        organization: 1,
        resources: vec![("tasks".to_owned(), ResourceOptions::default())],
        exclude: Vec::new(),
        read_lag: Duration::ZERO,
        list_lag: Duration::ZERO,
        keep_deleted: day,
        tombstones: 90 * day,
        signature_tolerance: None,
    });
    connector.expect("a connector")
}

fn source_of(store: &Store, fake: &Fake, brake: Brake, connector: Productive) -> Source {
    let bounds = Bounds {
        root: fake.url.clone(),
        also: Vec::new(),
        response_max: 1 << 20,
        responses_in_flight: ByteBudget::new(8 << 20),
        connect_timeout: PATIENCE,
        timeout: PATIENCE,
    };
    let settings = Settings {
        linger: Duration::ZERO,
        passes: false,
        sweep_at: None,
        feeds: false,
        feed_poll: PATIENCE,
        backlog_max: 1_000,
        body_max: None,
        public_url: None,
        manages_hooks: false,
        may_manage: true,
        watch: Watch::default(),
        secrets: Vec::new(),
        brake,
        breaker: BreakerOptions::default(),
        patience: PATIENCE,
        refresh_share: 0.2,
        audit: Audit::default(),
    };
    let minute = Shape::Window(Duration::from_secs(60));
    let limit = Limit { id: "token".to_owned(), amount: 1_000, shape: minute, unit: Unit::Requests, share: 1.0 };
    let limits = Limits::new(vec![limit], Concurrency { cap: 8, floor: 4 }, [Expected::default(); 5]).expect("valid limits");
    let process = Process {
        store: store.clone(),
        health: StoreHealth::default(),
        clock: Clock::system(),
        reporter: Reporter::new(),
        state: std::env::temp_dir(),
        identity: Identity::default(),
    };
    let upstream = Upstream::new(bounds, Arc::new(|_| Ok("token".to_owned()))).expect("a client");
    Source::new(name(), Arc::new(connector), upstream, "scope".to_owned(), limits, process, settings)
}

fn run(source: &Arc<Source>) -> (CancellationToken, tokio::task::JoinHandle<Ended>) {
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
    let children = vec![limiter::spec(options, source.limiter.clone()), spec(Arc::clone(source), tasks())];
    let (roster, reporter) = (Roster::default(), source.reporter.clone());
    let tree = Tree { path: "root".into(), children, policy, roster, reporter, clock: source.clock };
    let stopping = CancellationToken::new();
    let cx = Context::new("sync", source.clock, STEP_BUDGET, stopping.clone());
    (stopping, TaskTracker::new().spawn(async move { run_root(tree, cx).await.expect("the root starts") }))
}

const LOOSE: Brake = Brake { share: 0.2, rows: 10, cap: 1_000 };
const APPLIED: &str = "select count(*) as v from instep_change where operation = 'update'";
const MARKED: &str = "select count(*) as v from instep_mark";

#[tokio::test]
async fn a_refused_bulk_read_is_taken_apart_until_the_guilty_key_stands_alone() {
    on_both(|store| async move {
        let guilty: Answer = |by, keys| if keys.contains(&5) { answer(422, "{}") } else { records(by, keys) };
        let running = Running::start(&store, 8, &[1, 2, 3, 4, 5, 6, 7, 8], LOOSE, guilty).await;
        running.until("the innocent are read", APPLIED, "7").await;
        running.until("one mark is left", "select key as v from instep_mark", "5").await;
        assert!(running.fake.asked().len() <= 8, "in bulk, and not one by one: {:#?}", running.fake.asked());
        running.stop().await;
    })
    .await;
}

/// A read that is full gains nothing by waiting; the last one, which is not, gathers hints.
#[tokio::test]
async fn hints_that_fill_a_read_do_not_wait_for_more() {
    on_both(|store| async move {
        let hinted: Vec<u32> = (1..=450).collect();
        let running = Running::start_lingering(&store, 450, &hinted, (LOOSE, 3 * PATIENCE), records).await;
        running.until("two full reads", APPLIED, "400").await;
        running.until("the others wait", MARKED, "50").await;
        assert_eq!(running.fake.asked().len(), 2, "{:#?}", running.fake.asked());
        running.stop().await;
    })
    .await;
}

#[tokio::test]
async fn what_a_bulk_read_does_not_show_is_read_alone_before_it_is_believed() {
    on_both(|store| async move {
        let partial: Answer = |by, keys| {
            let shown: Vec<u32> = keys.iter().copied().filter(|key| by == "key" || *key != 2).collect();
            records(by, &shown)
        };
        let running = Running::start(&store, 3, &[1, 2, 3], LOOSE, partial).await;
        running.until("all three are read", APPLIED, "3").await;
        running.until("no mark is left", MARKED, "0").await;
        assert_eq!(texts(&store, OPERATIONS).await, ["update"; 3], "none was removed meanwhile");
        assert!(running.fake.asked().iter().any(|head| head.starts_with("GET /tasks/2?")), "{:#?}", running.fake.asked());
        running.stop().await;
    })
    .await;
}

#[tokio::test]
async fn absence_alone_removes_no_more_than_the_budget() {
    on_both(|store| async move {
        let gone: Answer = |by, keys| match by {
            "key" if keys != [6] => answer(404, "{}"),
            "key" => records(by, keys),
            _ => records(by, &[]),
        };
        let brake = Brake { share: 0.0, rows: 2, cap: 2 };
        let running = Running::start(&store, 6, &[1, 2, 3, 4, 5], brake, gone).await;
        running.until("the rest is held", "select count(*) as v from instep_mark where held", "3").await;
        // Holding comes first, then the removal of those within the budget.
        running.until("the budget is used", "select count(*) as v from instep_change where operation = 'delete'", "2").await;
        assert!(texts(&store, APPLIED).await == ["0"] && !running.source.view_lost());
        running.stop().await;
    })
    .await;
}

#[tokio::test]
async fn nothing_is_removed_while_a_record_known_alive_is_not_shown_either() {
    let blind: Answer = |by, _| if by == "key" { answer(404, "{}") } else { records(by, &[]) };
    // What was shown before the absence was met says nothing of now.
    let blinded: Answer = |by, _| if by == "key" { answer(404, "{}") } else { records(by, &[3]) };
    for answers in [blind, blinded] {
        on_both(|store| async move {
            let running = Running::start(&store, 4, &[1, 2, 3], LOOSE, answers).await;
            let absent = "select count(*) as v from instep_mark where held and key in ('1', '2')";
            running.until("both are held", absent, "2").await;
            assert!(running.source.view_lost(), "the source says so");
            assert!(!texts(&store, OPERATIONS).await.contains(&"delete".to_owned()));
            running.stop().await;
        })
        .await;
    }
}

/// A page of 700 KiB, which is below the cap of 1 MiB; two of them are above it.
fn large(by: &str, keys: &[u32]) -> Told {
    let (status, body) = (200, records(by, keys).0);
    let text = String::from_utf8(body).expect("text");
    let (_, body) = text.split_once("\r\n\r\n").expect("an answer");
    let kib = |key: &u32| if *key == 7 { 2_000 } else { 700 };
    let title = format!("after{}", " ".repeat(keys.iter().map(kib).sum::<usize>() * 1_024));
    answer(status, &body.replacen("after", &title, 1))
}

#[tokio::test]
async fn what_is_larger_than_an_answer_may_be_is_asked_for_in_smaller_parts() {
    on_both(|store| async move {
        let running = Running::start(&store, 8, &[1, 2, 3, 7], Brake::default(), large).await;
        running.until("all are looked at", "select count(*) as v from instep_mark", "0").await;
        let quarantined = texts(&store, "select key as v from instep_quarantine").await;
        assert_eq!(quarantined, ["7"], "the one that fits into no answer");
        let updated = texts(&store, "select key as v from instep_change where operation = 'update' order by key").await;
        assert_eq!(updated, ["1", "2", "3"]);
        let asked = running.fake.asked().len();
        assert!(asked <= 8, "{asked} requests for four keys");
        running.stop().await;
    })
    .await;
}

#[tokio::test]
async fn nobody_is_guilty_while_the_upstream_answers_nothing() {
    on_both(|store| async move {
        let ailing: Answer = |_, _| answer(200, "<html>sign in</html>");
        let running = Running::start(&store, 9, &[1, 2, 3, 4, 5, 6, 7, 8], LOOSE, ailing).await;
        running.until("they were tried", "select max(attempts) as v from instep_mark", "3").await;
        let asked = running.fake.asked();
        let bulk = asked.iter().filter(|head| head.contains("filter%5Bid%5D")).count();
        assert!(bulk == 3 && asked.len() <= 4, "three tries of the batch and a control, not one by one: {asked:#?}");
        running.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_is_another_record_is_asked_for_again_later_and_not_at_once() {
    on_both(|store| async move {
        let wrong: Answer = |by, keys| if by == "key" { records(by, &[9]) } else { records(by, &keys[..0]) };
        let running = Running::start(&store, 3, &[1], LOOSE, wrong).await;
        running.until("it was tried", "select max(attempts) as v from instep_mark", "2").await;
        let asked = running.fake.asked().len();
        assert!(asked <= 4, "{asked} requests");
        running.stop().await;
    })
    .await;
}
