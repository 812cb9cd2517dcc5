//! The accept loop: warp gives the routes, the limits are ours, for `warp::serve` has none.
//!
//! HTTP/1.1 only. A connection costs a permit. When all are taken, the next one gets that of the connection that has kept us waiting
//! longest ([`seats`]); only where all wait for us it waits itself, and those behind it in the kernel's backlog.
//! What bounds a connection: header bytes, number and time (idle keep-alive counts as waiting for a header), one deadline
//! for a request, an age after which it is asked to leave, and the drain deadline. The body has limits of its own
//! (`body`, set by the routes). A request without exactly one `Host` is refused here, since hyper lets it pass.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warp::http::{HeaderMap, Request, StatusCode, header};

use super::{Response, Routes, plain};
use crate::clock::Clock;

mod seats;

use seats::{Seat, Seats, Waiting, Watched};

/// How often the loop shows that it is alive.
const SIGN_EVERY: Duration = Duration::from_secs(1);
/// First and longest pause after a failed accept (no file descriptors left, for example).
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// What is read and thrown away after the last answer, so that the kernel does not reset the connection under it.
const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// How long tasks may take to notice that they are cut off; they only have to be polled once.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// Called at least every second while the loop runs: the sign of life of the listener.
pub type Sign = Arc<dyn Fn() + Send + Sync>;

/// The limits of one socket.
#[derive(Clone, Debug)]
pub struct Options {
    /// Time for a complete request header, also the longest idle time of a kept-alive connection. 5 s: a webhook sender has it ready.
    pub header_timeout: Duration,
    /// Bytes of a request header, above it 431. 16 KiB: hyper's default of about 400 KiB is memory for strangers. At least 8 KiB.
    pub header_bytes_max: usize,
    /// Header lines, above it 431. 64: the proxies and vendors we know send fewer than 30.
    pub headers_max: usize,
    /// Open connections; a further one gets the place of the one that is slowest. 1,024: below any sensible `LimitNOFILE`, and 16 MiB of buffers.
    pub connections_max: usize,
    /// From the complete header to the answer, body included; above it 503. 20 s: a body's 10 s and then some.
    pub request_deadline: Duration,
    /// After this a connection is asked to leave at the next request's end, and cut off one `request_deadline` later. 5 min.
    pub connection_age_max: Duration,
    /// How long [`serve`] waits for open requests after the shutdown. 10 s: below systemd's stop timeout.
    pub drain_deadline: Duration,
    /// How long a closing connection may still send into the void. 1 s.
    pub linger: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(5),
            header_bytes_max: 16 * 1024,
            headers_max: 64,
            connections_max: 1024,
            request_deadline: Duration::from_secs(20),
            connection_age_max: Duration::from_secs(300),
            drain_deadline: Duration::from_secs(10),
            linger: Duration::from_secs(1),
        }
    }
}

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were still open at the drain deadline and were cut off.
    pub aborted: usize,
}

/// Serves `routes` until `shutdown`, then stops accepting and lets open requests end until the drain deadline.
pub async fn serve(listener: TcpListener, routes: Routes, options: Options, sign: Sign, shutdown: CancellationToken) -> Drained {
    let (seats, abort, connections) = (Seats::new(Clock::system()), CancellationToken::new(), TaskTracker::new());
    let edge = Arc::new(Edge { routes, options, shutdown, abort, connections, seats });
    let mut serving = pin!(async {
        edge.accept(listener).await;
        edge.drain().await
    });
    let mut tick = tokio::time::interval(SIGN_EVERY);
    loop {
        tokio::select! {
            drained = &mut serving => return drained,
            _ = tick.tick() => sign(),
        }
    }
}

struct Edge {
    routes: Routes,
    options: Options,
    shutdown: CancellationToken,
    abort: CancellationToken,
    connections: TaskTracker,
    seats: Seats,
}

impl Edge {
    async fn accept(self: &Arc<Self>, listener: TcpListener) {
        let permits = Arc::new(Semaphore::new(self.options.connections_max));
        let mut failures = 0;
        loop {
            let accepted = async {
                let (stream, _peer) = listener.accept().await?;
                Ok((self.place(&permits).await, stream))
            };
            let accepted = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return,
                accepted = accepted => accepted,
            };
            match accepted {
                Ok((permit, stream)) => {
                    failures = 0;
                    let edge = Arc::clone(self);
                    let seat = Arc::new(self.seats.take());
                    self.connections.spawn(async move {
                        let _permit = permit;
                        tokio::select! {
                            () = edge.abort.cancelled() => {}
                            () = seat.leave.cancelled() => {}
                            () = edge.connection(stream, &seat) => {}
                        }
                    });
                }
                Err(error) if is_callers(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, failures, "accept failed");
                    tokio::select! {
                        () = self.shutdown.cancelled() => return,
                        () = tokio::time::sleep(accept_pause(failures)) => {}
                    }
                    failures += 1;
                }
            }
        }
    }

    /// A place for one more connection; if there is none, that of the slowest.
    async fn place(&self, permits: &Arc<Semaphore>) -> OwnedSemaphorePermit {
        loop {
            let rest = if permits.available_permits() > 0 { None } else { self.seats.free_one() };
            let place = Arc::clone(permits).acquire_owned();
            let place = match rest {
                None => place.await,
                Some(rest) => match tokio::time::timeout(rest, place).await {
                    Ok(place) => place,
                    Err(_) => continue,
                },
            };
            return place.expect("the semaphore is never closed");
        }
    }

    async fn drain(&self) -> Drained {
        self.connections.close();
        if tokio::time::timeout(self.options.drain_deadline, self.connections.wait()).await.is_ok() {
            return Drained { aborted: 0 };
        }
        let aborted = self.connections.len();
        self.abort.cancel();
        if tokio::time::timeout(ABORT_GRACE, self.connections.wait()).await.is_err() {
            tracing::error!(left = self.connections.len(), "connections do not end");
        }
        Drained { aborted }
    }

    async fn connection(self: &Arc<Self>, stream: TcpStream, seat: &Arc<Seat>) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "nodelay refused");
        }
        let service = service_fn(|request| {
            let (edge, seat) = (Arc::clone(self), Arc::clone(seat));
            Box::pin(async move {
                let response = edge.answer(request, &seat).await;
                seat.waits_for(Waiting::Header);
                Ok::<_, Infallible>(response)
            })
        });
        let mut connection = self.protocol().serve_connection(TokioIo::new(stream), service);
        let mut until = pin!(tokio::time::sleep(self.options.connection_age_max));
        let mut leaving = false;
        let ended = loop {
            tokio::select! {
                ended = poll_fn(|context| connection.poll_without_shutdown(context)) => break ended,
                () = self.shutdown.cancelled(), if !leaving => {}
                () = &mut until => {
                    if leaving {
                        return;
                    }
                }
            }
            leaving = true;
            until.set(tokio::time::sleep(self.options.request_deadline));
            Pin::new(&mut connection).graceful_shutdown();
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection failed");
            if error.is_timeout() {
                return;
            }
        }
        self.linger(connection.into_parts().io.into_inner()).await;
    }

    fn protocol(&self) -> http1::Builder {
        let mut protocol = http1::Builder::new();
        protocol
            .timer(TokioTimer::new())
            .header_read_timeout(self.options.header_timeout)
            .max_buf_size(self.options.header_bytes_max)
            .max_headers(self.options.headers_max)
            .keep_alive(true);
        protocol
    }

    async fn answer(&self, request: Request<Incoming>, seat: &Arc<Seat>) -> Response {
        let request = request.map(|body| Watched::new(body, Arc::clone(seat)));
        if !has_one_host(request.headers()) {
            return closing(StatusCode::BAD_REQUEST, "exactly one host is needed\n");
        }
        if !request.uri().path().starts_with('/') {
            // A tunnel has no path, and warp panics without one.
            return closing(StatusCode::BAD_REQUEST, "a path is needed\n");
        }
        let is_chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
        let routed = async { TowerToHyperService::new(warp::service(self.routes.clone())).call(request).await };
        let caught = AssertUnwindSafe(routed).catch_unwind();
        match tokio::time::timeout(self.options.request_deadline, caught).await {
            // Whoever stands between may have read the chunks otherwise: what follows them on this connection is not read.
            Ok(Ok(Ok(response))) if is_chunked => closed(response),
            Ok(Ok(Ok(response))) => response,
            Ok(Ok(Err(never))) => match never {},
            Ok(Err(_panic)) => {
                tracing::error!("a request handler panicked");
                closing(StatusCode::INTERNAL_SERVER_ERROR, "internal error\n")
            }
            Err(_elapsed) => closing(StatusCode::SERVICE_UNAVAILABLE, "too slow\n"),
        }
    }

    /// Closes our half and reads what still comes: a socket closed with unread bytes resets, and the caller would lose the answer.
    async fn linger(&self, mut stream: TcpStream) {
        if stream.shutdown().await.is_err() {
            return;
        }
        let discard = async {
            let mut scrap = vec![0; 8 * 1024];
            let mut left = LINGER_BYTES_MAX;
            while left > 0 {
                match stream.read(&mut scrap).await {
                    Ok(read) if read > 0 => left = left.saturating_sub(read),
                    _ => break,
                }
            }
        };
        if tokio::time::timeout(self.options.linger, discard).await.is_err() {
            tracing::debug!("caller went on sending after the answer");
        }
    }
}

/// An answer after which the connection is closed.
pub(super) fn closing(status: StatusCode, text: &'static str) -> Response {
    closed(plain(status, text))
}

fn closed(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    response
}

fn has_one_host(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    hosts.next().is_some_and(|host| !host.is_empty()) && hosts.next().is_none()
}

/// Errors of the one connection that `accept` would have returned: nothing is wrong here, the next may be fine.
fn is_callers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused | io::ErrorKind::Interrupted
    )
}

fn accept_pause(failures: u32) -> Duration {
    let (first, longest) = ACCEPT_PAUSE;
    first.saturating_mul(1 << failures.min(10)).min(longest)
}

#[cfg(test)]
mod tests;
