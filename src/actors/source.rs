//! `source:<name>`: the subtree of one upstream account, and what its actors share.
//!
//! One-for-one: a failing resource is parked alone, and so is a failing source. What is shared here is made of handles and
//! atomics that survive any actor; what counts is in rows.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::delays::Looked;
use super::demands::Demands;
use super::home::Identity;
use super::journal::StoreHealth;
use super::limiter;
use super::probe::{self, Probe};
use super::pushes::Pushes;
use super::session::Sessions;
pub use super::verify::Audit;
use crate::clock::{Clock, Daily, Timestamp};
use crate::config::Secrets;
use crate::connectors::{Connector, HookPolicy, HookSecret, ResourceSpec, SecretForm};
use crate::model::ordering::Started;
use crate::model::{ResourceName, SourceName};
use crate::quota::{BreakerOptions, Limits, RefreshShare};
use crate::reconcile::{Offset, Schedule};
use crate::report::{GapOpened, Reporter, ViewLost};
use crate::store::{Fence, Gap, Kind, Store};
use crate::supervision::{Context, Waker};
use crate::upstream::Upstream;

/// How a source behaves, as configured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Shortest time between two bulk reads of a resource: hints gather meanwhile.
    pub linger: Duration,
    /// Whether passes run (incremental and sweep; the first sweep, the backfill, always does).
    pub passes: bool,
    /// When sweeps begin that come once a day or less often; `None`: when the last one is old enough.
    pub sweep_at: Option<Daily>,
    /// Whether event feeds are polled.
    pub feeds: bool,
    /// Time between polls of a feed.
    pub feed_poll: Duration,
    /// Deliveries not yet processed above which hooks are refused.
    pub backlog_max: u64,
    /// Largest body of a delivery, where the configuration overrides the connector's.
    pub body_max: Option<u64>,
    /// Base of the public address of the hooks; `None`: poll-only.
    pub public_url: Option<String>,
    /// A credential for managing registrations is configured.
    pub manages_hooks: bool,
    /// Registrations may be changed, and are not only watched.
    pub may_manage: bool,
    /// How lost webhooks are noticed.
    pub watch: Watch,
    /// Signature tokens of webhooks that were made by hand, each with the route it was issued for (`None`: any).
    pub secrets: Vec<(Option<&'static str>, Secrets)>,
    /// Removal budget of rule 11.
    pub brake: Brake,
    /// When an endpoint, or the source, is left alone.
    pub breaker: BreakerOptions,
    /// How long an actor waits for a permit before it looks at its rows again.
    pub patience: Duration,
    /// Share of what is ours of the quota that refreshes may have.
    pub refresh_share: f64,
    /// How the replica is compared with the upstream unasked.
    pub audit: Audit,
}

/// How lost webhooks are noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Between two looks at the registrations.
    pub look: Duration,
    /// Between two times at which registrations are put right.
    pub mend: Duration,
    /// Between two probes of the public address; 0: none.
    pub probe: Duration,
    /// A delivery that comes later after its change counts as missed.
    pub late: Duration,
    /// So many missed within an hour open a gap.
    pub missed: u32,
}

impl Default for Watch {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self { look: minute * 4, mend: minute * 60, probe: minute * 4, late: minute * 2, missed: 5 }
    }
}

/// How many rows may vanish unannounced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Brake {
    /// Share of a resource's live rows in 24 hours.
    pub share: f64,
    /// So many may always go.
    pub rows: u64,
    /// Never more than this in 24 hours.
    pub cap: u64,
}

impl Default for Brake {
    fn default() -> Self {
        Self { share: 0.2, rows: 10, cap: 1_000 }
    }
}

/// What all sources of a process share.
#[derive(Clone, Debug)]
pub struct Process {
    /// The store.
    pub store: Store,
    /// Whether it can commit and has room.
    pub health: StoreHealth,
    /// The clock.
    pub clock: Clock,
    /// Where things are reported.
    pub reporter: Reporter,
    /// The state directory.
    pub state: PathBuf,
    /// Who we are.
    pub identity: Identity,
}

/// What every actor of a source shares.
#[derive(Debug)]
pub struct Source {
    /// Its name.
    pub name: SourceName,
    /// The code that knows its upstream.
    pub connector: Arc<dyn ConnectorDebug>,
    /// Its HTTP client.
    pub upstream: Upstream,
    /// Whose quota it draws on, e.g. `productive:org:435`.
    pub scope: String,
    /// The limits of that scope.
    pub limits: Limits,
    /// The limiter of its scope, which sources on one quota share.
    pub limiter: limiter::Handle,
    /// The limiter is a child of this source.
    pub owns_limiter: bool,
    /// The store.
    pub store: Store,
    /// Whether it can commit and has room.
    pub health: StoreHealth,
    /// The state directory.
    pub state: PathBuf,
    /// The clock.
    pub clock: Clock,
    /// Where things are reported.
    pub reporter: Reporter,
    /// How it behaves.
    pub settings: Settings,
    /// Wakes the intake.
    pub intake: Waker,
    /// Wakes the reconciler.
    pub reconciler: Waker,
    /// Wakes the keeper.
    pub keeper: Waker,
    /// Wakes a resource's sync actor.
    pub syncs: BTreeMap<ResourceName, Waker>,
    /// Deliveries not yet processed, as last counted.
    pub backlog: AtomicU64,
    /// Grows whenever this process changes a registration, so that its signature token is looked up at once.
    pub registrations: AtomicU64,
    /// Resources of which the upstream stopped showing what must be there: nothing of them is removed meanwhile.
    lost_views: Mutex<BTreeMap<ResourceName, LostView>>,
    /// The upstream's webhooks, as last seen.
    pub live: Mutex<LiveMode>,
    /// Resources and feeds whose passes or polls fail again and again, and why.
    pub ailing: Mutex<BTreeMap<String, String>>,
    /// Requests for states under way, per resource.
    pub in_flight: BTreeMap<ResourceName, AtomicUsize>,
    /// What requests are authorised by, where the upstream has sessions.
    pub(super) sessions: Sessions,
    /// Whether deliveries come.
    pub(super) pushes: Pushes,
    /// Who waits for what.
    pub(super) demands: Demands,
    /// What refreshes have taken of the scope's quota.
    pub(super) refreshes: Arc<Mutex<RefreshShare>>,
    /// Whether the public address leads here.
    pub(super) probe: Probe,
    /// Where this process is at home.
    pub(super) host: Arc<str>,
    /// Why registrations may not be changed: they were made elsewhere.
    pub(super) suspended: Mutex<Option<String>>,
    /// How far the upstream's clock is from ours.
    pub(super) offset: Mutex<Offset>,
    /// How far the delays of webhooks were looked at.
    pub(super) delays: Mutex<Option<Looked>>,
    fence: watch::Sender<Option<Fence>>,
}

/// How the loss of a resource's view stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostView {
    /// How often it was looked for in vain.
    pub looks: u32,
    /// When it is looked for again, in monotonic time.
    pub next: Duration,
}

/// A connector that can be shown in `Debug` output of what holds it.
pub trait ConnectorDebug: Connector + std::fmt::Debug {}
impl<T: Connector + std::fmt::Debug> ConnectorDebug for T {}

/// How changes reach us.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "mode")]
pub enum LiveMode {
    /// By event feeds and passes only.
    #[default]
    PollOnly,
    /// By webhooks that were made by hand: nobody tells whether they still come. Passes repair.
    Unwatched,
    /// By webhooks; passes repair.
    Webhooks {
        /// Registrations that work.
        healthy: usize,
        /// What is wrong with the others.
        unhealthy: Vec<String>,
    },
}

impl Source {
    /// A source without an owner yet.
    #[must_use]
    pub fn new(
        name: SourceName,
        connector: Arc<dyn ConnectorDebug>,
        upstream: Upstream,
        scope: String,
        limits: Limits,
        process: Process,
        settings: Settings,
    ) -> Self {
        let Process { store, health, clock, reporter, state, identity } = process;
        let names: Vec<ResourceName> = connector.resources().iter().map(|spec| spec.name.clone()).collect();
        Self {
            limiter: limiter::Handle::default().of(name.as_str()),
            name,
            upstream,
            scope,
            owns_limiter: true,
            store,
            health,
            state,
            clock,
            reporter,
            intake: Waker::default(),
            reconciler: Waker::default(),
            keeper: Waker::default(),
            syncs: names.iter().map(|name| (name.clone(), Waker::default())).collect(),
            backlog: AtomicU64::new(0),
            registrations: AtomicU64::new(0),
            lost_views: Mutex::default(),
            live: Mutex::default(),
            ailing: Mutex::default(),
            in_flight: names.into_iter().map(|name| (name, AtomicUsize::new(0))).collect(),
            sessions: Sessions::default(),
            pushes: Pushes::default(),
            demands: Demands::default(),
            refreshes: Arc::new(Mutex::new(RefreshShare::new(&limits, settings.refresh_share))),
            limits,
            settings,
            probe: Probe::new(identity.probe_secret),
            host: identity.host,
            suspended: Mutex::default(),
            offset: Mutex::default(),
            delays: Mutex::default(),
            fence: watch::Sender::new(None),
            connector,
        }
    }

    /// Draws on the limiter of another source with the same scope: one quota, one account of it.
    #[must_use]
    pub fn sharing(self, other: &Self) -> Self {
        let (limiter, refreshes) = (other.limiter.of(self.name.as_str()), Arc::clone(&other.refreshes));
        Self { limiter, refreshes, owns_limiter: false, ..self }
    }

    /// The right to write this source's rows; waits for it, until it is told to stop.
    pub async fn fence(&self, cx: &Context) -> Option<Fence> {
        let mut owned = self.fence.subscribe();
        loop {
            // However long the store is away: whoever waits for it is alive.
            cx.life.allow(cx.step_budget);
            tokio::select! {
                () = cx.stopping.cancelled() => return None,
                owned = owned.wait_for(Option::is_some) => return owned.ok()?.clone(),
                () = tokio::time::sleep(cx.step_budget / 4) => {}
            }
        }
    }

    /// The right to write, if it is held now.
    #[must_use]
    pub fn fence_now(&self) -> Option<Fence> {
        self.fence.borrow().clone()
    }

    pub(super) fn own(&self, fence: Option<Fence>) {
        self.fence.send_replace(fence);
    }

    /// Looks at a store error: who is fenced gives the source up, and its actors wait for a new claim.
    pub fn saw(&self, fence: &Fence, error: &crate::store::Error) {
        if error.kind() != Kind::Fenced {
            return;
        }
        self.fence.send_if_modified(|held| {
            let is_current = held.as_ref().is_some_and(|held| held.epoch() == fence.epoch());
            if is_current {
                *held = None;
            }
            is_current
        });
    }

    /// The spec of a resource.
    #[must_use]
    pub fn spec(&self, resource: &ResourceName) -> Option<&ResourceSpec> {
        self.connector.resources().iter().find(|spec| spec.name == *resource)
    }

    /// How often a resource is looked at, and how, unless the upstream refuses what its changes are found by.
    #[must_use]
    pub fn schedule(&self, spec: &ResourceSpec) -> Schedule {
        Schedule { mode: spec.mode, poll: spec.poll, sweep: spec.sweep, deletes_by_feed: self.settings.feeds }
    }

    /// Every secret that deliveries may be signed with, as it stands now: those of registrations, and those that were configured.
    ///
    /// # Errors
    /// Says why one cannot be read.
    pub async fn hook_secrets(&self) -> Result<Vec<HookSecret>, String> {
        let mut known = self.store.hook_secrets(&self.name).await.map_err(|error| error.to_string())?;
        for (route, secrets) in &self.settings.secrets {
            let configured = secrets.read().map_err(|error| {
                tracing::error!(source = %self.name, %error, "a configured signature token cannot be read");
                error.to_string()
            })?;
            let route = || route.map(ToOwned::to_owned);
            known.extend(configured.iter().map(|secret| HookSecret {
                route: route(),
                text: secret.expose().to_owned(),
                form: SecretForm::Whole,
            }));
        }
        Ok(known)
    }

    /// How the edge treats this source's deliveries on a route; `None`: it has no such route.
    #[must_use]
    pub fn policy(&self, route: &str) -> Option<HookPolicy> {
        if route == probe::ROUTE {
            return self.settings.public_url.as_ref().map(|_| probe::POLICY);
        }
        let policy = self.connector.hook_policy(route)?;
        Some(HookPolicy { body_max: self.settings.body_max.unwrap_or(policy.body_max), ..policy })
    }

    /// How long a refused delivery is sent again on every route; for ever where nothing is sent.
    #[must_use]
    pub fn retries_for(&self) -> Duration {
        let routes = self.connector.hook_routes();
        routes.iter().filter_map(|route| self.policy(route)).map(|policy| policy.retries_for).min().unwrap_or(Duration::MAX)
    }

    /// The address that is registered upstream for a route.
    #[must_use]
    pub(super) fn target(&self, route: &str) -> Option<String> {
        let base = self.settings.public_url.as_ref()?;
        Some(format!("{}/hooks/{}/{route}", base.trim_end_matches('/'), self.name))
    }

    /// Opens a gap or extends the open one of this cause, and says so where it is new.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`]: note it again later.
    pub async fn open_gap(&self, cause: &str, began: Timestamp, ended: Option<Timestamp>) -> Result<(), crate::store::Error> {
        let is_new = self.open_gap_of(cause).await?.is_none();
        self.store.extend_gap(&self.name, cause, began, ended).await?;
        if is_new {
            self.reporter.emit(GapOpened { source: self.name.to_string(), cause: cause.to_owned() });
        }
        self.reconciler.wake();
        Ok(())
    }

    /// Ends the open gap of this cause that goes on: the next passes repair it.
    ///
    /// # Errors
    /// As [`Self::open_gap`].
    pub async fn end_gap(&self, cause: &str) -> Result<(), crate::store::Error> {
        let Some(gap) = self.open_gap_of(cause).await?.filter(|gap| gap.ended_at.is_none()) else { return Ok(()) };
        self.store.extend_gap(&self.name, cause, Timestamp(gap.began_at), Some(self.clock.now())).await?;
        self.reconciler.wake();
        Ok(())
    }

    async fn open_gap_of(&self, cause: &str) -> Result<Option<Gap>, crate::store::Error> {
        Ok(self.store.open_gaps(&self.name).await?.into_iter().find(|gap| gap.cause == cause))
    }

    /// When a read begins: taken as its request is issued.
    #[must_use]
    pub fn started(&self, fence: &Fence) -> Started {
        Started { tick: fence.tick(), at: self.clock.now() }
    }

    /// Whether a read of this resource is under way.
    #[must_use]
    pub fn reads(&self, resource: &ResourceName) -> bool {
        self.in_flight.get(resource).is_some_and(|n| n.load(Ordering::Acquire) > 0)
    }

    /// Marks a read of this resource as under way until the guard is dropped.
    pub fn reading(&self, resource: &ResourceName) -> Option<Reading<'_>> {
        let n = self.in_flight.get(resource)?;
        n.fetch_add(1, Ordering::AcqRel);
        Some(Reading(n))
    }

    /// Notes why a resource or feed cannot be read, for `/status`; `None`: it can again.
    pub fn ails(&self, name: &str, why: Option<String>) {
        let mut ailing = self.ailing.lock().unwrap_or_else(PoisonError::into_inner);
        match why {
            Some(why) => drop(ailing.insert(name.to_owned(), why)),
            None => drop(ailing.remove(name)),
        }
    }

    /// Whether the view of a resource is lost.
    #[must_use]
    pub fn view_lost(&self) -> bool {
        !self.lost_views.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// How the loss of this resource's view stands, if it is lost.
    #[must_use]
    pub fn lost_view(&self, resource: &ResourceName) -> Option<LostView> {
        self.lost_views.lock().unwrap_or_else(PoisonError::into_inner).get(resource).copied()
    }

    /// The view of a resource is lost, or still is; it is looked for again after what `rest` makes of the number of looks.
    pub fn lose(&self, resource: &ResourceName, rest: impl FnOnce(u32) -> Duration) -> Duration {
        let mut views = self.lost_views.lock().unwrap_or_else(PoisonError::into_inner);
        let looks = views.get(resource).map_or(0, |lost| lost.looks) + 1;
        let span = rest(looks);
        views.insert(resource.clone(), LostView { looks, next: self.clock.monotonic() + span });
        drop(views);
        if looks == 1 {
            self.reporter.emit(ViewLost { source: self.name.to_string(), resource: resource.to_string() });
        }
        span
    }

    /// The upstream shows this resource.
    pub fn see(&self, resource: &ResourceName) {
        self.lost_views.lock().unwrap_or_else(PoisonError::into_inner).remove(resource);
    }

    /// How changes reach us.
    #[must_use]
    pub fn live_mode(&self) -> LiveMode {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells the sync actors of these resources that marks exist.
    pub fn wake<'a>(&self, resources: impl IntoIterator<Item = &'a ResourceName>) {
        for resource in resources {
            if let Some(waker) = self.syncs.get(resource) {
                waker.wake();
            }
        }
    }
}

/// A read under way.
#[derive(Debug)]
pub struct Reading<'a>(&'a AtomicUsize);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
