//! Subscriber and subscription at the Event Platform.

use super::*;
use crate::connectors::{HookSecret, Making, Registered, SecretForm};

fn target(route: &str) -> String {
    format!("https://hooks.example.test/hooks/pim/{route}")
}

fn read(akeneo: &Akeneo, status: u16, body: &str) -> (Vec<Registered>, Option<String>) {
    akeneo.read_registrations(&answer(status, body), &target).expect("readable")
}

const SUBSCRIBERS: &str = r#"[{"id":"s-0","name":"somebody","status":"active"},{"id":"s-1","name":"instep pim","status":"active"}]"#;

fn subscription(status: &str, url: &str) -> String {
    format!(r#"{{"id":"u-1","subscriber_id":"s-1","status":"{status}","config":{{"url":"{url}"}},"unknown":{{}}}}"#)
}

#[test]
fn a_subscriber_is_found_by_its_name_and_leads_to_its_subscriptions() {
    let akeneo = akeneo();
    assert_eq!(akeneo.list_registrations(None).url, "https://events.example.test/api/v1/subscribers");
    let (standing, next) = read(&akeneo, 200, SUBSCRIBERS);
    let ours: Vec<&Registered> = standing.iter().filter(|one| one.route.is_some()).collect();
    assert_eq!(ours.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["s-1"], "somebody else's is none of ours");
    let request = akeneo.list_registrations(next.as_deref());
    assert_eq!(request.url, "https://events.example.test/api/v1/subscribers/s-1/subscriptions");
    for list in [subscription("active", &target(PLATFORM)), format!(r#"{{"items":[{}]}}"#, subscription("active", &target(PLATFORM)))] {
        let (standing, next) = read(&akeneo, 200, &list);
        assert_eq!(next, None);
        let one = standing.first().expect("a subscription");
        assert_eq!((one.id.as_str(), one.route.as_deref(), one.healthy), ("s-1/u-1", Some(PLATFORM), true));
    }
    let foreign = read(&akeneo, 200, &subscription("active", "https://other.example.test/")).0;
    assert_eq!(foreign.first().expect("a subscription").route, None);
    assert_eq!(read(&akeneo, 200, "[]"), (Vec::new(), None));
}

#[test]
fn what_is_missing_is_made_in_its_order_with_the_configured_secrets() {
    let akeneo = akeneo();
    let wanted = akeneo.registrations();
    assert_eq!(wanted.iter().map(|one| one.route.as_str()).collect::<Vec<_>>(), ["subscriber", PLATFORM]);
    let secret = |text: &str| HookSecret { route: Some(PLATFORM.to_owned()), text: text.to_owned(), form: SecretForm::Whole };
    let secrets = [secret("one"), secret("two")];
    let url = target(PLATFORM);
    let bare = Making { target: &url, secrets: &secrets, standing: &[] };
    let request = akeneo.create_registration(&wanted[0], bare).expect("it rests on nothing");
    let body = |request: &Request| serde_json::from_slice::<serde_json::Value>(request.body.as_deref().unwrap_or_default()).expect("JSON");
    assert_eq!(body(&request)["name"], "instep pim");
    assert_eq!(akeneo.create_registration(&wanted[1], bare), None, "a subscription rests on a subscriber");
    let (standing, _) = read(&akeneo, 201, r#"{"id":"s-1","name":"instep pim","status":"active"}"#);
    let making = Making { standing: &standing, ..bare };
    let request = akeneo.create_registration(&wanted[1], making).expect("it has what it rests on");
    assert_eq!(request.url, "https://events.example.test/api/v1/subscribers/s-1/subscriptions");
    let made = body(&request);
    assert_eq!((&made["source"], &made["subject"]), (&"pim".into(), &"https://pim.example.test".into()));
    assert_eq!((&made["config"]["secret"]["primary"], &made["config"]["secret"]["secondary"]), (&"one".into(), &"two".into()));
    assert_eq!(made["config"]["url"], url);
    assert!(made["events"].as_array().expect("types").contains(&"com.akeneo.pim.v1.attribute-option.deleted".into()));
    assert_eq!(akeneo.create_registration(&wanted[1], Making { secrets: &[], ..making }), None, "nobody could verify its deliveries");
}

#[test]
fn a_suspended_subscription_is_resumed_and_a_revoked_one_is_not() {
    let akeneo = akeneo();
    let standing = |status: &str| read(&akeneo, 200, &subscription(status, &target(PLATFORM))).0.remove(0);
    let suspended = standing("suspended");
    assert!(!suspended.healthy);
    let request = akeneo.mend_registration(&suspended).expect("it can be");
    assert_eq!(request.url, "https://events.example.test/api/v1/subscribers/s-1/subscriptions/u-1/resume");
    assert!(!standing("revoked").healthy && akeneo.mend_registration(&standing("revoked")).is_none());
    assert_eq!(akeneo.delete_registration("s-1/u-1").url, "https://events.example.test/api/v1/subscribers/s-1/subscriptions/u-1");
    assert_eq!(akeneo.delete_registration("s-1").url, "https://events.example.test/api/v1/subscribers/s-1");
}

#[test]
fn the_platform_is_shown_its_own_headers_and_the_pim_its_bearer() {
    let akeneo = akeneo();
    let names = |request: &Request| akeneo.authorize(request, "token").into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(&akeneo.list_registrations(None)), ["x-pim-url", "x-pim-token", "x-pim-client-id"]);
    assert_eq!(names(&akeneo.fetch(&resource(&akeneo, "products"), &[key("a")], By::Key)), ["authorization"]);
}

#[test]
fn hostile_ids_and_failures_are_no_registrations() {
    let akeneo = akeneo();
    for id in ["", "..", "a/b", r"a\u0000"] {
        let (standing, next) = read(&akeneo, 200, &format!(r#"[{{"id":"{id}","name":"instep pim"}}]"#));
        assert!(next.is_none() || !id.contains('/'), "{id}");
        assert!(standing.iter().all(|one| !one.id.contains('/')), "{id}");
    }
    for (status, body) in [(403, ""), (404, ""), (401, ""), (429, ""), (500, ""), (302, ""), (200, "<html>")] {
        assert!(akeneo.read_registrations(&answer(status, body), &target).is_err(), "{status}");
    }
}
