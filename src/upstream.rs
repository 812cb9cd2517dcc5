//! Executes a connector's requests: credential, origin check, size cap, deadlines.
//!
//! Requests go to the configured origin only, whatever an upstream's answer says; redirects are not followed and the client's own
//! retries are off, so one call is one wire attempt. Nothing here retries: the actors do, by rows.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use tokio::sync::{Semaphore, SemaphorePermit};
use url::Url;

use crate::connectors::{Connector, Credential, Login, Request, Response, Session};
use crate::quota::headers;

mod public;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use public::{Answer as PublicAnswer, PublicUrl};

/// Why there is no complete answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No connection (refused, name not found, TLS failed): the upstream saw nothing.
    #[error("no connection to the upstream: {0}")]
    Connect(String),
    /// The deadline passed; the upstream may still be working on it.
    #[error("no complete answer within {0:?}")]
    Timeout(Duration),
    /// The connection broke before the answer began; the upstream may still be working on it.
    #[error("no answer came: {0}")]
    Interrupted(String),
    /// The connection broke within the answer.
    #[error("the answer broke off: {0}")]
    BrokenOff(String),
    /// The answer is larger than the cap.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(u64),
    /// The credential could not be read.
    #[error("the credential could not be read: {0}")]
    Credential(String),
    /// The connector asked for something it may not: a foreign origin or an undeclared write. A bug, stopped here.
    #[error("refused to send: {0}")]
    Forbidden(&'static str),
}

impl SendError {
    /// How far the request came.
    #[must_use]
    pub fn reach(&self) -> Reach {
        match self {
            Self::Connect(_) | Self::Credential(_) | Self::Forbidden(_) => Reach::Nobody,
            Self::Timeout(_) | Self::Interrupted(_) => Reach::Unknown,
            Self::BrokenOff(_) | Self::TooLarge(_) => Reach::Answered,
        }
    }

    /// A short, constant name for metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Timeout(_) => "timeout",
            Self::Interrupted(_) => "interrupted",
            Self::BrokenOff(_) => "broken_off",
            Self::TooLarge(_) => "too_large",
            Self::Credential(_) => "credential",
            Self::Forbidden(_) => "forbidden",
        }
    }
}

/// How far a request came that has no complete answer: what it costs of the quota, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// To nobody: the upstream has counted nothing.
    Nobody,
    /// The upstream may count it yet, and may still be working on it.
    Unknown,
    /// Its answer has begun: it is counted by now, and with the connection the work on it has ended.
    Answered,
}

/// Reads a credential anew for every request, so that a rotated file is picked up.
pub type Credentials = Arc<dyn Fn(Credential) -> Result<String, String> + Send + Sync>;

/// Bounds of one upstream.
#[derive(Clone, Debug)]
pub struct Options {
    /// Root that every URL must share its origin with.
    pub root: Url,
    /// Further roots whose origins may be asked: parts of the upstream that are configured to be elsewhere.
    pub also: Vec<Url>,
    /// Largest answer in bytes, as it is once it was decoded.
    pub response_max: u64,
    /// Bytes of answers in memory at once, over all sources.
    pub responses_in_flight: ByteBudget,
    /// Time for connecting.
    pub connect_timeout: Duration,
    /// Time for a complete answer.
    pub timeout: Duration,
}

/// One upstream's HTTP client.
#[derive(Clone)]
pub struct Upstream {
    client: reqwest::Client,
    options: Arc<Options>,
    credentials: Credentials,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("root", &self.options.root.as_str()).finish_non_exhaustive()
    }
}

/// The byte budget is counted in units of 16 KiB, as a semaphore holds no more than some hundred million permits.
const BUDGET_UNIT: u64 = 16 * 1024;

/// A budget for bytes of answers in memory, shared by all sources.
#[derive(Clone, Debug)]
pub struct ByteBudget {
    units: Arc<Semaphore>,
    total: u32,
}

impl ByteBudget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let total = units(bytes);
        Self { units: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// Waits until `held` is room for so many bytes. More than the whole budget is cut to it, or it would wait for ever.
    ///
    /// Room is taken as bytes arrive and not beforehand: an upstream that answers nothing must not keep the others' answers out.
    async fn grow<'a>(&'a self, held: &mut Option<SemaphorePermit<'a>>, bytes: u64) -> Result<(), SendError> {
        let has = held.as_ref().map_or(0, |room| u32::try_from(room.num_permits()).unwrap_or(u32::MAX));
        let wanted = units(bytes).min(self.total).saturating_sub(has);
        if wanted == 0 {
            return Ok(());
        }
        let more = self.units.acquire_many(wanted).await.map_err(|_| SendError::Forbidden("the byte budget is closed"))?;
        match held {
            Some(room) => room.merge(more),
            None => *held = Some(more),
        }
        Ok(())
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(BUDGET_UNIT)).unwrap_or(u32::MAX / 8).clamp(1, u32::MAX / 8)
}

impl Upstream {
    /// Builds the client. The process-wide TLS provider is installed here if nobody did.
    ///
    /// # Errors
    /// When the platform's certificates cannot be used.
    pub fn new(options: Options, credentials: Credentials) -> Result<Self, String> {
        // An error only says that another source was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(options.connect_timeout)
            .user_agent(concat!("instep/", env!("CARGO_PKG_VERSION")))
            .pool_max_idle_per_host(8)
            .http1_only()
            // Some upstreams refuse whoever does not take it. What counts below is what comes out of it.
            .gzip(true)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { client, options: Arc::new(options), credentials })
    }

    /// The time that a complete answer may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.options.timeout
    }

    /// Sends one request, once, and reads the answer whole. It is authorised by the session's token, or without a session by the
    /// credential that it names.
    ///
    /// # Errors
    /// [`SendError`] where there is no complete answer; an answer of any status is no error here.
    pub async fn send(&self, connector: &dyn Connector, session: Option<&Session>, request: &Request) -> Result<Response, SendError> {
        let authorization = match session {
            Some(session) => connector.authorize(request, &session.token),
            None => connector.authorize(request, &self.credential(request.credential)?),
        };
        let mut builder = self.builder(request)?;
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        self.complete(builder, authorization, request.body.clone()).await
    }

    /// The text of a credential as it is now.
    ///
    /// # Errors
    /// [`SendError::Credential`].
    pub fn credential(&self, which: Credential) -> Result<String, SendError> {
        (self.credentials)(which).map_err(SendError::Credential)
    }

    /// Asks for a session, once.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn log_in(&self, Login(request): &Login) -> Result<Response, SendError> {
        let builder = self.builder(request)?;
        self.complete(builder, request.headers.clone(), request.body.clone()).await
    }

    fn builder(&self, request: &Request) -> Result<reqwest::RequestBuilder, SendError> {
        Ok(self.client.request(request.method.clone(), self.checked(request)?))
    }

    async fn complete(
        &self,
        mut builder: reqwest::RequestBuilder,
        secret_headers: Vec<(String, String)>,
        body: Option<Bytes>,
    ) -> Result<Response, SendError> {
        for (name, value) in secret_headers {
            let unusable = |_| SendError::Credential("it holds a character that no header can carry".to_owned());
            let mut value = http::HeaderValue::try_from(value).map_err(unusable)?;
            // Whoever prints the request prints `Sensitive` in its place.
            value.set_sensitive(true);
            builder = builder.header(name, value);
        }
        if let Some(body) = body {
            builder = builder.body(body);
        }
        match tokio::time::timeout(self.options.timeout, self.exchange(builder)).await {
            Ok(result) => result,
            Err(_) => Err(SendError::Timeout(self.options.timeout)),
        }
    }

    fn checked(&self, request: &Request) -> Result<Url, SendError> {
        if !matches!(request.method, http::Method::GET | http::Method::HEAD) && !request.declared_write {
            return Err(SendError::Forbidden("a write that the connector does not declare"));
        }
        let url = Url::parse(&request.url).map_err(|_| SendError::Forbidden("the address is not a URL"))?;
        let mut roots = std::iter::once(&self.options.root).chain(&self.options.also);
        if !roots.any(|root| url.origin() == root.origin()) || !url.username().is_empty() || url.password().is_some() {
            return Err(SendError::Forbidden("an address outside the configured origin"));
        }
        // What has to be set right before it can be sent, two readers may read differently: backslashes, line ends, dot segments.
        if url.as_str() != request.url || url.fragment().is_some() {
            return Err(SendError::Forbidden("an address that is not in its normal form"));
        }
        Ok(url)
    }

    async fn exchange(&self, builder: reqwest::RequestBuilder) -> Result<Response, SendError> {
        let answer = builder.send().await.map_err(|error| classify(&error))?;
        let status = answer.status().as_u16();
        let headers: Vec<(String, String)> = answer
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let date = headers.iter().find(|(name, _)| name == "date").and_then(|(_, value)| headers::http_date(value));
        let body = self.body(answer).await?;
        Ok(Response { status, headers, body, date })
    }

    async fn body(&self, answer: reqwest::Response) -> Result<Bytes, SendError> {
        let max = self.options.response_max;
        if answer.content_length().is_some_and(|length| length > max) {
            return Err(SendError::TooLarge(max));
        }
        let (mut body, mut room) = (BytesMut::new(), None);
        let mut chunks = answer.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| SendError::BrokenOff(chain(&error)))?;
            if (body.len() + chunk.len()) as u64 > max {
                return Err(SendError::TooLarge(max));
            }
            self.options.responses_in_flight.grow(&mut room, (body.len() + chunk.len()) as u64).await?;
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }
}

fn classify(error: &reqwest::Error) -> SendError {
    if error.is_connect() { SendError::Connect(chain(error)) } else { SendError::Interrupted(chain(error)) }
}

/// The innermost reasons, without the URL: it may carry keys.
fn chain(error: &reqwest::Error) -> String {
    let mut reasons = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        reasons.push(inner.to_string());
        source = inner.source();
    }
    reasons.last().cloned().unwrap_or_else(|| "unknown".to_owned())
}
