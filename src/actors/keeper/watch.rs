//! Registrations that were there and deliver no more: the gap that this is.
//!
//! An upstream's own list of failed deliveries (Productive's `/webhook_logs`) is not read. It says nothing of the time in which a webhook is
//! off, and what it holds of a delivery is not documented, so that the pass is needed all the same, which reads a page of a resource.

use std::collections::BTreeSet;

use crate::actors::source::Source;
use crate::clock::Timestamp;
use crate::connectors::Registered;
use crate::store::{self, Fence};

/// The cause of a gap: a registration was dead, switched off or missing.
const REGISTRATION: &str = "registration";

/// What is wrong with registrations that were there.
#[derive(Debug, Default)]
pub(super) struct Ill {
    /// The routes that nothing is delivered to.
    pub(super) routes: BTreeSet<String>,
    /// When one of them was last seen to be delivered to.
    since: Option<Timestamp>,
}

impl Source {
    /// Notes which registrations are delivered to, and opens or ends the gap of those that are not.
    pub(super) async fn compare_hooks(&self, fence: &Fence, standing: &[Registered]) -> Result<Ill, store::Error> {
        let delivering: BTreeSet<&str> = standing.iter().filter(|one| one.delivers).map(|one| one.id.as_str()).collect();
        let mut ill = Ill::default();
        // What is not to be delivered here is not missed here.
        if self.suspended().is_some() {
            return Ok(ill);
        }
        for known in self.store.registrations(&self.name).await?.into_iter().filter(store::StoredRegistration::stands) {
            if delivering.contains(known.upstream_id.as_str()) {
                continue;
            }
            let since = Timestamp(known.healthy_at.unwrap_or(known.created_at));
            ill.since = Some(ill.since.map_or(since, |earlier| earlier.min(since)));
            ill.routes.insert(known.route);
        }
        if !delivering.is_empty() {
            self.store.note_healthy(fence, &delivering.into_iter().collect::<Vec<_>>()).await?;
        }
        match ill.since {
            Some(since) => self.open_gap(REGISTRATION, since, None).await?,
            None => self.end_gap(REGISTRATION).await?,
        }
        Ok(ill)
    }
}
