//! The store goes away under load and comes back: the process stays, says so, refuses in time, loses nothing and goes on.
//!
//! PostgreSQL is a server of the test's own: stopped, frozen, read-only, cut off. SQLite lies on a small file system of the
//! test's own that is filled up, is refused writes (`EROFS`, as of a file system that turned read-only under open files), and
//! loses an fsync. The short form has outages of a few seconds. The long one has 120 s without a server and 60 s of everything
//! else: `INSTEP_LONG=1 cargo test --release --features failpoints --test it store_away -- --nocapture --test-threads=1`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::support::pace::Answer;
use crate::support::{Paced, Universe, eventually, is_long, monotonic, until};

mod boot;
mod postgres;
mod sqlite;

/// Deliveries a second meanwhile.
const PER_SECOND: u32 = 40;
/// From the loss to the 503 of `/readyz`, at most.
const NOTICED: Duration = Duration::from_secs(2);
/// From the store's return to the first 200, at most.
const RECOVERED: Duration = Duration::from_secs(5);
/// From request to answer, at most. The daemon gives up after 700 ms; beside other tests on a busy machine it and the one who
/// measures may have to wait for the processor as well.
fn answered() -> Duration {
    Duration::from_secs(if is_long() { 1 } else { 2 })
}

/// How often the probe looks.
const PROBE_EVERY: Duration = Duration::from_millis(50);

/// How long an outage is: `long` seconds, or a few of them.
fn span(long: u64) -> Duration {
    Duration::from_secs(if is_long() { long } else { 3 })
}

/// Looks at `/readyz` and `/livez` all the time.
struct Probe {
    seen: Arc<Mutex<Vec<Seen>>>,
    _looker: JoinSet<()>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Duration,
    ready: Option<u16>,
    live: Option<u16>,
    took: Duration,
}

impl Probe {
    fn start(universe: &Universe) -> Self {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (client, port, list) = (universe.client.clone(), universe.admin_port, Arc::clone(&seen));
        let mut looker = JoinSet::new();
        looker.spawn(async move {
            let ask = async |path: &str| {
                let answer = client.get(format!("http://127.0.0.1:{port}/{path}")).send().await;
                answer.ok().map(|answer| answer.status().as_u16())
            };
            let mut ticks = tokio::time::interval(PROBE_EVERY);
            loop {
                ticks.tick().await;
                let at = monotonic();
                let (ready, live) = (ask("readyz").await, ask("livez").await);
                list.lock().unwrap_or_else(PoisonError::into_inner).push(Seen { at, ready, live, took: monotonic() - at });
            }
        });
        Self { seen, _looker: looker }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first look since `from` that found `/readyz` with this status.
    async fn wait(&self, status: u16, from: Duration, within: Duration) -> Duration {
        eventually(&format!("/readyz is {status}"), within + RECOVERED, async || {
            let seen = self.seen();
            let found = seen.iter().find(|seen| seen.at >= from && seen.ready == Some(status));
            found.map(|seen| seen.at - from).ok_or_else(|| format!("{:?}", seen.last()))
        })
        .await
    }
}

/// A universe under load that is watched while its store goes away.
struct Watched<'a> {
    engine: &'static str,
    universe: &'a mut Universe,
    load: Paced,
    probe: Probe,
    pid: u32,
    /// Nothing at all can be stored while the store is away.
    is_total: bool,
}

impl<'a> Watched<'a> {
    async fn start(engine: &'static str, universe: &'a mut Universe) -> Self {
        let keys = universe.sandbox.keys("tasks").await;
        let load = Paced::start(universe.hooks_port, keys, PER_SECOND);
        let (probe, pid) = (Probe::start(universe), universe.daemon().pid());
        let watched = Self { engine, universe, load, probe, pid, is_total: true };
        watched.accepts(monotonic(), RECOVERED).await;
        watched
    }

    /// The first delivery sent since `from` that was accepted.
    async fn accepts(&self, from: Duration, within: Duration) -> Duration {
        eventually("a delivery is accepted", within + RECOVERED, async || {
            let answers = self.load.answers();
            let accepted = answers.iter().filter(|answer| answer.sent >= from && answer.status == Some(200));
            accepted.map(|answer| answer.answered - from).min().ok_or_else(|| format!("{:?}", answers.last()))
        })
        .await
    }

    /// Takes the store away for a while and judges everything that is promised of it. `away` answers with when it was gone.
    async fn outage(&mut self, name: &str, span: Duration, away: impl AsyncFnOnce() -> Duration, back: impl AsyncFnOnce()) {
        let begun = monotonic();
        let gone = away().await;
        let noticed = self.probe.wait(503, gone, NOTICED).await;
        until(gone + span).await;
        let returning = monotonic();
        back().await;
        let returned = monotonic();
        let ready = self.probe.wait(200, returned, RECOVERED).await;
        let accepted = self.accepts(returned, RECOVERED).await;
        let restarts = self.restarts().await;

        let answers = self.load.answers();
        let meanwhile: Vec<Answer> = answers.into_iter().filter(|answer| answer.sent >= gone && answer.answered <= returning).collect();
        let refused = meanwhile.iter().filter(|answer| answer.status == Some(503) && answer.retry_after).count();
        let slowest = meanwhile.iter().map(Answer::took).max().unwrap_or_default();
        let seen = self.probe.seen();
        let dead = seen.iter().filter(|seen| seen.at >= begun && seen.live != Some(200)).count();
        let slow_probe = seen.iter().filter(|seen| seen.at >= begun).map(|seen| seen.took).max().unwrap_or_default();
        println!(
            "store_away {} {name} for {span:?}: /readyz 503 after {noticed:.2?}, {refused} of {} hooks 503 with Retry-After, the slowest \
             {slowest:.2?}; back: ready after {ready:.2?}, 200 after {accepted:.2?}; {restarts} restarts; /livez failed {dead} times, the \
             slowest pair of probes {slow_probe:.2?}",
            self.engine,
            meanwhile.len()
        );
        assert!(noticed <= NOTICED, "/readyz: {noticed:?}");
        assert!(ready <= RECOVERED && accepted <= RECOVERED, "ready {ready:?}, accepted {accepted:?}");
        assert!(meanwhile.len() as u32 >= PER_SECOND, "{} hooks were answered meanwhile", meanwhile.len());
        let is_right = |answer: &Answer| answer.status == Some(503) && answer.retry_after || !self.is_total && answer.status == Some(200);
        let others: Vec<_> = meanwhile.iter().filter(|answer| !is_right(answer)).collect();
        assert!(others.is_empty(), "{} other answers, such as {:?}", others.len(), others[0]);
        assert!(slowest <= answered(), "{slowest:?}");
        assert_eq!((restarts, dead), (0, 0), "restarts, and probes of /livez that failed");
        assert!(self.universe.daemon().ended().is_none() && self.universe.daemon().pid() == self.pid, "it is the same process");
    }

    async fn restarts(&self) -> u64 {
        let status = self.universe.status().await.expect("the status");
        assert_eq!(status["pid"], self.pid, "the same process");
        let actors = status["actors"].as_object().expect("actors");
        assert!(actors.values().all(|actor| actor["state"] == "running"), "{actors:?}");
        actors.values().filter_map(|actor| actor["restarts"].as_u64()).sum()
    }

    /// Ends the load and the process, as a power cut would; everything acknowledged is there and worked in.
    async fn end(self) {
        let (ledger, answers) = self.load.end().await;
        self.universe.kill();
        self.universe.run().await;
        settled(self.universe, &ledger).await;
        println!("store_away {}: {} acknowledged of {}, none lost", self.engine, ledger.len(), answers.len());
    }
}

/// Waits until everything is worked in, and holds it against what was acknowledged.
async fn settled(universe: &Universe, ledger: &crate::support::load::Ledger) {
    universe.backfilled().await;
    universe.in_step(Duration::from_secs(60)).await;
    let stored = universe.database.texts("select dedupe as v from instep_delivery").await.into_iter().collect();
    assert!(ledger.len() > 0, "nothing was acknowledged");
    assert_eq!(ledger.missing_from(&stored), 0, "acknowledged deliveries are lost");
    assert_eq!(universe.database.number("select count(*) as n from instep_quarantine").await, 0, "an outage is nobody's fault");
}
