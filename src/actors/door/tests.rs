//! `docs/answers.md`: what the door answers, made from what it does.

mod bearing;

use std::fmt::Write as _;
use std::path::Path;

use super::*;
use crate::connectors::akeneo::{self, Akeneo};
use crate::connectors::productive::{self, Productive};
use crate::connectors::{Connector, Statements};

const DAY: Duration = Duration::from_secs(24 * 3600);

const HEAD: &str = "# What the door answers

Every answer below `/hooks/`, by upstream and route. This file is made from the code: `UPDATE_ANSWERS=1 cargo test --lib door` writes it anew.

There is never a 404, 405 or 3xx: some upstreams suspend a subscription at the first one.
The order of the checks is that of `src/http/hooks.rs`; whoever fails the first ones gets one and the same 401.

| upstream | route | situation | status | why |
| --- | --- | --- | --- | --- |
";

fn connectors() -> [Box<dyn Connector>; 2] {
    let productive = Productive::new(productive::Options {
        url: "https://api.example.test/".parse().expect("a URL"),
        organization: 1,
        resources: Vec::new(),
        exclude: Vec::new(),
        read_lag: Duration::ZERO,
        list_lag: Duration::ZERO,
        keep_deleted: DAY,
        tombstones: DAY,
        signature_tolerance: None,
    });
    let akeneo = Akeneo::new(akeneo::Options {
        url: "https://pim.example.test/".parse().expect("a URL"),
        auth: akeneo::Auth::App,
        zone_seconds: 0,
        product_key: akeneo::ProductKey::Uuid,
        resources: Vec::new(),
        events_api: true,
        event_platform: true,
        notifications: true,
        platform: None,
        ignore_authors: Vec::new(),
        subscriptions: Vec::new(),
        exclude: Vec::new(),
        read_lag: Duration::ZERO,
        list_lag: Duration::ZERO,
        keep_deleted: DAY,
        tombstones: DAY,
    });
    [Box::new(productive.expect("a connector")), Box::new(akeneo.expect("a connector"))]
}

/// Every refusal but the backlog's, what it is, and why it has its status.
fn refusals() -> [(Refusal, &'static str, &'static str); 14] {
    let unavailable = Unavailable { retry_after: RETRY_AFTER };
    [
        (Refusal::Method, "an unknown source or route, or another method than POST", "a stranger learns nothing of what there is"),
        (Refusal::Unsigned, "no signature, or one that is malformed", "the same: it is not read any further"),
        (Refusal::Signature("mismatch"), "no secret makes this signature", "the same, once the secrets have been read again"),
        (Refusal::MediaType, "somebody known sends another media type", "it can be put right only by whoever sends it"),
        (Refusal::Shape, "somebody known sends a body of another shape", "the same, where the contract has the sender hear of it"),
        (Refusal::Encoding, "the body is encoded", "the signature is over the bytes as they are sent"),
        (Refusal::TooLarge, "the body is larger than it may be", "memory is bounded"),
        (Refusal::TooSlow, "the body does not arrive in time", "a slow sender must not hold a seat"),
        (Refusal::Broken, "the body breaks off", "nobody may be there to read the answer"),
        (Refusal::NoBudget, "there is no memory left for bodies", "it is a moment's"),
        (Refusal::Store(unavailable), "the store is away, or the disk is full to its floor", "what cannot be kept is not acknowledged"),
        (Refusal::StoreSlow, "the store does not commit in time", "the delivery may be stored all the same, and comes twice then"),
        (Refusal::CallerGone, "the caller hangs up first", "counted, never sent; a body that was complete is stored"),
        (Refusal::Internal, "a bug", "the delivery is neither lost nor stored, as far as the sender can tell"),
    ]
}

fn table() -> String {
    let mut text = HEAD.to_owned();
    let mut row = |upstream: &str, route: &str, situation: &str, status: &dyn std::fmt::Display, why: &str| {
        writeln!(text, "| {upstream} | {route} | {situation} | {status} | {why} |").expect("a text can be written to");
    };
    row("all", "all", "the delivery is stored, or one like it still waits", &200, "a commit with fsync came before");
    row(
        "all",
        "all",
        "the signature holds and the body cannot be read",
        &200,
        "it is kept in quarantine; a 4xx would only count against the subscription",
    );
    for (refusal, situation, why) in refusals() {
        let (status, slowed) = (refusal.status(false), refusal.status(true));
        let status = if status == slowed { status.to_string() } else { format!("{status}, or {slowed} where the backlog is answered so") };
        row("all", "all", situation, &status, why);
    }
    for connector in connectors() {
        let mut routes: Vec<(Vec<&str>, HookPolicy)> = Vec::new();
        for route in connector.hook_routes() {
            let policy = connector.hook_policy(route).expect("a route of its own");
            match routes.iter_mut().find(|(_, known)| *known == policy) {
                Some((names, _)) => names.push(route),
                None => routes.push((vec![route], policy)),
            }
        }
        for (names, policy) in routes {
            let names = if names.len() > 3 { "all".to_owned() } else { names.join(", ") };
            let (status, why) = match on_overload(&policy) {
                Ok(()) => (200, "it is taken down to the disk floor: a refusal makes this upstream no slower"),
                Err(refused @ Overload::TooManyRequests { .. }) => {
                    (Refusal::Overload(refused).status(false), "this upstream slows down at it")
                }
                Err(refused) => (Refusal::Overload(refused).status(false), "this upstream takes a 429 as a failure of its own"),
            };
            row(connector.kind(), &names, "the backlog is above its mark", &status, why);
            let any = Refusal::Store(Unavailable { retry_after: RETRY_AFTER });
            let again = match loses(&policy, &any) {
                true => "it is never sent again: a gap opens, once a day where it may have been anybody's, and the next sweeps repair it"
                    .to_owned(),
                false => format!("it is sent again for {}", humantime::format_duration(policy.retries_for)),
            };
            row(connector.kind(), &names, "any refusal above but for want of a signature", &"as above", &again);
        }
    }
    row("all", probe::ROUTE, "a probe that we sent to ourselves and expect now", &200, "it is taken once, and is nothing else");
    row("akeneo", akeneo::EVENTS, "the test button: an empty body with a signature", &200, "it holds no event");
    text
}

#[test]
fn the_table_of_answers_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/answers.md");
    if std::env::var_os("UPDATE_ANSWERS").is_some() {
        std::fs::write(&path, table()).expect("the table can be written");
    }
    let file = std::fs::read_to_string(&path).expect("the table is there");
    assert_eq!(file, table(), "write it anew: UPDATE_ANSWERS=1 cargo test --lib door");
}

#[test]
fn no_connector_has_the_route_of_our_probes() {
    assert!(connectors().iter().all(|connector| connector.hook_policy(probe::ROUTE).is_none()));
}

#[test]
fn no_answer_suspends_a_subscription_by_itself() {
    for (refusal, ..) in refusals() {
        assert!(!matches!(refusal.status(true), 300..=399 | 404 | 405), "{refusal:?}");
    }
    // The verified test probe and what cannot be read are answered before anybody reads them.
    let [_, akeneo] = connectors();
    let probe = Delivery {
        id: DeliveryId(Uuid::nil()),
        source: crate::model::SourceName::new("pim").expect("a name"),
        received_at: Timestamp(0),
        dedupe: String::new(),
        request: HookRequest { route: akeneo::EVENTS.into(), query: String::new(), headers: Vec::new(), body: Bytes::new() },
    };
    assert_eq!(akeneo.events(&probe), Ok(Statements::default()));
}

#[test]
fn only_who_never_sends_again_loses_what_is_refused() {
    let [productive, akeneo] = connectors();
    let policy = |connector: &dyn Connector, route: &str| connector.hook_policy(route).expect("a route of its own");
    for (refusal, ..) in refusals() {
        let is_strangers = matches!(refusal, Refusal::Method | Refusal::Unsigned);
        assert_eq!(loses(&policy(&*akeneo, akeneo::EVENTS), &refusal), !is_strangers, "{refusal:?}");
        assert!(!loses(&policy(&*akeneo, akeneo::PLATFORM), &refusal) && !loses(&policy(&*productive, "task-updated"), &refusal));
    }
    assert_eq!(on_overload(&policy(&*akeneo, akeneo::EVENTS)), Ok(()));
    assert_eq!(on_overload(&policy(&*akeneo, akeneo::PLATFORM)), Err(Overload::TooManyRequests { retry_after: RETRY_AFTER }));
    assert_eq!(on_overload(&policy(&*productive, "task-updated")), Err(Overload::Unavailable { retry_after: RETRY_AFTER }));
    assert!(akeneo.hook_policy("task-updated").is_none() && productive.hook_policy(akeneo::EVENTS).is_none());
}

#[tokio::test]
async fn what_may_have_been_anybodys_opens_one_gap_a_day() {
    crate::store::testing::on_both(|store| async move {
        let url = "http://127.0.0.1:1/".parse().expect("a URL");
        let source = Arc::new(crate::actors::testing::source(&store, &url, 1, Duration::ZERO));
        let (answers, journal) = (Answers::new(source.clock), Journal::new(source.health.clone()));
        let doors = Doors::new(&[Arc::clone(&source)], &journal, &answers, &source.reporter);
        let door = doors.source(source.name.as_str()).expect("its door");
        let gaps = |refusal: &Refusal| {
            door.refused(akeneo::EVENTS, refusal.status(false), refusal);
            answers.take().into_iter().filter_map(|(_, gap)| gap).collect::<Vec<_>>()
        };
        let (forged, away) = (Refusal::Signature("mismatch"), Refusal::StoreSlow);
        assert_eq!(gaps(&forged), ["mismatch"], "a secret that was replaced costs what it lost");
        assert_eq!((gaps(&forged), gaps(&Refusal::TooSlow)), (Vec::new(), Vec::new()), "strangers do not spend our quota");
        assert_eq!((gaps(&away), gaps(&away)), (vec!["store_slow"], vec!["store_slow"]), "what we refused ourselves is always lost");
        assert_eq!(gaps(&Refusal::Unsigned), Vec::<&str>::new());
    })
    .await;
}
