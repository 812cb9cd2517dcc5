//! The log of events.

use super::*;
use crate::model::{Operation, Push as Pushed};

fn rows(reso: &Reso, body: &str) -> FeedPage {
    reso.read_feed(&reso.feeds()[0], &answer(200, body)).expect("a page")
}

#[test]
fn the_log_is_asked_for_above_a_number_and_for_its_newest_row() {
    let reso = reso();
    let feed = &reso.feeds()[0];
    assert_eq!(feed.order, FeedOrder::Numbers { overlap: 200, page: 1_000, label: "ours".to_owned() });
    let url = reso.feed(feed, FeedPosition::Number { after: 41, page: 500 }).url;
    let asked = ["$filter", "$orderby", "$top"].map(|name| pair(&url, name));
    assert_eq!(asked, [Some("EntityEventSequence gt 41".into()), Some("EntityEventSequence asc".into()), Some("500".into())]);
    assert!(url.starts_with("https://mls.example.test/odata/EntityEvent?"));
    let first = reso.feed(feed, FeedPosition::Number { after: -1, page: 500 }).url;
    assert_eq!(pair(&first, "$filter").as_deref(), Some("EntityEventSequence ge 0"));
    let newest = reso.feed(feed, FeedPosition::Newest).url;
    let asked = ["$filter", "$orderby", "$top"].map(|name| pair(&newest, name));
    assert_eq!(asked, [None, Some("EntityEventSequence desc".into()), Some("1".into())]);
    assert!(Reso::new(Options { log: None, ..options() }).expect("known resources").feeds().is_empty());
}

#[test]
fn rows_are_hints_with_their_number_however_they_are_written() {
    let page = rows(
        &reso(),
        r#"{"@odata.nextLink":"EntityEvent?$skip=4","value":[
        {"EntityEventSequence":9007199254740993,"ResourceName":"Property","ResourceRecordKey":"P1"},
        {"EntityEventSequence":"12","ResourceName":"Property","ResourceRecordKey":539,"ModificationTimestamp":"x","Own":{"a":[]}},
        {"EntityEventSequence":13,"ResourceName":"Showing","ResourceRecordKey":"S"},
        {"EntityEventSequence":14,"ResourceName":"Property"},
        {"EntityEventSequence":-1,"ResourceName":"Property","ResourceRecordKey":"P1"},
        {"ResourceName":"Property","ResourceRecordKey":"P1"},
        7]}"#,
    );
    assert!(page.next.is_some());
    let row = page.rows[0].as_ref().expect("readable");
    assert_eq!((row.id.as_str(), row.number), ("9007199254740993", Some(9_007_199_254_740_993)), "never by way of a float");
    let event = row.event.as_ref().expect("ours");
    assert_eq!((event.operation, &event.push, event.via), (Operation::Update, &Pushed::Hint, "feed"));
    assert_eq!(event.sequence.as_ref().map(|sequence| (sequence.label.as_str(), sequence.number)), Some(("ours", 9_007_199_254_740_993)));
    let event = page.rows[1].as_ref().expect("readable").event.as_ref().expect("ours");
    assert_eq!((event.entity.key.as_str(), event.entity.resource.as_str()), ("539", "Property"));
    let foreign = page.rows[2].as_ref().expect("readable");
    assert_eq!((foreign.number, foreign.event.is_none()), (Some(13), true));
    assert!(page.rows[3..].iter().all(Result::is_err) && page.rows.len() == 7);
}

#[test]
fn what_is_no_page_says_why() {
    let reso = reso();
    let read = |status, body: &str| reso.read_feed(&reso.feeds()[0], &answer(status, body));
    assert_eq!(read(404, ""), Err(ReadError::NotFound));
    assert_eq!(read(429, ""), Err(ReadError::RateLimited));
    assert_eq!(read(403, ""), Err(ReadError::Denied(403)));
    for body in ["", "{}", "[]", r#"{"value":{}}"#] {
        assert!(matches!(read(200, body), Err(ReadError::Malformed(_))), "{body}");
    }
    assert_eq!(read(200, r#"{"value":[]}"#), Ok(FeedPage::default()));
}
