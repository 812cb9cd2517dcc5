use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::*;
use crate::report::Reporter;

/// A worker whose steps are told from outside.
struct Scripted {
    id: &'static str,
    script: Arc<Mutex<Vec<Script>>>,
    told: mpsc::UnboundedSender<String>,
}

#[derive(Clone, Copy, Debug)]
enum Script {
    Panic,
    Err,
    Hang,
    Rest,
}

impl Work for Scripted {
    async fn step(&mut self, cx: &Context) -> Result<Rest, Bug> {
        let next = self.script.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or(Script::Rest);
        self.tell("step");
        match next {
            Script::Panic => panic!("told to"),
            Script::Err => Err("told to".into()),
            Script::Hang => {
                cx.life.allow(Duration::from_millis(1));
                std::future::pending().await
            }
            Script::Rest => Ok(Rest::For(Duration::from_secs(3600))),
        }
    }

    async fn finish(&mut self, _: &Context) {
        self.tell("finish");
    }
}

impl Scripted {
    fn tell(&self, what: &str) {
        // The test may have ended.
        let _ = self.told.send(format!("{} {what}", self.id));
    }
}

struct Universe {
    told: mpsc::UnboundedReceiver<String>,
    teller: mpsc::UnboundedSender<String>,
    roster: Roster,
    stopping: CancellationToken,
}

impl Universe {
    fn new() -> Self {
        let (teller, told) = mpsc::unbounded_channel();
        Self { told, teller, roster: Roster::default(), stopping: CancellationToken::new() }
    }

    fn child(&self, id: &'static str, meltdown: Meltdown, script: Vec<Script>) -> ChildSpec {
        let (script, told) = (Arc::new(Mutex::new(script)), self.teller.clone());
        worker(id, meltdown, Duration::from_secs(1), Waker::default(), move || Scripted {
            id,
            script: Arc::clone(&script),
            told: told.clone(),
        })
    }

    fn tree(&self, children: Vec<ChildSpec>) -> Tree {
        let backoff = RetryPolicy::new(Duration::from_millis(1), Duration::from_millis(5), 2.0, 0.0).expect("invariant: valid");
        let policy = Policy { backoff, intensity: 2, period: Duration::from_secs(60), park: Duration::from_secs(3600) };
        Tree { path: "root".into(), children, policy, roster: self.roster.clone(), reporter: Reporter::new(), clock: Clock::system() }
    }

    fn run(&self, tree: Tree) -> tokio::task::JoinHandle<Ended> {
        let cx = Context::new("root", Clock::system(), SUPERVISOR_BUDGET, self.stopping.clone());
        #[expect(clippy::disallowed_methods, reason = "the test is the process")]
        tokio::spawn(async move { run_root(tree, cx).await.expect("the root starts") })
    }

    async fn hear(&mut self, wanted: &str) {
        loop {
            let heard = tokio::time::timeout(Duration::from_secs(20), self.told.recv()).await;
            if heard.expect("heard in time").expect("the teller lives") == wanted {
                return;
            }
        }
    }
}

#[tokio::test]
async fn a_failed_child_is_restarted_and_its_siblings_go_on() {
    for script in [Script::Panic, Script::Err] {
        let mut universe = Universe::new();
        let children = vec![universe.child("a", Meltdown::Park, vec![Script::Rest, script]), universe.child("b", Meltdown::Park, vec![])];
        let root = universe.run(universe.tree(children));
        universe.hear("a step").await;
        universe.hear("a step").await;
        assert_eq!(universe.roster.snapshot()["root/a"].restarts, 1, "{script:?}");
        assert_eq!(universe.roster.snapshot()["root/b"].restarts, 0);
        universe.stopping.cancel();
        assert_eq!(root.await.expect("joined"), Ended::Stopped);
    }
}

#[tokio::test]
async fn children_stop_in_reverse_order_and_finish() {
    let mut universe = Universe::new();
    let children = vec![universe.child("a", Meltdown::Park, vec![]), universe.child("b", Meltdown::Park, vec![])];
    let root = universe.run(universe.tree(children));
    universe.hear("b step").await;
    universe.stopping.cancel();
    root.await.expect("joined");
    universe.hear("b finish").await;
    universe.hear("a finish").await;
    assert!(universe.roster.snapshot().values().all(|standing| standing.state == "stopped"));
}

#[tokio::test]
async fn who_stops_last_works_until_the_others_have_ended() {
    /// Ends only after the first has made one more step.
    struct Last {
        first: Waker,
        steps: Arc<AtomicUsize>,
    }
    impl Work for Last {
        async fn step(&mut self, _: &Context) -> Result<Rest, Bug> {
            Ok(Rest::For(Duration::from_secs(3600)))
        }

        async fn finish(&mut self, _: &Context) {
            let before = self.steps.load(Ordering::Acquire);
            self.first.wake();
            while self.steps.load(Ordering::Acquire) == before {
                tokio::task::yield_now().await;
            }
        }
    }
    struct First(Arc<AtomicUsize>);
    impl Work for First {
        async fn step(&mut self, _: &Context) -> Result<Rest, Bug> {
            self.0.fetch_add(1, Ordering::AcqRel);
            Ok(Rest::For(Duration::from_secs(3600)))
        }
    }
    let mut universe = Universe::new();
    let (waker, steps) = (Waker::default(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&steps);
    let first = worker("first", Meltdown::Park, Duration::from_secs(1), waker.clone(), move || First(Arc::clone(&counted)));
    let make = move || Last { first: waker.clone(), steps: Arc::clone(&steps) };
    let last = worker("last", Meltdown::Park, Duration::from_secs(20), Waker::default(), make);
    let root = universe.run(universe.tree(vec![first, last, universe.child("up", Meltdown::Park, vec![])]));
    universe.hear("up step").await;
    universe.stopping.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(10), root).await;
    assert_eq!(ended.expect("the first is not told to stop before the last has ended").expect("joined"), Ended::Stopped);
}

#[tokio::test]
async fn too_many_failures_park_one_child_alone() {
    let mut universe = Universe::new();
    let children = vec![universe.child("bad", Meltdown::Park, vec![Script::Err; 3]), universe.child("good", Meltdown::Park, vec![])];
    let root = universe.run(universe.tree(children));
    for _ in 0..3 {
        universe.hear("bad step").await;
    }
    let parked = async {
        while universe.roster.snapshot()["root/bad"].state != "parked" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), parked).await.expect("parked");
    assert_eq!(universe.roster.snapshot()["root/good"].state, "running");
    universe.stopping.cancel();
    assert_eq!(root.await.expect("joined"), Ended::Stopped);
}

#[tokio::test]
async fn a_critical_child_takes_the_tree_down_in_order() {
    let mut universe = Universe::new();
    let children =
        vec![universe.child("sibling", Meltdown::Park, vec![]), universe.child("critical", Meltdown::Escalate, vec![Script::Panic; 3])];
    let root = universe.run(universe.tree(children));
    assert_eq!(root.await.expect("joined"), Ended::Escalated);
    universe.hear("sibling finish").await;
}

#[tokio::test]
async fn a_silent_child_is_killed_and_restarted() {
    let mut universe = Universe::new();
    let root = universe.run(universe.tree(vec![universe.child("a", Meltdown::Park, vec![Script::Rest, Script::Hang])]));
    universe.hear("a step").await;
    universe.hear("a step").await;
    let standing = universe.roster.snapshot()["root/a"].clone();
    assert!(standing.last_failure.is_some_and(|failure| failure.contains("silent")));
    universe.stopping.cancel();
    root.await.expect("joined");
}

#[tokio::test]
async fn a_start_that_fails_counts_as_a_failure() {
    let mut universe = Universe::new();
    let tries = Arc::new(AtomicUsize::new(0));
    let inner = universe.child("a", Meltdown::Park, vec![]);
    let (start, counted) = (Arc::clone(&inner.start), Arc::clone(&tries));
    let flaky: Start = Arc::new(move |supervisor, cx| {
        if counted.fetch_add(1, Ordering::Relaxed) == 0 {
            return Box::pin(async { Err(SpawnErr::StartupFailed("told to".into())) });
        }
        start(supervisor, cx)
    });
    let root = universe.run(universe.tree(vec![ChildSpec { start: flaky, ..inner }]));
    universe.hear("a step").await;
    assert_eq!(tries.load(Ordering::Relaxed), 2);
    universe.stopping.cancel();
    root.await.expect("joined");
}

#[tokio::test]
async fn a_wake_up_reaches_every_incarnation() {
    let mut universe = Universe::new();
    let waker = Waker::default();
    let told = universe.teller.clone();
    let spec = worker("a", Meltdown::Park, Duration::from_secs(1), waker.clone(), move || Scripted {
        id: "a",
        script: Arc::default(),
        told: told.clone(),
    });
    let root = universe.run(universe.tree(vec![spec]));
    universe.hear("a step").await;
    waker.wake();
    universe.hear("a step").await;
    universe.stopping.cancel();
    root.await.expect("joined");
}

#[tokio::test]
async fn a_parked_child_is_tried_again() {
    let mut universe = Universe::new();
    let mut tree = universe.tree(vec![universe.child("bad", Meltdown::Park, vec![Script::Rest, Script::Err, Script::Err, Script::Err])]);
    tree.policy.park = Duration::from_millis(20);
    let root = universe.run(tree);
    for _ in 0..4 {
        universe.hear("bad step").await;
    }
    let standing = universe.roster.snapshot()["root/bad"].clone();
    assert_eq!((standing.state, standing.restarts), ("running", 3));
    universe.stopping.cancel();
    root.await.expect("joined");
}

#[tokio::test]
async fn a_restarted_supervisor_knows_how_often_its_children_were() {
    let mut universe = Universe::new();
    let child = universe.child("a", Meltdown::Escalate, vec![Script::Rest, Script::Err, Script::Err, Script::Err, Script::Err]);
    let below = Tree { path: "root/below".into(), ..universe.tree(vec![child]) };
    let root = universe.run(universe.tree(vec![supervisor("below", Meltdown::Park, below)]));
    for _ in 0..5 {
        universe.hear("a step").await;
    }
    let standings = universe.roster.snapshot();
    assert_eq!(standings["root/below"].restarts, 1, "the third failure was one too many");
    assert_eq!(standings["root/below/a"].restarts, 4, "none of them is forgotten");
    universe.stopping.cancel();
    root.await.expect("joined");
}

#[test]
fn a_task_that_is_not_polled_is_overdue_whatever_it_announced() {
    let life = Life::new(Clock::system());
    life.allow(Duration::from_secs(3600));
    life.pulse_until_ms.store(0, Ordering::Relaxed);
    while life.overdue().is_zero() {
        std::thread::yield_now();
    }
    life.beat();
    assert!(life.overdue().is_zero());
    life.pulse_until_ms.store(0, Ordering::Relaxed);
    life.rest();
    assert!(life.overdue().is_zero(), "nobody expects a pulse of who rests");
}
