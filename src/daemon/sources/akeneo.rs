//! A source of kind "akeneo".

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Kind;
use crate::config::{self, Akeneo as Settings, AkeneoResource, Config, Secret, Secrets};
use crate::connectors::Credential;
use crate::connectors::akeneo::{Akeneo, Auth, EVENTS, Keep, NOTIFICATIONS, Options, PLATFORM, ProductKey, ResourceOptions};
use crate::quota::{Class, Concurrency, Expected, Limit, Limits, Shape, Unit};
use crate::upstream::Credentials;

/// What a PIM allows all its connections together in one second.
const REQUESTS_A_SECOND: u64 = 100;
/// What it allows one connection at once.
const CONCURRENT: u32 = 4;

pub(super) fn kind(
    config: &Config,
    source: &config::Source,
    settings: &Settings,
    resources: &BTreeMap<String, AkeneoResource>,
) -> Result<Kind, String> {
    if settings.event_platform.as_ref().is_some_and(|platform| platform.manage) {
        tracing::warn!("subscriptions to the event platform are not managed by this version: make and watch them by hand");
    }
    let scope = scope(settings);
    Ok(Kind {
        connector: Arc::new(Akeneo::new(options(config, source, settings, resources))?),
        root: settings.url.clone(),
        credentials: credentials(settings),
        limits: limits(&scope, settings.quota_share)?,
        scope,
        feeds: false,
        feed_poll: Duration::from_secs(3600),
        manages_hooks: false,
        secrets: secrets(settings),
    })
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
        (config, settings)
    }

    #[test]
    fn everything_that_can_be_configured_exists() {
        let (config, settings) = settings("{ token = { env = \"APP\" } }");
        let Connector::Akeneo(_, resources) = &config.sources["pim"].connector else { panic!("another kind") };
        let kind = kind(&config, &config.sources["pim"], &settings, resources).expect("a source");
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
