//! `POST /api/oauth/v1/token`: pairs of tokens by password or by refresh token.

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
    refresh: HashMap<String, i64>,
}

impl Tokens {
    /// Answers a request for tokens. Everything that is wrong with it is a 422, never a 401.
    pub(super) fn grant(&mut self, options: &Options, authorization: &str, form: &Value, now_us: i64) -> Result<Value, Refusal> {
        let basic = format!("Basic {}", base64(format!("{}:{}", options.client_id, options.client_secret).as_bytes()));
        if authorization != basic {
            return Err(Refusal::new(422, "Parameter \"client_id\" is missing or does not match any client, or secret is invalid"));
        }
        let text = |name: &str| form.get(name).and_then(Value::as_str).unwrap_or_default();
        match text("grant_type") {
            "password" if text("username") == options.username && text("password") == options.password => {}
            "password" => return Err(Refusal::new(422, "No user found for the given username and password")),
            "refresh_token" => {
                // A refresh token works once: a new one comes with every answer.
                let until_us = self.refresh.remove(text("refresh_token"));
                if until_us.is_none_or(|until_us| until_us <= now_us) {
                    return Err(Refusal::new(422, "Refresh token is invalid or has expired"));
                }
            }
            _ => return Err(Refusal::new(422, "Parameter \"grant_type\" is missing, empty or invalid")),
        }
        Ok(self.issue(options, now_us))
    }

    fn issue(&mut self, options: &Options, now_us: i64) -> Value {
        self.access.retain(|_, until_us| *until_us > now_us);
        self.refresh.retain(|_, until_us| *until_us > now_us);
        self.issued += 1;
        let token =
            |kind: u64| format!("{:016x}{:016x}", mix(&[options.seed, kind, self.issued]), mix(&[options.seed, kind, self.issued, 1]));
        let (access, refresh) = (token(1), token(2));
        self.access.insert(access.clone(), now_us.saturating_add(micros(options.token_ttl_ms)));
        self.refresh.insert(refresh.clone(), now_us.saturating_add(micros(options.refresh_ttl_ms)));
        json!({
            "access_token": access, "expires_in": options.token_ttl_ms / 1000, "token_type": "bearer", "scope": null, "refresh_token": refresh,
        })
    }

    /// Whether a bearer may read.
    pub(super) fn check(&self, options: &Options, token: &str, now_us: i64) -> Result<(), Refusal> {
        if !options.app_token.is_empty() && token == options.app_token {
            return Ok(());
        }
        match self.access.get(token) {
            Some(until_us) if *until_us > now_us => Ok(()),
            Some(_) => Err(Refusal::new(401, "The access token provided has expired.")),
            None if token.is_empty() => Err(Refusal::new(401, "Authentication is required")),
            None => Err(Refusal::new(401, "The access token provided is invalid.")),
        }
    }

    /// Ends all access tokens, and refresh tokens where asked for.
    pub(super) fn revoke(&mut self, refresh_too: bool) {
        self.access.clear();
        if refresh_too {
            self.refresh.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_token_works_once() {
        let options = Options { token_ttl_ms: 1_000, ..Options::default() };
        let mut tokens = Tokens::default();
        let basic = format!("Basic {}", base64(b"1_instep:connection-secret"));
        let password = json!({ "grant_type": "password", "username": options.username, "password": options.password });
        let pair = tokens.grant(&options, &basic, &password, 0).expect("good credentials");
        let access = pair["access_token"].as_str().expect("a token");
        assert_eq!(tokens.check(&options, access, 999_999), Ok(()));
        assert_eq!(tokens.check(&options, access, 1_000_000).map_err(|refusal| refusal.status), Err(401));
        let refresh = json!({ "grant_type": "refresh_token", "refresh_token": pair["refresh_token"] });
        assert!(tokens.grant(&options, &basic, &refresh, 1_000_000).is_ok());
        assert_eq!(tokens.grant(&options, &basic, &refresh, 1_000_000).map_err(|refusal| refusal.status), Err(422));
        assert_eq!(tokens.grant(&options, "Basic x", &password, 0).map_err(|refusal| refusal.status), Err(422));
    }
}
