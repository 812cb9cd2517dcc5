//! The reconciler and the keeper over a small upstream with a log.

use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::actors::source::Source;
use crate::actors::testing::{PATIENCE, source_of};
use crate::actors::{keeper, limiter, reconciler};
use crate::connectors::{
    Absence, Asked, Connector, Credential, FeedOrder, HookPolicy, HookSecret, ListQuery, Making, Page, Refusal, Registered, Registration,
    RegistrationError, Request, ResourceSpec, Resume, Statements, Unreadable, Verified,
};
use crate::model::ordering::{By, Spans};
use crate::model::{Delivery, Entity, Event, HookRequest, Key, Operation, Push, Sequence};
use crate::reconcile::Mode;
use crate::retry::RetryPolicy;
use crate::store::testing::{on_both, source as name, tasks, texts};
use crate::store::{Batch, Store};
use crate::supervision::{Ended, Policy, Roster, STEP_BUDGET, Tree, run_root};
use crate::upstream::testing::{Fake, Told, answer};

const FEED: &str = "EntityEvent";
const OVERLAP: u64 = 5;

/// A connector of tasks that are told of by a log of `[number, key]`.
#[derive(Debug)]
struct Logged {
    root: String,
    specs: Vec<ResourceSpec>,
    feeds: Vec<FeedSpec>,
    resume: Option<Resume>,
}

fn get(url: String, endpoint: &str) -> Request {
    let endpoint = endpoint.to_owned();
    let (method, credential) = (http::Method::GET, Credential::Read);
    Request { method, url, headers: Vec::new(), body: None, endpoint, credential, declared_write: false }
}

impl Logged {
    fn new(root: &str, resume: Option<Duration>, page: usize) -> Self {
        let day = Duration::from_secs(86_400);
        let spec = ResourceSpec {
            name: tasks(),
            columns: Vec::new(),
            mode: Mode::Sweep,
            variants: 1,
            bulk: 1,
            spans: Spans { read_lag: Duration::ZERO, list_lag: Duration::ZERO, version_skew: Duration::ZERO, tombstones: day },
            absence: Absence::ByKey,
            poll: day,
            sweep: day,
            keep_deleted: day,
            parent: None,
            inherits: false,
            values: None,
        };
        let order = FeedOrder::Numbers { overlap: OVERLAP, page, label: "a".to_owned() };
        let write = |after| {
            let request = Request { method: http::Method::POST, declared_write: true, ..get(format!("{root}resume"), "/resume") };
            Resume { request, after }
        };
        let feeds = vec![FeedSpec { name: FEED, order }];
        Self { root: root.to_owned(), specs: vec![spec], feeds, resume: resume.map(write) }
    }
}

impl Connector for Logged {
    fn kind(&self) -> &'static str {
        "logged"
    }
    fn resources(&self) -> &[ResourceSpec] {
        &self.specs
    }
    fn feeds(&self) -> &[FeedSpec] {
        &self.feeds
    }
    fn hook_routes(&self) -> Vec<&'static str> {
        Vec::new()
    }
    fn hook_policy(&self, _: &str) -> Option<HookPolicy> {
        None
    }
    fn resume(&self) -> Option<Resume> {
        self.resume.clone()
    }
    fn verify(&self, _: &HookRequest, _: &[HookSecret], _: Timestamp) -> Result<Verified, Refusal> {
        Err(Refusal::Route)
    }
    fn events(&self, _: &Delivery) -> Result<Statements, Unreadable> {
        Ok(Statements::default())
    }
    fn fetch(&self, _: &ResourceSpec, keys: &[Key], _: By) -> Request {
        get(format!("{}tasks/{}", self.root, keys[0]), "/tasks")
    }
    fn lists(&self, _: &ResourceSpec) -> crate::reconcile::Lists {
        crate::reconcile::Lists { variants: 1, page: 100, above: None }
    }
    fn list(&self, _: &ResourceSpec, _: ListQuery<'_>) -> Request {
        get(format!("{}tasks", self.root), "/tasks")
    }
    fn read(&self, _: &ResourceSpec, _: Asked<'_>, response: &Response) -> Result<Page, ReadError> {
        if response.status == 200 { Ok(Page::default()) } else { Err(ReadError::Server(response.status)) }
    }
    fn feed(&self, _: &FeedSpec, position: FeedPosition<'_>) -> Request {
        let query = match position {
            FeedPosition::Number { after, page } => format!("after={after}&page={page}"),
            _ => "newest".to_owned(),
        };
        get(format!("{}log?{query}", self.root), "/log")
    }
    fn read_feed(&self, _: &FeedSpec, response: &Response) -> Result<FeedPage, ReadError> {
        if response.status != 200 {
            return Err(ReadError::Server(response.status));
        }
        let body: Value = serde_json::from_slice(&response.body).map_err(|_| ReadError::Malformed("no rows"))?;
        let Value::Array(rows) = body else { return Ok(FeedPage { rows: Vec::new(), next: Some("more".to_owned()) }) };
        let rows = rows.iter().map(|row| match row[0].as_i64() {
            Some(number) => Ok(FeedRow { id: number.to_string(), number: Some(number), at: None, event: Some(event(number, &row[1])) }),
            None => Err(Unreadable { key: None, reason: "no number".to_owned(), raw: row.to_string().into() }),
        });
        Ok(FeedPage { rows: rows.collect(), next: None })
    }
    fn authorize(&self, _: &Request, _: &str) -> Vec<(String, String)> {
        Vec::new()
    }
    fn registrations(&self) -> Vec<Registration> {
        Vec::new()
    }
    fn list_registrations(&self, _: Option<&str>) -> Request {
        get(self.root.clone(), "/")
    }
    fn read_registrations(&self, _: &Response, _: &dyn Fn(&str) -> String) -> Result<(Vec<Registered>, Option<String>), RegistrationError> {
        Ok((Vec::new(), None))
    }
    fn create_registration(&self, _: &Registration, _: Making<'_>) -> Option<Request> {
        None
    }
    fn delete_registration(&self, _: &str) -> Request {
        get(self.root.clone(), "/")
    }
}

fn event(number: i64, key: &Value) -> Event {
    let entity = Entity { resource: tasks(), key: Key::new(key.as_str().expect("a key")).expect("a key") };
    let sequence = Some(Sequence { label: "a".to_owned(), number });
    Event { entity, operation: Operation::Update, version: None, push: Push::Hint, sequence, via: "feed" }
}

type Log = Arc<Mutex<Vec<Value>>>;

/// What the server does with a log, whose only row may be `away` or `more`: it fails, or shows nothing and says that there is more.
fn reply(log: &Log, cap: usize, head: &str) -> Told {
    let target = head.split(' ').nth(1).unwrap_or_default();
    if !target.starts_with("/log") {
        return answer(200, "{}");
    }
    let rows = log.lock().expect("whole").clone();
    if rows == [json!("away")] {
        return answer(500, "");
    }
    if rows == [json!("more")] {
        return answer(200, if target.contains("after=") { "{}" } else { "[]" });
    }
    let number = |name: &str| target.split(name).nth(1).and_then(|rest| rest.split('&').next()?.parse::<i64>().ok());
    let rows: Vec<Value> = match number("after=") {
        Some(after) => {
            let page = number("page=").expect("a page") as usize;
            rows.into_iter().filter(|row| row[0].as_i64().is_none_or(|n| n > after)).take(page.min(cap)).collect()
        }
        None => rows.last().cloned().into_iter().collect(),
    };
    answer(200, &Value::from(rows).to_string())
}

struct Running {
    store: Store,
    source: Arc<Source>,
    fake: Fake,
    log: Log,
    stopping: CancellationToken,
    root: tokio::task::JoinHandle<Ended>,
}

impl Running {
    async fn start(store: &Store, rows: &[Value], resume: Option<Duration>) -> Self {
        Self::paced(store, rows, resume, (3, usize::MAX), Duration::from_millis(20)).await
    }

    /// So many rows of a page are asked for, and so many shown at most.
    async fn paced(store: &Store, rows: &[Value], resume: Option<Duration>, (page, cap): (usize, usize), feed_poll: Duration) -> Self {
        let log: Log = Arc::new(Mutex::new(rows.to_vec()));
        let shown = Arc::clone(&log);
        let fake = Fake::start(move |head| reply(&shown, cap, head)).await;
        let connector = Arc::new(Logged::new(fake.url.as_str(), resume, page));
        let mut source = source_of(store, &fake.url, connector, Arc::new(|_| Ok("token".to_owned())), (10_000, PATIENCE));
        source.settings.feeds = true;
        source.settings.passes = true;
        source.settings.feed_poll = feed_poll;
        source.settings.public_url = resume.map(|_| "https://hooks.example".to_owned());
        let source = Arc::new(source);
        source.own(Some(store.claim(&name(), "test").await.expect("claimed")));
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
        let actors = [reconciler::spec(Arc::clone(&source)), keeper::spec(Arc::clone(&source))];
        let children = std::iter::once(limiter::spec(options, source.limiter.clone())).chain(actors).collect();
        let (roster, reporter) = (Roster::default(), source.reporter.clone());
        let tree = Tree { path: "root".into(), children, policy, roster, reporter, clock: source.clock };
        let stopping = CancellationToken::new();
        let cx = Context::new("logs", source.clock, STEP_BUDGET, stopping.clone());
        let root = TaskTracker::new().spawn(async move { run_root(tree, cx).await.expect("the root starts") });
        Self { store: store.clone(), source, fake, log, stopping, root }
    }

    fn set(&self, rows: &[Value]) {
        *self.log.lock().expect("whole") = rows.to_vec();
        self.source.reconciler.wake();
    }

    async fn until(&self, what: &str, sql: &str, expected: &[&str]) {
        let met = async {
            while texts(&self.store, sql).await != expected {
                self.source.reconciler.wake();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, met).await.is_err() {
            panic!("{what}: {:?} and not {expected:?}; asked: {:#?}", texts(&self.store, sql).await, self.fake.asked());
        }
    }

    async fn asked(&self, what: &str) {
        let met = async {
            while !self.fake.asked().iter().any(|head| head.contains(what)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, met).await.is_ok(), "{what}: {:#?}", self.fake.asked());
    }

    async fn stop(self) {
        self.stopping.cancel();
        assert_eq!(self.root.await.expect("joined"), Ended::Stopped);
    }
}

fn rows(numbers: impl IntoIterator<Item = i64>) -> Vec<Value> {
    numbers.into_iter().map(|n| json!([n, format!("k{n}")])).collect()
}

const HIGH: &str = "select high as v from instep_log where walk_after is null";
const NOTED: &str = "select number as v from instep_sequence order by number";
const GAPS: &str = "select cause as v from instep_gap order by id";

#[tokio::test]
async fn a_log_is_read_from_its_newest_row_on_before_the_backfill_begins() {
    on_both(|store| async move {
        let running = Running::start(&store, &rows(1..=20), None).await;
        running.until("it stands", HIGH, &["20"]).await;
        running.asked("GET /tasks").await;
        let asked = running.fake.asked();
        assert!(asked[0].starts_with("GET /log?newest"), "what changes from here on is told: {asked:#?}");
        assert!(!asked.iter().any(|head| head.contains("after=-1")), "the backfill reads what was before");
        // Ten numbers at once, more than the overlap and a page; one becomes visible late.
        running.set(&rows((1..=24).chain(26..=30)));
        running.until("it has moved", HIGH, &["30"]).await;
        running.set(&rows(1..=30));
        let all: Vec<String> = (15..=30).map(|n| n.to_string()).collect();
        running.until("the late one is met", NOTED, &all.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert_eq!(texts(&store, GAPS).await, Vec::<String>::new());
        running.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_backlog_behind_pages_that_a_server_caps_is_read_at_once() {
    on_both(|store| async move {
        // No links, and ten rows whatever is asked: more than the overlap, so that a page alone moves by four.
        let running = Running::paced(&store, &rows(1..=9), None, (100, 10), Duration::from_secs(1)).await;
        running.until("it stands", HIGH, &["9"]).await;
        running.set(&rows(1..=13));
        running.until("ten rows are all that there are", HIGH, &["13"]).await;
        running.set(&rows(1..=300));
        // A page a poll would take more than a minute, which is beyond the test's patience.
        running.until("it has moved", HIGH, &["300"]).await;
        running.until("nothing is passed over", "select count(*) as v from instep_sequence", &["297"]).await;
        running.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_log_that_says_that_there_is_more_and_shows_nothing_is_left_alone_for_a_while() {
    on_both(|store| async move {
        let running = Running::start(&store, &rows(1..=3), None).await;
        running.until("it stands", HIGH, &["3"]).await;
        running.set(&[json!("more")]);
        let told = async {
            while running.source.ailing.lock().expect("whole").get(FEED).map(String::as_str) != Some(LEADS_NOWHERE) {
                running.source.reconciler.wake();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, told).await.expect("it is told of");
        let before = running.fake.asked().len();
        // That nothing happens is no condition to wait for: ten polls' time.
        tokio::time::sleep(Duration::from_millis(200)).await;
        running.source.reconciler.wake();
        assert_eq!(running.fake.asked().len(), before, "{:#?}", running.fake.asked());
        assert_eq!(texts(&store, HIGH).await, ["3"]);
        running.stop().await;
    })
    .await;
}

#[tokio::test]
async fn what_a_delivery_announced_the_log_tells_once_more_and_marks_nothing() {
    on_both(|store| async move {
        let running = Running::start(&store, &rows(1..=3), None).await;
        running.until("the log is read", NOTED, &["1", "2", "3"]).await;
        let fence = running.source.fence_now().expect("owned");
        let event = Event { via: "hook", ..event(9, &json!("k9")) };
        let pushed = Observed { entity: event.entity.clone(), what: What::Event(event), delivery: None };
        let batch = Batch { observations: vec![pushed], ..running.source.batch(LearnedBy::Hook) };
        store.apply(&fence, &batch).await.expect("applied");
        running.set(&rows([1, 2, 3, 9, 10]));
        running.until("it has moved", HIGH, &["10"]).await;
        let told = "select key || ' ' || via || ' ' || (case when outcome = 'duplicate' then 'again' else 'first' end) as v \
                    from instep_outcome where key in ('k9', 'k10') order by key, via desc";
        assert_eq!(texts(&store, told).await, ["k10 feed first", "k9 hook first", "k9 feed again"]);
        // The overlap shows both once more.
        running.set(&rows([1, 2, 3, 9, 10, 11]));
        running.until("it has moved", HIGH, &["11"]).await;
        assert_eq!(texts(&store, told).await, ["k10 feed first", "k9 hook first", "k9 feed again"]);
        running.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_log_that_begins_anew_is_noticed_and_a_sweep_repairs() {
    on_both(|store| async move {
        for anew in [rows(1..=4), vec![json!([38, "x"]), json!([40, "another"]), json!([41, "k41"])]] {
            crate::store::testing::break_schema(&store, "delete from instep_log").await;
            crate::store::testing::break_schema(&store, "delete from instep_gap").await;
            crate::store::testing::break_schema(&store, "delete from instep_sequence").await;
            let running = Running::start(&store, &rows(30..=40), None).await;
            running.until("it is read", "select max(number) as v from instep_sequence", &["40"]).await;
            running.set(&anew);
            let newest = anew[anew.len() - 1][0].to_string();
            running.until("it stands at the new end", HIGH, &[&newest]).await;
            running.until("told", "select cause as v from instep_gap where cause = 'log_restarted'", &["log_restarted"]).await;
            running.until("a sweep repairs", "select distinct state as v from instep_gap", &["repaired"]).await;
            running.stop().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_log_that_is_read_late_opens_a_gap() {
    on_both(|store| async move {
        let running = Running::start(&store, &[json!("away")], None).await;
        running.until("the backfill", "select count(*) as v from instep_progress where sweep_at is not null", &["1"]).await;
        running.source.reconciler.wake();
        running.set(&rows(1..=4));
        running.until("told", GAPS, &["feed_began_late"]).await;
        running.until("a sweep repairs", "select state as v from instep_gap", &["repaired"]).await;
        running.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_put_aside_once() {
    on_both(|store| async move {
        let running = Running::start(&store, &rows(1..=3), None).await;
        running.until("it stands", HIGH, &["3"]).await;
        running.set(&[json!([3, "k3"]), json!(["?", "k4"]), json!([5, "k5"])]);
        running.until("it has moved", HIGH, &["5"]).await;
        let polled = texts(&store, "select polled_at as v from instep_log").await;
        running.until("polled again", &format!("select count(*) as v from instep_log where polled_at > {}", polled[0]), &["1"]).await;
        assert_eq!(texts(&store, "select reason as v from instep_quarantine").await, ["no number"]);
        running.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_sender_whose_log_tells_what_no_delivery_announced_is_asked_to_resume() {
    on_both(|store| async move {
        let running = Running::start(&store, &rows(1..=3), Some(Duration::from_millis(50))).await;
        running.asked("POST /resume").await;
        running.stop().await;
    })
    .await;
}
