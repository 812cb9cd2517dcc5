//! The daemon's own settings: everything but the sources. Each key's comment is also its comment in the example file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::reader::Item;
use super::schema::{Key, default, optional, required, section};
use super::secret::{Secret, SecretError, SecretText, Secrets};
use super::value::{Size, Value, days, each, if_set, quoted, seconds, text, within, words};

section! {
    /// Where the replica and the daemon's own tables live.
    pub struct Store {
        /// SQLite file, or a PostgreSQL database such as "postgresql:///pmp?host=/run/postgresql". A relative file is taken below
        /// $STATE_DIRECTORY, which systemd sets, else below the working directory.
        url: StoreUrl = default("\"sqlite://replica.db\"");
        /// Password for PostgreSQL where peer login is not possible; it never stands in the URL.
        password: Option<Secret> = optional("{ credential = \"database-password\" }");
        /// PostgreSQL roles that may select from the views. They must exist.
        grant: Vec<String> = default("[]"), each(text(role_name));
        /// Unix group that may read the SQLite file; the file becomes 0640 and its directory 2750.
        read_group: Option<String> = optional("\"instep-read\""), if_set(text(not_empty));
        /// Connections for reading and for the sources. Writes are serial per source, so a few are enough; the journal has its own.
        connections: u32 = default("8"), within(2..=200);
        /// A reader's transaction that stays open longer is told of in the log, /status and the metrics: until it ends the WAL grows (SQLite),
        /// or dead rows stay (PostgreSQL). Longer than the longest report.
        reader_max: Duration = default("\"5m\""), within(seconds(1)..=days(1));
    }
}

section! {
    /// The sockets. They are apart so that the public one shows nothing but hooks.
    pub struct Listen {
        /// Public: receives hooks only. "systemd:hooks" takes the socket of that name from instep.socket, so that a restart refuses nobody.
        hooks: Listener = default("\"127.0.0.1:8710\"");
        /// Local: health, metrics, status. Off loopback it must have a token: { address = "10.0.3.7:8711", token = { credential = "admin-token" } }.
        admin: Admin = default("\"127.0.0.1:8711\""), guarded;
        /// Rows by their keys for applications, with tokens of theirs. "systemd:api" takes the socket of that name. A proxy ends TLS.
        api: Option<Api> = optional(API_EXAMPLE);
    }
}

section! {
    /// The admin socket.
    pub struct Admin [or address_alone] {
        /// Where it listens.
        address: Listener = required("\"10.0.3.7:8711\"");
        /// What callers must present; several while one replaces another. A socket of systemd is checked once it is there.
        token: Secrets = default("[]");
    }
}

section! {
    /// The API socket.
    pub struct Api {
        /// Where it listens.
        address: Listener = required("\"127.0.0.1:8712\"");
        /// Who may ask, each with tokens of its own.
        tokens: Vec<ApiToken> = required(TOKENS_EXAMPLE), named_once;
        /// How long a caller waits for a refresh or a version who does not say.
        timeout: Duration = default("\"10s\""), within(Duration::from_millis(100)..=seconds(15));
    }
}

section! {
    /// Somebody who may ask.
    pub struct ApiToken {
        /// What it is called in messages.
        name: String = required("\"portal\""), text(not_empty);
        /// What is borne; several while one replaces another.
        token: Secrets = required("{ credential = \"portal-token\" }"), some;
        /// What it is for: "read" rows and histories, "refresh" what costs a request upstream.
        scopes: Vec<ApiScope> = default("[\"read\"]");
        /// For which sources; not set: for all.
        sources: Option<Vec<String>> = optional("[\"pmp\"]");
    }
}

words! {
    /// What an API token is for.
    pub enum ApiScope {
        /// Rows and histories.
        Read = "read",
        /// What costs a request upstream.
        Refresh = "refresh",
    }
}

const TOKENS_EXAMPLE: &str =
    "[{ name = \"portal\", token = { credential = \"portal-token\" }, scopes = [\"read\", \"refresh\"], sources = [\"pmp\"] }]";
const API_EXAMPLE: &str = "{ address = \"127.0.0.1:8712\", tokens = [{ name = \"portal\", token = { credential = \"portal-token\" }, \
                           scopes = [\"read\", \"refresh\"], sources = [\"pmp\"] }] }";

section! {
    /// Caps on everything that could grow. Those on bodies and responses together bound the memory of the process.
    pub struct Limits {
        /// Largest hook body. The default is the connector's own (productive: 2MiB).
        hook_body: Option<Size> = optional("\"2MiB\""), if_set(within(Size::kib(1)..=Size::mib(64)));
        /// All hook bodies being received or waiting for their commit. Above it 503 with Retry-After.
        bodies_in_flight: Size = default("\"64MiB\""), within(Size::mib(1)..=Size::gib(4));
        /// Open connections on the public socket; a further one gets the place of the one that keeps us waiting longest.
        connections: u32 = default("1024"), within(1..=65_536);
        /// A client that has not sent its headers by then is idle or hostile.
        header_timeout: Duration = default("\"5s\""), within(Duration::from_millis(100)..=seconds(60));
        /// Headers of one request: hooks carry a few hundred bytes.
        header_bytes: Size = default("\"16KiB\""), within(Size::kib(8)..=Size::kib(256));
        /// For the whole body. With the time for the headers a slow connection is closed within 10 s.
        body_timeout: Duration = default("\"4s\""), within(Duration::from_millis(100)..=seconds(300));
        /// How long a stop waits for what is being answered; less than systemd's TimeoutStopSec.
        drain: Duration = default("\"20s\""), within(Duration::ZERO..=seconds(600));
        /// Deliveries waiting for the intake; above it hooks are answered with 429 or 503 and Retry-After, by the connector's policy.
        backlog: u64 = default("200_000"), within(10..=50_000_000);
        /// All upstream responses in memory; a fetch waits until there is room for the largest one allowed.
        responses_in_flight: Size = default("\"64MiB\""), within(Size::mib(1)..=Size::gib(4));
        /// Largest single upstream response: a page of 200 records with long texts stays far below.
        upstream_response: Size = default("\"32MiB\""), within(Size::kib(64)..=Size::gib(1));
        /// For one upstream request, from connecting to the last byte. Reports and wide pages take several seconds.
        upstream_timeout: Duration = default("\"30s\""), within(seconds(1)..=seconds(600));
        /// Upstream requests of one source at the same time.
        fetches: u32 = default("4"), within(1..=64);
    }
}

section! {
    /// How long and how much is kept. Every table has an end; what goes first is oldest.
    pub struct Retention {
        /// Deliveries that are done. Long enough to look into what happened during a holiday.
        deliveries: Duration = default("\"14d\""), within(Duration::ZERO..=days(3650));
        /// Rows of deliveries that are done.
        deliveries_rows: u64 = default("5_000_000"), within(1000..=10_000_000_000);
        /// The change feed. A reader that was away longer is told to start again.
        changes: Duration = default("\"90d\""), within(days(1)..=days(3650));
        /// Rows of the change feed.
        changes_rows: u64 = default("20_000_000"), within(1000..=10_000_000_000);
        /// What became of each event and why.
        outcomes: Duration = default("\"30d\""), within(Duration::ZERO..=days(3650));
        /// Rows of outcomes.
        outcomes_rows: u64 = default("10_000_000"), within(1000..=10_000_000_000);
        /// Skeletons of removed records (key, version, tick). Longer than any upstream retries, or a late hook would revive one.
        tombstones: Duration = default("\"90d\""), within(days(7)..=days(3650));
        /// Rows of removed records.
        tombstones_rows: u64 = default("10_000_000"), within(1000..=10_000_000_000);
        /// What could not be processed: time for a person to look at it and for a release that reads it.
        quarantine: Duration = default("\"90d\""), within(days(1)..=days(3650));
        /// Quarantined rows; over it the oldest body goes and a gap opens.
        quarantine_rows: u64 = default("100_000"), within(10..=100_000_000);
        /// Closed gaps, finished passes, answers at the door by the minute.
        history: Duration = default("\"90d\""), within(days(1)..=days(3650));
        /// Free space on the disk of a SQLite store below which hooks are answered 503, before the disk is full; passes stop at twice that.
        disk_floor: Size = default("\"1GiB\""), within(Size(0)..=Size::gib(1024));
    }
}

section! {
    /// What the daemon says on standard error. Bodies, tokens and signatures are never in it.
    pub struct Log {
        /// The least important level that is written.
        level: Level = default("\"info\"");
        /// "auto" is human on a terminal and JSON otherwise.
        format: LogFormat = default("\"auto\"");
    }
}

words! {
    /// How much is logged.
    pub enum Level {
        /// Only what needs a person.
        Error = "error",
        /// And what may need one.
        Warn = "warn",
        /// And what changed.
        Info = "info",
        /// And every decision.
        Debug = "debug",
        /// And every step.
        Trace = "trace",
    }
}

words! {
    /// How a log line is written.
    pub enum LogFormat {
        /// Human on a terminal, JSON otherwise.
        Auto = "auto",
        /// For reading.
        Human = "human",
        /// For collecting.
        Json = "json",
    }
}

/// Which database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// A file; relative ones are below the state directory.
    Sqlite(PathBuf),
    /// A server, without a password.
    Postgres(Url),
}

/// Where a socket comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listener {
    /// Bound by us; port 0 takes a free one.
    Tcp(SocketAddr),
    /// Passed by systemd under this `FileDescriptorName`.
    Systemd(String),
}

impl Store {
    /// The SQLite file as an absolute or working-directory path; none on PostgreSQL.
    #[must_use]
    pub fn sqlite_path(&self, state_directory: &Path) -> Option<PathBuf> {
        match &self.url {
            StoreUrl::Sqlite(path) => Some(state_directory.join(path)),
            StoreUrl::Postgres(_) => None,
        }
    }

    /// The URL for the database driver, with the password read from its place.
    ///
    /// # Errors
    /// When the password cannot be read.
    pub fn connection_url(&self, state_directory: &Path) -> Result<SecretText, SecretError> {
        match (&self.url, &self.password) {
            (StoreUrl::Sqlite(path), _) => Ok(SecretText::new(format!("sqlite://{}", state_directory.join(path).display()))),
            (StoreUrl::Postgres(url), None) => Ok(SecretText::new(url.as_str())),
            (StoreUrl::Postgres(url), Some(password)) => {
                // As a parameter, because a URL without a host (a Unix socket) cannot hold a password before it.
                let mut url = url.clone();
                url.query_pairs_mut().append_pair("password", password.read()?.expose());
                Ok(SecretText::new(String::from(url)))
            }
        }
    }
}

impl Listener {
    /// Whether only this machine can reach it. A socket of systemd is not known before it is there.
    fn may_be_remote(&self) -> bool {
        matches!(self, Self::Tcp(address) if !address.ip().is_loopback())
    }
}

impl Value for StoreUrl {
    fn read(item: &Item<'_>) -> Option<Self> {
        const WANTED: &str = "must be sqlite://file.db, sqlite:///absolute/file.db or postgresql://…";
        let text = item.text("a database URL in quotes")?;
        if let Some(path) = text.strip_prefix("sqlite://") {
            return match path {
                "" => item.mistake(WANTED),
                _ if path.contains(['?', '#']) => item.mistake("a sqlite URL takes no parameters: the daemon sets what it relies on"),
                _ => Some(Self::Sqlite(PathBuf::from(path))),
            };
        }
        match Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "postgresql" | "postgres") => {
                if url.password().is_some() || url.query_pairs().any(|(name, _)| name == "password") {
                    return item.mistake("must hold no password; write store.password = { credential = \"name\" }");
                }
                // A password with an unescaped #, ? or / moves the border of the host and stands behind it.
                if url.fragment().is_some() || url[url::Position::BeforePath..].contains('@') {
                    return item.mistake("must hold neither # nor an @ behind the host, as a password written into it would");
                }
                Some(Self::Postgres(url))
            }
            _ => item.mistake(WANTED),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Sqlite(path) => quoted(&format!("sqlite://{}", path.display())),
            Self::Postgres(url) => quoted(url.as_str()),
        }
    }
}

impl Value for Listener {
    fn read(item: &Item<'_>) -> Option<Self> {
        let text = item.text("an address such as \"127.0.0.1:8710\" or \"systemd:hooks\"")?;
        match (text.strip_prefix("systemd:"), text.parse()) {
            (Some(""), _) => item.mistake("must name the socket, such as \"systemd:hooks\""),
            (Some(name), _) => Some(Self::Systemd(name.to_owned())),
            (None, Ok(address)) => Some(Self::Tcp(address)),
            (None, Err(_)) => item.mistake("must be an IP address with a port, such as \"127.0.0.1:8710\", or \"systemd:hooks\""),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Tcp(address) => quoted(&address.to_string()),
            Self::Systemd(name) => quoted(&format!("systemd:{name}")),
        }
    }
}

fn address_alone(item: &Item<'_>) -> Option<Option<Admin>> {
    if item.get().is_table() {
        return None;
    }
    let address = Listener::read(item);
    Some(address.map(|address| {
        let admin = Admin { address, token: Secrets::default() };
        item.record("address", admin.address.show());
        item.record("token", admin.token.show());
        admin
    }))
}

fn guarded(admin: &Admin) -> Result<(), String> {
    match admin.address.may_be_remote() && admin.token.0.is_empty() {
        true => {
            Err("other machines can reach it: it must have a token, { address = \"…\", token = { credential = \"admin-token\" } }"
                .to_owned())
        }
        false => Ok(()),
    }
}

fn some(token: &Secrets) -> Result<(), String> {
    if token.0.is_empty() { Err("must be at least one".to_owned()) } else { Ok(()) }
}

#[expect(clippy::ptr_arg, reason = "a check gets the value as its type is")]
fn named_once(tokens: &Vec<ApiToken>) -> Result<(), String> {
    let twice = tokens.iter().enumerate().find(|(at, one)| tokens[..*at].iter().any(|other| other.name == one.name));
    match (tokens.is_empty(), twice) {
        (true, _) => Err("must hold at least one".to_owned()),
        (false, Some((_, one))) => Err(format!("holds the name `{}` twice", one.name)),
        (false, None) => Ok(()),
    }
}

fn not_empty(text: &str) -> Result<(), String> {
    match text.is_empty() {
        true => Err("must not be empty".to_owned()),
        false => Ok(()),
    }
}

/// Plain names only: a role is written into `GRANT`, and nothing else should be writable there.
fn role_name(role: &str) -> Result<(), String> {
    let plain = role.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    match plain && (1..=63).contains(&role.len()) {
        true => Ok(()),
        false => Err(format!("{role:?} is not a role name: letters, digits, _, - and ., at most 63")),
    }
}

/// Keys of the sections above, for the example file.
pub(super) const SECTIONS: [(&str, &[Key]); 5] =
    [("store", Store::KEYS), ("listen", Listen::KEYS), ("limits", Limits::KEYS), ("retention", Retention::KEYS), ("log", Log::KEYS)];
