//! The demo of an Akeneo PIM: one replica goes through the four phases of the move from the Events API to the Event Platform.
//!
//! The daemon is stopped and started with another configuration between two phases, as the operator of a real one would. In each
//! phase people work, and at its end every field upstream is compared with every field of the replica, and the daemon's own count
//! of what it was told with the sender's.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::compare::Comparison;
use super::plan::SOURCE;
use super::process::{DAEMON_LOG, Directory, Running, free_ports, own_program, run_verb, tail};
use super::replica::{Replica, wait};
use super::upstream::{Change, Upstream};
use super::{Args, EX_SOFTWARE, Error, complain, say, within};
use crate::clock::{Clock, Timestamp};
use crate::connectors::akeneo::{Akeneo, Auth, Options, ProductKey, ResourceOptions, resource_names};
use crate::connectors::{Connector as _, ResourceSpec};

mod outcome;
mod phase;
mod truth;

use outcome::{Coverage, Observed, Outcome};
use phase::{Phase, Plan, SECRETS};

/// Longest wait for the first sweep.
const BACKFILL_DEADLINE: Duration = Duration::from_secs(300);
/// Longest wait for a subscriber and a subscription.
const REGISTER_DEADLINE: Duration = Duration::from_secs(30);
/// Longest wait for the churn and its deliveries.
const CHURN_DEADLINE: Duration = Duration::from_secs(170);
/// Longest wait for pending deliveries and marks after the last delivery, and for two sweeps in phases with passes.
const SETTLE_DEADLINE: Duration = Duration::from_secs(120);

/// A running trial.
struct Trial<'a> {
    plan: Plan,
    directory: &'a Directory,
    store: &'a str,
    root: String,
    ports: [u16; 2],
    clock: Clock,
    upstream: Upstream,
    specs: Vec<ResourceSpec>,
    _sandbox: Running,
}

/// Goes through all phases. Exit code 0 only if all of it holds.
pub(super) async fn prove(args: &Args, stop: &CancellationToken) -> ExitCode {
    let plan = Plan::new(args.seed, args.quick);
    let tamper = args.tamper.map(usize::from);
    let result = within(args, "akeneo", stop, async |directory: &Directory, store: &str| {
        let trial = start(plan, directory, store).await?;
        let mut outcomes = Vec::new();
        for phase in Phase::ALL {
            outcomes.push(trial.run(phase).await?);
        }
        let found = match tamper {
            Some(records) => Some(trial.tamper(records).await?),
            None => None,
        };
        Ok((outcomes, found))
    });
    match result.await {
        Ok((outcomes, tampered)) => match show(args, &outcomes, tampered.as_deref()) {
            Ok(()) if tampered.is_none() && outcomes.iter().all(Outcome::holds) => ExitCode::SUCCESS,
            Ok(()) => ExitCode::from(1),
            Err(error) => complain(EX_SOFTWARE, error),
        },
        Err(error) => complain(EX_SOFTWARE, error),
    }
}

fn show(args: &Args, outcomes: &[Outcome], tampered: Option<&[String]>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if args.json {
        let ok = outcomes.iter().all(Outcome::holds) && tampered.is_none();
        return writeln!(out, "{}", json!({ "ok": ok, "phases": outcomes, "tampered": tampered }));
    }
    for outcome in outcomes {
        outcome.show(&mut out)?;
    }
    match tampered {
        Some(named) => writeln!(out, "  TAMPERED WITH after the end, and named by the comparison: {}", named.join(", ")),
        None => Ok(()),
    }
}

async fn start<'a>(plan: Plan, directory: &'a Directory, store: &'a str) -> Result<Trial<'a>, Error> {
    let (products, seed) = (plan.products.to_string(), plan.seed.to_string());
    let arguments = ["sandbox", "akeneo", "--port", "0", "--entities", &products, "--seed", &seed, "--platform-retry-scale", "0.01"];
    let (sandbox, root) = Running::start_and_listen(own_program(&arguments, &directory.path, "sandbox.log")?).await?;
    for secret in ["connection-secret", "connection-password"].into_iter().chain(SECRETS) {
        directory.write(secret, secret)?;
    }
    let upstream = Upstream::new(&root)?;
    say("akeneo", format_args!("a PIM of about {products} products at {root}"));
    let specs = specs(&root)?;
    Ok(Trial { plan, directory, store, root, ports: free_ports()?, clock: Clock::system(), upstream, specs, _sandbox: sandbox })
}

/// What the connector replicates; from it come the names and kinds of the views' columns.
fn specs(root: &str) -> Result<Vec<ResourceSpec>, Error> {
    let options = Options {
        url: url::Url::parse(root).map_err(|error| Error::Answer(error.to_string()))?,
        auth: Auth::App,
        zone_seconds: 0,
        product_key: ProductKey::Uuid,
        resources: resource_names().into_iter().map(|name| (name.to_owned(), ResourceOptions::default())).collect(),
        events_api: false,
        event_platform: false,
        notifications: false,
        platform: None,
        ignore_authors: Vec::new(),
        subscriptions: Vec::new(),
        exclude: Vec::new(),
        read_lag: Duration::ZERO,
        list_lag: Duration::ZERO,
        keep_deleted: Duration::ZERO,
        tombstones: Duration::ZERO,
    };
    let connector = Akeneo::new(options).map_err(Error::Answer)?;
    Ok(connector.resources().to_vec())
}

impl Trial<'_> {
    /// Starts the daemon for a phase, lets people work, and compares.
    async fn run(&self, phase: Phase) -> Result<Outcome, Error> {
        self.upstream.faults(&phase.faults()).await?;
        let text = self.plan.config(phase, self.store, &self.root, &self.directory.path, self.ports);
        let config = self.directory.write("instep.toml", &text)?.display().to_string();
        let command = own_program(&["run", "--config", &config], &self.directory.path, DAEMON_LOG)?;
        let mut daemon = Running::start(command)?;
        let replica = Replica::open(self.clock, self.store, self.ports[1], &mut daemon, self.directory).await?;
        let ran = self.work(phase, &replica, &mut daemon).await;
        let ended = daemon.ended();
        daemon.end().await;
        match (ran, ended) {
            (Err(error), Some(status)) => {
                let log = tail(&self.directory.path.join(DAEMON_LOG));
                Err(Error::Process(format!("{error}; the daemon had ended ({status}):\n{log}")))
            }
            (ran, _) => ran,
        }
    }

    async fn work(&self, phase: Phase, replica: &Replica, daemon: &mut Running) -> Result<Outcome, Error> {
        let begin = self.clock.monotonic();
        let swept = async || replica.swept_since(self.specs.len(), None).await;
        wait(self.clock, daemon, "the end of the backfill", BACKFILL_DEADLINE, swept).await?;
        say(phase.word(), format_args!("every resource was read after {:.1} s", self.since(begin)));
        self.upstream.post("subscription", &phase.subscription(self.ports[0])).await?;
        if phase == Phase::Both {
            self.register().await?;
        }
        let before = self.upstream.report().await?;
        let n_before = usize::try_from(super::arm::number(&before, "/changes")).unwrap_or(usize::MAX);
        let churn_at = self.clock.now();
        self.upstream.churn(&self.plan.churn(phase), CHURN_DEADLINE).await?;
        let (quiet_at, quiet_wall) = (self.clock.monotonic(), self.clock.now());
        say(phase.word(), format_args!("people have worked and every event is told; waiting for the replica"));
        self.settle(phase, replica, daemon, quiet_wall).await?;
        let settled_s = self.since(quiet_at);
        let after = self.upstream.report().await?;
        let comparison = self.compare(replica).await?;
        let changes: Vec<Change> = self.upstream.changes(n_before).await?;
        let rows = replica.change_rows(SOURCE, churn_at).await?;
        let coverage = coverage(replica).await?;
        let mut outcome =
            Outcome::new(phase, Observed { comparison, changes: &changes, rows: &rows, before: &before, after: &after, coverage });
        outcome.settled_s = settled_s;
        outcome.vm_hwm_kib = daemon.high_water_kib().unwrap_or(0);
        outcome.judge();
        Ok(outcome)
    }

    /// `instep hooks create`, as a person would type it.
    async fn register(&self) -> Result<(), Error> {
        let config = self.directory.path.join("instep.toml").display().to_string();
        let arguments = ["hooks", "create", SOURCE, "--config", &config];
        if !run_verb(&arguments, &self.directory.path, "hooks.log", REGISTER_DEADLINE).await? {
            return Err(Error::Process(format!("`instep hooks create` failed: {}", tail(&self.directory.path.join("hooks.log")))));
        }
        say(Phase::Both.word(), format_args!("a subscription to the Event Platform was made"));
        Ok(())
    }

    /// Waits until whatever the phase relies on has had its turn and nothing is left to do.
    async fn settle(&self, phase: Phase, replica: &Replica, daemon: &mut Running, quiet: Timestamp) -> Result<(), Error> {
        if phase.has_passes() {
            let swept = async || replica.swept_since(self.specs.len(), Some(quiet)).await;
            return wait(self.clock, daemon, "a sweep of every resource after the last change", SETTLE_DEADLINE, swept).await;
        }
        wait(self.clock, daemon, "no pending delivery, no open mark", SETTLE_DEADLINE, async || replica.idle().await).await
    }

    async fn compare(&self, replica: &Replica) -> Result<Comparison, Error> {
        let mut found = Comparison::default();
        for spec in &self.specs {
            let records = truth::records(&self.upstream, spec.name.as_str()).await?;
            found.add(&replica.reader, SOURCE, spec, &records, truth::compare).await?;
        }
        Ok(found)
    }

    /// Changes records that nobody hears of, after the daemon has ended; the comparison must name exactly those.
    async fn tamper(&self, records: usize) -> Result<Vec<String>, Error> {
        let mut tampered = self.upstream.tamper(records).await?;
        let replica = Replica::closed(self.store).await?;
        let found = self.compare(&replica).await?;
        let mut named: Vec<(String, String)> = found.differences.iter().map(|d| (d.resource.clone(), d.key.clone())).collect();
        named.dedup();
        named.sort();
        tampered.sort();
        if named != tampered {
            return Err(Error::Answer(format!("tampered with {tampered:?}, and the comparison named {named:?}")));
        }
        Ok(named.into_iter().map(|(resource, key)| format!("{resource} {key}")).collect())
    }

    fn since(&self, begin: Duration) -> f64 {
        self.clock.monotonic().saturating_sub(begin).as_secs_f64()
    }
}

/// What the daemon says it was told, by the view that its users ask.
async fn coverage(replica: &Replica) -> Result<Coverage, Error> {
    let told = format!("instep_events where source = '{SOURCE}' and via in ('events_api', 'event_platform') group by 1, 2, 3");
    let rows = replica.reader.texts(&["resource", "operation", "via", "count(distinct key)"], &told).await?;
    let counted = rows.into_iter().filter_map(|row| {
        let mut cells = row.into_iter();
        let (resource, operation, via, n) = (cells.next()??, cells.next()??, cells.next()??, cells.next()??);
        let system = if via == "events_api" { "events_api" } else { "event_platform" };
        Some(((resource, operation, system), n.parse().ok()?))
    });
    Ok(counted.collect())
}
