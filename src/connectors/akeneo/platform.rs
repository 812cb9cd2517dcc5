//! The management API of the Event Platform: a subscriber of ours, and its one subscription.
//!
//! The vendor's own description of this API is not public; what is known stands in its guides (subscribers, subscriptions, suspend)
//! and in samples of its logs. Everything we take for granted about it is in this file, and read leniently: a list may be bare or
//! stand in `items`, `data` or `_embedded.items`; what an answer has beside what is needed is passed over.

use bytes::Bytes;
use http::Method;
use serde_json::json;

use super::catalog::{SUBJECTS, TYPE_PREFIX};
use super::requests::encode;
use super::{Akeneo, PLATFORM, ProductKey};
use crate::connectors::{Credential, Making, ReadError, Registered, Registration, RegistrationError, Request, Response};
use crate::model::Key;
use crate::model::document::{Json, Parsed, decode};

/// What subscriptions rest on; no route.
const SUBSCRIBER: &str = "subscriber";
/// What the breaker keeps requests of this API by.
const ENDPOINT: &str = "/event-platform";
/// The first cursor behind the list of subscribers begins with it.
const OF_SUBSCRIBER: &str = "of:";

/// Where and as whom subscriptions are managed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Management {
    /// Root of the API: `https://event.prd.sdk.akeneo.cloud/api/v1`.
    pub api: url::Url,
    /// The client id that requests name.
    pub client_id: String,
    /// The name of the subscriber by which it is known to be ours.
    pub subscriber: String,
    /// An address that the vendor writes to.
    pub contact: String,
}

pub(super) fn is_of(request: &Request) -> bool {
    request.endpoint == ENDPOINT
}

pub(super) fn authorization(akeneo: &Akeneo, platform: &Management, token: &str) -> Vec<(String, String)> {
    vec![
        ("x-pim-url".into(), pim(akeneo)),
        ("x-pim-token".into(), token.to_owned()),
        ("x-pim-client-id".into(), platform.client_id.clone()),
    ]
}

fn pim(akeneo: &Akeneo) -> String {
    akeneo.options.url.as_str().trim_end_matches('/').to_owned()
}

pub(super) fn registrations(platform: &Management) -> Vec<Registration> {
    [SUBSCRIBER, PLATFORM].map(|route| Registration { route: route.to_owned(), title: platform.subscriber.clone() }).to_vec()
}

/// The subscribers first; behind them the subscriptions of ours.
pub(super) fn list(platform: &Management, cursor: Option<&str>) -> Request {
    match cursor.and_then(|cursor| cursor.strip_prefix(OF_SUBSCRIBER)) {
        Some(subscriber) => ask(platform, Method::GET, &format!("subscribers/{}/subscriptions", encode(subscriber)), None),
        None => ask(platform, Method::GET, "subscribers", None),
    }
}

pub(super) fn create(akeneo: &Akeneo, platform: &Management, registration: &Registration, making: Making<'_>) -> Option<Request> {
    if registration.route == SUBSCRIBER {
        let body = json!({ "name": platform.subscriber, "contact": { "technical_email": platform.contact } });
        return Some(ask(platform, Method::POST, "subscribers", Some(body.to_string())));
    }
    let subscriber = making.standing.iter().find(|one| one.route.as_deref() == Some(SUBSCRIBER))?;
    let mut secret = json!({ "primary": making.secrets.first()?.text });
    if let Some(second) = making.secrets.get(1) {
        secret["secondary"] = json!(second.text);
    }
    let subjects = SUBJECTS.iter().filter(|subject| akeneo.replicates(subject.resource).is_some());
    let events: Vec<String> = subjects
        .flat_map(|subject| ["created", "updated", "deleted"].map(|verb| format!("{TYPE_PREFIX}{}.{verb}", subject.word)))
        .collect();
    let body = json!({
        "source": "pim", "subject": pim(akeneo), "events": events, "type": "https",
        "config": { "url": making.target, "secret": secret },
        "send_product_identifier": akeneo.options.product_key == ProductKey::Identifier,
    });
    let path = format!("subscribers/{}/subscriptions", encode(&subscriber.id));
    Some(ask(platform, Method::POST, &path, Some(body.to_string())))
}

/// Resumes a subscription that is suspended; a revoked one cannot be.
pub(super) fn resume(platform: &Management, registered: &Registered) -> Option<Request> {
    let (subscriber, subscription) = registered.id.split_once('/').filter(|_| registered.state == "suspended")?;
    let path = format!("subscribers/{}/subscriptions/{}/resume", encode(subscriber), encode(subscription));
    Some(ask(platform, Method::POST, &path, None))
}

pub(super) fn delete(platform: &Management, id: &str) -> Request {
    let path = match id.split_once('/') {
        Some((subscriber, subscription)) => format!("subscribers/{}/subscriptions/{}", encode(subscriber), encode(subscription)),
        None => format!("subscribers/{}", encode(id)),
    };
    ask(platform, Method::DELETE, &path, None)
}

/// What stands: our subscriber, and its subscriptions by where they deliver to.
pub(super) fn read(
    platform: &Management,
    response: &Response,
    target: &dyn Fn(&str) -> String,
) -> Result<(Vec<Registered>, Option<String>), RegistrationError> {
    match response.status {
        200..=299 => {}
        403 => return Err(RegistrationError::ReadOnly),
        404 | 410 => return Err(ReadError::NotFound.into()),
        401 => return Err(ReadError::Denied(401).into()),
        429 => return Err(ReadError::RateLimited.into()),
        status if status >= 500 => return Err(ReadError::Server(status).into()),
        status => return Err(ReadError::Refused(status).into()),
    }
    let (text, _) = decode(&response.body);
    let json = Parsed::read(text.as_bytes()).map_err(|_| ReadError::Malformed("the answer cannot be read"))?.json;
    let standing: Vec<Registered> = rows(&json).iter().filter_map(|row| registered(platform, row, target)).collect();
    // Whose subscriptions are to be listed is known once its list has been read.
    let subscriber = standing.iter().find(|one| one.route.as_deref() == Some(SUBSCRIBER));
    let next = subscriber.map(|subscriber| format!("{OF_SUBSCRIBER}{}", subscriber.id));
    Ok((standing, next))
}

/// The records of a list, or the one that an answer is.
fn rows(json: &Json) -> &[Json] {
    let lists = [Some(json), json.get("items"), json.get("data"), json.pointer("/_embedded/items")];
    lists.into_iter().flatten().find_map(Json::as_array).unwrap_or(std::slice::from_ref(json))
}

fn registered(platform: &Management, row: &Json, target: &dyn Fn(&str) -> String) -> Option<Registered> {
    let text = |pointer: &str| row.pointer(pointer).and_then(Json::as_str);
    // Checked like a key, for it becomes a part of paths.
    let id = Key::new(text("/id")?).ok().filter(|id| !id.as_str().contains('/'))?;
    let state = text("/status").unwrap_or("unknown").to_owned();
    let (id, route) = match text("/config/url") {
        Some(url) => {
            let subscriber = Key::new(text("/subscriber_id")?).ok().filter(|id| !id.as_str().contains('/'))?;
            (format!("{}/{}", subscriber.as_str(), id.as_str()), (url == target(PLATFORM)).then_some(PLATFORM))
        }
        None => (id.as_str().to_owned(), (text("/name") == Some(&platform.subscriber)).then_some(SUBSCRIBER)),
    };
    let healthy = matches!(state.as_str(), "active" | "unknown");
    Some(Registered { id, route: route.map(ToOwned::to_owned), secret: None, healthy, delivers: healthy, state })
}

fn ask(platform: &Management, method: Method, path: &str, body: Option<String>) -> Request {
    let is_write = method != Method::GET;
    let mut headers = vec![("accept".to_owned(), "application/json".to_owned())];
    if body.is_some() {
        headers.push(("content-type".to_owned(), "application/json".to_owned()));
    }
    Request {
        method,
        url: format!("{}/{path}", platform.api.as_str().trim_end_matches('/')),
        headers,
        body: body.map(Bytes::from),
        endpoint: ENDPOINT.to_owned(),
        credential: Credential::Read,
        declared_write: is_write,
    }
}
