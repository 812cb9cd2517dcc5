//! The bodies of the fuzz targets: every parser of what strangers, upstreams and people send, on arbitrary bytes.
//!
//! `tests/it/properties.rs` runs them too, over the seeds and over what it makes of them, so that they hold in CI without a fuzzer.
//! A parser may refuse whatever it likes; it may not panic, and what it accepts must be what the assertions here say.

use std::time::Duration;

use bytes::Bytes;
use instep::clock::Timestamp;
use instep::config::Config;
use instep::connectors::productive::{Options, Productive, ResourceOptions, resource_names};
use instep::connectors::{Asked, Connector, FeedPosition, HookSecret, ListQuery, Request, Response, SecretForm};
use instep::model::document::{changed_fields, decode, raw_at, split_records};
use instep::model::ordering::By;
use instep::model::{Delivery, DeliveryId, Document, HookRequest, Json, Key, ResourceName, Shape, SourceName, Version};
use instep::quota::headers;

mod akeneo;

/// What signs the seeds of `signature`.
pub(crate) const TOKEN: &str = "11111111-2222-3333-4444-555555555555";
/// The API root of the connector under test.
const ROOT: &str = "https://api.example.test/api/v2/";

type Target = fn(&[u8]);

/// The targets by name, which is also the name of their seeds' folder.
pub(crate) const TARGETS: [(&str, Target); 12] = [
    ("akeneo_cursor", akeneo::cursor),
    ("akeneo_delivery", akeneo::delivery),
    ("akeneo_page", akeneo::page),
    ("config", config),
    ("cursor", cursor),
    ("document", document),
    ("envelope", envelope),
    ("feed", feed),
    ("page", page),
    ("registrations", registrations),
    ("signature", signature),
    ("waiting", waiting),
];

/// Runs one target.
///
/// # Panics
/// Where a parser does what it may not.
pub(crate) fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| target);
    target.unwrap_or_else(|| panic!("no target {name}"))(data);
}

/// A connector over all its resources.
pub(crate) fn connector(signature_tolerance: Option<Duration>) -> Productive {
    let resources = resource_names().into_iter().map(|name| (name.to_owned(), ResourceOptions::default())).collect();
    let day = Duration::from_secs(24 * 3600);
    Productive::new(Options {
        url: ROOT.parse().expect("a URL"),
        organization: 435,
        resources,
        exclude: vec!["/attributes/*cost*".to_owned(), "/attributes/custom_fields/*".to_owned()],
        read_lag: Duration::from_secs(30),
        list_lag: Duration::from_secs(300),
        keep_deleted: day * 30,
        tombstones: day * 90,
        signature_tolerance,
    })
    .expect("known resources")
}

/// The first byte chooses one of `n`; the rest is what is read.
fn choice(data: &[u8], n: usize) -> (usize, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (usize::from(*first) % n, rest))
}

fn answer(status: u16, body: &[u8]) -> Response {
    Response { status, headers: Vec::new(), body: Bytes::copy_from_slice(body), date: None }
}

fn request(route: &str, headers: Vec<(String, Bytes)>, body: &[u8]) -> HookRequest {
    HookRequest { route: route.to_owned(), query: String::new(), headers, body: Bytes::copy_from_slice(body) }
}

/// The first line is the header, the rest the body.
fn signature(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (header, body) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let headers = vec![("productive-signature".to_owned(), Bytes::copy_from_slice(header))];
    let request = request("task-updated", headers, body);
    let secrets = [HookSecret { route: None, text: TOKEN.to_owned(), form: SecretForm::Whole }];
    for tolerance in [None, Some(Duration::from_secs(300))] {
        let connector = connector(tolerance);
        let verified = connector.verify(&request, &secrets, Timestamp(1_700_000_000_000_000));
        assert!(verified.is_err() || connector.verify(&request, &[], Timestamp(0)).is_err(), "accepted without a secret");
    }
}

/// The first byte chooses the route.
fn envelope(data: &[u8]) {
    let connector = connector(None);
    let routes = connector.registrations();
    let (at, body) = choice(data, routes.len());
    let delivery = Delivery {
        id: DeliveryId(uuid::Uuid::nil()),
        source: SourceName::new("pmp").expect("a name"),
        received_at: Timestamp(0),
        dedupe: String::new(),
        request: request(&routes[at].route, Vec::new(), body),
    };
    match connector.events(&delivery) {
        Ok(stated) => assert!(stated.events.iter().all(|event| !event.entity.key.as_str().is_empty())),
        Err(unreadable) => assert_eq!(unreadable.raw, body, "what is set aside is what was sent"),
    }
}

/// The first byte chooses the resource, the second how it was read.
fn page(data: &[u8]) {
    let connector = connector(None);
    let (at, rest) = choice(data, connector.resources().len());
    let (by, body) = choice(rest, 3);
    let resource = &connector.resources()[at];
    for status in [200, 400, 403] {
        let query = ListQuery { variant: 0, since: None, cursor: None, halvings: 0 };
        let asked = [Asked::Page(query), Asked::Keys(&[], By::Bulk), Asked::Keys(&[], By::Key)][by];
        let Ok(page) = connector.read(resource, asked, &answer(status, body)) else { continue };
        for record in page.records.iter().flatten() {
            let text = &*record.document.text;
            let again = Json::parse(text.as_bytes()).expect("what is stored can be read again");
            assert_eq!(again.to_string(), text, "canonical once and for ever");
        }
        follow(&connector, page.next.as_deref());
    }
}

/// The first byte chooses the feed.
fn feed(data: &[u8]) {
    let connector = connector(None);
    let (at, body) = choice(data, connector.feeds().len());
    if let Ok(page) = connector.read_feed(&connector.feeds()[at], &answer(200, body)) {
        follow(&connector, page.next.as_deref());
    }
}

fn registrations(data: &[u8]) {
    let connector = connector(None);
    let target = |route: &str| format!("https://hooks.example.test/hooks/pmp/{route}");
    for status in [200, 201, 403] {
        let Ok((registered, next)) = connector.read_registrations(&answer(status, data), &target) else { continue };
        for one in registered {
            names_one(&connector.delete_registration(&one.id), "webhooks");
        }
        follow(&connector, next.as_deref());
    }
}

/// A text that an upstream gave as a cursor or key.
fn cursor(data: &[u8]) {
    let (connector, text) = (connector(None), decode(data).0);
    follow(&connector, Some(&text));
    if let Ok(key) = Key::new(&text) {
        for resource in connector.resources() {
            names_one(&connector.fetch(resource, std::slice::from_ref(&key), By::Key), resource.name.as_str());
            stays_here(&connector.fetch(resource, &[key.clone(), key.clone()], By::Bulk));
        }
    }
    // Names are checked where they enter.
    let _ = (ResourceName::new(&text).is_ok(), SourceName::new(&text).is_ok());
}

/// Whatever a cursor holds, it stays a value of the query.
fn follow(connector: &Productive, cursor: Option<&str>) {
    for resource in connector.resources() {
        for since in [None, Some(Timestamp(0))] {
            let request = connector.list(resource, ListQuery { variant: 0, since, cursor, halvings: 0 });
            stays_here(&request);
            let url = url::Url::parse(&request.url).expect("a URL");
            let is_carried = |(name, value): (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| {
                (name == "page[after]" || name == "page[number]") && Some(&*value) == cursor
            };
            assert!(cursor.is_none() || url.query_pairs().any(is_carried), "{cursor:?} is not in {url}");
        }
    }
    for feed in connector.feeds() {
        stays_here(&connector.feed(feed, FeedPosition::Stamp { since: Timestamp(0), cursor }));
    }
    stays_here(&connector.list_registrations(cursor));
}

fn stays_here(request: &Request) {
    let url = url::Url::parse(&request.url).expect("a URL");
    let root = url::Url::parse(ROOT).expect("a URL");
    assert_eq!(url.origin(), root.origin(), "{url}");
    assert!(url.path().starts_with(root.path()) && url.username().is_empty() && url.fragment().is_none(), "{url}");
    assert!(http::Uri::try_from(&request.url).is_ok(), "{url}");
}

/// Whatever an id holds, it stays one part of the path: the last one.
fn names_one(request: &Request, collection: &str) {
    stays_here(request);
    let url = url::Url::parse(&request.url).expect("a URL");
    let below = url.path().strip_prefix("/api/v2/").and_then(|path| path.strip_prefix(collection));
    assert!(below.is_some_and(|id| id.len() > 1 && id.rfind('/') == Some(0)), "{url} is none of {collection}");
}

/// One JSON text; the first line before it, if there is one that begins with `/`, is a pointer into it.
fn document(data: &[u8]) {
    let text = decode(data).0;
    let (pointer, text) = text.split_once('\n').filter(|(first, _)| first.starts_with('/')).unwrap_or(("/attributes/*", &text));
    let shape = Shape { exclude: vec![pointer.to_owned()], volatile: vec!["/attributes/updated_at".to_owned()] };
    if let Ok(read) = Document::parse(text.as_bytes(), &shape) {
        let again = Document::parse(read.text.as_bytes(), &shape).expect("what is stored can be read again");
        assert_eq!((again.text, again.hash), (read.text, read.hash), "canonical once and for ever");
    }
    let _ = (raw_at(text, pointer).is_ok(), changed_fields(text, "{}", &["", pointer]));
    if let Ok(records) = split_records(text, pointer) {
        assert!(records.iter().all(|record| text.contains(record.get())), "records are parts of the page");
    }
}

/// The value of a header about time: `Retry-After`, `X-RateLimit-Reset`, `Date`; or a stamp of a record.
fn waiting(data: &[u8]) {
    let (text, longest) = (decode(data).0, Duration::from_secs(1800));
    for wall in [0, 1_773_461_839_000_000, i64::MIN, i64::MAX] {
        let waits = headers::wait(&text, Timestamp(wall), longest);
        assert!(waits.is_none_or(|waits| waits <= longest), "{text:?}: {waits:?}");
    }
    for stamp in [headers::http_date(&text), Timestamp::parse(&text)].into_iter().flatten() {
        assert_eq!(Timestamp::parse(&stamp.to_string()), Some(stamp), "{text:?}");
    }
    let field = "updated_at".into();
    if let Some(version) = Version::stamp(&field, &text) {
        let again = Version::parse(&field, &version.text(), version.precision_us()).expect("what is stored can be read again");
        assert_eq!(again.at(), version.at(), "{text:?}");
    }
}

/// A configuration. One that is wrong says so; one that is right can be shown, and says the same again.
fn config(data: &[u8]) {
    let text = decode(data).0;
    match Config::parse("fuzzed.toml", &text) {
        Err(error) => assert!(!error.mistakes.is_empty() && !error.to_string().is_empty()),
        Ok(config) => {
            let shown = config.entries.iter().filter_map(|entry| Some(format!("{} = {}\n", entry.key, entry.value.as_ref()?)));
            let shown: String = shown.collect();
            let again = Config::parse("shown.toml", &shown).unwrap_or_else(|error| panic!("{error}\n{shown}"));
            let values = |config: Config| {
                let mut values: Vec<_> = config.entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
                values.sort();
                values
            };
            assert_eq!(values(again), values(config), "{text}");
        }
    }
}
