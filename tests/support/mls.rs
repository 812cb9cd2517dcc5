//! A fake RESO producer as the upstream of a universe: how it is configured, and what it truly holds.
//!
//! The walk through its lists is written down here a second time, so that a mistake in ours is seen.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::replica::differences;
use super::universe::{READ_TOKEN, client};
use super::{Database, Sandbox, Universe, eventually};

/// What is replicated, with the field that identifies a record.
pub(crate) const KEYS: [(&str, &str); 5] =
    [("Property", "ListingKey"), ("Member", "MemberKey"), ("Office", "OfficeKey"), ("Media", "MediaKey"), ("OpenHouse", "OpenHouseKey")];

/// What its pushes bear; of the letters that a bearer token may have (RFC 6750, 2.1).
pub(crate) const PUSH_TOKEN: &str = "canary/push+9c02e7d41fb84a60a3f5==";
/// What a client shows where it asks for tokens.
pub(crate) const CLIENT_SECRET: &str = "canary/oauth+60d8b3e79c2f41a5b814/?=";
/// What may stand in no log, each with its name.
pub(crate) const SECRETS: [(&str, &str); 2] = [("push token", PUSH_TOKEN), ("client's secret", CLIENT_SECRET)];
/// What the feed is called.
const LABEL: &str = "demo";

/// How a producer and its source `mls` are made.
pub(crate) struct Mls {
    /// About how many listings there are; the rest is in proportion.
    pub(crate) entities: u64,
    /// Resources, each with what is in its table; empty: those of [`KEYS`], as they are without one.
    pub(crate) resources: Vec<(&'static str, &'static str)>,
    /// Lines of the source: which of the three ways are open.
    pub(crate) source: &'static str,
    /// Further tables of the configuration.
    pub(crate) tables: &'static str,
    /// Further arguments of the sandbox.
    pub(crate) sandbox: Vec<&'static str>,
    /// Which port the producer delivers to, and the daemon's own, where they are not one.
    pub(crate) ports: Option<(u16, u16)>,
}

impl Default for Mls {
    /// Every resource, by every way that is open without a word.
    fn default() -> Self {
        Self { entities: 100, resources: Vec::new(), source: "", tables: "", sandbox: Vec::new(), ports: None }
    }
}

impl Mls {
    /// Starts producer and daemon, and waits until every record is there.
    pub(crate) async fn started(&self, database: Database) -> Universe {
        let mut universe = self.universe(database);
        universe.run().await;
        universe.backfilled().await;
        universe
    }

    /// Starts the producer and writes the configuration; the daemon is not started.
    pub(crate) fn universe(&self, database: Database) -> Universe {
        let client = client();
        let entities = self.entities.to_string();
        let fixed = ["reso", "--entities", &entities, "--token", READ_TOKEN];
        let arguments: Vec<&str> = fixed.into_iter().chain(self.sandbox.iter().copied()).collect();
        let sandbox = Sandbox::start_as(database.folder(), &arguments, client.clone());
        let mut universe = Universe::with(database, sandbox, client);
        universe.hooks_port = self.ports.map_or(universe.hooks_port, |(_, own)| own);
        universe.expect_more(if self.resources.is_empty() { KEYS.len() } else { self.resources.len() });
        let mut text = format!(
            "[sources.mls]\nkind = \"reso\"\nurl = {:?}\npublic_url = \"http://127.0.0.1:{}\"\nauth = {{ token = {} }}\n\
             push.tokens = [{}]\npush.label = \"{LABEL}\"\nbrake = {{ share = 1.0, rows = 100000, cap = 100000 }}\nlinger = \"50ms\"\nread_lag = \"0s\"\nlist_lag = \"0s\"\n{}\n",
            universe.sandbox.url,
            self.ports.map_or(universe.hooks_port, |(public, _)| public),
            universe.secret("read-token", READ_TOKEN),
            universe.secret("push-token", PUSH_TOKEN),
            self.source,
        );
        if !self.resources.is_empty() {
            text.push_str("[sources.mls.resources]\n");
        }
        for (name, table) in &self.resources {
            let _ = writeln!(text, "{name} = {{ {table} }}");
        }
        universe.configure("", self.tables, &text);
        universe
    }
}

/// Has the producer push its log from now on, seven events a request.
pub(crate) async fn subscribe(universe: &Universe) {
    push(universe, json!({ "batch": 7 })).await;
}

/// Has the producer push its log, by these further settings.
pub(crate) async fn push(universe: &Universe, settings: Value) {
    push_to(universe, universe.hooks_port, settings).await;
}

/// As [`push`], to a port that leads to the daemon's.
pub(crate) async fn push_to(universe: &Universe, port: u16, mut settings: Value) {
    settings["url"] = format!("http://127.0.0.1:{port}/hooks/mls/events").into();
    settings["token"] = PUSH_TOKEN.into();
    settings["label"] = LABEL.into();
    universe.sandbox.control("push", settings).await;
}

/// What `instep hooks` says, as JSON; `None` where it ends with an error.
pub(crate) fn hooks(universe: &Universe, arguments: &[&str]) -> Option<Value> {
    let output = universe.verb(&[&["hooks"], arguments, &["--json"]].concat());
    output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
}

/// An event about nobody, with this token; what it is answered.
#[cfg(feature = "failpoints")]
pub(crate) async fn deliver(universe: &Universe, token: &str) -> u16 {
    send(universe, token, &event(1, "Member", "nobody")).await
}

/// The body of a push of one event.
pub(crate) fn event(number: u64, resource: &str, key: &str) -> String {
    json!({ "EntityEventSequence": number, "ResourceName": resource, "ResourceRecordKey": key }).to_string()
}

/// Sends a body as the producer does, with this token; what it is answered.
pub(crate) async fn send(universe: &Universe, token: &str, body: &str) -> u16 {
    let request = universe.client.post(format!("http://127.0.0.1:{}/hooks/mls/events", universe.hooks_port));
    let request = request.bearer_auth(token).header("EntityEventSource", LABEL).header("content-type", "application/json");
    request.body(body.to_owned()).send().await.expect("an answer").status().as_u16()
}

/// The true records of a resource by key.
pub(crate) async fn truth(universe: &Universe, resource: &str, key: &str) -> BTreeMap<String, Value> {
    let (mut records, mut skip) = (BTreeMap::new(), 0);
    loop {
        let page = universe.sandbox.observe(&format!("/odata/{resource}?$orderby={key}&$top=100&$skip={skip}")).await.expect("a page");
        let rows = page["value"].as_array().expect("rows");
        records.extend(rows.iter().map(|row| (row[key].as_str().expect("keys are texts").to_owned(), row.clone())));
        // The producer may serve shorter pages than were asked for.
        if rows.is_empty() {
            return records;
        }
        skip += rows.len();
    }
}

/// Where the replica of a resource differs from what the producer shows.
pub(crate) async fn differences_of(universe: &Universe, resource: &str, truth: &BTreeMap<String, Value>) -> Result<Vec<String>, String> {
    let held = universe.replica(&format!("mls_{}", resource.to_lowercase())).await?;
    Ok(differences(truth, &held, |key, record, held| match record == held {
        true => Vec::new(),
        false => vec![format!("{key}: {record} upstream, {held} here")],
    }))
}

/// How many records differ at this moment.
pub(crate) async fn differences_now(universe: &Universe) -> usize {
    let mut n = 0;
    for (resource, key) in KEYS {
        let truth = truth(universe, resource, key).await;
        n += differences_of(universe, resource, &truth).await.expect("the replica can be read").len();
    }
    n
}

/// Waits until the replica holds exactly what the producer shows; how many records that is.
pub(crate) async fn in_step(universe: &Universe, deadline: Duration) -> usize {
    let mut n = 0;
    for (resource, key) in KEYS {
        let truth = truth(universe, resource, key).await;
        n += truth.len();
        eventually("the replica of the producer is in step", deadline, async || {
            match differences_of(universe, resource, &truth).await?.as_slice() {
                [] => Ok(()),
                found => Err(format!("{resource}: {} differences; {}", found.len(), found[0])),
            }
        })
        .await;
    }
    n
}
