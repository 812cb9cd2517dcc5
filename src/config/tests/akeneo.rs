//! Sources of kind "akeneo".

use super::*;

const PIM: &str = r#"
[sources.pim]
kind = "akeneo"
url = "https://acme.cloud.akeneo.com"
auth = { client_id = "3_x", secret = { credential = "pim-secret" }, username = "shop_1234", password = { credential = "pim-password" } }
"#;

fn akeneo(config: &Config) -> (Akeneo, BTreeMap<String, AkeneoResource>) {
    match &config.sources["pim"].connector {
        Connector::Akeneo(settings, resources) => ((**settings).clone(), resources.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_shop_file_works_as_its_author_wrote_it() {
    let config = parse(
        r#"
[sources.pim]
kind = "akeneo"
url = "https://acme.cloud.akeneo.com"
auth = { client_id = "3_x", secret = { credential = "pim-secret" }, username = "shop_1234", password = { credential = "pim-password" } }
zone = "UTC"
product_key = "uuid"
public_url = "https://hooks.acme.example"
ignore_authors = ["shop_1234"]
[sources.pim.events_api]
secrets = [{ credential = "pim-events-secret" }, { credential = "pim-events-secret-old" }]
[sources.pim.event_platform]
manage = true
contact = "ops@acme.example"
secrets = [{ credential = "pim-ep-primary" }, { credential = "pim-ep-secondary" }]
notifications = true
[sources.pim.resources]
products = { scope = "ecommerce", locales = ["fr_FR", "en_US"], poll = "2m", sweep = "24h" }
product-models = { poll = "2m", sweep = "24h" }
families = {}
attribute-options = { sweep = "1h" }
categories = { keep = { codes = ["shop*"] } }
"#,
    );
    let (settings, resources) = akeneo(&config);
    let source = &config.sources["pim"];
    assert_eq!((settings.zone, settings.product_key, source.connector.kind()), (Zone(0), ProductKey::Uuid, "akeneo"));
    assert_eq!(settings.events_api.expect("it was written").secrets.0.len(), 2);
    let platform = settings.event_platform.expect("it was written");
    assert!(platform.manage && platform.notifications && platform.subscriptions.is_empty());
    assert_eq!((source.resources.len(), resources.len()), (5, 5));
    assert_eq!(resources["products"].locales, ["fr_FR", "en_US"]);
    assert_eq!(resources["categories"].keep.codes, ["shop*"]);
    assert_eq!(source.resources["attribute-options"].sweep, Duration::from_secs(3600));
    assert_eq!(source.resources["products"].poll, Duration::from_secs(120));
    assert_eq!(source.common.public_url.as_ref().map(url::Url::as_str), Some("https://hooks.acme.example/"));
    assert!(!format!("{:?}", config.sources).contains("pim-secret"), "not even where a secret is");
}

#[test]
fn what_is_left_out_has_its_default() {
    let (settings, resources) = akeneo(&parse(PIM));
    assert_eq!(resources.len(), AKENEO_RESOURCES.len());
    assert!(settings.events_api.is_none() && settings.event_platform.is_none());
    assert_eq!((settings.zone, settings.product_key, settings.quota_share), (Zone(0), ProductKey::Uuid, 0.6));
    let listed = parse(&format!("{PIM}resources = [\"products\", \"channels\"]\n"));
    assert_eq!(listed.sources["pim"].resources.keys().collect::<Vec<_>>(), ["channels", "products"]);
}

#[test]
fn zones_are_offsets() {
    for (written, seconds) in [("UTC", 0), ("+01:00", 3_600), ("-09:30", -34_200), ("+14:00", 50_400), ("+00:00", 0)] {
        let config = parse(&format!("{PIM}zone = \"{written}\"\n"));
        assert_eq!(akeneo(&config).0.zone, Zone(seconds));
        let shown = config.entries.iter().find(|entry| entry.key == "sources.pim.zone").and_then(|entry| entry.value.clone());
        let again = format!("{PIM}zone = {}\n", shown.expect("it is shown"));
        assert_eq!(akeneo(&parse(&again)).0.zone, Zone(seconds), "{again}");
    }
    for wrong in ["Europe/Paris", "utc", "+1", "+1:00", "+15:00", "01:00", "+01:60", "+-1:00", ""] {
        let (line, column, key, message) = only_mistake(&format!("{PIM}zone = \"{wrong}\"\n"));
        assert_eq!((line, column, key.as_str()), (6, 8, "sources.pim.zone"), "{wrong}");
        assert!(message.contains("that of winter"), "{message}");
    }
}

#[test]
fn mistakes_say_where_they_are_and_what_would_be_right() {
    let auth = |auth: &str| format!("[sources.pim]\nkind = \"akeneo\"\nurl = \"https://acme.example\"\nauth = {auth}\n");
    parse(&auth("{ token = { env = \"APP_TOKEN\" } }"));
    for half in [
        "{}",
        "{ client_id = \"x\" }",
        "{ client_id = \"x\", username = \"y\", password = { env = \"P\" } }",
        "{ client_id = \"x\", secret = { env = \"S\" }, username = \"y\", password = { env = \"P\" }, token = { env = \"T\" } }",
    ] {
        let (line, column, key, message) = only_mistake(&auth(half));
        assert_eq!((line, column, key.as_str()), (4, 8, "sources.pim.auth"));
        assert!(message.contains("{ token } of an app"), "{message}");
    }
    let (line, _, key, message) = only_mistake(&auth("{ token = \"hunter2\" }"));
    assert_eq!((line, key.as_str()), (4, "sources.pim.auth.token"));
    assert!(!message.contains("hunter2"), "{message}");
    let found = mistakes(&format!("{PIM}organization = 5\nzones = \"UTC\"\nshop = \"x\"\n"));
    let messages: Vec<&str> = found.iter().map(|(.., message)| message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "this key belongs to a source of kind \"productive\"",
            "unknown key, did you mean `zone`?",
            "this key belongs to a source of kind \"shopify\"",
        ]
    );
    let (line, _, key, message) = only_mistake(&format!("{PIM}[sources.pim.resources]\nproduct_models = {{}}\n"));
    assert_eq!(
        (line, key.as_str(), message.as_str()),
        (7, "sources.pim.resources.product_models", "unknown resource, did you mean `product-models`?")
    );
    let (line, column, key, message) = only_mistake(&format!("{PIM}[sources.pim.resources]\nfamilies = {{ scope = \"print\" }}\n"));
    assert_eq!((line, column, key.as_str()), (7, 12, "sources.pim.resources.families"));
    assert!(message.contains("products and product-models only"), "{message}");
    let (.., message) = only_mistake(&format!("{PIM}product_key = \"sku\"\n"));
    assert_eq!(message, "must be one of \"uuid\", \"identifier\"");
}

#[test]
fn every_secret_is_known_by_its_type() {
    let own: Vec<String> = example::secrets("akeneo").into_iter().filter(|key| key.starts_with("sources")).collect();
    let known = ["auth.secret", "auth.password", "auth.token", "events_api.secrets", "event_platform.secrets"];
    assert_eq!(own, known.map(|key| format!("sources.<name>.{key}")));
}

#[test]
fn the_example_equals_the_defaults_and_holds_every_key() {
    let text = example::text();
    let (_, source) = text.split_once("# [sources.pim]\n").expect("the example has a source");
    let (source, _) = source.split_once("\n\n").expect("another source follows");
    let source: String = source.lines().map(|line| format!("{}\n", line.strip_prefix("# ").expect("every line is commented"))).collect();
    let values = |config: &Config| -> Vec<(String, Option<String>)> {
        config.entries.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect()
    };
    assert_eq!(values(&parse(&format!("[sources.pim]\n{source}"))), values(&parse(PIM)));
    let mut queue: Vec<&Key> = Akeneo::KEYS.iter().chain(AkeneoResource::KEYS).collect();
    while let Some(key) = queue.pop() {
        assert!(source.contains(&format!("{} = ", key.name)), "{} is not in the example", key.name);
        assert!(key.doc.trim().len() > 10, "{} has no reason", key.name);
        queue.extend(key.keys);
    }
}

#[test]
fn what_is_printed_is_a_configuration_again() {
    let config = parse(&format!(
        "{PIM}zone = \"-03:00\"\n[sources.pim.event_platform]\nsecrets = {{ env = \"A\" }}\nsubscriptions = [\"x\"]\n\
         [sources.pim.resources]\nproducts = {{ keep = {{ families = [\"sh*\"], enabled = true }} }}\n"
    ));
    let lines = config.entries.iter().filter_map(|entry| Some(format!("{} = {}\n", entry.key, entry.value.as_ref()?)));
    assert_eq!(parse(&lines.collect::<String>()).sources, config.sources);
}
