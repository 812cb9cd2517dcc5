//! Sources of kind "reso".

use super::*;

const MLS: &str =
    "[sources.mls]\nkind = \"reso\"\nurl = \"https://api.mls.example/odata/\"\nauth = { token = { credential = \"mls-token\" } }\n";

fn reso(config: &Config) -> (Reso, BTreeMap<String, ResoResource>) {
    match &config.sources["mls"].connector {
        Connector::Reso(settings, resources) => ((**settings).clone(), resources.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_with_everything_is_read() {
    let config = parse(
        r#"
[sources.mls]
kind = "reso"
url = "https://api.mlsgrid.com/v2"
profile = "mlsgrid"
originating_system = "actris"
auth = { token = { credential = "mls-token" } }
public_url = "https://hooks.mls.example"
push = { tokens = [{ credential = "push-new" }, { credential = "push-old" }], label = "actris-prod", retry_after = "5s", retry_after_form = "date" }
events = { poll = "1m", overlap = 200 }
brake = { share = 0.05, rows = 100 }
[sources.mls.resources]
Property = { expand = ["Media"], filter = "StandardStatus ne 'Closed'", poll = "1m" }
Member = {}
X_Tours = { key = "TourKey", timestamp = "" }
"#,
    );
    let (settings, resources) = reso(&config);
    assert_eq!((settings.url.as_str(), settings.profile), ("https://api.mlsgrid.com/v2/", ResoProfile::MlsGrid));
    let push = settings.push.expect("it was written");
    assert_eq!((push.tokens.0.len(), push.label.as_str(), push.retry_after_form), (2, "actris-prod", RetryForm::Date));
    assert_eq!((settings.events.read, settings.events.poll, settings.events.page), (ReadLog::Auto, Duration::from_secs(60), 1_000));
    assert_eq!(resources["X_Tours"].key.as_deref(), Some("TourKey"));
    assert_eq!(config.sources["mls"].resources["Property"].poll, Duration::from_secs(60));
}

#[test]
fn resources_are_the_five_or_any_that_are_named() {
    assert_eq!(parse(MLS).sources["mls"].resources.len(), RESO_RESOURCES.len());
    let listed = parse(&format!("{MLS}resources = [\"Property\", \"X_Own\"]\n"));
    assert_eq!(listed.sources["mls"].resources.len(), 2);
    only_mistake(&format!("{MLS}resources = [\"Property('x')\"]\n"));
}

#[test]
fn what_cannot_work_is_refused() {
    for wrong in [
        "push = { label = \"café\" }",
        "push_resume = { url = \"http://api.mls.example/resume\" }",
        "push_resume = { url = \"resume\" }",
        "push_resume = { url = \"/resume\", method = \"GET\" }",
        "push_resume = { url = \"/resume\", headers = [\"no header\"] }",
        "quota = [{ per = \"1h\" }]",
        "profile = \"other\"",
        "zone = \"UTC\"",
    ] {
        only_mistake(&format!("{MLS}{wrong}\n"));
    }
    let both = MLS.replace("token = {", "client_id = \"c\", token = {");
    let (.., message) = only_mistake(&both);
    assert!(message.starts_with("must be { token }"), "{message}");
}

#[test]
fn every_secret_is_known_by_its_type() {
    let found = example::secrets("reso");
    let own: Vec<&str> = found.iter().map(String::as_str).filter(|secret| secret.starts_with("sources")).collect();
    assert_eq!(own, ["sources.<name>.auth.token", "sources.<name>.auth.secret", "sources.<name>.push.tokens"]);
}

#[test]
fn the_example_equals_the_defaults_and_holds_every_key() {
    let text = example::text();
    let (_, source) = text.split_once("# [sources.mls]\n").expect("the example has a source");
    let source: String = source.lines().map(|line| format!("{}\n", line.strip_prefix("# ").expect("every line is commented"))).collect();
    let values = |config: &Config| -> Vec<(String, Option<String>)> {
        config.entries.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect()
    };
    assert_eq!(values(&parse(&format!("[sources.mls]\n{source}"))), values(&parse(MLS)));
    let mut queue: Vec<&Key> = Reso::KEYS.iter().chain(ResoResource::KEYS).collect();
    while let Some(key) = queue.pop() {
        assert!(source.contains(&format!("{} = ", key.name)), "{} is not in the example", key.name);
        assert!(key.doc.trim().len() > 10, "{} has no reason", key.name);
        queue.extend(key.keys);
    }
}
