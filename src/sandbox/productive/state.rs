//! What the tasks of one sandbox share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::catalog::Collection;
use super::changes::Change;
use super::churn::Churn;
use super::faults::Injector;
use super::hooks::Outbox;
use super::limits::{Limits, Sizes};
use super::options::{Faults, Options};
use super::render::Renderer;
use super::seed;
use super::world::World;
use crate::clock::Clock;

/// One running sandbox.
#[derive(Debug)]
pub(super) struct State {
    pub(super) options: Options,
    pub(super) clock: Clock,
    pub(super) client: reqwest::Client,
    inner: Mutex<Inner>,
    /// Something was put into the outbox.
    pub(super) wake: Notify,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

/// The parts that change, under one lock that is never held across an await.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) world: World,
    pub(super) renderer: Renderer,
    pub(super) limits: Limits,
    pub(super) injector: Injector<Faults>,
    pub(super) outbox: Outbox,
    pub(super) changes: Vec<Change>,
    pub(super) churn: Churn,
    pub(super) counts: Counts,
    /// Rows of `/deleted_items` by what they are about.
    pub(super) bin: BTreeMap<(Collection, u32), u32>,
}

/// What was asked and answered, for the report.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// By method, collection and status.
    pub(super) requests: BTreeMap<(String, String, u16), u64>,
    pub(super) tokens: BTreeMap<String, u64>,
    /// By token and scope.
    pub(super) refusals: BTreeMap<(String, &'static str), u64>,
    /// Writes other than registrations, by method and collection.
    pub(super) violations: BTreeMap<(String, String), u64>,
}

impl State {
    pub(super) fn new(options: Options, clock: Clock) -> Result<Arc<Self>, reqwest::Error> {
        // Deliveries go to plain HTTP as a rule, but the client wants a provider even so; a second installation is refused and harmless.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .timeout(std::time::Duration::from_millis(options.delivery_timeout_ms))
            .pool_max_idle_per_host(options.deliveries_in_flight)
            .build()?;
        let mut world = World::new(options.seed);
        seed::seed(&mut world, options.entities, clock.now().0);
        let mut inner = Inner {
            renderer: Renderer { seed: options.seed, organization: options.organization },
            limits: Limits::new(sizes(&options)),
            injector: Injector::new(options.seed, options.faults.clone()),
            outbox: Outbox::new(&options),
            changes: Vec::new(),
            churn: Churn::default(),
            counts: Counts::default(),
            bin: BTreeMap::new(),
            world,
        };
        inner.remember_for(&options.faults);
        Ok(Arc::new(Self {
            options,
            clock,
            client,
            inner: Mutex::new(inner),
            wake: Notify::new(),
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
}

impl Inner {
    /// Keeps past states as far back as the faults show them. Twice the lag, so that a reader at the border still finds its state.
    pub(super) fn remember_for(&mut self, faults: &Faults) {
        let lag_us = faults.lag_us(false).unwrap_or(0);
        self.world.memory_us = self.world.memory_us.max(lag_us.saturating_mul(2));
    }

    /// The report, with totals since the start.
    pub(super) fn report(&mut self, now_us: i64) -> Value {
        let requests: Vec<Value> = self
            .counts
            .requests
            .iter()
            .map(|((method, collection, status), count)| json!({ "method": method, "collection": collection, "status": status, "count": count }))
            .collect();
        let refusals: Vec<Value> =
            self.counts.refusals.iter().map(|((token, scope), count)| json!({ "token": token, "scope": scope, "count": count })).collect();
        let violations: Vec<Value> = self
            .counts
            .violations
            .iter()
            .map(|((method, collection), count)| json!({ "method": method, "collection": collection, "count": count }))
            .collect();
        let entities: BTreeMap<&str, usize> =
            Collection::records().map(|collection| (collection.spec().name, self.world.len(collection))).collect();
        json!({
            "requests": requests,
            "requests_total": self.counts.requests.values().sum::<u64>(),
            "tokens": self.counts.tokens,
            "refusals": refusals,
            "refusals_total": self.counts.refusals.values().sum::<u64>(),
            "violations": violations,
            "violations_total": self.counts.violations.values().sum::<u64>(),
            "second_client": self.limits.second_client(now_us),
            "faults": self.injector.report(),
            "never_happened": self.injector.never_happened(),
            "deliveries": self.outbox.counts,
            "deliveries_waiting": self.outbox.waiting(),
            "entities": entities,
            "changes": self.changes.len(),
            "server_ms": self.limits.server_us / 1000,
        })
    }
}

fn sizes(options: &Options) -> Sizes {
    let us = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX / 1000).saturating_mul(1000);
    Sizes {
        token_requests: options.token_requests,
        token_period_us: us(options.token_period_ms),
        organization_requests: options.organization_requests,
        organization_period_us: us(options.organization_period_ms),
        server_us_per_hour: us(options.server_ms_per_hour),
        server_us_per_day: us(options.server_ms_per_day),
        second_client_rps: options.second_client_rps,
    }
}
