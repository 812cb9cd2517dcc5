//! A source of kind "reso".

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use url::Url;

use super::Kind;
use crate::config::{self, Config, ReadLog, Reso as Settings, ResoPush, ResoResource, RetryForm};
use crate::connectors;
use crate::connectors::reso::{Auth, EVENTS, Log, Options, Profile, Push, Rate, Reso, ResourceOptions, Resuming, Schema, profile};
use crate::connectors::{Credential, RetryAfter};
use crate::quota::{Class, Concurrency, Expected, Limit, Limits, Shape, Unit};
use crate::upstream::Credentials;

/// The Data Dictionary's own is two megabytes.
const METADATA_BYTES_MAX: u64 = 64 * 1024 * 1024;

pub(super) fn kind(
    config: &Config,
    source: &config::Source,
    settings: &Settings,
    resources: &BTreeMap<String, ResoResource>,
) -> Result<Kind, String> {
    let options = options(config, source, settings, resources)?;
    let scope = scope(settings);
    let also = match &options.auth {
        Auth::Client { token_url, .. } => vec![token_url.clone()],
        Auth::Token => Vec::new(),
    };
    Ok(Kind {
        root: settings.url.clone(),
        also,
        manages_hooks: false,
        credentials: credentials(settings),
        limits: limits(&scope, settings, options.profile)?,
        scope,
        feeds: options.log.is_some(),
        feed_poll: settings.events.poll,
        secrets: settings.push.iter().map(|push| (Some(EVENTS), push.tokens.clone())).collect(),
        connector: Arc::new(Reso::new(options)?),
    })
}

/// Its resources left out: enough for asking what there are.
pub(super) fn bare(config: &Config, source: &config::Source, settings: &Settings) -> Result<Kind, String> {
    kind(config, source, &Settings { metadata: None, ..settings.clone() }, &BTreeMap::new())
}

/// Limits hold for a token or client at a server.
fn scope(settings: &Settings) -> String {
    let host = settings.url.host_str().unwrap_or_default();
    let port = settings.url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let client = settings.auth.client_id.clone().or_else(|| settings.auth.token.as_ref().map(config::Secret::reference));
    format!("reso:{host}{port}:{}", client.unwrap_or_default())
}

/// Those of the configuration, else the vendor's.
fn limits(scope: &str, settings: &Settings, profile: &Profile) -> Result<Limits, String> {
    let rates: Vec<Rate> = match &settings.quota {
        Some(quotas) => quotas.iter().map(rate).collect(),
        None => profile.rates.to_vec(),
    };
    let limit = |rate: &Rate| Limit {
        id: format!("{scope}/{}/{}s", if rate.is_bytes { "bytes" } else { "requests" }, rate.per.as_secs()),
        amount: rate.amount,
        shape: Shape::Window(rate.per),
        unit: if rate.is_bytes { Unit::Bytes } else { Unit::Requests },
        share: if rate.amount < 10 && !rate.is_bytes { 1.0 } else { settings.quota_share },
    };
    // Of so small a limit a part would be nothing.
    let limits: Vec<Limit> = rates.iter().map(limit).collect();
    let expected = Class::ALL.map(|_| Expected { bytes: profile.answer_bytes, ..Expected::default() });
    // The cap is our own politeness.
    let concurrency = Concurrency { cap: settings.concurrent, floor: settings.concurrent.div_ceil(2) };
    Limits::new(limits, concurrency, expected).map_err(|error| error.to_string())
}

fn rate(quota: &config::ResoQuota) -> Rate {
    let bytes = quota.bytes.map(|size| size.0);
    Rate { amount: quota.requests.or(bytes).unwrap_or_default(), per: quota.per, is_bytes: bytes.is_some() }
}

/// Read anew whenever it is shown, so that a rotated file is picked up without a restart.
fn credentials(settings: &Settings) -> Credentials {
    let auth = settings.auth.clone();
    Arc::new(move |which| {
        let secret = match which {
            Credential::Read => &auth.token,
            Credential::Client => &auth.secret,
            Credential::Manage | Credential::Password => &None,
        };
        let secret = secret.as_ref().ok_or_else(|| format!("the source has no credential for this ({which:?})"))?;
        secret.read().map(|text| text.expose().to_owned()).map_err(|error| error.to_string())
    })
}

fn options(
    config: &Config,
    source: &config::Source,
    settings: &Settings,
    resources: &BTreeMap<String, ResoResource>,
) -> Result<Options, String> {
    let profile = profile(settings.profile.word()).ok_or("the profile is not known")?;
    let is_read = match settings.events.read {
        ReadLog::Auto => profile.has_log,
        ReadLog::Yes => true,
        ReadLog::No => false,
    };
    let page = usize::try_from(settings.events.page).unwrap_or(usize::MAX);
    let log = is_read.then_some(Log { overlap: settings.events.overlap, page });
    Ok(Options {
        url: settings.url.clone(),
        auth: auth(settings)?,
        profile,
        system: settings.originating_system.clone(),
        label: settings.push.as_ref().map(|push| push.label.clone()).unwrap_or_default(),
        push: settings.push.as_ref().map(|taken| push(settings, taken)).transpose()?,
        log,
        resources: resources.iter().map(|(name, set)| (name.clone(), resource(set))).collect(),
        schema: settings.metadata.as_deref().map_or(Ok(Schema::new()), described)?,
        exclude: settings.exclude.clone(),
        read_lag: source.common.read_lag,
        list_lag: source.common.list_lag,
        keep_deleted: source.common.keep_deleted,
        tombstones: config.retention.tombstones,
    })
}

fn auth(settings: &Settings) -> Result<Auth, String> {
    let (Some(client_id), Some(token_url)) = (&settings.auth.client_id, &settings.auth.token_url) else { return Ok(Auth::Token) };
    let token_url = place(settings, token_url)?;
    Ok(Auth::Client { client_id: client_id.clone(), token_url, scope: settings.auth.scope.clone(), basic: settings.auth.basic })
}

fn push(settings: &Settings, push: &ResoPush) -> Result<Push, String> {
    let resume = settings.push_resume.as_ref().map(|resume| {
        let url = place(settings, &resume.url)?;
        if url.origin() != settings.url.origin() {
            return Err("push_resume.url is not on the server of url".to_owned());
        }
        let header = |text: &String| text.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
        Ok(Resuming {
            url,
            method: http::Method::from_bytes(resume.method.as_bytes()).map_err(|error| error.to_string())?,
            headers: resume.headers.iter().filter_map(header).collect(),
            body: resume.body.clone(),
            after: resume.after,
        })
    });
    Ok(Push {
        data: push.data,
        retries_for: push.retries_for,
        retry_after: match push.retry_after_form {
            RetryForm::Seconds => RetryAfter::Seconds,
            RetryForm::Date => RetryAfter::Date,
        },
        retry_after_span: push.retry_after,
        resume: resume.transpose()?,
    })
}

/// An address, or a path on the server.
fn place(settings: &Settings, place: &str) -> Result<Url, String> {
    settings.url.join(place).map_err(|error| format!("{place} is no address: {error}"))
}

/// What was saved of the server's own description.
fn described(path: &str) -> Result<Schema, String> {
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(METADATA_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|error| format!("metadata: {path} cannot be read: {error}"))?;
    connectors::reso::described(&text).map_err(|error| format!("metadata: {path} {error}"))
}

fn resource(set: &ResoResource) -> ResourceOptions {
    let ResoResource { key, numeric, timestamp, select, expand, filter, poll, sweep, keep_deleted, read_lag } = set.clone();
    ResourceOptions { key, timestamp, numeric, select, expand, filter, poll, sweep: Some(sweep), keep_deleted, read_lag }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Connector;

    fn made(settings: &str) -> Result<Kind, String> {
        let text = format!("[sources.mls]\nkind = \"reso\"\nurl = \"https://api.mls.example/odata\"\n{settings}\n");
        let config = Config::parse("instep.toml", &text).unwrap_or_else(|error| panic!("{error}"));
        let source = &config.sources["mls"];
        let Connector::Reso(settings, resources) = &source.connector else { panic!("another kind") };
        kind(&config, source, settings, resources)
    }

    const TOKEN: &str = "auth = { token = { env = \"MLS\" } }";

    #[test]
    fn a_server_of_the_standard_is_polled_and_has_no_limits_but_ours() {
        let kind = made(TOKEN).expect("a source");
        let names: Vec<&str> = kind.connector.resources().iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(names, ["Media", "Member", "Office", "OpenHouse", "Property"]);
        assert_eq!((kind.scope.as_str(), kind.limits.list().len()), ("reso:api.mls.example:{ env = \"MLS\" }", 0));
        assert!(kind.feeds && kind.secrets.is_empty() && kind.connector.hook_routes().is_empty());
    }

    #[test]
    fn vendors_have_their_limits_and_we_our_share() {
        let grid =
            format!("{TOKEN}\nprofile = \"mlsgrid\"\noriginating_system = \"actris\"\nresources = [\"Property\", \"Member\", \"Office\"]");
        let kind = made(&grid).expect("a source");
        let usable: Vec<u64> = kind.limits.list().iter().map(Limit::usable).collect();
        assert_eq!(usable, [2, 5_760, 32_000, 3_200_000_000]);
        assert!(!kind.feeds && kind.connector.feeds().is_empty(), "no log of events is known of");
        assert!(
            made(&format!("{TOKEN}\nprofile = \"mlsgrid\"\noriginating_system = \"actris\"")).is_err(),
            "media come with properties only"
        );
        for profile in ["bridge", "trestle", "spark"] {
            made(&format!("{TOKEN}\nprofile = \"{profile}\"")).unwrap_or_else(|error| panic!("{profile}: {error}"));
        }
        let own = made(&format!("{TOKEN}\nprofile = \"spark\"\nquota = [{{ requests = 4000, per = \"5m\" }}]")).expect("a source");
        assert_eq!(own.limits.list()[0].usable(), 3_200);
    }

    #[test]
    fn a_description_that_was_saved_types_the_views() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("mls.xml");
        let text = r#"<Edmx><DataServices><Schema Namespace="x"><EntityType Name="Tours"><Key><PropertyRef Name="TourKey"/></Key>
            <Property Name="TourKey" Type="Edm.String"/></EntityType></Schema></DataServices></Edmx>"#;
        std::fs::write(&path, text).expect("written");
        let settings = |path: &std::path::Path| format!("{TOKEN}\nmetadata = \"{}\"\nresources = [\"Tours\"]", path.display());
        let kind = made(&settings(&path)).expect("its key is known by the description");
        assert_eq!(kind.connector.resources()[0].columns[0].name, "tourkey");
        std::fs::write(&path, "<Edmx>").expect("written");
        assert!(made(&settings(&path)).err().is_some_and(|error| error.starts_with("metadata: ")));
        assert!(made(&settings(&folder.path().join("none.xml"))).is_err());
    }

    #[test]
    fn a_client_may_ask_elsewhere_but_a_sender_is_resumed_at_its_server() {
        let auth =
            |url: &str| format!("auth = {{ client_id = \"c\", secret = {{ env = \"S\" }}, token_url = \"{url}\", scope = \"api\" }}");
        let kind = made(&auth("/oauth2/token")).expect("a source");
        assert_eq!(kind.also[0].as_str(), "https://api.mls.example/oauth2/token");
        let kind = made(&auth("https://id.example/token")).expect("a source");
        assert_eq!(kind.also[0].as_str(), "https://id.example/token");
        let push = |url: &str| {
            let push = format!("push = {{ label = \"mls-prod\", tokens = [{{ env = \"T\" }}] }}\npush_resume = {{ url = \"{url}\" }}");
            made(&format!("{TOKEN}\n{push}"))
        };
        let kind = push("/push/resume").expect("a source");
        assert_eq!(kind.connector.resume().expect("configured").request.url, "https://api.mls.example/push/resume");
        assert_eq!((kind.secrets.len(), kind.connector.hook_routes()), (1, vec![EVENTS]));
        assert!(push("https://elsewhere.example/resume").is_err());
    }
}
