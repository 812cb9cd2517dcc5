//! The HTTP side of the daemon: the accept loop ([`edge`]), the public routes ([`hooks`]), the local ones ([`admin`]) and those of
//! applications ([`api`]).
//!
//! Nothing else imports warp. The sockets are served by the same [`edge::serve`] with different [`Routes`].
//! TLS ends in front of us, at a reverse proxy.

pub mod admin;
pub mod api;
mod body;
pub mod edge;
pub mod hooks;
#[cfg(test)]
mod testing;

use std::future::Future;
use std::pin::Pin;

use warp::Reply;
use warp::http::{HeaderValue, StatusCode, header};

/// What a socket answers: a complete, boxed warp filter. made by [`hooks::Hooks::routes`], [`admin::routes`] and [`api::routes`].
pub type Routes = warp::filters::BoxedFilter<(Response,)>;

/// An HTTP answer.
pub type Response = warp::reply::Response;

/// A future behind an object-safe method.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A short plain-text answer that no cache keeps.
fn plain(status: StatusCode, text: &'static str) -> Response {
    let mut response = warp::reply::with_status(text, status).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A JSON answer that no cache keeps.
fn json(status: StatusCode, value: &serde_json::Value) -> Response {
    let mut response = warp::reply::with_status(warp::reply::json(value), status).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
