//! Connectors are sans-IO: bytes in, decisions out.
//!
//! A [`Connector`] knows one kind of upstream. It says which requests to make and what their answers mean; it opens no socket,
//! reads no clock and touches no database. `crate::upstream` executes its requests, the actors schedule them.
//!
//! Architecture invariant: nothing here knows tokio, warp or the database. Calls are pure and run under `catch_unwind`:
//! a panic quarantines one delivery or one record.

use std::time::Duration;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::model::ordering::{By, Spans};
use crate::model::{Delivery, Document, HookRequest, Key, Operation, ResourceName, Version};
use crate::reconcile::{Lists, Mode};

pub mod akeneo;
mod base64;
pub mod bearer;
mod escape;
mod feeds;
mod hooks;
pub mod productive;
mod registrations;
pub mod reso;
mod session;
pub mod signature;

pub use feeds::{FeedOrder, FeedPage, FeedPosition, FeedRow, FeedSpec};
pub use hooks::{
    Cap, Flow, HookPolicy, HookSecret, Ignored, Inviting, Overload, Refusal, Resume, Retiring, RetryAfter, SecretForm, Statements, Verified,
};
pub use registrations::{Making, Registered, Registration, RegistrationError};
pub use session::{Login, Session};

/// The type of a view's column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// Text; a number is shown as its literal.
    Text,
    /// 64-bit integer.
    Integer,
    /// Floating point.
    Real,
    /// Boolean (0 and 1 on SQLite).
    Bool,
    /// `YYYY-MM-DD`, untouched.
    Date,
    /// An instant, shown in UTC.
    Instant,
    /// A list or map, as JSON.
    Json,
}

/// One column of a resource's view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name in the view.
    pub name: String,
    /// Where the value stands in the payload (RFC 6901).
    pub pointer: String,
    /// Its type.
    pub kind: ColumnKind,
    /// It holds the key of another entity: the view gets an index on it.
    pub reference: bool,
}

/// How the absence of a key is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// By a read of that key alone, answered "not found".
    ByKey,
    /// By two complete lists at least `read_lag` apart.
    TwoLists,
}

/// What a connector declares about one kind of record.
#[derive(Clone, Debug)]
pub struct ResourceSpec {
    /// As the vendor writes it.
    pub name: ResourceName,
    /// The columns of its view.
    pub columns: Vec<Column>,
    /// How changes are found by a pass.
    pub mode: Mode,
    /// How many lists make a complete sweep (active, archived, templates …): variants `0..variants`.
    pub variants: usize,
    /// Keys per bulk read; 1 where the upstream has none.
    pub bulk: usize,
    /// Lags and skews.
    pub spans: Spans,
    /// How absence is confirmed.
    pub absence: Absence,
    /// Time between incremental passes.
    pub poll: Duration,
    /// Time between sweeps.
    pub sweep: Duration,
    /// How long a tombstone keeps its payload.
    pub keep_deleted: Duration,
    /// The resource of the records above its own ([`Record::parent`]): what removes one of them reaches these too.
    pub parent: Option<ResourceName>,
    /// Its records hold something of the record above: what changes that one reaches these too.
    pub inherits: bool,
    /// A further view, of a map of values.
    pub values: Option<ValuesView>,
}

/// A view `<source>_<name>` with a row per value: `key, attribute, locale, scope, data, text`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValuesView {
    /// Its name behind the source's, e.g. `product_values`.
    pub name: String,
    /// Where the map stands in the payload (RFC 6901): attribute to a list of `{ locale, scope, data }`.
    pub pointer: String,
}

/// Which credential a request is sent with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// The reading one.
    Read,
    /// The one that manages registrations.
    Manage,
    /// The secret of the client, where sessions are asked for.
    Client,
    /// The password of the user, where sessions are asked for.
    Password,
}

/// A request to an upstream. Only `GET` unless the connector declares otherwise ([`Request::declared_write`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, or a method of a declared write.
    pub method: http::Method,
    /// Absolute URL on the configured origin.
    pub url: String,
    /// Headers beside the credential's.
    pub headers: Vec<(String, String)>,
    /// Body of a declared write.
    pub body: Option<Bytes>,
    /// What the breaker and 503 pauses are kept by, e.g. `/tasks`.
    pub endpoint: String,
    /// Who sends.
    pub credential: Credential,
    /// The connector declares this write (registrations); every other method than `GET` and `HEAD` is refused.
    pub declared_write: bool,
}

/// An answer of an upstream, complete and within the size cap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// The upstream's clock: its `Date` header.
    pub date: Option<Timestamp>,
}

impl Response {
    /// The first header of that (lower case) name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// One record of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its key.
    pub key: Key,
    /// Its version, if its states have one.
    pub version: Option<Version>,
    /// The stamp by which passes find it; may differ from the version.
    pub changed_at: Option<Timestamp>,
    /// Its state.
    pub document: Document,
    /// The key of the record above it, in the resource of [`ResourceSpec::parent`].
    pub parent: Option<Key>,
    /// Whether the source is to hold it. A record that leaves the scope is removed with the reason `out of scope`, and returns when it
    /// enters it again.
    pub in_scope: bool,
}

/// A delivery or record that cannot be used; goes into quarantine with this reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unreadable {
    /// Its key, where that much could be read: it then counts as seen.
    pub key: Option<Key>,
    /// Why, without quoting the payload.
    pub reason: String,
    /// The bytes.
    pub raw: Bytes,
}

/// Reads one record of a page so that the others do not suffer from it: a panic makes it unreadable.
///
/// # Errors
/// Those of `read`, and `panicked` where it panicked.
pub fn alone<T>(panicked: impl FnOnce() -> Unreadable, read: impl FnOnce() -> Result<T, Unreadable>) -> Result<T, Unreadable> {
    // Nothing of what it reads outlives the record.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)).unwrap_or_else(|_| Err(panicked()))
}

/// What a list or bulk read answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// One result per record.
    pub records: Vec<Result<Record, Unreadable>>,
    /// Where the next page is; `None` after the last.
    pub next: Option<String>,
}

/// Which page of a resource is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListQuery<'a> {
    /// `0..ResourceSpec::variants`.
    pub variant: usize,
    /// Only records changed since then (incremental passes).
    pub since: Option<Timestamp>,
    /// `Page::next` of the page before.
    pub cursor: Option<&'a str>,
    /// How often the page's size is to be halved, because its answer was larger than an answer may be. Only where a cursor does
    /// not depend on the size; elsewhere it is ignored.
    pub halvings: u32,
}

/// What a request asked for, so that its answer can be read.
#[derive(Clone, Copy, Debug)]
pub enum Asked<'a> {
    /// These keys: in bulk ([`By::Bulk`]), or one alone ([`By::Key`]).
    Keys(&'a [Key], By),
    /// A page.
    Page(ListQuery<'a>),
}

impl Asked<'_> {
    /// How it was asked.
    #[must_use]
    pub fn by(&self) -> By {
        match self {
            Self::Keys(_, by) => *by,
            Self::Page(_) => By::List,
        }
    }
}

/// Why an answer is not a page. Classified once, here; nobody above guesses again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The record or collection is not there (404, 410).
    #[error("not found")]
    NotFound,
    /// The upstream refuses this way of asking (unsupported filter or sort): ask another way and remember.
    #[error("the upstream does not support this query")]
    Unsupported,
    /// The cursor is no longer valid: start the pass again.
    #[error("the upstream refused the cursor")]
    CursorRefused,
    /// 401, 403: the credential is not accepted or lacks a permission.
    #[error("the upstream refused the credential (status {0})")]
    Denied(u16),
    /// 429.
    #[error("the upstream refused by rate limit")]
    RateLimited,
    /// 5xx.
    #[error("the upstream failed (status {0})")]
    Server(u16),
    /// Any other status.
    #[error("the upstream refused the request (status {0})")]
    Refused(u16),
    /// The body is not what the contract says.
    #[error("the answer is not readable: {0}")]
    Malformed(&'static str),
}

/// The code that knows one kind of upstream.
pub trait Connector: Send + Sync + 'static {
    /// As written in `kind`.
    fn kind(&self) -> &'static str;
    /// What it replicates.
    fn resources(&self) -> &[ResourceSpec];
    /// Its event feeds.
    fn feeds(&self) -> &[FeedSpec];
    /// The routes below `/hooks/{source}/` that carry its deliveries.
    fn hook_routes(&self) -> Vec<&'static str>;
    /// How the edge treats the deliveries of a route; `None`: there is no such route, which is answered like a bad signature.
    fn hook_policy(&self, route: &str) -> Option<HookPolicy>;
    /// The routes by which such a change is announced; none: by none.
    fn announced_by(&self, _resource: &ResourceName, _operation: Operation) -> Vec<&'static str> {
        Vec::new()
    }
    /// The route that the upstream is about to end, if there is one here.
    fn retiring(&self) -> Option<Retiring> {
        None
    }
    /// How a sender is invited whose deliveries carry a token that we make; `None`: senders make or are given their secrets otherwise.
    fn inviting(&self) -> Option<Inviting> {
        None
    }
    /// The request by which a sender that has stopped is asked to deliver again, if there is one.
    fn resume(&self) -> Option<Resume> {
        None
    }
    /// Checks a request's signature over the raw bytes.
    ///
    /// # Errors
    /// [`Refusal`]: answered 401 whatever it is, but for those that are said only to whoever holds a secret.
    fn verify(&self, request: &HookRequest, secrets: &[HookSecret], now: Timestamp) -> Result<Verified, Refusal>;
    /// The statements of a verified delivery.
    ///
    /// # Errors
    /// [`Unreadable`] quarantines the delivery.
    fn events(&self, delivery: &Delivery) -> Result<Statements, Unreadable>;
    /// How many of these keys fit into one bulk read, from the first on; at least one.
    fn fitting(&self, _resource: &ResourceSpec, keys: &[Key]) -> usize {
        keys.len()
    }
    /// Reads these keys: in bulk ([`By::Bulk`]), or exactly one alone ([`By::Key`]).
    fn fetch(&self, resource: &ResourceSpec, keys: &[Key], by: By) -> Request;
    /// How the lists of a resource are walked, for whoever wants to know beforehand what a pass costs.
    fn lists(&self, resource: &ResourceSpec) -> Lists;
    /// Reads a page of a resource.
    fn list(&self, resource: &ResourceSpec, query: ListQuery<'_>) -> Request;
    /// What an answer to [`Connector::fetch`] or [`Connector::list`] holds.
    ///
    /// # Errors
    /// [`ReadError`] where the answer is no page.
    fn read(&self, resource: &ResourceSpec, asked: Asked<'_>, response: &Response) -> Result<Page, ReadError>;
    /// What is stored of a resource's records and left out of their hash: the version field, and what changes without the record
    /// changing (JSON pointers with `*`).
    fn volatile(&self, _resource: &ResourceSpec) -> Vec<String> {
        Vec::new()
    }
    /// What a page says against the configuration, for people who check it.
    fn doubts(&self, _resource: &ResourceSpec, _page: &Page) -> Option<String> {
        None
    }
    /// Reads a page of an event feed.
    fn feed(&self, feed: &FeedSpec, position: FeedPosition<'_>) -> Request;
    /// What an answer to [`Connector::feed`] holds.
    ///
    /// # Errors
    /// [`ReadError`] where the answer is no page.
    fn read_feed(&self, feed: &FeedSpec, response: &Response) -> Result<FeedPage, ReadError>;
    /// Asks for the upstream's own description of its resources, where it has one that is worth saving.
    fn describe(&self) -> Option<Request> {
        None
    }
    /// The headers by which a request carries a credential, or the token of a session where [`Connector::login_needs`] any.
    fn authorize(&self, request: &Request, secret: &str) -> Vec<(String, String)>;
    /// The credentials whose texts a login needs, in this order. Empty: there are no sessions, every request shows its credential.
    fn login_needs(&self) -> &'static [Credential] {
        &[]
    }
    /// Asks for a session: by the refresh token of the last one, or by the texts of [`Connector::login_needs`] alone.
    fn login(&self, _texts: &[String], _refresh: Option<&str>) -> Option<Login> {
        None
    }
    /// What the answer to [`Connector::login`] holds.
    ///
    /// # Errors
    /// [`ReadError::Denied`] where the upstream does not accept what was shown.
    fn read_login(&self, _response: &Response) -> Result<Session, ReadError> {
        Err(ReadError::Unsupported)
    }
    /// The registrations there should be, in the order in which they are to be made.
    fn registrations(&self) -> Vec<Registration>;
    /// Asks for the registrations there are.
    fn list_registrations(&self, cursor: Option<&str>) -> Request;
    /// What the answer says, and the next cursor. `target` maps a route to the URL registered for it.
    ///
    /// # Errors
    /// [`RegistrationError`].
    fn read_registrations(
        &self,
        response: &Response,
        target: &dyn Fn(&str) -> String,
    ) -> Result<(Vec<Registered>, Option<String>), RegistrationError>;
    /// Makes a registration; `None` where something that it rests on is missing.
    fn create_registration(&self, registration: &Registration, making: Making<'_>) -> Option<Request>;
    /// Puts one right that is not healthy; `None` where only another one can take its place.
    fn mend_registration(&self, _registered: &Registered) -> Option<Request> {
        None
    }
    /// Removes one.
    fn delete_registration(&self, id: &str) -> Request;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_panics_is_one_unreadable_record() {
        let unreadable = || Unreadable { key: None, reason: "the connector panicked on it".to_owned(), raw: Bytes::new() };
        let read = |number: u8| if number == 2 { panic!("told to") } else { Ok(number) };
        let page: Vec<_> = (1..=3).map(|number| alone(unreadable, || read(number))).collect();
        assert_eq!(page, [Ok(1), Err(unreadable()), Ok(3)]);
    }
}
