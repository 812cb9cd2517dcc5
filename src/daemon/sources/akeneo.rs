//! A source of kind "akeneo".

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Kind;
use crate::config::{self, Akeneo as Settings, AkeneoResource, Config, Secret, Secrets};
use crate::connectors::Credential;
use crate::connectors::akeneo::{Akeneo, Auth, EVENTS, Keep, Management, NOTIFICATIONS, Options, PLATFORM, ProductKey, ResourceOptions};
use crate::model::SourceName;
use crate::quota::{Class, Concurrency, Expected, Limit, Limits, Shape, Unit};
use crate::upstream::Credentials;

/// What a PIM allows all its connections together in one second.
const REQUESTS_A_SECOND: u64 = 100;
/// What it allows one connection at once.
const CONCURRENT: u32 = 4;

pub(super) fn kind(
    name: &SourceName,
    config: &Config,
    source: &config::Source,
    settings: &Settings,
    resources: &BTreeMap<String, AkeneoResource>,
) -> Result<Kind, String> {
    let platform = management(name, settings)?;
    let scope = scope(settings);
    Ok(Kind {
        root: settings.url.clone(),
        also: platform.iter().map(|platform| platform.api.clone()).collect(),
        manages_hooks: platform.is_some(),
        connector: Arc::new(Akeneo::new(Options { platform, ..options(config, source, settings, resources) })?),
        credentials: credentials(settings),
        limits: limits(&scope, settings.quota_share)?,
        scope,
        feeds: false,
        feed_poll: Duration::from_secs(3600),
        secrets: secrets(settings),
    })
}

/// Where and as whom subscriptions are managed, if they are.
fn management(name: &SourceName, settings: &Settings) -> Result<Option<Management>, String> {
    let Some(platform) = settings.event_platform.as_ref().filter(|platform| platform.manage) else { return Ok(None) };
    let (Some(client_id), Some(contact)) = (&settings.auth.client_id, &platform.contact) else {
        return Err("event_platform.manage needs event_platform.contact and auth.client_id".to_owned());
    };
    let subscriber = format!("instep {name}");
    Ok(Some(Management { api: platform.url.clone(), client_id: client_id.clone(), subscriber, contact: contact.clone() }))
}

/// Limits hold for a connection: the client, or the place of an app's token.
fn scope(settings: &Settings) -> String {
    let host = settings.url.host_str().unwrap_or_default();
    let port = settings.url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let client = settings.auth.client_id.clone().or_else(|| settings.auth.token.as_ref().map(Secret::reference));
    format!("akeneo:{host}{port}:{}", client.unwrap_or_default())
}

fn limits(scope: &str, share: f64) -> Result<Limits, String> {
    let limit = Limit {
        id: format!("{scope}/requests/1s"),
        amount: REQUESTS_A_SECOND,
        shape: Shape::Window(Duration::from_secs(1)),
        unit: Unit::Requests,
        share,
    };
    // The vendor counts what runs at once, so what may still run there takes a place.
    let expected = Class::ALL.map(|_| Expected::default());
    Limits::new(vec![limit], Concurrency { cap: CONCURRENT, floor: 0 }, expected).map_err(|error| error.to_string())
}

/// Read anew for every login, so that a rotated file is picked up without a restart.
fn credentials(settings: &Settings) -> Credentials {
    let auth = settings.auth.clone();
    Arc::new(move |which| {
        let secret = match which {
            Credential::Read => &auth.token,
            Credential::Client => &auth.secret,
            Credential::Password => &auth.password,
            Credential::Manage => &None,
        };
        let secret = secret.as_ref().ok_or_else(|| format!("the source has no credential for this ({which:?})"))?;
        secret.read().map(|text| text.expose().to_owned()).map_err(|error| error.to_string())
    })
}

fn secrets(settings: &Settings) -> Vec<(Option<&'static str>, Secrets)> {
    let mut secrets = Vec::new();
    if let Some(events) = &settings.events_api {
        secrets.push((Some(EVENTS), events.secrets.clone()));
    }
    if let Some(platform) = &settings.event_platform {
        secrets.extend([PLATFORM, NOTIFICATIONS].map(|route| (Some(route), platform.secrets.clone())));
    }
    secrets
}

fn options(config: &Config, source: &config::Source, settings: &Settings, resources: &BTreeMap<String, AkeneoResource>) -> Options {
    let platform = settings.event_platform.as_ref();
    let auth = match (&settings.auth.client_id, &settings.auth.username) {
        (Some(client_id), Some(username)) => Auth::Password { client_id: client_id.clone(), username: username.clone() },
        _ => Auth::App,
    };
    Options {
        url: settings.url.clone(),
        auth,
        zone_seconds: settings.zone.0,
        product_key: match settings.product_key {
            config::ProductKey::Uuid => ProductKey::Uuid,
            config::ProductKey::Identifier => ProductKey::Identifier,
        },
        resources: resources.iter().map(|(name, set)| (name.clone(), resource(set))).collect(),
        events_api: settings.events_api.is_some(),
        event_platform: platform.is_some(),
        notifications: platform.is_some_and(|platform| platform.notifications),
        platform: None,
        ignore_authors: settings.ignore_authors.clone(),
        subscriptions: platform.map(|platform| platform.subscriptions.clone()).unwrap_or_default(),
        exclude: settings.exclude.clone(),
        read_lag: source.common.read_lag,
        list_lag: source.common.list_lag,
        keep_deleted: source.common.keep_deleted,
        tombstones: config.retention.tombstones,
    }
}

fn resource(set: &AkeneoResource) -> ResourceOptions {
    let AkeneoResource { scope, locales, attributes, keep, poll, sweep, keep_deleted, read_lag } = set.clone();
    let config::Keep { codes, above, families, categories, enabled } = keep;
    ResourceOptions {
        poll: Some(poll),
        sweep: Some(sweep),
        keep_deleted,
        read_lag,
        scope,
        locales,
        attributes,
        keep: Keep { codes, above, families, categories, enabled },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Connector;

    fn settings(auth: &str) -> (Config, Settings) {
        let text = format!("[sources.pim]\nkind = \"akeneo\"\nurl = \"https://pim.example.test\"\nauth = {auth}\n");
        let config = Config::parse("instep.toml", &text).unwrap_or_else(|error| panic!("{error}"));
        let Connector::Akeneo(settings, _) = config.sources["pim"].connector.clone() else { panic!("another kind") };
        (config, *settings)
    }

    #[test]
    fn everything_that_can_be_configured_exists() {
        let (config, settings) = settings("{ token = { env = \"APP\" } }");
        let Connector::Akeneo(_, resources) = &config.sources["pim"].connector else { panic!("another kind") };
        let kind = kind(&SourceName::new("pim").expect("a name"), &config, &config.sources["pim"], &settings, resources).expect("a source");
        let mut known: Vec<String> = kind.connector.resources().iter().map(|spec| spec.name.to_string()).collect();
        let mut names = crate::connectors::akeneo::resource_names();
        known.sort();
        names.sort_unstable();
        assert_eq!(known, names);
        assert_eq!((kind.scope.as_str(), kind.secrets.len()), ("akeneo:pim.example.test:{ env = \"APP\" }", 0));
        assert!(kind.connector.hook_routes().is_empty(), "without an event system there is no door");
        let usable: Vec<u64> = kind.limits.list().iter().map(Limit::usable).collect();
        assert_eq!(usable, [60]);
    }

    #[test]
    fn subscriptions_are_managed_where_it_is_asked_for_with_all_that_it_takes() {
        let (_, plain) = settings("{ token = { env = \"APP\" } }");
        let name = SourceName::new("pim").expect("a name");
        assert_eq!(management(&name, &plain), Ok(None));
        let platform = |contact: Option<&str>| config::EventPlatform {
            secrets: Secrets::default(),
            subscriptions: Vec::new(),
            notifications: true,
            manage: true,
            contact: contact.map(ToOwned::to_owned),
            url: "https://events.example.test/api/v1".parse().expect("a URL"),
        };
        let by_token = Settings { event_platform: Some(platform(Some("ops@example.test"))), ..plain };
        assert!(management(&name, &by_token).is_err(), "requests name their client");
        let auth = config::AkeneoAuth { client_id: Some("3_x".to_owned()), ..by_token.auth.clone() };
        let whole = Settings { auth: auth.clone(), ..by_token };
        let managed = management(&name, &whole).expect("it is complete").expect("it is asked for");
        assert_eq!((managed.subscriber.as_str(), managed.client_id.as_str()), ("instep pim", "3_x"));
        assert!(
            management(&name, &Settings { event_platform: Some(platform(None)), auth, ..whole }).is_err(),
            "a subscriber has a contact"
        );
    }

    #[test]
    fn each_credential_is_found_where_it_was_put() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, format!("text of {name}\n")).expect("a file");
            format!("{{ file = {:?} }}", path.display().to_string())
        };
        let auth = format!("{{ client_id = \"3_x\", secret = {}, username = \"u\", password = {} }}", file("secret"), file("password"));
        let (_, settings) = settings(&auth);
        let credentials = credentials(&settings);
        assert_eq!(credentials(Credential::Client).as_deref(), Ok("text of secret"));
        assert_eq!(credentials(Credential::Password).as_deref(), Ok("text of password"));
        assert!(credentials(Credential::Read).is_err() && credentials(Credential::Manage).is_err());
        assert_eq!(scope(&settings), "akeneo:pim.example.test:3_x");
    }
}
