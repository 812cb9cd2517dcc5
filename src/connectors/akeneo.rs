//! Akeneo PIM: two event systems side by side, and a REST API that bulk reads come from.
//!
//! Contract: the vendor's API reference, its pages on the Events API and the Event Platform, and its published source. What is
//! undocumented is configurable ([`Options::read_lag`], [`Options::zone_seconds`]) or handled both ways (an empty map as `[]` or
//! `{}`, two names of a list, a missing uuid).
//!
//! - Every delivery is a hint. The Events API pushes whole products, but in a shape that depends on a switch in the vendor's UI, on
//!   the permissions of the connection and on no read's parameters; one bulk read of a hundred settles it. Where the push carries
//!   `updated`, which has whole seconds, the hint has it as its version: an old one is then dropped without a read.
//! - A variant's `updated` stays when a model above it changes, although its values change with it. So equal versions prove nothing:
//!   the hash decides, and the ordering rule applies another content of the same version when the look is late enough.
//! - Lists and searches come from an index that lags; reads of one record do not. So absence in a bulk read is only a suspicion.
//! - A list is asked for a channel, locales and attributes, but a single record cannot be: the projection is applied to every answer.
//! - Sessions: a token of an hour by the password grant, refreshed; or the token of an app, which lasts.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::connectors::{
    Absence, Asked, Cap, Column, ColumnKind, Connector, Credential, FeedPage, FeedPosition, FeedSpec, HookPolicy, HookSecret, ListQuery,
    Login, Making, Overload, Page, ReadError, Refusal, Registered, Registration, RegistrationError, Request, ResourceSpec, Response,
    Retiring, RetryAfter, Session, Statements, Unreadable, ValuesView, Verified,
};
use crate::model::ordering::{By, Spans};
use crate::model::{Delivery, HookRequest, Key, Operation, ResourceName};
use crate::reconcile::{Lists, Mode};

mod answers;
mod catalog;
mod cursor;
mod deliveries;
mod keep;
mod login;
mod platform;
mod requests;
mod zone;

use catalog::{Changes, KINDS, Kind};
pub use keep::Keep;
pub use platform::Management;

/// The route of the Events API.
pub const EVENTS: &str = "events";
/// The route of the Event Platform.
pub const PLATFORM: &str = "platform";
/// The route of what the Event Platform says about its subscriptions.
pub const NOTIFICATIONS: &str = "notifications";

/// Ten whole products, each with the longest texts and a thousand values, are far below it.
const HOOK_BODY_MAX: u64 = 16 * 1024 * 1024;
/// 5, 10 and 20 minutes after one another; the shortest sum is counted on.
const PLATFORM_RETRIES_FOR: Duration = Duration::from_secs(35 * 60);
/// Notifications come three times, one and two seconds apart.
const NOTIFICATION_RETRIES_FOR: Duration = Duration::from_secs(3);
/// The vendor ends the Events API with the year 2026.
const EVENTS_API_ENDS: Timestamp = Timestamp(1_798_761_600_000_000);
/// The vendor sends so many requests an hour, to all subscriptions of a PIM together; then it sleeps, and drops what has waited for two
/// hours. Ours alone reach it later than all of them do.
const EVENTS_API_CAP: Cap = Cap { deliveries: 4_000, window: Duration::from_secs(3_600) };
/// Changes are asked for every minute: nothing else shows that events were lost.
const DEFAULT_POLL: Duration = Duration::from_secs(60);
/// A complete comparison once a day finds what no event and no filter tells.
const DEFAULT_SWEEP: Duration = Duration::from_secs(24 * 3600);
/// Columns that hold the key of another record.
const REFERENCES: [&str; 4] = ["parent", "family", "attribute", "group"];

/// The names of everything that can be replicated, in the vendor's words.
#[must_use]
pub fn resource_names() -> Vec<&'static str> {
    KINDS.iter().map(|kind| kind.name).collect()
}

/// What identifies a product.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProductKey {
    /// Its uuid: PIMs from 7.0 on.
    #[default]
    Uuid,
    /// Its identifier: older ones. Products without one are not replicated.
    Identifier,
}

/// How requests are authorised. The texts of secrets are elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// By the password grant of a connection.
    Password {
        /// The connection's client id.
        client_id: String,
        /// The connection's user.
        username: String,
    },
    /// By the token of an app, which does not expire.
    App,
}

/// What a user may set for one resource; `None` keeps the connector's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceOptions {
    /// Time between incremental passes.
    pub poll: Option<Duration>,
    /// Time between sweeps.
    pub sweep: Option<Duration>,
    /// How long a tombstone keeps its payload.
    pub keep_deleted: Option<Duration>,
    /// How long reads may lag.
    pub read_lag: Option<Duration>,
    /// Of values that have a channel only those of this one. Products and models.
    pub scope: Option<String>,
    /// Of values that have a locale only those of these; empty: all. Products and models.
    pub locales: Vec<String>,
    /// Only values of these attributes; empty: all. Products and models.
    pub attributes: Vec<String>,
    /// Which records are relevant.
    pub keep: Keep,
}

/// A PIM as configured.
#[derive(Clone, Debug)]
pub struct Options {
    /// The PIM's root, with a trailing slash: `https://acme.cloud.akeneo.com/`.
    pub url: url::Url,
    /// How requests are authorised.
    pub auth: Auth,
    /// The server's zone, in seconds east of UTC: what the zone-less filter of products is read in. Where it has summer time, the
    /// winter's: an earlier bound only asks for more.
    pub zone_seconds: i32,
    /// What identifies a product.
    pub product_key: ProductKey,
    /// Which resources, in the vendor's words, and what is set for each.
    pub resources: Vec<(String, ResourceOptions)>,
    /// Whether deliveries of the Events API are taken.
    pub events_api: bool,
    /// Whether deliveries of the Event Platform are taken.
    pub event_platform: bool,
    /// Whether notifications of the Event Platform are taken.
    pub notifications: bool,
    /// How subscriptions to the Event Platform are made and watched; `None`: by hand.
    pub platform: Option<Management>,
    /// Whose changes are left to passes: our own writes, by user name or client id.
    pub ignore_authors: Vec<String>,
    /// The ids of our subscriptions to the Event Platform; empty: any that is signed with our secrets.
    pub subscriptions: Vec<String>,
    /// Pointers into the record (with `*`) that are never stored and never hashed.
    pub exclude: Vec<String>,
    /// How long a read by key or in bulk may show an older state: bulk reads come from an index.
    pub read_lag: Duration,
    /// How long a list may.
    pub list_lag: Duration,
    /// How long a tombstone keeps its payload where the resource does not say.
    pub keep_deleted: Duration,
    /// How long a tombstone's skeleton is kept.
    pub tombstones: Duration,
}

/// The connector.
#[derive(Debug)]
pub struct Akeneo {
    options: Options,
    resources: Vec<ResourceSpec>,
}

impl Akeneo {
    /// Builds the connector.
    ///
    /// # Errors
    /// Names the first resource that Akeneo does not have.
    pub fn new(options: Options) -> Result<Self, String> {
        let resources = options
            .resources
            .iter()
            .map(|(name, set)| match kind(name) {
                Some(kind) => Ok(spec(kind, set, &options)),
                None => Err(format!("akeneo has no resource `{name}`")),
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { options, resources })
    }

    fn resource(&self, kind: &Kind) -> Option<&ResourceOptions> {
        self.options.resources.iter().find(|(name, _)| name == kind.name).map(|(_, set)| set)
    }

    fn replicates(&self, resource: &str) -> Option<ResourceName> {
        self.resources.iter().map(|spec| &spec.name).find(|name| name.as_str() == resource).cloned()
    }

    fn keeps_below(&self, resource: &str, above: &str) -> bool {
        let set = self.options.resources.iter().find(|(name, _)| name == resource);
        set.is_none_or(|(_, set)| set.keep.keeps_below(above))
    }

    fn ignores(&self, author: &str) -> bool {
        self.options.ignore_authors.iter().any(|ignored| ignored == author)
    }

    fn subscribed(&self, subscription: &str) -> bool {
        self.options.subscriptions.is_empty() || self.options.subscriptions.iter().any(|ours| ours == subscription)
    }

    fn routes(&self) -> Vec<&'static str> {
        let routes =
            [(EVENTS, self.options.events_api), (PLATFORM, self.options.event_platform), (NOTIFICATIONS, self.options.notifications)];
        routes.into_iter().filter(|(_, is_taken)| *is_taken).map(|(route, _)| route).collect()
    }
}

fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

fn name(text: &str) -> ResourceName {
    ResourceName::new(text).expect("invariant: catalog names are resource names")
}

fn spec(kind: &'static Kind, set: &ResourceOptions, options: &Options) -> ResourceSpec {
    let column = |(name, kind): &(&str, ColumnKind)| Column {
        name: (*name).to_owned(),
        pointer: format!("/{name}"),
        kind: *kind,
        reference: REFERENCES.contains(name),
    };
    let values = format!("{}_values", kind.name.replace('-', "_").trim_end_matches('s'));
    ResourceSpec {
        name: name(kind.name),
        columns: kind.columns.iter().map(column).collect(),
        mode: if kind.changes == Changes::None { Mode::Sweep } else { Mode::Watermark },
        variants: 1,
        bulk: if kind.bulk.is_some() { requests::PAGE_SIZE } else { 1 },
        spans: Spans {
            read_lag: set.read_lag.unwrap_or(options.read_lag),
            list_lag: options.list_lag,
            version_skew: Duration::from_secs(60),
            tombstones: options.tombstones,
        },
        // Measurement families too: they have no read of one, but their list is whole and comes from no index.
        absence: Absence::ByKey,
        poll: set.poll.unwrap_or(DEFAULT_POLL),
        sweep: set.sweep.unwrap_or(DEFAULT_SWEEP),
        keep_deleted: set.keep_deleted.unwrap_or(options.keep_deleted),
        parent: kind.has_values.then(|| name("product-models")),
        inherits: kind.has_values,
        values: kind.has_values.then(|| ValuesView { name: values, pointer: "/values".to_owned() }),
    }
}

impl Connector for Akeneo {
    fn kind(&self) -> &'static str {
        "akeneo"
    }

    fn resources(&self) -> &[ResourceSpec] {
        &self.resources
    }

    /// There are none.
    fn feeds(&self) -> &[FeedSpec] {
        &[]
    }

    fn hook_routes(&self) -> Vec<&'static str> {
        self.routes()
    }

    fn announced_by(&self, resource: &ResourceName, _operation: Operation) -> Vec<&'static str> {
        // What an ignored author wrote is told and left alone, and nothing of a change says who made it.
        if !self.options.ignore_authors.is_empty() {
            return Vec::new();
        }
        let by_events = matches!(resource.as_str(), "products" | "product-models");
        let by_platform = catalog::SUBJECTS.iter().any(|subject| subject.resource == resource.as_str());
        let tells = |route: &&'static str| *route == EVENTS && by_events || *route == PLATFORM && by_platform;
        self.routes().into_iter().filter(tells).collect()
    }

    fn hook_policy(&self, route: &str) -> Option<HookPolicy> {
        let (overload, retries_for, signature_headers): (_, _, &[&str]) = match route {
            // It sends each event once: what is refused is lost, and a 429 only makes it lose more.
            EVENTS => (Overload::Accept, Duration::ZERO, &[deliveries::EVENTS_SIGNATURE]),
            // A 429 lowers its pace; everything else counts against the subscription.
            PLATFORM => (Overload::TooManyRequests, PLATFORM_RETRIES_FOR, &[deliveries::PRIMARY, deliveries::SECONDARY]),
            // They are few, and say that nothing else comes.
            NOTIFICATIONS => (Overload::Accept, NOTIFICATION_RETRIES_FOR, &[deliveries::PRIMARY, deliveries::SECONDARY]),
            _ => return None,
        };
        let policy = HookPolicy {
            body_max: HOOK_BODY_MAX,
            overload,
            retries_for,
            signature_headers,
            retry_after: RetryAfter::Seconds,
            retry_after_span: None,
            cap: (route == EVENTS).then_some(EVENTS_API_CAP),
        };
        self.routes().contains(&route).then_some(policy)
    }

    fn retiring(&self) -> Option<Retiring> {
        self.options.events_api.then_some(Retiring { route: EVENTS, from: EVENTS_API_ENDS })
    }

    fn verify(&self, request: &HookRequest, secrets: &[HookSecret], _now: Timestamp) -> Result<Verified, Refusal> {
        deliveries::verify(self, request, secrets)
    }

    fn events(&self, delivery: &Delivery) -> Result<Statements, Unreadable> {
        deliveries::statements(self, delivery)
    }

    fn fitting(&self, _resource: &ResourceSpec, keys: &[Key]) -> usize {
        requests::fitting(keys)
    }

    fn fetch(&self, resource: &ResourceSpec, keys: &[Key], by: By) -> Request {
        requests::fetch(self, resource, keys, by)
    }

    fn lists(&self, resource: &ResourceSpec) -> Lists {
        let is_nested = KINDS.iter().any(|kind| kind.name == resource.name.as_str() && kind.above.is_some());
        let above = is_nested.then_some(cursor::ABOVE_PAGE as u64);
        Lists { variants: resource.variants as u64, page: requests::PAGE_SIZE as u64, above }
    }

    fn list(&self, resource: &ResourceSpec, query: ListQuery<'_>) -> Request {
        requests::list(self, resource, query)
    }

    fn volatile(&self, _resource: &ResourceSpec) -> Vec<String> {
        answers::volatile()
    }

    fn read(&self, resource: &ResourceSpec, asked: Asked<'_>, response: &Response) -> Result<Page, ReadError> {
        answers::page(self, resource, asked, response)
    }

    fn doubts(&self, resource: &ResourceSpec, page: &Page) -> Option<String> {
        zone::doubts(self, resource, page)
    }

    fn feed(&self, _feed: &FeedSpec, _position: FeedPosition<'_>) -> Request {
        self.nothing()
    }

    fn read_feed(&self, _feed: &FeedSpec, _response: &Response) -> Result<FeedPage, ReadError> {
        Err(ReadError::Unsupported)
    }

    fn authorize(&self, request: &Request, secret: &str) -> Vec<(String, String)> {
        match self.options.platform.as_ref().filter(|_| platform::is_of(request)) {
            Some(platform) => platform::authorization(self, platform, secret),
            None => vec![("authorization".into(), format!("Bearer {secret}"))],
        }
    }

    fn login_needs(&self) -> &'static [Credential] {
        match self.options.auth {
            Auth::Password { .. } => &[Credential::Client, Credential::Password],
            Auth::App => &[],
        }
    }

    fn login(&self, texts: &[String], refresh: Option<&str>) -> Option<Login> {
        login::login(self, texts, refresh)
    }

    fn read_login(&self, response: &Response) -> Result<Session, ReadError> {
        login::session(response)
    }

    fn registrations(&self) -> Vec<Registration> {
        self.options.platform.as_ref().map(platform::registrations).unwrap_or_default()
    }

    fn list_registrations(&self, cursor: Option<&str>) -> Request {
        self.options.platform.as_ref().map_or_else(|| self.nothing(), |platform| platform::list(platform, cursor))
    }

    fn read_registrations(
        &self,
        response: &Response,
        target: &dyn Fn(&str) -> String,
    ) -> Result<(Vec<Registered>, Option<String>), RegistrationError> {
        self.options.platform.as_ref().map_or(Ok((Vec::new(), None)), |platform| platform::read(platform, response, target))
    }

    fn create_registration(&self, registration: &Registration, making: Making<'_>) -> Option<Request> {
        platform::create(self, self.options.platform.as_ref()?, registration, making)
    }

    fn mend_registration(&self, registered: &Registered) -> Option<Request> {
        platform::resume(self.options.platform.as_ref()?, registered)
    }

    fn delete_registration(&self, id: &str) -> Request {
        self.options.platform.as_ref().map_or_else(|| self.nothing(), |platform| platform::delete(platform, id))
    }
}

impl Akeneo {
    /// Where the interface wants a request for what there is none of: a read of the version, which needs no permission.
    fn nothing(&self) -> Request {
        requests::get(self, "/system-information".to_owned(), "system-information", &[])
    }
}

#[cfg(test)]
mod tests;
