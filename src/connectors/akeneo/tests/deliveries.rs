//! Signatures, events and notifications of both event systems.

use super::*;
use crate::connectors::{Flow, Ignored, Refusal, SecretForm};
use crate::model::{Event, Operation, Push};

const SECRET: &str = "unit-test-secret";
const STAMP: &str = "1767225600";
/// Computed with another implementation (contract, section 1.4), as are all vectors here.
const BODY: &str = r#"{"events":[{"action":"product.removed","event_id":"00000000-0000-4000-8000-000000000001","event_datetime":"2026-01-01T00:00:00+00:00","author":"erp_0000","author_type":"api","pim_source":"https:\/\/pim.example.test","data":{"resource":{"identifier":"sku-1","uuid":"00000000-0000-4000-8000-0000000000aa"}}}]}"#;
const MAC: &str = "e5e7fccaa439d7c4dbca1c8f5fd9a8cb3d585ebe6f2950c0e0a0661c69024550";
const PROBE_MAC: &str = "7d536679657fbef04ba613be414959a59e93f06443dd596aebf4bbb00540ae14";
const CLOUD_EVENT: &str = r#"{"specversion":"1.0","id":"00000000-0000-7000-8000-000000000001","source":"akeneo-event-platform","type":"com.akeneo.pim.v1.product.deleted","subject":"00000000-0000-7000-8000-0000000000ff","datacontenttype":"application/json","dataschema":"https://event.prd.sdk.akeneo.cloud/spec/com.akeneo.pim.v1.product.deleted.schema.json","time":"2026-01-01T00:00:00Z","data":{"product":{"uuid":"00000000-0000-4000-8000-0000000000aa"},"author":{"identifier":"erp_0000","type":"api"}}}"#;
const PRIMARY_MAC: &str = "8e7bb8b873e82974d21be60291895bfdb4f261cc34813edc8b0b5ab20aecd738";
const SECONDARY_MAC: &str = "a35496e8f32c54e70fa3d6c545a6646ece1b1fc7f7de94f4c37294b1917e6744";

const SIGNATURE: &str = "x-akeneo-request-signature";
const TIMESTAMP: &str = "x-akeneo-request-timestamp";
const PRIMARY: &str = "x-akeneo-signature-primary";
const SECONDARY: &str = "x-akeneo-signature-secondary";
const ALGORITHM: &str = "x-akeneo-signature-algorithm";

fn secret(route: Option<&str>, text: &str) -> HookSecret {
    HookSecret { route: route.map(ToOwned::to_owned), text: text.to_owned(), form: SecretForm::Whole }
}

fn verify(request: &HookRequest, secrets: &[HookSecret]) -> Result<Verified, Refusal> {
    akeneo().verify(request, secrets, Timestamp(0))
}

fn events_api() -> HookRequest {
    request(EVENTS, &[(SIGNATURE, MAC), (TIMESTAMP, STAMP)], BODY.as_bytes())
}

fn platform() -> HookRequest {
    request(PLATFORM, &[(PRIMARY, PRIMARY_MAC), (ALGORITHM, "HmacSHA256")], CLOUD_EVENT.as_bytes())
}

#[test]
fn the_vectors_of_the_events_api_hold_under_any_of_several_secrets() {
    let rotated = [secret(Some(EVENTS), "newer"), secret(Some(EVENTS), SECRET)];
    assert!(verify(&events_api(), &rotated).is_ok(), "however late the stamp is");
    let probe = request(EVENTS, &[(SIGNATURE, PROBE_MAC), (TIMESTAMP, "1577836800")], b"");
    assert!(verify(&probe, &[secret(None, "a_secret")]).is_ok());
    assert_eq!(akeneo().events(&delivery(EVENTS, "")), Ok(Statements::default()), "the test button says nothing");
    assert_eq!(verify(&events_api(), &[]), Err(Refusal::Mismatch));
    assert_eq!(verify(&events_api(), &[secret(Some(PLATFORM), SECRET)]), Err(Refusal::Mismatch), "the secret is of the other system");
}

#[test]
fn the_vectors_of_the_event_platform_hold_in_either_header_under_either_secret() {
    let (primary, secondary) = (secret(Some(PLATFORM), "unit-primary"), secret(Some(PLATFORM), "unit-secondary"));
    let both = request(PLATFORM, &[(PRIMARY, PRIMARY_MAC), (SECONDARY, SECONDARY_MAC)], CLOUD_EVENT.as_bytes());
    let swapped = request(PLATFORM, &[(PRIMARY, SECONDARY_MAC)], CLOUD_EVENT.as_bytes());
    for secrets in [vec![primary.clone()], vec![secondary.clone()], vec![secret(None, "other"), secondary.clone()]] {
        assert!(verify(&both, &secrets).is_ok());
    }
    assert!(verify(&platform(), &[primary]).is_ok() && verify(&swapped, &[secondary]).is_ok());
    let notice = request(NOTIFICATIONS, &[(PRIMARY, PRIMARY_MAC)], CLOUD_EVENT.as_bytes());
    assert!(verify(&notice, &[secret(Some(NOTIFICATIONS), "unit-primary")]).is_ok());
    assert_eq!(verify(&both, &[secret(Some(EVENTS), "unit-primary")]), Err(Refusal::Mismatch));
}

#[test]
fn every_flipped_bit_of_header_or_body_is_refused_by_both_systems() {
    let secrets = [secret(None, SECRET), secret(None, "unit-primary"), secret(None, "unit-secondary")];
    let secondary = request(PLATFORM, &[(SECONDARY, SECONDARY_MAC)], CLOUD_EVENT.as_bytes());
    for good in [events_api(), platform(), secondary] {
        assert!(verify(&good, &secrets).is_ok());
        for (at, (name, value)) in good.headers.iter().enumerate() {
            for bit in 0..value.len() * 8 {
                let mut flipped = value.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let mut request = good.clone();
                request.headers[at].1 = flipped.into();
                assert!(verify(&request, &secrets).is_err(), "{name}, bit {bit}");
            }
        }
        for bit in 0..good.body.len() * 8 {
            let mut body = good.body.to_vec();
            body[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(verify(&HookRequest { body: body.into(), ..good.clone() }, &secrets), Err(Refusal::Mismatch), "bit {bit}");
        }
    }
}

#[test]
fn broken_headers_and_foreign_routes_are_refused() {
    let secrets = [secret(None, SECRET), secret(None, "unit-primary")];
    for stamp in ["", "-1", "1.0", "1767225600 ", "0x10", "1767225600000000"] {
        assert_eq!(verify(&request(EVENTS, &[(SIGNATURE, MAC), (TIMESTAMP, stamp)], BODY.as_bytes()), &secrets), Err(Refusal::Unsigned));
    }
    assert_eq!(verify(&request(EVENTS, &[(SIGNATURE, MAC)], BODY.as_bytes()), &secrets), Err(Refusal::Unsigned));
    let other_algorithm = request(PLATFORM, &[(PRIMARY, PRIMARY_MAC), (ALGORITHM, "none")], CLOUD_EVENT.as_bytes());
    assert_eq!(verify(&other_algorithm, &secrets), Err(Refusal::Unsigned));
    let upper = request(PLATFORM, &[(PRIMARY, &PRIMARY_MAC.to_uppercase())], CLOUD_EVENT.as_bytes());
    assert_eq!(verify(&upper, &secrets), Err(Refusal::Mismatch));
    for route in ["", "event", "events/", "platform/x"] {
        assert_eq!(verify(&HookRequest { route: route.into(), ..events_api() }, &secrets), Err(Refusal::Route));
    }
    let platform_only = Akeneo::new(Options { events_api: false, ..options() }).expect("known resources");
    assert_eq!(platform_only.verify(&events_api(), &secrets, Timestamp(0)), Err(Refusal::Route));
    assert_eq!((platform_only.hook_policy(EVENTS), platform_only.hook_routes()), (None, vec![PLATFORM, NOTIFICATIONS]));
}

#[test]
fn a_repetition_is_known_by_the_ids_of_its_events() {
    let secrets = [secret(None, SECRET), secret(None, "unit-primary")];
    let first = verify(&platform(), &secrets).expect("verified").dedupe;
    let dedupe = |route: &str, body: &str| super::super::deliveries::dedupe(&request(route, &[], body.as_bytes()));
    assert_eq!(dedupe(PLATFORM, &CLOUD_EVENT.replace("10:00", "10:01")), first);
    assert_ne!(dedupe(PLATFORM, &CLOUD_EVENT.replace("000000000001\"", "000000000002\"")), first);
    assert_ne!(dedupe(PLATFORM, &CLOUD_EVENT.replace("00ff", "00fe")), first, "another subscription's");
    assert_eq!(dedupe(EVENTS, &BODY.replace("sku-1", "sku-2")), dedupe(EVENTS, BODY));
    let without = BODY.replace("event_id", "id");
    assert_ne!(dedupe(EVENTS, &without.replace("sku-1", "sku-2")), dedupe(EVENTS, &without), "without ids the body tells");
}

fn stated(akeneo: &Akeneo, route: &str, body: &str) -> Statements {
    akeneo.events(&delivery(route, body)).unwrap_or_else(|unreadable| panic!("{unreadable}: {body}"))
}

fn one(akeneo: &Akeneo, route: &str, body: &str) -> Event {
    let mut stated = stated(akeneo, route, body);
    assert!(stated.events.len() == 1 && stated.ignored.is_empty() && stated.unreadable.is_none(), "{stated:?}");
    stated.events.remove(0)
}

fn legacy(action: &str, data: &str) -> String {
    format!(
        r#"{{"events":[{{"action":"{action}","event_id":"1","event_datetime":"2026-01-01T01:00:00+01:00","author":"julia","author_type":"ui","data":{data}}}]}}"#
    )
}

#[test]
fn every_action_of_the_events_api_is_a_hint_with_its_stamp() {
    let akeneo = akeneo();
    let product = r#"{"resource":{"uuid":"u-1","identifier":null,"updated":"2026-01-01T10:00:01+01:00","values":[],"associations":{}}}"#;
    let model = r#"{"resource":{"code":"m-1","parent":null,"updated":"2026-01-01T10:00:01+01:00","values":{}}}"#;
    for (action, data, resource, key, operation) in [
        ("product.created", product, "products", "u-1", Operation::Create),
        ("product.updated", product, "products", "u-1", Operation::Update),
        ("product.removed", product, "products", "u-1", Operation::Delete),
        ("product_model.created", model, "product-models", "m-1", Operation::Create),
        ("product_model.updated", model, "product-models", "m-1", Operation::Update),
        ("product_model.removed", r#"{"resource":{"code":"m-1"}}"#, "product-models", "m-1", Operation::Delete),
        ("product_model.removed", r#"{"code":"m-1"}"#, "product-models", "m-1", Operation::Delete),
    ] {
        let event = one(&akeneo, EVENTS, &legacy(action, data));
        assert_eq!((event.entity.resource.as_str(), event.entity.key.as_str(), event.operation), (resource, key, operation));
        assert_eq!((event.push, event.via), (Push::Hint, "events_api"));
        let version = event.version.map(|version| (version.text(), version.precision_us()));
        let expected = (operation != Operation::Delete).then(|| ("2026-01-01T09:00:01.000000Z".to_owned(), 1_000_000));
        assert_eq!(version, expected, "{action}");
    }
    // The name from before the first release, and several events in one request.
    let many = format!(
        r#"{{"events":[{}]}}"#,
        [r#"{"action":"product.created","event_date":"2026-01-01T00:00:00+00:00","data":{"resource":{"uuid":"u"}}}"#; 12].join(",")
    );
    assert_eq!(stated(&akeneo, EVENTS, &many).events.len(), 12);
    let escaped = legacy("product_model.updated", r#"{"resource":{"code":"a\/b \u00e9"}}"#);
    assert_eq!(one(&akeneo, EVENTS, &escaped).entity.key.as_str(), "a/b é");
}

#[test]
fn what_is_none_of_ours_is_left_alone_with_a_reason() {
    let akeneo = akeneo();
    let only = |stated: Statements| {
        assert!(stated.events.is_empty() && stated.flow.is_none(), "{stated:?}");
        stated.ignored
    };
    let own = legacy("product.updated", r#"{"resource":{"uuid":"u"}}"#).replace("julia", "shop_1234");
    assert_eq!(only(stated(&akeneo, EVENTS, &own)), [Ignored { resource: "products", reason: "ignored_author" }]);
    let own = cloud("product.updated", r#"{"product":{"uuid":"u"},"author":{"identifier":"shop_1234","type":"api"}}"#);
    assert_eq!(only(stated(&akeneo, PLATFORM, &own)), [Ignored { resource: "products", reason: "ignored_author" }]);
    for word in ["product.exploded", "product.updated.delta.v2", "planet.created", "product"] {
        assert_eq!(only(stated(&akeneo, PLATFORM, &cloud(word, "{}")))[0].reason, "unknown_type", "{word}");
    }
    for word in ["app.deleted", "connection.deleted", "job.export.status-changed", "workflow.task.completed"] {
        assert_eq!(only(stated(&akeneo, PLATFORM, &cloud(word, "{}")))[0].reason, "not_replicated", "{word}");
    }
    assert_eq!(only(stated(&akeneo, PLATFORM, r#"{"type":"com.akeneo.pim.v2.product.updated"}"#))[0].reason, "unknown_type");
    assert_eq!(only(stated(&akeneo, EVENTS, &legacy("family.created", "{}")))[0].reason, "unknown_type");
    let subscribed = Akeneo::new(Options { subscriptions: vec!["ours".into()], ..options() }).expect("known resources");
    assert_eq!(only(stated(&subscribed, PLATFORM, CLOUD_EVENT))[0].reason, "foreign_subscription");
    let resources = vec![("channels".to_owned(), ResourceOptions::default())];
    let few = Akeneo::new(Options { resources, ..options() }).expect("known resources");
    assert_eq!(only(stated(&few, PLATFORM, CLOUD_EVENT))[0].reason, "not_replicated");
    let keep = Keep { above: vec!["color*".into()], ..Keep::default() };
    let colors = with("attribute-options", ResourceOptions { keep, ..ResourceOptions::default() });
    let of = |attribute: &str| {
        cloud("attribute-option.updated", &format!(r#"{{"attribute_option":{{"code":"x","attribute":{{"code":"{attribute}"}}}}}}"#))
    };
    assert_eq!(only(stated(&colors, PLATFORM, &of("size")))[0].reason, "out_of_scope");
    assert_eq!(one(&colors, PLATFORM, &of("colors")).entity.key.as_str(), "colors/x");
}

#[test]
fn products_are_named_by_what_keys_them() {
    let (by_uuid, by_identifier) =
        (akeneo(), Akeneo::new(Options { product_key: ProductKey::Identifier, ..options() }).expect("known resources"));
    let both = legacy("product.updated", r#"{"resource":{"identifier":"sku-1","uuid":"u-1"}}"#);
    assert_eq!(one(&by_uuid, EVENTS, &both).entity.key.as_str(), "u-1");
    assert_eq!(one(&by_identifier, EVENTS, &both).entity.key.as_str(), "sku-1");
    let old = legacy("product.removed", r#"{"resource":{"identifier":"sku-1"}}"#);
    let unreadable = by_uuid.events(&delivery(EVENTS, &old)).expect_err("no uuid");
    assert!(unreadable.reason.contains("product_key = \"identifier\""), "{unreadable}");
    assert_eq!(one(&by_identifier, EVENTS, &old).entity.key.as_str(), "sku-1");
    let nameless = legacy("product.updated", r#"{"resource":{"identifier":null,"uuid":"u-1"}}"#);
    assert_eq!(stated(&by_identifier, EVENTS, &nameless).ignored[0].reason, "without_identifier");
    let thin = cloud("product.updated", r#"{"product":{"uuid":"u-1"}}"#);
    assert!(by_identifier.events(&delivery(PLATFORM, &thin)).expect_err("no identifier").reason.contains("send_product_identifier"));
    assert_eq!(
        one(&by_identifier, PLATFORM, &cloud("product.updated", r#"{"product":{"uuid":"u","identifier":"s"}}"#)).entity.key.as_str(),
        "s"
    );
}

fn cloud(word: &str, data: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"1","source":"pim","type":"com.akeneo.pim.v1.{word}","subject":"s","time":"2026-01-01T10:00:00Z","data":{data}}}"#
    )
}

#[test]
fn every_type_of_the_event_platform_is_a_hint() {
    let akeneo = akeneo();
    for (entity, data, resource, key) in [
        ("product", r#"{"product":{"uuid":"u"}}"#, "products", "u"),
        ("product-model", r#"{"product_model":{"code":"m"}}"#, "product-models", "m"),
        ("product-model", r#"{"product":{"code":"m"}}"#, "product-models", "m"),
        ("family", r#"{"family":{"code":"f"}}"#, "families", "f"),
        ("attribute", r#"{"attribute":{"code":"a"}}"#, "attributes", "a"),
        ("attribute-group", r#"{"attribute_group":{"code":"g"}}"#, "attribute-groups", "g"),
        ("category", r#"{"category":{"code":"c"}}"#, "categories", "c"),
        ("attribute-option", r#"{"attribute_option":{"code":"red","attribute":{"code":"color"}}}"#, "attribute-options", "color/red"),
        ("asset", r#"{"asset":{"code":"p1","asset_family":{"code":"pack"}}}"#, "assets", "pack/p1"),
        (
            "reference-entity-record",
            r#"{"reference_entity_record":{"code":"b","reference_entity":{"code":"brand"}}}"#,
            "reference-entity-records",
            "brand/b",
        ),
    ] {
        for (verb, operation) in [("created", Operation::Create), ("updated", Operation::Update), ("deleted", Operation::Delete)] {
            let event = one(&akeneo, PLATFORM, &cloud(&format!("{entity}.{verb}"), data));
            assert_eq!((event.entity.resource.as_str(), event.entity.key.as_str(), event.operation), (resource, key, operation));
            assert_eq!((event.version, event.push, event.via), (None, Push::Hint, "event_platform"));
        }
    }
    let delta = r#"{"product":{"uuid":"u","updated_at":{"date":"2026-01-01 10:00:00.000000","timezone":"UTC"},"changes":{"enabled":{"previous":true,"new":false}}}}"#;
    for word in ["product.updated.delta", "product.became-complete", "product.became-incomplete"] {
        assert_eq!(one(&akeneo, PLATFORM, &cloud(word, delta)).operation, Operation::Update);
    }
    assert_eq!(one(&akeneo, PLATFORM, CLOUD_EVENT).operation, Operation::Delete);
}

#[test]
fn what_cannot_be_read_is_set_aside_and_takes_nothing_else_along() {
    let akeneo = akeneo();
    for body in ["{", "[]", "{}", r#"{"events":{}}"#, "\u{0}", r#"{"events":[{}]}"#, r#"{"events":[1]}"#] {
        let unreadable = akeneo.events(&delivery(EVENTS, body)).expect_err(body);
        assert_eq!(&unreadable.raw[..], body.as_bytes());
    }
    for body in ["", "[]", "{}", r#"{"type":1}"#, &cloud("product.updated", "[]"), &cloud("asset.updated", r#"{"asset":{"code":"x"}}"#)] {
        assert!(akeneo.events(&delivery(PLATFORM, body)).is_err(), "{body}");
    }
    for key in ["", ".", "..", "a\\u0000b", "\\ud800"] {
        assert!(
            akeneo.events(&delivery(PLATFORM, &cloud("family.updated", &format!(r#"{{"family":{{"code":"{key}"}}}}"#)))).is_err(),
            "{key}"
        );
    }
    let two = format!(
        r#"{{"events":[{},{}]}}"#,
        r#"{"action":"product.updated","data":{"resource":{}}}"#, r#"{"action":"product.updated","data":{"resource":{"uuid":"u"}}}"#
    );
    let stated = stated(&akeneo, EVENTS, &two);
    assert_eq!(
        (stated.events.len(), stated.unreadable.is_some()),
        (1, true),
        "the delivery goes into quarantine, its other event is worked in"
    );
}

#[test]
fn notifications_say_from_when_on_deliveries_are_lost() {
    let akeneo = akeneo();
    let body = |word: &str, stamp: &str| {
        format!(
            r#"{{"notification_type":"{word}","timestamp":{stamp},"subscription_id":"s","subscriber_id":"x","events":[],"reason":"http_404"}}"#
        )
    };
    let flow = |body: &str| stated(&akeneo, NOTIFICATIONS, body).flow;
    let at = Timestamp::parse("2026-01-01T10:00:00Z").expect("a stamp");
    for word in ["subscription.suspended.system", "subscription.suspended.user", "subscription.revoked"] {
        assert_eq!(flow(&body(word, "\"2026-01-01T10:00:00Z\"")), Some(Flow::Lost { since: at }));
    }
    assert_eq!(flow(&body("subscription.resumed", "1767261600")), Some(Flow::Again { since: at }));
    let received = delivery(NOTIFICATIONS, "").received_at;
    for unknown in ["\"2099-01-01T10:00:00Z\"", "\"yesterday\"", "null", "-1"] {
        assert_eq!(flow(&body("subscription.revoked", unknown)), Some(Flow::Lost { since: received }), "{unknown}");
    }
    assert_eq!(stated(&akeneo, NOTIFICATIONS, &body("subscription.painted", "1")).ignored[0].reason, "unknown_type");
    let subscribed = Akeneo::new(Options { subscriptions: vec!["ours".into()], ..options() }).expect("known resources");
    assert_eq!(stated(&subscribed, NOTIFICATIONS, &body("subscription.revoked", "1")).ignored[0].reason, "foreign_subscription");
    assert!(akeneo.events(&delivery(NOTIFICATIONS, "{}")).is_err());
}
