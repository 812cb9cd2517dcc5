//! `instep init`: asks for the little that has no default and writes a commented file.

use std::fs::OpenOptions;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::config::{self, Config, KINDS, Secret};

/// sysexits: what was given or answered cannot be used.
const EX_USAGE: u8 = 64;
/// sysexits: the file cannot be made, or is there already.
const EX_CANTCREAT: u8 = 73;

/// Arguments of `instep init`. What is not given is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  instep init productive\n  \
    instep init productive --yes --organization 12345 --token env:PRODUCTIVE_TOKEN --config instep.toml\n  \
    instep init akeneo --yes --url https://acme.cloud.akeneo.com --client-id 3_x --username shop_1234 \
    --secret env:PIM_SECRET --password env:PIM_PASSWORD\n  \
    instep init reso --yes --url https://api.mls.example/odata/ --token env:MLS_TOKEN")]
pub struct Args {
    /// Kind of upstream
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(KINDS))]
    pub kind: String,
    /// File to write; never overwritten
    #[arg(long, short, value_name = "FILE", env = "INSTEP_CONFIG", default_value = "instep.toml")]
    pub config: PathBuf,
    /// Name of the source, the first part of its views' names
    #[arg(long)]
    pub name: Option<String>,
    /// Productive: number of the organisation
    #[arg(long, value_name = "NUMBER")]
    pub organization: Option<String>,
    /// Productive, RESO: where the read-only token is: env:NAME, file:/path or credential:name
    #[arg(long, value_name = "PLACE")]
    pub token: Option<String>,
    /// Akeneo: address of the PIM; RESO: service root of the server
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Akeneo, RESO: client id of the connection
    #[arg(long, value_name = "ID")]
    pub client_id: Option<String>,
    /// Akeneo: user of the connection
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,
    /// Akeneo, RESO: where the secret of the connection is: env:NAME, file:/path or credential:name
    #[arg(long, value_name = "PLACE")]
    pub secret: Option<String>,
    /// Akeneo: where the password of its user is
    #[arg(long, value_name = "PLACE")]
    pub password: Option<String>,
    /// RESO: where a client asks for tokens: an address, or a path on the server
    #[arg(long, value_name = "URL")]
    pub token_url: Option<String>,
    /// Database: sqlite://file.db or postgresql://host/database
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// Address under which the upstream reaches this machine; empty to poll only
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
    /// Take the defaults instead of asking
    #[arg(long, short)]
    pub yes: bool,
}

/// Why no file was written.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0} is not known: give --{0}")]
    Missing(&'static str),
    #[error("{0}")]
    Name(String),
    #[error("the organisation must be a number")]
    Organization,
    #[error("a secret must be given as env:NAME, file:/path or credential:name, never itself")]
    Secret,
    #[error("{0}")]
    Config(#[from] config::Error),
    #[error("{path} is there already and is not overwritten")]
    Exists { path: PathBuf },
    #[error("{path} cannot be written: {error}")]
    Unwritable { path: PathBuf, error: io::Error },
    #[error("the terminal cannot be used: {0}")]
    Terminal(#[from] io::Error),
}

impl Error {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Missing(_) | Self::Name(_) | Self::Organization | Self::Secret | Self::Config(_) => EX_USAGE,
            Self::Exists { .. } | Self::Unwritable { .. } | Self::Terminal(_) => EX_CANTCREAT,
        }
    }
}

/// Writes the file. Exit code 0; 64 when an answer is missing or wrong; 73 when the file is there already or cannot be made.
pub fn run(args: &Args) -> ExitCode {
    match init(args, &mut io::stdin().lock(), &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do when standard error is closed; the exit code still tells.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn init(args: &Args, answers: &mut impl BufRead, out: &mut impl Write) -> Result<(), Error> {
    if args.config.exists() {
        return Err(Error::Exists { path: args.config.clone() });
    }
    let text = {
        let mut ask = |given: &Option<String>, name, question: &str, default: Option<&str>| match given {
            Some(given) => Ok(given.clone()),
            None if args.yes => default.map(str::to_owned).ok_or(Error::Missing(name)),
            None => ask(answers, out, name, question, default),
        };
        let source = ask(&args.name, "name", "Name of the source, the first part of its views' names", Some(&args.kind))?;
        config::check_name(&source).map_err(Error::Name)?;
        let settings = match args.kind.as_str() {
            "akeneo" => {
                let url = ask(&args.url, "url", "Address of the PIM", None)?;
                let client_id = ask(&args.client_id, "client-id", "Client id of a connection that may read everything", None)?;
                let secret = "Where the connection's secret is (env:NAME, file:/path or credential:name)";
                let secret = place(&ask(&args.secret, "secret", secret, None)?)?;
                let username = ask(&args.username, "username", "User of the connection", None)?;
                let password = place(&ask(&args.password, "password", "Where the password of that user is", None)?)?;
                akeneo(&url, &client_id, &secret, &username, &password)
            }
            "reso" => {
                let url = ask(&args.url, "url", "Service root of the server", None)?;
                let client_id = ask(&args.client_id, "client-id", "Client id, empty where a token is given that lasts", Some(""))?;
                let auth = if client_id.is_empty() {
                    let token = "Where its token is (env:NAME, file:/path or credential:name)";
                    format!("{{ token = {} }}", place(&ask(&args.token, "token", token, None)?)?.reference())
                } else {
                    let secret = "Where the client's secret is (env:NAME, file:/path or credential:name)";
                    let secret = place(&ask(&args.secret, "secret", secret, None)?)?.reference();
                    let token_url = ask(&args.token_url, "token-url", "Where it asks for tokens", Some("/oauth2/token"))?;
                    let (client_id, token_url) = (config::quoted(&client_id), config::quoted(&token_url));
                    format!("{{ client_id = {client_id}, secret = {secret}, token_url = {token_url} }}")
                };
                reso(&url, &auth)
            }
            _ => {
                let organization = ask(&args.organization, "organization", "Number of the organisation", None)?;
                let token = "Where its read-only token is (env:NAME, file:/path or credential:name)";
                let token = place(&ask(&args.token, "token", token, None)?)?;
                productive(organization.parse().map_err(|_| Error::Organization)?, &token)
            }
        };
        let store = ask(&args.store, "store", "Database (sqlite://file.db or postgresql://host/database)", Some("sqlite://replica.db"))?;
        let public_url = "Address under which the upstream reaches this machine, empty to poll only";
        let public_url = ask(&args.public_url, "public-url", public_url, Some(""))?;
        render(&source, &settings, &store, &public_url)
    };
    // The file must be right before it is there.
    Config::parse(&args.config.display().to_string(), &text)?;
    write_new(&args.config, &text)?;
    let path = args.config.display();
    writeln!(out, "{path} is written. Next: instep check --config {path}, then instep run --config {path}")?;
    Ok(())
}

/// One question; an empty answer or the end of the input takes the default.
fn ask(
    answers: &mut impl BufRead,
    out: &mut impl Write,
    name: &'static str,
    question: &str,
    default: Option<&str>,
) -> Result<String, Error> {
    match default {
        Some(default) if !default.is_empty() => write!(out, "{question} [{default}]: ")?,
        _ => write!(out, "{question}: ")?,
    }
    out.flush()?;
    let mut answer = String::new();
    answers.read_line(&mut answer)?;
    match (answer.trim(), default) {
        ("", Some(default)) => Ok(default.to_owned()),
        ("", None) => Err(Error::Missing(name)),
        (answer, _) => Ok(answer.to_owned()),
    }
}

fn place(text: &str) -> Result<Secret, Error> {
    match text.split_once(':') {
        Some(("env", name)) => Ok(Secret::env(name)),
        Some(("file", path)) => Ok(Secret::file(path)),
        Some(("credential", name)) => Ok(Secret::credential(name)),
        _ => Err(Error::Secret),
    }
}

fn productive(organization: u64, token: &Secret) -> String {
    format!(
        "\
kind = \"productive\"
organization = {organization}
# Read-only token of a user who sees everything: the replica holds what its user may see.
token = {}
# For webhooks: a token that may manage them, and the address under which Productive reaches this machine.
# Without these two the source is polled.
# manage_token = {{ credential = \"productive-write\" }}",
        token.reference()
    )
}

fn akeneo(url: &str, client_id: &str, secret: &Secret, username: &str, password: &Secret) -> String {
    let (url, client_id, username) = (config::quoted(url), config::quoted(client_id), config::quoted(username));
    format!(
        "\
kind = \"akeneo\"
url = {url}
# A connection that may read everything: the replica holds what its user may see.
auth = {{ client_id = {client_id}, secret = {}, username = {username}, password = {} }}
# Zone of the PIM's server, \"UTC\" for SaaS.
zone = \"UTC\"
# What is signed with which secret, one or both of the event systems; and the address under which they reach this machine.
# Without these the source is polled.
# events_api = {{ secrets = [{{ credential = \"pim-events-secret\" }}] }}
# event_platform = {{ secrets = [{{ credential = \"pim-ep-primary\" }}] }}",
        secret.reference(),
        password.reference()
    )
}

fn reso(url: &str, auth: &str) -> String {
    format!(
        "\
kind = \"reso\"
url = {}
auth = {auth}
# Whose server it is: \"plain\" for any of the standard, \"mlsgrid\", \"bridge\", \"trestle\", \"spark\".
profile = \"plain\"
# originating_system = \"actris\"
# For pushed events, with public_url: producers are invited by `instep hooks invite`. Without it the log of events is polled.
# push = {{ label = \"mls-prod\" }}",
        config::quoted(url)
    )
}

fn render(source: &str, settings: &str, store: &str, public_url: &str) -> String {
    let public_url = match public_url {
        "" => "# public_url = \"https://hooks.example.org\"".to_owned(),
        url => format!("public_url = {}", config::quoted(url)),
    };
    format!(
        "\
# Every key and its default: instep.example.toml. What holds: `instep check --print`.

[store]
# A relative file is below $STATE_DIRECTORY, else below the working directory.
url = {store}

[listen]
# Public, for hooks only; let a proxy end TLS in front of it.
hooks = \"127.0.0.1:8710\"
# Local: health, metrics, status.
admin = \"127.0.0.1:8711\"

[sources.{source}]
{settings}
{public_url}
# What to replicate: \"all\", a list of names, or a table with settings for each.
resources = \"all\"
",
        store = config::quoted(store),
    )
}

fn write_new(path: &Path, text: &str) -> Result<(), Error> {
    let written = OpenOptions::new().write(true).create_new(true).open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists { path: path.to_owned() },
        _ => Error::Unwritable { path: path.to_owned(), error },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(directory: &Path) -> Args {
        Args {
            kind: "productive".to_owned(),
            config: directory.join("instep.toml"),
            name: None,
            organization: None,
            token: None,
            url: None,
            client_id: None,
            username: None,
            secret: None,
            password: None,
            token_url: None,
            store: None,
            public_url: None,
            yes: false,
        }
    }

    #[test]
    fn answers_make_a_file_that_our_own_loader_reads() {
        let directory = tempfile::tempdir().expect("a directory");
        let args = args(directory.path());
        let mut answers = "pmp\n12345\nenv:PRODUCTIVE_TOKEN\n\nhttps://hooks.example.org\n".as_bytes();
        let mut out = Vec::new();
        init(&args, &mut answers, &mut out).unwrap_or_else(|error| panic!("{error}"));
        let config = Config::load(&args.config).unwrap_or_else(|error| panic!("{error}"));
        let source = &config.sources["pmp"];
        let productive = source.productive().expect("a productive source");
        assert_eq!(productive.organization, 12345);
        assert_eq!(productive.token, Secret::env("PRODUCTIVE_TOKEN"));
        assert!(source.common.public_url.is_some());
        assert!(String::from_utf8_lossy(&out).contains("[sqlite://replica.db]: "), "the default is offered");

        let before = std::fs::read_to_string(&args.config).expect("it is there");
        let error = init(&args, &mut "other\n".as_bytes(), &mut Vec::new()).expect_err("the file is there");
        assert_eq!(error.exit_code(), EX_CANTCREAT);
        assert_eq!(std::fs::read_to_string(&args.config).expect("it is there"), before);
    }

    #[test]
    fn flags_are_enough() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut args = args(directory.path());
        args.yes = true;
        args.organization = Some("7".to_owned());
        let error = init(&args, &mut io::empty(), &mut Vec::new()).expect_err("there is no token");
        assert_eq!((error.exit_code(), error.to_string().as_str()), (EX_USAGE, "token is not known: give --token"));
        args.token = Some("credential:productive-read".to_owned());
        init(&args, &mut io::empty(), &mut Vec::new()).unwrap_or_else(|error| panic!("{error}"));
        let config = Config::load(&args.config).unwrap_or_else(|error| panic!("{error}"));
        assert!(config.sources["productive"].common.public_url.is_none());
    }

    #[test]
    fn a_pim_is_asked_for_what_it_needs() {
        let directory = tempfile::tempdir().expect("a directory");
        let args = Args { kind: "akeneo".to_owned(), ..args(directory.path()) };
        let mut answers = "pim\nhttps://acme.cloud.akeneo.com\n3_x\nenv:PIM_SECRET\nshop_1234\nfile:/run/password\n\n\n".as_bytes();
        init(&args, &mut answers, &mut Vec::new()).unwrap_or_else(|error| panic!("{error}"));
        let config = Config::load(&args.config).unwrap_or_else(|error| panic!("{error}"));
        let config::Connector::Akeneo(settings, _) = &config.sources["pim"].connector else { panic!("another kind") };
        assert_eq!(settings.auth.secret, Some(Secret::env("PIM_SECRET")));
        assert_eq!((settings.auth.username.as_deref(), settings.url.as_str()), (Some("shop_1234"), "https://acme.cloud.akeneo.com/"));
    }

    #[test]
    fn a_server_of_the_standard_is_asked_for_by_token_or_client() {
        let settings = |answers: &str| {
            let directory = tempfile::tempdir().expect("a directory");
            let args = Args { kind: "reso".to_owned(), ..args(directory.path()) };
            init(&args, &mut answers.as_bytes(), &mut Vec::new()).unwrap_or_else(|error| panic!("{error}"));
            let config = Config::load(&args.config).unwrap_or_else(|error| panic!("{error}"));
            let config::Connector::Reso(settings, _) = &config.sources["mls"].connector else { panic!("another kind") };
            (**settings).clone()
        };
        let by_token = settings("mls\nhttps://api.mls.example/odata\n\nenv:MLS_TOKEN\n\n\n");
        assert_eq!((by_token.auth.token, by_token.url.as_str()), (Some(Secret::env("MLS_TOKEN")), "https://api.mls.example/odata/"));
        let by_client = settings("mls\nhttps://api.mls.example/odata/\ninstep\nenv:MLS_SECRET\n\n\n\n");
        assert_eq!((by_client.auth.client_id.as_deref(), by_client.auth.token_url.as_deref()), (Some("instep"), Some("/oauth2/token")));
    }

    #[test]
    fn wrong_answers_write_nothing() {
        for (organization, token, store) in [
            ("acme", "env:TOKEN", "sqlite://x.db"),
            ("7", "8f3a-the-token-itself", "sqlite://x.db"),
            ("7", "file:relative", "sqlite://x.db"),
            ("7", "env:TOKEN", "mysql://db"),
        ] {
            let directory = tempfile::tempdir().expect("a directory");
            let mut args = args(directory.path());
            (args.organization, args.token, args.store, args.yes) =
                (Some(organization.to_owned()), Some(token.to_owned()), Some(store.to_owned()), true);
            let error = init(&args, &mut io::empty(), &mut Vec::new()).expect_err("an answer is wrong");
            assert_eq!(error.exit_code(), EX_USAGE, "{error}");
            assert!(!error.to_string().contains("8f3a"), "{error}");
            assert!(!args.config.exists());
        }
    }
}
