//! The daemon as a value: [`Daemon::start`] and [`Daemon::stop`] are what `main` and every test call.
//!
//! Start order: sockets are bound (by the caller), the store is opened (waited for, if it is away), migrated, views are made,
//! then the tree starts. Stop is the reverse, each actor with its own deadline.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::actors::journal::StoreHealth;
use crate::actors::source::Process;
use crate::actors::{self, PlanError, Source};
use crate::clock::Clock;
use crate::config::{Config, SecretError};
use crate::report::{GapOpened, Reporter};
use crate::service;
use crate::store::{self, Kind, Store};
use crate::supervision::{Context, Ended, SUPERVISOR_BUDGET, run_root};

mod sources;

pub use sources::{description, source_of};

/// A restart shorter than this loses nothing: the kernel's queue and the sender's timeout cover it.
const DOWNTIME_MIN: Duration = Duration::from_secs(10);
/// A store that is away at boot is looked for this often.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// The bound sockets.
#[derive(Debug)]
pub struct Sockets {
    /// The public one.
    pub hooks: TcpListener,
    /// The local one.
    pub admin: TcpListener,
    /// That of the API, where there is one.
    pub api: Option<TcpListener>,
}

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A secret that is needed at start cannot be read.
    #[error("{0}")]
    Secret(#[from] SecretError),
    /// The store cannot be used, now or later: locked by another daemon, newer schema, wrong path.
    #[error("{0}")]
    Store(#[from] store::Error),
    /// A source cannot be built from its configuration.
    #[error("source {name}: {reason}")]
    Source {
        /// Which.
        name: String,
        /// Why.
        reason: String,
    },
    /// A socket cannot be used.
    #[error("socket: {0}")]
    Socket(#[from] std::io::Error),
    /// A token of the configuration cannot be used.
    #[error("{0}")]
    Token(String),
    /// The tree did not start.
    #[error("the supervision tree did not start: {0}")]
    Tree(String),
    /// It was told to stop before it was up.
    #[error("stopped while starting")]
    Stopped,
}

impl From<PlanError> for StartError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Token(why) => Self::Token(why),
            PlanError::State(why) => Self::Tree(why),
        }
    }
}

/// How the daemon ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it was told to.
    Stopped,
    /// A critical actor failed too often, or the disk's promise was broken: the service manager should start a new process.
    Failed,
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    /// Where hooks are taken.
    pub hooks: SocketAddr,
    /// Where health, metrics and status are.
    pub admin: SocketAddr,
    /// What it replicates; for tests and for the status line.
    pub sources: Vec<Arc<Source>>,
    /// Its store.
    pub store: Store,
    stop: CancellationToken,
    /// Where it stands how far the database has come.
    reached: PathBuf,
    root: JoinHandle<Result<Ended, String>>,
    /// How the tree ended, once it has: it can be waited for only once.
    outcome: Option<Outcome>,
}

impl Daemon {
    /// Starts a daemon. While the store is away it waits, until `stop` is cancelled.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: &Config, state: &Path, sockets: Sockets, clock: Clock, stop: CancellationToken) -> Result<Self, StartError> {
        let reporter = Reporter::new();
        let store = open(config, state, clock, &stop).await?;
        std::fs::create_dir_all(state)?;
        let process = Process {
            store: store.clone(),
            health: StoreHealth::default(),
            clock,
            reporter: reporter.clone(),
            state: state.to_owned(),
            identity: actors::home::identity(state).map_err(StartError::Tree)?,
        };
        let sources = build(config, &process)?;
        while let Err(error) = prepare(&store, &sources, &process, clock).await {
            wait_for_store(error, &stop).await?;
        }
        let (hooks, admin) = (sockets.hooks.local_addr()?, sockets.admin.local_addr()?);
        let plan = actors::Plan::new(config, sockets, process, sources.clone())?;
        let cx = Context::new("root", clock, SUPERVISOR_BUDGET, stop.clone());
        plan.watch_root(&cx.life);
        #[expect(clippy::disallowed_methods, reason = "the root of the supervision tree has no supervisor but the process")]
        let root = tokio::spawn(async move { run_root(plan.tree(), cx).await.map_err(|error| error.to_string()) });
        Ok(Self { hooks, admin, sources, store, stop, reached: actors::home::reached_file(state), root, outcome: None })
    }

    /// Waits until the daemon ends by itself or is stopped.
    pub async fn ended(&mut self) -> Outcome {
        if let Some(outcome) = self.outcome {
            return outcome;
        }
        let ended = tokio::select! {
            ended = &mut self.root => ended,
            () = self.store.broken().cancelled() => return Outcome::Failed,
        };
        let outcome = match ended {
            Ok(Ok(Ended::Stopped)) => Outcome::Stopped,
            Ok(Ok(Ended::Escalated) | Err(_)) | Err(_) => Outcome::Failed,
        };
        *self.outcome.insert(outcome)
    }

    /// Stops it in order and closes the store. A daemon that failed is closed all the same.
    pub async fn stop(mut self) -> Outcome {
        self.stop.cancel();
        let outcome = self.ended().await;
        actors::home::note_reached(&self.store, &self.reached).await;
        if let Err(error) = self.store.close().await {
            tracing::warn!(%error, "the store was not closed cleanly");
        }
        outcome
    }
}

/// Opens the store, waiting for it while it is away.
async fn open(config: &Config, state: &Path, clock: Clock, stop: &CancellationToken) -> Result<Store, StartError> {
    let url = config.store.connection_url(state)?;
    loop {
        let options = store::Options {
            url: url.expose().to_owned(),
            read_group: config.store.read_group.clone(),
            grant: config.store.grant.clone(),
            connections: config.store.connections,
            clock,
        };
        match Store::open(options).await {
            Ok(store) => return Ok(store),
            Err(error) => wait_for_store(error, stop).await?,
        }
    }
}

/// Brings the store to where the tree can begin. What was done stays done, so all of it may be tried again.
async fn prepare(store: &Store, sources: &[Arc<Source>], process: &Process, clock: Clock) -> Result<(), store::Error> {
    service::status("migrating the store");
    store.migrate().await?;
    for source in sources {
        store.install_views(&source.name, source.connector.resources()).await?;
    }
    actors::home::arrive(store, &process.state, &process.identity.host, sources).await?;
    note_downtime(store, sources, clock).await
}

/// A store that is away comes back by itself; whatever else is wrong with it does not.
async fn wait_for_store(error: store::Error, stop: &CancellationToken) -> Result<(), StartError> {
    if error.kind() != Kind::Unavailable {
        return Err(error.into());
    }
    service::status(&format!("waiting for the store: {error}"));
    tracing::warn!(%error, "the store is away; waiting for it");
    tokio::select! {
        () = stop.cancelled() => Err(StartError::Stopped),
        () = tokio::time::sleep(STORE_RETRY) => Ok(()),
    }
}

fn build(config: &Config, process: &Process) -> Result<Vec<Arc<Source>>, StartError> {
    let budget = crate::upstream::ByteBudget::new(config.limits.responses_in_flight.0);
    let mut sources: Vec<Arc<Source>> = Vec::new();
    for (name, configured) in &config.sources {
        let source = source_of(config, name, configured, budget.clone(), process.clone())
            .map_err(|reason| StartError::Source { name: name.clone(), reason })?;
        let twin = sources.iter().find(|other| other.scope == source.scope);
        let source = match twin {
            Some(twin) => source.sharing(twin),
            None => source,
        };
        sources.push(Arc::new(source));
    }
    Ok(sources)
}

/// Opens a gap for every source that may have lost deliveries while no daemon ran: its upstream gave up sending in that time.
async fn note_downtime(store: &Store, sources: &[Arc<Source>], clock: Clock) -> Result<(), store::Error> {
    let Some(beat) = store.last_heartbeat().await? else { return Ok(()) };
    let now = clock.now();
    for source in sources {
        // A heartbeat ahead of us was dated by a wall clock that was set back since: nobody knows how long no daemon ran.
        let is_unknown = beat > now.plus(DOWNTIME_MIN);
        if is_unknown || now.since(beat) > source.retries_for().max(DOWNTIME_MIN) {
            store.extend_gap(&source.name, "downtime", beat.min(now), Some(now)).await?;
            source.reporter.emit(GapOpened { source: source.name.to_string(), cause: "downtime".into() });
        }
    }
    Ok(())
}
