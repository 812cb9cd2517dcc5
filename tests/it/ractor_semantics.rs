//! What our supervision relies on in ractor, one test a row of the table in `actors.md`.
//!
//! ractor is pinned exactly. Before the pin moves, these tests say whether what we build on still stands.

use std::sync::mpsc as blocking;
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, ActorStatus, SpawnErr, SupervisionEvent};
use tokio::sync::{mpsc, oneshot};

/// Longer than anything here takes on a busy machine; only a broken promise waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// What happened, in order.
type Told = mpsc::UnboundedSender<String>;

/// An actor that does what it is told and tells what happens to it.
struct Probe;

enum Order {
    Note(&'static str),
    /// Waits until it is told to go on.
    Wait(oneshot::Receiver<()>),
    /// Blocks its thread until it is told to go on.
    Block(blocking::Receiver<()>),
    Fail,
    Panic,
    /// Answers; dropped unanswered with the mailbox.
    Answer(oneshot::Sender<()>),
    /// Starts a probe below this one.
    Start(Told, oneshot::Sender<ActorRef<Order>>),
    /// Tries to start one whose start fails.
    StartBroken(oneshot::Sender<Result<(), SpawnErr>>),
    StopChildren,
}

struct Begin {
    told: Told,
    broken: bool,
    first_words: Vec<&'static str>,
}

struct State {
    told: Told,
    children: Vec<ActorCell>,
    stop_children: bool,
}

impl State {
    fn tell(&self, what: impl Into<String>) {
        // The test may have ended.
        let _ = self.told.send(what.into());
    }
}

impl Actor for Probe {
    type Msg = Order;
    type State = State;
    type Arguments = Begin;

    async fn pre_start(&self, myself: ActorRef<Order>, begin: Begin) -> Result<State, ActorProcessingErr> {
        if begin.broken {
            return Err("broken from the start".into());
        }
        for word in begin.first_words {
            myself.cast(Order::Note(word))?;
        }
        Ok(State { told: begin.told, children: Vec::new(), stop_children: false })
    }

    async fn handle(&self, myself: ActorRef<Order>, order: Order, state: &mut State) -> Result<(), ActorProcessingErr> {
        match order {
            Order::Note(word) => state.tell(word),
            Order::Wait(go) => {
                state.tell("waiting");
                // Whether it is told or nobody is left to tell it, it goes on.
                let _ = go.await;
                state.tell("waited");
            }
            Order::Block(go) => {
                state.tell("blocking");
                let _ = go.recv();
                state.tell("unblocked");
            }
            Order::Fail => return Err("told to fail".into()),
            Order::Panic => panic!("told to panic"),
            Order::Answer(reply) => drop(reply.send(())),
            Order::Start(told, reply) => {
                let begin = Begin { told, broken: false, first_words: Vec::new() };
                let (child, _) = Actor::spawn_linked(None, Probe, begin, myself.get_cell()).await?;
                state.children.push(child.get_cell());
                drop(reply.send(child));
            }
            Order::StartBroken(reply) => {
                let begin = Begin { told: state.told.clone(), broken: true, first_words: Vec::new() };
                let started = Actor::spawn_linked(None, Probe, begin, myself.get_cell()).await;
                drop(reply.send(started.map(drop)));
            }
            Order::StopChildren => state.stop_children = true,
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Order>, state: &mut State) -> Result<(), ActorProcessingErr> {
        if state.stop_children {
            for child in state.children.iter().rev() {
                child.stop_and_wait(None, Some(PATIENCE)).await?;
            }
        }
        state.tell("post_stop");
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Order>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(cell, error) => state.tell(format!("failed {}: {error}", cell.get_id())),
            SupervisionEvent::ActorTerminated(cell, _, reason) => state.tell(format!("ended {}: {reason:?}", cell.get_id())),
            _ => {}
        }
        Ok(())
    }
}

/// What one probe told.
struct Ear(mpsc::UnboundedReceiver<String>);

impl Ear {
    /// The next thing told.
    async fn next(&mut self) -> String {
        tokio::time::timeout(PATIENCE, self.0.recv()).await.expect("told in time").expect("somebody is left to tell")
    }

    /// Everything told until nobody is left to tell.
    async fn rest(mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(what) = tokio::time::timeout(PATIENCE, self.0.recv()).await.expect("ends in time") {
            told.push(what);
        }
        told
    }
}

async fn probe(first_words: Vec<&'static str>) -> (ActorRef<Order>, Ear) {
    let (told, ear) = mpsc::unbounded_channel();
    let (probe, _) = Actor::spawn(None, Probe, Begin { told, broken: false, first_words }).await.expect("it starts");
    (probe, Ear(ear))
}

/// A probe with a child: the parent, what it tells, the child, what that tells.
async fn family() -> (ActorRef<Order>, Ear, ActorRef<Order>, Ear) {
    let (parent, parent_ear) = probe(Vec::new()).await;
    let (told, child_ear) = mpsc::unbounded_channel();
    let (reply, child) = oneshot::channel();
    parent.cast(Order::Start(told, reply)).expect("the parent lives");
    (parent, parent_ear, child.await.expect("it starts"), Ear(child_ear))
}

async fn gone(cell: &ActorRef<Order>) {
    cell.wait(Some(PATIENCE)).await.expect("it ends");
}

#[tokio::test]
async fn an_error_is_a_death_without_post_stop() {
    let (parent, mut parent_ear, child, child_ear) = family().await;
    child.cast(Order::Fail).expect("the child lives");
    assert_eq!(parent_ear.next().await, format!("failed {}: told to fail", child.get_id()));
    gone(&child).await;
    assert_eq!(child_ear.rest().await, Vec::<String>::new());
    parent.stop(None);
}

#[tokio::test]
async fn a_panic_is_a_death_that_the_parent_survives() {
    let (parent, mut parent_ear, child, child_ear) = family().await;
    child.cast(Order::Panic).expect("the child lives");
    let event = parent_ear.next().await;
    assert!(event.starts_with(&format!("failed {}", child.get_id())) && event.contains("told to panic"), "{event}");
    assert_eq!(child_ear.rest().await, Vec::<String>::new());
    parent.cast(Order::Note("alive")).expect("the parent lives");
    assert_eq!(parent_ear.next().await, "alive");
    parent.stop(None);
}

#[tokio::test]
async fn a_mailbox_dies_with_its_actor() {
    let (parent, _parent_ear, child, mut child_ear) = family().await;
    let (go, wait) = oneshot::channel();
    let (reply, answer) = oneshot::channel();
    child.cast(Order::Wait(wait)).expect("the child lives");
    assert_eq!(child_ear.next().await, "waiting");
    child.cast(Order::Fail).expect("the child lives");
    child.cast(Order::Answer(reply)).expect("the child lives");
    go.send(()).expect("it waits");
    // Whoever waits for an answer learns at once that none comes.
    assert!(tokio::time::timeout(PATIENCE, answer).await.expect("in time").is_err());
    gone(&child).await;
    assert!(child.cast(Order::Note("too late")).is_err(), "a message to the dead comes back");
    parent.stop(None);
}

#[tokio::test]
async fn a_stop_lets_the_message_in_hand_finish_and_drops_the_queue() {
    let (parent, mut parent_ear, child, mut child_ear) = family().await;
    let (go, wait) = oneshot::channel();
    child.cast(Order::Wait(wait)).expect("the child lives");
    assert_eq!(child_ear.next().await, "waiting");
    child.cast(Order::Note("queued")).expect("the child lives");
    child.stop(Some("told".to_owned()));
    go.send(()).expect("it waits");
    assert_eq!(child_ear.rest().await, ["waited", "post_stop"]);
    assert_eq!(parent_ear.next().await, format!("ended {}: Some(\"told\")", child.get_id()));
    parent.stop(None);
}

#[tokio::test]
async fn a_kill_drops_the_handler_where_it_waits() {
    let (parent, mut parent_ear, child, mut child_ear) = family().await;
    let (_go, wait) = oneshot::channel();
    child.cast(Order::Wait(wait)).expect("the child lives");
    assert_eq!(child_ear.next().await, "waiting");
    child.kill();
    gone(&child).await;
    assert_eq!(child_ear.rest().await, Vec::<String>::new(), "neither the rest of the handler nor post_stop");
    assert!(parent_ear.next().await.starts_with(&format!("ended {}", child.get_id())));
    parent.stop(None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_does_not_reach_a_blocked_thread() {
    let (parent, _parent_ear, child, mut child_ear) = family().await;
    let (go, wait) = blocking::channel();
    child.cast(Order::Block(wait)).expect("the child lives");
    assert_eq!(child_ear.next().await, "blocking");
    child.kill();
    assert!(child.wait(Some(Duration::from_millis(200))).await.is_err(), "it has not ended");
    assert_ne!(child.get_status(), ActorStatus::Stopped);
    go.send(()).expect("it blocks");
    gone(&child).await;
    parent.stop(None);
}

#[tokio::test]
async fn a_parents_death_kills_its_children() {
    for order in [Order::Fail, Order::Panic] {
        let (parent, _parent_ear, child, mut child_ear) = family().await;
        let (_go, wait) = oneshot::channel();
        child.cast(Order::Wait(wait)).expect("the child lives");
        assert_eq!(child_ear.next().await, "waiting");
        parent.cast(order).expect("the parent lives");
        gone(&child).await;
        assert_eq!(child_ear.rest().await, Vec::<String>::new(), "neither the rest of the handler nor post_stop");
    }
}

#[tokio::test]
async fn a_parent_that_stops_its_children_in_post_stop_lets_them_finish() {
    let (parent, parent_ear, child, mut child_ear) = family().await;
    let (go, wait) = oneshot::channel();
    child.cast(Order::Wait(wait)).expect("the child lives");
    assert_eq!(child_ear.next().await, "waiting");
    parent.cast(Order::StopChildren).expect("the parent lives");
    parent.cast(Order::Note("told")).expect("the parent lives");
    let mut parent_ear = parent_ear;
    assert_eq!(parent_ear.next().await, "told");
    parent.stop(None);
    go.send(()).expect("it waits");
    assert_eq!(child_ear.rest().await, ["waited", "post_stop"]);
    assert_eq!(parent_ear.rest().await, ["post_stop"], "an end that the parent waits for in post_stop is no event any more");
    gone(&parent).await;
}

#[tokio::test]
async fn a_failed_start_is_told_to_the_caller_and_is_no_event() {
    let (parent, parent_ear) = probe(Vec::new()).await;
    let (reply, started) = oneshot::channel();
    parent.cast(Order::StartBroken(reply)).expect("the parent lives");
    assert!(matches!(started.await.expect("answered"), Err(SpawnErr::StartupFailed(_))));
    parent.cast(Order::Note("alive")).expect("the parent lives");
    parent.cast(Order::Fail).expect("the parent lives");
    assert_eq!(parent_ear.rest().await, ["alive"]);
}

#[tokio::test]
async fn a_start_runs_inside_the_one_who_starts() {
    /// Starts when it is told to.
    struct Slow;
    impl Actor for Slow {
        type Msg = ();
        type State = ();
        type Arguments = oneshot::Receiver<()>;
        async fn pre_start(&self, _: ActorRef<()>, go: oneshot::Receiver<()>) -> Result<(), ActorProcessingErr> {
            Ok(go.await?)
        }
    }
    let (go, wait) = oneshot::channel();
    let mut starting = std::pin::pin!(Actor::spawn(None, Slow, wait));
    assert!(futures_util::poll!(&mut starting).is_pending(), "the caller waits for pre_start");
    assert!(futures_util::poll!(&mut starting).is_pending());
    go.send(()).expect("it starts");
    let (slow, _) = tokio::time::timeout(PATIENCE, starting).await.expect("in time").expect("it starts");
    slow.stop(None);
}

#[tokio::test]
async fn messages_of_one_sender_stay_in_order_from_pre_start_on() {
    let (probe, mut ear) = probe(vec!["one", "two"]).await;
    for word in ["three", "four"] {
        probe.cast(Order::Note(word)).expect("it lives");
    }
    for word in ["one", "two", "three", "four"] {
        assert_eq!(ear.next().await, word);
    }
    probe.stop(None);
}

#[tokio::test]
async fn stopping_what_has_ended_is_an_error_at_once() {
    let (probe, _ear) = probe(Vec::new()).await;
    probe.stop_and_wait(None, Some(PATIENCE)).await.expect("it stops");
    assert_eq!(probe.get_status(), ActorStatus::Stopped);
    assert!(probe.stop_and_wait(None, None).await.is_err());
}

#[tokio::test]
async fn a_missed_stop_deadline_leaves_the_actor_running() {
    let (probe, mut ear) = probe(Vec::new()).await;
    let (_go, wait) = oneshot::channel();
    probe.cast(Order::Wait(wait)).expect("it lives");
    assert_eq!(ear.next().await, "waiting");
    assert!(probe.stop_and_wait(None, Some(Duration::from_millis(20))).await.is_err());
    assert_ne!(probe.get_status(), ActorStatus::Stopped, "so it is killed after the deadline");
    probe.kill();
    gone(&probe).await;
}

#[tokio::test]
async fn a_timer_is_cancelled_by_abort_and_not_by_drop() {
    let (probe, mut ear) = probe(Vec::new()).await;
    drop(probe.send_after(Duration::from_millis(5), || Order::Note("dropped")));
    let aborted = probe.send_after(Duration::from_millis(10), || Order::Note("aborted"));
    drop(probe.send_after(Duration::from_millis(50), || Order::Note("last")));
    aborted.abort();
    assert_eq!(ear.next().await, "dropped");
    assert_eq!(ear.next().await, "last");
    let to_the_dead = probe.send_after(Duration::from_millis(50), || Order::Note("nobody"));
    probe.stop_and_wait(None, Some(PATIENCE)).await.expect("it stops");
    assert!(to_the_dead.await.expect("the timer ends").is_err(), "silently, but for the result");
}
