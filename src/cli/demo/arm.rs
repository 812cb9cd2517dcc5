//! One arm from the start of its processes to its verdict.

use std::time::Duration;

use serde_json::Value;

use super::compare::compare;
use super::outcome::{self, Outcome};
use super::plan::{ORGANIZATION, Plan, SOURCE};
use super::process::{DAEMON_LOG, Directory, Running, free_ports, own_program, run_verb, tail};
use super::replica::{Replica, wait};
use super::upstream::Upstream;
use super::{Error, say};
use crate::clock::{Clock, Timestamp};
use crate::connectors::productive::{Options, Productive, ResourceOptions, resource_names};
use crate::connectors::{Connector as _, ResourceSpec};
/// Longest wait for the first sweep: 280 pages at 9 a second and the time of a slow machine.
const BACKFILL_DEADLINE: Duration = Duration::from_secs(300);
/// Longest wait for the churn, its deliveries and its settling.
const CHURN_DEADLINE: Duration = Duration::from_secs(170);
/// Longest wait for pending deliveries and marks after the last delivery.
const SETTLE_DEADLINE: Duration = Duration::from_secs(60);
/// The token of the trial.
const TOKEN: &str = "demo-token";

/// A running trial.
struct Trial<'a> {
    plan: &'a Plan,
    directory: &'a Directory,
    clock: Clock,
    upstream: Upstream,
    replica: Replica,
    daemon: Running,
    specs: Vec<ResourceSpec>,
    config: String,
    _sandbox: Running,
}

/// Runs an arm. `tamper`: so many records are changed behind everybody's back after its end.
pub(super) async fn run(plan: &Plan, directory: &Directory, store: &str, tamper: Option<usize>) -> Result<Outcome, Error> {
    let mut trial = start(plan, directory, store).await?;
    let ran = trial.run(tamper).await;
    match (ran, trial.daemon.ended()) {
        (Err(error), Some(status)) => {
            let log = tail(&directory.path.join(DAEMON_LOG));
            Err(Error::Process(format!("{error}; the daemon had ended ({status}):\n{log}")))
        }
        (ran, _) => {
            trial.daemon.end().await;
            ran
        }
    }
}

async fn start<'a>(plan: &'a Plan, directory: &'a Directory, store: &str) -> Result<Trial<'a>, Error> {
    let clock = Clock::system();
    let (entities, seed, organization) = (plan.entities.to_string(), plan.seed.to_string(), ORGANIZATION.to_string());
    let arguments = ["sandbox", "productive", "--port", "0", "--token", TOKEN, "--retries-over-ms", "12000", "--entities", &entities];
    let arguments = [&arguments[..], &["--seed", &seed, "--organization", &organization]].concat();
    let command = own_program(&arguments, &directory.path, "sandbox.log")?;
    let (sandbox, api) = Running::start_and_listen(command).await?;
    let upstream = Upstream::new(&api)?;
    upstream.faults(&plan.faults()).await?;
    let ports = free_ports()?;
    let token = directory.write("token", TOKEN)?;
    let config = directory.write("instep.toml", &plan.config(store, &api, &token, ports))?.display().to_string();
    say(plan.arm.word(), format_args!("an organisation of about {entities} records at {api}"));
    let mut daemon = Running::start(own_program(&["run", "--config", &config], &directory.path, DAEMON_LOG)?)?;
    let replica = Replica::open(clock, store, ports[1], &mut daemon, directory).await?;
    let specs = specs(&api)?;
    Ok(Trial { plan, directory, clock, upstream, replica, daemon, specs, config, _sandbox: sandbox })
}

/// What the connector replicates; from it come the names and kinds of the views' columns.
fn specs(api: &str) -> Result<Vec<ResourceSpec>, Error> {
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
    async fn run(&mut self, tamper: Option<usize>) -> Result<Outcome, Error> {
        let arm = self.plan.arm;
        let begin = self.clock.monotonic();
        self.swept(BACKFILL_DEADLINE, "the end of the backfill", None).await?;
        let backfill = self.since(begin);
        let after_backfill = self.upstream.report().await?;
        say(arm.word(), format_args!("backfill done in {:.1} s", backfill.as_secs_f64()));
        if arm.hooks() {
            self.register().await?;
        }
        // The requests of the backfill have left the rate limit's window, as they have in a running daemon.
        tokio::time::sleep(Duration::from_secs(10)).await;
        if let Some(errors) = self.plan.upstream_errors() {
            self.upstream.faults(&errors).await?;
        }
        let before_churn = self.upstream.report().await?;
        let churn_at = self.clock.now();
        say(arm.word(), format_args!("{} changes at {} a second", self.plan.changes, self.plan.per_second));
        self.upstream.churn_and_edit(&self.plan.churn(), CHURN_DEADLINE).await?;
        let quiet_at = self.clock.monotonic();
        let quiet_wall = self.clock.now();
        say(arm.word(), format_args!("the churn is over and every delivery made; waiting for the replica"));
        self.settle(quiet_wall).await?;
        let settled = self.since(quiet_at);
        let report = self.upstream.report().await?;
        say(arm.word(), format_args!("settled after {:.1} s; comparing field by field", settled.as_secs_f64()));
        let comparison = compare(&self.upstream, &self.replica.reader, SOURCE, &self.specs).await?;
        let changes = self.upstream.changes(0).await?;
        let rows = self.replica.change_rows(SOURCE, churn_at).await?;
        let vm_hwm_kib = self.daemon.high_water_kib().unwrap_or(0);
        let reports = outcome::Reports { after_backfill, before_churn, end: report };
        let mut outcome = Outcome::new(self.plan, comparison, &changes, &rows, &reports);
        outcome.backfill_s = backfill.as_secs_f64();
        outcome.settled_s = settled.as_secs_f64();
        outcome.vm_hwm_kib = vm_hwm_kib;
        outcome.judge(self.plan);
        if let Some(records) = tamper {
            self.tamper(records, &mut outcome).await?;
        }
        Ok(outcome)
    }

    /// `instep hooks create`, as a person would type it.
    async fn register(&self) -> Result<(), Error> {
        let arguments = ["hooks", "create", SOURCE, "--config", &self.config];
        if !run_verb(&arguments, &self.directory.path, "hooks.log", Duration::from_secs(90)).await? {
            let log = tail(&self.directory.path.join("hooks.log"));
            return Err(Error::Process(format!("`instep hooks create` failed: {log}")));
        }
        say(self.plan.arm.word(), format_args!("webhooks registered"));
        Ok(())
    }

    /// Waits until whatever this arm relies on has had its turn and nothing is left to do.
    async fn settle(&mut self, quiet_wall: Timestamp) -> Result<(), Error> {
        let plan = *self.plan;
        match plan.arm {
            super::Arm::Hooks => {}
            super::Arm::Passes => {
                // "Within two poll intervals" is the promise, so it is the deadline as well.
                let what = "a sweep of every resource within two poll intervals";
                self.swept(plan.poll * 2, what, Some(quiet_wall)).await?;
            }
            super::Arm::Both => {
                // A feed that was read just before the last change is read again one interval later; its pages take a moment.
                tokio::time::sleep(plan.feed_poll + Duration::from_secs(5)).await;
            }
        }
        let Self { clock, replica, daemon, .. } = self;
        wait(*clock, daemon, "no pending delivery, no open mark", SETTLE_DEADLINE, async || replica.idle().await).await
    }

    /// Waits until every resource has been swept (after an instant).
    async fn swept(&mut self, deadline: Duration, what: &str, after: Option<Timestamp>) -> Result<(), Error> {
        let Self { clock, replica, daemon, specs, .. } = self;
        wait(*clock, daemon, what, deadline, async || replica.swept_since(specs.len(), after).await).await
    }

    fn since(&self, begin: Duration) -> Duration {
        self.clock.monotonic().saturating_sub(begin)
    }

    /// Changes records that nobody hears of; the comparison must name exactly those.
    async fn tamper(&mut self, records: usize, outcome: &mut Outcome) -> Result<(), Error> {
        // A pass could repair what is tampered with.
        self.daemon.end().await;
        let mut tampered = self.upstream.tamper(records).await?;
        let comparison = compare(&self.upstream, &self.replica.reader, SOURCE, &self.specs).await?;
        let mut named: Vec<(String, String)> = comparison.differences.iter().map(|d| (d.resource.clone(), d.key.clone())).collect();
        named.dedup();
        named.sort();
        tampered.sort();
        outcome.tampered = named.iter().map(|(resource, key)| format!("{resource} {key}")).collect();
        outcome.tampering_found = Some(named == tampered && named.len() == records);
        outcome.differences = comparison.differences;
        Ok(())
    }
}

/// A number in a report.
pub(super) fn number(report: &Value, pointer: &str) -> u64 {
    report.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}
