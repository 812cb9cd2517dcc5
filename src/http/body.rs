//! Reading a body: in chunks, up to a cap, within a deadline, and out of one budget for all bodies in flight.
//!
//! Memory is booked before it is used and grows by doubling, so that neither a long `Content-Length` nor a stranger's
//! chunks take more of the budget than what has arrived.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What every body books at once, empty ones too: it bounds how many are in flight, and most webhooks need no more.
const FIRST_BYTES: usize = 16 * 1024;

/// Memory for all bodies of one socket.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    bytes: Arc<Semaphore>,
    wait: Duration,
}

impl Budget {
    /// A budget of `bytes_max`; a body waits up to `wait` for its share.
    pub(super) fn new(bytes_max: usize, wait: Duration) -> Self {
        Self { bytes: Arc::new(Semaphore::new(bytes_max.max(FIRST_BYTES))), wait }
    }

    async fn book(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Error> {
        let bytes = u32::try_from(bytes).map_err(|_| Error::NoBudget)?;
        let booked = Arc::clone(&self.bytes).acquire_many_owned(bytes);
        match tokio::time::timeout(self.wait, booked).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Error::NoBudget),
        }
    }
}

/// A body in memory together with the share of the budget that it holds.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) bytes: Bytes,
    pub(super) share: OwnedSemaphorePermit,
}

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("the body is larger than allowed")]
    TooLarge,
    #[error("the body did not arrive in time")]
    TooSlow,
    #[error("no memory left for bodies")]
    NoBudget,
    #[error("the body broke off")]
    Broken,
}

/// Reads `stream` to its end.
pub(super) async fn read<S, B, E>(stream: S, bytes_max: usize, deadline: Duration, budget: &Budget) -> Result<Held, Error>
where
    S: Stream<Item = Result<B, E>>,
    B: Buf,
{
    tokio::time::timeout(deadline, gather(stream, bytes_max, budget)).await.unwrap_or(Err(Error::TooSlow))
}

async fn gather<S, B, E>(stream: S, bytes_max: usize, budget: &Budget) -> Result<Held, Error>
where
    S: Stream<Item = Result<B, E>>,
    B: Buf,
{
    let mut stream = std::pin::pin!(stream);
    let mut share = budget.book(FIRST_BYTES).await?;
    let mut room = FIRST_BYTES;
    let mut body: Vec<u8> = Vec::new();
    while let Some(chunk) = stream.next().await {
        let mut chunk = chunk.map_err(|_| Error::Broken)?;
        let needed = body.len().saturating_add(chunk.remaining());
        if needed > bytes_max {
            return Err(Error::TooLarge);
        }
        if needed > room {
            let wanted = room.saturating_mul(2).min(bytes_max).max(needed);
            share.merge(budget.book(wanted - room).await?);
            room = wanted;
        }
        if needed > body.capacity() {
            body.reserve_exact(room - body.len());
        }
        while chunk.has_remaining() {
            let part = chunk.chunk();
            body.extend_from_slice(part);
            let taken = part.len();
            chunk.advance(taken);
        }
    }
    Ok(Held { bytes: Bytes::from(body), share })
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    const SOON: Duration = Duration::from_millis(50);

    fn chunks(sizes: &[usize]) -> impl Stream<Item = Result<Bytes, ()>> + use<> {
        stream::iter(sizes.iter().map(|size| Ok(Bytes::from(vec![7; *size]))).collect::<Vec<_>>())
    }

    #[tokio::test]
    async fn a_body_is_whole_and_gives_its_share_back() {
        let budget = Budget::new(1 << 20, SOON);
        let held = read(chunks(&[10, 0, 40_000, 60_000]), 1 << 20, SOON, &budget).await.expect("fits");
        assert_eq!(held.bytes.len(), 100_010);
        assert!(budget.bytes.available_permits() <= (1 << 20) - 100_010);
        drop(held);
        assert_eq!(budget.bytes.available_permits(), 1 << 20);
    }

    #[tokio::test]
    async fn the_cap_is_exact_and_ends_the_reading() {
        let budget = Budget::new(1 << 20, SOON);
        assert!(read(chunks(&[60, 40]), 100, SOON, &budget).await.is_ok());
        let endless = stream::repeat_with(|| Ok::<_, ()>(Bytes::from_static(&[0; 1024])));
        assert_eq!(read(endless, 100_000, SOON, &budget).await.map(drop), Err(Error::TooLarge));
        assert_eq!(budget.bytes.available_permits(), 1 << 20);
    }

    #[tokio::test]
    async fn a_body_that_stops_is_given_up() {
        let budget = Budget::new(1 << 20, SOON);
        let stuck = chunks(&[10]).chain(stream::pending());
        assert_eq!(read(stuck, 100, SOON, &budget).await.map(drop), Err(Error::TooSlow));
        let broken = chunks(&[10]).chain(stream::iter([Err(())]));
        assert_eq!(read(broken, 100, SOON, &budget).await.map(drop), Err(Error::Broken));
    }

    #[tokio::test]
    async fn an_exhausted_budget_refuses_and_recovers() {
        let budget = Budget::new(FIRST_BYTES, SOON);
        let held = read(chunks(&[1]), 100, SOON * 4, &budget).await.expect("fits");
        assert_eq!(read(chunks(&[1]), 100, SOON * 4, &budget).await.map(drop), Err(Error::NoBudget));
        drop(held);
        assert!(read(chunks(&[1]), 100, SOON * 4, &budget).await.is_ok());
    }
}
