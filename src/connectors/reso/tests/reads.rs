//! What answers hold.

use proptest::prelude::*;

use super::*;

fn read(reso: &Reso, name: &str, asked: Asked<'_>, response: &Response) -> Result<Page, ReadError> {
    reso.read(&resource(reso, name), asked, response)
}

const RECORD: &str = r#"{"@odata.context":"https://x/$metadata#Property/$entity","@odata.etag":"W/1","ListingKey":"P1",
    "ModificationTimestamp":"2026-03-14T04:17:19.123Z","ListPrice":1e2,"PrivateRemarks":"x","Media@odata.nextLink":"y",
    "Media":[{"@odata.id":"z","MediaKey":"M1"}]}"#;

#[test]
fn a_record_looks_the_same_alone_and_in_a_list() {
    let reso = reso();
    let keys = [key("P1")];
    let alone = read(&reso, "Property", Asked::Keys(&keys, By::Key), &answer(200, RECORD)).expect("a record");
    let many = format!(r#"{{"@odata.context":"c","value":[{RECORD},{{"ListingId":"no key"}},{RECORD}]}}"#);
    let bulk = read(&reso, "Property", Asked::Keys(&keys, By::Bulk), &answer(200, &many)).expect("records");
    let (one, other) = (alone.records[0].as_ref().expect("readable"), bulk.records[0].as_ref().expect("readable"));
    assert_eq!(one, other);
    assert_eq!(
        one.document.text.as_ref(),
        r#"{"ListPrice":1e2,"ListingKey":"P1","Media":[{"MediaKey":"M1"}],"ModificationTimestamp":"2026-03-14T04:17:19.123Z"}"#
    );
    assert_eq!(one.changed_at, Some(at("2026-03-14T04:17:19.123Z")));
    assert_eq!(one.version.as_ref().map(|version| (&*version.field, version.precision_us())), Some(("ModificationTimestamp", 1_000)));
    assert!(bulk.records[1].is_err() && bulk.records[2].is_ok(), "one that cannot be read does not spoil the others");
    let touched = RECORD.replace("04:17:19.123Z", "05:00:00Z");
    let touched = read(&reso, "Property", Asked::Keys(&keys, By::Key), &answer(200, &touched)).expect("a record");
    assert_eq!(touched.records[0].as_ref().expect("readable").document.hash, one.document.hash, "a stamp alone is no change");
}

#[test]
fn only_a_record_that_was_asked_for_alone_is_ever_not_there() {
    let reso = reso();
    let keys = [key("P1")];
    let alone = |status| read(&reso, "Property", Asked::Keys(&keys, By::Key), &answer(status, "{}"));
    assert_eq!((alone(404), alone(410)), (Err(ReadError::NotFound), Err(ReadError::NotFound)));
    assert_eq!(
        (alone(400), alone(403), alone(401)),
        (Err(ReadError::Refused(400)), Err(ReadError::Denied(403)), Err(ReadError::Denied(401)))
    );
    assert_eq!(
        (alone(429), alone(503), alone(204)),
        (Err(ReadError::RateLimited), Err(ReadError::Server(503)), Err(ReadError::Refused(204)))
    );
    let bulk = |status| read(&reso, "Property", Asked::Keys(&keys, By::Bulk), &answer(status, "{}"));
    assert_eq!((bulk(400), bulk(501)), (Err(ReadError::Unsupported), Err(ReadError::Unsupported)), "`in` is no part of Core 2.0.0");
    assert_eq!((bulk(403), bulk(414)), (Err(ReadError::Denied(403)), Err(ReadError::Refused(414))));
    for cut in [r#""@odata.nextLink":"Property?$skip=1","#, r#""@odata.count":"2","#] {
        let body = format!(r#"{{{cut}"value":[{RECORD}]}}"#);
        let read = read(&reso, "Property", Asked::Keys(&keys, By::Bulk), &answer(200, &body));
        assert_eq!(read, Err(ReadError::Unsupported), "what a page was too small for is not missing");
    }
    let body = |text: &str| read(&reso, "Property", Asked::Keys(&keys, By::Key), &answer(200, text));
    for text in ["", "[]", "null", r#"{"value":[]}"#, r#"{"ListingKey":"P2"}"#, "<html>"] {
        assert!(matches!(body(text), Err(ReadError::Malformed(_))), "{text}");
    }
    let other = body(r#"{"value":[{"ListingKey":"P1"}]}"#).expect("a list of the one");
    assert!(other.records[0].is_ok());
}

#[test]
fn with_a_filter_a_record_that_does_not_pass_is_not_there() {
    let reso = with(ResourceOptions { filter: Some("City eq 'X'".into()), ..ResourceOptions::default() });
    let keys = [key("P1")];
    let body = |text: &str| read(&reso, "Property", Asked::Keys(&keys, By::Key), &answer(200, text));
    assert_eq!(body(r#"{"value":[]}"#), Err(ReadError::NotFound));
    assert!(body(r#"{"value":[{"ListingKey":"P1"}]}"#).is_ok());
    assert!(matches!(body(r#"{"ListingKey":"P1"}"#), Err(ReadError::Malformed(_))));
}

#[test]
fn what_stands_above_a_record_is_read_from_it() {
    let reso = reso();
    let parent = |name: &str, record: &str| {
        let body = format!(r#"{{"value":[{record}]}}"#);
        let page = read(&reso, name, Asked::Page(page(None, None)), &answer(200, &body)).expect("a page");
        page.records.into_iter().next().expect("one").map(|record| record.parent.map(|key| key.to_string())).map_err(|error| error.reason)
    };
    let media = |above: &str| parent("Media", &format!(r#"{{"MediaKey":"M","ResourceName":"{above}","ResourceRecordKey":"P1"}}"#));
    assert_eq!((media("Property"), media("property"), media("Member")), (Ok(Some("P1".into())), Ok(Some("P1".into())), Ok(None)));
    assert_eq!(parent("Media", r#"{"MediaKey":"M","ResourceName":"Property","ResourceRecordKey":7}"#), Ok(Some("7".into())));
    assert_eq!(parent("OpenHouse", r#"{"OpenHouseKey":"O","ListingKey":"P1"}"#), Ok(Some("P1".into())));
    assert_eq!(parent("OpenHouse", r#"{"OpenHouseKey":"O","ListingKey":null}"#), Ok(None));
    assert!(parent("OpenHouse", r#"{"OpenHouseKey":"O","ListingKey":{}}"#).is_err(), "what stands above must not be lost");
}

#[test]
fn a_record_out_of_sight_or_of_another_system_leaves_the_scope() {
    let grid = of_vendor("mlsgrid", Some("actris"));
    let scope = |record: &str| {
        let body = format!(r#"{{"value":[{record}]}}"#);
        let page = read(&grid, "Property", Asked::Page(page(None, None)), &answer(200, &body)).expect("a page");
        page.records[0].as_ref().expect("readable").in_scope
    };
    assert!(!scope(r#"{"ListingKey":"ACT1","MlgCanView":false}"#), "only keys and flags come along then");
    assert!(scope(r#"{"ListingKey":"ACT1","MlgCanView":true,"OriginatingSystemName":"ACTRIS"}"#));
    assert!(!scope(r#"{"ListingKey":"ACT1","OriginatingSystemName":"other"}"#));
    assert!(scope(r#"{"ListingKey":"ACT1"}"#));
}

proptest! {
    #[test]
    fn no_answer_panics(
        body in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..60).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            "\\{\"(value|@nextLink|@odata.count|ListingKey)\":[\\[\\]{}\",:a-z0-9@]{0,30}\\}",
        ],
        status in prop_oneof![Just(200_u16), 400_u16..600],
        cursor in proptest::option::of("(key|from|walk|skip|link):[0-9/a:]{0,8}"),
        is_change: bool,
    ) {
        for reso in [reso(), of_vendor("bridge", None)] {
            let property = resource(&reso, "Property");
            let query = page(is_change.then_some(Timestamp(0)), cursor.as_deref());
            let url = reso.list(&property, query).url;
            prop_assert!(url.starts_with("https://mls.example.test/"), "{url}");
            let response = answer(status, &body);
            let keys = [key("P1")];
            for asked in [Asked::Page(query), Asked::Keys(&keys, By::Key), Asked::Keys(&keys, By::Bulk)] {
                let _ = reso.read(&property, asked, &response);
            }
            let _ = reso.read_feed(&reso.feeds()[0], &response);
        }
    }
}
