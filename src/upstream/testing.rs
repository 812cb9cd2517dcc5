//! A small upstream on loopback that notes what it is asked and answers as it is told.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;
use url::Url;

/// Bytes of an answer, and whether the connection stays open in silence after them.
pub(crate) type Told = (Vec<u8>, bool);

pub(crate) struct Fake {
    pub(crate) url: Url,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    /// Answers every request, head and body, by `answer`, one request a connection.
    pub(crate) async fn start(answer: impl Fn(&str) -> Told + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let url = format!("http://127.0.0.1:{port}/").parse().expect("a URL");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (notes, answer, tasks) = (Arc::clone(&asked), Arc::new(answer), TaskTracker::new());
        let connections = tasks.clone();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (notes, answer) = (Arc::clone(&notes), Arc::clone(&answer));
                connections.spawn(async move { serve(stream, &notes, &*answer).await });
            }
        });
        Self { url, asked }
    }

    /// All requests so far, head and body.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(mut stream: TcpStream, notes: &Mutex<Vec<String>>, answer: &(dyn Fn(&str) -> Told + Send + Sync)) {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let text = String::from_utf8_lossy(&head).to_lowercase();
    let length = text.split("\r\ncontent-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    if stream.read_exact(&mut body).await.is_err() {
        return;
    }
    head.extend(body);
    let head = String::from_utf8_lossy(&head).into_owned();
    let (bytes, stays) = answer(&head);
    notes.lock().unwrap_or_else(PoisonError::into_inner).push(head);
    // A client that has given up is no fault of this server.
    let _ = stream.write_all(&bytes).await;
    if stays {
        std::future::pending::<()>().await;
    }
    let _ = stream.shutdown().await;
}

/// A complete answer with a body.
pub(crate) fn answer(status: u16, body: &str) -> Told {
    let head = format!("HTTP/1.1 {status} Said\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    ((head + body).into_bytes(), false)
}
