//! Sessions: the password grant, and the refresh of its tokens.

use bytes::Bytes;
use http::Method;
use std::time::Duration;

use super::{Akeneo, Auth};
use crate::connectors::base64::base64;
use crate::connectors::{Credential, Login, ReadError, Request, Response, Session};
use crate::model::document::{decode, raw_at};

/// The token endpoint; its requests are the only writes.
const PATH: &str = "api/oauth/v1/token";
/// No token is believed to last longer.
const LASTS_MAX: u64 = 30 * 86_400;

pub(super) fn login(akeneo: &Akeneo, texts: &[String], refresh: Option<&str>) -> Option<Login> {
    let (Auth::Password { client_id, username }, [secret, password]) = (&akeneo.options.auth, texts) else { return None };
    let body = match refresh {
        Some(refresh) => serde_json::json!({ "grant_type": "refresh_token", "refresh_token": refresh }),
        None => serde_json::json!({ "grant_type": "password", "username": username, "password": password }),
    };
    let basic = base64(format!("{client_id}:{secret}").as_bytes());
    Some(Login(Request {
        method: Method::POST,
        url: format!("{}/{PATH}", akeneo.options.url.as_str().trim_end_matches('/')),
        headers: vec![
            ("authorization".into(), format!("Basic {basic}")),
            ("content-type".into(), "application/json".into()),
            ("accept".into(), "application/json".into()),
        ],
        body: Some(Bytes::from(body.to_string())),
        endpoint: "/oauth/token".to_owned(),
        credential: Credential::Client,
        declared_write: true,
    }))
}

pub(super) fn session(response: &Response) -> Result<Session, ReadError> {
    match response.status {
        200 => {}
        // The vendor says 422 where others say 401: a wrong client, a wrong password, a refresh token that is over.
        status @ (400 | 401 | 403 | 422) => return Err(ReadError::Denied(status)),
        429 => return Err(ReadError::RateLimited),
        status if status >= 500 => return Err(ReadError::Server(status)),
        status => return Err(ReadError::Refused(status)),
    }
    let (text, _) = decode(&response.body);
    let field = |name: &str| raw_at(&text, name).ok().flatten().map(serde_json::value::RawValue::get);
    let string = |name: &str| field(name).and_then(|raw| serde_json::from_str::<String>(raw).ok()).filter(|text| !text.is_empty());
    let token = string("/access_token").ok_or(ReadError::Malformed("the answer holds no token"))?;
    let lasts = field("/expires_in").and_then(|raw| raw.trim_matches('"').parse::<u64>().ok());
    Ok(Session { token, refresh: string("/refresh_token"), lasts: lasts.map(|seconds| Duration::from_secs(seconds.min(LASTS_MAX))) })
}
