//! What the public socket asks of the sources: secrets, backlog, journal. Not an actor: it runs inside the listener's requests.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::answers::Answers;
use super::ask::guarded;
use super::journal::{Journal, Room};
use super::probe;
use super::source::Source;
use crate::clock::Timestamp;
use crate::connectors::{HookPolicy, HookSecret, Overload as OnOverload, Refusal as Refused, RetryAfter};
use crate::http::BoxFuture;
use crate::http::hooks::{Door, Manner, Overload, Refusal, RequestHead, SourceDoor, Unavailable, Verdict, VerifiedDelivery};
use crate::model::{Delivery, DeliveryId, HookRequest};
use crate::report::{AckSeconds, DeliveryAccepted, DeliveryRefused, SecretsReread, StrangerRefused};

mod ceiling;

use ceiling::Ceiling;

/// What a refused caller is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Secrets are read again at most this often, however many signatures do not match.
const REREAD_EVERY: Duration = Duration::from_secs(1);
/// Headers (lower case) that carry credentials, whoever put them on the way: a proxy may, too.
const SECRET_HEADERS: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];
/// Between two gaps that a request opened which may have been anybody's: its price is that of a regular sweep.
const UNPROVEN_GAP_EVERY: Duration = Duration::from_secs(24 * 3600);

/// The cause of a gap: the sender has reached the most that it sends.
const CAP: &str = "cap";

/// All sources' doors.
#[derive(Clone)]
pub struct Doors {
    doors: Arc<BTreeMap<String, Arc<HookDoor>>>,
    reporter: crate::report::Reporter,
}

impl Doors {
    /// A door for every source.
    #[must_use]
    pub fn new(sources: &[Arc<Source>], journal: &Journal, answers: &Answers, reporter: &crate::report::Reporter) -> Self {
        let door = |source: &Arc<Source>| {
            let door = HookDoor {
                source: Arc::clone(source),
                journal: journal.clone(),
                answers: answers.clone(),
                secrets: Mutex::default(),
                unproven_gap_at: Mutex::default(),
                ceiling: Ceiling::default(),
            };
            (source.name.to_string(), Arc::new(door))
        };
        Self { doors: Arc::new(sources.iter().map(door).collect()), reporter: reporter.clone() }
    }
}

impl Door for Doors {
    fn source(&self, name: &str) -> Option<Arc<dyn SourceDoor>> {
        self.doors.get(name).map(|door| Arc::clone(door) as Arc<dyn SourceDoor>)
    }

    fn unknown(&self) {
        self.reporter.emit(StrangerRefused {});
    }
}

struct HookDoor {
    source: Arc<Source>,
    journal: Journal,
    answers: Answers,
    secrets: Mutex<Secrets>,
    /// When a request that may have been anybody's last opened a gap, in monotonic time.
    unproven_gap_at: Mutex<Option<Duration>>,
    ceiling: Ceiling,
}

#[derive(Clone, Default)]
struct Secrets {
    known: Arc<[HookSecret]>,
    /// When they were read, in monotonic time.
    read_at: Option<Duration>,
    /// Of which registrations: those that this process makes are known at once.
    registrations: u64,
}

impl HookDoor {
    fn secrets(&self) -> Secrets {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The secrets as they stand in the store now, unless they were read a moment ago.
    async fn reread(&self, before: &Secrets) -> Result<Option<Secrets>, Unavailable> {
        let now = self.source.clock.monotonic();
        let registrations = self.source.registrations.load(Ordering::Acquire);
        let is_fresh = before.read_at.is_some_and(|at| now.saturating_sub(at) < REREAD_EVERY);
        if is_fresh && before.registrations == registrations {
            return Ok(None);
        }
        let unavailable = Unavailable { retry_after: RETRY_AFTER };
        let known = self.source.hook_secrets().await.map_err(|_| unavailable)?;
        let fresh = Secrets { known: known.into(), read_at: Some(now), registrations };
        *self.secrets.lock().unwrap_or_else(PoisonError::into_inner) = fresh.clone();
        if before.read_at.is_some() {
            self.source.reporter.emit(SecretsReread { source: self.source.name.to_string() });
        }
        Ok(Some(fresh))
    }

    /// Once a day, for each gap makes passes read everything, and strangers must not spend our quota.
    fn may_open_unproven_gap(&self) -> bool {
        let now = self.source.clock.monotonic();
        let mut last = self.unproven_gap_at.lock().unwrap_or_else(PoisonError::into_inner);
        let may = last.is_none_or(|at| now.saturating_sub(at) >= UNPROVEN_GAP_EVERY);
        if may {
            *last = Some(now);
        }
        may
    }

    /// Whether a header shows a secret itself: it is dropped once it was looked at, and reaches neither the store nor any output.
    fn carries_secret(&self, name: &str) -> bool {
        let ours = self.source.connector.inviting().is_some_and(|inviting| inviting.header.eq_ignore_ascii_case(name));
        ours || SECRET_HEADERS.contains(&name)
    }

    fn check(&self, request: &HookRequest, secrets: &Secrets, now: Timestamp) -> Result<String, Refused> {
        let verified = guarded("verify", || self.source.connector.verify(request, &secrets.known, now));
        verified.unwrap_or(Err(Refused::Unsigned)).map(|verified| verified.dedupe)
    }
}

/// What is answered while the backlog is above its mark.
fn on_overload(policy: &HookPolicy) -> Result<(), Overload> {
    match policy.overload {
        OnOverload::Accept => Ok(()),
        OnOverload::TooManyRequests => Err(Overload::TooManyRequests { retry_after: RETRY_AFTER }),
        OnOverload::Unavailable => Err(Overload::Unavailable { retry_after: RETRY_AFTER }),
    }
}

/// Whether a refusal loses a delivery. An upstream that retries repairs it by itself; one that does not has lost it. A request
/// without a signature is anybody's, and must not open gaps.
fn loses(policy: &HookPolicy, refusal: &Refusal) -> bool {
    policy.retries_for.is_zero() && !matches!(refusal, Refusal::Method | Refusal::Unsigned)
}

/// Whether strangers can cause it: nothing shows that a delivery was lost. A secret that was replaced is noticed by it all the same.
fn is_anybodys(refusal: &Refusal) -> bool {
    use Refusal::{Broken, CallerGone, Encoding, Signature, TooLarge, TooSlow};
    matches!(refusal, Signature(_) | Encoding | TooLarge | TooSlow | Broken | CallerGone)
}

impl SourceDoor for HookDoor {
    fn body_max(&self, route: &str) -> u64 {
        self.source.policy(route).map_or(0, |policy| policy.body_max)
    }

    fn precheck(&self, head: &RequestHead) -> bool {
        self.source.policy(&head.route).is_some_and(|policy| policy.signature_headers.iter().any(|name| head.header(name).is_some()))
    }

    fn admit(&self, route: &str) -> Result<(), Overload> {
        let retry_after = RETRY_AFTER;
        if self.journal.health().is_lost() || self.journal.health().room() == Room::None {
            let slows = self.manner(route).is_slowed;
            return Err(if slows { Overload::TooManyRequests { retry_after } } else { Overload::Unavailable { retry_after } });
        }
        if self.source.backlog.load(Ordering::Relaxed) <= self.source.settings.backlog_max {
            return Ok(());
        }
        self.source.policy(route).map_or(Err(Overload::Unavailable { retry_after }), |policy| on_overload(&policy))
    }

    fn manner(&self, route: &str) -> Manner {
        self.source.policy(route).map_or_else(Manner::default, |policy| Manner {
            is_slowed: policy.overload == OnOverload::TooManyRequests,
            is_dated: policy.retry_after == RetryAfter::Date,
            span: policy.retry_after_span,
        })
    }

    fn verify(&self, mut head: RequestHead, body: Bytes, now: Timestamp) -> BoxFuture<'_, Verdict> {
        Box::pin(async move {
            if head.route == probe::ROUTE {
                let header = head.headers.iter().find(|(name, _)| name == probe::HEADER);
                let is_ours = header.is_some_and(|(_, value)| self.source.probe.take(self.source.name.as_str(), value));
                let taken = VerifiedDelivery { head, body, received_at: now, dedupe: String::new() };
                return if is_ours { Verdict::Accepted(taken) } else { Verdict::Refused(Refusal::Signature("mismatch")) };
            }
            let request = HookRequest { route: head.route.clone(), query: head.query.clone(), headers: head.headers.clone(), body };
            let mut secrets = self.secrets();
            if secrets.read_at.is_some() && secrets.registrations != self.source.registrations.load(Ordering::Acquire) {
                // What was revoked here holds no longer.
                match self.reread(&secrets).await {
                    Ok(fresh) => secrets = fresh.unwrap_or(secrets),
                    Err(unavailable) => return Verdict::Unavailable(unavailable),
                }
            }
            let mut checked = self.check(&request, &secrets, now);
            if checked == Err(Refused::Mismatch) {
                // The upstream makes the tokens: one may have been registered since they were read.
                match self.reread(&secrets).await {
                    Ok(Some(fresh)) => {
                        secrets = fresh;
                        checked = self.check(&request, &secrets, now);
                    }
                    Ok(None) => {}
                    Err(unavailable) => return Verdict::Unavailable(unavailable),
                }
            }
            head.headers.retain(|(name, _)| !self.carries_secret(name));
            match checked {
                Ok(dedupe) => Verdict::Accepted(VerifiedDelivery { head, body: request.body, received_at: now, dedupe }),
                Err(Refused::Unsigned) => Verdict::Refused(Refusal::Signature("unsigned")),
                Err(Refused::Mismatch) => Verdict::Refused(Refusal::Signature("mismatch")),
                Err(Refused::Route) => Verdict::Refused(Refusal::Signature("route")),
                Err(Refused::MediaType) => Verdict::Refused(Refusal::MediaType),
                Err(Refused::Shape) => Verdict::Refused(Refusal::Shape),
            }
        })
    }

    fn journal(&self, delivery: VerifiedDelivery) -> BoxFuture<'_, Result<(), Unavailable>> {
        Box::pin(async move {
            let VerifiedDelivery { head, body, received_at, dedupe } = delivery;
            if head.route == probe::ROUTE {
                // It has come back, and that was all.
                return Ok(());
            }
            let request = HookRequest { route: head.route, query: head.query, headers: head.headers, body };
            // The id is made before the first try, so that an unknown commit outcome can be tried again.
            let delivery = Delivery { id: DeliveryId(Uuid::now_v7()), source: self.source.name.clone(), received_at, dedupe, request };
            self.journal.put(delivery).await.map_err(|_| Unavailable { retry_after: RETRY_AFTER })?;
            // The intake counts what truly waits; where it is parked, this is what the mark is weighed by.
            self.source.backlog.fetch_add(1, Ordering::Relaxed);
            self.source.intake.wake();
            Ok(())
        })
    }

    fn answered(&self, route: &str, status: u16, took: Duration) {
        if route == probe::ROUTE {
            return;
        }
        let cap = self.source.policy(route).and_then(|policy| policy.cap);
        let is_reached = cap.is_some_and(|cap| self.ceiling.is_reached(cap, self.source.clock.monotonic()));
        self.answers.count(&self.source.name, status, is_reached.then_some(CAP));
        let source = self.source.name.to_string();
        self.source.reporter.observe(AckSeconds { source: source.clone() }, took);
        self.source.reporter.emit(DeliveryAccepted { source });
    }

    fn refused(&self, route: &str, status: u16, refusal: &Refusal) {
        let is_lost = self.source.policy(route).is_some_and(|policy| loses(&policy, refusal));
        let gap = (is_lost && (!is_anybodys(refusal) || self.may_open_unproven_gap())).then(|| refusal.name());
        self.answers.count(&self.source.name, status, gap);
        let source = self.source.name.to_string();
        self.source.reporter.emit(DeliveryRefused { source, status: status.to_string(), reason: refusal.name().to_owned() });
    }
}

#[cfg(test)]
mod tests;
