//! A fake RESO producer as the upstream of a universe: how it is configured, and what it truly holds.
//!
//! The walk through its lists is written down here a second time, so that a mistake in ours is seen.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::universe::{READ_TOKEN, client, differences};
use super::{Database, Sandbox, Universe, eventually};

/// What is replicated, with the field that identifies a record.
pub(crate) const KEYS: [(&str, &str); 5] =
    [("Property", "ListingKey"), ("Member", "MemberKey"), ("Office", "OfficeKey"), ("Media", "MediaKey"), ("OpenHouse", "OpenHouseKey")];

/// What its pushes bear; of the letters that a bearer token may have (RFC 6750, 2.1).
const PUSH_TOKEN: &str = "canary/push+9c02e7d41fb84a60a3f5==";
/// What the feed is called.
const LABEL: &str = "demo";

/// How a producer and its source `mls` are made.
#[derive(Default)]
pub(crate) struct Mls {
    /// Lines of the source: which of the three ways are open.
    pub(crate) source: &'static str,
    /// Further arguments of the sandbox.
    pub(crate) sandbox: Vec<&'static str>,
}

impl Mls {
    /// Starts producer and daemon, and waits until every record is there.
    pub(crate) async fn started(&self, database: Database) -> Universe {
        let client = client();
        let fixed = ["reso", "--entities", "100", "--token", READ_TOKEN];
        let arguments: Vec<&str> = fixed.into_iter().chain(self.sandbox.iter().copied()).collect();
        let sandbox = Sandbox::start_as(database.folder(), &arguments, client.clone());
        let mut universe = Universe::with(database, sandbox, client);
        universe.expect_more(KEYS.len());
        let text = format!(
            "[sources.mls]\nkind = \"reso\"\nurl = {:?}\npublic_url = \"http://127.0.0.1:{}\"\nauth = {{ token = {} }}\n\
             push = {{ tokens = [{}], label = \"{LABEL}\" }}\nbrake = {{ share = 1.0, rows = 100000, cap = 100000 }}\nlinger = \"50ms\"\nread_lag = \"0s\"\nlist_lag = \"0s\"\n{}\n",
            universe.sandbox.url,
            universe.hooks_port,
            universe.secret("read-token", READ_TOKEN),
            universe.secret("push-token", PUSH_TOKEN),
            self.source,
        );
        universe.configure("", "", &text);
        universe.run().await;
        universe.backfilled().await;
        universe
    }
}

/// Has the producer push its log from now on.
pub(crate) async fn subscribe(universe: &Universe) {
    let url = format!("http://127.0.0.1:{}/hooks/mls/events", universe.hooks_port);
    universe.sandbox.control("push", json!({ "url": url, "token": PUSH_TOKEN, "label": LABEL, "batch": 7 })).await;
}

/// The true records of a resource by key.
pub(crate) async fn truth(universe: &Universe, resource: &str, key: &str) -> BTreeMap<String, Value> {
    let (mut records, mut skip) = (BTreeMap::new(), 0);
    loop {
        let page = universe.sandbox.observe(&format!("/odata/{resource}?$orderby={key}&$top=100&$skip={skip}")).await.expect("a page");
        let rows = page["value"].as_array().expect("rows");
        records.extend(rows.iter().map(|row| (row[key].as_str().expect("keys are texts").to_owned(), row.clone())));
        if rows.len() < 100 {
            return records;
        }
        skip += rows.len();
    }
}

/// Where the replica of a resource differs from what the producer shows.
async fn differences_of(universe: &Universe, resource: &str, truth: &BTreeMap<String, Value>) -> Result<Vec<String>, String> {
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
