//! Productive.io: thin webhooks, three event feeds, JSON:API documents.
//!
//! Contract: the vendor's API guides (pagination, filtering, rate limits, webhooks, error handling), version 2.
//! What is undocumented is configurable ([`Options::read_lag`]) or handled both ways (an id as string or number, two deletion
//! words, a relation that an answer leaves out).
//!
//! - A delivery is a hint. Its body is the state after the change, but thinner than a read, so it is never applied.
//! - Each webhook registration carries one event id; the route tells which, so nothing depends on the body's own verb.
//! - A relation that was not asked for comes back without linkage. Every to-one relation is asked for, always; if one is
//!   "not included" all the same the record is refused, since storing it would erase a foreign key.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::connectors::signature;
use crate::connectors::{
    Absence, Asked, Column, ColumnKind, Connector, FeedPage, FeedPosition, FeedSpec, HookPolicy, HookSecret, ListQuery, Making, Overload,
    Page, ReadError, Refusal, Registered, Registration, RegistrationError, Request, ResourceSpec, Response, RetryAfter, Statements,
    Unreadable, Verified,
};
use crate::model::ordering::{By, Spans};
use crate::model::{Delivery, HookRequest, Key, Operation, ResourceName};
use crate::reconcile::{Lists, Mode};

mod answers;
mod catalog;
mod requests;

use catalog::{Changes, HOOK_EVENTS, HookEvent, KINDS, Kind};

/// Largest page the vendor serves.
const PAGE_SIZE: usize = 200;
/// Productive's deliveries are single documents with their includes; 2 MiB is far above what was ever seen.
const HOOK_BODY_MAX: u64 = 2 * 1024 * 1024;
/// The vendor's texts name spans between 12 hours and two days; the shortest is counted on.
const RETRIES_FOR: Duration = Duration::from_secs(12 * 3600);
const SIGNATURE_HEADER: &str = "productive-signature";

/// The names of everything that can be replicated, in the vendor's words.
#[must_use]
pub fn resource_names() -> Vec<&'static str> {
    KINDS.iter().map(|kind| kind.name).collect()
}

/// What a user may set for one resource; `None` keeps the connector's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceOptions {
    /// Further relations for the projection.
    pub include: Vec<String>,
    /// Time between incremental passes.
    pub poll: Option<Duration>,
    /// Time between sweeps.
    pub sweep: Option<Duration>,
    /// How long a tombstone keeps its payload.
    pub keep_deleted: Option<Duration>,
    /// How long reads may lag.
    pub read_lag: Option<Duration>,
}

/// A Productive organisation as configured.
#[derive(Clone, Debug)]
pub struct Options {
    /// API root, with a trailing slash: `https://api.productive.io/api/v2/`.
    pub url: url::Url,
    /// The organisation's number.
    pub organization: u64,
    /// Which resources, in the vendor's words, and what is set for each.
    pub resources: Vec<(String, ResourceOptions)>,
    /// Pointers into the record (with `*`) that are never stored and never hashed.
    pub exclude: Vec<String>,
    /// How long a read by key or in bulk may show an older state. Undocumented upstream.
    pub read_lag: Duration,
    /// How long a list may.
    pub list_lag: Duration,
    /// How long a tombstone keeps its payload where the resource does not say.
    pub keep_deleted: Duration,
    /// How long a tombstone's skeleton is kept.
    pub tombstones: Duration,
    /// Refuse signatures whose stamp is further away than this; the vendor documents no window, so off by default.
    pub signature_tolerance: Option<Duration>,
}

/// The connector.
#[derive(Debug)]
pub struct Productive {
    options: Options,
    resources: Vec<ResourceSpec>,
    feeds: Vec<FeedSpec>,
}

impl Productive {
    /// Builds the connector.
    ///
    /// # Errors
    /// Names the first resource that Productive does not have.
    pub fn new(options: Options) -> Result<Self, String> {
        let resources = options
            .resources
            .iter()
            .map(|(name, set)| match kind(name) {
                Some(kind) => Ok(spec(kind, set, &options)),
                None => Err(format!("productive has no resource `{name}`")),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut feeds = vec![catalog::ACTIVITIES, catalog::DELETED_ITEMS];
        if resources.iter().any(|spec| spec.name.as_str() == "time_entries") {
            feeds.push(catalog::TIME_ENTRY_VERSIONS);
        }
        Ok(Self { options, resources, feeds })
    }

    /// As if records of `resource` stood below those of `parent`; for tests of what such connectors need.
    #[cfg(test)]
    pub(crate) fn stand_below(mut self, resource: &ResourceName, parent: &ResourceName) -> Self {
        for spec in self.resources.iter_mut().filter(|spec| spec.name == *resource) {
            spec.parent = Some(parent.clone());
            spec.inherits = true;
        }
        self
    }

    /// The relations that every read of `kind` asks for.
    fn relations<'a>(&'a self, kind: &'a Kind) -> impl Iterator<Item = &'a str> {
        let set = self.options.resources.iter().find(|(name, _)| name == kind.name).map(|(_, set)| set);
        let extra = set.into_iter().flat_map(|set| set.include.iter().map(String::as_str));
        kind.relations.iter().copied().chain(extra.filter(|name| !kind.relations.contains(name)))
    }

    fn replicates(&self, resource: &str) -> Option<ResourceName> {
        self.resources.iter().map(|spec| &spec.name).find(|name| name.as_str() == resource).cloned()
    }
}

fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

fn spec(kind: &'static Kind, set: &ResourceOptions, options: &Options) -> ResourceSpec {
    let mode = match kind.changes {
        Changes::Since(_) | Changes::SinceDay(_) => Mode::Watermark,
        Changes::Newest(_) => Mode::SortAndStop,
        Changes::None => Mode::Sweep,
    };
    let attributes = kind.columns.iter().map(|(name, kind)| Column {
        name: (*name).to_owned(),
        pointer: format!("/attributes/{name}"),
        kind: *kind,
        reference: false,
    });
    let extra = set.include.iter().map(String::as_str).filter(|name| !kind.relations.contains(name));
    let relations = kind.relations.iter().copied().chain(extra).map(|name| Column {
        name: format!("{name}_id"),
        pointer: format!("/relationships/{name}/data/id"),
        kind: ColumnKind::Text,
        reference: true,
    });
    ResourceSpec {
        name: ResourceName::new(kind.name).expect("invariant: catalog names are resource names"),
        columns: attributes.chain(relations).collect(),
        mode,
        variants: kind.variants.len(),
        bulk: PAGE_SIZE,
        spans: Spans {
            read_lag: set.read_lag.unwrap_or(options.read_lag),
            list_lag: options.list_lag,
            version_skew: Duration::from_secs(60),
            tombstones: options.tombstones,
        },
        absence: Absence::ByKey,
        poll: set.poll.unwrap_or(DEFAULT_POLL),
        sweep: set.sweep.unwrap_or(DEFAULT_SWEEP),
        keep_deleted: set.keep_deleted.unwrap_or(options.keep_deleted),
        parent: None,
        inherits: false,
        values: None,
    }
}

/// Changes are asked for every five minutes: with 22 resources about 130 of the 4,000 requests in 30 minutes.
const DEFAULT_POLL: Duration = Duration::from_secs(5 * 60);
/// A complete comparison once a day finds what no event and no filter tells.
const DEFAULT_SWEEP: Duration = Duration::from_secs(24 * 3600);

impl Connector for Productive {
    fn kind(&self) -> &'static str {
        "productive"
    }

    fn resources(&self) -> &[ResourceSpec] {
        &self.resources
    }

    fn feeds(&self) -> &[FeedSpec] {
        &self.feeds
    }

    fn hook_routes(&self) -> Vec<&'static str> {
        HOOK_EVENTS.iter().map(|event| event.route).collect()
    }

    fn announced_by(&self, resource: &ResourceName, operation: Operation) -> Vec<&'static str> {
        let is_it = |event: &&HookEvent| event.resource == resource.as_str() && event.operation == operation;
        HOOK_EVENTS.iter().filter(is_it).map(|event| event.route).collect()
    }

    fn hook_policy(&self, route: &str) -> Option<HookPolicy> {
        HOOK_EVENTS.iter().any(|event| event.route == route).then_some(HookPolicy {
            body_max: HOOK_BODY_MAX,
            overload: Overload::Unavailable,
            retries_for: RETRIES_FOR,
            signature_headers: &[SIGNATURE_HEADER],
            retry_after: RetryAfter::Seconds,
            retry_after_span: None,
            cap: None,
        })
    }

    fn verify(&self, request: &HookRequest, secrets: &[HookSecret], now: Timestamp) -> Result<Verified, Refusal> {
        if !HOOK_EVENTS.iter().any(|event| event.route == request.route) {
            return Err(Refusal::Route);
        }
        let header = request.header(SIGNATURE_HEADER).ok_or(Refusal::Unsigned)?;
        let (stamp, mac) = parse_signature(header).ok_or(Refusal::Unsigned)?;
        if let Some(tolerance) = self.options.signature_tolerance {
            let seconds: i64 = stamp.parse().map_err(|_| Refusal::Unsigned)?;
            let at = Timestamp(seconds.saturating_mul(1_000_000));
            if now.since(at).max(at.since(now)) > tolerance {
                return Err(Refusal::Mismatch);
            }
        }
        // Two registrations may share one token, so the route orders the attempts and never forbids one.
        let matches =
            |secret: &HookSecret| signature::hmac_sha256_hex(secret.text.as_bytes(), &[stamp.as_bytes(), b".", &request.body], mac);
        let own = secrets.iter().filter(|secret| secret.route.as_deref() == Some(&request.route));
        let others = secrets.iter().filter(|secret| secret.route.as_deref() != Some(&request.route));
        if !own.chain(others).any(matches) {
            return Err(Refusal::Mismatch);
        }
        Ok(Verified { dedupe: signature::digest(&[request.route.as_bytes(), &request.body]) })
    }

    fn events(&self, delivery: &Delivery) -> Result<Statements, Unreadable> {
        answers::events(self, delivery)
    }

    fn fetch(&self, resource: &ResourceSpec, keys: &[Key], by: By) -> Request {
        requests::fetch(self, resource, keys, by)
    }

    fn lists(&self, resource: &ResourceSpec) -> Lists {
        Lists { variants: resource.variants as u64, page: PAGE_SIZE as u64, above: None }
    }

    fn list(&self, resource: &ResourceSpec, query: ListQuery<'_>) -> Request {
        requests::list(self, resource, query)
    }

    fn volatile(&self, resource: &ResourceSpec) -> Vec<String> {
        answers::volatile(resource)
    }

    fn read(&self, resource: &ResourceSpec, asked: Asked<'_>, response: &Response) -> Result<Page, ReadError> {
        answers::page(self, resource, asked.by(), response)
    }

    fn feed(&self, feed: &FeedSpec, position: FeedPosition<'_>) -> Request {
        requests::feed(self, feed, position)
    }

    fn read_feed(&self, feed: &FeedSpec, response: &Response) -> Result<FeedPage, ReadError> {
        answers::feed_page(self, feed, response)
    }

    fn authorize(&self, _request: &Request, secret: &str) -> Vec<(String, String)> {
        vec![("x-auth-token".into(), secret.into()), ("x-organization-id".into(), self.options.organization.to_string())]
    }

    fn registrations(&self) -> Vec<Registration> {
        HOOK_EVENTS
            .iter()
            .filter(|event| self.replicates(event.resource).is_some())
            .map(|event| Registration { route: event.route.to_owned(), title: format!("instep {}", event.route) })
            .collect()
    }

    fn list_registrations(&self, cursor: Option<&str>) -> Request {
        requests::list_registrations(self, cursor)
    }

    fn read_registrations(
        &self,
        response: &Response,
        target: &dyn Fn(&str) -> String,
    ) -> Result<(Vec<Registered>, Option<String>), RegistrationError> {
        answers::registrations(response, target)
    }

    fn create_registration(&self, registration: &Registration, making: Making<'_>) -> Option<Request> {
        Some(requests::create_registration(self, registration, making.target))
    }

    fn delete_registration(&self, id: &str) -> Request {
        requests::delete_registration(self, id)
    }
}

/// `t=1568031758, s=<hex>`, with or without the space: the vendor's pages show both.
fn parse_signature(header: &str) -> Option<(&str, &str)> {
    let (mut stamp, mut mac) = (None, None);
    for part in header.split(',') {
        match part.trim().split_once('=')? {
            ("t", value) => stamp = Some(value),
            ("s", value) => mac = Some(value),
            _ => {}
        }
    }
    Some((stamp?, mac?))
}

#[cfg(test)]
mod tests;
