//! Sends what the Event Platform has to tell: events to subscriptions, notifications to subscribers.

use std::sync::Arc;
use std::time::Duration;

use super::changes::System;
use super::events_api::{answered, class};
use super::platform::{Delivery, Next, Notification, Target};
use super::signature;
use super::state::{Inner, State};

/// Pauses before a notification's second and third try.
const NOTIFICATION_PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];
const NOTIFICATION_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends what is due until the sandbox stops.
pub(super) async fn dispatch(state: Arc<State>) {
    loop {
        let now_us = state.now_us();
        let (next, notifications) = {
            let mut inner = state.inner();
            let events_api_url = inner.events_api.url.clone();
            let next = inner.platform.next(&events_api_url, now_us);
            inner.book_platform(now_us);
            let notifications: Vec<Notification> = inner.platform.notifications.drain(..).collect();
            inner.platform.notifying += notifications.len();
            (next, notifications)
        };
        for notification in notifications {
            state.tasks.spawn(notify(Arc::clone(&state), notification));
        }
        let wait = match next {
            Next::Now(subscription, target, delivery) => {
                state.tasks.spawn(send(Arc::clone(&state), subscription, target, delivery));
                continue;
            }
            Next::At(due_us) => Duration::from_micros(u64::try_from(due_us - now_us).unwrap_or(0)),
            // Woken when something is queued or has ended.
            Next::Nothing => Duration::from_secs(3600),
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = state.wake_platform.notified() => {}
            () = state.stop.cancelled() => return,
        }
    }
}

impl Inner {
    /// Writes into the log of changes which deliveries have ended.
    pub(super) fn book_platform(&mut self, now_us: i64) {
        for (change, acknowledged) in self.platform.ended() {
            self.delivered(change, System::EventPlatform, acknowledged, now_us);
        }
    }
}

async fn send(state: Arc<State>, subscription: String, target: Target, delivery: Delivery) {
    let mut request = state
        .client
        .post(&target.url)
        .timeout(Duration::from_millis(state.options.platform_timeout_ms))
        .header("content-type", "application/json")
        .header("user-agent", "akeneo/event-platform")
        .header("x-correlation-id", format!("{:016x}", delivery.number))
        .header("x-akeneo-signature-algorithm", "HmacSHA256")
        .header("x-akeneo-signature-primary", signature::event_platform(&target.primary, delivery.body.as_bytes()));
    if let Some(secondary) = &target.secondary {
        request = request.header("x-akeneo-signature-secondary", signature::event_platform(secondary, delivery.body.as_bytes()));
    }
    for (name, value) in &target.headers {
        request = request.header(name, value);
    }
    let begin = state.clock.monotonic();
    let status = tokio::select! {
        status = answered(request.body(delivery.body.to_string())) => status,
        () = state.stop.cancelled() => return,
    };
    let now_us = state.now_us();
    let mut inner = state.inner();
    if status.is_some() {
        inner.platform.acks.note(state.clock.monotonic() - begin);
    }
    inner.platform.count(class(status));
    inner.platform.finish(&subscription, delivery, status, now_us);
    inner.book_platform(now_us);
    drop(inner);
    state.wake_platform.notify_one();
}

/// Three tries; only 5xx and 429 are tried again.
async fn notify(state: Arc<State>, notification: Notification) {
    let mut outcome = "notifications_failed";
    for attempt in 0..=NOTIFICATION_PAUSES.len() {
        let request = state
            .client
            .post(&notification.url)
            .timeout(NOTIFICATION_TIMEOUT)
            .header("content-type", "application/json")
            .header("user-agent", "akeneo/event-platform")
            .header("x-akeneo-signature-algorithm", "HmacSHA256")
            .header("x-akeneo-signature-primary", signature::event_platform(&notification.secret, notification.body.as_bytes()))
            .body(notification.body.clone());
        let status = tokio::select! {
            status = answered(request) => status,
            () = state.stop.cancelled() => return,
        };
        match status {
            Some(200..=299) => {
                outcome = "notifications_delivered";
                break;
            }
            Some(429 | 500..=599) => {}
            _ => break,
        }
        let Some(pause) = NOTIFICATION_PAUSES.get(attempt) else { break };
        tokio::select! {
            () = tokio::time::sleep(*pause) => {}
            () = state.stop.cancelled() => return,
        }
    }
    let mut inner = state.inner();
    inner.platform.count(outcome);
    inner.platform.notifying -= 1;
}
