//! What the API socket is answered. Not an actor: it runs inside its requests.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::PlanError;
use super::history;
use super::refresh::Sought;
use super::source::Source;
use crate::config::{self, ApiScope};
use crate::http::BoxFuture;
use crate::http::admin::Token;
use crate::http::api::{Answer, Asked, Client, Replica, Scope, What};
use crate::model::{Entity, Version};
use crate::store::{self, StoredRow};

/// When to ask again while the store is away.
const STORE_RETRY: Duration = Duration::from_secs(2);

/// Answers the API socket.
#[derive(Debug)]
pub struct Counter {
    /// The sources of this process.
    pub(super) sources: Vec<Arc<Source>>,
    /// How long a caller waits who does not say.
    pub(super) timeout: Duration,
}

/// Who may ask, with the tokens as they stand now.
///
/// # Errors
/// When a token cannot be read, or is none.
pub fn clients(configured: &config::Api) -> Result<Vec<Client>, PlanError> {
    let client = |one: &config::ApiToken| {
        let wrong = |error: &dyn std::fmt::Display| PlanError::Token(format!("the API token `{}`: {error}", one.name));
        let texts = one.token.read().map_err(|error| wrong(&error))?;
        let tokens = texts.iter().map(|text| Token::from_text(text.expose()));
        let tokens = tokens.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(&error))?;
        let scopes = one.scopes.iter().map(|scope| match scope {
            ApiScope::Read => Scope::Read,
            ApiScope::Refresh => Scope::Refresh,
        });
        Ok(Client { tokens, scopes: scopes.collect(), sources: one.sources.clone() })
    };
    configured.tokens.iter().map(client).collect()
}

impl Replica for Counter {
    fn answer(&self, asked: Asked) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            let Some(source) = self.sources.iter().find(|source| source.name.as_str() == asked.source) else {
                return refusal(404, &format!("there is no source `{}`", asked.source));
            };
            source.answer(&asked, self.timeout).await
        })
    }
}

impl Source {
    /// Answers what is asked of one record of this source.
    pub(super) async fn answer(&self, asked: &Asked, timeout: Duration) -> Answer {
        let entity = match self.entity(&asked.resource, &asked.key) {
            Ok(entity) => entity,
            Err(why) => return refusal(if self.has_resource(&asked.resource) { 400 } else { 404 }, &why),
        };
        match self.look_up(&entity, &asked.what, timeout).await {
            Ok(answer) => answer,
            Err(error) => Answer { retry_after: Some(STORE_RETRY), ..refusal(503, &format!("the store is away: {error}")) },
        }
    }

    async fn look_up(&self, entity: &Entity, what: &What, default: Duration) -> Result<Answer, store::Error> {
        match what {
            What::Row => {
                let row = self.store.stored_row(&self.name, entity).await?;
                Ok(self.shown(entity, row, None))
            }
            What::Fresh { max_age, timeout } => {
                let sought = self.fresh(entity, *max_age, timeout.unwrap_or(default)).await?;
                let Sought { row, is_met, why, refused } = sought;
                let shown = self.shown(entity, row, why.filter(|_| !is_met));
                Ok(Answer { retry_after: refused, ..shown })
            }
            What::Refresh { max_age, timeout } => {
                let sought = self.fresh(entity, *max_age, timeout.unwrap_or(default)).await?;
                Ok(self.unless_met(entity, sought))
            }
            What::Version { version, timeout } => Ok(match self.in_version(entity, version, timeout.unwrap_or(default)).await? {
                Ok(sought) => self.unless_met(entity, sought),
                Err(why) => refusal(400, &why),
            }),
            What::History { limit } => Ok(match history::limit(limit.as_deref()) {
                Ok(limit) => Answer { status: 200, body: self.history(entity, limit).await?.to_string(), ..Answer::default() },
                Err(why) => refusal(400, &why),
            }),
        }
    }

    /// What was demanded, or the row as it is held with a status that says it is not that.
    fn unless_met(&self, entity: &Entity, sought: Sought) -> Answer {
        let Sought { row, is_met, why, refused } = sought;
        if is_met {
            return self.shown(entity, row, None);
        }
        let status = if refused.is_some() { 429 } else { 504 };
        Answer { status, retry_after: refused, ..self.shown(entity, row, why) }
    }

    fn has_resource(&self, resource: &str) -> bool {
        self.connector.resources().iter().any(|spec| spec.name.as_str() == resource)
    }

    /// The row as it is held; `why` says why it is older than was asked for.
    fn shown(&self, entity: &Entity, row: Option<StoredRow>, why: Option<String>) -> Answer {
        let is_stale = why.is_some();
        let (source, resource, key) = (self.name.as_str(), entity.resource.as_str(), entity.key.as_str());
        let Some(row) = row else {
            let error = format!("no {resource} `{key}` is held");
            let body = json!({ "error": error, "source": source, "resource": resource, "key": key, "stale": is_stale, "why": why });
            return Answer { status: 404, body: body.to_string(), is_stale, ..Answer::default() };
        };
        let payload = row.payload.as_deref().filter(|_| row.deleted_at.is_none());
        let shown = Shown {
            source,
            resource,
            key,
            version: row.version.as_ref().map(Version::text),
            deleted: row.deleted_at.is_some(),
            deleted_at: row.deleted_at.map(|at| at.to_string()),
            deleted_reason: row.deleted_reason.as_deref(),
            as_of: row.compared_at.map(|at| at.to_string()),
            age_s: row.compared_at.map(|at| self.clock.now().since(at).as_secs_f64()),
            change: row.last_change,
            stale: is_stale,
            why,
            payload: payload.and_then(|text| serde_json::from_str(text).ok()),
        };
        // Only texts, numbers and what is JSON already: nothing of it can fail.
        let body = serde_json::to_string(&shown).unwrap_or_default();
        // A tombstone without a change stands for what was looked for and never held.
        let status = match (shown.deleted, row.last_change) {
            (false, _) => 200,
            (true, 0) => 404,
            (true, _) => 410,
        };
        Answer { status, body, tag: tag(&row), is_stale, ..Answer::default() }
    }
}

/// Names the state of a live row.
fn tag(row: &StoredRow) -> Option<String> {
    let hash = row.hash.as_ref().filter(|_| row.deleted_at.is_none())?;
    let hex: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Some(row.version.as_ref().map_or_else(|| hex.clone(), |version| format!("{hex}-{}", version.text())))
}

#[derive(Serialize)]
struct Shown<'a> {
    source: &'a str,
    resource: &'a str,
    key: &'a str,
    version: Option<String>,
    deleted: bool,
    deleted_at: Option<String>,
    deleted_reason: Option<&'a str>,
    /// When it was last compared with the upstream, and how long ago that is.
    as_of: Option<String>,
    age_s: Option<f64>,
    /// Number of its last change.
    change: i64,
    /// Older than was asked for, and why.
    stale: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// As the store holds it, number by number.
    payload: Option<&'a RawValue>,
}

fn refusal(status: u16, why: &str) -> Answer {
    Answer { status, body: json!({ "error": why }).to_string(), ..Answer::default() }
}
