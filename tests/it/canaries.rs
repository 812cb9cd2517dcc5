//! Secrets and people's data stay where they belong: unique canaries for every secret that the configuration can refer to, for the
//! tokens that the upstream makes, and for one person and one task; then everything that can go wrong, at level TRACE of every
//! library; then a search through logs, metrics, answers, errors, command lines, environments and files, in every form.
//!
//! The whole suite at TRACE is `INSTEP_LOG=trace,hyper=trace,hyper_util=trace,reqwest=trace,rustls=trace,sea_orm=trace,sqlx=trace,warp=trace,ractor=trace
//! cargo test --release --features failpoints --test it`: whenever a process of a test ends, its log is searched for the suite's own tokens.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::json;

use crate::support::canaries::{Searcher, forms};
use crate::support::process::{INSTEP, free_port};
use crate::support::universe::{about_task, signature};
use crate::support::{Database, Engine, Setup, Universe, eventually, on_both};

mod api;
mod bearer;
mod echo;
mod password;
mod wrong;

use echo::{ANSWERS, Echo};

on_both!(no_secret_and_no_record_leaves_its_place);

const SOON: Duration = Duration::from_secs(60);
/// Every target at its most talkative, those too that are quiet unless asked for.
const EVERYTHING: &str = "trace,hyper=trace,hyper_util=trace,reqwest=trace,rustls=trace,sea_orm=trace,sea_orm_migration=trace,sqlx=trace,warp=trace,ractor=trace";
/// The token of an application.
const API_TOKEN: &str = "listen.api.tokens";
/// One step of the sync actor panics; in a build without fail points nothing does.
const PANIC: &str = "actor:root/sources/source:pmp/sync:tasks::step=1*panic";

/// A test's world, its canaries, and all that anybody said.
struct Stage {
    universe: Universe,
    /// By the key of the configuration, or what else it is.
    secrets: BTreeMap<String, String>,
    /// What is of a record.
    records: BTreeMap<String, String>,
    /// Where, and what was said there. What an operator asked to be shown of a record is in `shown`.
    said: Vec<(String, Vec<u8>)>,
    shown: Vec<(String, Vec<u8>)>,
    template: String,
    api_port: u16,
}

/// A text unlike any other, with characters that look different in every form. What a header, a file and a URL can hold.
fn canary() -> String {
    format!("canary+{}/?=", uuid::Uuid::now_v7().simple())
}

async fn no_secret_and_no_record_leaves_its_place(database: Database) {
    let mut stage = Stage::new(database);
    stage.start("human", None).await;
    stage.live().await;
    stage.refusals().await;
    stage.verbs();
    stage.admin().await;
    stage.api().await;
    stage.outage().await;
    stage.process();
    stage.universe.stop().await;
    let echo = Echo::start().await;
    stage.start("json", Some(&echo.url())).await;
    stage.upstream_that_echoes(&echo).await;
    stage.admin().await;
    stage.api().await;
    stage.process();
    stage.universe.stop().await;
    // No store is opened for these, so once is enough.
    if stage.universe.database.engine == Engine::Sqlite {
        wrong::configurations(&mut stage);
        password::refused(&mut stage).await;
    }
    stage.judge(&echo);
}

impl Stage {
    fn new(database: Database) -> Self {
        let setup = Setup { entities: 200, resources: vec![("tasks", ""), ("people", "")], ..Setup::default() };
        let universe = Universe::new(database, &setup);
        for folder in ["secrets", "given", "wrong", "tmp"] {
            std::fs::create_dir(universe.folder(folder)).expect("our own folder");
        }
        let template = std::fs::read_to_string(universe.config()).expect("it was written");
        // What stands in a list is not declared key by key.
        let secrets: BTreeMap<String, String> =
            instep::config::example::secrets("productive").into_iter().chain([API_TOKEN.to_owned()]).map(|key| (key, canary())).collect();
        for (key, text) in &secrets {
            std::fs::write(secret_file(&universe, key), text).expect("our own folder");
        }
        let records = ["first name", "email", "title", "description"].map(|what| (what.to_owned(), canary()));
        let api_port = free_port();
        Self { universe, secrets, records: BTreeMap::from(records), said: Vec::new(), shown: Vec::new(), template, api_port }
    }

    /// The suite's configuration with every secret that there can be.
    fn configure(&self, format: &str, upstream: Option<&str>) {
        let place = |key: &str| format!("{{ file = {:?} }}", secret_file(&self.universe, key));
        let file = |name: &str| format!("{{ file = {:?} }}", self.universe.folder(name));
        let admin = format!("\"127.0.0.1:{}\"", self.universe.admin_port);
        let mut text = self.template.clone();
        let mut put = |old: String, new: String| {
            assert!(text.contains(&old), "{old} is not in the template");
            text = text.replace(&old, &new);
        };
        put(format!("admin = {admin}"), format!("admin = {{ address = {admin}, token = {} }}", place("listen.admin.token")));
        put(format!("manage_token = {}", file("token")), format!("manage_token = {}", place("sources.<name>.manage_token")));
        put(format!("\ntoken = {}", file("token")), format!("\ntoken = {}", place("sources.<name>.token")));
        put(format!("secrets = [{}]", file("hook-token")), format!("secrets = [{}]", place("sources.<name>.secrets")));
        if self.has_own_password() {
            put("[listen]".to_owned(), format!("password = {}\n[listen]", place("store.password")));
        }
        let api = format!(
            "[listen.api]\naddress = \"127.0.0.1:{}\"\ntokens = [{{ name = \"portal\", token = {}, scopes = [\"read\", \"refresh\"] }}]\n[sources.pmp]",
            self.api_port,
            place(API_TOKEN)
        );
        put("[sources.pmp]".to_owned(), api);
        if let Some(url) = upstream {
            put(format!("url = {:?}", self.universe.sandbox.url), format!("url = {url:?}"));
        }
        let _ = write!(text, "[log]\nlevel = \"trace\"\nformat = \"{format}\"\n");
        std::fs::write(self.universe.config(), &text).expect("our own folder");
        let config = instep::config::Config::load(&self.universe.config()).unwrap_or_else(|error| panic!("{error}"));
        for key in instep::config::example::secrets("productive").iter().filter(|key| *key != "store.password" || self.has_own_password()) {
            let path = key.replace("<name>", "pmp");
            let value = config.entries.iter().find(|entry| entry.key == path).and_then(|entry| entry.value.clone()).unwrap_or_default();
            assert!(value.contains(&format!("secrets/{}", file_name(key))), "{key} is a secret without a canary: {value}");
        }
    }

    /// A server of the suite with a password of its own keeps it; `password` then is the only test of that canary.
    fn has_own_password(&self) -> bool {
        !self.template.contains("password = ")
    }

    fn secret(&self, key: &str) -> String {
        self.secrets[key].clone()
    }

    fn environment(&self, command: &mut Command) {
        command.env("INSTEP_LOG", EVERYTHING).env("TMPDIR", self.universe.folder("tmp"));
    }

    async fn start(&mut self, format: &str, upstream: Option<&str>) {
        self.configure(format, upstream);
        if upstream.is_none() {
            self.plant().await;
        }
        let mut command = self.universe.command();
        self.environment(&mut command);
        self.universe.launch(command.env("INSTEP_FAILPOINTS", PANIC));
        let url = format!("http://127.0.0.1:{}/readyz", self.universe.admin_port);
        let token = self.secret("listen.admin.token");
        eventually("the daemon is ready", SOON, async || {
            let answer = self.universe.client.get(&url).bearer_auth(&token).send().await.map_err(|error| error.to_string())?;
            if answer.status().is_success() { Ok(()) } else { Err(answer.status().to_string()) }
        })
        .await;
        if upstream.is_none() {
            self.universe.backfilled().await;
        }
    }

    /// A person and a task of the upstream get contents like no other's.
    async fn plant(&self) {
        let sandbox = &self.universe.sandbox;
        let (person, task) = (sandbox.keys("people").await.remove(0), sandbox.keys("tasks").await.remove(0));
        let person_is = json!({ "first_name": self.records["first name"], "email": self.records["email"] });
        sandbox.control("update", json!({ "collection": "people", "id": person, "attributes": person_is })).await;
        let task_is = json!({ "title": self.records["title"], "description": self.records["description"] });
        sandbox.control("update", json!({ "collection": "tasks", "id": task, "attributes": task_is })).await;
    }

    /// Webhooks are registered, the upstream signs with its own tokens, the records change once more.
    async fn live(&mut self) {
        self.verb(&["hooks", "create", "pmp", "--json"]);
        let made = self.universe.database.texts("select secret as v from instep_registration").await;
        assert!(made.len() >= 3, "registrations were made");
        self.secrets.extend(made.into_iter().enumerate().map(|(n, secret)| (format!("token {n} of the upstream"), secret)));
        self.plant().await;
        let key = self.universe.sandbox.keys("tasks").await.remove(0);
        let body = about_task(&key, &self.records["title"]);
        let status = self.hook("task-updated", &[("productive-signature", &self.signed(&body))], body).await;
        assert_eq!(status, 200);
        self.universe.idle(SOON).await;
        for (table, what) in [("people", "email"), ("tasks", "title")] {
            let rows = self.universe.database.rows(&format!("select payload from pmp_{table}"), &["payload"]).await;
            let holds = rows.iter().flatten().flatten().any(|payload| payload.contains(&self.records[what]));
            assert!(holds, "the replica holds what must be found nowhere else");
        }
    }

    fn signed(&self, body: &str) -> String {
        signature(&self.secrets["sources.<name>.secrets"], body)
    }

    async fn hook(&mut self, path: &str, headers: &[(&str, &str)], body: String) -> u16 {
        let url = format!("http://127.0.0.1:{}/hooks/pmp/{path}", self.universe.hooks_port);
        let request = headers.iter().fold(self.universe.client.post(&url), |request, (name, value)| request.header(*name, *value));
        self.answered(path, request.body(body)).await
    }

    /// Keeps what an answer said.
    async fn answered(&mut self, what: &str, request: reqwest::RequestBuilder) -> u16 {
        let Ok(answer) = request.send().await else { return 0 };
        let (status, headers) = (answer.status().as_u16(), format!("{:?}", answer.headers()));
        let body = answer.bytes().await.unwrap_or_default();
        self.said.push((format!("the answer {status} to {what}"), [headers.as_bytes(), &body].concat()));
        status
    }

    /// Deliveries that are refused or set aside, with secrets where they do not belong.
    async fn refusals(&mut self) {
        let (token, hook) = (self.secret("sources.<name>.token"), self.secret("sources.<name>.secrets"));
        let record = self.records["email"].clone();
        let escaped: String = url::form_urlencoded::byte_serialize(token.as_bytes()).collect();
        let body = about_task("1", &record);
        let good = self.signed(&body);
        let paths =
            [format!("task-updated?token={escaped}"), escaped.clone(), format!("../{escaped}/task-updated"), "task-exploded".to_owned()];
        for path in &paths {
            self.hook(path, &[("productive-signature", &good)], body.clone()).await;
            self.hook(path, &[], body.clone()).await;
        }
        let wrong = signature("another", &body);
        for header in [wrong.as_str(), &hook, &format!("t=1,s={hook}"), &format!("t={token},s=00"), ""] {
            assert_eq!(self.hook("task-updated", &[("productive-signature", header)], body.clone()).await, 401);
        }
        let coded = [("productive-signature", good.as_str()), ("content-encoding", "gzip"), ("authorization", token.as_str())];
        assert_eq!(self.hook("task-updated", &coded, body.clone()).await, 415);
        self.hook("task-updated", &[("productive-signature", &good)], record.repeat(100_000)).await;
        let poison = [
            "[".repeat(200_000),
            format!("{{\"item_id\":1,\"item_id\":\"{record}\"}}"),
            format!("{{\"item_id\":null,\"token\":\"{token}\",\"email\":\"{record}\"}}"),
            format!("{record} is no JSON, {token}"),
            format!("{{\"item_id\":\"{record}\\u0007{token}\"}}"),
        ];
        for body in poison {
            let signed = self.signed(&body);
            assert_eq!(self.hook("task-updated", &[("productive-signature", &signed)], body).await, 200);
        }
        self.universe.idle(SOON).await;
        let n = self.universe.database.number("select count(*) as n from instep_quarantine").await;
        assert_eq!(n, 5, "the poison is set aside");
    }

    /// Runs a verb and keeps what it said.
    fn verb(&mut self, arguments: &[&str]) -> Output {
        let config = self.universe.config();
        self.verb_of(arguments, &config)
    }

    fn verb_of(&mut self, arguments: &[&str], config: &Path) -> Output {
        let mut command = Command::new(INSTEP);
        command.args(arguments).arg("--config").arg(config).env("STATE_DIRECTORY", self.universe.database.state());
        self.environment(&mut command);
        let output = command.current_dir(self.universe.database.folder()).output().expect("the binary runs");
        let what = format!("instep {} --config {}", arguments.join(" "), config.display());
        let said = [output.stdout.as_slice(), &output.stderr].concat();
        // Only these are asked to show what a delivery or a record says.
        if matches!(arguments[0], "decode" | "refresh") { &mut self.shown } else { &mut self.said }.push((what, said));
        output
    }

    /// Every verb, rightly and wrongly.
    fn verbs(&mut self) {
        let body = about_task("1", &self.records["title"]);
        let headers = format!("productive-signature: {}\nx-auth-token: {}\n", self.signed(&body), self.secret("sources.<name>.token"));
        let (body_file, header_file) = (self.universe.folder("given/body.json"), self.universe.folder("given/headers.txt"));
        std::fs::write(&body_file, body).expect("our own folder");
        std::fs::write(&header_file, headers).expect("our own folder");
        let (body, headers) = (body_file.to_str().expect("a text"), header_file.to_str().expect("a text"));
        let right: [&[&str]; 14] = [
            &["check"],
            &["check", "--print"],
            &["check", "--json", "--print"],
            &["check", "--online"],
            &["check", "--online", "--json"],
            &["status"],
            &["status", "--json"],
            &["hooks", "list", "pmp"],
            &["hooks", "list", "pmp", "--json"],
            &["decode", "pmp", body, "--route", "task-updated"],
            &["decode", "pmp", body, "--route", "task-updated", "--headers", headers, "--json"],
            &["explain", "pmp", "tasks", "1"],
            &["explain", "pmp", "tasks", "1", "--json"],
            &["migrate"],
        ];
        for arguments in right {
            let output = self.verb(arguments);
            // On SQLite only one process may have the file.
            let may_fail = arguments[0] == "migrate";
            assert!(may_fail || output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        let wrong: [&[&str]; 13] = [
            &["run"],
            &["status", "--nonsense"],
            &["hooks", "create", "nobody"],
            &["hooks", "explode", "pmp"],
            &["decode", "nobody", body, "--route", "task-updated"],
            &["decode", "pmp", "nowhere.json", "--route", "task-updated"],
            &["decode", "pmp", body, "--route", "task-exploded"],
            &["explain", "nobody", "tasks", "1"],
            &["refresh", "pmp", "nothing", "1"],
            &["init", "productive", "--yes"],
            &["init", "nonsense"],
            &["migrate", "--nonsense"],
            &["nonsense"],
        ];
        for arguments in wrong {
            let output = self.verb(arguments);
            assert!(!output.status.success() || arguments[0] == "decode", "{arguments:?}");
        }
    }

    /// Every route of the admin socket, with the right token, with none and with another secret.
    async fn admin(&mut self) {
        let base = format!("http://127.0.0.1:{}", self.universe.admin_port);
        let tokens = [None, Some(self.secret("listen.admin.token")), Some(self.secret("sources.<name>.token"))];
        for token in &tokens {
            let bear = |request: reqwest::RequestBuilder| match token {
                Some(token) => request.bearer_auth(token),
                None => request,
            };
            for path in ["/livez", "/readyz", "/healthz", "/metrics", "/status", "/nowhere", "/"] {
                let request = bear(self.universe.client.get(format!("{base}{path}")));
                let status = self.answered(path, request).await;
                assert!(*token == tokens[1] || status == 401, "{path}: {status}");
            }
            for (verb, body) in [
                ("hooks", json!({ "source": "pmp", "action": "list" }).to_string()),
                ("probe", json!({ "source": "nobody" }).to_string()),
                ("decode", "no JSON".to_owned()),
                ("nonsense", json!({ "source": "pmp" }).to_string()),
            ] {
                let request = bear(self.universe.client.post(format!("{base}/control/{verb}")));
                let request = request.header("content-type", "application/json").body(body);
                self.answered(verb, request).await;
            }
        }
    }

    /// The store's connections are cut while deliveries come.
    async fn outage(&mut self) {
        self.universe.database.cut_connections().await;
        let body = about_task("1", &self.records["description"]);
        let signed = self.signed(&body);
        self.hook("task-updated", &[("productive-signature", &signed)], body).await;
        self.admin().await;
        self.universe.idle(SOON).await;
    }

    /// What everybody on the machine can see of the process.
    fn process(&mut self) {
        let pid = self.universe.daemon().pid();
        for file in ["cmdline", "environ", "status", "maps"] {
            let bytes = std::fs::read(format!("/proc/{pid}/{file}")).expect("the process runs");
            self.said.push((format!("/proc/<pid>/{file}"), bytes));
        }
    }

    /// An upstream that says back what it was sent, whatever it is asked.
    async fn upstream_that_echoes(&mut self, echo: &Echo) {
        for number in 0..ANSWERS {
            let before = echo.answer_with(number);
            let body = about_task(&number.to_string(), &self.records["title"]);
            let signed = self.signed(&body);
            self.hook("task-updated", &[("productive-signature", &signed)], body).await;
            let output = self.verb(&["check", "--online"]);
            assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            eventually("the upstream was asked", SOON, async || if echo.answered() > before { Ok(()) } else { Err("not yet".to_owned()) })
                .await;
        }
        self.verb(&["hooks", "create", "pmp"]);
    }

    fn judge(&self, echo: &Echo) {
        let secrets = Searcher::new(with_cores(&self.secrets));
        let all: BTreeMap<String, String> =
            self.secrets.iter().chain(&self.records).map(|(name, text)| (name.clone(), text.clone())).collect();
        let everything = Searcher::new(with_cores(&all));
        let folder = self.universe.database.folder();
        let is_place = |below: &Path| ["secrets", "given", "wrong", "token", "hook-token"].iter().any(|place| below.starts_with(place));
        let is_store =
            |below: &Path| self.universe.database.engine == Engine::Sqlite && below.to_string_lossy().starts_with("state/replica.db");
        // The upstream's own process may say what it likes of its records.
        let leave_out = |below: &Path| is_place(below) || is_store(below) || below == Path::new("sandbox.log");
        search_can_fail(&everything, &all, folder, &leave_out);

        let found = everything.find_below(folder, &leave_out);
        assert_eq!(found.hits, Vec::<String>::new());
        assert_eq!(secrets.find_below(folder, &|below| is_place(below) || is_store(below)).hits, Vec::<String>::new());
        let mut bytes = 0;
        for ((what, said), searcher) in
            self.said.iter().map(|said| (said, &everything)).chain(self.shown.iter().map(|said| (said, &secrets)))
        {
            let hits = searcher.find(said);
            assert!(hits.is_empty(), "{what} holds {hits:?}");
            bytes += said.len();
        }
        // Silence would prove nothing.
        let log = std::fs::read_to_string(self.universe.folder("daemon.log")).expect("a log");
        for heard in [
            "TRACE ",
            "\"level\":\"TRACE\"",
            "item quarantined",
            "delivery refused",
            "fetch answered",
            "status=200",
            "\"status\":\"401\"",
            "\"status\":\"500\"",
        ] {
            assert!(log.contains(heard), "{heard:?} was not in the log");
        }
        assert!(!cfg!(feature = "failpoints") || log.contains("panicked"), "no panic was in the log");
        assert!(echo.saw(&self.secrets["sources.<name>.token"]) && echo.saw(&self.secrets["sources.<name>.manage_token"]));
        let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let rooms: BTreeSet<String> = lines.filter_map(|line| Some(line["target"].as_str()?.split("::").next()?.to_owned())).collect();
        println!(
            "canaries {:?}: {} secrets and {} texts of records in {} forms each: 0 hits in {} files, \
             {} answers and outputs ({bytes} bytes), {} lines of log of {rooms:?}",
            self.universe.database.engine,
            self.secrets.len(),
            self.records.len(),
            forms("x").len(),
            found.files,
            self.said.len() + self.shown.len(),
            log.lines().count()
        );
    }
}

/// The same search finds each canary in each form where it was planted, in the folder `tmp` below this one.
fn search_can_fail(searcher: &Searcher, all: &BTreeMap<String, String>, folder: &Path, leave_out: &dyn Fn(&Path) -> bool) {
    let planted = folder.join("tmp/planted");
    let mut text = String::new();
    let mut wanted = Vec::new();
    for (name, canary) in all {
        for (form, needle) in forms(canary) {
            let _ = writeln!(text, "before {needle}behind");
            wanted.push(format!("tmp/planted: {name} {form}"));
        }
    }
    std::fs::write(&planted, text).expect("our own folder");
    let hits = searcher.find_below(folder, leave_out).hits;
    std::fs::remove_file(&planted).expect("it was written");
    let missed: Vec<_> = wanted.iter().filter(|wanted| !hits.contains(wanted)).collect();
    assert!(missed.is_empty(), "the search is blind: {missed:?}");
}

/// Each canary, and the part of it that looks the same in a URL, which is left where something else was cut off.
fn with_cores(canaries: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    canaries.iter().flat_map(|(name, text)| {
        let core = text.trim_start_matches("canary+").trim_end_matches("/?=");
        [(name.as_str(), text.as_str()), ("the middle of one", core)]
    })
}

fn file_name(key: &str) -> String {
    key.replace(['<', '>'], "")
}

fn secret_file(universe: &Universe, key: &str) -> PathBuf {
    universe.folder("secrets").join(file_name(key))
}
