//! A proxy before a fake upstream that does to its answers what upstreams do on bad days, and notes when it was asked.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use instep::clock::{Clock, Timestamp};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::monotonic;

/// What happens to requests.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// A status, with this `Retry-After`.
    Status(u16, Option<String>),
    /// 429 until an instant so many seconds ahead, told as an HTTP date.
    RefusedUntil(u64),
    /// Nobody listens.
    Gone,
    /// A head, then silence.
    Hang,
    /// One byte a second.
    Drip,
    /// The connection ends before the body does.
    Cut,
    /// The stated length is shorter than the body.
    WrongLength,
    /// Another body than was asked for, and its type.
    Body(&'static str, &'static str),
    /// Every page of a list leads to one of two pages.
    Circle,
    /// Every page of a list but the last loses its last record, as when the list moves up by one meanwhile.
    Shift,
    /// Cursors have expired.
    CursorExpired,
}

/// What one proxy knows.
#[derive(Debug, Default)]
struct Notes {
    fault: Option<Fault>,
    /// When it was asked during the fault, and for what.
    asked: Vec<(Duration, String)>,
}

/// A proxy on a port of its own.
#[derive(Debug)]
pub(crate) struct Hostile {
    pub(crate) url: String,
    port: u16,
    upstream: u16,
    notes: Arc<Mutex<Notes>>,
    open: Mutex<CancellationToken>,
    tasks: TaskTracker,
}

/// Pages are made this small, so that few records are many pages.
const PAGE: &str = "page%5Bsize%5D=20";

impl Hostile {
    /// A proxy before the upstream at `url`.
    pub(crate) async fn before(url: &str) -> Self {
        let upstream = url::Url::parse(url).ok().and_then(|url| url.port()).expect("an upstream has a port");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let (notes, tasks, open) = (Arc::default(), TaskTracker::new(), Mutex::default());
        let hostile = Self { url: format!("http://127.0.0.1:{port}/api/v2/"), port, upstream, notes, open, tasks };
        hostile.listen(listener);
        hostile
    }

    fn listen(&self, listener: TcpListener) {
        let open = CancellationToken::new();
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = open.clone();
        let (notes, upstream, tasks) = (Arc::clone(&self.notes), self.upstream, self.tasks.clone());
        self.tasks.spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = open.cancelled() => return,
                };
                let Ok((stream, _)) = accepted else { return };
                let notes = Arc::clone(&notes);
                // A client that has given up is no fault of this server.
                tasks.spawn(async move { drop(serve(stream, upstream, &notes).await) });
            }
        });
    }

    /// The fault begins.
    pub(crate) fn begin(&self, fault: &Fault) {
        if matches!(fault, Fault::Gone) {
            self.open.lock().unwrap_or_else(PoisonError::into_inner).cancel();
        }
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        (notes.fault, notes.asked) = (Some(fault.clone()), Vec::new());
    }

    /// When it was asked since the fault began.
    pub(crate) fn asked(&self) -> Vec<(Duration, String)> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).asked.clone()
    }

    /// The fault ends; when it was asked meanwhile, and for what.
    pub(crate) async fn end(&self) -> Vec<(Duration, String)> {
        let asked = {
            let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
            notes.fault = None;
            std::mem::take(&mut notes.asked)
        };
        if self.open.lock().unwrap_or_else(PoisonError::into_inner).is_cancelled() {
            let port = self.port;
            let listener = super::eventually("the port is free", Duration::from_secs(10), async || {
                TcpListener::bind(("127.0.0.1", port)).await.map_err(|error| error.to_string())
            });
            self.listen(listener.await);
        }
        asked
    }
}

async fn serve(mut client: TcpStream, upstream: u16, notes: &Mutex<Notes>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
        if head[0] == 0x16 {
            // A handshake, which a server without TLS takes for a bad request.
            return answer(&mut client, "HTTP/1.1 400 Bad Request\r\n", b"").await;
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let fault = {
        let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.fault.is_some() {
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            notes.asked.push((monotonic(), target));
        }
        notes.fault.clone()
    };
    match fault {
        None | Some(Fault::Gone) => {
            let (answered, body) = forward(&head, upstream).await?;
            answer(&mut client, &answered, &body).await
        }
        Some(fault) => disturb(&mut client, &fault, &head, upstream).await,
    }
}

async fn disturb(client: &mut TcpStream, fault: &Fault, head: &str, upstream: u16) -> std::io::Result<()> {
    match fault {
        Fault::Status(status, wait) => {
            let wait = wait.as_ref().map_or_else(String::new, |wait| format!("retry-after: {wait}\r\n"));
            answer(client, &format!("HTTP/1.1 {status} Said\r\n{wait}"), b"{}").await
        }
        Fault::RefusedUntil(seconds) => {
            let date = http_date(Clock::system().now().plus(Duration::from_secs(*seconds)));
            answer(client, &format!("HTTP/1.1 429 Said\r\nretry-after: {date}\r\n"), b"{}").await
        }
        Fault::Hang => {
            client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n").await?;
            gone(client).await
        }
        Fault::Drip => {
            let mut pace = tokio::time::interval(Duration::from_secs(1));
            for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 3600\r\n\r\n" {
                pace.tick().await;
                client.write_all(&[*byte]).await?;
            }
            gone(client).await
        }
        Fault::Cut => {
            let (answered, body) = forward(head, upstream).await?;
            let text = format!("{answered}content-length: {}\r\n\r\n", body.len());
            client.write_all(text.as_bytes()).await?;
            client.write_all(&body[..body.len() / 2]).await?;
            client.shutdown().await
        }
        Fault::WrongLength => {
            let (answered, body) = forward(head, upstream).await?;
            client.write_all(format!("{answered}content-length: {}\r\n\r\n", body.len() / 2).as_bytes()).await?;
            client.write_all(&body).await?;
            client.shutdown().await
        }
        Fault::Body(kind, body) => answer(client, &format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n"), body.as_bytes()).await,
        Fault::CursorExpired if head.contains("page%5Bafter%5D=") && !head.contains("page%5Bafter%5D=&") => {
            let error = json!({ "errors": [{ "status": 400, "code": "keyset_invalid_cursor", "title": "the cursor has expired" }] });
            answer(client, "HTTP/1.1 400 Bad Request\r\n", error.to_string().as_bytes()).await
        }
        Fault::Circle | Fault::Shift | Fault::CursorExpired | Fault::Gone => {
            let (answered, body) = forward(head, upstream).await?;
            let body = match serde_json::from_slice::<Value>(&body) {
                Ok(page) => twist(fault, head, page).to_string().into_bytes(),
                Err(_) => body,
            };
            answer(client, &answered, &body).await
        }
    }
}

/// A page as the fault shows it.
fn twist(fault: &Fault, head: &str, mut page: Value) -> Value {
    let Some(next) = page["links"]["next"].as_str().map(ToOwned::to_owned) else { return page };
    match fault {
        // The first page leads on, the second back to itself by way of the third: a circle longer than one.
        Fault::Circle if page["data"].is_array() => {
            let parameter = if next.contains("page%5Bnumber%5D") { "page[number]" } else { "page[after]" };
            let other = head.contains("=circle") || head.contains("=11&");
            let name = if parameter == "page[number]" {
                if other { "12" } else { "11" }
            } else if other {
                "round"
            } else {
                "circle"
            };
            page["links"]["next"] = format!("http://circle.invalid/?{parameter}={name}").into();
        }
        Fault::Shift => {
            if let Some(records) = page["data"].as_array_mut() {
                records.pop();
            }
        }
        _ => {}
    }
    page
}

/// Until the client hangs up.
async fn gone(client: &mut TcpStream) -> std::io::Result<()> {
    let mut rest = [0; 64];
    while client.read(&mut rest).await? > 0 {}
    Ok(())
}

/// Status line and headers that matter, with their ends, and the body of the upstream's own answer.
async fn forward(head: &str, upstream: u16) -> std::io::Result<(String, Vec<u8>)> {
    let mut stream = TcpStream::connect(("127.0.0.1", upstream)).await?;
    // Every source of a test has an organisation of its own, and so a quota; the upstream has one.
    let mut asked = String::new();
    for line in head.trim_end().lines() {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        match name.as_str() {
            "x-organization-id" => asked.push_str("x-organization-id: 435\r\n"),
            "connection" => {}
            _ => asked.push_str(&format!("{line}\r\n")),
        }
    }
    // The pages of a circle exist as little as the addresses they are under.
    let asked =
        ["circle", "round"].iter().fold(asked, |asked, name| asked.replace(&format!("page%5Bafter%5D={name}&"), "page%5Bafter%5D=&"));
    let asked = asked.replace("page%5Bsize%5D=200", PAGE);
    stream.write_all(format!("{asked}connection: close\r\n\r\n").as_bytes()).await?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    let end = bytes.windows(4).position(|end| end == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
    let body = bytes.split_off(end);
    let said = String::from_utf8_lossy(&bytes).into_owned();
    let kept = |line: &&str| {
        let line = line.to_ascii_lowercase();
        line.starts_with("http/") || line.starts_with("date:") || line.starts_with("content-type:") || line.starts_with("retry-after:")
    };
    let lines: Vec<&str> = said.trim_end().lines().filter(kept).collect();
    Ok((format!("{}\r\n", lines.join("\r\n")), body))
}

/// One answer a connection.
async fn answer(client: &mut TcpStream, head: &str, body: &[u8]) -> std::io::Result<()> {
    client.write_all(format!("{head}connection: close\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes()).await?;
    client.write_all(body).await?;
    client.shutdown().await
}

fn http_date(at: Timestamp) -> String {
    let instant = jiff::Timestamp::from_second(at.seconds()).expect("it is before the end of time");
    instant.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
