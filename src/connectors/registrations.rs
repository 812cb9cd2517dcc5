//! Registrations upstream, by which an upstream knows where to deliver.

use super::{HookSecret, ReadError};

/// A webhook registration that the keeper must find or create upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The route below `/hooks/{source}/` that carries it; for what others rest on and carries nothing, a name that is no route.
    pub route: String,
    /// What it announces, for people.
    pub title: String,
}

/// What is needed for making a registration.
#[derive(Clone, Copy, Debug)]
pub struct Making<'a> {
    /// The public address of its route.
    pub target: &'a str,
    /// The secrets of its route, for upstreams that are told them.
    pub secrets: &'a [HookSecret],
    /// What of ours stands already: one may rest on another.
    pub standing: &'a [Registered],
}

/// A registration as it stands upstream.
#[derive(Clone, PartialEq, Eq)]
pub struct Registered {
    /// The upstream's id of it.
    pub id: String,
    /// Which of ours it is, by its target URL; `None`: somebody else's.
    pub route: Option<String>,
    /// The secret it signs with, if the upstream tells.
    pub secret: Option<String>,
    /// It works, or has not been tried yet.
    pub healthy: bool,
    /// Deliveries are still sent to it. One that is not healthy may be delivered to again and again.
    pub delivers: bool,
    /// What the upstream says about it, for people.
    pub state: String,
}

impl std::fmt::Debug for Registered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registered")
            .field("id", &self.id)
            .field("route", &self.route)
            .field("healthy", &self.healthy)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// Why registrations could not be read or made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// The plan has no webhooks: the source lives on feeds and passes.
    #[error("the upstream's plan does not include webhooks: the source stays poll-only")]
    NotInPlan,
    /// The credential may not write.
    #[error("the credential may not manage webhooks (status 403): set manage_token to one that may")]
    ReadOnly,
    /// Anything else.
    #[error(transparent)]
    Read(#[from] ReadError),
}
