//! One arm from the start of its processes to its verdict.

use std::time::Duration;

use serde_json::Value;

use super::fake::{Fake, Of};
use super::ground::Ground;
use super::outcome::{self, Outcome};
use super::plan::{ORGANIZATION, Plan, SOURCE};
use super::process::{Directory, Running};
use super::replica::{Replica, wait};
use super::{Error, say};
use crate::clock::Timestamp;
use crate::connectors::productive::{Options, Productive, ResourceOptions, resource_names};
use crate::connectors::{Connector as _, ResourceSpec};

/// Longest wait for the first sweep: 280 pages at 9 a second and the time of a slow machine.
const BACKFILL_DEADLINE: Duration = Duration::from_secs(300);
/// Longest wait for the churn, its deliveries and its settling.
const CHURN_DEADLINE: Duration = Duration::from_secs(170);
/// Longest wait for pending deliveries and marks after the last delivery.
const SETTLE_DEADLINE: Duration = Duration::from_secs(60);
/// The token of the trial, and the name of its file.
pub(super) const TOKEN: &str = "demo-token";

/// A running trial.
struct Trial<'a> {
    plan: &'a Plan,
    ground: Ground<'a>,
    fake: Fake,
}

/// Runs an arm. `tamper`: so many records are changed behind everybody's back after its end.
pub(super) async fn run(plan: &Plan, directory: &Directory, store: &str, tamper: Option<usize>) -> Result<Outcome, Error> {
    let fake = start(plan, SOURCE, directory).await?;
    let trial = Trial { plan, ground: Ground::new(directory, store)?, fake };
    let Ground { ports, .. } = &trial.ground;
    say(plan.arm.word(), format_args!("an organisation of about {} records at {}", plan.entities, trial.fake.root));
    let source = plan.config(SOURCE, &trial.fake.root, &directory.path.join(TOKEN), ports[0]);
    let config = trial.ground.head("upstream_timeout = \"2s\"") + &source;
    trial.ground.run(&config, async |replica: &Replica, daemon: &mut Running| trial.run(replica, daemon, tamper).await).await
}

/// Starts a fake organisation, and writes down the token.
pub(super) async fn start(plan: &Plan, source: &'static str, directory: &Directory) -> Result<Fake, Error> {
    let (entities, seed, organization) = (plan.entities.to_string(), plan.seed.to_string(), ORGANIZATION.to_string());
    let options =
        ["--token", TOKEN, "--retries-over-ms", "12000", "--entities", &entities, "--seed", &seed, "--organization", &organization];
    let fake = Fake::start(Of::Productive, source, &options, directory).await?;
    fake.upstream.faults(&plan.faults()).await?;
    directory.write(TOKEN, TOKEN)?;
    Ok(fake)
}

/// What the connector replicates; from it come the names and kinds of the views' columns.
pub(super) fn specs(api: &str) -> Result<Vec<ResourceSpec>, Error> {
    let url = url::Url::parse(api).map_err(|error| Error::Answer(error.to_string()))?;
    let options = Options {
        url,
        organization: ORGANIZATION,
        resources: resource_names().into_iter().map(|name| (name.to_owned(), ResourceOptions::default())).collect(),
        exclude: Vec::new(),
        read_lag: Duration::ZERO,
        list_lag: Duration::ZERO,
        keep_deleted: Duration::ZERO,
        tombstones: Duration::ZERO,
        signature_tolerance: None,
    };
    let connector = Productive::new(options).map_err(Error::Answer)?;
    Ok(connector.resources().to_vec())
}

impl Trial<'_> {
    async fn run(&self, replica: &Replica, daemon: &mut Running, tamper: Option<usize>) -> Result<Outcome, Error> {
        let Self { plan, ground, fake } = self;
        let (arm, upstream) = (plan.arm, &fake.upstream);
        let begin = ground.clock.monotonic();
        self.swept(replica, daemon, BACKFILL_DEADLINE, "the end of the backfill", None).await?;
        let backfill_s = ground.since(begin);
        let after_backfill = upstream.report().await?;
        say(arm.word(), format_args!("backfill done in {backfill_s:.1} s"));
        if arm.hooks() {
            ground.register(SOURCE).await?;
            say(arm.word(), format_args!("webhooks registered"));
        }
        // The requests of the backfill have left the rate limit's window, as they have in a running daemon.
        tokio::time::sleep(Duration::from_secs(10)).await;
        if let Some(errors) = plan.upstream_errors() {
            upstream.faults(&errors).await?;
        }
        let before_churn = upstream.report().await?;
        let churn_at = ground.clock.now();
        say(arm.word(), format_args!("{} changes at {} a second", plan.changes, plan.per_second));
        upstream.churn_and_edit(&plan.churn(), CHURN_DEADLINE).await?;
        let quiet_at = ground.clock.monotonic();
        let quiet_wall = ground.clock.now();
        say(arm.word(), format_args!("the churn is over and every delivery made; waiting for the replica"));
        self.settle(replica, daemon, quiet_wall).await?;
        let settled_s = ground.since(quiet_at);
        let report = upstream.report().await?;
        say(arm.word(), format_args!("settled after {settled_s:.1} s; comparing field by field"));
        let comparison = fake.compare(replica).await?;
        let changes = upstream.changes(0).await?;
        let rows = replica.change_rows(SOURCE, churn_at).await?;
        let vm_hwm_kib = daemon.high_water_kib().unwrap_or(0);
        let reports = outcome::Reports { after_backfill, before_churn, end: report };
        let mut outcome = Outcome::new(plan, comparison, &changes, &rows, &reports);
        outcome.backfill_s = backfill_s;
        outcome.settled_s = settled_s;
        outcome.vm_hwm_kib = vm_hwm_kib;
        outcome.judge(plan);
        if let Some(records) = tamper {
            // A pass could repair what is tampered with.
            daemon.end().await;
            let tampering = fake.tamper(replica, records).await?;
            outcome.tampered = tampering.named;
            outcome.tampering_found = Some(tampering.is_found);
            outcome.differences = tampering.comparison.differences;
        }
        Ok(outcome)
    }

    /// Waits until whatever this arm relies on has had its turn and nothing is left to do.
    async fn settle(&self, replica: &Replica, daemon: &mut Running, quiet_wall: Timestamp) -> Result<(), Error> {
        let Self { plan, ground, .. } = self;
        match plan.arm {
            super::Arm::Hooks => {}
            super::Arm::Passes => {
                // "Within two poll intervals" is the promise, so it is the deadline as well.
                let what = "a sweep of every resource within two poll intervals";
                self.swept(replica, daemon, plan.poll * 2, what, Some(quiet_wall)).await?;
            }
            super::Arm::Both => {
                // A feed that was read just before the last change is read again one interval later; its pages take a moment.
                tokio::time::sleep(plan.feed_poll + Duration::from_secs(5)).await;
            }
        }
        wait(ground.clock, daemon, "no pending delivery, no open mark", SETTLE_DEADLINE, async || replica.idle().await).await
    }

    /// Waits until every resource has been swept (after an instant).
    async fn swept(
        &self,
        replica: &Replica,
        daemon: &mut Running,
        deadline: Duration,
        what: &str,
        after: Option<Timestamp>,
    ) -> Result<(), Error> {
        let n = self.fake.specs.len();
        wait(self.ground.clock, daemon, what, deadline, async || replica.swept_since(SOURCE, n, after).await).await
    }
}

/// A number in a report.
pub(super) fn number(report: &Value, pointer: &str) -> u64 {
    report.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}
