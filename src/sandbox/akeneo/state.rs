//! What the tasks of one sandbox share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::changes::Change;
use super::churn::Churn;
use super::events_api;
use super::limits::Limits;
use super::moment::Zone;
use super::oauth::Tokens;
use super::options::{Faults, Options};
use super::platform::Platform;
use super::resource::Resource;
use super::seed;
use super::world::World;
use crate::clock::Clock;
use crate::sandbox::faults::Injector;

/// One running sandbox.
#[derive(Debug)]
pub(super) struct State {
    pub(super) options: Options,
    pub(super) clock: Clock,
    pub(super) zone: Zone,
    /// The PIM's own idea of its address: `http://127.0.0.1:port`.
    pub(super) root: String,
    pub(super) client: reqwest::Client,
    inner: Mutex<Inner>,
    /// Something was queued for one of the systems.
    pub(super) wake_events_api: Notify,
    pub(super) wake_platform: Notify,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

/// The parts that change, under one lock that is never held across an await.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) world: World,
    pub(super) limits: Limits,
    pub(super) tokens: Tokens,
    pub(super) injector: Injector<Faults>,
    pub(super) events_api: events_api::Outbox,
    pub(super) platform: Platform,
    pub(super) changes: Vec<Change>,
    pub(super) churn: Churn,
    pub(super) counts: Counts,
}

/// What was asked and answered, for the report.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// By method, collection and status.
    pub(super) requests: BTreeMap<(String, &'static str, u16), u64>,
    /// Writes that a reader has no reason for, by method and collection.
    pub(super) violations: BTreeMap<(String, &'static str), u64>,
}

impl State {
    pub(super) fn new(options: Options, clock: Clock, root: String) -> Result<Arc<Self>, reqwest::Error> {
        // Deliveries go to plain HTTP as a rule, but the client wants a provider even so; a second installation is refused and harmless.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client =
            reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).retry(reqwest::retry::never()).build()?;
        let mut world = World::new(options.seed);
        seed::seed(&mut world, options.entities, clock.now().seconds());
        let mut inner = Inner {
            limits: Limits::new(&options),
            tokens: Tokens::default(),
            injector: Injector::new(options.seed, options.faults.clone()),
            events_api: events_api::Outbox::new(&options),
            platform: Platform::new(&options, &root),
            changes: Vec::new(),
            churn: Churn::default(),
            counts: Counts::default(),
            world,
        };
        inner.remember_for(&options.faults);
        Ok(Arc::new(Self {
            zone: Zone::new(options.zone_offset_minutes),
            options,
            clock,
            root,
            client,
            inner: Mutex::new(inner),
            wake_events_api: Notify::new(),
            wake_platform: Notify::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }))
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic while holding the lock shows in that request; the others go on with what is there.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now_us(&self) -> i64 {
        self.clock.now().0
    }

    /// Tells both systems that something waits for them.
    pub(super) fn wake(&self) {
        self.wake_events_api.notify_one();
        self.wake_platform.notify_one();
    }
}

impl Inner {
    /// Keeps past states as far back as the faults show them. Twice the lag, so that a reader at the border still finds its state.
    pub(super) fn remember_for(&mut self, faults: &Faults) {
        self.world.memory_us = self.world.memory_us.max(faults.lag_us().unwrap_or(0).saturating_mul(2));
    }

    /// Events and notifications that are not finished.
    pub(super) fn waiting(&self) -> usize {
        self.events_api.waiting() + self.platform.waiting()
    }

    /// The report, with totals since the start.
    pub(super) fn report(&mut self, now_us: i64) -> Value {
        let requests: Vec<Value> = self
            .counts
            .requests
            .iter()
            .map(|((method, collection, status), count)| json!({ "method": method, "collection": collection, "status": status, "count": count }))
            .collect();
        let violations: Vec<Value> = self
            .counts
            .violations
            .iter()
            .map(|((method, collection), count)| json!({ "method": method, "collection": collection, "count": count }))
            .collect();
        let entities: BTreeMap<&str, usize> = Resource::all().map(|resource| (resource.spec().name, self.world.len(resource))).collect();
        let refusals = self.limits.refusals(now_us);
        json!({
            "requests": requests,
            "requests_total": self.counts.requests.values().sum::<u64>(),
            "refusals": refusals,
            "refusals_total": self.limits.refused(),
            "calls_at_a_time_max": self.limits.most_running(),
            "second_client": { "requests": self.limits.second_made() },
            "violations": violations,
            "violations_total": self.counts.violations.values().sum::<u64>(),
            "faults": self.injector.report(),
            "never_happened": self.injector.never_happened(),
            "deliveries": { "events_api": self.events_api.report(), "event_platform": self.platform.report() },
            "deliveries_waiting": self.waiting(),
            "suspensions": self.platform.suspensions.len(),
            "entities": entities,
            "changes": self.changes.len(),
            "coverage": self.coverage(),
        })
    }
}
