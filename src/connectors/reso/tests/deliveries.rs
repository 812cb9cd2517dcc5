//! Pushed events.

use proptest::prelude::*;

use super::*;
use crate::model::{Operation, Push as Pushed};

const SINGLE: &str = r#"{"@reso.context":"urn:reso:metadata:2.0:resource:entityevent","EntityEventSequence":1103,"ResourceName":"Property","ResourceRecordKey":"P1"}"#;

fn secrets(texts: &[&str]) -> Vec<HookSecret> {
    texts.iter().map(|text| HookSecret { route: None, text: (*text).to_owned(), form: SecretForm::Whole }).collect()
}

fn verify(headers: &[(&str, &str)], body: &str) -> Result<Verified, Refusal> {
    reso().verify(&post(headers, body.as_bytes()), &secrets(&["new-token", "old-token"]), Timestamp(0))
}

const AUTH: (&str, &str) = ("authorization", "Bearer old-token");
const JSON: (&str, &str) = ("content-type", "application/json");

fn numbers(stated: &Statements) -> Vec<Option<i64>> {
    stated.events.iter().map(|event| event.sequence.as_ref().map(|sequence| sequence.number)).collect()
}

#[test]
fn only_who_holds_a_token_is_told_what_is_wrong() {
    assert!(verify(&[AUTH, JSON], SINGLE).is_ok());
    assert_eq!(verify(&[JSON], SINGLE), Err(Refusal::Unsigned));
    assert_eq!(verify(&[("authorization", "Basic old-token"), JSON], SINGLE), Err(Refusal::Unsigned));
    assert_eq!(verify(&[("authorization", "Bearer other"), ("content-type", "text/xml")], "x"), Err(Refusal::Mismatch));
    for media in ["text/json", "application/xml", "application/json5", "multipart/form-data", ""] {
        assert_eq!(verify(&[AUTH, ("content-type", media)], SINGLE), Err(Refusal::MediaType), "{media}");
    }
    assert_eq!(verify(&[AUTH], SINGLE), Err(Refusal::MediaType));
    for media in ["application/json; charset=utf-8", "Application/JSON;odata.metadata=minimal", "application/vnd.reso+json"] {
        assert!(verify(&[AUTH, ("content-type", media)], SINGLE).is_ok(), "{media}");
    }
    let request = HookRequest { route: "other".into(), ..post(&[AUTH, JSON], SINGLE.as_bytes()) };
    assert_eq!(reso().verify(&request, &secrets(&["old-token"]), Timestamp(0)), Err(Refusal::Route));
    let of_other = vec![HookSecret { route: Some("other".into()), text: "old-token".into(), form: SecretForm::Whole }];
    assert_eq!(reso().verify(&post(&[AUTH, JSON], SINGLE.as_bytes()), &of_other, Timestamp(0)), Err(Refusal::Mismatch));
}

#[test]
fn a_body_is_one_event_or_a_batch_of_them() {
    for body in ["", "[]", "7", "\"x\"", "null", "{", r#"{"value":{}}"#, r#"{"value":null}"#, r#"{"value":[]"#] {
        assert_eq!(verify(&[AUTH, JSON], body), Err(Refusal::Shape), "{body}");
    }
    let context = |context: &str| verify(&[AUTH, JSON], &format!(r#"{{"@reso.context":"{context}","value":[]}}"#));
    for known in ["urn:reso:metadata:2.0:resource:entityevent", "URN:RESO:metadata:2.1:resource:EntityEvent:extra:more", "https://x"] {
        assert!(context(known).is_ok(), "{known}");
    }
    assert_eq!(context("urn:reso:metadata:2.0:resource:property"), Err(Refusal::Shape));
    assert!(verify(&[AUTH, JSON], r#"{"value":[]}"#).is_ok(), "the standard's own checker takes it without a context");
}

#[test]
fn a_repetition_is_known_and_another_feed_is_another() {
    let dedupe = |headers: &[(&str, &str)], body: &str| verify(headers, body).expect("verified").dedupe;
    assert_eq!(dedupe(&[AUTH, JSON], SINGLE), dedupe(&[("authorization", "bearer new-token"), JSON], SINGLE));
    assert_ne!(dedupe(&[AUTH, JSON], SINGLE), dedupe(&[AUTH, JSON, ("entityeventsource", "other")], SINGLE));
    assert_ne!(dedupe(&[AUTH, JSON], SINGLE), dedupe(&[AUTH, JSON], r#"{"value":[]}"#));
}

#[test]
fn one_unreadable_event_does_not_spoil_the_rest() {
    let body = r#"{"@reso.context":"urn:reso:metadata:2.0:resource:entityevent","value":[
        {"EntityEventSequence":1,"ResourceName":"Property","ResourceRecordKey":"P1","Extra":[1]},
        {"EntityEventSequence":"2","ResourceName":"Media","ResourceRecordKey":"M1"},
        {"EntityEventSequenceNumeric":3,"ResourceName":"Member","ResourceRecordKeyNumeric":7,"ResourceRecordURL":"https://x"},
        {"EntityEventSequence":4,"ResourceName":"property","ResourceRecordKey":"P2"},
        {"EntityEventSequence":5,"ResourceName":"Showing","ResourceRecordKey":"S1"},
        {"EntityEventSequence":6,"ResourceName":"X_Own","ResourceRecordKey":"S1"},
        {"EntityEventSequence":7,"ResourceRecordKey":"P1"},
        {"EntityEventSequence":8,"ResourceName":"Property","ResourceRecordKey":""},
        {"EntityEventSequence":{},"ResourceName":"Property","ResourceRecordKey":"P1"},
        null,
        {"ResourceName":"Office","ResourceRecordKey":"O1"}]}"#;
    let stated = reso().events(&delivery(&[], body)).expect("statements");
    assert_eq!(numbers(&stated), [Some(1), Some(2), Some(3), Some(4), None], "a hint without its number costs one read");
    assert!(stated.events.iter().all(|event| event.operation == Operation::Update && event.push == Pushed::Hint && event.via == "hook"));
    assert_eq!(stated.events[2].entity.key.as_str(), "7");
    assert_eq!(stated.events[3].entity.resource.as_str(), "Property");
    let ignored: Vec<&str> = stated.ignored.iter().map(|ignored| ignored.resource).collect();
    assert_eq!(ignored, ["Showing", "unknown"]);
    assert!(stated.unreadable.is_some());
    assert!(reso().events(&delivery(&[], r#"{"value":[7]}"#)).is_err(), "nothing of it could be read");
    assert_eq!(reso().events(&delivery(&[], r#"{"value":[]}"#)), Ok(Statements::default()));
}

#[test]
fn a_feed_is_called_what_its_sender_calls_it() {
    let label = |headers: &[(&str, &str)]| {
        let stated = reso().events(&delivery(headers, SINGLE)).expect("statements");
        stated.events[0].sequence.clone().expect("numbered").label
    };
    assert_eq!(label(&[]), "ours", "the one that we poll");
    assert_eq!(label(&[("entityeventsource", " theirs ")]), "theirs");
    assert_eq!(label(&[("consumerlabel", "old")]), "old");
    assert_eq!(label(&[("entityeventsource", &"é".repeat(300))]).chars().count(), 255);
}

#[test]
fn a_record_that_comes_along_is_taken_only_where_it_is_what_a_read_would_show() {
    let body = r#"{"EntityEventSequence":1,"ResourceName":"Property","ResourceRecordKey":"P1",
        "Data":{"ListingKey":"P1","ModificationTimestamp":"2026-01-01T00:00:00Z","@odata.id":"x","PrivateRemarks":"y"}}"#;
    let mut options = options();
    let pushed = |options: &Options, body: &str| {
        let reso = Reso::new(options.clone()).expect("known resources");
        reso.events(&delivery(&[], body)).expect("statements").events.remove(0)
    };
    assert_eq!(pushed(&options, body).push, Pushed::Hint);
    options.push.as_mut().expect("pushes are taken").data = true;
    let event = pushed(&options, body);
    let Pushed::Whole(document) = &event.push else { panic!("a hint") };
    assert_eq!(document.text.as_ref(), r#"{"ListingKey":"P1","ModificationTimestamp":"2026-01-01T00:00:00Z"}"#);
    assert!(event.version.is_some());
    assert_eq!(pushed(&options, &body.replace(r#""Data":{"ListingKey":"P1""#, r#""Data":{"ListingKey":"P2""#)).push, Pushed::Hint);
    assert_eq!(pushed(&options, &body.replace(r#""Data":{"#, r#""Other":{"#)).push, Pushed::Hint);
}

proptest! {
    #[test]
    fn no_body_panics_and_what_is_no_json_is_refused(
        body in prop_oneof![
            "\\PC{0,60}",
            "\\{\"(value|EntityEventSequence|ResourceName|ResourceRecordKey|@reso.context)\":[\\[\\]{}\",:a-zA-Z0-9.-]{0,40}\\}",
        ],
        header in "\\PC{0,40}",
    ) {
        let accepted = verify(&[AUTH, JSON, ("entityeventsource", &header)], &body).is_ok();
        prop_assert!(!accepted || serde_json::from_str::<serde_json::Value>(&body).is_ok_and(|json| json.is_object()), "{}", body);
        let _ = verify(&[("authorization", &header), JSON], &body);
        let _ = reso().events(&delivery(&[("entityeventsource", &header)], &body));
    }
}
