//! Invitations: a sender is given a token of ours and shows it with every delivery (`instep hooks invite`).
//!
//! The token is made here, answered once and forgotten; the store knows its SHA-256. The door reads its secrets anew whenever one
//! was made or ended.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::keeper::HooksError;
use super::source::Source;
use crate::clock::Timestamp;
use crate::connectors::{Inviting, bearer, signature};
use crate::store::{self, Fence, Invited};

impl Source {
    /// Makes an invitation, or ends the one called `revoke` if that is not empty.
    pub(super) async fn invite(&self, fence: &Fence, revoke: &str) -> Result<Value, HooksError> {
        if self.connector.inviting().is_none() {
            let why = format!("senders of a `{}` source show no token of ours, so nobody is invited", self.connector.kind());
            return Err(HooksError::Invitation(why));
        }
        let done = if revoke.is_empty() { self.make_invitation(fence).await } else { self.end_invitation(fence, revoke).await };
        // Also after a failure: whether it was stored is not always heard.
        self.registrations.fetch_add(1, Ordering::AcqRel);
        self.keeper.wake();
        done
    }

    async fn make_invitation(&self, fence: &Fence) -> Result<Value, HooksError> {
        let Some(inviting) = self.connector.inviting() else { return Err(HooksError::Invitation("nobody is invited".into())) };
        let url = self.target(inviting.route);
        let url = url.ok_or(HooksError::Configuration("public_url is not set: there is no address that a sender could be told"))?;
        let (id, token) = (signature::hex(&rand::random::<[u8; 4]>()), signature::hex(&rand::random::<[u8; 32]>()));
        match self.store.put_invitation(fence, &id, inviting.route, &bearer::digest(&token)).await? {
            Invited::Made => Ok(shown(self.name.as_str(), &id, &url, &token, &inviting)),
            Invited::Full(live) => {
                let ids: Vec<&str> = live.iter().map(|one| one.id.as_str()).collect();
                let oldest = ids.last().copied().unwrap_or_default();
                let why =
                    format!("{} invitations live already ({}): end one first, the oldest by --revoke {oldest}", live.len(), ids.join(", "));
                Err(HooksError::Invitation(why))
            }
        }
    }

    async fn end_invitation(&self, fence: &Fence, id: &str) -> Result<Value, HooksError> {
        if self.store.revoke_invitation(fence, id).await? {
            Ok(json!({ "revoked": id }))
        } else {
            // What was given is not repeated: it may be a token.
            Err(HooksError::Invitation(format!("there is no invitation of this id: `instep hooks list {}` shows them", self.name)))
        }
    }

    /// The invitations for people: without what is known of their tokens.
    pub(super) async fn invitations(&self) -> Result<Vec<Value>, store::Error> {
        let at = |micros: i64| Timestamp(micros).to_string();
        let show = |one: store::StoredInvitation| json!({ "id": one.id, "route": one.route, "created_at": at(one.created_at), "revoked_at": one.revoked_at.map(at) });
        Ok(self.store.invitations(&self.name).await?.into_iter().map(show).collect())
    }
}

/// What a sender's form asks for.
fn shown(source: &str, id: &str, url: &str, token: &str, inviting: &Inviting) -> Value {
    let value = if inviting.scheme.is_empty() { token.to_owned() } else { format!("{} {token}", inviting.scheme) };
    let label = inviting.label.as_ref().map(|(header, value)| json!({ "header": header, "value": value }));
    json!({ "source": source, "id": id, "url": url, "header": inviting.header, "value": value, "token": token, "label": label })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_shown_is_what_the_door_takes() {
        let inviting = Inviting {
            route: "entity-events",
            header: "Authorization",
            scheme: "Bearer",
            label: Some(("EntityEventSource", "mls".to_owned())),
        };
        let token = signature::hex(&[7; 32]);
        let shown = shown("mls", "1", "https://h.example/hooks/mls/entity-events", &token, &inviting);
        assert_eq!(bearer::token(shown["value"].as_str().expect("a header's value")), Some(token.as_str()));
        assert_eq!(shown["label"], json!({ "header": "EntityEventSource", "value": "mls" }));
    }

    #[tokio::test]
    async fn who_signs_is_not_invited() {
        crate::store::testing::on_both(|store| async move {
            let url = "http://127.0.0.1:1/".parse().expect("a URL");
            let source = crate::actors::testing::source(&store, &url, 1, Duration::ZERO);
            let fence = store.claim(&source.name, "test").await.expect("claimed");
            for revoke in ["", "1"] {
                let error = source.invite(&fence, revoke).await.expect_err("refused");
                assert!(matches!(&error, HooksError::Invitation(why) if why.contains("show no token of ours")), "{error}");
            }
            assert!(source.invitations().await.expect("read").is_empty());
        })
        .await;
    }
}
