//! From configuration to sources.

use std::sync::Arc;
use std::time::Duration;

use crate::actors::source::{Brake, Process, Settings, Source};
use crate::config::{self, Config, Connector as Configured, Productive as ProductiveConfig, Quota, QuotaScope};
use crate::connectors::Credential;
use crate::connectors::productive::{Options, Productive, ResourceOptions};
use crate::model::SourceName;
use crate::quota::{BreakerOptions, Class, Concurrency, Expected, Limit, Limits, QuotaShare, Shape, Unit};
use crate::upstream::{self, ByteBudget, Credentials, Upstream};

/// Time for connecting to an upstream.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An actor that got no permit for this long looks at its rows again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Builds a source; it has no owner and no actors yet.
///
/// # Errors
/// Says what in its configuration cannot work.
pub fn source_of(config: &Config, name: &str, source: &config::Source, budget: ByteBudget, process: Process) -> Result<Source, String> {
    let name = SourceName::new(name).map_err(|error| format!("the name {error}"))?;
    let Configured::Productive(productive) = &source.connector;
    let connector = Productive::new(options(config, source, productive))?;
    let root = productive.url.clone();
    let options = upstream::Options {
        root,
        response_max: config.limits.upstream_response.0,
        responses_in_flight: budget,
        connect_timeout: CONNECT_TIMEOUT.min(config.limits.upstream_timeout),
        timeout: config.limits.upstream_timeout,
    };
    let upstream = Upstream::new(options, credentials(productive))?;
    let common = &source.common;
    let settings = Settings {
        linger: common.linger,
        passes: common.passes,
        feeds: productive.feeds,
        feed_poll: productive.feed_poll,
        backlog_max: config.limits.backlog,
        body_max: config.limits.hook_body.map(|size| size.0),
        public_url: common.public_url.as_ref().map(ToString::to_string),
        manages_hooks: productive.manage_token.is_some(),
        secrets: vec![(None, productive.secrets.clone())],
        brake: Brake { share: common.brake.share, rows: common.brake.rows, cap: common.brake.cap },
        breaker: BreakerOptions {
            failures: common.breaker.failures,
            open_for: common.breaker.open_for,
            open_max: common.breaker.open_max.max(common.breaker.open_for),
        },
        patience: PATIENCE,
    };
    let scope = format!("productive:org:{}", productive.organization);
    let limits = limits(&scope, productive)?;
    Ok(Source::new(name, Arc::new(connector), upstream, scope, limits, process, settings))
}

fn options(config: &Config, source: &config::Source, productive: &ProductiveConfig) -> Options {
    let resource = |(name, set): (&String, &config::Resource)| {
        let options = ResourceOptions {
            include: set.include.clone(),
            poll: Some(set.poll),
            sweep: Some(set.sweep),
            keep_deleted: set.keep_deleted,
            read_lag: set.read_lag,
        };
        (name.clone(), options)
    };
    Options {
        url: productive.url.clone(),
        organization: productive.organization,
        resources: source.resources.iter().map(resource).collect(),
        exclude: productive.exclude.clone(),
        read_lag: source.common.read_lag,
        list_lag: source.common.list_lag,
        keep_deleted: source.common.keep_deleted,
        tombstones: config.retention.tombstones,
        signature_tolerance: productive.signature_tolerance,
    }
}

/// Read anew for every request, so that a rotated file is picked up without a restart.
fn credentials(productive: &ProductiveConfig) -> Credentials {
    let (read, manage) = (productive.token.clone(), productive.manage_token.clone());
    Arc::new(move |which| {
        let secret = match which {
            Credential::Read => &read,
            Credential::Manage => manage.as_ref().ok_or_else(|| "manage_token is not set".to_owned())?,
            Credential::Client | Credential::Password => return Err("productive has no sessions".to_owned()),
        };
        secret.read().map(|text| text.expose().to_owned()).map_err(|error| error.to_string())
    })
}

/// The vendor's limits, or those that the configuration puts in their place.
fn limits(scope: &str, productive: &ProductiveConfig) -> Result<Limits, String> {
    let share = QuotaShare { token: productive.quota_share.token, organisation: productive.quota_share.organization };
    let Some(quotas) = &productive.quota else {
        let organization = productive.organization.to_string();
        return Limits::productive(&organization, &productive.token.reference(), share).map_err(|error| error.to_string());
    };
    let concurrent = quotas.iter().find_map(|quota| quota.concurrent).and_then(|cap| u32::try_from(cap).ok()).unwrap_or(8);
    let limits = quotas.iter().enumerate().filter_map(|(index, quota)| limit(scope, index, quota, share)).collect();
    let concurrency = Concurrency { cap: concurrent, floor: concurrent.div_ceil(2) };
    let expected = Class::ALL.map(|_| Expected { server_ms: 1_000, ..Expected::default() });
    Limits::new(limits, concurrency, expected).map_err(|error| error.to_string())
}

fn limit(scope: &str, index: usize, quota: &Quota, share: QuotaShare) -> Option<Limit> {
    let per = quota.per?;
    let share = match quota.scope {
        QuotaScope::Token => share.token,
        QuotaScope::Organization => share.organisation,
    };
    let id = format!("{scope}/{index}");
    match (quota.requests, quota.server_time) {
        (Some(amount), _) => Some(Limit { id, amount, shape: Shape::Window(per), unit: Unit::Requests, share }),
        (_, Some(time)) => {
            let amount = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            Some(Limit { id, amount, shape: Shape::Aligned(per), unit: Unit::ServerMillis, share })
        }
        _ => None,
    }
}
