//! A fake upstream, a daemon and its database.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::process::{INSTEP, Process, free_port};
use super::sandbox::UNLIMITED;
use super::{Database, Sandbox, eventually};

/// The signature token of the deliveries that tests send themselves; unlike any other text, so that it is found wherever it leaks.
pub(crate) const TOKEN: &str = "canary/hook+5b0e4a81c6f24d3c9a77/?=";
/// The upstream's token.
pub(crate) const READ_TOKEN: &str = "canary/read+c1d7e90b34a8465fb2e6/?=";
/// Resources that were read completely once.
const SWEPT: &str = "select count(*) as n from instep_resources where complete_as_of is not null";
/// Enough for the first sweep of everything on a busy machine.
const BACKFILL: Duration = Duration::from_secs(120);

/// How a universe is made.
pub(crate) struct Setup {
    /// About how many records the organisation has.
    pub(crate) entities: u64,
    /// Resources, by the vendor's names; each with what is in its table, such as `poll = "2s"`.
    pub(crate) resources: Vec<(&'static str, &'static str)>,
    /// Further lines of the source.
    pub(crate) source: &'static str,
    /// Further lines of the store.
    pub(crate) store: &'static str,
    /// Further tables of the configuration.
    pub(crate) tables: &'static str,
    /// Further arguments of the sandbox.
    pub(crate) sandbox: Vec<String>,
    /// The upstream's limits, as arguments of the sandbox; the vendor's where it is empty.
    pub(crate) limits: &'static [&'static str],
    /// What the daemon knows of them: lines of the source.
    pub(crate) quota: &'static str,
    /// Further sources of the daemon.
    pub(crate) others: Vec<Other>,
    /// Which port upstreams deliver to, where it is not the daemon's own.
    pub(crate) public_port: Option<u16>,
}

/// A source beside `pmp`, with tasks alone, an organisation and so a quota of its own, and an upstream that the test has started.
#[derive(Clone, Debug)]
pub(crate) struct Other {
    pub(crate) name: String,
    pub(crate) organization: u64,
    pub(crate) url: String,
    /// Its quota, as it stands in the configuration.
    pub(crate) quota: &'static str,
    /// Further lines of the source.
    pub(crate) source: &'static str,
    /// What is in the table of the tasks.
    pub(crate) tasks: &'static str,
}

impl Default for Setup {
    /// Tasks alone, learned by deliveries alone: no passes after the first, no feeds.
    fn default() -> Self {
        Self {
            entities: 600,
            resources: vec![("tasks", "")],
            source: DELIVERIES_ONLY,
            store: "",
            tables: "",
            sandbox: Vec::new(),
            limits: &UNLIMITED,
            quota: "quota = [{ requests = 2000, per = \"1s\" }, { concurrent = 8 }]",
            others: Vec::new(),
            public_port: None,
        }
    }
}

/// Neither passes nor feeds: only deliveries bring changes.
pub(crate) const DELIVERIES_ONLY: &str = "passes = false\nfeeds = false\n";

/// A fake upstream, a daemon and its database.
pub(crate) struct Universe {
    pub(crate) database: Database,
    pub(crate) sandbox: Sandbox,
    pub(crate) client: reqwest::Client,
    pub(crate) hooks_port: u16,
    pub(crate) admin_port: u16,
    pub(super) resources: Vec<&'static str>,
    /// Resources of all sources.
    n_resources: usize,
    daemon: Option<Process>,
}

impl Universe {
    /// As [`Self::started`], with the daemon's public socket on a port that was chosen before.
    pub(crate) async fn started_at(database: Database, setup: &Setup, hooks_port: u16) -> Self {
        let mut universe = Self::new(database, setup);
        universe.hooks_port = hooks_port;
        universe.configure(setup.store, setup.tables, &universe.productive(setup));
        universe.run().await;
        universe.backfilled().await;
        universe
    }

    /// Starts the upstream and writes the configuration; the daemon is not started.
    pub(crate) fn new(database: Database, setup: &Setup) -> Self {
        let client = client();
        let sandbox = Sandbox::start(database.folder(), setup, client.clone());
        let resources: Vec<_> = setup.resources.iter().map(|(name, _)| *name).collect();
        let n_resources = resources.len() + setup.others.len();
        let mut universe = Self::with(database, sandbox, client);
        (universe.resources, universe.n_resources) = (resources, n_resources);
        universe.configure(setup.store, setup.tables, &universe.productive(setup));
        universe
    }

    /// With a fake upstream of any kind; it is not configured yet.
    pub(crate) fn with(database: Database, sandbox: Sandbox, client: reqwest::Client) -> Self {
        let (hooks_port, admin_port) = (free_port(), free_port());
        Self { database, sandbox, client, hooks_port, admin_port, resources: Vec::new(), n_resources: 0, daemon: None }
    }

    /// That there are so many more resources, all sources taken together.
    pub(crate) fn expect_more(&mut self, n_resources: usize) {
        self.n_resources += n_resources;
    }

    /// Puts a secret where the configuration finds it; how the configuration says so.
    pub(crate) fn secret(&self, name: &str, text: &str) -> String {
        std::fs::write(self.folder(name), text).expect("our own folder");
        format!("{{ file = {:?} }}", self.folder(name))
    }

    /// Starts the upstream and the daemon, and waits until every record is there.
    pub(crate) async fn started(database: Database, setup: &Setup) -> Self {
        let mut universe = Self::new(database, setup);
        universe.run().await;
        universe.backfilled().await;
        universe
    }

    /// Writes the configuration: further lines of the store, further tables, and the sources.
    pub(crate) fn configure(&self, store: &str, tables: &str, sources: &str) {
        let (url, password) = match url::Url::parse(&self.database.url) {
            Ok(mut url) if url.password().is_some() => {
                let password = format!("password = {}\n", self.secret("password", url.password().unwrap_or_default()));
                url.set_password(None).expect("a URL with a host");
                (url.to_string(), password)
            }
            _ => (self.database.url.clone(), String::new()),
        };
        let text = format!(
            "[store]\nurl = {url:?}\n{password}{store}\n[listen]\nhooks = \"127.0.0.1:{}\"\nadmin = \"127.0.0.1:{}\"\n{tables}\n{sources}",
            self.hooks_port, self.admin_port
        );
        std::fs::write(self.config(), text).expect("our own folder");
    }

    /// The sources of a setup, `pmp` first.
    pub(crate) fn productive(&self, setup: &Setup) -> String {
        let token = self.secret("token", READ_TOKEN);
        self.secret("hook-token", TOKEN);
        let mut text = format!(
            "[sources.pmp]\nmanage_token = {token}\npublic_url = \"http://127.0.0.1:{}\"\n{}{}\n[sources.pmp.resources]\n",
            setup.public_port.unwrap_or(self.hooks_port),
            self.common(435, &self.sandbox.url, setup.quota),
            setup.source,
        );
        for (name, table) in &setup.resources {
            let _ = writeln!(text, "{name} = {{ {table} }}");
        }
        for Other { name, organization, url, quota, source, tasks } in &setup.others {
            let common = self.common(*organization, url, quota);
            let _ = write!(text, "[sources.{name}]\n{common}{source}\n[sources.{name}.resources]\ntasks = {{ {tasks} }}\n");
        }
        text
    }

    /// What every source of Productive has.
    fn common(&self, organization: u64, url: &str, quota: &str) -> String {
        let (token, secret) = (self.folder("token"), self.folder("hook-token"));
        format!(
            "kind = \"productive\"\norganization = {organization}\nurl = {url:?}\ntoken = {{ file = {token:?} }}\n\
             secrets = [{{ file = {secret:?} }}]\n{quota}\nexclude = []\nlinger = \"50ms\"\n\
             read_lag = \"0s\"\nlist_lag = \"0s\"\nfeed_poll = \"1s\"\n"
        )
    }

    /// A file in the test's folder.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.database.folder().join(name)
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder("instep.toml")
    }

    /// `instep run` as it would be started, for tests that want it otherwise.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(INSTEP);
        command.args(["run", "--config"]).arg(self.config()).env("STATE_DIRECTORY", self.database.state());
        command.env_remove("NOTIFY_SOCKET").current_dir(self.database.folder());
        command
    }

    /// Starts the daemon and waits until it is ready.
    pub(crate) async fn run(&mut self) {
        self.launch(&mut self.command());
        self.ready().await;
    }

    /// Starts the daemon by `command` without waiting.
    pub(crate) fn launch(&mut self, command: &mut Command) {
        assert!(self.daemon.is_none(), "it runs already");
        self.daemon = Some(Process::start(command, &self.folder("daemon.log")));
    }

    /// Waits until the daemon can accept durably.
    pub(crate) async fn ready(&mut self) {
        let url = format!("http://127.0.0.1:{}/readyz", self.admin_port);
        let client = self.client.clone();
        let daemon = self.daemon();
        eventually("the daemon is ready", Duration::from_secs(60), async || {
            assert!(daemon.ended().is_none(), "the daemon ended while starting");
            let answer = client.get(&url).send().await.map_err(|error| error.to_string())?;
            if answer.status().is_success() { Ok(()) } else { Err(answer.status().to_string()) }
        })
        .await;
    }

    /// Waits until the daemon owns its source, as every verb wants it that changes something.
    pub(crate) async fn owned(&self) {
        eventually("the source has its owner", Duration::from_secs(60), async || {
            let status = self.status().await?;
            if status["sources"]["pmp"]["owned"].is_number() { Ok(()) } else { Err(status["wrong"].to_string()) }
        })
        .await;
    }

    /// The running daemon.
    pub(crate) fn daemon(&mut self) -> &mut Process {
        self.daemon.as_mut().expect("it was started")
    }

    /// Whether it was started, and neither stopped nor killed since.
    #[cfg(feature = "failpoints")]
    pub(crate) fn is_launched(&self) -> bool {
        self.daemon.is_some()
    }

    /// Kills the daemon as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.daemon = None;
    }

    /// Tells the daemon to stop and waits for its end.
    pub(crate) async fn stop(&mut self) -> Option<i32> {
        self.daemon().signal("TERM");
        let code = self.daemon().exit_code(Duration::from_secs(40)).await;
        self.daemon = None;
        code
    }

    /// Runs a verb of the binary with this configuration.
    pub(crate) fn verb(&self, arguments: &[&str]) -> std::process::Output {
        self.verb_begun(arguments).wait_with_output().expect("the binary runs")
    }

    /// Begins to run a verb; what it says is kept.
    pub(crate) fn verb_begun(&self, arguments: &[&str]) -> std::process::Child {
        let mut command = Command::new(INSTEP);
        command.args(arguments).arg("--config").arg(self.config()).env("STATE_DIRECTORY", self.database.state());
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command.current_dir(self.database.folder()).spawn().expect("the binary runs")
    }

    /// Waits until every resource was read completely once, and nothing is left to look at.
    pub(crate) async fn backfilled(&self) {
        self.swept().await;
        self.idle(BACKFILL).await;
    }

    /// Waits until every resource was read completely once; under load something is always left to look at.
    pub(crate) async fn swept(&self) {
        self.swept_within(BACKFILL).await;
    }

    /// As [`Self::swept`], for more than the usual number of records.
    pub(crate) async fn swept_within(&self, deadline: Duration) {
        let n = self.n_resources as i64;
        eventually("the first sweep ends", deadline, async || {
            let complete = self.database.try_number(SWEPT).await?;
            if complete == n { Ok(()) } else { Err(format!("{complete} of {n} resources are complete")) }
        })
        .await;
    }

    /// Whether every resource was read completely once; a file whose writer was just killed may not be readable for a moment.
    pub(crate) async fn is_swept(&self) -> bool {
        self.database.try_number(SWEPT).await == Ok(self.n_resources as i64)
    }

    /// Waits until no delivery waits and no mark is open.
    pub(crate) async fn idle(&self, deadline: Duration) {
        eventually("nothing waits", deadline, async || {
            let pending = self.database.try_number("select count(*) as n from instep_delivery where state = 'pending'").await?;
            let marks = self.database.try_number("select count(*) as n from instep_mark").await?;
            if pending + marks == 0 { Ok(()) } else { Err(format!("{pending} deliveries and {marks} marks")) }
        })
        .await;
    }

    /// Waits until no delivery waits; marks may be open.
    #[cfg(feature = "failpoints")]
    pub(crate) async fn idle_deliveries(&self) {
        eventually("no delivery waits", Duration::from_secs(30), async || {
            match self.database.try_number("select count(*) as n from instep_delivery where state = 'pending'").await? {
                0 => Ok(()),
                pending => Err(format!("{pending} deliveries")),
            }
        })
        .await;
    }

    /// What the daemon says of itself.
    pub(crate) async fn status(&self) -> Result<Value, String> {
        let answer = self.client.get(format!("http://127.0.0.1:{}/status", self.admin_port)).send().await;
        let body = answer.map_err(|error| error.to_string())?.bytes().await.map_err(|error| error.to_string())?;
        serde_json::from_slice(&body).map_err(|error| error.to_string())
    }

    /// What the daemon has counted since it started, in all of a counter's lines that have this label.
    pub(crate) async fn counted(&self, counter: &str, label: &str) -> u64 {
        let answer = self.client.get(format!("http://127.0.0.1:{}/metrics", self.admin_port)).send().await.expect("metrics");
        let text = String::from_utf8(answer.bytes().await.expect("a body").to_vec()).expect("text");
        let begin = format!("instep_{counter}_total");
        let of = text.lines().filter(|line| line.starts_with(&begin) && line.contains(label));
        of.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// What a gauge says in its line with this label; `None`: it was not set.
    pub(crate) async fn gauge(&self, gauge: &str, label: &str) -> Option<f64> {
        let answer = self.client.get(format!("http://127.0.0.1:{}/metrics", self.admin_port)).send().await.expect("metrics");
        let text = String::from_utf8(answer.bytes().await.expect("a body").to_vec()).expect("text");
        let begin = format!("instep_{gauge}{{");
        let line = text.lines().find(|line| line.starts_with(&begin) && line.contains(label))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Sends a delivery with a right signature; the answer's status, or why there was none.
    pub(crate) async fn deliver(&self, route: &str, body: impl AsRef<[u8]>) -> Result<u16, String> {
        self.deliver_to("pmp", route, body).await
    }

    /// As [`Self::deliver`], for another source.
    pub(crate) async fn deliver_to(&self, source: &str, route: &str, body: impl AsRef<[u8]>) -> Result<u16, String> {
        deliver_to(&self.client, self.hooks_port, source, route, body).await
    }

    /// Sends a delivery until it is acknowledged, as upstreams do; on a busy machine a commit may take longer than a caller waits.
    pub(crate) async fn deliver_surely(&self, route: &str, body: impl AsRef<[u8]>) {
        eventually("the delivery is acknowledged", Duration::from_secs(60), async || match self.deliver(route, &body).await {
            Ok(200) => Ok(()),
            Ok(503) => Err("503".to_owned()),
            other => panic!("{other:?}"),
        })
        .await;
    }
}

/// A client without a pool: a killed daemon leaves no half-dead connections in it.
pub(crate) fn client() -> reqwest::Client {
    // A second installation is refused and harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    builder.retry(reqwest::retry::never()).pool_max_idle_per_host(0).timeout(Duration::from_secs(20)).build().expect("a client")
}

/// Sends a delivery with a right signature.
pub(crate) async fn deliver(client: &reqwest::Client, port: u16, route: &str, body: impl AsRef<[u8]>) -> Result<u16, String> {
    deliver_to(client, port, "pmp", route, body).await
}

/// As [`deliver`], to any source; all have the same signature token.
pub(crate) async fn deliver_to(
    client: &reqwest::Client,
    port: u16,
    source: &str,
    route: &str,
    body: impl AsRef<[u8]>,
) -> Result<u16, String> {
    Ok(post(client, port, source, route, body).await?.status().as_u16())
}

/// As [`deliver_to`]; the whole answer.
pub(crate) async fn post(
    client: &reqwest::Client,
    port: u16,
    source: &str,
    route: &str,
    body: impl AsRef<[u8]>,
) -> Result<reqwest::Response, String> {
    let url = format!("http://127.0.0.1:{port}/hooks/{source}/{route}");
    let body = body.as_ref().to_vec();
    let request = client.post(url).header("content-type", "application/json").header("productive-signature", signature(TOKEN, &body));
    request.body(body).send().await.map_err(|error| error.to_string())
}

/// The vendor's signature, written down here a second time so that a mistake in ours is seen.
pub(crate) fn signature(token: &str, body: impl AsRef<[u8]>) -> String {
    let seconds = 1_700_000_000;
    let mut mac = Hmac::<Sha256>::new_from_slice(token.as_bytes()).expect("keys may have any length");
    mac.update(format!("{seconds}.").as_bytes());
    mac.update(body.as_ref());
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={seconds}, s={hex}")
}

/// The body of a delivery about a task; `note` makes it unlike any other.
pub(crate) fn about_task(key: &str, note: &str) -> String {
    let object = json!({ "data": { "id": key, "type": "tasks", "attributes": { "title": note } } });
    json!({ "event": "update_task", "item_type": "task", "item_id": key.parse::<u64>().unwrap_or(0), "object": object }).to_string()
}
