//! The door of a source whose senders show a token of ours.

use super::*;
use crate::actors::source::ConnectorDebug;
use crate::actors::testing;
use crate::connectors::{
    Asked, FeedPage, FeedPosition, FeedSpec, Inviting, ListQuery, Making, Overload as OnOverload, Page, ReadError, Registered,
    Registration, RegistrationError, Request, ResourceSpec, Response, Unreadable, Verified, bearer,
};
use crate::model::Key;
use crate::model::ordering::By;
use crate::store::Store;

const ROUTE: &str = "entity-events";
const SPAN: Duration = Duration::from_secs(60);

/// An upstream of another kind whose senders bear tokens, and say nothing else.
#[derive(Debug)]
struct Bearing(Arc<dyn ConnectorDebug>);

impl Connector for Bearing {
    fn kind(&self) -> &'static str {
        "bearing"
    }
    fn resources(&self) -> &[ResourceSpec] {
        self.0.resources()
    }
    fn feeds(&self) -> &[FeedSpec] {
        self.0.feeds()
    }
    fn hook_routes(&self) -> Vec<&'static str> {
        vec![ROUTE]
    }
    fn hook_policy(&self, route: &str) -> Option<HookPolicy> {
        (route == ROUTE).then_some(HookPolicy {
            body_max: 1_000,
            overload: OnOverload::TooManyRequests,
            retries_for: Duration::ZERO,
            signature_headers: &["authorization"],
            retry_after: RetryAfter::Date,
            retry_after_span: Some(SPAN),
            cap: None,
        })
    }
    fn inviting(&self) -> Option<Inviting> {
        Some(Inviting { route: ROUTE, header: "Authorization", scheme: "Bearer", label: Some(("EntityEventSource", "mls".to_owned())) })
    }
    fn verify(&self, request: &HookRequest, secrets: &[HookSecret], _now: Timestamp) -> Result<Verified, Refused> {
        let token = request.header("authorization").and_then(bearer::token).ok_or(Refused::Unsigned)?;
        if !bearer::matches(token, secrets) {
            return Err(Refused::Mismatch);
        }
        if request.header("content-type") != Some("application/json") {
            return Err(Refused::MediaType);
        }
        if !request.body.starts_with(b"{") {
            return Err(Refused::Shape);
        }
        Ok(Verified { dedupe: String::new() })
    }
    fn events(&self, _delivery: &Delivery) -> Result<Statements, Unreadable> {
        Ok(Statements::default())
    }
    fn fetch(&self, resource: &ResourceSpec, keys: &[Key], by: By) -> Request {
        self.0.fetch(resource, keys, by)
    }
    fn lists(&self, resource: &ResourceSpec) -> crate::reconcile::Lists {
        self.0.lists(resource)
    }
    fn list(&self, resource: &ResourceSpec, query: ListQuery<'_>) -> Request {
        self.0.list(resource, query)
    }
    fn read(&self, resource: &ResourceSpec, asked: Asked<'_>, response: &Response) -> Result<Page, ReadError> {
        self.0.read(resource, asked, response)
    }
    fn feed(&self, feed: &FeedSpec, position: FeedPosition<'_>) -> Request {
        self.0.feed(feed, position)
    }
    fn read_feed(&self, feed: &FeedSpec, response: &Response) -> Result<FeedPage, ReadError> {
        self.0.read_feed(feed, response)
    }
    fn authorize(&self, request: &Request, secret: &str) -> Vec<(String, String)> {
        self.0.authorize(request, secret)
    }
    fn registrations(&self) -> Vec<Registration> {
        Vec::new()
    }
    fn list_registrations(&self, cursor: Option<&str>) -> Request {
        self.0.list_registrations(cursor)
    }
    fn read_registrations(
        &self,
        response: &Response,
        target: &dyn Fn(&str) -> String,
    ) -> Result<(Vec<Registered>, Option<String>), RegistrationError> {
        self.0.read_registrations(response, target)
    }
    fn create_registration(&self, _registration: &Registration, _making: Making<'_>) -> Option<Request> {
        None
    }
    fn delete_registration(&self, id: &str) -> Request {
        self.0.delete_registration(id)
    }
}

fn bearing(store: &Store) -> (Arc<Source>, Arc<dyn SourceDoor>, Answers) {
    let url = "http://127.0.0.1:1/".parse().expect("a URL");
    let mut source = testing::source(store, &url, 1, Duration::ZERO);
    source.connector = Arc::new(Bearing(Arc::clone(&source.connector)));
    source.settings.public_url = Some("https://hooks.example.test/".to_owned());
    let source = Arc::new(source);
    let (answers, journal) = (Answers::new(source.clock), Journal::new(source.health.clone()));
    let doors = Doors::new(&[Arc::clone(&source)], &journal, &answers, &source.reporter);
    let door = doors.source(source.name.as_str()).expect("its door");
    (source, door, answers)
}

/// What the door makes of a request that bears this, and the headers that it would journal.
async fn ask(door: &Arc<dyn SourceDoor>, authorization: &str, media_type: &str, body: &'static str) -> Result<Vec<String>, Refusal> {
    let headers = [("authorization", authorization), ("content-type", media_type), ("cookie", "a=secret"), ("x-more", "yes")];
    let headers = headers.map(|(name, value)| (name.to_owned(), Bytes::from(value.to_owned()))).to_vec();
    let head = RequestHead { source: "pim".to_owned(), route: ROUTE.to_owned(), query: String::new(), headers };
    assert!(door.precheck(&head));
    match door.verify(head, Bytes::from(body), Timestamp(0)).await {
        Verdict::Accepted(delivery) => Ok(delivery.head.headers.into_iter().map(|(name, _)| name).collect()),
        Verdict::Refused(refusal) => Err(refusal),
        Verdict::Unavailable(_) => panic!("the store is there"),
    }
}

const JSON: &str = "application/json";

#[tokio::test]
async fn an_invited_sender_is_let_in_until_it_is_revoked_and_its_token_is_kept_nowhere() {
    crate::store::testing::on_both(|store| async move {
        let (source, door, _answers) = bearing(&store);
        let fence = store.claim(&source.name, "test").await.expect("claimed");
        let made = source.invite(&fence, "").await.expect("invited");
        let (id, value) = (made["id"].as_str().expect("an id"), made["value"].as_str().expect("a value"));
        assert_eq!(made["url"], format!("https://hooks.example.test/hooks/{}/{ROUTE}", source.name));
        let kept = ask(&door, value, JSON, "{}").await.expect("let in");
        assert_eq!(kept, ["content-type", "x-more"], "no secret reaches the journal");
        let token = made["token"].as_str().expect("a token");
        assert_eq!(token.len(), 64);
        let shown = format!("{:?} {:?}", source.invitations().await.expect("read"), store.invitations(&source.name).await.expect("read"));
        assert!(!shown.contains(token) && !shown.contains(&bearer::digest(token)), "{shown}");

        // A second one takes its place without a gap; a third one says which is to go.
        let second = source.invite(&fence, "").await.expect("invited");
        let second = second["value"].as_str().expect("a value").to_owned();
        assert!(ask(&door, &second, JSON, "{}").await.is_ok(), "known at once");
        let third = source.invite(&fence, "").await.expect_err("two live").to_string();
        assert!(third.contains(&format!("--revoke {id}")), "{third}");
        source.invite(&fence, id).await.expect("revoked");
        assert_eq!(ask(&door, value, JSON, "{}").await, Err(Refusal::Signature("mismatch")), "refused at once");
        assert!(ask(&door, &second, JSON, "{}").await.is_ok());
        let unknown = source.invite(&fence, &second).await.expect_err("there is none").to_string();
        assert!(unknown.contains("no invitation of this id") && !unknown.contains(&second), "{unknown}");
    })
    .await;
}

#[tokio::test]
async fn only_who_holds_a_token_hears_what_was_wrong_with_its_delivery() {
    crate::store::testing::on_both(|store| async move {
        let (source, door, answers) = bearing(&store);
        let fence = store.claim(&source.name, "test").await.expect("claimed");
        let made = source.invite(&fence, "").await.expect("invited");
        let value = made["value"].as_str().expect("a value");
        assert_eq!(ask(&door, value, "text/plain", "{}").await, Err(Refusal::MediaType));
        assert_eq!(ask(&door, value, JSON, "[]").await, Err(Refusal::Shape));
        for stranger in ["Bearer nobody", &format!("Bearer {}", bearer::digest("nobody"))] {
            assert_eq!(ask(&door, stranger, "text/plain", "[]").await, Err(Refusal::Signature("mismatch")));
        }
        assert_eq!(ask(&door, "Basic x", "text/plain", "[]").await, Err(Refusal::Signature("unsigned")));
        // What somebody known sent is lost each time, and no stranger can say so.
        for refusal in [Refusal::MediaType, Refusal::Shape, Refusal::MediaType] {
            door.refused(ROUTE, refusal.status(true), &refusal);
            let gaps: Vec<_> = answers.take().into_iter().filter_map(|(_, gap)| gap).collect();
            assert_eq!(gaps, [refusal.name()]);
        }
        assert_eq!(door.manner(ROUTE), Manner { is_slowed: true, is_dated: true, span: Some(SPAN) });
        assert_eq!(door.manner("other"), Manner::default());
    })
    .await;
}

#[tokio::test]
async fn nobody_is_invited_to_an_address_that_nobody_knows() {
    crate::store::testing::on_both(|store| async move {
        let url = "http://127.0.0.1:1/".parse().expect("a URL");
        let mut source = testing::source(&store, &url, 1, Duration::ZERO);
        source.connector = Arc::new(Bearing(Arc::clone(&source.connector)));
        let fence = store.claim(&source.name, "test").await.expect("claimed");
        let error = source.invite(&fence, "").await.expect_err("refused").to_string();
        assert!(error.contains("public_url is not set"), "{error}");
        assert!(store.invitations(&source.name).await.expect("read").is_empty());
    })
    .await;
}
