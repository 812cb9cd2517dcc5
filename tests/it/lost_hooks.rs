//! Webhooks are lost, at each upstream in three ways: the sender drops them, the way to us is cut while we are well, a registration is
//! dead. Each is noticed by itself, is a gap, and is repaired; how many changes were missed is counted, as the sandbox counts them; what
//! it costs in requests is planned by arithmetic. `defaults` shows how long it takes until a gap opens where nothing is configured.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Gate, Universe, eventually, is_long, monotonic, process, until};

mod defaults;
mod mls;
mod pim;
mod productive;

/// For what takes a poll or two on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// The longest time from the end of an outage until the replica is equal.
const EQUAL_WITHIN: Duration = Duration::from_secs(120);
/// How many records change while webhooks are lost, each once.
const CHANGES: usize = 20;

/// Everything that looks for lost webhooks, in seconds instead of minutes.
macro_rules! watch {
    () => {
        "watch = { look = \"2s\", mend = \"1s\", probe = \"2s\", late = \"4s\", missed = 5 }\n"
    };
}
use watch;

/// How long webhooks are lost.
fn outage() -> Duration {
    Duration::from_secs(if is_long() { 60 } else { 5 })
}

/// A gate, and the port behind it: it must be known before the daemon's is.
async fn gate() -> (Gate, u16) {
    let own = process::free_port();
    (Gate::to(own).await, own)
}

/// Does something about each of these records, evenly over a time.
async fn each_over(span: Duration, keys: &[String], act: impl AsyncFn(&str)) {
    let (begin, step) = (monotonic(), span / u32::try_from(keys.len()).expect("few"));
    for (n, key) in keys.iter().enumerate() {
        act(key).await;
        until(begin + step * u32::try_from(n + 1).expect("few")).await;
    }
}

/// What is asked from a moment on.
struct Costs {
    began: Duration,
    requests: Requests,
}

/// Requests by method, what they were for and status.
type Requests = BTreeMap<(String, String, u64), u64>;

impl Costs {
    async fn from_now(universe: &Universe) -> Self {
        Self { began: monotonic(), requests: requests(universe).await }
    }

    fn took(&self) -> Duration {
        monotonic() - self.began
    }

    /// Judges what was asked by what was planned for so many seconds.
    async fn judge(&self, universe: &Universe, figures: &str, plan: impl FnOnce(u64) -> u64) {
        let mut asked = requests(universe).await;
        let plan = plan(self.took().as_secs() + 1);
        for (which, count) in &mut asked {
            *count -= self.requests.get(which).copied().unwrap_or(0);
        }
        asked.retain(|_, count| *count > 0);
        let n: u64 = asked.values().sum();
        println!("{:?}: {figures}, {n} requests of {plan} planned", universe.database.engine);
        assert!(n * 10 <= plan * 12, "{n} requests, {plan} planned: {asked:?}");
    }
}

/// Requests of the daemon so far, whatever became of them.
async fn requests(universe: &Universe) -> Requests {
    let report = universe.sandbox.report().await;
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let row = |row: &Value| {
        let which = (text(row, "method"), text(row, "collection"), row["status"].as_u64().unwrap_or(0));
        (which, row["count"].as_u64().unwrap_or(0))
    };
    report["requests"].as_array().expect("rows").iter().map(row).collect()
}

/// Waits until a gap of this cause was opened.
async fn opened(universe: &Universe, cause: &str) {
    opened_within(universe, cause, EQUAL_WITHIN).await;
}

async fn opened_within(universe: &Universe, cause: &str, deadline: Duration) {
    gaps(universe, cause, "1 = 1", deadline).await;
}

/// Waits until a gap of this cause is repaired, and every other.
async fn repaired(universe: &Universe, cause: &str) {
    gaps(universe, cause, "state = 'repaired'", EQUAL_WITHIN).await;
    let open = "select cause as v from instep_gaps where state = 'open'";
    eventually("no gap is open", EQUAL_WITHIN, async || match universe.database.texts(open).await {
        open if open.is_empty() => Ok(()),
        open => Err(format!("{open:?}")),
    })
    .await;
}

async fn gaps(universe: &Universe, cause: &str, condition: &str, deadline: Duration) {
    let sql = format!("select count(*) as n from instep_gaps where cause = '{cause}' and {condition}");
    eventually(&format!("a gap of cause {cause}, {condition}"), deadline, async || match universe.database.try_number(&sql).await? {
        0 => Err("there is none".to_owned()),
        _ => Ok(()),
    })
    .await;
}

/// Waits until exactly so many changes are counted as missed, and everything that is there is judged.
async fn missed(universe: &Universe, source: &str, wanted: u64) {
    judged(universe).await;
    eventually("the missed changes are counted", SOON, async || match universe.counted("webhooks_missed", source).await {
        n if n == wanted => Ok(()),
        n => Err(format!("{n} counted, {wanted} wanted")),
    })
    .await;
}

/// Waits until every change that was learned by now is old enough to have been judged.
async fn judged(universe: &Universe) {
    universe.idle(SOON).await;
    until(monotonic() + Duration::from_secs(8)).await;
}

/// How many changes the sandbox has logged.
async fn logged(universe: &Universe) -> u64 {
    universe.sandbox.report().await["changes"].as_u64().expect("a count")
}

/// How many changes behind a line of its log the sandbox has announced to nobody.
async fn unannounced(universe: &Universe, behind: u64) -> u64 {
    universe.sandbox.quiet(SOON).await;
    let lines = universe.sandbox.get(&format!("changes?after={behind}")).await;
    let is_untold = |line: &&Value| line["announced"].as_array().is_some_and(Vec::is_empty);
    lines.as_array().expect("lines").iter().filter(is_untold).count() as u64
}
