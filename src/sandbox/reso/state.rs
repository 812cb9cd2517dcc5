//! What the tasks of one sandbox share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::changes::Change;
use super::churn::Churn;
use super::events::Log;
use super::limits::Limits;
use super::oauth::Tokens;
use super::options::{Faults, Options};
use super::push::Push;
use super::resource::Resource;
use super::seed;
use super::world::World;
use crate::clock::Clock;
use crate::sandbox::dice::Dice;
use crate::sandbox::faults::Injector;

/// One running sandbox.
#[derive(Debug)]
pub(super) struct State {
    pub(super) options: Options,
    pub(super) clock: Clock,
    /// `http://127.0.0.1:port`.
    pub(super) root: String,
    pub(super) client: reqwest::Client,
    inner: Mutex<Inner>,
    /// Something was queued for the push.
    pub(super) wake: Notify,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

/// The parts that change, under one lock that is never held across an await.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) system: String,
    /// Children of a removed listing go without events.
    pub(super) silent_children: bool,
    /// What may no longer be viewed is told of for a while.
    pub(super) says_farewell: bool,
    pub(super) world: World,
    pub(super) events: Log,
    pub(super) push: Push,
    pub(super) limits: Limits,
    pub(super) tokens: Tokens,
    pub(super) injector: Injector<Faults>,
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
        // The client wants a provider for plain HTTP too; a second installation is refused and harmless.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client =
            reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).retry(reqwest::retry::never()).build()?;
        let now_us = clock.now().0;
        let (mut world, mut events) = (World::default(), Log::default());
        let mut dice = Dice::new(options.seed);
        seed::seed(&mut world, &mut dice, options.entities, &options.originating_system, now_us);
        begin_log(&world, &mut events, options.events_at_start, now_us);
        let inner = Inner {
            system: options.originating_system.clone(),
            silent_children: options.silent_children,
            says_farewell: options.farewell_us() > 0,
            push: Push::new(&options),
            limits: Limits::new(&options),
            tokens: Tokens::default(),
            injector: Injector::new(options.seed, options.faults.clone()),
            changes: Vec::new(),
            churn: Churn::default(),
            counts: Counts::default(),
            world,
            events,
        };
        Ok(Arc::new(Self {
            options,
            clock,
            root,
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

/// An event for each record, parents first, and again until the log has as many as asked for.
fn begin_log(world: &World, events: &mut Log, at_least: u64, now_us: i64) {
    let records = [Resource::Office, Resource::Member, Resource::Property, Resource::Media, Resource::OpenHouse];
    loop {
        let before = events.last();
        for (resource, key) in records.iter().flat_map(|resource| world.all(*resource).map(move |(key, _)| (*resource, key))) {
            if before > 0 && events.last() >= at_least {
                return;
            }
            events.append(resource, key, now_us);
        }
        if events.last() >= at_least || events.last() == before {
            return;
        }
    }
}

impl Inner {
    /// The report, with totals since the start.
    pub(super) fn report(&self) -> Value {
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
        let entities: BTreeMap<&str, usize> =
            Resource::RECORDS.iter().map(|resource| (resource.name(), self.world.len(*resource))).collect();
        json!({
            "requests": requests,
            "requests_total": self.counts.requests.values().sum::<u64>(),
            "bytes_total": self.limits.bytes,
            "refusals": self.limits.refusals(),
            "refusals_total": self.limits.refused(),
            "violations": violations,
            "violations_total": self.counts.violations.values().sum::<u64>(),
            "faults": self.injector.report(),
            "never_happened": self.injector.never_happened(),
            "push": self.push.report(),
            "deliveries_waiting": self.push.waiting(),
            "events": { "kept": self.events.len(), "last": self.events.last(), "compactions": self.events.compactions, "compacted": self.events.compacted },
            "entities": entities,
            "changes": self.changes.len(),
        })
    }
}
