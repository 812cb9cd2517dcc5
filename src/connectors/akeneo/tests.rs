//! What the tests of the connector share.

use bytes::Bytes;

use super::*;
use crate::model::{DeliveryId, SourceName};

mod deliveries;
mod platform;
mod reads;
mod requests;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn options() -> Options {
    Options {
        url: "https://pim.example.test/".parse().expect("a URL"),
        auth: Auth::Password { client_id: "3_x".to_owned(), username: "shop_1234".to_owned() },
        zone_seconds: 0,
        product_key: ProductKey::Uuid,
        resources: resource_names().into_iter().map(|name| (name.to_owned(), ResourceOptions::default())).collect(),
        events_api: true,
        event_platform: true,
        notifications: true,
        platform: Some(Management {
            api: "https://events.example.test/api/v1".parse().expect("a URL"),
            client_id: "3_x".to_owned(),
            subscriber: "instep pim".to_owned(),
            contact: "ops@example.test".to_owned(),
        }),
        ignore_authors: vec!["shop_1234".to_owned()],
        subscriptions: Vec::new(),
        exclude: vec!["/values/cost*".to_owned()],
        read_lag: Duration::from_secs(30),
        list_lag: Duration::from_secs(300),
        keep_deleted: DAY * 30,
        tombstones: DAY * 90,
    }
}

fn akeneo() -> Akeneo {
    Akeneo::new(options()).expect("known resources")
}

/// One resource with these settings, among all others.
fn with(name: &str, set: ResourceOptions) -> Akeneo {
    let mut options = options();
    let at = options.resources.iter_mut().find(|(known, _)| known == name).expect("a resource");
    at.1 = set;
    Akeneo::new(options).expect("known resources")
}

fn resource(akeneo: &Akeneo, name: &str) -> ResourceSpec {
    akeneo.resources().iter().find(|spec| spec.name.as_str() == name).expect("replicated").clone()
}

fn key(text: &str) -> Key {
    Key::new(text).expect("a key")
}

fn answer(status: u16, body: &str) -> Response {
    Response { status, headers: Vec::new(), body: Bytes::copy_from_slice(body.as_bytes()), date: None }
}

fn request(route: &str, headers: &[(&str, &str)], body: &[u8]) -> HookRequest {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), Bytes::copy_from_slice(value.as_bytes())));
    HookRequest { route: route.to_owned(), query: String::new(), headers: headers.collect(), body: Bytes::copy_from_slice(body) }
}

fn delivery(route: &str, body: &str) -> Delivery {
    Delivery {
        id: DeliveryId(uuid::Uuid::nil()),
        source: SourceName::new("pim").expect("a name"),
        received_at: Timestamp::parse("2026-01-02T00:00:00Z").expect("a stamp"),
        dedupe: String::new(),
        request: request(route, &[], body.as_bytes()),
    }
}

/// The first page of everything, or from a cursor on.
fn page(cursor: Option<&str>) -> ListQuery<'_> {
    ListQuery { variant: 0, since: None, cursor, halvings: 0 }
}
