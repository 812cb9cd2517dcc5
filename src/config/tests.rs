//! Whole files, as people write them.

use std::collections::BTreeSet;
use std::time::Duration;

use super::schema::Key;
use super::source::{KIND, RESOURCES};
use super::value::Value;
use super::*;
use crate::clock::Daily;

mod akeneo;
mod api;
mod reso;

const PMP: &str = r#"
[sources.pmp]
kind = "productive"
organization = 12345
token = { credential = "productive-read" }
"#;

fn parse(text: &str) -> Config {
    Config::parse("instep.toml", text).unwrap_or_else(|error| panic!("{error}"))
}

fn mistakes(text: &str) -> Vec<(usize, usize, String, String)> {
    let error = Config::parse("instep.toml", text).expect_err("the text has mistakes");
    error.mistakes.into_iter().map(|m| (m.line, m.column, m.key, m.message)).collect()
}

fn only_mistake(text: &str) -> (usize, usize, String, String) {
    let mut found = mistakes(text);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn an_empty_file_holds_the_defaults() {
    let config = parse("");
    assert_eq!(config.store.url, StoreUrl::Sqlite("replica.db".into()));
    assert_eq!(config.listen.hooks, Listener::Tcp("127.0.0.1:8710".parse().expect("an address")));
    assert_eq!(config.limits.bodies_in_flight, Size::mib(64));
    assert_eq!(config.limits.hook_body, None);
    assert_eq!(config.retention.deliveries, Duration::from_secs(14 * 86_400));
    assert_eq!(config.log.format, LogFormat::Auto);
    assert!(config.sources.is_empty());
    assert!(config.entries.iter().all(|entry| entry.file.is_none()));
}

#[test]
fn the_portal_file_works_as_its_author_wrote_it() {
    let config = parse(
        r#"
[store]
url = "postgresql:///pmp?host=/run/postgresql"
grant = ["pmp_portal"]
[listen]
hooks = "127.0.0.1:8710"
admin = "127.0.0.1:8711"
[sources.pmp]
kind = "productive"
organization = 12345
token = { credential = "productive-read" }
manage_token = { credential = "productive-write" }
public_url = "https://hooks.pmp.example.nl"
quota_share = 0.6
exclude = ["/attributes/cost*", "/attributes/hrm_type_id"]
keep_deleted = "30d"
[sources.pmp.resources]
projects = { include = ["company"], sweep = "6h" }
tasks = { include = ["project", "task_list", "assignee", "workflow_status"], poll = "1m", sweep = "24h" }
comments = { poll = "30s" }
people = { keep_deleted = "0d" }
time_entries = { poll = "5m" }
workflow_statuses = {}
custom_fields = {}
"#,
    );
    let source = &config.sources["pmp"];
    let productive = source.productive().expect("a productive source");
    assert_eq!(productive.quota_share, QuotaShare { token: 0.6, organization: 0.6 });
    assert_eq!(productive.organization, 12345);
    assert_eq!(productive.url.as_str(), "https://api.productive.io/api/v2/");
    assert_eq!(source.common.public_url.as_ref().map(url::Url::as_str), Some("https://hooks.pmp.example.nl/"));
    assert_eq!(source.resources.len(), 7);
    assert_eq!(source.resources["projects"].sweep, Duration::from_secs(6 * 3600));
    assert_eq!(source.keep_deleted("people"), Duration::ZERO);
    assert_eq!(source.keep_deleted("tasks"), Duration::from_secs(30 * 86_400));
    assert_eq!(config.store.connection_url(Path::new("/state")).expect("no password").expose(), "postgresql:///pmp?host=/run/postgresql");
}

#[test]
fn the_long_running_file_works_as_its_author_wrote_it() {
    let config = parse(
        r#"
[store]
url = "sqlite:///var/lib/instep/replica.db"
read_group = "instep-read"
[listen]
hooks = "systemd:hooks"
admin = { address = "10.0.3.7:8711", token = { credential = "admin-token" } }
[limits]
hook_body = "8MiB"
backlog = 200_000
[retention]
deliveries = "14d"
changes = "90d"
outcomes = "30d"
disk_floor = "2GiB"
"#,
    );
    assert_eq!(config.store.sqlite_path(Path::new("/elsewhere")), Some("/var/lib/instep/replica.db".into()));
    assert_eq!(config.listen.hooks, Listener::Systemd("hooks".to_owned()));
    assert_eq!(config.listen.admin.token, Secrets(vec![Secret::credential("admin-token")]));
    assert_eq!(config.limits.hook_body, Some(Size::mib(8)));
    assert_eq!(config.retention.disk_floor, Size::gib(2));
}

#[test]
fn all_mistakes_are_found_in_one_pass() {
    let text = r#"[limits]
conections = 5
header_timeout = 30
[retention]
changes = "1h"
[sources.pmp]
kind = "productive"
organization = 12345
token = "4f1c-not-a-place"
zone = "UTC"
[sources.pmp.resources]
taks = {}
"#;
    let found = mistakes(text);
    let places: Vec<(usize, usize, &str)> = found.iter().map(|(line, column, key, _)| (*line, *column, key.as_str())).collect();
    assert_eq!(
        places,
        [
            (2, 1, "limits.conections"),
            (3, 18, "limits.header_timeout"),
            (5, 11, "retention.changes"),
            (9, 9, "sources.pmp.token"),
            (10, 1, "sources.pmp.zone"),
            (12, 1, "sources.pmp.resources.taks"),
        ]
    );
    let messages: Vec<&str> = found.iter().map(|(.., message)| message.as_str()).collect();
    assert_eq!(messages[0], "unknown key, did you mean `connections`?");
    assert!(messages[1].starts_with("must be a duration in quotes"), "{}", messages[1]);
    assert_eq!(messages[2], "must be between \"1d\" and \"3650d\"");
    assert!(messages[3].contains("{ env = \"NAME\" }"), "{}", messages[3]);
    assert_eq!(messages[4], "this key belongs to a source of kind \"akeneo\"");
    assert_eq!(messages[5], "unknown resource, did you mean `tasks`?");
    assert!(!found.iter().any(|(.., message)| message.contains("4f1c")), "a secret written by mistake is not repeated");
}

#[test]
fn every_syntax_error_is_found_too() {
    let found = mistakes("[limits]\nbacklog = \n[log]\nlevel = info\n");
    let lines: BTreeSet<usize> = found.iter().map(|(line, ..)| *line).collect();
    assert_eq!(lines, BTreeSet::from([2, 4]), "{found:?}");
}

#[test]
fn columns_count_characters() {
    let (line, column, key, _) = only_mistake("store = { read_group = \"équipe\", connections = 0 }");
    assert_eq!((line, column, key.as_str()), (1, 48, "store.connections"));
}

#[test]
fn missing_keys_are_asked_for_where_their_table_stands() {
    let found = mistakes("\n[sources.pmp]\nkind = \"productive\"\n");
    let keys: Vec<(usize, &str)> = found.iter().map(|(line, _, key, _)| (*line, key.as_str())).collect();
    assert_eq!(keys, [(2, "sources.pmp.organization"), (2, "sources.pmp.token")]);
    assert_eq!(found[0].3, "is required and missing; for example `organization = 12345`");
}

#[test]
fn kinds_and_names_are_checked() {
    let (line, _, key, message) = only_mistake("[sources.shop]\nkind = \"shopify\"\nshop = \"acme\"\n");
    assert_eq!((line, key.as_str()), (2, "sources.shop.kind"));
    assert!(message.contains("not built into this version"), "{message}");
    let (.., message) = only_mistake("[sources.pmp]\nkind = \"productiv\"\n");
    assert_eq!(message, "unknown kind, did you mean `productive`?");
    for name in ["Pmp", "1pmp", "p-mp", "instep", "a234567890123456789012345678901x"] {
        let (line, ..) = only_mistake(&PMP.replace("pmp", name));
        assert_eq!(line, 2, "{name}");
    }
    parse(&PMP.replace("pmp", "a23456789012345678901234567890_"));
}

#[test]
fn what_must_not_be_public_is_refused() {
    let (_, _, key, message) = only_mistake("[listen]\nadmin = \"0.0.0.0:8711\"\n");
    assert_eq!(key, "listen.admin");
    assert!(message.contains("must have a token"), "{message}");
    let (.., message) = only_mistake("[listen]\nadmin = \"127.0.0.1:8710\"\n");
    assert_eq!(message, "hooks and admin must be two sockets");
    let (.., message) = only_mistake(&format!("{PMP}url = \"http://api.example.org/\"\n"));
    assert!(message.contains("https://"), "{message}");
    parse(&format!("{PMP}url = \"http://127.0.0.1:9000/api/v2\"\n"));
    let (.., message) = only_mistake("[store]\nurl = \"postgresql://instep:hunter2@db/pmp\"\n");
    assert!(message.contains("store.password") && !message.contains("hunter2"), "{message}");
    // What the characters of a password can do to a URL that is not escaped.
    for password in ["12#hunter2", "12/hunter2", "12?hunter2", "#hunter2", "/hunter2"] {
        let (.., message) = only_mistake(&format!("[store]\nurl = \"postgresql://instep:{password}@db/pmp\"\n"));
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn every_secret_is_known_by_its_type() {
    let found = example::secrets("productive");
    let known = ["store.password", "listen.admin.token", "sources.<name>.token", "sources.<name>.manage_token", "sources.<name>.secrets"];
    assert_eq!(found, known);
    // What the example shows as a secret's place is one of them, but for those in lists of tables, which are not declared key by key.
    let example = example::text();
    let (example, _) = example.split_once("# [sources.pim]").expect("the example of another kind follows");
    for line in example.lines().filter(|line| line.contains("= { credential =") && !line.contains("admin") && !line.contains("portal")) {
        let key = line.trim_start_matches("# ").split(' ').next().unwrap_or_default();
        assert!(found.iter().any(|secret| secret.ends_with(&format!(".{key}"))) || line.contains("A secret is never"), "{line}");
    }
}

#[test]
fn resources_may_be_all_a_list_or_a_table() {
    assert_eq!(parse(PMP).sources["pmp"].resources.len(), PRODUCTIVE_RESOURCES.len());
    let listed = parse(&format!("{PMP}resources = [\"tasks\", \"people\"]\n"));
    let names: Vec<&str> = listed.sources["pmp"].resources.keys().map(String::as_str).collect();
    assert_eq!(names, ["people", "tasks"]);
    let (_, _, key, message) = only_mistake(&format!("{PMP}resources = [\"tasks\", \"poeple\"]\n"));
    assert_eq!((key.as_str(), message.as_str()), ("sources.pmp.resources[1]", "unknown resource, did you mean `people`?"));
    only_mistake(&format!("{PMP}resources = 5\n"));
}

#[test]
fn sweeps_may_have_a_time_of_day() {
    let config = parse(&format!("{PMP}sweep_at = \"03:00\"\nsweep_zone = \"Europe/Amsterdam\"\n"));
    let common = &config.sources["pmp"].common;
    let daily = Daily::parse(common.sweep_at.as_deref().expect("it was written"), &common.sweep_zone);
    assert!(daily.is_some(), "what is accepted can be followed");
    for line in ["sweep_at = \"3 o'clock\"", "sweep_at = \"24:00\"", "sweep_at = \"+3:00\"", "sweep_zone = \"Europe/Middelburg\""] {
        let (_, _, key, message) = only_mistake(&format!("{PMP}{line}\n"));
        assert!(key.starts_with("sources.pmp.sweep_") && message.contains("such as"), "{line}: {key}: {message}");
    }
}

#[test]
fn quotas_may_be_replaced() {
    let config =
        parse(&format!("{PMP}quota = [{{ requests = 100, per = \"10s\" }}, {{ concurrent = 8 }}]\nquota_share = {{ token = 1 }}\n"));
    let productive = config.sources["pmp"].productive().expect("a productive source").clone();
    let quota = productive.quota.expect("it was written");
    assert_eq!((quota[0].requests, quota[0].per), (Some(100), Some(Duration::from_secs(10))));
    assert_eq!((quota[1].concurrent, quota[1].scope), (Some(8), QuotaScope::Token));
    assert_eq!(productive.quota_share, QuotaShare { token: 1.0, organization: 0.6 });
    let (.., message) = only_mistake(&format!("{PMP}quota = [{{ requests = 100 }}]\n"));
    assert!(message.contains("{ requests, per }"), "{message}");
}

#[test]
fn included_files_bring_sources_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("a file");
    std::fs::create_dir(directory.path().join("sources.d")).expect("a directory");
    write("instep.toml", "include = [\"sources.d/*.toml\"]\n[log]\nlevel = \"warn\"\n");
    write("sources.d/b.toml", &PMP.replace("pmp", "second"));
    write("sources.d/a.toml", PMP);
    write("sources.d/.hidden.toml", "nonsense");
    write("sources.d/a.toml.bak", "nonsense");
    let config = Config::load(&directory.path().join("instep.toml")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.sources.keys().collect::<Vec<_>>(), ["pmp", "second"]);
    let entry = config.entries.iter().find(|entry| entry.key == "sources.second.organization").expect("it is set");
    assert!(entry.file.as_deref().is_some_and(|file| file.ends_with("sources.d/b.toml")), "{entry:?}");
    assert_eq!(entry.line, Some(4));

    write("sources.d/b.toml", &format!("[log]\nlevel = \"info\"\n{PMP}"));
    let error = Config::load(&directory.path().join("instep.toml")).expect_err("two mistakes");
    let found: Vec<(usize, &str)> = error.mistakes.iter().map(|m| (m.line, m.key.as_str())).collect();
    assert_eq!(found, [(1, "log"), (4, "sources.pmp")]);
    assert!(error.mistakes[1].message.contains("sources.d/a.toml:2"), "{error}");

    write("instep.toml", "include = [\"nowhere.toml\", \"*/x.toml\"]\n");
    let error = Config::load(&directory.path().join("instep.toml")).expect_err("neither can be read");
    assert_eq!(error.mistakes.iter().map(|m| m.key.as_str()).collect::<Vec<_>>(), ["include[0]", "include[1]"]);
}

#[test]
fn a_file_that_is_not_there_is_a_mistake_too() {
    let error = Config::load(Path::new("/nowhere/instep.toml")).expect_err("there is no such file");
    assert_eq!(error.mistakes.len(), 1);
    assert!(error.to_string().starts_with("/nowhere/instep.toml: cannot be read"), "{error}");
}

#[test]
fn secrets_are_read_when_needed_and_never_printed() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("token");
    std::fs::write(&file, "s3cr3t-in-file\n").expect("a file");
    let environment = |name: &str| match name {
        "PMP_TOKEN" => Some("s3cr3t-in-env\r\n".to_owned()),
        "CREDENTIALS_DIRECTORY" => Some(directory.path().display().to_string()),
        "BLANK" => Some("\n".to_owned()),
        _ => None,
    };
    let read = |secret: &Secret| secret.read_in(&environment).map(|text| text.expose().to_owned());
    assert_eq!(read(&Secret::env("PMP_TOKEN")).ok().as_deref(), Some("s3cr3t-in-env"));
    assert_eq!(read(&Secret::file(&file)).ok().as_deref(), Some("s3cr3t-in-file"));
    assert_eq!(read(&Secret::credential("token")).ok().as_deref(), Some("s3cr3t-in-file"));
    std::fs::write(&file, "rotated").expect("a file");
    assert_eq!(read(&Secret::credential("token")).ok().as_deref(), Some("rotated"));
    assert!(matches!(read(&Secret::env("BLANK")), Err(SecretError::Empty(_))));
    assert!(matches!(read(&Secret::env("MISSING")), Err(SecretError::NoVariable(_))));
    assert!(matches!(Secret::credential("token").read_in(&|_| None), Err(SecretError::NoCredentials(_))));
    std::fs::write(&file, vec![b'x'; 65 * 1024]).expect("a file");
    assert!(matches!(read(&Secret::file(&file)), Err(SecretError::TooLong(_))));

    let text = SecretText::new("s3cr3t");
    assert_eq!(format!("{text} {text:?} {text:#?}"), "*** *** ***");
    assert_eq!(serde_json::to_string(&text).ok().as_deref(), Some("\"***\""));
    let config = parse(&format!("{PMP}secrets = [{{ env = \"NEW\" }}, {{ file = \"/run/old\" }}]\n"));
    assert!(!format!("{:?}", config.sources).contains("productive-read"), "{:?}", config.sources);
    let shown = config.entries.iter().find(|entry| entry.key == "sources.pmp.secrets").and_then(|entry| entry.value.as_deref());
    assert_eq!(shown, Some("[{ env = \"NEW\" }, { file = \"/run/old\" }]"));
}

#[test]
fn wrong_references_to_secrets_are_refused() {
    for token in ["{}", "{ env = \"\" }", "{ env = \"A\", file = \"/b\" }", "{ file = \"relative\" }", "{ credential = \"../x\" }", "[]"] {
        let text = PMP.replace("{ credential = \"productive-read\" }", token);
        assert_eq!(only_mistake(&text).0, 5, "{token}");
    }
    let found = mistakes(&PMP.replace("credential", "credentials"));
    assert_eq!(found[0].3, "unknown key, did you mean `credential`?");
}

#[test]
fn units_are_read_and_shown() {
    let shown = |key: &str, text: &str| -> Result<String, Error> {
        let (table, key) = key.split_once('.').expect("a table and a key");
        let config = Config::parse("x", &format!("[{table}]\n{key} = {text}\n"))?;
        let path = format!("{table}.{key}");
        Ok(config.entries.into_iter().find(|entry| entry.key == path).and_then(|entry| entry.value).expect("it is shown"))
    };
    for (key, written, expected) in [
        ("limits.header_timeout", "\"500ms\"", "\"500ms\""),
        ("limits.header_timeout", "\"1m\"", "\"1m\""),
        ("limits.drain", "\"0s\"", "\"0s\""),
        ("limits.drain", "\"1m 30s\"", "\"90s\""),
        ("limits.drain", "\"1500us\"", "\"1ms 500us\""),
        ("retention.changes", "\"48h\"", "\"2d\""),
        ("limits.hook_body", "\"2MiB\"", "\"2MiB\""),
        ("limits.hook_body", "\"2MB\"", "\"2000000B\""),
        ("retention.disk_floor", "\"0B\"", "\"0B\""),
        ("limits.backlog", "1_000", "1000"),
        ("limits.backlog", "0x400", "1024"),
    ] {
        assert_eq!(shown(key, written).unwrap_or_else(|error| panic!("{error}")), expected, "{key} = {written}");
        assert_eq!(shown(key, expected).unwrap_or_else(|error| panic!("{error}")), expected, "what is shown can be read");
    }
    for (key, written) in [
        ("limits.drain", "\"soon\""),
        ("limits.drain", "20"),
        ("limits.hook_body", "\"2097152\""),
        ("limits.hook_body", "2097152"),
        ("limits.hook_body", "\"2GiB\""),
        ("limits.backlog", "-5"),
        ("limits.connections", "5_000_000_000"),
        ("limits.backlog", "1.5"),
    ] {
        assert!(shown(key, written).is_err(), "{key} = {written}");
    }
}

#[test]
fn the_password_is_added_to_the_url_for_the_driver_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("password");
    std::fs::write(&file, "a&b\n").expect("a file");
    let config =
        parse(&format!("[store]\nurl = \"postgresql://instep@db/pmp\"\npassword = {{ file = {:?} }}\n", file.display().to_string()));
    let url = config.store.connection_url(Path::new("/state")).expect("the password can be read");
    assert_eq!(url.expose(), "postgresql://instep@db/pmp?password=a%26b");
    assert!(!format!("{config:?}").contains("a&b"));
    assert_eq!(parse("").store.connection_url(Path::new("/state")).expect("no password").expose(), "sqlite:///state/replica.db");
}

/// The example as it is, and with its commented source brought to life.
fn example_with_source() -> String {
    let text = example::text();
    let (settings, source) = text.split_once("# [sources.pmp]\n").expect("the example has a source");
    let (source, _) = source.split_once("\n\n").expect("another source follows");
    let source: String = source.lines().map(|line| format!("{}\n", line.strip_prefix("# ").expect("every line is commented"))).collect();
    format!("{settings}[sources.pmp]\n{source}")
}

#[test]
fn the_example_file_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("instep.example.toml");
    if std::env::var_os("UPDATE_EXAMPLE").is_some() {
        std::fs::write(&path, example::text()).expect("the example can be written");
    }
    let file = std::fs::read_to_string(&path).expect("the example is there");
    assert_eq!(file, example::text(), "write it anew: UPDATE_EXAMPLE=1 cargo test --lib config");
}

#[test]
fn the_example_equals_the_defaults() {
    let values = |config: &Config| -> Vec<(String, Option<String>)> {
        config.entries.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect()
    };
    let example = parse(&example::text());
    assert_eq!(values(&example), values(&parse("")));
    assert!(example.entries.iter().any(|entry| entry.file.is_some()), "it writes them out");
    assert_eq!(values(&parse(&example_with_source())), values(&parse(PMP)));
}

#[test]
fn every_key_occurs_in_the_example() {
    let settings = settings::SECTIONS.iter().flat_map(|(_, keys)| keys.iter());
    let source = Productive::KEYS.iter().chain(Common::KEYS).chain([&KIND, &RESOURCES]).chain(Quota::KEYS);
    let text = example::text();
    let mut queue: Vec<&Key> = settings.chain(source).collect();
    let mut seen = 0;
    while let Some(key) = queue.pop() {
        assert!(text.contains(&format!("{} = ", key.name)), "{} is not in the example", key.name);
        assert!(key.doc.trim().len() > 10, "{} has no reason", key.name);
        queue.extend(key.keys);
        seen += 1;
    }
    assert!(seen > 60, "{seen}");
}

#[test]
fn what_is_printed_is_a_configuration_again() {
    let config = parse(&format!("{PMP}quota_share = 0.5\nquota = [{{ concurrent = 8 }}]\n[listen]\nadmin = \"127.0.0.1:9000\"\n"));
    let lines = config.entries.iter().filter_map(|entry| Some(format!("{} = {}\n", entry.key, entry.value.as_ref()?)));
    let again = parse(&lines.collect::<String>());
    assert_eq!((again.store, again.listen, again.limits, again.sources), (config.store, config.listen, config.limits, config.sources));
}

#[test]
fn lists_are_checked_by_element() {
    let (.., message) = only_mistake("[store]\ngrant = [\"portal\", \"x; drop table\"]\n");
    assert!(message.starts_with("\"x; drop table\" is not a role name"), "{message}");
    let (.., message) = only_mistake(&format!("{PMP}exclude = [\"attributes/cost\"]\n"));
    assert!(message.contains("is not a JSON pointer"), "{message}");
}
