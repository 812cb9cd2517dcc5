//! A producer that bears a token of ours, and a server that hands out its own: no token, no secret and nothing of a record leaves its
//! place, and none of the tokens reaches the store either.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::{EVERYTHING, SOON, canary, search_can_fail, with_cores};
use crate::support::canaries::{Searcher, forms};
use crate::support::process::INSTEP;
use crate::support::universe::READ_TOKEN;
use crate::support::{Database, Engine, Mls, Universe, eventually, mls, on_both};

on_both!(no_token_of_a_producer_leaves_its_place);

/// It is asked to resume, because it pushes nothing for so long.
const SOURCE: &str = "events = { read = \"yes\", poll = \"1s\" }\npasses = false\npush_resume = { url = \"/resume\", after = \"10s\" }";
/// What is of a record, by the field that holds it.
const FIELDS: [&str; 2] = ["MemberFullName", "MemberEmail"];

/// A test's world, its canaries, and all that anybody said.
struct Stage {
    universe: Universe,
    secrets: BTreeMap<String, String>,
    records: BTreeMap<String, String>,
    said: Vec<(String, Vec<u8>)>,
    /// What was asked to show one token, or what a delivery says, and what must not be in it.
    shown: Vec<(String, Vec<u8>)>,
    template: String,
}

async fn no_token_of_a_producer_leaves_its_place(database: Database) {
    let sandbox = vec!["--client-secret", mls::CLIENT_SECRET, "--token-ttl-ms", "2000"];
    let mut stage = Stage::new(Mls { source: SOURCE, sandbox, ..Mls::default() }.universe(database));
    stage.start("human", None).await;
    stage.resumption().await;
    stage.life().await;
    stage.universe.stop().await;
    let place = format!("{{ file = {:?} }}", stage.universe.folder("client-secret"));
    stage.start("json", Some(&format!("{{ client_id = \"instep\", secret = {place}, token_url = \"/oauth2/token\" }}"))).await;
    stage.life().await;
    stage.handed_out().await;
    stage.universe.stop().await;
    stage.judge().await;
}

impl Stage {
    fn new(universe: Universe) -> Self {
        for folder in ["given", "tmp"] {
            std::fs::create_dir(universe.folder(folder)).expect("our own folder");
        }
        std::fs::write(universe.folder("client-secret"), mls::CLIENT_SECRET).expect("our own folder");
        let template = std::fs::read_to_string(universe.config()).expect("it was written");
        let secrets = [
            ("sources.<name>.auth.token", READ_TOKEN),
            ("sources.<name>.auth.secret", mls::CLIENT_SECRET),
            ("sources.<name>.push.tokens", mls::PUSH_TOKEN),
        ];
        let own: Vec<String> = instep::config::example::secrets("reso").into_iter().filter(|key| key.starts_with("sources")).collect();
        assert_eq!(own, secrets.map(|(key, _)| key), "a secret has no canary");
        Self {
            universe,
            secrets: secrets.map(|(key, text)| (key.to_owned(), text.to_owned())).into(),
            records: FIELDS.map(|field| (field.to_owned(), canary())).into(),
            said: Vec::new(),
            shown: Vec::new(),
            template,
        }
    }

    async fn start(&mut self, format: &str, client: Option<&str>) {
        let mut text = self.template.clone();
        if let Some(client) = client {
            let token = format!("{{ token = {{ file = {:?} }} }}", self.universe.folder("read-token"));
            assert!(text.contains(&token), "{token} is not in the template");
            text = text.replace(&token, client);
        }
        text.push_str(&format!("[log]\nlevel = \"trace\"\nformat = \"{format}\"\n"));
        std::fs::write(self.universe.config(), text).expect("our own folder");
        let mut command = self.universe.command();
        self.universe.launch(command.env("INSTEP_LOG", EVERYTHING).env("TMPDIR", self.universe.folder("tmp")));
        self.universe.ready().await;
        self.universe.backfilled().await;
    }

    /// The log tells of what nobody pushes.
    async fn resumption(&self) {
        self.universe.sandbox.control("churn", json!({ "changes": 10 })).await;
        eventually("the producer is asked to resume", SOON, async || match self.universe.counted("resumes_asked", "mls").await {
            0 => Err("not yet".to_owned()),
            _ => Ok(()),
        })
        .await;
    }

    /// Everything that happens between a producer, its server and the daemon.
    async fn life(&mut self) {
        self.plant().await;
        self.invited().await;
        self.refusals().await;
        self.verbs();
        self.trouble().await;
        self.admin().await;
        let pid = self.universe.daemon().pid();
        for file in ["cmdline", "environ", "status", "maps"] {
            let bytes = std::fs::read(format!("/proc/{pid}/{file}")).expect("the process runs");
            self.said.push((format!("/proc/<pid>/{file}"), bytes));
        }
    }

    /// A person gets contents like no other's, and the producer pushes that.
    async fn plant(&self) {
        mls::subscribe(&self.universe).await;
        let person = json!({ "resource": "Member", "key": "M0000001", "fields": self.records });
        self.universe.sandbox.control("update", person).await;
        self.universe.sandbox.quiet(SOON).await;
        eventually("the replica holds what must be found nowhere else", SOON, async || {
            let held = self.universe.replica("mls_member").await?;
            let is_there = FIELDS.iter().all(|field| held["M0000001"][field] == self.records[*field].as_str());
            if is_there { Ok(()) } else { Err(held["M0000001"].to_string()) }
        })
        .await;
    }

    fn body(&self, number: u64) -> String {
        let event = json!({ "EntityEventSequence": number, "ResourceName": "Member", "ResourceRecordKey": "M0000001" });
        let mut event = event.as_object().expect("an object").clone();
        event.insert("Data".to_owned(), json!(self.records));
        Value::from(event).to_string()
    }

    /// A token is made, shown once, used, and ended.
    async fn invited(&mut self) {
        let made = self.verb(&["hooks", "invite", "mls", "--json"]);
        let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
        let (id, token) = (made["id"].as_str().expect("an id").to_owned(), made["token"].as_str().expect("a token").to_owned());
        let last = self.universe.sandbox.report().await["events"]["last"].as_u64().expect("a number");
        assert_eq!(self.hook("events", &token, "application/json", self.body(last)).await, 200);
        // A number is one event: this one is another record's.
        let other = self.body(last).replace("M0000001", "M0000002");
        assert_eq!(self.hook("events", &token, "application/json", other).await, 200);
        self.verb(&["hooks", "list", "mls"]);
        self.verb(&["hooks", "list", "mls", "--json"]);
        self.verb(&["hooks", "invite", "mls", "--revoke", &id]);
        assert_eq!(self.hook("events", &token, "application/json", self.body(last)).await, 401);
        self.secrets.insert(format!("invitation {id}"), token);
    }

    /// Secrets where they do not belong, from the invited and from strangers.
    async fn refusals(&mut self) {
        let tokens: Vec<String> = self.secrets.values().cloned().collect();
        let good = mls::PUSH_TOKEN;
        for token in &tokens {
            let escaped: String = url::form_urlencoded::byte_serialize(token.as_bytes()).collect();
            let lie = json!([{ "token": token, "email": self.records["MemberEmail"] }]).to_string();
            assert_eq!(self.hook("events", good, "application/json", lie.clone()).await, 400);
            assert_eq!(self.hook("events", good, "text/plain", lie.clone()).await, 415);
            for path in [format!("events?access_token={escaped}"), escaped.clone(), format!("{escaped}/events")] {
                self.hook(&path, "another", "application/json", lie.clone()).await;
            }
            for shown in [format!("x{token}"), token[1..].to_owned(), format!("{token},{token}"), format!("{token} {token}")] {
                assert_eq!(self.hook("events", &shown, "application/json", self.body(1)).await, 401, "{shown}");
            }
        }
        // What is taken and cannot be read is set aside.
        let poison =
            format!(r#"{{"value":[{{"EntityEventSequence":"{}","ResourceName":"Member","ResourceRecordKey":null}}]}}"#, "9".repeat(30));
        assert_eq!(self.hook("events", good, "application/json", poison).await, 200);
        self.universe.idle(SOON).await;
    }

    /// The server ends its tokens and fails in every way; the store's connections are cut.
    async fn trouble(&mut self) {
        let sandbox = &self.universe.sandbox;
        sandbox.control("revoke", json!({})).await;
        for fault in ["upstream_5xx", "truncated", "inject_429"] {
            let count = async || sandbox.report().await["faults"][fault]["count"].as_u64().unwrap_or(0);
            let before = count().await;
            sandbox.control("faults", json!({ fault: 1.0 })).await;
            eventually(fault, SOON, async || if count().await > before { Ok(()) } else { Err("not yet".to_owned()) }).await;
            sandbox.control("faults", json!({ fault: 0.0 })).await;
        }
        self.universe.database.cut_connections().await;
        // It is read again, whatever pause or breaker is left.
        sandbox.control("churn", json!({ "changes": 10 })).await;
        sandbox.quiet(SOON).await;
        mls::in_step(&self.universe, SOON * 4).await;
    }

    fn verbs(&mut self) {
        let (body, headers) = (self.universe.folder("given/body.json"), self.universe.folder("given/headers.txt"));
        std::fs::write(&body, self.body(1)).expect("our own folder");
        std::fs::write(&headers, format!("authorization: Bearer {}\ncontent-type: application/json\n", mls::PUSH_TOKEN))
            .expect("our own folder");
        let (body, headers) = (body.to_str().expect("a text").to_owned(), headers.to_str().expect("a text").to_owned());
        let description = self.universe.folder("given/mls.xml").to_str().expect("a text").to_owned();
        for arguments in [
            &["check", "--print"] as &[&str],
            &["check", "--json", "--print"],
            &["check", "--online"],
            &["status"],
            &["status", "--json"],
            &["metadata", "mls", "--output", &description],
            &["decode", "mls", &body, "--route", "events"],
            &["decode", "mls", &body, "--route", "events", "--headers", &headers, "--json"],
        ] {
            let output = self.verb(arguments);
            let said = [output.stdout.as_slice(), &output.stderr].concat();
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said));
        }
        for arguments in [&["hooks", "invite", "nobody"] as &[&str], &["hooks", "invite", "mls", "--revoke", mls::PUSH_TOKEN]] {
            let output = self.verb(arguments);
            assert!(!output.status.success(), "{arguments:?}");
        }
    }

    async fn admin(&mut self) {
        let base = format!("http://127.0.0.1:{}", self.universe.admin_port);
        for path in ["/livez", "/readyz", "/metrics", "/status"] {
            let request = self.universe.client.get(format!("{base}{path}"));
            self.answered(path, request).await;
        }
    }

    /// What the server handed out to the daemon are secrets too.
    async fn handed_out(&mut self) {
        let tokens = self.universe.sandbox.get("tokens").await;
        let tokens = tokens.as_array().expect("a list");
        assert!(tokens.len() > 2, "{} tokens were handed out", tokens.len());
        self.secrets
            .extend(tokens.iter().enumerate().map(|(n, token)| (format!("access token {n}"), token.as_str().expect("a text").to_owned())));
    }

    fn verb(&mut self, arguments: &[&str]) -> Output {
        let mut command = Command::new(INSTEP);
        command.args(arguments).arg("--config").arg(self.universe.config()).env("STATE_DIRECTORY", self.universe.database.state());
        command.env("INSTEP_LOG", EVERYTHING).env("TMPDIR", self.universe.folder("tmp")).current_dir(self.universe.database.folder());
        let output = command.output().expect("the binary runs");
        let said = [output.stdout.as_slice(), &output.stderr].concat();
        let shows = arguments[0] == "decode" || arguments.contains(&"invite") && output.status.success();
        // Whoever writes a secret behind a verb has shown it himself; and the answer to it may not.
        if shows { &mut self.shown } else { &mut self.said }
            .push((format!("instep {}", arguments[..2.min(arguments.len())].join(" ")), said));
        output
    }

    async fn hook(&mut self, path: &str, token: &str, media_type: &str, body: String) -> u16 {
        let url = format!("http://127.0.0.1:{}/hooks/mls/{path}", self.universe.hooks_port);
        let request = self.universe.client.post(&url).header("authorization", format!("Bearer {token}")).header("content-type", media_type);
        let request = request.header("EntityEventSource", self.records["MemberFullName"].as_str()).body(body);
        self.answered("a hook", request).await
    }

    /// Keeps what an answer said.
    async fn answered(&mut self, what: &str, request: reqwest::RequestBuilder) -> u16 {
        let answer = request.send().await.expect("an answer");
        let (status, headers) = (answer.status().as_u16(), format!("{:?}", answer.headers()));
        let body = answer.bytes().await.unwrap_or_default();
        self.said.push((format!("the answer {status} to {what}"), [headers.as_bytes(), &body].concat()));
        status
    }

    /// Every text of the rows that keep what came in by the door.
    async fn stored(&self) -> String {
        let mut all = String::new();
        for (table, columns) in [
            ("instep_delivery", &["headers", "query", "route", "dedupe"] as &[&str]),
            ("instep_invitation", &["id", "route", "token_sha256"]),
            ("instep_quarantine", &["reason", "key"]),
        ] {
            let list: Vec<String> = columns.iter().map(|column| format!("cast({column} as text) as {column}")).collect();
            let rows = self.universe.database.rows(&format!("select {} from {table}", list.join(", ")), columns).await;
            assert!(!rows.is_empty(), "{table} is empty");
            rows.into_iter().flatten().flatten().for_each(|text| all.push_str(&(text + "\n")));
        }
        all
    }

    async fn judge(&self) {
        let secrets = Searcher::new(with_cores(&self.secrets));
        let all: BTreeMap<String, String> =
            self.secrets.iter().chain(&self.records).map(|(name, text)| (name.clone(), text.clone())).collect();
        let everything = Searcher::new(with_cores(&all));
        let (database, folder) = (&self.universe.database, self.universe.database.folder());
        let is_place = |below: &Path| ["given", "read-token", "push-token", "client-secret"].iter().any(|place| below.starts_with(place));
        let is_store = |below: &Path| database.engine == Engine::Sqlite && below.to_string_lossy().starts_with("state/replica.db");
        // The producer's own process may say what it likes.
        let leave_out = |below: &Path| is_place(below) || is_store(below) || below == Path::new("sandbox.log");
        search_can_fail(&everything, &all, folder, &leave_out);
        let found = everything.find_below(folder, &leave_out);
        assert_eq!(found.hits, Vec::<String>::new());
        // No token is stored; on PostgreSQL only what comes in by the door is looked through.
        let beside = |below: &Path| is_place(below) || below == Path::new("sandbox.log");
        assert_eq!(secrets.find_below(folder, &beside).hits, Vec::<String>::new());
        assert_eq!(secrets.find(self.stored().await.as_bytes()), Vec::<&str>::new());
        let mut bytes = 0;
        for (what, said) in &self.said {
            assert_eq!(everything.find(said), Vec::<&str>::new(), "{what}");
            bytes += said.len();
        }
        for (what, said) in &self.shown {
            // An invitation shows its own token, once.
            let hits: Vec<&str> = secrets
                .find(said)
                .into_iter()
                .filter(|hit| !what.contains("invite") || !hit.starts_with("invitation") && !hit.starts_with("the middle"))
                .collect();
            assert_eq!(hits, Vec::<&str>::new(), "{what}");
            bytes += said.len();
        }
        let log = std::fs::read_to_string(self.universe.folder("daemon.log")).expect("a log");
        for heard in [
            "TRACE ",
            "\"level\":\"TRACE\"",
            "delivery refused",
            "asked to resume",
            "is another record's",
            "\"status\":\"401\"",
            "\"status\":\"50",
        ] {
            assert!(log.contains(heard), "{heard:?} was not in the log");
        }
        println!(
            "canaries of a producer {:?}: {} secrets, none of them stored, and {} texts of a record in {} forms each: 0 hits in {} files, {} \
             answers and outputs ({bytes} bytes), {} lines of log",
            database.engine,
            self.secrets.len(),
            self.records.len(),
            forms("x").len(),
            found.files,
            self.said.len() + self.shown.len(),
            log.lines().count()
        );
    }
}
