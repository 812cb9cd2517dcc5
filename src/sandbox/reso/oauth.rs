//! `POST /oauth2/token`: client credentials in a form or by Basic; and who may read.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::options::Options;
use super::query::Refusal;
use crate::sandbox::dice::mix;
use crate::sandbox::micros;
use crate::sandbox::wire::base64;

/// Tokens that were handed out, with the instants at which they end.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    issued: u64,
    access: HashMap<String, i64>,
}

impl Tokens {
    pub(super) fn grant(&mut self, options: &Options, authorization: &str, form: &[u8], now_us: i64) -> Result<Value, Refusal> {
        let form: HashMap<String, String> = url::form_urlencoded::parse(form).into_owned().collect();
        let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        if field("grant_type") != "client_credentials" {
            return Err(Refusal::new(400, "unsupported_grant_type"));
        }
        let basic = format!("Basic {}", base64(format!("{}:{}", options.client_id, options.client_secret).as_bytes()));
        let by_form = field("client_id") == options.client_id && field("client_secret") == options.client_secret;
        if authorization != basic && !by_form {
            return Err(Refusal::new(401, "invalid_client"));
        }
        self.access.retain(|_, until_us| *until_us > now_us);
        self.issued += 1;
        let token = token(options, self.issued);
        self.access.insert(token.clone(), now_us.saturating_add(micros(options.token_ttl_ms)));
        Ok(json!({ "access_token": token, "token_type": "Bearer", "expires_in": options.token_ttl_ms / 1_000 }))
    }

    /// Whether a bearer may read.
    pub(super) fn check(&self, options: &Options, authorization: &str, now_us: i64) -> Result<(), Refusal> {
        let token = authorization.strip_prefix("Bearer ").unwrap_or_default();
        let is_static = !options.token.is_empty() && token == options.token;
        if is_static || self.access.get(token).is_some_and(|until_us| *until_us > now_us) {
            return Ok(());
        }
        Err(Refusal::new(if options.forbidden { 403 } else { 401 }, "The token is missing, wrong or has expired"))
    }

    /// All that were handed out, those too that have ended.
    pub(super) fn issued(&self, options: &Options) -> Value {
        (1..=self.issued).map(|number| token(options, number)).collect()
    }

    /// Ends all tokens.
    pub(super) fn revoke(&mut self) {
        self.access.clear();
    }
}

/// The token that is handed out at this turn.
fn token(options: &Options, number: u64) -> String {
    format!("{:016x}{:016x}", mix(&[options.seed, 1, number]), mix(&[options.seed, 2, number]))
}
