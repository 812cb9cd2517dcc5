//! A raw HTTP client and a served socket for the tests of this module.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Routes;
use super::edge::{self, Drained, Options};

/// Longest wait of a test for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Routes behind a real socket on loopback.
pub(super) struct Served {
    pub(super) port: u16,
    pub(super) shutdown: CancellationToken,
    pub(super) serving: JoinHandle<Drained>,
}

pub(super) async fn serve(routes: Routes, options: Options) -> Served {
    serve_with_sign(routes, options, Arc::new(|| {})).await
}

pub(super) async fn serve_with_sign(routes: Routes, options: Options, sign: edge::Sign) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let shutdown = CancellationToken::new();
    let serving = TaskTracker::new().spawn(edge::serve(listener, routes, options, sign, shutdown.clone()));
    Served { port, shutdown, serving }
}

impl Served {
    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.expect("connected")
    }

    /// Sends `request` on a new connection and returns all that comes until the server closes it.
    pub(super) async fn raw(&self, request: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request).await.expect("sent");
        to_end(&mut stream).await
    }

    /// One request, with its body and `Connection: close`.
    pub(super) async fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = format!("{method} {target} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| *name == "host") {
            request.push_str("host: localhost\r\n");
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        request.push_str(body);
        Answer::parse(&self.raw(request.as_bytes()).await)
    }
}

/// Reads until the server closes; a reset counts as closed.
pub(super) async fn to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    assert!(read.is_ok(), "the connection stayed open");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads until `marker` has come.
pub(super) async fn until(stream: &mut TcpStream, marker: &str) -> String {
    let mut text = String::new();
    while !text.contains(marker) {
        let mut bytes = [0; 1024];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut bytes)).await.expect("in time").expect("read");
        assert!(read > 0, "closed before {marker:?}: {text:?}");
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    text
}

/// Waits until `condition` holds.
pub(super) async fn eventually(condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, met).await.expect("the condition holds in time");
}

/// An HTTP answer in pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Header lines without `date`.
    pub(super) headers: Vec<String>,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok()).unwrap_or(0);
        let headers = lines.filter(|line| !line.starts_with("date:")).map(str::to_owned).collect();
        Self { status, headers, body: body.to_owned() }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}
