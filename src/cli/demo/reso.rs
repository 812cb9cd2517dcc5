//! The demo of a RESO producer: one replica is kept in step in each of the three ways alone, by two together, and at first by a feed of
//! the whole log that is pushed while the backfill runs.
//!
//! The daemon is stopped and started with another configuration between two phases. In each phase people work, and at its end every
//! field upstream is compared with every field of the replica, and what the producer was answered with what it must be.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::arm::number;
use super::fake::{Fake, Of};
use super::figures::{self, Figures};
use super::ground::{Ground, Parts, conclude};
use super::plan::SOURCE;
use super::process::{Directory, Running};
use super::replica::{Replica, wait};
use super::{Args, Error, say, within};
use crate::clock::Timestamp;
use crate::connectors::reso::{Auth, DEFAULT_RESOURCES, Options, Reso, ResourceOptions, Schema, profile};
use crate::connectors::{Connector as _, ResourceSpec};

pub(super) mod outcome;
pub(super) mod phase;
pub(super) mod truth;

use outcome::{FirstFeed, Observed, Outcome, log_reads};
use phase::{Phase, Plan, REQUESTS_PER_SECOND, TOKENS};

/// Longest wait for the first sweep, and for the place in the log.
const BACKFILL_DEADLINE: Duration = Duration::from_secs(300);
/// Longest wait for the whole log to be pushed and acknowledged.
const FEED_DEADLINE: Duration = Duration::from_secs(900);
/// Longest wait for the churn and its pushes.
const CHURN_DEADLINE: Duration = Duration::from_secs(170);
/// Longest wait for pending deliveries and marks after the last push, and for two sweeps where there are passes.
const SETTLE_DEADLINE: Duration = Duration::from_secs(120);
/// From one compaction of the log to the next while people work.
const COMPACT_EVERY: Duration = Duration::from_millis(500);

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
    let result = within(args, "reso", stop, async |directory: &Directory, store: &str| {
        let fake = start(&plan, SOURCE, directory).await?;
        say("reso", format_args!("a producer of {} listings and {} events at {}", plan.listings, plan.events, fake.root));
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

/// Starts a fake producer, and writes down the tokens of both sides.
pub(super) async fn start(plan: &Plan, source: &'static str, directory: &Directory) -> Result<Fake, Error> {
    for token in TOKENS {
        directory.write(token, token)?;
    }
    let (listings, seed, events) = (plan.listings.to_string(), plan.seed.to_string(), plan.events.to_string());
    let limit = REQUESTS_PER_SECOND.to_string();
    let options = ["--entities", &listings, "--seed", &seed, "--events-at-start", &events, "--requests-per-second", &limit];
    Fake::start(Of::Reso, source, &options, directory).await
}

/// What the connector replicates; from it come the names and kinds of the views' columns.
pub(super) fn specs(root: &str) -> Result<Vec<ResourceSpec>, Error> {
    let options = Options {
        url: url::Url::parse(root).map_err(|error| Error::Answer(error.to_string()))?,
        auth: Auth::Token,
        profile: profile("plain").ok_or_else(|| Error::Answer("there is no plain profile".to_owned()))?,
        system: None,
        label: String::new(),
        push: None,
        log: None,
        resources: DEFAULT_RESOURCES.map(|name| (name.to_owned(), ResourceOptions::default())).to_vec(),
        schema: Schema::default(),
        exclude: Vec::new(),
        read_lag: Duration::ZERO,
        list_lag: Duration::ZERO,
        keep_deleted: Duration::ZERO,
        tombstones: Duration::ZERO,
    };
    let connector = Reso::new(options).map_err(Error::Answer)?;
    Ok(connector.resources().to_vec())
}

impl Trial<'_> {
    /// Starts the daemon for a phase, lets people work, and compares.
    async fn run(&self, phase: Phase) -> Result<Outcome, Error> {
        let Ground { directory, ports, .. } = &self.ground;
        let limits = format!("upstream_timeout = \"2s\"\nbacklog = {}", self.plan.backlog);
        let source = self.plan.config(phase, SOURCE, &self.fake.root, &directory.path, ports[0]);
        let config = self.ground.head(&limits) + &source;
        self.ground.run(&config, async |replica: &Replica, daemon: &mut Running| self.work(phase, replica, daemon).await).await
    }

    async fn work(&self, phase: Phase, replica: &Replica, daemon: &mut Running) -> Result<Outcome, Error> {
        let Self { plan, ground, fake } = self;
        let upstream = &fake.upstream;
        let before = upstream.report().await?;
        let n_before = usize::try_from(number(&before, "/changes")).unwrap_or(usize::MAX);
        if phase != Phase::FirstFeed {
            self.stands(phase, &before, replica, daemon).await?;
        }
        upstream.faults(&phase.faults()).await?;
        upstream.post("push", &phase.receiver(SOURCE, ground.ports[0], plan.batch)).await?;
        let churn_at = ground.clock.now();
        let first_feed = match phase {
            Phase::FirstFeed => Some(self.first_feed(replica, daemon).await?),
            Phase::Log => self.churn_and_compact().await.map(|()| None)?,
            _ => upstream.churn(&plan.churn(phase), CHURN_DEADLINE).await.map(|()| None)?,
        };
        let (quiet_at, quiet_wall) = (ground.clock.monotonic(), ground.clock.now());
        let worked = upstream.report().await?;
        say(phase.word(), format_args!("people have worked; waiting for the replica"));
        // Nobody changes anything any more, so that no event is disturbed; answers are no longer either.
        upstream.faults(&json!({ "upstream_5xx": 0.0, "timeouts": 0.0, "truncated": 0.0 })).await?;
        let changes = upstream.changes(n_before).await?;
        let visible_at = changes.iter().map(|change| change.settled_at_us).max().map(Timestamp);
        self.settle(phase, replica, daemon, visible_at.map_or(quiet_wall, |at| at.max(quiet_wall))).await?;
        let settled_s = ground.since(quiet_at);
        let after = upstream.report().await?;
        let comparison = fake.compare(replica).await?;
        let rows = replica.change_rows(SOURCE, churn_at).await?;
        let observed = figures::Observed { comparison, changes: &changes, rows: &rows, before: &before, after: &after };
        let mut figures = Figures::new(observed);
        figures.settled_s = settled_s;
        figures.vm_hwm_kib = daemon.high_water_kib().unwrap_or(0);
        Ok(Outcome::new(phase, figures, Observed { before: &before, worked: &worked, after: &after, first_feed }))
    }

    /// Waits until the daemon knows where the log stands and has nothing left to do.
    async fn stands(&self, phase: Phase, before: &Value, replica: &Replica, daemon: &mut Running) -> Result<(), Error> {
        let Self { ground, fake, .. } = self;
        let stands = async || {
            let reads = log_reads(&fake.upstream.report().await?, |_| true) - log_reads(before, |_| true);
            let is_known = !phase.has_log() || reads > 0;
            Ok(is_known && replica.swept_since(SOURCE, fake.specs.len(), None).await?)
        };
        wait(ground.clock, daemon, "the place in the log", BACKFILL_DEADLINE, stands).await
    }

    /// The producer pushes its whole log, and people work, while the backfill runs.
    async fn first_feed(&self, replica: &Replica, daemon: &mut Running) -> Result<FirstFeed, Error> {
        let Self { plan, ground, fake } = self;
        let (clock, upstream) = (ground.clock, &fake.upstream);
        let begin = clock.monotonic();
        upstream.post("churn", &plan.churn(Phase::FirstFeed)).await?;
        let mut acknowledged_meanwhile = 0;
        let swept = async || {
            acknowledged_meanwhile = number(&upstream.report().await?, "/push/sent");
            replica.swept(SOURCE, fake.specs.len(), None).await
        };
        wait(clock, daemon, "the end of the backfill", BACKFILL_DEADLINE, swept).await?;
        let backfill_s = ground.since(begin);
        say(Phase::FirstFeed.word(), format_args!("backfill done in {backfill_s:.1} s, {acknowledged_meanwhile} events acknowledged"));
        wait(clock, daemon, "the acknowledgement of every event", FEED_DEADLINE, async || upstream.is_quiet().await).await?;
        Ok(FirstFeed { backfill_s, acknowledged_meanwhile, acknowledged_s: ground.since(begin) })
    }

    /// People work while the log is compacted again and again.
    async fn churn_and_compact(&self) -> Result<(), Error> {
        let (upstream, job) = (&self.fake.upstream, self.plan.churn(Phase::Log));
        let compacting = async {
            loop {
                upstream.post("compact", &json!({})).await?;
                tokio::time::sleep(COMPACT_EVERY).await;
            }
        };
        tokio::select! {
            done = upstream.churn(&job, CHURN_DEADLINE) => done,
            failed = compacting => failed,
        }
    }

    /// Waits until whatever the phase relies on has had its turn after an instant and nothing is left to do.
    async fn settle(&self, phase: Phase, replica: &Replica, daemon: &mut Running, after: Timestamp) -> Result<(), Error> {
        let Self { ground, fake, .. } = self;
        let (clock, upstream) = (ground.clock, &fake.upstream);
        if phase.has_passes() {
            let swept = async || replica.swept_since(SOURCE, fake.specs.len(), Some(after)).await;
            return wait(clock, daemon, "a sweep of every resource after the last change", SETTLE_DEADLINE, swept).await;
        }
        if phase.has_log() {
            wait(clock, daemon, "the last event to be visible", SETTLE_DEADLINE, async || Ok(clock.now() > after)).await?;
            let reads = async || Ok::<_, Error>(log_reads(&upstream.report().await?, |status| status == 200));
            let before = reads().await?;
            // The first of two that end from now on may have begun before.
            let twice = async || Ok(reads().await? >= before + 2);
            wait(clock, daemon, "two reads of the log after the last event", SETTLE_DEADLINE, twice).await?;
        }
        wait(clock, daemon, "no pending delivery, no open mark", SETTLE_DEADLINE, async || replica.idle().await).await
    }
}
