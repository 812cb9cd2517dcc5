//! Configurations in which a secret stands itself, where only its place may stand: every verb refuses them without repeating it.

use super::{API_TOKEN, Stage, file_name};
use crate::support::process::INSTEP;

/// Every way of writing a secret down that people have thought of so far.
pub(crate) fn configurations(stage: &mut Stage) {
    let mut texts = Vec::new();
    let base = "[sources.pmp]\nkind = \"productive\"\norganization = 435\n";
    let token = "token = { env = \"TOKEN\" }\n";
    let secrets: Vec<(String, String)> = instep::config::example::secrets("productive")
        .into_iter()
        .chain([API_TOKEN.to_owned()])
        .map(|key| (key.clone(), stage.secret(&key)))
        .collect();
    for (key, secret) in &secrets {
        let (table, name) = key.rsplit_once('.').expect("a path");
        let table = table.replace("<name>", "pmp");
        let head = if name == "token" && table == "sources.pmp" { base.to_owned() } else { format!("{base}{token}") };
        let head = if table == "sources.pmp" { head } else { format!("{head}[{table}]\n") };
        for value in [
            format!("\"{secret}\""),
            format!("[\"{secret}\"]"),
            secret.clone(),
            format!("\"{secret}"),
            format!("{{ file = \"{secret}\" }}"),
            format!("{{ env = \"{secret}\" }}"),
            format!("{{ credential = \"{secret}\" }}"),
            format!("{{ value = \"{secret}\" }}"),
            format!("{{ env = \"X\", value = \"{secret}\" }}"),
            format!("{{ env = \"{secret}\", file = \"/x\" }}"),
            format!("{{ env = [\"{secret}\"] }}"),
        ] {
            texts.push(match key.as_str() {
                API_TOKEN => format!("{head}address = \"127.0.0.1:1\"\n{name} = [{{ name = \"portal\", token = {value} }}]\n"),
                _ => format!("{head}{name} = {value}\n"),
            });
        }
    }
    let password = stage.secret("store.password");
    for url in [
        format!("postgresql://instep:{password}@db/pmp"),
        format!("postgresql://instep@db/pmp?password={password}"),
        format!("postgres://instep:{password}@db:port/pmp"),
        format!("postgresql://instep:12#{password}@db/pmp"),
        format!("mysql://instep:{password}@db/pmp"),
        format!("sqlite://replica.db?key={password}"),
    ] {
        texts.push(format!("[store]\nurl = \"{url}\"\n"));
    }
    for (key, authority, query) in [("url", "user:", ""), ("public_url", "user:", ""), ("url", "", "?token="), ("public_url", "", "#")] {
        let at = if authority.is_empty() { String::new() } else { format!("{authority}{}@", secrets[0].1.replace(['/', '?'], "-")) };
        let tail = if query.is_empty() { String::new() } else { format!("{query}{}", secrets[0].1) };
        texts.push(format!("{base}{token}{key} = \"https://{at}api.example.test/{tail}\"\n"));
    }
    let folder = stage.universe.folder("wrong");
    let n_texts = texts.len();
    for (number, text) in texts.into_iter().enumerate() {
        let path = folder.join(format!("{number}.toml"));
        std::fs::write(&path, &text).expect("our own folder");
        for arguments in
            [&["check"] as &[&str], &["check", "--json", "--print"], &["run"]].into_iter().take(if number % 8 == 0 { 3 } else { 2 })
        {
            let output = stage.verb_of(arguments, &path);
            assert_eq!(output.status.code(), Some(78), "{arguments:?} of {text}");
        }
    }
    init(stage);
    println!("canaries {:?}: {n_texts} configurations with a secret in them are refused", stage.universe.database.engine);
}

/// `init` is told the token instead of its place, or a URL with a password.
fn init(stage: &mut Stage) {
    let (token, password) = (stage.secret("sources.<name>.token"), stage.secret("store.password"));
    let store = format!("postgresql://instep:{}@db/pmp", file_name(&password).replace(['/', '?'], "-"));
    let config = stage.universe.folder("tmp").join("init.toml");
    let asked = |token: &str, store: &str, organization: &str| {
        let mut command = std::process::Command::new(INSTEP);
        command.args(["init", "productive", "--yes", "--organization", organization, "--token", token, "--store", store]);
        command.arg("--config").arg(&config).output().expect("the binary runs")
    };
    let as_variable = format!("env:{token}");
    let cases: [(&str, &str, &str); 4] = [
        (&token, "sqlite://x.db", "7"),
        ("env:TOKEN", &store, "7"),
        ("env:TOKEN", "sqlite://x.db", &token),
        (&as_variable, "sqlite://x.db", "7"),
    ];
    for (token, store, organization) in cases {
        let output = asked(token, store, organization);
        assert_eq!(output.status.code(), Some(64), "{token} {store} {organization}");
        stage.said.push(("instep init".to_owned(), [output.stdout, output.stderr].concat()));
    }
}
