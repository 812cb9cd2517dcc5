//! Whether a sender has stopped: its log tells of events that no delivery announces, or passes show changes that none told.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::ask::AskError;
use super::source::Source;
use crate::clock::Timestamp;
use crate::connectors::{ReadError, Response, Resume};
use crate::quota::Class;
use crate::report::{ResumeAsked, ResumeRefused};
use crate::store::Fence;
use crate::supervision::Context;

/// A sender that goes on being silent is asked less and less often, down to this.
const ASK_EVERY_MAX: Duration = Duration::from_secs(24 * 3600);

/// What is known of a source's deliveries, in monotonic time. Kept in memory: a new process looks anew.
#[derive(Debug, Default)]
pub(super) struct Pushes(Mutex<Heard>);

#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    /// When a log or a pass first showed what no delivery had announced, since a delivery came or the sender was asked.
    missed_at: Option<Duration>,
    /// When the sender was last asked to deliver again.
    asked_at: Option<Duration>,
    /// How often it was asked since a delivery came.
    asked: u32,
    /// When a delivery last came.
    came_at: Option<Timestamp>,
}

impl Pushes {
    /// There is something that no delivery announced; whether it is the first time.
    pub(super) fn missed(&self, now: Duration) -> bool {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = heard.missed_at.is_none();
        heard.missed_at.get_or_insert(now);
        is_first
    }

    /// A delivery came.
    pub(super) fn came(&self, at: Timestamp) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Heard { came_at: Some(at), ..Heard::default() };
    }

    /// Whether no delivery has come since.
    pub(super) fn is_silent_since(&self, at: Timestamp) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).came_at.is_none_or(|came| came < at)
    }

    /// How long until the sender is to be asked; `None`: nothing is missed.
    fn due_in(&self, now: Duration, after: Duration) -> Option<Duration> {
        let heard = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let missed = heard.missed_at?.saturating_add(after);
        let rest = after.saturating_mul(1 << heard.asked.saturating_sub(1).min(16)).min(ASK_EVERY_MAX.max(after));
        let again = heard.asked_at.map_or(Duration::ZERO, |at| at.saturating_add(rest));
        Some(missed.max(again).saturating_sub(now))
    }

    fn asked(&self, now: Duration) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *heard = Heard { missed_at: None, asked_at: Some(now), asked: heard.asked.saturating_add(1), ..*heard };
    }
}

impl Source {
    /// So much was told by a log first, or shown by a pass and told by nobody.
    pub(super) fn unannounced(&self, n: usize) {
        let is_pushed = self.settings.public_url.is_some() && self.connector.resume().is_some();
        if n > 0 && is_pushed && self.pushes.missed(self.clock.monotonic()) {
            self.keeper.wake();
        }
    }

    /// Asks a sender that has stopped to deliver again, where that is due; how long until it may be.
    pub(super) async fn resume_pushes(&self, cx: &Context) -> Option<Duration> {
        let Resume { request, after } = self.connector.resume().filter(|_| self.settings.public_url.is_some())?;
        self.may_manage().ok()?;
        let wait = self.pushes.due_in(self.clock.monotonic(), after)?;
        if !wait.is_zero() {
            return Some(wait);
        }
        let fence: Fence = self.fence(cx).await?;
        let read = |response: &Response| match response.status {
            200..=299 => Ok(()),
            status => Err(ReadError::Refused(status)),
        };
        let source = self.name.to_string();
        match self.ask(cx, &fence, Class::Refresh, &request, read).await {
            Ok(_) => self.reporter.emit(ResumeAsked { source }),
            // It was not sent.
            Err((AskError::Stopping | AskError::NoPermit(_), _)) => return Some(after),
            Err((error, _)) => self.reporter.emit(ResumeRefused { source, error: error.to_string() }),
        }
        // Whatever came of it: the next time is an `after` away, and twice that, and so on, until a delivery comes.
        self.pushes.asked(self.clock.monotonic());
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_sender_is_asked_once_a_span_and_less_and_less_often_until_a_delivery_comes() {
        let pushes = Pushes::default();
        assert_eq!(pushes.due_in(MINUTE, MINUTE), None, "nothing is missed");
        assert!(pushes.missed(MINUTE) && !pushes.missed(MINUTE * 3));
        assert_eq!(pushes.due_in(MINUTE, MINUTE), Some(MINUTE));
        assert_eq!(pushes.due_in(MINUTE * 2, MINUTE), Some(Duration::ZERO));
        pushes.asked(MINUTE * 2);
        assert_eq!(pushes.due_in(MINUTE * 9, MINUTE), None, "nothing has been missed since");
        pushes.missed(MINUTE * 2);
        assert_eq!(pushes.due_in(MINUTE * 2, MINUTE), Some(MINUTE));
        pushes.asked(MINUTE * 3);
        pushes.missed(MINUTE * 3);
        assert_eq!(pushes.due_in(MINUTE * 3, MINUTE), Some(MINUTE * 2));
        assert!(pushes.is_silent_since(Timestamp(7)), "none ever came");
        pushes.came(Timestamp(8));
        assert!(!pushes.is_silent_since(Timestamp(7)) && pushes.is_silent_since(Timestamp(9)));
        assert_eq!(pushes.due_in(MINUTE * 9, MINUTE), None);
        pushes.missed(MINUTE * 9);
        assert_eq!(pushes.due_in(MINUTE * 9, MINUTE), Some(MINUTE), "it was heard meanwhile");
    }
}
