//! What a path and its query name.

use std::time::Duration;

use super::{Refusal, TIMEOUT_MAX, What};

/// Longest age that can be asked for; whatever is older is stale for everybody.
const AGE_MAX: Duration = Duration::from_secs(365 * 86_400);
/// How old a row may be that a refresh is asked for: one that was compared within the last second is not read again.
pub const REFRESH_AGE: Duration = Duration::from_secs(1);

/// What a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// `/v1/{source}/{resource}/{key}`.
    Row,
    /// The same with `/history`.
    History,
    /// The same with `/refresh`.
    Refresh,
}

/// Source, resource and key of a path, each decoded once.
pub(super) fn place(path: &str) -> Result<([String; 3], Action), Refusal> {
    let parts: Vec<&str> = path.strip_prefix("/v1/").ok_or(Refusal::Path)?.split('/').collect();
    let (parts, action) = match parts.as_slice() {
        [source, resource, key] => ([*source, *resource, *key], Action::Row),
        [source, resource, key, "history"] => ([*source, *resource, *key], Action::History),
        [source, resource, key, "refresh"] => ([*source, *resource, *key], Action::Refresh),
        _ => return Err(Refusal::Path),
    };
    if parts.iter().any(|part| part.is_empty()) {
        return Err(Refusal::Path);
    }
    let [source, resource, key] = parts.map(decoded);
    Ok(([source?, resource?, key?], action))
}

fn decoded(part: &str) -> Result<String, Refusal> {
    let invalid = || Refusal::Invalid("the path is not percent-encoded UTF-8".to_owned());
    let (mut bytes, mut rest) = (Vec::with_capacity(part.len()), part.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (hex, after) = rest.split_at_checked(2).ok_or_else(invalid)?;
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or_else(invalid);
        bytes.push((digit(hex[0])? * 16 + digit(hex[1])?) as u8);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| invalid())
}

/// What a query says.
#[derive(Debug, Default)]
pub(super) struct Query {
    max_age: Option<Duration>,
    wait_for: Option<String>,
    timeout: Option<Duration>,
    limit: Option<String>,
}

impl Query {
    /// Reads it; what nobody knows is a mistake, and so is what is said twice.
    pub(super) fn read(text: &str, action: Action) -> Result<Self, Refusal> {
        let mut query = Self::default();
        for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
            let is_new = match (name.as_ref(), action) {
                ("max_age", Action::Row | Action::Refresh) => query.max_age.replace(span("max_age", &value, AGE_MAX)?).is_none(),
                ("timeout", Action::Row | Action::Refresh) => query.timeout.replace(span("timeout", &value, TIMEOUT_MAX)?).is_none(),
                // A plus that was not encoded is a blank; versions hold none, and an offset begins with one.
                ("wait_for", Action::Row) => query.wait_for.replace(value.replace(' ', "+")).is_none(),
                ("limit", Action::History) => query.limit.replace(value.into_owned()).is_none(),
                _ => return Err(Refusal::Invalid(format!("`{name}` means nothing here"))),
            };
            if !is_new {
                return Err(Refusal::Invalid(format!("`{name}` is said twice")));
            }
        }
        Ok(query)
    }

    /// What is asked.
    pub(super) fn what(self, action: Action) -> Result<What, Refusal> {
        let Self { max_age, wait_for, timeout, limit } = self;
        Ok(match (action, max_age, wait_for) {
            (Action::History, ..) => What::History { limit },
            (Action::Refresh, max_age, _) => What::Refresh { max_age: max_age.unwrap_or(REFRESH_AGE), timeout },
            (Action::Row, Some(_), Some(_)) => return Err(Refusal::Invalid("max_age and wait_for exclude each other".to_owned())),
            (Action::Row, Some(max_age), None) => What::Fresh { max_age, timeout },
            (Action::Row, None, Some(version)) => What::Version { version, timeout },
            (Action::Row, None, None) if timeout.is_some() => {
                return Err(Refusal::Invalid("timeout goes with max_age or wait_for".to_owned()));
            }
            (Action::Row, None, None) => What::Row,
        })
    }
}

/// A span as `5s` or `500ms`; a bare number is seconds.
fn span(name: &str, text: &str, max: Duration) -> Result<Duration, Refusal> {
    let read = text.parse().ok().map(Duration::from_secs).or_else(|| humantime::parse_duration(text).ok());
    read.filter(|span| *span <= max).ok_or_else(|| Refusal::Invalid(format!("{name} is a span such as `5s`, at most {} s", max.as_secs())))
}
