//! A way between daemon and upstream that puts bytes into answers which no JSON library would write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What stands in for a record's value: a JSON string of this name becomes these bytes.
pub(crate) type Values = Vec<(String, Vec<u8>)>;

/// A running one; it ends when this is dropped.
pub(crate) struct Splice {
    /// What the daemon is given instead of the upstream's address.
    pub(crate) url: String,
    refuses_bulk: Arc<AtomicBool>,
    _serving: JoinSet<()>,
}

struct Way {
    /// Scheme, host and port of the upstream.
    origin: String,
    client: reqwest::Client,
    values: Values,
    refuses_bulk: Arc<AtomicBool>,
}

impl Splice {
    /// Stands before the upstream of this address.
    pub(crate) async fn start(upstream: &str, values: Values) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let own = format!("http://{}", listener.local_addr().expect("bound"));
        let origin = url::Url::parse(upstream).expect("an address").origin().ascii_serialization();
        let refuses_bulk = Arc::new(AtomicBool::new(false));
        let client = super::universe::client();
        let way = Arc::new(Way { origin: origin.clone(), client, values, refuses_bulk: Arc::clone(&refuses_bulk) });
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let way = Arc::clone(&way);
                connections.spawn(async move {
                    // The daemon asks again where a connection breaks.
                    let _ = way.answer(stream).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { url: upstream.replace(&origin, &own), refuses_bulk, _serving: serving }
    }

    /// From now on many records cannot be asked for at once, so that each is read by its key.
    pub(crate) fn refuse_bulk(&self) {
        self.refuses_bulk.store(true, Ordering::Release);
    }
}

impl Way {
    async fn answer(&self, mut stream: TcpStream) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8(head)?;
        let mut lines = head.lines();
        let path = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
        let is_bulk = path.contains("filter%5Bid%5D=");
        let (status, kind, body) = if is_bulk && self.refuses_bulk.load(Ordering::Acquire) {
            (400, "application/json".to_owned(), br#"{"errors":[{"title":"Unsupported filter"}]}"#.to_vec())
        } else {
            let mut request = self.client.get(format!("{}{path}", self.origin));
            for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
                if !name.eq_ignore_ascii_case("host") && !name.eq_ignore_ascii_case("accept-encoding") {
                    request = request.header(name, value);
                }
            }
            let answer = request.send().await?;
            let kind = answer.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
            (answer.status().as_u16(), kind, self.spliced(&answer.bytes().await?))
        };
        let head =
            format!("HTTP/1.1 {status} answered\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&body).await?;
        Ok(stream.shutdown().await?)
    }

    fn spliced(&self, body: &[u8]) -> Vec<u8> {
        // The upstream itself writes JSON, so it is text; and what stands in for a value is looked for in that alone.
        let text = String::from_utf8_lossy(body);
        let found = self.values.iter().flat_map(|(name, value)| {
            let quoted = format!("\"{name}\"");
            let places: Vec<_> = text.match_indices(&quoted).map(|(at, found)| (at, found.len(), value)).collect();
            places
        });
        let mut found: Vec<_> = found.collect();
        found.sort_unstable();
        let (mut spliced, mut end) = (Vec::new(), 0);
        for (at, length, value) in found {
            spliced.extend_from_slice(&text.as_bytes()[end..at]);
            spliced.extend_from_slice(value);
            end = at + length;
        }
        spliced.extend_from_slice(&text.as_bytes()[end..]);
        spliced
    }
}
