//! A receiver of deliveries, for the sandboxes' own tests.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Longer than anything here takes on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A receiver of deliveries that answers with the scripted statuses, then 200.
pub(super) struct Receiver {
    pub(super) url: String,
    pub(super) deliveries: mpsc::UnboundedReceiver<(HeaderMap, Bytes)>,
    _tasks: JoinSet<()>,
}

impl Receiver {
    pub(super) async fn new(script: Vec<u16>) -> Self {
        Self::scripted(script, None).await
    }

    /// One that answers 429 once, and says when to come again.
    pub(super) async fn refusing(retry_after: &'static str) -> Self {
        Self::scripted(vec![429], Some(retry_after)).await
    }

    async fn scripted(script: Vec<u16>, retry_after: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/hooks", listener.local_addr().expect("an address"));
        let (sender, deliveries) = mpsc::unbounded_channel();
        let script = Arc::new(std::sync::Mutex::new(script.into_iter()));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (sender, script) = (sender.clone(), Arc::clone(&script));
                connections.spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (sender, script) = (sender.clone(), Arc::clone(&script));
                        async move {
                            let (parts, body) = request.into_parts();
                            let body = body.collect().await.expect("a whole delivery").to_bytes();
                            let status = script.lock().expect("no panic").next().unwrap_or(200);
                            // The test may have seen enough.
                            let _ = sender.send((parts.headers, body));
                            let mut answer = Response::builder().status(status);
                            if let Some(says) = retry_after.filter(|_| status == 429) {
                                answer = answer.header("retry-after", says);
                            }
                            Ok::<_, Infallible>(answer.body(Full::new(Bytes::new())).expect("a status"))
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { url, deliveries, _tasks: tasks }
    }

    pub(super) async fn next(&mut self) -> (HeaderMap, Bytes) {
        let received = tokio::time::timeout(PATIENCE, self.deliveries.recv()).await;
        received.expect("a delivery in time").expect("the receiver runs")
    }

    pub(super) async fn next_body(&mut self) -> Value {
        serde_json::from_slice(&self.next().await.1).expect("deliveries are JSON")
    }
}
