//! The HTTP that all sandboxes serve: connections, whole answers and half ones.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(super) type Body = BoxBody<Bytes, io::Error>;

/// Accepts connections until the sandbox stops; each request goes to `handle`.
pub(super) async fn accept<H, A>(listener: TcpListener, tasks: &TaskTracker, stop: &CancellationToken, handle: H)
where
    H: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Response<Body>> + Send,
{
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors: wait for some to be given back.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (handle, stop) = (handle.clone(), stop.clone());
        tasks.spawn(async move {
            let service = service_fn(move |request| {
                let answer = handle(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let connection =
                hyper::server::conn::http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                // A broken connection is the client's business.
                _ = connection => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

/// A whole body.
pub(super) fn whole(text: String) -> Body {
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed()
}

/// Half an answer: either the connection breaks in the middle, or the server itself sent half a document.
pub(super) fn truncated(status: u16, content_type: &str, text: String, random: u64) -> Response<Body> {
    let whole = Bytes::from(text);
    let half = whole.slice(..whole.len() / 2);
    let response = Response::builder().status(self::status(status)).header("content-type", content_type);
    let body = if random.is_multiple_of(2) {
        // The pause lets the head and the first half leave before the connection breaks.
        let cut = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Err(io::Error::from(io::ErrorKind::ConnectionAborted))
        };
        let first = futures_util::stream::iter([Ok(Frame::data(half))]);
        BodyExt::boxed(StreamBody::new(first.chain(futures_util::stream::once(cut))))
    } else {
        Full::new(half).map_err(|never| match never {}).boxed()
    };
    let response = if random.is_multiple_of(2) { response.header("content-length", whole.len()) } else { response };
    response.body(body).expect("the headers are fixed and valid")
}

pub(super) fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Base64 with padding.
pub(super) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let three = chunk.iter().chain([&0, &0]).take(3).fold(0_usize, |number, byte| number << 8 | usize::from(*byte));
        for place in 0..4 {
            let sign = if place <= chunk.len() { ALPHABET[three >> (18 - 6 * place) & 63] } else { b'=' };
            text.push(char::from(sign));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
