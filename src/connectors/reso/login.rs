//! Tokens of a client (RFC 6749, section 4.4): the client shows itself by a header or in the form.

use bytes::Bytes;
use http::Method;
use std::time::Duration;

use super::{Auth, Reso};
use crate::connectors::base64::base64;
use crate::connectors::{Credential, Login, ReadError, Request, Response, Session};
use crate::model::document::{decode, raw_at};

/// No token is believed to last longer.
const LASTS_MAX: u64 = 30 * 86_400;

pub(super) fn login(reso: &Reso, texts: &[String]) -> Option<Login> {
    let (Auth::Client { client_id, token_url, scope, basic }, [secret]) = (&reso.options.auth, texts) else { return None };
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    if let Some(scope) = scope {
        form.append_pair("scope", scope);
    }
    let mut headers = vec![
        ("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned()),
        ("accept".to_owned(), "application/json".to_owned()),
    ];
    if *basic {
        // Both are encoded as in a form before they are joined (section 2.3.1).
        let part = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let pair = format!("{}:{}", part(client_id), part(secret));
        headers.push(("authorization".to_owned(), format!("Basic {}", base64(pair.as_bytes()))));
    } else {
        form.append_pair("client_id", client_id).append_pair("client_secret", secret);
    }
    Some(Login(Request {
        method: Method::POST,
        url: token_url.to_string(),
        headers,
        body: Some(Bytes::from(form.finish())),
        endpoint: "/token".to_owned(),
        credential: Credential::Client,
        declared_write: true,
    }))
}

pub(super) fn session(response: &Response) -> Result<Session, ReadError> {
    match response.status {
        200 => {}
        status @ (400 | 401 | 403) => return Err(ReadError::Denied(status)),
        429 => return Err(ReadError::RateLimited),
        status if status >= 500 => return Err(ReadError::Server(status)),
        status => return Err(ReadError::Refused(status)),
    }
    let (text, _) = decode(&response.body);
    let field = |name: &str| raw_at(&text, name).ok().flatten().map(serde_json::value::RawValue::get);
    let token = field("/access_token").and_then(|raw| serde_json::from_str::<String>(raw).ok()).filter(|token| !token.is_empty());
    let lasts = field("/expires_in").and_then(|raw| raw.trim_matches('"').parse::<u64>().ok());
    Ok(Session {
        token: token.ok_or(ReadError::Malformed("the answer holds no token"))?,
        refresh: None,
        lasts: lasts.map(|seconds| Duration::from_secs(seconds.min(LASTS_MAX))),
    })
}
