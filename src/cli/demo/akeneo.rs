//! The demo of an Akeneo PIM: one replica goes through the four phases of the move from the Events API to the Event Platform.
//!
//! The daemon is stopped and started with another configuration between two phases, as the operator of a real one would. In each
//! phase people work, and at its end every field upstream is compared with every field of the replica, and the daemon's own count
//! of what it was told with the sender's.

use std::process::ExitCode;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::fake::{Fake, Of};
use super::figures::{Figures, Observed};
use super::ground::{Ground, Parts, conclude};
use super::plan::SOURCE;
use super::process::{Directory, Running};
use super::replica::{Replica, wait};
use super::upstream::Change;
use super::{Args, Error, say, within};
use crate::clock::Timestamp;
use crate::connectors::akeneo::{Akeneo, Auth, Options, ProductKey, ResourceOptions, resource_names};
use crate::connectors::{Connector as _, ResourceSpec};

mod outcome;
pub(super) mod phase;
pub(super) mod truth;

use outcome::{Coverage, Outcome};
use phase::{Phase, Plan, SECRETS};

/// Longest wait for the first sweep.
const BACKFILL_DEADLINE: Duration = Duration::from_secs(300);
/// Longest wait for the churn and its deliveries.
const CHURN_DEADLINE: Duration = Duration::from_secs(170);
/// Longest wait for pending deliveries and marks after the last delivery, and for two sweeps in phases with passes.
const SETTLE_DEADLINE: Duration = Duration::from_secs(120);

/// A running trial.
struct Trial<'a> {
    plan: Plan,
    ground: Ground<'a>,
    fake: Fake,
}

/// Goes through all phases. Exit code 0 only if all of it holds.
pub(super) async fn prove(args: &Args, stop: &CancellationToken) -> ExitCode {
    let plan = Plan::new(args.seed, args.quick);
    let tamper = args.tamper.map(usize::from);
    let result = within(args, "akeneo", stop, async |directory: &Directory, store: &str| {
        let fake = start(&plan, SOURCE, directory).await?;
        say("akeneo", format_args!("a PIM of about {} products at {}", plan.products, fake.root));
        let trial = Trial { plan, ground: Ground::new(directory, store)?, fake };
        let mut parts = Vec::new();
        for phase in Phase::ALL {
            parts.push(trial.run(phase).await?);
        }
        let tampered = match tamper {
            Some(records) => Some(trial.ground.tamper(&trial.fake, records).await?),
            None => None,
        };
        Ok(Parts { parts, tampered })
    });
    conclude(args, "phases", result.await)
}

/// Starts a fake PIM, and writes down the secrets of both sides.
pub(super) async fn start(plan: &Plan, source: &'static str, directory: &Directory) -> Result<Fake, Error> {
    let (products, seed) = (plan.products.to_string(), plan.seed.to_string());
    let options = ["--entities", &products, "--seed", &seed, "--platform-retry-scale", "0.01"];
    for secret in ["connection-secret", "connection-password"].into_iter().chain(SECRETS) {
        directory.write(secret, secret)?;
    }
    Fake::start(Of::Akeneo, source, &options, directory).await
}

/// What the connector replicates; from it come the names and kinds of the views' columns.
pub(super) fn specs(root: &str) -> Result<Vec<ResourceSpec>, Error> {
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
        self.fake.upstream.faults(&phase.faults()).await?;
        let Ground { directory, ports, .. } = &self.ground;
        let config =
            self.ground.head("upstream_timeout = \"5s\"") + &self.plan.config(phase, SOURCE, &self.fake.root, &directory.path, ports[0]);
        self.ground.run(&config, async |replica: &Replica, daemon: &mut Running| self.work(phase, replica, daemon).await).await
    }

    async fn work(&self, phase: Phase, replica: &Replica, daemon: &mut Running) -> Result<Outcome, Error> {
        let Self { ground, fake, .. } = self;
        let begin = ground.clock.monotonic();
        let swept = async || replica.swept_since(SOURCE, fake.specs.len(), None).await;
        wait(ground.clock, daemon, "the end of the backfill", BACKFILL_DEADLINE, swept).await?;
        say(phase.word(), format_args!("every resource was read after {:.1} s", ground.since(begin)));
        fake.upstream.post("subscription", &phase.subscription(SOURCE, ground.ports[0])).await?;
        if phase == Phase::Both {
            ground.register(SOURCE).await?;
            say(phase.word(), format_args!("a subscription to the Event Platform was made"));
        }
        let before = fake.upstream.report().await?;
        let n_before = usize::try_from(super::arm::number(&before, "/changes")).unwrap_or(usize::MAX);
        let churn_at = ground.clock.now();
        fake.upstream.churn(&self.plan.churn(phase), CHURN_DEADLINE).await?;
        let (quiet_at, quiet_wall) = (ground.clock.monotonic(), ground.clock.now());
        say(phase.word(), format_args!("people have worked and every event is told; waiting for the replica"));
        self.settle(phase, replica, daemon, quiet_wall).await?;
        let settled_s = ground.since(quiet_at);
        let after = fake.upstream.report().await?;
        let comparison = fake.compare(replica).await?;
        let changes: Vec<Change> = fake.upstream.changes(n_before).await?;
        let rows = replica.change_rows(SOURCE, churn_at).await?;
        let coverage = coverage(replica).await?;
        let mut figures = Figures::new(Observed { comparison, changes: &changes, rows: &rows, before: &before, after: &after });
        figures.settled_s = settled_s;
        figures.vm_hwm_kib = daemon.high_water_kib().unwrap_or(0);
        Ok(Outcome::new(phase, figures, &after, &coverage))
    }

    /// Waits until whatever the phase relies on has had its turn and nothing is left to do.
    async fn settle(&self, phase: Phase, replica: &Replica, daemon: &mut Running, quiet: Timestamp) -> Result<(), Error> {
        let (clock, n) = (self.ground.clock, self.fake.specs.len());
        if phase.has_passes() {
            let swept = async || replica.swept_since(SOURCE, n, Some(quiet)).await;
            return wait(clock, daemon, "a sweep of every resource after the last change", SETTLE_DEADLINE, swept).await;
        }
        wait(clock, daemon, "no pending delivery, no open mark", SETTLE_DEADLINE, async || replica.idle().await).await
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
