//! The Event Platform's subscriptions: what each of them is, what waits for it, and what its receiver's answers make of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

use super::acks::Acks;
use super::changes::{Happening, System};
use super::cloud_event;
use super::invent;
use super::moment;
use super::options::{Faults, Options};
use crate::sandbox::faults::Injector;
use crate::sandbox::micros;

/// Deliveries of one subscription at a time.
const IN_FLIGHT_MAX: usize = 64;
/// Share of successes under which a subscription is suspended.
const SUCCESS_MIN: f64 = 0.9;
/// When a failed delivery is tried again, in minutes.
const RETRIES_MIN: [i64; 3] = [5, 10, 20];

/// Whether a subscription receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Active,
    Suspended,
    Revoked,
}

impl Status {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Revoked => "revoked",
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Subscriber {
    pub(super) id: String,
    pub(super) name: String,
    /// As it was given, the secret included.
    pub(super) contact: Value,
    pub(super) created_us: i64,
    pub(super) updated_us: i64,
}

/// Where and how a subscription's events are sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Target {
    pub(super) url: String,
    pub(super) primary: String,
    pub(super) secondary: Option<String>,
    pub(super) headers: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub(super) number: u64,
    change: usize,
    pub(super) body: Arc<str>,
    attempt: usize,
    /// When the receiver first asked for less.
    throttled_us: Option<i64>,
}

#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) id: String,
    pub(super) subscriber: String,
    pub(super) events: BTreeSet<String>,
    pub(super) filter: Option<String>,
    pub(super) send_identifier: bool,
    pub(super) target: Target,
    pub(super) status: Status,
    pub(super) created_us: i64,
    pub(super) updated_us: i64,
    pub(super) live_us: i64,
    /// Events a second.
    rate: f64,
    next_us: i64,
    in_flight: usize,
    waiting: BTreeMap<(i64, u64), Delivery>,
    /// What the deliveries of the last hour came to.
    outcomes: VecDeque<(i64, bool)>,
    resumed: VecDeque<i64>,
}

impl Subscription {
    fn note(&mut self, outcome: (i64, bool), hour_us: i64) {
        self.outcomes.push_back(outcome);
        while self.outcomes.front().is_some_and(|(at_us, _)| *at_us <= outcome.0 - hour_us) {
            self.outcomes.pop_front();
        }
    }
}

/// What is told of a subscription to its subscriber's own address.
#[derive(Clone, Debug)]
pub(super) struct Notification {
    pub(super) url: String,
    pub(super) secret: String,
    pub(super) body: String,
}

pub(super) enum Next {
    /// A delivery of this subscription.
    Now(String, Target, Delivery),
    At(i64),
    Nothing,
}

#[derive(Debug)]
pub(super) struct Platform {
    options: Options,
    root: String,
    pub(super) enabled: bool,
    pub(super) subscribers: BTreeMap<String, Subscriber>,
    pub(super) subscriptions: BTreeMap<String, Subscription>,
    next_number: u64,
    counts: BTreeMap<&'static str, u64>,
    pub(super) suspensions: Vec<Value>,
    pub(super) notifications: VecDeque<Notification>,
    pub(super) notifying: usize,
    pub(super) acks: Acks,
    /// Changes whose deliveries came to their end, with what they came to; booked in the log by whoever asked.
    ended: Vec<(usize, bool)>,
}

impl Platform {
    pub(super) fn new(options: &Options, root: &str) -> Self {
        Self {
            options: options.clone(),
            root: root.to_owned(),
            enabled: true,
            subscribers: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            next_number: 0,
            counts: BTreeMap::new(),
            suspensions: Vec::new(),
            notifications: VecDeque::new(),
            notifying: 0,
            acks: Acks::default(),
            ended: Vec::new(),
        }
    }

    /// Deliveries and notifications that are not finished.
    pub(super) fn waiting(&self) -> usize {
        let of_all: usize = self.subscriptions.values().map(|subscription| subscription.waiting.len() + subscription.in_flight).sum();
        of_all + self.notifications.len() + self.notifying
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(super) fn report(&self) -> Value {
        let row = |subscription: &Subscription| {
            json!({
                "id": subscription.id, "status": subscription.status.name(), "url": subscription.target.url, "rate": subscription.rate,
                "waiting": subscription.waiting.len() + subscription.in_flight,
            })
        };
        let subscriptions: Vec<Value> = self.subscriptions.values().map(row).collect();
        json!({
            "counts": self.counts, "waiting": self.waiting(), "acks": self.acks.report(), "subscriptions": subscriptions,
            "suspensions": self.suspensions,
        })
    }

    /// A new id that looks like a uuid of version 7.
    pub(super) fn new_id(&mut self, now_us: i64) -> String {
        self.next_number += 1;
        let random = invent::uuid(self.options.seed ^ 0xe9e9, self.next_number);
        let ms = format!("{:012x}", now_us / 1000);
        format!("{}-{}-7{}", &ms[..8], &ms[8..], &random[15..])
    }

    pub(super) fn add(&mut self, subscriber: &str, now_us: i64) -> &mut Subscription {
        let id = self.new_id(now_us);
        let subscription = Subscription {
            id: id.clone(),
            subscriber: subscriber.to_owned(),
            events: BTreeSet::new(),
            filter: None,
            send_identifier: false,
            target: Target::default(),
            status: Status::Active,
            created_us: now_us,
            updated_us: now_us,
            live_us: now_us,
            rate: self.options.platform_rate_start,
            next_us: 0,
            in_flight: 0,
            waiting: BTreeMap::new(),
            outcomes: VecDeque::new(),
            resumed: VecDeque::new(),
        };
        self.subscriptions.entry(id).or_insert(subscription)
    }

    /// Queues a change for all subscriptions that want it; how many deliveries of it will come.
    pub(super) fn queue(&mut self, happening: &Happening, injector: &mut Injector<Faults>) -> usize {
        if !self.enabled || happening.silent_on_platform {
            return 0;
        }
        let mut queued = 0;
        for kind in cloud_event::types(happening) {
            let wanted = |subscription: &&Subscription| subscription.events.contains(&kind) && subscription.live_us <= happening.at_us;
            let ids: Vec<String> = self.subscriptions.values().filter(wanted).map(|subscription| subscription.id.clone()).collect();
            for id in ids {
                queued += self.queue_for(&id, &kind, happening, injector);
            }
        }
        queued
    }

    fn queue_for(&mut self, id: &str, kind: &str, happening: &Happening, injector: &mut Injector<Faults>) -> usize {
        if self.subscriptions.get(id).is_none_or(|subscription| subscription.status != Status::Active) {
            self.count("lost_while_not_active");
            return 0;
        }
        self.count("queued");
        let dues = System::EventPlatform.dues(injector, happening.at_us);
        if dues.is_empty() {
            self.count("lost");
        }
        let event_id = self.new_id(happening.at_us);
        let Some(subscription) = self.subscriptions.get_mut(id) else { return 0 };
        let data = cloud_event::data(happening, kind, subscription.send_identifier, &self.options);
        let body: Arc<str> = cloud_event::written(&event_id, kind, id, happening.at_us, &data).into();
        for due_us in &dues {
            self.next_number += 1;
            let number = self.next_number;
            let delivery = Delivery { number, change: happening.change, body: Arc::clone(&body), attempt: 0, throttled_us: None };
            subscription.waiting.insert((*due_us, number), delivery);
        }
        dues.len()
    }

    /// The next delivery that may be sent; at an address of the Events API nothing ever arrives.
    pub(super) fn next(&mut self, events_api_url: &str, now_us: i64) -> Next {
        let mut soonest: Option<i64> = None;
        for (id, subscription) in &mut self.subscriptions {
            let Some(&(due_us, number)) = subscription.waiting.first_key_value().map(|(key, _)| key) else { continue };
            if subscription.in_flight >= IN_FLIGHT_MAX {
                continue;
            }
            let at_us = due_us.max(subscription.next_us);
            if at_us > now_us {
                soonest = Some(soonest.map_or(at_us, |soonest| soonest.min(at_us)));
                continue;
            }
            let Some(delivery) = subscription.waiting.remove(&(due_us, number)) else { continue };
            if subscription.target.url == events_api_url {
                *self.counts.entry("lost_to_the_events_apis_url").or_default() += 1;
                self.ended.push((delivery.change, false));
                return Next::At(now_us);
            }
            let step_us = (1_000_000.0 / subscription.rate) as i64;
            subscription.next_us = subscription.next_us.max(now_us - step_us) + step_us;
            subscription.in_flight += 1;
            *self.counts.entry("sent").or_default() += 1;
            return Next::Now(id.clone(), subscription.target.clone(), delivery);
        }
        soonest.map_or(Next::Nothing, Next::At)
    }

    /// Deliveries that ended since the last look: the change, and whether it was acknowledged.
    pub(super) fn ended(&mut self) -> Vec<(usize, bool)> {
        std::mem::take(&mut self.ended)
    }

    /// Books the outcome of one attempt.
    pub(super) fn finish(&mut self, id: &str, delivery: Delivery, status: Option<u16>, now_us: i64) {
        let hour_us = micros(self.options.platform_hour_ms);
        let retry_scale = self.options.platform_retry_scale;
        let Some(subscription) = self.subscriptions.get_mut(id) else {
            self.ended.push((delivery.change, status == Some(200)));
            return;
        };
        subscription.in_flight -= 1;
        if status == Some(200) {
            subscription.rate = (subscription.rate + 1.0).min(self.options.platform_rate_max);
            subscription.note((now_us, true), hour_us);
            self.ended.push((delivery.change, true));
            return;
        }
        if subscription.status != Status::Active {
            self.ended.push((delivery.change, false));
            return;
        }
        if matches!(status, Some(404 | 300..=399)) {
            self.ended.push((delivery.change, false));
            self.suspend(id, "the destination answered 404 or a redirect", true, now_us);
            return;
        }
        if status == Some(429) {
            subscription.rate = (subscription.rate / 2.0).max(1.0);
            let since_us = delivery.throttled_us.unwrap_or(now_us);
            if since_us > now_us - hour_us {
                // `Retry-After` is ignored: it comes again as soon as the lower rate allows.
                subscription.waiting.insert((now_us, delivery.number), Delivery { throttled_us: Some(since_us), ..delivery });
                return;
            }
            self.count("given_up_throttled");
            self.fail(id, delivery.change, true, now_us);
            return;
        }
        // Of a plain 4xx nobody says that it is tried again; it counts as a failure.
        let is_transient = !matches!(status, Some(400..=499));
        let retry = RETRIES_MIN.get(delivery.attempt).filter(|_| is_transient);
        if let Some(minutes) = retry {
            let due_us = now_us + (*minutes as f64 * 60_000_000.0 * retry_scale) as i64;
            subscription.waiting.insert((due_us, delivery.number), Delivery { attempt: delivery.attempt + 1, ..delivery });
            self.count("retried");
            self.fail(id, delivery.change, false, now_us);
        } else {
            self.count("given_up");
            self.fail(id, delivery.change, true, now_us);
        }
    }

    fn fail(&mut self, id: &str, change: usize, is_final: bool, now_us: i64) {
        let hour_us = micros(self.options.platform_hour_ms);
        if is_final {
            self.ended.push((change, false));
        }
        let Some(subscription) = self.subscriptions.get_mut(id) else { return };
        subscription.note((now_us, false), hour_us);
        let outcomes = &subscription.outcomes;
        let successes = outcomes.iter().filter(|(_, success)| *success).count();
        let too_few = (successes as f64) < SUCCESS_MIN * outcomes.len() as f64;
        if outcomes.len() >= self.options.platform_sample_min && too_few {
            self.suspend(id, "the success rate dropped below 90 %", true, now_us);
        }
    }

    /// Suspends a subscription; what waits for it is lost.
    pub(super) fn suspend(&mut self, id: &str, reason: &str, by_system: bool, now_us: i64) -> bool {
        let kind = if by_system { "subscription.suspended.system" } else { "subscription.suspended.user" };
        self.leave_active(id, Status::Suspended, kind, reason, now_us)
    }

    fn leave_active(&mut self, id: &str, status: Status, kind: &str, reason: &str, now_us: i64) -> bool {
        let Some(subscription) = self.subscriptions.get_mut(id) else { return false };
        if subscription.status == status {
            return false;
        }
        subscription.status = status;
        subscription.updated_us = now_us;
        let lost = std::mem::take(&mut subscription.waiting);
        *self.counts.entry("lost_while_not_active").or_default() += lost.len() as u64;
        self.ended.extend(lost.into_values().map(|delivery| (delivery.change, false)));
        self.suspensions.push(json!({ "subscription": id, "type": kind, "reason": reason, "at_us": now_us }));
        self.notify(id, kind, Some(reason), now_us);
        true
    }

    /// Lets a suspended subscription receive again; whoever does that too often is revoked.
    pub(super) fn resume(&mut self, id: &str, now_us: i64) -> bool {
        let hour_us = micros(self.options.platform_hour_ms);
        let Some(subscription) = self.subscriptions.get_mut(id) else { return false };
        if subscription.status != Status::Suspended {
            return false;
        }
        subscription.resumed.push_back(now_us);
        while subscription.resumed.front().is_some_and(|at_us| *at_us <= now_us - hour_us) {
            subscription.resumed.pop_front();
        }
        if subscription.resumed.len() > self.options.platform_resumes_max {
            self.leave_active(id, Status::Revoked, "subscription.revoked", "resumed too often", now_us);
            return true;
        }
        subscription.status = Status::Active;
        subscription.updated_us = now_us;
        subscription.live_us = now_us + micros(self.options.platform_activation_ms);
        subscription.outcomes.clear();
        subscription.rate = self.options.platform_rate_start;
        self.notify(id, "subscription.resumed", None, now_us);
        true
    }

    /// Deletes a subscription; nobody is notified.
    pub(super) fn remove(&mut self, id: &str) -> bool {
        let Some(subscription) = self.subscriptions.remove(id) else { return false };
        self.ended.extend(subscription.waiting.into_values().map(|delivery| (delivery.change, false)));
        true
    }

    fn notify(&mut self, id: &str, kind: &str, reason: Option<&str>, now_us: i64) {
        let Some(subscription) = self.subscriptions.get(id) else { return };
        let Some(subscriber) = self.subscribers.get(&subscription.subscriber) else { return };
        let contact = &subscriber.contact;
        let by_webhook =
            contact["notification_channels"].as_array().is_some_and(|channels| channels.iter().any(|channel| channel == "webhook"));
        let Some(url) = contact["notification_webhook_url"].as_str().filter(|_| by_webhook) else { return };
        let mut body = json!({
            "notification_type": kind, "timestamp": moment::utc(now_us.div_euclid(1_000_000)), "subscription_id": id,
            "subscriber_id": subscriber.id, "destination": subscription.target.url, "events": subscription.events, "subject": self.root,
        });
        if let Some(reason) = reason {
            body["reason"] = reason.into();
        }
        let secret = contact["notification_webhook_secret"].as_str().unwrap_or_default().to_owned();
        self.notifications.push_back(Notification { url: url.to_owned(), secret, body: body.to_string() });
    }
}
