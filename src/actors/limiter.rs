//! `limiter`: grants permits for one source's requests, in the order of their class.
//!
//! The rules are `crate::quota`'s, which is pure; this actor holds the waiting requests, writes the durable blocks before they are
//! used and turns answers into verdicts. It also keeps the breakers, one an endpoint.
//!
//! On failure: waiting requests are told to ask again; requests under way keep their permits until they end, and their verdicts
//! are ignored by the next incarnation, which counts every unfinished block as spent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ractor::concurrency::JoinHandle;
use ractor::{Actor, ActorProcessingErr, ActorRef, MessagingErr, SupervisionEvent};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::connectors::Response;
use crate::failpoint;
use crate::quota::{
    Breaker, BreakerOptions, Class, Decision, Limiter, Limits, Outcome, PermitId, Snapshot, State as BreakerState, headers,
};
use crate::report::{BreakerClosed, BreakerOpened, RateLimited, Reporter};
use crate::store::Store;
use crate::supervision::{ChildSpec, Context, Meltdown};

/// How long a refused or failed booking waits before it is tried again.
const BOOKING_RETRY: Duration = Duration::from_millis(500);
/// Who finds no limiter waits this long before asking again.
const GONE_PAUSE: Duration = Duration::from_millis(500);
/// The limiter looks at least this often, whatever it waits for.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Without a header that says otherwise a 429 pauses this long and a 503 half of it.
const DEFAULT_PAUSE: Duration = Duration::from_secs(10);

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
    /// Where refusals are reported.
    pub reporter: Reporter,
}

/// How others reach the limiter, whatever its incarnation.
#[derive(Clone, Debug, Default)]
pub struct Handle {
    address: Arc<Mutex<Option<ActorRef<Message>>>>,
}

/// There is no limiter at this moment, or it gave up waiting: ask again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no permit was to be had in time")]
pub struct NoPermit;

/// What the limiter shows of itself.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The limits.
    pub snapshot: Snapshot,
    /// Requests that wait.
    pub n_waiting: usize,
    /// Every endpoint that was asked, and whether its breaker is open.
    pub breakers: Vec<(String, bool)>,
}

impl Handle {
    /// Waits for a permit for one request; gives up after `patience`.
    ///
    /// # Errors
    /// [`NoPermit`].
    pub async fn acquire(&self, class: Class, endpoint: &str, patience: Duration) -> Result<Permit, NoPermit> {
        let (reply, answer) = oneshot::channel();
        self.cast(Message::Acquire { class, endpoint: endpoint.to_owned(), reply });
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(id)) => Ok(Permit { handle: self.clone(), id: Some(id), endpoint: endpoint.to_owned() }),
            Ok(Err(_)) => {
                // It is being restarted: whoever asks again at once would only spin.
                tokio::time::sleep(GONE_PAUSE).await;
                Err(NoPermit)
            }
            Err(_) => Err(NoPermit),
        }
    }

    /// The limiter's state; `None` while it restarts.
    pub async fn observe(&self) -> Option<Observed> {
        let (reply, answer) = oneshot::channel();
        self.cast(Message::Observe(reply));
        tokio::time::timeout(Duration::from_secs(1), answer).await.ok()?.ok()
    }

    fn cast(&self, message: Message) {
        let address = self.address.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(actor) = address {
            // A dead limiter drops the reply, which is what the caller then sees.
            let _ = actor.cast(message);
        }
    }
}

/// The right to send one request. Dropped without a verdict it counts as lost: the server may still stamp it much later.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    handle: Handle,
    id: Option<PermitId>,
    endpoint: String,
}

/// What a response means for limits and breaker.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// An answer came: its status and the headers that speak of limits.
    Answered {
        /// HTTP status.
        status: u16,
        /// `Retry-After` or `X-RateLimit-Reset`, as sent.
        wait: Option<String>,
        /// Bytes of the body.
        bytes: u64,
    },
    /// The request did not reach the upstream.
    NotSent,
}

impl Permit {
    /// Ends the permit with an answer.
    pub fn answered(self, response: &Response) {
        let wait = response.header("retry-after").or_else(|| response.header("x-ratelimit-reset")).map(ToOwned::to_owned);
        self.end(Verdict::Answered { status: response.status, wait, bytes: response.body.len() as u64 });
    }

    /// Ends the permit of a request that never left: the upstream counted nothing, but the breaker did.
    pub fn not_sent(self) {
        self.end(Verdict::NotSent);
    }

    fn end(mut self, verdict: Verdict) {
        if let Some(id) = self.id.take() {
            self.handle.cast(Message::Ended { id, endpoint: std::mem::take(&mut self.endpoint), verdict: Some(verdict) });
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.handle.cast(Message::Ended { id, endpoint: std::mem::take(&mut self.endpoint), verdict: None });
        }
    }
}

/// What the limiter is told.
#[derive(Debug)]
pub enum Message {
    /// A request wants to go.
    Acquire {
        /// Its class.
        class: Class,
        /// What breaker and 503 pauses are kept by.
        endpoint: String,
        /// Where the permit goes.
        reply: oneshot::Sender<PermitId>,
    },
    /// A request ended; without a verdict it is lost.
    Ended {
        /// Its permit.
        id: PermitId,
        /// Its endpoint.
        endpoint: String,
        /// How it ended.
        verdict: Option<Verdict>,
    },
    /// Somebody looks.
    Observe(oneshot::Sender<Observed>),
    /// Time has passed.
    Look,
}

/// The child spec.
pub fn spec(options: Options, handle: Handle) -> ChildSpec {
    ChildSpec {
        id: "limiter".to_owned(),
        meltdown: Meltdown::Escalate,
        stop_deadline: Duration::from_secs(2),
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
    endpoint: String,
    reply: oneshot::Sender<PermitId>,
}

struct State {
    options: Options,
    cx: Context,
    /// `None` until the blocks of earlier incarnations are read: nothing is granted before.
    limiter: Option<Limiter>,
    breakers: HashMap<String, Breaker>,
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
        Ok(State { options, cx, limiter: None, breakers: HashMap::new(), waiting: Vec::new(), timer: None })
    }

    async fn handle(&self, myself: ActorRef<Message>, message: Message, state: &mut State) -> Result<(), ActorProcessingErr> {
        state.cx.life.allow(Duration::from_secs(60));
        state.cx.reach("step").await?;
        match message {
            Message::Acquire { class, endpoint, reply } => {
                // Served in the order of class, then of arrival.
                let at = state.waiting.partition_point(|waiting| waiting.class <= class);
                state.waiting.insert(at, Waiting { class, endpoint, reply });
            }
            Message::Ended { id, endpoint, verdict } => state.ended(id, &endpoint, verdict),
            Message::Observe(reply) => state.observe(reply),
            Message::Look => {}
        }
        state.serve(&myself).await;
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Message>, state: &mut State) -> Result<(), ActorProcessingErr> {
        if let Some(timer) = state.timer.take() {
            timer.abort();
        }
        Ok(())
    }

    async fn handle_supervisor_evt(&self, _: ActorRef<Message>, _: SupervisionEvent, _: &mut State) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

impl State {
    fn ended(&mut self, id: PermitId, endpoint: &str, verdict: Option<Verdict>) {
        let (now, wall) = (self.options.clock.monotonic(), self.options.clock.now());
        let Some(limiter) = &mut self.limiter else { return };
        let breaker = self.breakers.entry(endpoint.to_owned()).or_insert_with(|| Breaker::new(BreakerOptions::default()));
        let was = breaker.state();
        match verdict {
            None => {
                limiter.lost(id, now, wall);
                breaker.failed(now);
            }
            Some(Verdict::NotSent) => {
                limiter.settle(id, now, wall, Outcome::default());
                breaker.failed(now);
            }
            Some(Verdict::Answered { status, wait, bytes }) => {
                limiter.settle(id, now, wall, Outcome { bytes: Some(bytes), ..Outcome::default() });
                let longest = self.options.limits.longest_window();
                let asked = wait.and_then(|value| headers::wait(&value, wall, longest));
                match status {
                    429 => {
                        limiter.refused(now, now + asked.unwrap_or(DEFAULT_PAUSE), None);
                        let seconds = asked.unwrap_or(DEFAULT_PAUSE).as_secs_f64();
                        let (source, scope) = (self.options.source.clone(), self.options.scope.clone());
                        self.options.reporter.emit(RateLimited { source, scope, seconds });
                    }
                    503 => limiter.unavailable(now, endpoint, now + asked.unwrap_or(DEFAULT_PAUSE / 2)),
                    _ => {}
                }
                if status >= 500 { breaker.failed(now) } else { breaker.succeeded() }
            }
        }
        let (source, endpoint) = (self.options.source.clone(), endpoint.to_owned());
        match (was, breaker.state()) {
            (BreakerState::Open(_), BreakerState::Open(_)) => {}
            (_, BreakerState::Open(until)) => {
                let seconds = until.saturating_sub(now).as_secs_f64();
                self.options.reporter.emit(BreakerOpened { source, endpoint, seconds });
            }
            (BreakerState::HalfOpen, BreakerState::Closed) => self.options.reporter.emit(BreakerClosed { source, endpoint }),
            _ => {}
        }
    }

    /// Grants what may go, in order, and arranges the next look.
    async fn serve(&mut self, myself: &ActorRef<Message>) {
        let mut look_at = self.options.clock.monotonic() + LOOK_EVERY;
        if self.limiter.is_none() && !self.restore().await {
            look_at = self.options.clock.monotonic() + BOOKING_RETRY;
        }
        if self.limiter.is_some() {
            look_at = look_at.min(self.grant().await);
        }
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
        let span = look_at.saturating_sub(self.options.clock.monotonic()).max(Duration::from_millis(1));
        self.timer = Some(myself.send_after(span, || Message::Look));
    }

    async fn restore(&mut self) -> bool {
        let Ok(blocks) = self.options.store.blocks(&self.options.scope).await else { return false };
        let mut limiter = Limiter::new(self.options.limits.clone(), rand::random());
        limiter.restore(&blocks, self.options.clock.monotonic(), self.options.clock.now());
        self.limiter = Some(limiter);
        true
    }

    /// Walks the waiting in order; answers when to look again.
    async fn grant(&mut self) -> Duration {
        let mut look_at = self.options.clock.monotonic() + LOOK_EVERY;
        let mut index = 0;
        while index < self.waiting.len() {
            let now = self.options.clock.monotonic();
            if self.waiting[index].reply.is_closed() {
                self.waiting.remove(index);
                continue;
            }
            match self.decide(index, now) {
                Step::Granted(id) => {
                    let waiting = self.waiting.remove(index);
                    if waiting.reply.send(id).is_err() {
                        // The caller went in this very moment: nothing was sent.
                        self.ended(id, &waiting.endpoint, Some(Verdict::NotSent));
                    }
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

    fn decide(&mut self, index: usize, now: Duration) -> Step {
        let waiting = &self.waiting[index];
        let later = now + LOOK_EVERY;
        let Some(limiter) = &mut self.limiter else { return Step::Wait(later) };
        // The breaker's probe is taken only when the limits let it go, or a waiting probe would keep everybody out.
        match self.breakers.get(&waiting.endpoint).map(Breaker::state) {
            Some(BreakerState::Open(until)) if now < until => return Step::Wait(until),
            Some(BreakerState::HalfOpen) => return Step::Wait(later),
            _ => {}
        }
        match limiter.acquire(now, waiting.class, &waiting.endpoint) {
            Decision::Granted(id) => {
                if let Some(breaker) = self.breakers.get_mut(&waiting.endpoint) {
                    // Passes or becomes the probe: what would wait was turned away above.
                    let _ = breaker.gate(now);
                }
                Step::Granted(id)
            }
            Decision::Wait { until, .. } => Step::Wait(until.unwrap_or(later)),
            Decision::NeedsBlock => Step::Book,
        }
    }

    async fn book(&mut self) -> bool {
        let Some(limiter) = &mut self.limiter else { return false };
        let (now, wall) = (self.options.clock.monotonic(), self.options.clock.now());
        let bookings = limiter.bookings(now);
        match self.options.store.book(&self.options.scope, &bookings).await {
            Ok(ids) => {
                limiter.booked(&bookings, &ids, now, wall);
                // Booked, and nothing of it used; who is told to fail here looks again later.
                failpoint::reach("permit", "booked").await.is_ok()
            }
            Err(_) => false,
        }
    }

    fn observe(&mut self, reply: oneshot::Sender<Observed>) {
        let now = self.options.clock.monotonic();
        let Some(limiter) = &mut self.limiter else { return };
        let open = |breaker: &Breaker| breaker.state() != BreakerState::Closed;
        let observed = Observed {
            snapshot: limiter.snapshot(now),
            n_waiting: self.waiting.len(),
            breakers: self.breakers.iter().map(|(name, breaker)| (name.clone(), open(breaker))).collect(),
        };
        // Whoever asked may have gone.
        let _ = reply.send(observed);
    }
}

enum Step {
    Granted(PermitId),
    Wait(Duration),
    Book,
}
