//! The supervisor actor: one-for-one, ordered start and stop, restarts with backoff, intensity, signs of life.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ractor::concurrency::JoinHandle;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, ActorStatus, MessagingErr, SpawnErr, SupervisionEvent};
use tokio_util::sync::CancellationToken;

use super::{ChildSpec, Context, Meltdown, Policy, Roster, Standing, millis};
use crate::clock::Clock;
use crate::report::{ActorKilled, ActorParked, ActorRestarted, ActorStarted, Reporter};

/// How often children's signs of life are looked at.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// A look that comes later than this tells of a process or machine that stood still, and nothing of who was silent meanwhile.
const CHECK_LATE: Duration = Duration::from_secs(3);
/// A supervisor starts children, which is quick, and looks at them every second; before it stops them it says how long that may take.
pub const SUPERVISOR_BUDGET: Duration = Duration::from_secs(5);
/// A killed actor that has not ended after this has its thread blocked.
const KILL_GRACE: Duration = Duration::from_secs(10);

/// A subtree as data: children start in this order and stop in reverse.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Where it stands, e.g. `root/sources/pmp`.
    pub path: String,
    /// Its children.
    pub children: Vec<ChildSpec>,
    /// When it restarts them.
    pub policy: Policy,
    /// Where their standings are kept.
    pub roster: Roster,
    /// Where failures are reported.
    pub reporter: Reporter,
    /// The clock.
    pub clock: Clock,
}

impl Tree {
    /// How long its ordered stop may take.
    fn stop_deadline(&self) -> Duration {
        self.children.iter().map(|child| child.stop_deadline).sum::<Duration>() + Duration::from_secs(1)
    }
}

/// The child spec of a whole subtree.
pub fn supervisor(id: impl Into<String>, meltdown: Meltdown, tree: Tree) -> ChildSpec {
    ChildSpec {
        id: id.into(),
        meltdown,
        stop_deadline: tree.stop_deadline(),
        step_budget: SUPERVISOR_BUDGET,
        children: tree.children.clone(),
        start: Arc::new(move |parent, cx| {
            let tree = tree.clone();
            Box::pin(async move {
                let (actor, _) = Actor::spawn_linked(None, Supervisor, (tree, cx), parent).await?;
                Ok(actor.get_cell())
            })
        }),
    }
}

/// How the root ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As it was told to.
    Stopped,
    /// A critical actor failed too often; everything was stopped in order first.
    Escalated,
}

/// Runs a whole tree until `cx.stopping` is cancelled or it escalates. Its children are then told to stop in reverse order, each
/// once its successor has ended; below each of them all are told at once, so that their waits end together.
///
/// # Errors
/// When the root itself cannot start.
pub async fn run_root(tree: Tree, cx: Context) -> Result<Ended, SpawnErr> {
    let stopping = cx.stopping.clone();
    // The root's children are told to stop one after another: what the listener still drains, the journal must still write.
    let cx = Context { stopping: CancellationToken::new(), ..cx };
    let deadline = tree.stop_deadline();
    let (root, mut ended) = Actor::spawn(None, Supervisor, (tree, cx)).await?;
    tokio::select! {
        _ = &mut ended => return Ok(Ended::Escalated),
        () = stopping.cancelled() => {}
    }
    if root.stop_and_wait(None, Some(deadline)).await.is_err() {
        root.kill();
    }
    Ok(Ended::Stopped)
}

struct Supervisor;

#[derive(Debug)]
enum Message {
    /// Start the child of this index; the number tells a timer of an earlier incarnation.
    Start(usize, u64),
    /// Look at the signs of life.
    Check,
}

struct State {
    tree: Tree,
    cx: Context,
    children: Vec<Child>,
    lingering: Vec<(ActorCell, Duration)>,
    counted_unkillable: isize,
    /// When the children were looked at, in monotonic time.
    checked_at: Duration,
    check: Option<JoinHandle<()>>,
}

struct Child {
    spec: ChildSpec,
    running: Option<(ActorCell, Context)>,
    incarnation: u64,
    failures: VecDeque<Duration>,
    restarts: u64,
    last_failure: Option<String>,
    timer: Option<JoinHandle<Result<(), MessagingErr<Message>>>>,
}

impl Actor for Supervisor {
    type Msg = Message;
    type State = State;
    type Arguments = (Tree, Context);

    async fn pre_start(&self, myself: ActorRef<Message>, (tree, cx): Self::Arguments) -> Result<State, ActorProcessingErr> {
        cx.reach("start").await?;
        let known = |spec: &ChildSpec| tree.roster.get(&format!("{}/{}", tree.path, spec.id));
        let children = tree.children.iter().map(|spec| Child::new(spec.clone(), known(spec))).collect::<Vec<_>>();
        for index in 0..children.len() {
            // One message each, in order: a child's quick start happens inside the handler, and stop can come in between.
            myself.cast(Message::Start(index, 0))?;
        }
        let check = myself.send_interval(CHECK_EVERY, || Message::Check);
        let checked_at = tree.clock.monotonic();
        Ok(State { tree, cx, children, lingering: Vec::new(), counted_unkillable: 0, checked_at, check: Some(check) })
    }

    async fn handle(&self, myself: ActorRef<Message>, message: Message, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.cx.life.allow(state.cx.step_budget);
        // As a worker does: whom its start has woken goes first.
        super::give_way().await;
        state.cx.reach("step").await?;
        match message {
            Message::Start(index, incarnation) => state.start(&myself, index, incarnation).await,
            Message::Check => state.check(&myself).await,
        }
    }

    async fn post_stop(&self, _: ActorRef<Message>, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.stop_children().await;
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Message>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let (cell, failure) = match event {
            SupervisionEvent::ActorFailed(cell, error) => (cell, error.to_string()),
            SupervisionEvent::ActorTerminated(cell, _, reason) => (cell, reason.unwrap_or_else(|| "ended by itself".to_owned())),
            _ => return Ok(()),
        };
        // Children that were killed for silence are no longer listed, so their late end changes nothing.
        let index = state.children.iter().position(|child| child.running.as_ref().is_some_and(|(c, _)| c.get_id() == cell.get_id()));
        match index {
            Some(index) => state.failed(&myself, index, failure).await,
            None => Ok(()),
        }
    }
}

impl Child {
    /// `known`: how it stood under an earlier incarnation of its supervisor.
    fn new(spec: ChildSpec, known: Option<Standing>) -> Self {
        let (restarts, last_failure) = known.map_or((0, None), |known| (known.restarts, known.last_failure));
        Self { spec, running: None, incarnation: 0, failures: VecDeque::new(), restarts, last_failure, timer: None }
    }

    fn standing(&self, state: &'static str, next_start: Option<Duration>) -> Standing {
        Standing { state, restarts: self.restarts, last_failure: self.last_failure.clone(), next_start_ms: next_start.map(millis) }
    }
}

impl State {
    async fn start(&mut self, myself: &ActorRef<Message>, index: usize, incarnation: u64) -> Result<(), ActorProcessingErr> {
        let stopping = self.cx.stopping.child_token();
        let child = &mut self.children[index];
        if child.incarnation != incarnation || child.running.is_some() {
            return Ok(());
        }
        let actor = format!("{}/{}", self.tree.path, child.spec.id);
        let cx = Context::new(&actor, self.tree.clock, child.spec.step_budget, stopping);
        match (child.spec.start)(myself.get_cell(), cx.clone()).await {
            Ok(cell) => {
                child.running = Some((cell, cx));
                self.tree.reporter.emit(ActorStarted { actor });
                self.publish(index, "running", None);
                Ok(())
            }
            // A failed start sends no supervision event; it counts like any other failure.
            Err(error) => self.failed(myself, index, error.to_string()).await,
        }
    }

    async fn failed(&mut self, myself: &ActorRef<Message>, index: usize, failure: String) -> Result<(), ActorProcessingErr> {
        let now = self.tree.clock.monotonic();
        let policy = self.tree.policy.clone();
        let path = format!("{}/{}", self.tree.path, self.children[index].spec.id);
        self.tree.roster.ended_below(&path);
        let child = &mut self.children[index];
        child.running = None;
        child.incarnation += 1;
        child.restarts += 1;
        child.last_failure = Some(failure.clone());
        child.failures.push_back(now);
        while child.failures.front().is_some_and(|at| now.saturating_sub(*at) > policy.period) {
            child.failures.pop_front();
        }
        let child = &mut self.children[index];
        let n_failures = child.failures.len();
        if n_failures <= policy.intensity {
            let attempt = u32::try_from(n_failures.saturating_sub(1)).unwrap_or(u32::MAX);
            let delay = policy.backoff.delay(attempt, rand::random());
            self.tree.reporter.emit(ActorRestarted { actor: path, error: failure, seconds: delay.as_secs_f64() });
            self.start_later(myself, index, "restarting", delay);
            return Ok(());
        }
        child.failures.clear();
        if child.spec.meltdown == Meltdown::Park {
            self.tree.reporter.emit(ActorParked { actor: path, error: failure });
            self.start_later(myself, index, "parked", policy.park);
            return Ok(());
        }
        // Whoever supervises us kills our subtree when we fail, so it is stopped in order first.
        self.stop_children().await;
        Err(format!("{path} failed more than {} times in {} s", policy.intensity, policy.period.as_secs()).into())
    }

    fn start_later(&mut self, myself: &ActorRef<Message>, index: usize, state: &'static str, delay: Duration) {
        let incarnation = self.children[index].incarnation;
        self.children[index].timer = Some(myself.send_after(delay, move || Message::Start(index, incarnation)));
        self.publish(index, state, Some(delay));
    }

    /// Kills children that were silent longer than they announced.
    async fn check(&mut self, myself: &ActorRef<Message>) -> Result<(), ActorProcessingErr> {
        let now = self.tree.clock.monotonic();
        let since = now.saturating_sub(std::mem::replace(&mut self.checked_at, now));
        for index in 0..self.children.len() {
            if since > CHECK_LATE {
                break;
            }
            let Some((cell, cx)) = &self.children[index].running else { continue };
            let overdue = cx.life.overdue();
            if overdue.is_zero() {
                continue;
            }
            let cell = cell.clone();
            cell.kill();
            let actor = format!("{}/{}", self.tree.path, self.children[index].spec.id);
            self.tree.reporter.emit(ActorKilled { actor, seconds: overdue.as_secs_f64() });
            self.lingering.push((cell, now));
            self.failed(myself, index, format!("silent {} s longer than announced", overdue.as_secs())).await?;
        }
        self.lingering.retain(|(cell, _)| cell.get_status() != ActorStatus::Stopped);
        let blocked = self.lingering.iter().filter(|(_, killed)| now.saturating_sub(*killed) > KILL_GRACE).count();
        let blocked = isize::try_from(blocked).unwrap_or(isize::MAX);
        self.tree.roster.count_unkillable(blocked - self.counted_unkillable);
        self.counted_unkillable = blocked;
        Ok(())
    }

    /// In reverse order, each with its own deadline; who misses it is killed.
    async fn stop_children(&mut self) {
        if let Some(check) = self.check.take() {
            check.abort();
        }
        self.cx.life.allow(self.tree.stop_deadline());
        for index in (0..self.children.len()).rev() {
            let child = &mut self.children[index];
            child.incarnation += 1;
            if let Some(timer) = child.timer.take() {
                timer.abort();
            }
            if let Some((cell, cx)) = child.running.take() {
                stop(&cell, &cx.stopping, child.spec.stop_deadline).await;
            }
            self.publish(index, "stopped", None);
        }
    }

    fn publish(&self, index: usize, state: &'static str, next_start: Option<Duration>) {
        let child = &self.children[index];
        self.tree.roster.set(&format!("{}/{}", self.tree.path, child.spec.id), child.standing(state, next_start));
    }
}

async fn stop(cell: &ActorCell, stopping: &CancellationToken, deadline: Duration) {
    stopping.cancel();
    if cell.stop_and_wait(None, Some(deadline)).await.is_err() && cell.get_status() != ActorStatus::Stopped {
        // The kill is not waited for: a blocked thread would never answer.
        cell.kill();
    }
}
