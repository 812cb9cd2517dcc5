//! RESO Web API: records of real estate over OData, a log of events (RCP-27), and the pushes of that log (RCP-28).
//!
//! Contract: Web API Core 2.0.0 and 2.1.0, Data Dictionary 2.0, EntityEvent and Webhooks of the standard; what vendors do otherwise is
//! data ([`Profile`]). What Core 2.0.0 does not promise is tried and given up where it is refused: reads of several keys, and sweeps
//! from key to key.
//!
//! - An event names a record and says nothing else: created, changed, removed or out of sight look alike. Every one is a hint.
//! - The log has holes that mean nothing, and its links are not followed: each page asks for what lies above a number.
//! - A sweep goes from key to key where the server takes that, for links that count rows lose some when others are removed. An
//!   incremental pass goes from stamp to stamp for the same reason. Elsewhere links are followed, on the configured origin only.
//! - A filter of ours that a single record does not take is asked of the collection, so that what every read shows is one thing.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::connectors::{
    Absence, Asked, Column, Connector, Credential, FeedOrder, FeedPage, FeedPosition, FeedSpec, HookPolicy, HookSecret, Inviting,
    ListQuery, Login, Making, Overload, Page, ReadError, Refusal, Registered, Registration, RegistrationError, Request, ResourceSpec,
    Response, Resume, RetryAfter, Session, Statements, Unreadable, Verified,
};
use crate::model::ordering::{By, Spans};
use crate::model::{Delivery, HookRequest, Key, Operation, ResourceName};
use crate::reconcile::{Lists, Mode};

mod answers;
mod catalog;
mod cursor;
mod deliveries;
mod log;
mod login;
mod profile;
mod requests;
mod schema;
mod stamps;

pub use profile::{PROFILES, Profile, Rate, profile};
pub use schema::{EntityType, Schema, described};

/// The route of pushed events.
pub const EVENTS: &str = "events";
/// The resource that is the log of events.
pub const LOG: &str = "EntityEvent";
/// A record of the largest kind in a batch of some thousand events is far below it.
const HOOK_BODY_MAX: u64 = 16 * 1024 * 1024;
/// Changes are asked for every five minutes.
const DEFAULT_POLL: Duration = Duration::from_secs(5 * 60);
/// Where events are pushed and no log is read, nothing else shows that some were lost.
const POLL_WITHOUT_LOG: Duration = Duration::from_secs(60);
/// A complete comparison once a day, as consumers of the standard do without events.
const DEFAULT_SWEEP: Duration = Duration::from_secs(24 * 3600);

/// The resources that are replicated where nothing else is said.
pub const DEFAULT_RESOURCES: [&str; 5] = catalog::DEFAULTS;

/// How requests are authorised. The texts of secrets are elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// By a token that lasts.
    Token,
    /// By tokens that a client asks for (RFC 6749, section 4.4).
    Client {
        /// Its id.
        client_id: String,
        /// Where it asks.
        token_url: url::Url,
        /// What it asks for.
        scope: Option<String>,
        /// Whether it shows itself by a header; else in the form.
        basic: bool,
    },
}

/// What a user may set for one resource; `None` keeps the connector's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceOptions {
    /// The field that identifies a record.
    pub key: Option<String>,
    /// The field that says when it changed; empty: there is none.
    pub timestamp: Option<String>,
    /// Whether keys are numbers.
    pub numeric: bool,
    /// Only these fields, beside those that the connector needs; empty: all.
    pub select: Vec<String>,
    /// What of related records comes along.
    pub expand: Vec<String>,
    /// An OData filter of what is to be held.
    pub filter: Option<String>,
    /// Time between incremental passes.
    pub poll: Option<Duration>,
    /// Time between sweeps.
    pub sweep: Option<Duration>,
    /// How long a tombstone keeps its payload.
    pub keep_deleted: Option<Duration>,
    /// How long reads may lag.
    pub read_lag: Option<Duration>,
}

/// How pushes are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// Whether a record that comes along is taken as a read would show it.
    pub data: bool,
    /// How long the producer sends a refused delivery again.
    pub retries_for: Duration,
    /// How it is told when to come again.
    pub retry_after: RetryAfter,
    /// What it is told then.
    pub retry_after_span: Option<Duration>,
    /// How it is asked to deliver again once it has stopped.
    pub resume: Option<Resuming>,
}

/// A request that is nowhere standardised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resuming {
    /// Where it goes, on the origin.
    pub url: url::Url,
    /// How.
    pub method: http::Method,
    /// Headers beside the credential's.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Option<String>,
    /// After a log that told of events for so long that no delivery announced.
    pub after: Duration,
}

/// How the log is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// So many numbers below the highest are asked for again.
    pub overlap: u64,
    /// Rows per page.
    pub page: usize,
}

/// A producer as configured.
#[derive(Clone, Debug)]
pub struct Options {
    /// The service root, with a trailing slash.
    pub url: url::Url,
    /// How requests are authorised.
    pub auth: Auth,
    /// What its vendor does otherwise.
    pub profile: &'static Profile,
    /// Only records of this system (`OriginatingSystemName`).
    pub system: Option<String>,
    /// What we call the feed, and what the producer is to call it in its pushes; may be empty.
    pub label: String,
    /// Whether and how pushes are taken.
    pub push: Option<Push>,
    /// Whether and how the log is read.
    pub log: Option<Log>,
    /// Which resources, in the standard's or the producer's words, and what is set for each.
    pub resources: Vec<(String, ResourceOptions)>,
    /// What the producer's `$metadata` says, as far as it was saved.
    pub schema: Schema,
    /// Pointers into the record (with `*`) that are never stored and never hashed.
    pub exclude: Vec<String>,
    /// How long a read by key or in bulk may show an older state.
    pub read_lag: Duration,
    /// How long a list may.
    pub list_lag: Duration,
    /// How long a tombstone keeps its payload where the resource does not say.
    pub keep_deleted: Duration,
    /// How long a tombstone's skeleton is kept.
    pub tombstones: Duration,
}

/// What is known of a resource that is replicated.
#[derive(Clone, Debug)]
struct Table {
    name: String,
    key: String,
    numeric: bool,
    timestamp: Option<String>,
    /// Empty: all fields.
    select: Vec<String>,
    expand: Vec<String>,
    filter: Option<String>,
    parent: Option<catalog::Parent>,
}

impl Table {
    /// What is left out of the hash of its records.
    fn volatile(&self) -> Vec<String> {
        self.timestamp.iter().map(|field| format!("/{field}")).collect()
    }
}

/// The connector.
#[derive(Debug)]
pub struct Reso {
    options: Options,
    tables: Vec<Table>,
    resources: Vec<ResourceSpec>,
    feeds: Vec<FeedSpec>,
}

impl Reso {
    /// Builds the connector.
    ///
    /// # Errors
    /// Says of which resource what is not known.
    pub fn new(options: Options) -> Result<Self, String> {
        if options.profile.needs_system && options.system.is_none() {
            return Err(format!("profile \"{}\" needs originating_system: every request names exactly one", options.profile.name));
        }
        let tables = options.resources.iter().map(|(name, set)| table(name, set, &options)).collect::<Result<Vec<_>, _>>()?;
        let resources = tables.iter().zip(&options.resources).map(|(table, (_, set))| spec(table, set, &options));
        let resources = resources.collect::<Result<Vec<_>, _>>()?;
        let log = options.log.map(|log| FeedSpec {
            name: LOG,
            order: FeedOrder::Numbers { overlap: log.overlap, page: log.page, label: options.label.clone() },
        });
        Ok(Self { feeds: log.into_iter().collect(), options, tables, resources })
    }

    fn table(&self, resource: &ResourceSpec) -> &Table {
        self.named(resource.name.as_str()).expect("invariant: a spec is made from a table")
    }

    fn named(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// Under the name by which an event calls it; that producers keep to capitals is not sure.
    fn replicates(&self, name: &str) -> Option<&ResourceSpec> {
        let exact = self.resources.iter().find(|spec| spec.name.as_str() == name);
        exact.or_else(|| self.resources.iter().find(|spec| spec.name.as_str().eq_ignore_ascii_case(name)))
    }

    fn nothing(&self) -> Request {
        requests::get(self, "/".to_owned(), "", &[])
    }
}

fn table(name: &str, set: &ResourceOptions, options: &Options) -> Result<Table, String> {
    let (kind, described) = (catalog::find(name), options.schema.get(name));
    if options.profile.expanded_only.contains(&name) {
        let profile = options.profile.name;
        return Err(format!("resource `{name}` has no collection of its own at \"{profile}\": give it in expand of Property"));
    }
    let key = set.key.clone().or_else(|| described.map(|found| found.key.clone())).or_else(|| kind.map(|kind| kind.key.to_owned()));
    let key = key.ok_or_else(|| format!("the key of resource `{name}` is not known: set its key, or metadata"))?;
    let timestamp = set.timestamp.clone().unwrap_or_else(|| options.profile.timestamp.to_owned());
    let is_there = |field: &String| !field.is_empty() && described.is_none_or(|found| found.has(field));
    Ok(Table {
        name: name.to_owned(),
        numeric: set.numeric || described.is_some_and(|found| found.numeric && set.key.is_none()),
        key,
        timestamp: Some(timestamp).filter(is_there),
        select: set.select.clone(),
        expand: set.expand.clone(),
        filter: set.filter.clone().filter(|filter| !filter.trim().is_empty()),
        parent: kind.and_then(|kind| kind.parent),
    })
}

fn spec(table: &Table, set: &ResourceOptions, options: &Options) -> Result<ResourceSpec, String> {
    let name = ResourceName::new(&table.name).map_err(|error| format!("the name of resource `{}` {error}", table.name))?;
    let has_parent = |parent: &catalog::Parent| options.resources.iter().any(|(name, _)| name == parent.resource);
    let parent = table.parent.filter(has_parent).and_then(|parent| ResourceName::new(parent.resource).ok());
    Ok(ResourceSpec {
        name,
        columns: columns(table, options),
        mode: if table.timestamp.is_some() { Mode::Watermark } else { Mode::Sweep },
        variants: 1,
        bulk: options.profile.bulk,
        spans: Spans {
            read_lag: set.read_lag.unwrap_or(options.read_lag),
            list_lag: options.list_lag.max(options.profile.list_lag),
            version_skew: Duration::from_secs(60),
            tombstones: options.tombstones,
        },
        absence: Absence::ByKey,
        poll: set.poll.unwrap_or(if options.push.is_some() && options.log.is_none() { POLL_WITHOUT_LOG } else { DEFAULT_POLL }),
        sweep: set.sweep.unwrap_or(DEFAULT_SWEEP),
        keep_deleted: set.keep_deleted.unwrap_or(options.keep_deleted),
        parent,
        inherits: false,
        values: None,
    })
}

/// Of what was saved of the producer's own description, else of the built-in part of the Data Dictionary.
fn columns(table: &Table, options: &Options) -> Vec<Column> {
    let column = |(field, kind): (&str, crate::connectors::ColumnKind)| Column {
        // So that it may be written with its capitals or without, unquoted, on both stores.
        name: field.to_ascii_lowercase(),
        pointer: format!("/{}", field.replace('~', "~0").replace('/', "~1")),
        kind,
        reference: field != table.key && catalog::is_reference(field),
    };
    let is_asked = |field: &str| {
        let is_needed = field == table.key || table.timestamp.as_deref() == Some(field) || table.parent.is_some_and(|p| p.key == field);
        table.select.is_empty() || is_needed || table.select.iter().any(|asked| asked == field)
    };
    let described = options.schema.get(&table.name).map(|found| found.fields());
    let fields: Vec<_> = match (described, catalog::find(&table.name)) {
        (Some(fields), _) => fields.collect(),
        (None, Some(kind)) => kind.columns.iter().copied().chain(catalog::COMMON).collect(),
        (None, None) => catalog::COMMON.to_vec(),
    };
    fields.into_iter().filter(|(field, _)| is_asked(field)).map(column).collect()
}

impl Connector for Reso {
    fn kind(&self) -> &'static str {
        "reso"
    }

    fn resources(&self) -> &[ResourceSpec] {
        &self.resources
    }

    fn feeds(&self) -> &[FeedSpec] {
        &self.feeds
    }

    fn hook_routes(&self) -> Vec<&'static str> {
        self.options.push.iter().map(|_| EVENTS).collect()
    }

    fn announced_by(&self, _resource: &ResourceName, _operation: Operation) -> Vec<&'static str> {
        self.hook_routes()
    }

    fn hook_policy(&self, route: &str) -> Option<HookPolicy> {
        let push = self.options.push.as_ref().filter(|_| route == EVENTS)?;
        Some(HookPolicy {
            body_max: HOOK_BODY_MAX,
            // The one answer to which the standard gives a meaning.
            overload: Overload::TooManyRequests,
            retries_for: push.retries_for,
            signature_headers: &["authorization"],
            retry_after: push.retry_after,
            retry_after_span: push.retry_after_span,
            cap: None,
        })
    }

    fn inviting(&self) -> Option<Inviting> {
        self.options.push.as_ref()?;
        let label = Some(("EntityEventSource", self.options.label.clone())).filter(|(_, label)| !label.is_empty());
        Some(Inviting { route: EVENTS, header: "Authorization", scheme: "Bearer", label })
    }

    fn resume(&self) -> Option<Resume> {
        let resuming = self.options.push.as_ref()?.resume.as_ref()?;
        Some(Resume { request: requests::resume(self, resuming), after: resuming.after })
    }

    fn verify(&self, request: &HookRequest, secrets: &[HookSecret], _now: Timestamp) -> Result<Verified, Refusal> {
        deliveries::verify(self, request, secrets)
    }

    fn events(&self, delivery: &Delivery) -> Result<Statements, Unreadable> {
        deliveries::statements(self, delivery)
    }

    fn fitting(&self, resource: &ResourceSpec, keys: &[Key]) -> usize {
        requests::fitting(self, resource, keys)
    }

    fn fetch(&self, resource: &ResourceSpec, keys: &[Key], by: By) -> Request {
        requests::fetch(self, resource, keys, by)
    }

    fn lists(&self, resource: &ResourceSpec) -> Lists {
        let page = requests::page_size(self, self.table(resource), 0) as u64;
        Lists { variants: resource.variants as u64, page, above: None }
    }

    fn list(&self, resource: &ResourceSpec, query: ListQuery<'_>) -> Request {
        requests::list(self, resource, query)
    }

    fn volatile(&self, resource: &ResourceSpec) -> Vec<String> {
        self.table(resource).volatile()
    }

    fn read(&self, resource: &ResourceSpec, asked: Asked<'_>, response: &Response) -> Result<Page, ReadError> {
        answers::page(self, resource, asked, response)
    }

    fn feed(&self, _feed: &FeedSpec, position: FeedPosition<'_>) -> Request {
        log::request(self, position)
    }

    fn read_feed(&self, _feed: &FeedSpec, response: &Response) -> Result<FeedPage, ReadError> {
        log::page(self, response)
    }

    fn describe(&self) -> Option<Request> {
        Some(requests::describe(self))
    }

    fn authorize(&self, _request: &Request, secret: &str) -> Vec<(String, String)> {
        vec![("authorization".into(), format!("Bearer {secret}"))]
    }

    fn login_needs(&self) -> &'static [Credential] {
        match self.options.auth {
            Auth::Client { .. } => &[Credential::Client],
            Auth::Token => &[],
        }
    }

    fn login(&self, texts: &[String], _refresh: Option<&str>) -> Option<Login> {
        login::login(self, texts)
    }

    fn read_login(&self, response: &Response) -> Result<Session, ReadError> {
        login::session(response)
    }

    /// The standard knows none: senders are invited.
    fn registrations(&self) -> Vec<Registration> {
        Vec::new()
    }

    fn list_registrations(&self, _cursor: Option<&str>) -> Request {
        self.nothing()
    }

    fn read_registrations(
        &self,
        _response: &Response,
        _target: &dyn Fn(&str) -> String,
    ) -> Result<(Vec<Registered>, Option<String>), RegistrationError> {
        Ok((Vec::new(), None))
    }

    fn create_registration(&self, _registration: &Registration, _making: Making<'_>) -> Option<Request> {
        None
    }

    fn delete_registration(&self, _id: &str) -> Request {
        self.nothing()
    }
}

#[cfg(test)]
mod tests;
