//! A bulk read that failed, and whether one of its keys is guilty of that.

use std::collections::VecDeque;

use super::{DueMark, Sync, View};
use crate::actors::ask::AskError;
use crate::connectors::{ReadError, ResourceSpec};
use crate::model::Key;
use crate::model::ordering::{By, Started};
use crate::quota::Class;
use crate::store::{Error, Fence};
use crate::supervision::Context;

/// A batch in which a key failed this often is taken apart, to find the guilty key.
const SPLIT_AFTER: u32 = 2;

impl Sync {
    /// Nothing was learned. The marks stay, later each time; a batch that fails again and again is taken apart.
    pub(super) async fn bulk_failed(
        &mut self,
        cx: &Context,
        fence: &Fence,
        spec: &ResourceSpec,
        due: Vec<DueMark>,
        started: Option<Started>,
        error: &AskError,
    ) -> Result<(), Error> {
        match error {
            AskError::Stopping | AskError::NoPermit(_) | AskError::Read(ReadError::RateLimited) => return Ok(()),
            AskError::Read(ReadError::Unsupported) => return self.source.store.set_bulk_unsupported(fence, &self.resource).await,
            // The view is lost, and was looked for just now.
            _ if self.source.lost_view(&self.resource).is_some() => return Ok(()),
            // Not a record but the collection is not there: a permission may be gone.
            AskError::Read(ReadError::NotFound) if matches!(self.look_round(cx, fence, spec).await?, View::Glimpse(_)) => return Ok(()),
            _ => {}
        }
        let is_refused = matches!(error, AskError::Read(ReadError::Refused(_)));
        let is_large = error.is_too_large();
        let is_guilty = is_refused || is_large || due.iter().any(|due| due.attempts >= SPLIT_AFTER) && is_about_keys(error);
        if !is_guilty || due.len() < 2 || !(is_large || self.is_well(cx, fence, spec, &due).await?) {
            return self.alone_failed(fence, &due, started, error).await;
        }
        self.take_apart(cx, fence, spec, due).await
    }

    /// Whether the upstream answers what has no part in the failure. Where it does not, no key is guilty, and taking the batch
    /// apart would only be so many requests more.
    async fn is_well(&self, cx: &Context, fence: &Fence, spec: &ResourceSpec, due: &[DueMark]) -> Result<bool, Error> {
        let endpoint = self.source.connector.fetch(spec, &[], By::Bulk).endpoint;
        let observed = self.source.limiter.observe().await;
        if observed.is_none_or(|observed| observed.breakers.contains(&(endpoint, true))) {
            return Ok(false);
        }
        let keys: Vec<Key> = due.iter().map(|due| due.key.clone()).collect();
        let controls = self.source.store.control_keys(&self.source.name, (&self.resource, spec.parent.as_ref()), &keys, 1).await?;
        match controls.first() {
            Some(control) => Ok(self.source.ask_key(cx, fence, Class::Live, spec, control).await.is_ok()),
            // Every record is in the batch, which then has to tell by itself.
            None => Ok(true),
        }
    }

    /// Halved until the guilty key stands alone with its own backoff. Level by level, so that what succeeds is never far from
    /// what fails: the breaker opens at failures in a row.
    async fn take_apart(&self, cx: &Context, fence: &Fence, spec: &ResourceSpec, due: Vec<DueMark>) -> Result<(), Error> {
        let halves = |part: &[DueMark]| [part[..part.len() / 2].to_vec(), part[part.len() / 2..].to_vec()];
        let mut parts = VecDeque::from(halves(&due));
        while let Some(part) = parts.pop_front() {
            let keys: Vec<Key> = part.iter().map(|due| due.key.clone()).collect();
            let request = self.source.connector.fetch(spec, &keys, By::Bulk);
            match self.source.ask(cx, fence, Class::Live, &request, |response| self.source.read_bulk(spec, &keys, response)).await {
                Ok(answer) => self.apply_bulk(cx, fence, spec, &part, answer).await?,
                Err((AskError::Stopping, _)) => return Ok(()),
                Err((error, started)) if part.len() < 2 || !is_about_keys(&error) => {
                    self.alone_failed(fence, &part, started, &error).await?
                }
                Err(_) => parts.extend(halves(&part)),
            }
        }
        Ok(())
    }
}

/// Whether an error can be the fault of one key rather than of the upstream, the credential or the line.
fn is_about_keys(error: &AskError) -> bool {
    let is_read =
        matches!(error, AskError::Read(ReadError::Refused(_) | ReadError::Server(_) | ReadError::NotFound | ReadError::Malformed(_)));
    is_read || error.is_too_large()
}
