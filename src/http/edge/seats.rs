//! Who holds a connection, and who gives his up when all are taken.
//!
//! A stranger can open connections as fast as the kernel lets him, and say nothing on them. Were further ones to wait until his are
//! closed, a legitimate caller would wait for seconds; so the one that has kept us waiting longest goes at once.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

/// Nobody loses his place sooner, or a caller whose first bytes are still on their way would lose it to a crowd of strangers.
pub(super) const GRACE: Duration = Duration::from_millis(50);

/// What a connection waits for; the order is that in which they have to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Waiting {
    /// A header, or the caller's end of a closing connection.
    Header,
    /// The rest of a body.
    Body,
    /// Us: nobody loses his connection while we work.
    Answer,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// In the order in which they began to wait for something, with the moment.
    seats: BTreeMap<(Waiting, u64), (Duration, CancellationToken)>,
}

impl Taken {
    fn put(&mut self, waiting: Waiting, now: Duration, leave: CancellationToken) -> (Waiting, u64) {
        self.next += 1;
        self.seats.insert((waiting, self.next), (now, leave));
        (waiting, self.next)
    }

    /// Who has waited longest for this, and when his grace is over.
    fn first(&self, waiting: Waiting) -> Option<((Waiting, u64), Duration)> {
        let (at, (since, _)) = self.seats.range((waiting, 0)..=(waiting, u64::MAX)).next()?;
        Some((*at, *since + GRACE))
    }
}

/// All connections of a socket.
#[derive(Clone, Debug)]
pub(super) struct Seats {
    taken: Arc<Mutex<Taken>>,
    clock: Clock,
}

impl Seats {
    pub(super) fn new(clock: Clock) -> Self {
        Self { taken: Arc::default(), clock }
    }

    /// A new connection, which waits for its header.
    pub(super) fn take(&self) -> Seat {
        let leave = CancellationToken::new();
        let at = self.lock().put(Waiting::Header, self.clock.monotonic(), leave.clone());
        Seat { seats: self.clone(), at: Arc::new(Mutex::new(at)), leave }
    }

    /// Tells the connection to go that keeps us waiting longest. Where none has used up its grace: how long until one has. `None`:
    /// one was told, or we keep all of them waiting.
    pub(super) fn free_one(&self) -> Option<Duration> {
        let now = self.clock.monotonic();
        let mut taken = self.lock();
        let firsts = [taken.first(Waiting::Header), taken.first(Waiting::Body)];
        let mut firsts = firsts.into_iter().flatten();
        let until = firsts.clone().map(|(_, until)| until).min()?;
        let Some((at, _)) = firsts.find(|(_, until)| *until <= now) else { return Some(until - now) };
        let (_, leave) = taken.seats.remove(&at).expect("it was just seen");
        leave.cancel();
        None
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place; given back when the connection has ended.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    at: Arc<Mutex<(Waiting, u64)>>,
    /// Cancelled when another connection needs the place.
    pub(super) leave: CancellationToken,
}

impl Seat {
    /// Notes what the connection waits for from now on.
    pub(super) fn waits_for(&self, waiting: Waiting) {
        let mut taken = self.seats.lock();
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever was told to leave has no place to change.
        if let Some((_, leave)) = taken.seats.remove(&at) {
            *at = taken.put(waiting, self.seats.clock.monotonic(), leave);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let at = *self.at.lock().unwrap_or_else(PoisonError::into_inner);
        self.seats.lock().seats.remove(&at);
    }
}

/// A body that tells its connection's seat when it is complete.
#[derive(Debug)]
pub(super) struct Watched {
    inner: Incoming,
    seat: Arc<Seat>,
}

impl Watched {
    pub(super) fn new(inner: Incoming, seat: Arc<Seat>) -> Self {
        seat.waits_for(if inner.is_end_stream() { Waiting::Answer } else { Waiting::Body });
        Self { inner, seat }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) || polled.is_ready() && self.inner.is_end_stream() {
            self.seat.waits_for(Waiting::Answer);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_keeps_us_waiting_longest_goes_first_and_nobody_whom_we_keep_waiting() {
        let seats = Seats::new(Clock::system());
        let (working, sending, idle, young) = (seats.take(), seats.take(), seats.take(), seats.take());
        working.waits_for(Waiting::Answer);
        sending.waits_for(Waiting::Body);
        let rest = seats.free_one().expect("all have their grace");
        assert!(rest <= GRACE && !idle.leave.is_cancelled());
        tokio::time::sleep(GRACE).await;
        assert_eq!(seats.free_one(), None);
        assert!(idle.leave.is_cancelled() && !young.leave.is_cancelled(), "the oldest of those without a header");
        idle.waits_for(Waiting::Answer);
        let late = seats.take();
        assert_eq!(seats.free_one(), None);
        assert!(young.leave.is_cancelled());
        assert_eq!(seats.free_one(), None);
        assert!(sending.leave.is_cancelled() && !late.leave.is_cancelled(), "then the oldest of those without a body");
        drop(late);
        assert_eq!(seats.free_one(), None);
        assert!(!working.leave.is_cancelled());
        working.waits_for(Waiting::Header);
        tokio::time::sleep(GRACE).await;
        assert_eq!(seats.free_one(), None);
        assert!(working.leave.is_cancelled(), "an answered one waits for the next header");
        assert!(seats.lock().seats.is_empty());
    }
}
