//! A webhook request on its way from bytes to events: request → verified (by a connector) → stored delivery.

use bytes::Bytes;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::model::ids::SourceName;

/// Name of a stored delivery; a UUIDv7 made before the first try to store it, so that an unknown commit outcome can be retried.
/// It means nothing about order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(pub Uuid);

/// A request that came to `/hooks/{source}/{route}`, as it was, before anything of it is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookRequest {
    /// The rest of the path after the source, without the leading slash, percent-encoding kept.
    pub route: String,
    /// The query string without `?`; empty if there was none.
    pub query: String,
    /// Header names in lower case with their raw values, in the order of arrival.
    pub headers: Vec<(String, Bytes)>,
    /// The body, byte for byte.
    pub body: Bytes,
}

impl HookRequest {
    /// The first header of that (lower case) name, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).and_then(|(_, v)| std::str::from_utf8(v).ok())
    }
}

/// A verified request, kept byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its name.
    pub id: DeliveryId,
    /// Whose.
    pub source: SourceName,
    /// When it arrived, by our clock.
    pub received_at: Timestamp,
    /// What identifies a repetition of it while the original is still pending: the vendor's delivery id, else a digest of route and body.
    pub dedupe: String,
    /// The request.
    pub request: HookRequest,
}
