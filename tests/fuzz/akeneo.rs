//! The parsers of the Akeneo connector.

use std::time::Duration;

use instep::connectors::akeneo::{Akeneo, Auth, Options, ProductKey, ResourceOptions, resource_names};
use instep::connectors::{Asked, Connector, HookSecret, ListQuery, Request, SecretForm};
use instep::model::document::decode;
use instep::model::ordering::By;
use instep::model::{Delivery, DeliveryId, Json, Key, SourceName};

use super::{Timestamp, answer, choice, request};

const ROOT: &str = "https://pim.example.test/below/";

fn connector(product_key: ProductKey) -> Akeneo {
    let resources = resource_names().into_iter().map(|name| (name.to_owned(), ResourceOptions::default())).collect();
    let day = Duration::from_secs(24 * 3600);
    Akeneo::new(Options {
        url: ROOT.parse().expect("a URL"),
        auth: Auth::Password { client_id: "3_x".to_owned(), username: "shop".to_owned() },
        zone_seconds: 3600,
        product_key,
        resources,
        events_api: true,
        event_platform: true,
        notifications: true,
        platform: None,
        ignore_authors: vec!["shop".to_owned()],
        subscriptions: Vec::new(),
        exclude: vec!["/values/*cost*".to_owned()],
        read_lag: Duration::from_secs(30),
        list_lag: Duration::from_secs(300),
        keep_deleted: day * 30,
        tombstones: day * 90,
    })
    .expect("known resources")
}

/// The first byte chooses the route. Nothing is signed, so nothing is let in; whatever a body is, it is told apart.
pub(super) fn delivery(data: &[u8]) {
    for product_key in [ProductKey::Uuid, ProductKey::Identifier] {
        let connector = connector(product_key);
        let routes = connector.hook_routes();
        let (at, body) = choice(data, routes.len());
        let headers = ["x-akeneo-request-signature", "x-akeneo-request-timestamp", "x-akeneo-signature-primary"];
        let head = bytes::Bytes::copy_from_slice(&body[..body.len().min(64)]);
        let request = request(routes[at], headers.iter().map(|name| ((*name).to_owned(), head.clone())).collect(), body);
        let secrets = [HookSecret { route: None, text: super::TOKEN.to_owned(), form: SecretForm::Whole }];
        assert!(connector.verify(&request, &secrets, Timestamp(0)).is_err());
        let delivery = Delivery {
            id: DeliveryId(uuid::Uuid::nil()),
            source: SourceName::new("pim").expect("a name"),
            received_at: Timestamp(0),
            dedupe: String::new(),
            request,
        };
        match connector.events(&delivery) {
            Ok(stated) => assert!(stated.events.iter().all(|event| !event.entity.key.as_str().is_empty())),
            Err(unreadable) => assert_eq!(unreadable.raw, body, "what is set aside is what was sent"),
        }
        let _ = connector.read_login(&answer(200, body));
    }
}

/// The first byte chooses the resource, the second how it was read; the first line is the key or cursor, the rest the body.
pub(super) fn page(data: &[u8]) {
    let connector = connector(ProductKey::Uuid);
    let (at, rest) = choice(data, connector.resources().len());
    let (by, rest) = choice(rest, 3);
    let text = decode(rest).0;
    let (asked, body) = text.split_once('\n').unwrap_or(("", &text));
    let resource = &connector.resources()[at];
    let keys: Vec<Key> = Key::new(asked).into_iter().collect();
    let query = ListQuery { variant: 0, since: None, cursor: Some(asked).filter(|text| !text.is_empty()), halvings: 0 };
    let asked = [Asked::Page(query), Asked::Keys(&keys, By::Bulk), Asked::Keys(&keys, By::Key)][by];
    for status in [200, 404, 422] {
        let Ok(page) = connector.read(resource, asked, &answer(status, body.as_bytes())) else { continue };
        for record in page.records.iter().flatten() {
            let text = &*record.document.text;
            let again = Json::parse(text.as_bytes()).expect("what is stored can be read again");
            assert_eq!(again.to_string(), text, "canonical once and for ever");
            assert!(!text.contains("\"_links\":"), "{text}");
        }
        let next = page.next.as_deref();
        stays_here(&connector.list(resource, ListQuery { variant: 0, since: Some(Timestamp(0)), cursor: next, halvings: 0 }));
    }
}

/// A text that an upstream gave as a cursor or key.
pub(super) fn cursor(data: &[u8]) {
    let (connector, text) = (connector(ProductKey::Uuid), decode(data).0);
    for resource in connector.resources() {
        for since in [None, Some(Timestamp(0))] {
            stays_here(&connector.list(resource, ListQuery { variant: 0, since, cursor: Some(&text), halvings: 0 }));
        }
        let Ok(key) = Key::new(&text) else { continue };
        let keys = vec![key; 120];
        let n = connector.fitting(resource, &keys);
        assert!((1..=100).contains(&n));
        stays_here(&connector.fetch(resource, &keys[..n], By::Bulk));
        stays_here(&connector.fetch(resource, &keys[..1], By::Key));
    }
}

fn stays_here(request: &Request) {
    let (url, root) = (url::Url::parse(&request.url).expect("a URL"), url::Url::parse(ROOT).expect("a URL"));
    assert_eq!(url.origin(), root.origin(), "{url}");
    assert!(url.username().is_empty() && url.fragment().is_none() && http::Uri::try_from(&request.url).is_ok(), "{url}");
    // A code of dots alone makes no address in its normal form, which is then never sent.
    let is_sent = url.as_str() == request.url;
    assert!(!is_sent || url.path().starts_with("/below/api/rest/v1/"), "{url}");
}
