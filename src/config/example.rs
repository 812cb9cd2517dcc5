//! `instep.example.toml`, written from the schema: every key with its reason and its default.

use super::akeneo::Akeneo;
use super::productive::Productive;
use super::reso::Reso;
use super::schema::{Key, Presence};
use super::settings::SECTIONS;
use super::source::{AKENEO_RESOURCES, Common, KIND, RESO_RESOURCES, RESOURCES};
use super::value::Value;

const HEAD: &str = "\
# Every key of instep.toml with its default. What is commented out is not set by default; what is not needed may be left out.
#
# Durations are written \"500ms\", \"30s\", \"5m\", \"6h\", \"30d\"; sizes \"64KiB\", \"2MiB\", \"1GiB\".
# A secret is never written here, only where it is: { env = \"NAME\" }, { file = \"/path\" } or { credential = \"name\" } (systemd's
# LoadCredential=). Nothing of the environment is interpolated. `instep check --print` shows what holds and where it was written.

# Further files, beside this one. Only [sources.<name>] may stand in them.
# include = [\"sources.d/*.toml\"]
";

const SOURCE_HEAD: &str = "
# A Productive organisation. The name is yours: tables are pmp_tasks, hooks come to /hooks/pmp.
";

const AKENEO_HEAD: &str = "
# A PIM of Akeneo. Keys that every source may have (public_url, keep_deleted, brake …) are those above.
";

const RESO_HEAD: &str = "
# A server of the RESO Web API. Keys that every source may have are those above.
";

/// The text of the example file.
#[must_use]
pub fn text() -> String {
    let mut text = HEAD.to_owned();
    for (name, keys) in SECTIONS {
        text.push_str(&format!("\n[{name}]\n"));
        text.extend(keys.iter().map(|key| lines(key, "")));
    }
    text.push_str(SOURCE_HEAD);
    text.push_str("# [sources.pmp]\n");
    let keys = [&KIND].into_iter().chain(Productive::KEYS).chain(Common::KEYS).chain([&RESOURCES]);
    text.extend(keys.map(|key| lines(key, "# ")));
    text.push_str(AKENEO_HEAD);
    text.push_str("# [sources.pim]\n");
    let kind = Key { presence: Presence::Required("\"akeneo\""), ..KIND };
    // What every kind has stands above.
    let keys = [&kind].into_iter().chain(Akeneo::KEYS).chain([&AKENEO_RESOURCES]);
    text.extend(keys.map(|key| lines(key, "# ")));
    text.push_str(RESO_HEAD);
    text.push_str("# [sources.mls]\n");
    let kind = Key { presence: Presence::Required("\"reso\""), ..KIND };
    let keys = [&kind].into_iter().chain(Reso::KEYS).chain([&RESO_RESOURCES]);
    text.extend(keys.map(|key| lines(key, "# ")));
    text
}

/// Every key that refers to a secret, with its path, in a file with a source of this kind, which stands as `sources.<name>`.
#[must_use]
pub fn secrets(kind: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (name, keys) in SECTIONS {
        secrets_below(name, keys, &mut found);
    }
    let own = match kind {
        "akeneo" => Akeneo::KEYS,
        "reso" => Reso::KEYS,
        _ => Productive::KEYS,
    };
    for keys in [own, Common::KEYS] {
        secrets_below("sources.<name>", keys, &mut found);
    }
    found
}

fn secrets_below(path: &str, keys: &[Key], found: &mut Vec<String>) {
    for key in keys {
        let path = format!("{path}.{}", key.name);
        if key.secret {
            found.push(path.clone());
        }
        secrets_below(&path, key.keys, found);
    }
}

/// One key: its reason, the keys below it, and its default or an example behind `#`.
fn lines(key: &Key, prefix: &str) -> String {
    let mut lines: String = key.doc.lines().map(|line| format!("{prefix}#{line}\n")).collect();
    for below in key.keys {
        let doc: Vec<&str> = below.doc.lines().map(str::trim).collect();
        let (not_set, value) = written(below);
        let note = if not_set { ", not set by default" } else { "" };
        lines.push_str(&format!("{prefix}#   {} = {value}: {}{note}\n", below.name, doc.join(" ").trim_end_matches('.')));
    }
    let (not_set, value) = written(key);
    let mark = if not_set { "# " } else { "" };
    lines.push_str(&format!("{prefix}{mark}{} = {value}\n", key.name));
    lines
}

/// Whether the key is left out by default, and its default or example.
fn written(key: &Key) -> (bool, String) {
    match key.presence {
        Presence::Optional(example) => (true, example.to_owned()),
        Presence::Required(example) => (false, example.to_owned()),
        Presence::Default("{}") => {
            let below: Vec<String> = key.keys.iter().map(|key| format!("{} = {}", key.name, written(key).1)).collect();
            (false, format!("{{ {} }}", below.join(", ")))
        }
        Presence::Default(text) => (false, text.to_owned()),
    }
}
