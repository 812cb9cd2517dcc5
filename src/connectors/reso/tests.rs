//! What the tests of the connector share.

use bytes::Bytes;

use super::*;
use crate::connectors::SecretForm;
use crate::model::{DeliveryId, SourceName};

mod deliveries;
mod log;
mod reads;
mod requests;
mod shifts;
mod walks;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn options() -> Options {
    Options {
        url: "https://mls.example.test/odata/".parse().expect("a URL"),
        auth: Auth::Token,
        profile: profile("plain").expect("a profile"),
        system: None,
        label: "ours".to_owned(),
        push: Some(Push {
            data: false,
            retries_for: Duration::from_secs(3600),
            retry_after: RetryAfter::Seconds,
            retry_after_span: None,
            resume: None,
        }),
        log: Some(Log { overlap: 200, page: 1_000 }),
        resources: DEFAULT_RESOURCES.iter().map(|name| ((*name).to_owned(), ResourceOptions::default())).collect(),
        schema: Schema::new(),
        exclude: vec!["/Private*".to_owned()],
        read_lag: Duration::from_secs(30),
        list_lag: Duration::from_secs(300),
        keep_deleted: DAY * 30,
        tombstones: DAY * 90,
    }
}

fn reso() -> Reso {
    Reso::new(options()).expect("known resources")
}

/// With these settings of properties.
fn with(set: ResourceOptions) -> Reso {
    let mut options = options();
    options.resources[0].1 = set;
    Reso::new(options).expect("known resources")
}

fn of_vendor(name: &str, system: Option<&str>) -> Reso {
    let mut options = Options { profile: profile(name).expect("a profile"), system: system.map(ToOwned::to_owned), ..options() };
    let profile = options.profile;
    options.resources.retain(|(name, _)| !profile.expanded_only.contains(&name.as_str()));
    Reso::new(options).expect("known resources")
}

fn resource(reso: &Reso, name: &str) -> ResourceSpec {
    reso.resources().iter().find(|spec| spec.name.as_str() == name).expect("replicated").clone()
}

fn key(text: &str) -> Key {
    Key::new(text).expect("a key")
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).expect("a stamp")
}

fn answer(status: u16, body: &str) -> Response {
    Response { status, headers: Vec::new(), body: Bytes::copy_from_slice(body.as_bytes()), date: None }
}

/// A page of a sweep, or of what changed since then.
fn page(since: Option<Timestamp>, cursor: Option<&str>) -> ListQuery<'_> {
    ListQuery { variant: 0, since, cursor, halvings: 0 }
}

fn list(reso: &Reso, name: &str, query: ListQuery<'_>) -> String {
    reso.list(&resource(reso, name), query).url
}

fn pair(url: &str, name: &str) -> Option<String> {
    let url = url::Url::parse(url).expect("a URL");
    url.query_pairs().find(|(n, _)| n == name).map(|(_, value)| value.into_owned())
}

fn post(headers: &[(&str, &str)], body: &[u8]) -> HookRequest {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), Bytes::copy_from_slice(value.as_bytes())));
    HookRequest { route: EVENTS.to_owned(), query: String::new(), headers: headers.collect(), body: Bytes::copy_from_slice(body) }
}

fn delivery(headers: &[(&str, &str)], body: &str) -> Delivery {
    Delivery {
        id: DeliveryId(uuid::Uuid::nil()),
        source: SourceName::new("mls").expect("a name"),
        received_at: at("2026-01-02T00:00:00Z"),
        dedupe: String::new(),
        request: post(headers, body.as_bytes()),
    }
}

#[test]
fn resources_are_known_by_name_or_told() {
    let with = |name: &str, set| Reso::new(Options { resources: vec![(name.to_owned(), set)], ..options() });
    let rooms = with("PropertyRooms", ResourceOptions::default()).expect("known");
    assert_eq!((rooms.tables[0].key.as_str(), rooms.resources()[0].parent.as_ref()), ("RoomKey", None), "what stands above is not held");
    let error = with("X_Tours", ResourceOptions::default()).expect_err("its key is not known");
    assert!(error.contains("X_Tours") && error.contains("key"), "{error}");
    let own =
        with("X_Tours", ResourceOptions { key: Some("TourKey".into()), timestamp: Some(String::new()), ..ResourceOptions::default() });
    assert_eq!(own.expect("told").resources()[0].mode, Mode::Sweep, "without a stamp only sweeps find changes");
    let reso = reso();
    let parent = |name: &str| resource(&reso, name).parent.map(|parent| parent.to_string());
    assert_eq!((parent("Media").as_deref(), parent("OpenHouse").as_deref(), parent("Member")), (Some("Property"), Some("Property"), None));
    assert!(reso.resources().iter().all(|spec| !spec.inherits && spec.mode == Mode::Watermark));
    assert!(Reso::new(Options { profile: profile("mlsgrid").expect("a profile"), ..options() }).is_err(), "it names no system");
}

#[test]
fn a_schema_that_was_saved_goes_before_what_is_built_in() {
    let columns =
        vec![("Id".to_owned(), crate::connectors::ColumnKind::Integer), ("X/Own".to_owned(), crate::connectors::ColumnKind::Json)];
    let schema = Schema::from([("Property".to_owned(), EntityType { key: "Id".into(), numeric: true, columns })]);
    let reso = Reso::new(Options { schema, ..options() }).expect("known resources");
    let property = resource(&reso, "Property");
    let names: Vec<(&str, &str)> = property.columns.iter().map(|column| (column.name.as_str(), column.pointer.as_str())).collect();
    assert_eq!(names, [("id", "/Id"), ("x/own", "/X~1Own")]);
    assert_eq!(property.mode, Mode::Sweep, "it has no stamp");
    assert!(reso.fetch(&property, &[key("7")], By::Key).url.ends_with("/odata/Property(7)"));
    assert!(resource(&reso, "Member").columns.iter().any(|column| column.name == "officekey" && column.reference));
}
