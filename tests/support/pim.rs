//! A fake PIM as the upstream of a universe: how it is configured, what it truly holds, and its two event systems by hand.
//!
//! Signatures and the walk through its lists are written down here a second time, so that a mistake in ours is seen.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use instep::clock::Clock;
use serde_json::{Map, Value, json};
use sha2::Sha256;

use super::replica::differences;
use super::universe::client;
use super::{Database, Sandbox, Universe, eventually};

/// The Events API's secret.
pub(crate) const EVENTS_SECRET: &str = "canary/events+7a30c9d45be14f08a1b6/?=";
/// The Event Platform's primary secret, which signs notifications too.
pub(crate) const PRIMARY: &str = "canary/primary+e2b86f1d07c94a35bd20/?=";
/// The Event Platform's secondary secret.
pub(crate) const SECONDARY: &str = "canary/secondary+91f4d2ab5c0e47c68e3d/?=";
const CLIENT_SECRET: &str = "canary/client+4d19e07b83fa4c2297c5/?=";
const PASSWORD: &str = "canary/password+c86e2b0fd7394e11a05b/?=";

/// What may stand in no log, each with its name.
pub(crate) const SECRETS: [(&str, &str); 5] = [
    ("events secret", EVENTS_SECRET),
    ("primary secret", PRIMARY),
    ("secondary secret", SECONDARY),
    ("client secret", CLIENT_SECRET),
    ("password", PASSWORD),
];

/// How a PIM and its source `pim` are made.
pub(crate) struct Pim {
    /// About how many products the PIM has.
    pub(crate) entities: u64,
    /// Resources, by the vendor's names; each with what is in its table, such as `poll = "2s"`.
    pub(crate) resources: Vec<(&'static str, &'static str)>,
    /// Further lines of the source.
    pub(crate) source: &'static str,
    /// What the daemon uses of the PIM's limits: lines of the source.
    pub(crate) quota: &'static str,
    /// Further tables of the configuration.
    pub(crate) tables: &'static str,
    /// Further arguments of the sandbox.
    pub(crate) sandbox: Vec<&'static str>,
    /// Whether the Event Platform's subscription is the daemon's own, to be made by `instep hooks create`.
    pub(crate) subscribes: bool,
    /// The PIM's limits, as arguments of the sandbox; the vendor's where it is empty. The sandbox's own are tested elsewhere.
    pub(crate) limits: &'static [&'static str],
    /// Which port the PIM delivers to, and the daemon's own, where they are not one.
    pub(crate) ports: Option<(u16, u16)>,
}

impl Default for Pim {
    /// Products and their models, learned by deliveries alone. Nobody sends any yet.
    fn default() -> Self {
        Self {
            entities: 200,
            resources: vec![("products", ""), ("product-models", "")],
            source: "passes = false",
            quota: "quota_share = 1.0",
            tables: "",
            sandbox: Vec::new(),
            subscribes: false,
            limits: &["--requests-per-second", "1000000"],
            ports: None,
        }
    }
}

impl Pim {
    /// Starts the PIM; `folder` takes its log.
    pub(crate) fn sandbox(&self, folder: &std::path::Path, client: reqwest::Client) -> Sandbox {
        let entities = self.entities.to_string();
        let secrets = ["--client-secret", CLIENT_SECRET, "--password", PASSWORD, "--events-secret", EVENTS_SECRET];
        let chosen = self.limits.iter().chain(&self.sandbox).copied();
        let arguments: Vec<&str> = ["akeneo", "--entities", &entities].into_iter().chain(secrets).chain(chosen).collect();
        Sandbox::start_as(folder, &arguments, client)
    }

    /// The source `pim` as it stands in the configuration.
    pub(crate) fn configuration(&self, universe: &Universe, url: &str) -> String {
        let managed = format!("manage = true\ncontact = \"ops@example.test\"\nurl = \"{url}event-platform/api/v1\"\n");
        let mut text = format!(
            "[sources.pim]\nkind = \"akeneo\"\nurl = {url:?}\npublic_url = \"http://127.0.0.1:{}\"\n{}\n\
             auth = {{ client_id = \"1_instep\", secret = {}, username = \"instep_0001\", password = {} }}\n\
             linger = \"50ms\"\nread_lag = \"0s\"\nlist_lag = \"0s\"\n{}\n\
             [sources.pim.events_api]\nsecrets = [{}]\n[sources.pim.event_platform]\nsecrets = [{}, {}]\n{}[sources.pim.resources]\n",
            self.ports.map_or(universe.hooks_port, |(public, _)| public),
            self.quota,
            universe.secret("client-secret", CLIENT_SECRET),
            universe.secret("pim-password", PASSWORD),
            self.source,
            universe.secret("events-secret", EVENTS_SECRET),
            universe.secret("primary", PRIMARY),
            universe.secret("secondary", SECONDARY),
            if self.subscribes { &managed } else { "" },
        );
        for (name, table) in &self.resources {
            let _ = writeln!(text, "{name} = {{ {table} }}");
        }
        text
    }

    /// Starts the PIM and writes the configuration; the daemon is not started.
    pub(crate) fn universe(&self, database: Database) -> Universe {
        let client = client();
        let sandbox = self.sandbox(database.folder(), client.clone());
        let mut universe = Universe::with(database, sandbox, client);
        universe.hooks_port = self.ports.map_or(universe.hooks_port, |(_, own)| own);
        universe.expect_more(self.resources.len());
        universe.configure("", self.tables, &self.configuration(&universe, &universe.sandbox.url));
        universe
    }

    /// Starts the PIM and the daemon, and waits until every record is there.
    pub(crate) async fn started(&self, database: Database) -> Universe {
        let mut universe = self.universe(database);
        universe.run().await;
        universe.backfilled().await;
        universe
    }
}

/// Points the PIM's event systems at the daemon, each of them or none; a subscription to the platform is made anew.
pub(crate) async fn subscribe(universe: &Universe, events_api: bool, platform: bool) {
    subscribe_at(universe, &universe.sandbox, events_api, platform).await;
}

/// As [`subscribe`], of a PIM that is not the universe's own upstream.
pub(crate) async fn subscribe_at(universe: &Universe, sandbox: &Sandbox, events_api: bool, platform: bool) {
    let url = |route: &str| format!("http://127.0.0.1:{}/hooks/pim/{route}", universe.hooks_port);
    let mut asked = json!({ "events_api": { "url": if events_api { url("events") } else { String::new() } } });
    if platform {
        asked["event_platform"] = json!({
            "url": url("platform"), "primary": PRIMARY, "secondary": SECONDARY,
            "notification_url": url("notifications"), "notification_secret": PRIMARY,
        });
    }
    sandbox.control("subscription", asked).await;
}

/// A change that people make: `create`, `update`, `delete` or `restore`; the record's key.
pub(crate) async fn change(universe: &Universe, verb: &str, resource: &str, key: Option<&str>, further: Value) -> String {
    let mut asked = json!({ "resource": resource });
    if let Some(key) = key {
        asked["key"] = key.into();
    }
    if let (Some(asked), Value::Object(further)) = (asked.as_object_mut(), further) {
        asked.extend(further);
    }
    let answer = universe.sandbox.control(verb, asked).await;
    answer["key"].as_str().expect("a key").to_owned()
}

/// A value that is the same in every channel and locale, as `fields` of a change.
pub(crate) fn values(attribute: &str, data: &str) -> Value {
    json!({ "values": { attribute: [{ "locale": null, "scope": null, "data": data }] } })
}

/// Waits until no delivery is on its way and no churn runs.
pub(crate) async fn quiet(universe: &Universe, deadline: Duration) {
    universe.sandbox.quiet(deadline).await;
}

/// Sends a body as the Events API does; the answer's status.
pub(crate) async fn send_events(universe: &Universe, body: &str) -> u16 {
    try_send_events(universe, body).await.expect("an answer")
}

/// The same to a daemon that may die of it; `None`: it did not answer.
pub(crate) async fn try_send_events(universe: &Universe, body: &str) -> Option<u16> {
    let seconds = Clock::system().now().seconds().to_string();
    let signature = mac(EVENTS_SECRET, &[seconds.as_bytes(), b".", body.as_bytes()]);
    post(universe, "events", &[("x-akeneo-request-signature", &signature), ("x-akeneo-request-timestamp", &seconds)], body).await
}

/// Sends a body as the Event Platform does.
pub(crate) async fn send_platform(universe: &Universe, body: &str) -> u16 {
    let (primary, secondary) = (mac(PRIMARY, &[body.as_bytes()]), mac(SECONDARY, &[body.as_bytes()]));
    let headers = [
        ("x-akeneo-signature-primary", primary.as_str()),
        ("x-akeneo-signature-secondary", secondary.as_str()),
        ("x-akeneo-signature-algorithm", "HmacSHA256"),
    ];
    post(universe, "platform", &headers, body).await.expect("an answer")
}

/// Sends until it is acknowledged; on a busy machine a commit may take longer than the door waits.
pub(crate) async fn arrives(send: impl AsyncFn() -> u16) {
    eventually("the delivery is acknowledged", Duration::from_secs(60), async || match send().await {
        200 => Ok(()),
        status @ (429 | 503) => Err(status.to_string()),
        status => panic!("{status}"),
    })
    .await;
}

async fn post(universe: &Universe, route: &str, headers: &[(&str, &str)], body: &str) -> Option<u16> {
    let url = format!("http://127.0.0.1:{}/hooks/pim/{route}", universe.hooks_port);
    let request = universe.client.post(url).header("content-type", "application/json");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    Some(request.body(body.to_owned()).send().await.ok()?.status().as_u16())
}

/// Lower-case hex of HMAC-SHA256 over the parts.
pub(crate) fn mac(secret: &str, parts: &[&[u8]]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("keys may have any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The body of one event of the Events API: `product.updated` of a record. PHP escapes slashes.
pub(crate) fn event(action: &str, resource: &Value) -> String {
    let event = json!({
        "action": action, "event_id": uuid::Uuid::now_v7(), "event_datetime": "2026-01-01T10:00:00+00:00", "author": "julia",
        "author_type": "ui", "pim_source": "https://pim.example.test", "data": { "resource": resource },
    });
    json!({ "events": [event] }).to_string().replace('/', "\\/")
}

/// The body of one event of the Event Platform, whose type is `com.akeneo.pim.v1.` and `word`.
pub(crate) fn cloud_event(word: &str, data: &Value) -> String {
    let mut data = data.clone();
    data["author"] = json!({ "identifier": "julia", "type": "user" });
    json!({
        "specversion": "1.0", "id": uuid::Uuid::now_v7(), "source": "akeneo-event-platform", "type": format!("com.akeneo.pim.v1.{word}"),
        "subject": "00000000-0000-7000-8000-0000000000ff", "datacontenttype": "application/json", "time": "2026-01-01T10:00:00Z", "data": data,
    })
    .to_string()
}

/// Resources whose lists stand below another's records: that one, what stands around its codes, and the field that has the code.
const NESTED: [(&str, &str, [&str; 2], &str); 4] = [
    ("family-variants", "families", ["families/", "/variants"], "family"),
    ("attribute-options", "attributes", ["attributes/", "/options"], "attribute"),
    ("assets", "asset-families", ["asset-families/", "/assets"], "asset_family"),
    ("reference-entity-records", "reference-entities", ["reference-entities/", "/records"], "reference_entity"),
];
/// Records of a page.
pub(crate) const PAGE: usize = 100;
const SELECTS: [&str; 2] = ["pim_catalog_simpleselect", "pim_catalog_multiselect"];

/// The true records of a resource by our keys.
pub(crate) async fn truth(sandbox: &Sandbox, resource: &str) -> BTreeMap<String, Value> {
    let Some((_, above, [before, behind], field)) = NESTED.iter().find(|(name, ..)| *name == resource) else {
        return list(sandbox, if resource == "products" { "products-uuid" } else { resource }).await;
    };
    let mut found = BTreeMap::new();
    for (parent, row) in list(sandbox, above).await {
        if resource == "attribute-options" && !SELECTS.contains(&row["type"].as_str().unwrap_or_default()) {
            continue;
        }
        for (code, mut row) in list(sandbox, &format!("{before}{parent}{behind}")).await {
            // Upstream only the address says what it stands below.
            row[*field] = parent.as_str().into();
            found.insert(format!("{parent}/{code}"), row);
        }
    }
    found
}

async fn list(sandbox: &Sandbox, path: &str) -> BTreeMap<String, Value> {
    let query = match path {
        "products-uuid" | "product-models" => "?pagination_type=search_after&limit=100",
        "measurement-families" => "",
        _ if path.ends_with("/assets") || path.ends_with("/records") => "",
        _ => "?limit=100",
    };
    let (mut next, mut rows) = (Some(format!("/api/rest/v1/{path}{query}")), BTreeMap::new());
    while let Some(place) = next.take() {
        let page = sandbox.observe(&place).await.unwrap_or_else(|| panic!("{place} is not there"));
        let items = page.as_array().or_else(|| page.pointer("/_embedded/items")?.as_array());
        for row in items.unwrap_or_else(|| panic!("{place}: {page}")) {
            let key = row["uuid"].as_str().or_else(|| row["code"].as_str()).expect("a record has a key");
            rows.insert(key.to_owned(), row.clone());
        }
        let link = page.pointer("/_links/next/href").and_then(Value::as_str);
        next = link.map(|link| link.find("/api/").map_or_else(String::new, |at| link[at..].to_owned()));
    }
    rows
}

/// Requests of a walk through a resource. Behind a full page another one is asked for, be it empty; a nested resource is walked list
/// by list, behind the records above.
pub(crate) async fn pages(sandbox: &Sandbox, resource: &str) -> usize {
    let requests = |records: usize, page: usize| records / page + 1;
    let rows = truth(sandbox, resource).await;
    let Some((_, above, ..)) = NESTED.iter().find(|(name, ..)| *name == resource) else {
        return if resource == "measurement-families" { 1 } else { requests(rows.len(), PAGE) };
    };
    let parents = list(sandbox, above).await;
    // Lists from key to key name no size; numbered ones of records above are asked for in pages of fifty.
    let page = if matches!(*above, "families" | "attributes") { PAGE / 2 } else { PAGE };
    let has_list = |row: &Value| resource != "attribute-options" || SELECTS.contains(&row["type"].as_str().unwrap_or_default());
    let below = |parent: &String| rows.keys().filter(|key| key.split_once('/').is_some_and(|(above, _)| above == parent)).count();
    let lists = parents.iter().filter(|(_, row)| has_list(row)).map(|(parent, _)| requests(below(parent), PAGE));
    requests(parents.len(), page) + lists.sum::<usize>()
}

/// The keys of a resource whose records fit.
pub(crate) async fn keys(sandbox: &Sandbox, resource: &str, fits: impl Fn(&Value) -> bool) -> Vec<String> {
    truth(sandbox, resource).await.into_iter().filter(|(_, row)| fits(row)).map(|(key, _)| key).collect()
}

/// One product as it truly is; `None` where it is gone.
pub(crate) async fn product(sandbox: &Sandbox, key: &str) -> Option<Value> {
    sandbox.observe(&format!("/api/rest/v1/products-uuid/{key}")).await
}

/// Waits until the replica holds exactly what the PIM has of these resources.
pub(crate) async fn in_step(universe: &Universe, resources: &[&str], deadline: Duration) {
    in_step_with(universe, &universe.sandbox, resources, deadline).await;
}

/// As [`in_step`], with a PIM that is not the universe's own upstream.
pub(crate) async fn in_step_with(universe: &Universe, sandbox: &Sandbox, resources: &[&str], deadline: Duration) {
    let mut truths = Vec::new();
    for resource in resources {
        truths.push((*resource, truth(sandbox, resource).await));
    }
    eventually("the replica of the PIM is in step", deadline, async || {
        for (resource, truth) in &truths {
            let found = differences_from(universe, resource, truth).await?;
            if let Some(first) = found.first() {
                return Err(format!("{resource}: {} differences; {first}", found.len()));
            }
        }
        Ok(())
    })
    .await;
}

/// Where the replica of a resource and a true state differ: every field of both but for links, every empty map being the same.
pub(crate) async fn differences_from(universe: &Universe, resource: &str, truth: &BTreeMap<String, Value>) -> Result<Vec<String>, String> {
    let replica = universe.replica(&format!("pim_{}", resource.replace('-', "_"))).await?;
    Ok(differences(truth, &replica, |key, record, held| {
        let (wanted, held) = (plain(record), plain(held));
        let names = wanted.as_object().into_iter().chain(held.as_object()).flat_map(Map::keys);
        let differs = |name: &&String| wanted.get(*name) != held.get(*name);
        let told = |name: &String| format!("{key}.{name}: {:?} upstream, {:?} here", wanted.get(name), held.get(name));
        names.filter(differs).map(told).collect()
    }))
}

fn plain(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: Map<String, Value> =
                fields.iter().filter(|(name, _)| *name != "_links").map(|(name, value)| (name.clone(), plain(value))).collect();
            if fields.is_empty() { json!([]) } else { Value::Object(fields) }
        }
        Value::Array(items) => items.iter().map(plain).collect(),
        other => other.clone(),
    }
}

#[test]
fn signatures_are_those_of_the_vendors_contract() {
    let empty = mac("a_secret", &[b"1577836800", b".", b""]);
    assert_eq!(empty, "7d536679657fbef04ba613be414959a59e93f06443dd596aebf4bbb00540ae14");
}
