//! Gauges of every source, measured by the janitor now and then: what stands, not what happened.

use crate::clock::Timestamp;
use crate::report::{BacklogDeliveries, BreakerOpen, GapsOpen, LagSeconds, Marks, PermitsLeft, Quarantined, Ready, Rows};

use super::source::Source;

/// Measures one source. A store that is away leaves the gauges as they were.
pub(super) async fn measure(source: &Source, now: Timestamp) {
    let (name, reporter) = (source.name.to_string(), &source.reporter);
    reporter.set(Ready {}, f64::from(u8::from(!source.health.is_lost())));
    if let Ok(Some(status)) = source.store.status(&source.name).await {
        let lag = status.oldest_pending.map_or(0.0, |at| now.since(at).as_secs_f64());
        reporter.set(LagSeconds { source: name.clone() }, lag);
        reporter.set(BacklogDeliveries { source: name.clone() }, status.pending as f64);
        reporter.set(Quarantined { source: name.clone() }, status.quarantined as f64);
        reporter.set(GapsOpen { source: name.clone() }, status.open_gaps as f64);
        for of in status.resources {
            let (source, resource) = (name.clone(), of.resource.to_string());
            reporter.set(Marks { source: source.clone(), resource: resource.clone() }, of.marks as f64);
            reporter.set(Rows { source, resource }, of.rows as f64);
        }
    }
    super::delays::look(source, now).await;
    let Some(observed) = source.limiter.observe().await else { return };
    for limit in observed.snapshot.limits {
        let left = limit.usable.saturating_sub(limit.spent) as f64;
        reporter.set(PermitsLeft { scope: source.scope.clone(), window: limit.id }, left);
    }
    for (endpoint, is_open) in observed.breakers {
        reporter.set(BreakerOpen { source: name.clone(), endpoint }, f64::from(u8::from(is_open)));
    }
}
