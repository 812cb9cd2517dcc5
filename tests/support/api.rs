//! The API socket of a universe's daemon, and applications that ask it.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::process::free_port;
use super::{Database, Setup, Universe};

/// May do everything with the first source; unlike any other text, so that it is found wherever it leaks.
pub(crate) const PORTAL: &str = "canary/portal+6c1f93de07b24a58b1d4/?=";
/// May read everything.
pub(crate) const REPORTS: &str = "canary/reports+2e80b75ca91d4f36a0c7/?=";

/// Where the applications ask.
pub(crate) struct Api {
    port: u16,
    client: reqwest::Client,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Api {
    /// Starts a universe whose daemon has the socket, and waits until every record is there.
    pub(crate) async fn started(database: Database, setup: &Setup) -> (Universe, Self) {
        let mut universe = Universe::new(database, setup);
        let api = Self::beside(&universe);
        universe.run().await;
        universe.backfilled().await;
        (universe, api)
    }

    /// Adds the socket to a configuration whose daemon has not been started.
    pub(crate) fn beside(universe: &Universe) -> Self {
        let port = free_port();
        let (portal, reports) = (universe.secret("portal-token", PORTAL), universe.secret("reports-token", REPORTS));
        let config = std::fs::read_to_string(universe.config()).expect("it was written");
        let source = config.split("[sources.").nth(1).and_then(|rest| rest.split(']').next()).expect("a source");
        let table = format!(
            "[listen.api]\naddress = \"127.0.0.1:{port}\"\ntokens = [\n  \
             {{ name = \"portal\", token = {portal}, scopes = [\"read\", \"refresh\"], sources = [{source:?}] }},\n  \
             {{ name = \"reports\", token = {reports} }},\n]\n"
        );
        std::fs::write(universe.config(), config.replacen("[sources.", &format!("{table}[sources."), 1)).expect("our own folder");
        Self { port, client: universe.client.clone() }
    }

    /// Where a path is.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The path of a task.
    pub(crate) fn task(key: &str) -> String {
        format!("/v1/pmp/tasks/{key}")
    }

    /// Asks as the portal.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(self.client.get(self.url(path)).bearer_auth(PORTAL)).await
    }

    /// Posts as the portal.
    pub(crate) async fn post(&self, path: &str) -> Answer {
        self.ask(self.client.post(self.url(path)).bearer_auth(PORTAL)).await
    }

    /// Asks anything.
    pub(crate) async fn ask(&self, request: reqwest::RequestBuilder) -> Answer {
        let answer = request.timeout(Duration::from_secs(30)).send().await.expect("the API answers");
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = answer.bytes().await.expect("a body");
        Answer { status, headers, body: serde_json::from_slice(&body).unwrap_or(Value::Null) }
    }

    /// Posts so often as the portal, all on connections that stand already, so that nothing but the daemon keeps them apart. The
    /// statuses and bodies.
    pub(crate) async fn post_at_once(&self, path: &str, times: usize) -> Vec<(u16, Value)> {
        let mut connections = Vec::new();
        for _ in 0..times {
            connections.push(TcpStream::connect(("127.0.0.1", self.port)).await.expect("connected"));
        }
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: api\r\nauthorization: Bearer {PORTAL}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        for connection in &mut connections {
            connection.write_all(request.as_bytes()).await.expect("sent");
        }
        let mut answers = Vec::new();
        for mut connection in connections {
            let mut text = String::new();
            connection.read_to_string(&mut text).await.expect("an answer");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
            answers.push((status, serde_json::from_str(body).expect("JSON")));
        }
        answers
    }
}
