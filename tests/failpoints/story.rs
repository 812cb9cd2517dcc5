//! A universe that goes through one death after the other, and what must hold at its end.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use serde_json::json;

use super::{ABORTED, FORGIVE, Points, REACHED, with_points};
use crate::failpoints_table::By;
use crate::support::{Database, Engine, Load, Setup, Universe, eventually, is_long, monotonic};

/// Tasks are compared all the time; companies refuse `filter[id]`, so that reading them in bulk has to be given up.
const RESOURCES: [(&str, &str); 2] = [("companies", "poll = \"30s\""), ("tasks", "poll = \"1s\", sweep = \"2s\"")];
/// How often tasks are swept.
const SWEEP: Duration = Duration::from_secs(2);
/// Every record may go: what is removed here is not what is tested.
const SOURCE: &str = "brake = { share = 1.0, rows = 1000 }";
/// Far more than is needed, in a window that is longer than the pauses of a 429.
const QUOTA: &str = "quota = [{ requests = 20000, per = \"10s\" }, { concurrent = 8 }]";
/// A restart is ready within this.
const READY: Duration = Duration::from_secs(2);
/// The same where many tests share the processor: enough to find a hang.
const READY_LOADED: Duration = Duration::from_secs(15);
/// Each death costs a twentieth of every rate limit for a minute, as it must. Nobody dies so often but here, where the upstream
/// has no limits, so the costs of so many deaths are forgiven at once.
const DEATHS_IN_BUDGET: usize = 8;

/// One universe through many lives.
pub(super) struct Story {
    pub(super) universe: Universe,
    points: Option<Points>,
    load: Option<Load>,
    keys: Vec<String>,
    /// From the start of the process to `/readyz` 200, in milliseconds.
    ready_ms: Vec<u128>,
    deaths: usize,
    n_pokes: Cell<usize>,
    n_gone: Cell<usize>,
}

impl Story {
    /// A universe that is not yet started.
    pub(super) fn new(database: Database) -> Self {
        let sandbox = ["--retries", "1000", "--retries-over-ms", "1000000", "--no-id-filter", "companies"].map(str::to_owned).to_vec();
        let setup = Setup { entities: 400, resources: RESOURCES.to_vec(), source: SOURCE, sandbox, quota: QUOTA, ..Setup::default() };
        let universe = Universe::new(database, &setup);
        Self {
            universe,
            points: None,
            load: None,
            keys: Vec::new(),
            ready_ms: Vec::new(),
            deaths: 0,
            n_pokes: Cell::default(),
            n_gone: Cell::default(),
        }
    }

    /// A universe that runs: complete, with webhooks, under load.
    pub(super) async fn running(database: Database) -> Self {
        let mut story = Self::new(database);
        story.launch("");
        story.universe.ready().await;
        story.universe.backfilled().await;
        story.register().await;
        story.keys = story.universe.sandbox.keys("tasks").await;
        story.load = Some(Load::start(story.universe.hooks_port, story.keys.clone(), 2));
        story
    }

    pub(super) fn engine(&self) -> Engine {
        self.universe.database.engine
    }

    pub(super) fn launch(&mut self, points: &str) {
        self.universe.launch(&mut with_points(self.universe.command(), points));
        self.points = Some(Points::of(self.universe.daemon()));
    }

    /// Starts the daemon without points and measures how long it takes to be ready.
    pub(super) async fn restart(&mut self) {
        let begin = monotonic();
        self.launch("");
        self.universe.ready().await;
        let took = monotonic() - begin;
        self.ready_ms.push(took.as_millis());
        let bound = if is_long() { READY } else { READY_LOADED };
        assert!(took <= bound, "ready only after {took:?}");
    }

    /// Everything that a daemon ever kept is gone.
    pub(super) async fn forget_everything(&mut self) {
        self.universe.kill();
        self.universe.database.disconnect().await;
        let state = self.universe.database.state();
        if self.engine() == Engine::Postgres {
            let sql = "drop schema if exists instep cascade; drop schema public cascade; create schema public";
            self.universe.database.execute(sql).await;
            let _ = std::fs::remove_dir_all(&state);
            std::fs::create_dir(&state).expect("our own folder");
        } else if state.exists() {
            std::fs::remove_dir_all(&state).expect("our own folder");
        }
    }

    /// Brings the daemon to the point with these actions, from a start or from its running, and waits until `done` answers.
    pub(super) async fn reach<T>(&mut self, point: &str, actions: &str, by: By, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        match by {
            By::FreshStart => self.forget_everything().await,
            By::Start => self.universe.kill(),
            By::StartAfter(sql) => {
                self.universe.kill();
                self.universe.database.execute(sql).await;
            }
            By::DeathWhileDecoding => self.leave_a_name().await,
            By::NoBulk => {
                self.universe.kill();
                self.universe.database.execute("update instep_progress set bulk_unsupported = false").await;
            }
            _ => self.points.as_mut().expect("it was started").set_deadly(point, actions),
        }
        if !self.universe.is_launched() {
            self.launch(&format!("{point}={actions}"));
        }
        let every = if matches!(by, By::SilentDelete | By::FailingReads) { SWEEP } else { Duration::from_millis(100) };
        let (mut poked_at, mut said) = (None, String::new());
        eventually(&format!("{point} is reached"), REACHED, async || {
            if let Some(found) = done(self) {
                return Ok(found);
            }
            let now = monotonic();
            if poked_at.is_none_or(|at| now - at > every) {
                poked_at = Some(now);
                said = self.poke(by).await;
            }
            Err(format!("not yet; {said}"))
        })
        .await
    }

    /// The daemon dies at the point, when it is reached for the `hit`th time.
    pub(super) async fn die_at(&mut self, point: &str, hit: u32, by: By) {
        let actions = if hit > 1 { format!("{}*off->return(abort)", hit - 1) } else { "return(abort)".to_owned() };
        let told = format!("fail point {point}: abort");
        let before = self.told(&told);
        let status = self.reach(point, &actions, by, |story| story.universe.daemon().ended()).await;
        assert_eq!(status.signal(), Some(ABORTED), "{point} hit {hit}: {status}");
        // Two threads may have been there at once.
        assert!(self.told(&told) > before, "{point} hit {hit}: it died elsewhere");
        self.universe.kill();
        self.deaths += 1;
        if self.load.is_some() && self.deaths.is_multiple_of(DEATHS_IN_BUDGET) {
            self.universe.database.execute(FORGIVE).await;
        }
    }

    /// How often the daemon has written this line.
    pub(super) fn told(&mut self, line: &str) -> usize {
        let log = std::fs::read_to_string(self.universe.folder("daemon.log")).unwrap_or_default();
        log.lines().filter(|said| *said == line).count()
    }

    /// What a restart must find again: the upstream answers, and our webhooks stand.
    pub(super) async fn tidy_up(&mut self, by: By) {
        match by {
            By::FailingReads => drop(self.universe.sandbox.control("faults", json!({ "upstream_5xx": 0.0 })).await),
            By::Refusals => drop(self.universe.sandbox.control("faults", json!({ "inject_429": 0.0 })).await),
            By::HooksCreate => {
                self.every_token_is_known().await;
                // It may have died when the old ones were removed and no new one was made.
                self.register().await;
            }
            By::HooksDelete => self.register().await,
            _ => {}
        }
    }

    /// A webhook whose create was cut off is found by its address; without its token its deliveries would be refused.
    async fn every_token_is_known(&self) {
        let sandbox = &self.universe.sandbox;
        eventually("every webhook's token is known", Duration::from_secs(20), async || {
            let standing = sandbox.truth("webhooks").await;
            let known = self.universe.database.texts("select upstream_id as v from instep_registration where secret is not null").await;
            let unknown = standing.keys().filter(|id| !known.contains(*id)).count();
            if unknown == 0 { Ok(()) } else { Err(format!("{unknown} of {}", standing.len())) }
        })
        .await;
    }

    /// Registers webhooks; the daemon may not own its source yet.
    async fn register(&mut self) {
        eventually("webhooks are registered", Duration::from_secs(20), async || {
            let made = self.universe.verb(&["hooks", "create", "pmp"]);
            if made.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&made.stderr).into_owned()) }
        })
        .await;
    }

    /// As if the process had died while it decoded a delivery; of each delivery only once.
    async fn leave_a_name(&mut self) {
        self.universe.kill();
        let sql = format!("select id as v from instep_delivery order by id limit 1 offset {}", self.deaths);
        let id = self.universe.database.texts(&sql).await.pop().expect("there are deliveries");
        let id: uuid::Uuid = id.parse().expect("ids are uuids");
        std::fs::write(self.universe.database.state().join("decoding-pmp"), id.as_bytes()).expect("our own folder");
    }

    /// Does what makes the daemon pass, and tells what came of it; the load and the passes go on anyway.
    async fn poke(&self, by: By) -> String {
        let n = self.n_pokes.replace(self.n_pokes.get() + 1);
        let sandbox = &self.universe.sandbox;
        match by {
            By::FreshStart | By::Start | By::StartAfter(_) | By::DeathWhileDecoding => {}
            // Other tests' universes.
            By::Cascade | By::Log | By::HooksInvite | By::HooksRevoke => {}
            By::Wish | By::Decision | By::Quarantine | By::Repair | By::Adopt => {}
            By::Deliveries | By::Passes | By::FailingReads | By::Refusals => {
                if by == By::FailingReads {
                    // Not all of them: behind an open breaker nothing is read, so nothing fails.
                    sandbox.control("faults", json!({ "upstream_5xx": 0.5 })).await;
                }
                if by == By::Refusals {
                    // Shorter pauses are not kept.
                    sandbox.control("faults", json!({ "inject_429": 1.0, "inject_429_reset_s": 3 })).await;
                }
                // The first half changes; what goes silently is of the second.
                let key = &self.keys[n % (self.keys.len() / 2)];
                let title = format!("change {n}");
                sandbox.control("update", json!({ "collection": "tasks", "id": key, "attributes": { "title": title } })).await;
            }
            By::SilentDelete => {
                let n_gone = self.n_gone.replace(self.n_gone.get() + 1);
                assert!(n_gone < self.keys.len() / 2, "no record is left that may go");
                let key = &self.keys[self.keys.len() - 1 - n_gone];
                sandbox.control("delete", json!({ "collection": "tasks", "id": key, "announce": false })).await;
            }
            By::NoBulk => {
                let keys = sandbox.keys("companies").await;
                let name = format!("company {n}");
                let update = json!({ "collection": "companies", "id": keys[n % keys.len()], "attributes": { "name": name } });
                sandbox.control("update", update).await;
            }
            // They fail when the daemon dies under them, which is what is wanted.
            By::HooksDelete => return format!("{:?}", self.universe.verb(&["hooks", "delete", "pmp"])),
            By::HooksCreate => {
                // What stands already is only looked at.
                let gone = self.universe.verb(&["hooks", "delete", "pmp"]);
                return format!("{gone:?} {:?}", self.universe.verb(&["hooks", "create", "pmp"]));
            }
        }
        String::new()
    }

    /// The end of it: nothing acknowledged is lost, nothing happened twice, all is in step.
    pub(super) async fn end(mut self, name: &str) {
        let ledger = match self.load.take() {
            Some(load) => Some(load.end().await),
            None => None,
        };
        let universe = &mut self.universe;
        assert!(universe.daemon().ended().is_none(), "the daemon lives");
        universe.sandbox.quiet(Duration::from_secs(90)).await;
        universe.backfilled().await;
        universe.in_step(Duration::from_secs(90)).await;
        let database = &universe.database;
        let n_changes = database.assert_numbers_without_holes().await;
        let quarantined = database.number("select count(*) as n from instep_quarantine").await;
        assert_eq!(quarantined, 0, "a death is no reason to give a delivery up");
        // Every delivery of these tests is one event, and whoever was worked in twice would be told of twice.
        let twice = "select count(*) as n from (select delivery_id from instep_events where delivery_id is not null \
                     group by delivery_id having count(*) > 1) t";
        assert_eq!(database.number(twice).await, 0, "deliveries worked in twice");
        let untold = "select count(*) as n from instep_delivery d where not exists \
                      (select 1 from instep_events e where e.delivery_id = d.id) and d.route like 'task%'";
        assert_eq!(database.number(untold).await, 0, "deliveries that are done and left no event");
        // The upstream stamps every change, so one state that was applied twice has one stamp twice.
        let doubled = "select count(*) as n from (select resource, key, operation, version from instep_changes \
                       where version is not null group by resource, key, operation, version having count(*) > 1) t";
        assert_eq!(database.number(doubled).await, 0, "changes applied twice");
        let (n_acknowledged, n_lost) = match &ledger {
            Some(ledger) => {
                let found: BTreeSet<String> = database.texts("select dedupe as v from instep_delivery").await.into_iter().collect();
                assert!(ledger.len() > 0, "nothing was acknowledged, so nothing was shown");
                (ledger.len(), ledger.missing_from(&found))
            }
            None => (0, 0),
        };
        self.ready_ms.sort_unstable();
        let (p50, max) = (self.ready_ms.get(self.ready_ms.len() / 2), self.ready_ms.last());
        println!(
            "aborts {name} {:?}: {} deaths, {n_acknowledged} acknowledged, {n_lost} lost, {n_changes} changes, 0 twice; ready again in ms: \
             p50 {p50:?}, max {max:?}",
            self.engine(),
            self.deaths
        );
        assert_eq!(n_lost, 0, "acknowledged deliveries are lost");
    }
}
