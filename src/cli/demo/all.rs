//! The demo of one daemon that keeps three upstreams in step: a Productive organisation, an Akeneo PIM and a RESO producer, each by
//! everything that it has, while people work in all of them at once.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::arm::{self, TOKEN, number};
use super::fake::Fake;
use super::figures::{Figures, Observed, faults, list};
use super::ground::{Ground, Part, Parts, conclude};
use super::process::{Directory, Running};
use super::replica::{Replica, wait};
use super::reso::outcome::Pushes;
use super::{Args, Arm, Error, akeneo, plan, reso, say, within};
use crate::clock::Timestamp;

/// The sources' names.
const PRODUCTIVE: &str = "pmp";
const AKENEO: &str = "pim";
const RESO: &str = "mls";
/// The most memory of the one daemon, whatever the size of the demo.
const MEMORY_MAX_KIB: u64 = 128 * 1024;
/// Longest wait for the first sweeps.
const BACKFILL_DEADLINE: Duration = Duration::from_secs(400);
/// Longest wait for the churn and its deliveries.
const CHURN_DEADLINE: Duration = Duration::from_secs(170);
/// Longest wait for a sweep of everything after the last delivery.
const SETTLE_DEADLINE: Duration = Duration::from_secs(240);

/// A running trial.
struct Trial<'a> {
    productive: plan::Plan,
    akeneo: akeneo::phase::Plan,
    reso: reso::phase::Plan,
    ground: Ground<'a>,
    /// In the order of the plans.
    fakes: [Fake; 3],
}

/// What the trial showed of one source.
#[derive(Debug, serde::Serialize)]
struct Outcome {
    source: &'static str,
    #[serde(skip)]
    title: &'static str,
    #[serde(flatten)]
    figures: Figures,
    #[serde(skip_serializing_if = "Option::is_none")]
    pushes: Option<Pushes>,
    /// Every injected kind: how often.
    faults: BTreeMap<String, u64>,
    failures: Vec<String>,
}

/// Runs it. Exit code 0 only if all of it holds.
pub(super) async fn prove(args: &Args, stop: &CancellationToken) -> ExitCode {
    let tamper = args.tamper.map(usize::from);
    let result = within(args, "all", stop, async |directory: &Directory, store: &str| {
        let trial = start(args, directory, store).await?;
        let parts = trial.run().await?;
        let Some(records) = tamper else { return Ok(Parts { parts, tampered: None }) };
        let mut tampered = Vec::new();
        for fake in &trial.fakes {
            let named = trial.ground.tamper(fake, records).await?;
            tampered.extend(named.into_iter().map(|record| format!("{} {record}", fake.source)));
        }
        Ok(Parts { parts, tampered: Some(tampered) })
    });
    conclude(args, "sources", result.await)
}

async fn start<'a>(args: &Args, directory: &'a Directory, store: &'a str) -> Result<Trial<'a>, Error> {
    let (seed, quick) = (args.seed, args.quick);
    let mut productive = plan::Plan::new(Arm::Both, seed, quick);
    // As the others: passes find what was lost.
    (productive.entities, productive.changes, productive.per_second) = if quick { (4_000, 150, 30.0) } else { (20_000, 900, 30.0) };
    (productive.poll, productive.sweep) = if quick { (seconds(6), seconds(12)) } else { (seconds(20), seconds(60)) };
    let (akeneo, reso) = (akeneo::phase::Plan::new(seed, quick), reso::phase::Plan::new(seed, quick));
    let fakes = [
        arm::start(&productive, PRODUCTIVE, directory).await?,
        akeneo::start(&akeneo, AKENEO, directory).await?,
        reso::start(&reso, RESO, directory).await?,
    ];
    say(
        "all",
        format_args!("one daemon beside {} records, {} products and {} listings", productive.entities, akeneo.products, reso.listings),
    );
    Ok(Trial { productive, akeneo, reso, ground: Ground::new(directory, store)?, fakes })
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Trial<'_> {
    fn config(&self) -> String {
        let [productive, akeneo, reso] = &self.fakes;
        let (files, hooks) = (&self.ground.directory.path, self.ground.ports[0]);
        self.ground.head("upstream_timeout = \"5s\"")
            + &self.productive.config(PRODUCTIVE, &productive.root, &files.join(TOKEN), hooks)
            + &self.akeneo.config(akeneo::phase::Phase::Both, AKENEO, &akeneo.root, files, hooks)
            + &self.reso.config(reso::phase::Phase::Live, RESO, &reso.root, files, hooks)
    }

    async fn run(&self) -> Result<Vec<Outcome>, Error> {
        self.ground.run(&self.config(), async |replica: &Replica, daemon: &mut Running| self.work(replica, daemon).await).await
    }

    async fn work(&self, replica: &Replica, daemon: &mut Running) -> Result<Vec<Outcome>, Error> {
        let clock = self.ground.clock;
        let begin = clock.monotonic();
        wait(clock, daemon, "the end of the backfills", BACKFILL_DEADLINE, async || self.swept(replica, None).await).await?;
        say("all", format_args!("everything was read after {:.1} s", self.ground.since(begin)));
        self.go_live().await?;
        let before = self.reports().await?;
        let churn_at = clock.now();
        self.churn().await?;
        let (quiet_at, quiet_wall) = (clock.monotonic(), clock.now());
        say("all", format_args!("people have worked in all three, and every event is told; waiting for the replica"));
        let what = "a sweep of everything after the last change";
        wait(clock, daemon, what, SETTLE_DEADLINE, async || self.swept(replica, Some(quiet_wall)).await).await?;
        let settled_s = self.ground.since(quiet_at);
        let after = self.reports().await?;
        let mut outcomes = Vec::new();
        for (fake, (before, after)) in self.fakes.iter().zip(before.iter().zip(&after)) {
            let comparison = fake.compare(replica).await?;
            let changes = fake.upstream.changes(0).await?;
            let rows = replica.change_rows(fake.source, churn_at).await?;
            let mut figures = Figures::new(Observed { comparison, changes: &changes, rows: &rows, before, after });
            figures.settled_s = settled_s;
            figures.vm_hwm_kib = daemon.high_water_kib().unwrap_or(0);
            outcomes.push(Outcome::new(fake.source, figures, before, after));
        }
        Ok(outcomes)
    }

    /// Whether every resource of every source has been swept (after an instant) and nothing is left to do.
    async fn swept(&self, replica: &Replica, after: Option<Timestamp>) -> Result<bool, Error> {
        for fake in &self.fakes {
            if !replica.swept(fake.source, fake.specs.len(), after).await? {
                return Ok(false);
            }
        }
        replica.idle().await
    }

    /// Registers what is to be registered, and says where events go.
    async fn go_live(&self) -> Result<(), Error> {
        let [_, akeneo, reso] = &self.fakes;
        let hooks = self.ground.ports[0];
        for source in [PRODUCTIVE, AKENEO] {
            self.ground.register(source).await?;
        }
        let both = akeneo::phase::Phase::Both;
        akeneo.upstream.faults(&both.faults()).await?;
        akeneo.upstream.post("subscription", &both.subscription(AKENEO, hooks)).await?;
        let live = reso::phase::Phase::Live;
        reso.upstream.faults(&live.faults()).await?;
        reso.upstream.post("push", &live.receiver(RESO, hooks, self.reso.batch)).await?;
        Ok(())
    }

    /// People work in all of them at once.
    async fn churn(&self) -> Result<(), Error> {
        let [productive, akeneo, reso] = &self.fakes;
        let jobs = [self.productive.churn(), self.akeneo.churn(akeneo::phase::Phase::Both), self.reso.churn(reso::phase::Phase::Live)];
        tokio::try_join!(
            productive.upstream.churn(&jobs[0], CHURN_DEADLINE),
            akeneo.upstream.churn(&jobs[1], CHURN_DEADLINE),
            reso.upstream.churn(&jobs[2], CHURN_DEADLINE),
        )?;
        Ok(())
    }

    async fn reports(&self) -> Result<Vec<Value>, Error> {
        let mut reports = Vec::new();
        for fake in &self.fakes {
            reports.push(fake.upstream.report().await?);
        }
        Ok(reports)
    }
}

impl Outcome {
    fn new(source: &'static str, figures: Figures, before: &Value, after: &Value) -> Self {
        let title = match source {
            PRODUCTIVE => "Productive, by webhooks, feeds and passes",
            AKENEO => "Akeneo, by both event systems and passes",
            _ => "RESO, by pushes, the log and passes",
        };
        let pushes = (source == RESO).then(|| Pushes::between(before, after));
        let mut failures = figures.failures();
        failures.extend(pushes.iter().flat_map(Pushes::failures));
        let suspensions = number(after, "/suspensions");
        if suspensions > 0 {
            failures.push(format!("{suspensions} suspensions"));
        }
        if !(1..=MEMORY_MAX_KIB).contains(&figures.vm_hwm_kib) {
            failures.push(format!("the daemon's VmHWM is {} KiB, at most {MEMORY_MAX_KIB}", figures.vm_hwm_kib));
        }
        let faults = faults(after);
        let never: Vec<&str> = faults.iter().filter(|(_, n)| **n == 0).map(|(name, _)| name.as_str()).collect();
        if !never.is_empty() {
            failures.push(format!("configured faults never happened: {}", never.join(", ")));
        }
        Self { source, title, figures, pushes, faults, failures }
    }
}

impl Part for Outcome {
    fn holds(&self) -> bool {
        self.failures.is_empty()
    }

    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut rows: Vec<(&str, String)> = self.pushes.iter().flat_map(Pushes::rows).collect();
        rows.push(("injected faults", list(&self.faults)));
        self.figures.show(out, &format!("{} ({})", self.title, self.source), &rows, &self.failures)
    }
}
