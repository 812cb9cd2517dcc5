//! `limiter`: grants permits for one source's requests, in the order of their class.
//!
//! The rules are `crate::quota`'s, which is pure; this actor holds the waiting requests and writes the durable blocks before they are
//! used. What is known of permits and breakers is in [`books`], beside the actor. There is a breaker an endpoint of a source, and one a
//! source for what fails before any endpoint is reached (no connection, no TLS, a credential that is refused).
//!
//! After a 429 nothing goes until the pause is over, and then one request, until one is answered otherwise. A pause of some length
//! is written down, so that a restart does not send into it.
//!
//! On failure: waiting requests are told to ask again; requests under way keep their permits until they end, and the next incarnation
//! goes on with the same books. Where these are in doubt, and in a new process, it counts every unfinished block as spent.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ractor::concurrency::JoinHandle;
use ractor::{Actor, ActorProcessingErr, ActorRef, MessagingErr, SupervisionEvent};
use tokio::sync::oneshot;

use crate::clock::{Anchors, Clock, Timestamp};
use crate::failpoint;
use crate::quota::{Breaker, BreakerOptions, Class, Limits, State as BreakerState, StoredBlock};
use crate::report::Reporter;
use crate::store::Store;
use crate::supervision::{ChildSpec, Context, Meltdown, with_pulse};

use books::{Books, Step};

mod books;
mod permit;

pub use permit::{Handle, Health, NoPermit, Observed, Permit, Target, Verdict};

/// How long a refused or failed booking waits before it is tried again.
const BOOKING_RETRY: Duration = Duration::from_millis(500);
/// The limiter looks at least this often, whatever it waits for.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// One transaction of the store ends within 15 s; between messages it rests for [`LOOK_EVERY`] at most.
const STEP_BUDGET: Duration = Duration::from_secs(20);

/// What the actor is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose requests.
    pub source: String,
    /// Whose quota: shared by everything that draws on it.
    pub scope: String,
    /// The limits of the scope.
    pub limits: Limits,
    /// Where blocks are written.
    pub store: Store,
    /// The clock.
    pub clock: Clock,
    /// When breakers open.
    pub breaker: BreakerOptions,
    /// Where the wall clock stood when the process started, and before.
    pub anchors: Option<Anchors>,
    /// Where refusals are reported.
    pub reporter: Reporter,
}

/// What the limiter is told.
#[derive(Debug)]
pub enum Message {
    /// A request wants to go.
    Acquire {
        /// Its class.
        class: Class,
        /// Where it goes.
        target: Target,
        /// Where the permit goes.
        reply: oneshot::Sender<Permit>,
    },
    /// Somebody looks, on behalf of a source.
    Observe(String, oneshot::Sender<Observed>),
    /// Time has passed, or a request has ended.
    Look,
}

/// The child spec.
pub fn spec(options: Options, handle: Handle) -> ChildSpec {
    ChildSpec {
        id: "limiter".to_owned(),
        meltdown: Meltdown::Escalate,
        stop_deadline: Duration::from_secs(2),
        step_budget: STEP_BUDGET,
        children: Vec::new(),
        start: Arc::new(move |supervisor, cx| {
            let arguments = (options.clone(), handle.clone(), cx);
            Box::pin(async move {
                let (actor, _) = Actor::spawn_linked(None, LimiterActor, arguments, supervisor).await?;
                Ok(actor.get_cell())
            })
        }),
    }
}

struct LimiterActor;

struct Waiting {
    class: Class,
    target: Target,
    reply: oneshot::Sender<Permit>,
}

struct State {
    options: Options,
    /// The way to us, which every permit takes along; the books lie there.
    handle: Handle,
    cx: Context,
    waiting: Vec<Waiting>,
    timer: Option<JoinHandle<Result<(), MessagingErr<Message>>>>,
}

impl Actor for LimiterActor {
    type Msg = Message;
    type State = State;
    type Arguments = (Options, Handle, Context);

    async fn pre_start(&self, myself: ActorRef<Message>, (options, handle, cx): Self::Arguments) -> Result<State, ActorProcessingErr> {
        cx.reach("start").await?;
        *handle.address.lock().unwrap_or_else(PoisonError::into_inner) = Some(myself.clone());
        myself.cast(Message::Look)?;
        Ok(State { options, handle, cx, waiting: Vec::new(), timer: None })
    }

    async fn handle(&self, myself: ActorRef<Message>, message: Message, state: &mut State) -> Result<(), ActorProcessingErr> {
        let cx = state.cx.clone();
        with_pulse(&cx, async {
            state.take(message);
            state.serve(&myself).await;
            Ok(())
        })
        .await
    }

    async fn post_stop(&self, _: ActorRef<Message>, state: &mut State) -> Result<(), ActorProcessingErr> {
        if let Some(timer) = state.timer.take() {
            timer.abort();
        }
        state.close().await;
        Ok(())
    }

    async fn handle_supervisor_evt(&self, _: ActorRef<Message>, _: SupervisionEvent, _: &mut State) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

impl State {
    fn take(&mut self, message: Message) {
        match message {
            Message::Acquire { class, target, reply } => {
                // Served in the order of class, then of arrival.
                let at = self.waiting.partition_point(|waiting| waiting.class <= class);
                self.waiting.insert(at, Waiting { class, target, reply });
            }
            Message::Observe(source, reply) => self.observe(&source, reply),
            Message::Look => {}
        }
    }

    /// Grants what may go, in order, and arranges the next look.
    async fn serve(&mut self, myself: &ActorRef<Message>) {
        let mut look_at = self.options.clock.monotonic() + LOOK_EVERY;
        let is_known = self.handle.shelf.open(|_| ()).is_some();
        if is_known || self.restore().await {
            self.write_pause().await;
            look_at = look_at.min(self.grant().await);
            look_at = look_at.min(self.write_news().await);
        } else {
            look_at = self.options.clock.monotonic() + BOOKING_RETRY;
        }
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
        let span = look_at.saturating_sub(self.options.clock.monotonic()).max(Duration::from_millis(1));
        self.timer = Some(myself.send_after(span, || Message::Look));
    }

    /// A clock set ahead makes blocks look older than they are, and one set back makes them bind for longer. Which of the clock's
    /// stands a block was dated by cannot be told, so it gets the latest date that it can have.
    fn redate(&self, blocks: &mut [StoredBlock]) {
        let clock = &self.options.clock;
        let Some((now, anchors)) = clock.anchor().zip(self.options.anchors.as_ref()) else { return };
        let sets = [&anchors.believed, &anchors.last].map(|anchor| now.set_since(anchor).unwrap_or(0));
        let latest = clock.now().plus(self.options.limits.max_server_queue());
        for at in blocks.iter_mut().filter_map(|block| block.finished_at.as_mut()) {
            let dates = sets.iter().chain(&[0]).map(|set| Timestamp(at.0.saturating_add(*set)));
            *at = dates.filter(|date| *date <= latest).max().unwrap_or(*at);
        }
    }

    async fn restore(&mut self) -> bool {
        let Ok(mut blocks) = self.options.store.blocks(&self.options.scope).await else { return false };
        let Ok(paused_until) = self.options.store.kept_pause(&self.options.scope).await else { return false };
        self.redate(&mut blocks);
        self.handle.shelf.put(Books::restored(&self.options, &blocks, paused_until));
        true
    }

    /// Walks the waiting in order; answers when to look again.
    async fn grant(&mut self) -> Duration {
        let mut look_at = self.options.clock.monotonic() + LOOK_EVERY;
        let mut index = 0;
        while index < self.waiting.len() {
            let now = self.options.clock.monotonic();
            let waiting = &self.waiting[index];
            if waiting.reply.is_closed() {
                self.waiting.remove(index);
                continue;
            }
            let decided = self.handle.shelf.open(|books| books.decide(waiting.class, &waiting.target, now, now + LOOK_EVERY));
            match decided.unwrap_or(Step::Wait(now + BOOKING_RETRY)) {
                Step::Granted(id) => {
                    let Waiting { target, reply, .. } = self.waiting.remove(index);
                    // The caller may have gone in this very moment: the permit then comes back by itself.
                    let _ = reply.send(Permit::granted(self.handle.clone(), id, target));
                }
                Step::Wait(until) => {
                    look_at = look_at.min(until);
                    index += 1;
                }
                Step::Book => {
                    if !self.book().await {
                        return now + BOOKING_RETRY;
                    }
                }
            }
        }
        look_at
    }

    /// What is not written down does not outlive us, but holds all the same; the next look tries again.
    async fn write_pause(&self) {
        let Some(until) = self.handle.shelf.open(|books| books.unwritten).flatten() else { return };
        if self.options.store.keep_pause(&self.options.scope, until).await.is_ok() {
            self.handle.shelf.open(|books| books.unwritten = books.unwritten.filter(|newer| *newer > until));
        }
    }

    /// Writes the ends that are due; answers when to write more.
    async fn write_news(&mut self) -> Duration {
        let due = |state: &Self| state.handle.shelf.open(|books| books.limiter.news_due()).flatten();
        let now = self.options.clock.monotonic();
        if due(self).is_some_and(|due| due <= now) && !self.book().await {
            return now + BOOKING_RETRY;
        }
        due(self).unwrap_or(now + LOOK_EVERY)
    }

    async fn book(&mut self) -> bool {
        self.cx.life.allow(self.cx.step_budget);
        let (now, wall) = (self.options.clock.monotonic(), self.options.clock.now());
        let Some(bookings) = self.handle.shelf.open(|books| books.limiter.bookings(now)) else { return false };
        let Ok(ids) = self.options.store.book(&self.options.scope, &bookings).await else { return false };
        let is_noted = self.handle.shelf.open(|books| books.limiter.booked(&bookings, &ids, now, wall)).is_some();
        // Booked, and nothing of it used; who is told to fail here looks again later.
        is_noted && failpoint::reach("permit", "booked").await.is_ok()
    }

    /// An ordered end comes after those of all who ask: what is known is written, and the next start has nothing to hold back.
    async fn close(&mut self) {
        let (now, wall) = (self.options.clock.monotonic(), self.options.clock.now());
        let Some(bookings) = self.handle.shelf.open(|books| books.limiter.close(now)) else { return };
        // What cannot be written counts as unfinished at the next start.
        if let Ok(ids) = self.options.store.book(&self.options.scope, &bookings).await {
            self.handle.shelf.open(|books| books.limiter.booked(&bookings, &ids, now, wall));
        }
    }

    fn observe(&mut self, source: &str, reply: oneshot::Sender<Observed>) {
        let now = self.options.clock.monotonic();
        let observed = self.handle.shelf.open(|books| {
            let own = books.breakers.iter().filter(|(target, _)| target.source == source);
            let open = |breaker: &Breaker| breaker.state() != BreakerState::Closed;
            let breakers = own.map(|(target, breaker)| (target.endpoint.clone(), open(breaker))).collect();
            Observed { snapshot: books.limiter.snapshot(now), n_waiting: self.waiting.len(), breakers }
        });
        if let Some(observed) = observed {
            // Whoever asked may have gone.
            let _ = reply.send(observed);
        }
    }
}
