//! How late webhooks come, for the histogram: looked at now and then, out of rows.

use std::sync::PoisonError;
use std::time::Duration;

use super::source::Source;
use crate::clock::Timestamp;
use crate::model::ResourceName;
use crate::reconcile::{Estimate, Told, delay};
use crate::report::WebhookDelaySeconds;

/// At most so much time is gone through in one look.
const STEP: Duration = Duration::from_secs(600);

/// What was looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looked {
    /// The first look: what happened before it may have been told to an earlier process, or to nobody.
    began: Timestamp,
    /// Changes applied before were looked at.
    until: Timestamp,
}

impl Source {
    /// How far the upstream's clock is ahead of ours; `None`: it has not answered yet.
    #[must_use]
    pub fn clock_ahead(&self) -> Option<Estimate> {
        self.offset.lock().unwrap_or_else(PoisonError::into_inner).estimate()
    }
}

/// Looks at the changes whose time is over since the last look.
pub(super) async fn look(source: &Source, now: Timestamp) {
    let Looked { began, until: from } =
        *source.delays.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(Looked { began: now, until: now });
    let within = source.settings.watch.late;
    let until = now.minus(within).min(from.plus(STEP));
    if from >= until {
        return;
    }
    let ahead_us = source.clock_ahead().map_or(0, |estimate| estimate.shown_us());
    let mut delays: Vec<Duration> = Vec::new();
    let each = |_: &ResourceName, told: Told| {
        let happened = told.change.stamp.map(|stamp| Timestamp(stamp.0 - ahead_us)).filter(|happened| *happened >= began);
        delays.extend(told.hooked_at().zip(happened).map(|(at, happened)| at.since(happened)));
    };
    // A store that is away is asked again at the next look.
    if source.store.walk_told(&source.name, (from, until), &delay::terms(within, ahead_us), each).await.is_ok() {
        *source.delays.lock().unwrap_or_else(PoisonError::into_inner) = Some(Looked { began, until });
        for delay in delays {
            source.reporter.observe(WebhookDelaySeconds { source: source.name.to_string() }, delay);
        }
    }
}
