//! A source of kind "productive".

use std::sync::Arc;

use super::Kind;
use crate::config::{self, Config, Productive as ProductiveConfig, Quota, QuotaScope};
use crate::connectors::Credential;
use crate::connectors::productive::{Options, Productive, ResourceOptions};
use crate::quota::{Class, Concurrency, Expected, Limit, Limits, QuotaShare, Shape, Unit};
use crate::upstream::Credentials;

pub(super) fn kind(config: &Config, source: &config::Source, productive: &ProductiveConfig) -> Result<Kind, String> {
    let scope = format!("productive:org:{}", productive.organization);
    Ok(Kind {
        connector: Arc::new(Productive::new(options(config, source, productive))?),
        root: productive.url.clone(),
        also: Vec::new(),
        credentials: credentials(productive),
        limits: limits(&scope, productive)?,
        scope,
        feeds: productive.feeds,
        feed_poll: productive.feed_poll,
        manages_hooks: productive.manage_token.is_some(),
        secrets: vec![(None, productive.secrets.clone())],
    })
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
