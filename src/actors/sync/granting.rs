//! What somebody waits for is read before anything else, each record alone: a read by key is the one that settles most.

use std::sync::Arc;

use super::{SINGLES_A_STEP, Sync, View};
use crate::actors::ask::AskError;
use crate::actors::limiter::{NoPermit, Permit};
use crate::connectors::ResourceSpec;
use crate::quota::Class;
use crate::store::{Error, Fence};
use crate::supervision::Context;

impl Sync {
    /// Sets marks on what is demanded for and reads it. What that leaves open is looked at as any mark is.
    pub(super) async fn grant(&mut self, cx: &Context, fence: &Fence, spec: &ResourceSpec) -> Result<(), Error> {
        let source = Arc::clone(&self.source);
        // Whoever waits is told when this is dropped, whatever has happened.
        let granted = source.demands.grant(&self.resource, SINGLES_A_STEP, source.clock.now());
        if granted.keys.is_empty() {
            return Ok(());
        }
        source.store.want(fence, &self.resource, &granted.keys).await?;
        let due = source.store.marks_of(&source.name, &self.resource, &granted.keys).await?;
        match self.view(cx, fence, spec, &due).await? {
            View::Shown => self.read_alone(cx, fence, spec, due, Class::Refresh).await,
            View::Rests(_) | View::Glimpse(_) => Ok(()),
        }
    }

    /// Waits for the right to send one request for marks; gives it up for now when somebody waits for a record.
    pub(super) async fn permit(&self, cx: &Context, class: Class, endpoint: &str) -> Result<Permit, AskError> {
        // A login is not broken off.
        self.source.log_in(cx).await?;
        if class == Class::Refresh {
            return self.source.bare_permit(cx, class, endpoint).await;
        }
        tokio::select! {
            permit = self.source.bare_permit(cx, class, endpoint) => permit,
            () = self.source.demands.demanded(&self.resource) => Err(NoPermit.into()),
        }
    }
}
