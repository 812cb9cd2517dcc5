//! Actors that pull: a step at a time, woken by hints that may be lost.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ractor::concurrency::JoinHandle;
use ractor::{Actor, ActorProcessingErr, ActorRef, MessagingErr, SupervisionEvent};

use super::{Bug, ChildSpec, Context, Meltdown, STEP_BUDGET};

/// What a worker does after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// There is more: step again at once (after whatever else waits for the thread).
    Again,
    /// Step again after this span, or earlier when woken.
    For(Duration),
}

/// The work of an actor whose state is in rows. A step is bounded; a new incarnation continues from the rows.
pub trait Work: Send + 'static {
    /// Does the next bounded piece of work. Waits inside end when `cx.stopping` is cancelled, and are announced by `cx.life`.
    ///
    /// # Errors
    /// A [`Bug`] ends this incarnation.
    fn step(&mut self, cx: &Context) -> impl Future<Output = Result<Rest, Bug>> + Send;

    /// Called once in an ordered stop, after the last step.
    fn finish(&mut self, _cx: &Context) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// How often a step that waits shows that its thread is not blocked.
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// A rest may overrun by this much before it counts as a hang.
const REST_GRACE: Duration = Duration::from_secs(30);

/// Lets those go first who wait for this thread. Not by tokio's own way of yielding: that keeps a task in a list of its thread until
/// the thread has nothing else to do, and whoever blocks the thread before keeps the task there, out of every other thread's reach.
/// Woken by itself it waits in the queue that others take from.
pub(super) async fn give_way() {
    let mut has_given_way = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut has_given_way, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

/// One step of an actor, within its budget and with a pulse: a thread that it blocks is noticed after seconds, whatever the step may
/// last.
///
/// # Errors
/// The step's own, and what the actor's fail point was told.
pub async fn with_pulse<T>(cx: &Context, step: impl Future<Output = Result<T, Bug>>) -> Result<T, Bug> {
    cx.life.allow(cx.step_budget);
    // Whom this task has just woken (its supervisor, at the start) waits for this very thread: it goes first, or a step that
    // blocks the thread would keep it from noticing.
    give_way().await;
    let mut step = pin!(async {
        cx.reach("step").await?;
        step.await
    });
    let done = loop {
        cx.life.beat();
        tokio::select! {
            done = &mut step => break done,
            // A step that lasts is no safer than one that begins.
            () = tokio::time::sleep(BEAT_EVERY) => if let Err(told) = cx.reach("step").await { break Err(told) },
        }
    };
    cx.life.rest();
    done
}

/// Wakes a worker of whatever incarnation. A wake-up is a hint: the worker also looks by itself.
#[derive(Clone, Debug, Default)]
pub struct Waker {
    address: Arc<Mutex<Option<ActorRef<Step>>>>,
    pending: Arc<AtomicBool>,
}

impl Waker {
    /// At most one wake-up waits in the mailbox, however often this is called.
    pub fn wake(&self) {
        if self.pending.swap(true, Ordering::AcqRel) {
            return;
        }
        let address = self.address.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if address.is_none_or(|actor| actor.cast(Step).is_err()) {
            // Nobody is there: the next incarnation begins with a step anyway.
            self.pending.store(false, Ordering::Release);
        }
    }

    fn moved_to(&self, actor: ActorRef<Step>) {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner) = Some(actor);
        self.pending.store(false, Ordering::Release);
    }
}

/// The only message of a worker: look.
#[derive(Debug)]
pub(super) struct Step;

/// The child spec of a worker; `make` builds each incarnation.
pub fn worker<W: Work>(
    id: impl Into<String>,
    meltdown: Meltdown,
    stop_deadline: Duration,
    waker: Waker,
    make: impl Fn() -> W + Send + Sync + 'static,
) -> ChildSpec {
    let make = Arc::new(make);
    ChildSpec {
        id: id.into(),
        meltdown,
        stop_deadline,
        step_budget: STEP_BUDGET,
        children: Vec::new(),
        start: Arc::new(move |supervisor, cx| {
            let (waker, work) = (waker.clone(), make());
            Box::pin(async move {
                let (actor, _) = Actor::spawn_linked(None, Worker::<W>::default(), (work, cx, waker), supervisor).await?;
                Ok(actor.get_cell())
            })
        }),
    }
}

/// The ractor side of every worker.
struct Worker<W>(std::marker::PhantomData<fn() -> W>);

impl<W> Default for Worker<W> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

struct State<W> {
    work: W,
    cx: Context,
    waker: Waker,
    timer: Option<JoinHandle<Result<(), MessagingErr<Step>>>>,
}

impl<W: Work> Actor for Worker<W> {
    type Msg = Step;
    type State = State<W>;
    type Arguments = (W, Context, Waker);

    async fn pre_start(&self, myself: ActorRef<Step>, (work, cx, waker): Self::Arguments) -> Result<State<W>, ActorProcessingErr> {
        cx.reach("start").await?;
        waker.moved_to(myself.clone());
        myself.cast(Step)?;
        Ok(State { work, cx, waker, timer: None })
    }

    async fn handle(&self, myself: ActorRef<Step>, _: Step, state: &mut State<W>) -> Result<(), ActorProcessingErr> {
        if let Some(timer) = state.timer.take() {
            timer.abort();
        }
        // Cleared before the step: whoever changes a row after this is seen by another step.
        state.waker.pending.store(false, Ordering::Release);
        if state.cx.stopping.is_cancelled() {
            return Ok(());
        }
        match with_pulse(&state.cx, state.work.step(&state.cx)).await? {
            Rest::Again => myself.cast(Step)?,
            Rest::For(span) => {
                state.cx.life.allow(span.saturating_add(REST_GRACE));
                state.timer = Some(myself.send_after(span, || Step));
            }
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Step>, state: &mut State<W>) -> Result<(), ActorProcessingErr> {
        if let Some(timer) = state.timer.take() {
            timer.abort();
        }
        state.work.finish(&state.cx).await;
        Ok(())
    }

    async fn handle_supervisor_evt(&self, _: ActorRef<Step>, _: SupervisionEvent, _: &mut State<W>) -> Result<(), ActorProcessingErr> {
        // A worker has no children; ractor's default would stop it on any event.
        Ok(())
    }
}
