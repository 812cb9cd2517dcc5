//! Verbs that ask the running daemon: one request to its admin socket.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::actors::status::TOKEN_FILE;
use crate::config::{Config, Listener, state_directory};
use crate::http::admin::Token;

/// Longest time for an answer; registering two dozen webhooks within an upstream's limits takes a while.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Why the daemon did not answer as asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// No daemon is there.
    #[error("no daemon answers at {address}: {reason}\nstart one with `instep run`")]
    Absent {
        /// Where it was looked for.
        address: String,
        /// What the connection said.
        reason: String,
    },
    /// It refused.
    #[error("{0}")]
    Refused(String),
    /// The token cannot be read.
    #[error("the control token cannot be read: {0}; run this as the daemon's user, with the same state directory")]
    Token(String),
}

impl Error {
    /// Whether the same question may be answered in a moment: nobody is there, or not able to now.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Absent { .. } => true,
            Self::Refused(reason) => reason.starts_with("the daemon answered 503"),
            Self::Token(_) => false,
        }
    }
}

/// Reads from the admin socket.
pub(super) async fn get(config: &Config, path: &str) -> Result<Value, Error> {
    send(config, reqwest::Method::GET, path, None).await
}

/// Has the daemon do something.
pub(super) async fn control(config: &Config, verb: &str, request: &Value) -> Result<Value, Error> {
    send(config, reqwest::Method::POST, &format!("/control/{verb}"), Some(request.to_string())).await
}

async fn send(config: &Config, method: reqwest::Method, path: &str, body: Option<String>) -> Result<Value, Error> {
    // An error only says that the provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let address = match &config.listen.admin.address {
        Listener::Tcp(address) => address.to_string(),
        Listener::Systemd(_) => "127.0.0.1:8711".to_owned(),
    };
    let absent = |error: reqwest::Error| Error::Absent { address: address.clone(), reason: innermost(&error) };
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().map_err(absent)?;
    let mut request = client.request(method, format!("http://{address}{path}"));
    if body.is_some() || !config.listen.admin.token.0.is_empty() {
        request = request.bearer_auth(token(config, &state_directory())?);
    }
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body);
    }
    let answer = request.send().await.map_err(absent)?;
    let is_good = answer.status().is_success();
    let status = answer.status();
    let text = answer.text().await.map_err(absent)?;
    let value: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
    if is_good {
        return Ok(value);
    }
    let reason = value.get("error").and_then(Value::as_str).map_or_else(|| value.to_string(), ToOwned::to_owned);
    Err(Error::Refused(format!("the daemon answered {status}: {reason}")))
}

fn token(config: &Config, state: &Path) -> Result<String, Error> {
    let configured = config.listen.admin.token.read().map_err(|error| Error::Token(error.to_string()))?;
    if let Some(text) = configured.first() {
        return Ok(text.expose().to_owned());
    }
    let token = Token::read(&state.join(TOKEN_FILE)).map_err(|error| Error::Token(error.to_string()))?;
    Ok(token.expose().to_owned())
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
