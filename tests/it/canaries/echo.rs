//! An upstream that answers every request with what it was sent, credential included, in body and headers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How many kinds of answers there are.
pub(crate) const ANSWERS: usize = 9;
/// Longest head that is read.
const HEAD_MAX: usize = 64 * 1024;

pub(crate) struct Echo {
    port: u16,
    told: Arc<Told>,
    /// It ends with this.
    _serving: JoinSet<()>,
}

#[derive(Default)]
struct Told {
    kind: AtomicUsize,
    answered: AtomicUsize,
    heard: Mutex<String>,
}

impl Echo {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let (port, told) = (listener.local_addr().expect("an address").port(), Arc::<Told>::default());
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, Arc::clone(&told)));
        Self { port, told, _serving: serving }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/api/v2/", self.port)
    }

    /// From now on it answers in this way; how often it answered before.
    pub(crate) fn answer_with(&self, kind: usize) -> usize {
        self.told.kind.store(kind, Ordering::Release);
        self.answered()
    }

    pub(crate) fn answered(&self) -> usize {
        self.told.answered.load(Ordering::Acquire)
    }

    /// Whether it was ever sent this.
    pub(crate) fn saw(&self, text: &str) -> bool {
        self.told.heard.lock().unwrap_or_else(PoisonError::into_inner).contains(text)
    }
}

async fn serve(listener: TcpListener, told: Arc<Told>) {
    let mut answering = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        answering.spawn(answer(stream, Arc::clone(&told)));
    }
}

async fn answer(mut stream: TcpStream, told: Arc<Told>) {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD_MAX {
        let mut part = [0; 4096];
        match stream.read(&mut part).await {
            Ok(n) if n > 0 => head.extend_from_slice(&part[..n]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let token = head.lines().find_map(|line| line.strip_prefix("x-auth-token: ")).unwrap_or("nobody").to_owned();
    told.heard.lock().unwrap_or_else(PoisonError::into_inner).push_str(&head);
    let kind = told.kind.load(Ordering::Acquire);
    // A caller that hung up needs no answer.
    let _ = stream.write_all(response(kind, &head, &token).as_bytes()).await;
    told.answered.fetch_add(1, Ordering::AcqRel);
}

fn response(kind: usize, head: &str, token: &str) -> String {
    let json = serde_json::to_string(head).expect("a text");
    let record = format!("{{\"id\":\"1\",\"attributes\":{{\"{token}\":1,\"{token}\":{json}}}}}");
    let (status, body, more) = match kind {
        0 => ("401 Unauthorized", format!("{{\"errors\":[{{\"title\":{json}}}]}}"), format!("www-authenticate: {token}\r\n")),
        1 => ("500 Internal Server Error", head.to_owned(), format!("retry-after: {token}\r\n")),
        2 => ("302 Found", head.to_owned(), format!("location: http://127.0.0.1:1/{token}\r\n")),
        3 => ("200 OK", format!("<html>{head}</html>"), String::new()),
        4 => ("400 Bad Request", format!("{{\"errors\":[{{\"title\":{json}}}]}}"), String::new()),
        // Two keys alike and no usable relation: set aside, with a reason.
        5 => ("200 OK", format!("{{\"data\":[{record}],\"links\":{{\"next\":{json}}}}}"), format!("date: {token}\r\n")),
        // It breaks off.
        6 => ("200 OK", head.to_owned(), "content-length: 1000000\r\n".to_owned()),
        7 => ("403 Forbidden", format!("{{\"errors\":[{{\"code\":{json}}}]}}"), format!("x-ratelimit-reset: {token}\r\n")),
        _ => ("429 Too Many Requests", head.to_owned(), format!("retry-after: 1\r\nx-ratelimit-reset: {token}\r\n")),
    };
    let length = if more.starts_with("content-length") { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    format!("HTTP/1.1 {status}\r\nconnection: close\r\nx-echo: {token}\r\nset-cookie: token={token}\r\n{more}{length}\r\n{body}")
}
