//! The session of a source whose upstream has them: one token for all its actors, in memory alone.
//!
//! Not an actor: whoever wants a permit and finds no session that is good for a while asks for one, and the others wait for that
//! one. A login that failed is not tried again before a growing while, whoever asks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::ask::{AskError, SLACK, guarded, health};
use super::limiter::{Health, NoPermit};
use super::source::Source;
use crate::connectors::{Credential, ReadError, Session};
use crate::quota::Class;
use crate::report::{FetchAnswered, FetchFailed};
use crate::retry::RetryPolicy;
use crate::supervision::Context;

/// A session is replaced so long before its end, or in the last quarter of it: a request may wait for its permit and its answer.
const BEFORE_END: Duration = Duration::from_secs(120);
/// Longest pause between two logins that fail.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What a source's requests are authorised by.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    held: Mutex<Option<Held>>,
    turn: tokio::sync::Mutex<Failures>,
}

#[derive(Debug)]
struct Held {
    session: Arc<Session>,
    /// In monotonic time; `None`: until it is refused.
    good_until: Option<Duration>,
    /// The upstream did not accept it any more; its refresh token may still be good.
    is_refused: bool,
}

#[derive(Debug, Default)]
struct Failures {
    n: u32,
    /// The last one, and until when it stands for those who ask.
    last: Option<(AskError, Duration)>,
}

impl Sessions {
    fn held(&self) -> std::sync::MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_good(&self, now: Duration) -> bool {
        self.held().as_ref().is_some_and(|held| !held.is_refused && held.good_until.is_none_or(|until| now < until))
    }

    /// The session for requests with this credential.
    pub(super) fn of(&self, credential: Credential) -> Option<Arc<Session>> {
        let held = self.held();
        held.as_ref().filter(|held| credential == Credential::Read && !held.is_refused).map(|held| Arc::clone(&held.session))
    }

    /// Notes that a session is not accepted any more, unless another took its place meanwhile; `false` where there was none.
    pub(super) fn refused(&self, session: Option<&Arc<Session>>) -> bool {
        let Some(session) = session else { return false };
        if let Some(held) = self.held().as_mut().filter(|held| Arc::ptr_eq(&held.session, session)) {
            held.is_refused = true;
        }
        true
    }

    fn refresh(&self) -> Option<String> {
        self.held().as_ref().and_then(|held| held.session.refresh.clone())
    }

    fn hold(&self, session: Session, begun: Duration) {
        let good_until = session.lasts.map(|lasts| begun + lasts.saturating_sub(BEFORE_END.min(lasts / 4)));
        *self.held() = Some(Held { session: Arc::new(session), good_until, is_refused: false });
    }
}

impl Source {
    /// Whether requests with this credential are authorised by a session.
    pub(super) fn has_session(&self, credential: Credential) -> bool {
        credential == Credential::Read && !self.connector.login_needs().is_empty()
    }

    /// Sees to it that there is a session, where the upstream has them.
    ///
    /// # Errors
    /// [`AskError`]: of the login just made, or of the last one while it is not to be tried again.
    pub(super) async fn log_in(&self, cx: &Context) -> Result<(), AskError> {
        if !self.has_session(Credential::Read) || self.sessions.is_good(self.clock.monotonic()) {
            return Ok(());
        }
        cx.life.allow(self.settings.patience + SLACK);
        let mut failures = tokio::select! {
            () = cx.stopping.cancelled() => return Err(AskError::Stopping),
            turn = tokio::time::timeout(self.settings.patience, self.sessions.turn.lock()) => turn.map_err(|_| NoPermit)?,
        };
        let begun = self.clock.monotonic();
        if self.sessions.is_good(begun) {
            return Ok(());
        }
        if let Some((error, _)) = failures.last.as_ref().filter(|(_, until)| begun < *until) {
            return Err(error.clone());
        }
        match self.new_session(cx).await {
            Ok(session) => {
                self.sessions.hold(session, begun);
                *failures = Failures::default();
                Ok(())
            }
            Err(error @ (AskError::NoPermit(_) | AskError::Stopping)) => Err(error),
            Err(error) => {
                let pause = pauses().delay(failures.n, rand::random());
                *failures = Failures { n: failures.n.saturating_add(1), last: Some((error.clone(), self.clock.monotonic() + pause)) };
                Err(error)
            }
        }
    }

    async fn new_session(&self, cx: &Context) -> Result<Session, AskError> {
        let texts = self.connector.login_needs().iter().map(|which| self.upstream.credential(*which));
        let texts = texts.collect::<Result<Vec<String>, _>>()?;
        if let Some(refresh) = self.sessions.refresh() {
            match self.new_session_by(cx, &texts, Some(&refresh)).await {
                // Used already, or too old: the credentials themselves tell.
                Err(AskError::Read(ReadError::Denied(_))) => *self.sessions.held() = None,
                other => return other,
            }
        }
        self.new_session_by(cx, &texts, None).await
    }

    /// One attempt on the wire, under a permit of its own.
    async fn new_session_by(&self, cx: &Context, texts: &[String], refresh: Option<&str>) -> Result<Session, AskError> {
        let Some(login) = guarded("login", || self.connector.login(texts, refresh)).flatten() else {
            return Err(ReadError::Malformed("the connector has no login").into());
        };
        let endpoint = login.0.endpoint.clone();
        let permit = self.bare_permit(cx, Class::Live, &endpoint).await?;
        cx.life.allow(self.upstream.timeout() + SLACK);
        let begun = self.clock.monotonic();
        let sent = self.upstream.log_in(&login).await;
        let seconds = self.clock.monotonic().saturating_sub(begun).as_secs_f64();
        let (source, resource) = (self.name.to_string(), endpoint);
        match sent {
            Ok(response) => {
                let read = guarded("read", || self.connector.read_login(&response));
                let read = read.unwrap_or(Err(ReadError::Malformed("the connector panicked on it")));
                let health = match &read {
                    // A refresh token ends some day, which is no fault of anybody's.
                    Err(ReadError::Denied(_)) if refresh.is_some() => Health::Well,
                    Err(ReadError::Denied(_)) => Health::Denied,
                    read => health(response.status, read.as_ref().err()),
                };
                permit.answered(&response, health);
                self.reporter.emit(FetchAnswered { source, resource, status: response.status.to_string(), seconds });
                Ok(read?)
            }
            Err(error) => {
                permit.failed(error.reach());
                self.reporter.emit(FetchFailed { source, resource, reason: error.name().to_owned(), error: error.to_string() });
                Err(error.into())
            }
        }
    }
}

fn pauses() -> RetryPolicy {
    RetryPolicy::new(Duration::from_secs(1), PAUSE_MAX, 2.0, 0.5).expect("invariant: the constants are a valid policy")
}

#[cfg(test)]
mod tests;
