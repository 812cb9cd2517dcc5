//! Where this instance is at home, and how far it has come there. Not an actor: the start asks it, the janitor keeps it.
//!
//! The *host* is made of a random number in the state directory, the directory's own path, and the machine's id where it has one. The
//! name of the host is no part of it, for a container has another at every start; the state directory has to outlive a container all the
//! same, and is what makes two containers of one image two hosts. Whoever copies the database alone, or the state directory to another
//! path or machine, has another host. A volume that is copied to a container elsewhere, at the same path and without a machine id, is
//! told apart by its public address alone.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use super::source::Source;
use crate::connectors::signature;
use crate::http::admin::Token;
use crate::report::GapOpened;
use crate::store::{self, RESTORED, Reached, Store};

/// File in the state directory with the random number.
const HOST_FILE: &str = "host";
/// File in the state directory that says how far the database had come.
const REACHED_FILE: &str = "reached";
/// What systemd and most distributions know a machine by. In a container it is empty, or the image's.
const MACHINE_ID: &str = "/etc/machine-id";

/// What an instance is known by, beside its database.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// The host, as a digest.
    pub host: Arc<str>,
    /// What probes of public addresses are signed with.
    pub probe_secret: Arc<str>,
}

/// Reads who we are from the state directory; at the first start it is made.
///
/// # Errors
/// When a file can neither be read nor made.
pub fn identity(state: &Path) -> Result<Identity, String> {
    let token = |name: &str| {
        let token = Token::ensure(&state.join(name), rand::random());
        token.map(|token| token.expose().to_owned()).map_err(|error| format!("{name} in {}: {error}", state.display()))
    };
    let path = state.canonicalize().map_err(|error| format!("{}: {error}", state.display()))?;
    // Whoever has none is told apart by the rest.
    let machine = std::fs::read_to_string(MACHINE_ID).unwrap_or_default();
    let parts = [token(HOST_FILE)?, path.to_string_lossy().into_owned(), machine.trim().to_owned()];
    let host = signature::digest(&parts.each_ref().map(String::as_bytes));
    Ok(Identity { host: Arc::from(host), probe_secret: Arc::from(token(super::probe::SECRET_FILE)?) })
}

/// Where it stands how far the database had come.
#[must_use]
pub fn reached_file(state: &Path) -> PathBuf {
    state.join(REACHED_FILE)
}

/// Writes down how far the database has come, so that a later start notices an older one.
pub async fn note_reached(store: &Store, file: &Path) {
    // A store that is away is the journal's to report, and what stands in the file is true.
    let Ok(reached) = store.reached().await else { return };
    let new = file.with_extension("new");
    let written = serde_json::to_vec(&reached).map_err(std::io::Error::from).and_then(|text| {
        std::fs::write(&new, text)?;
        std::fs::rename(&new, file)
    });
    if let Err(error) = written {
        tracing::debug!(%error, "how far the database has come cannot be written down");
    }
}

/// Compares the database with this place, before anything is done with it. Where sources are at home elsewhere managing is suspended.
///
/// # Errors
/// [`crate::store::Kind::Unavailable`].
pub async fn arrive(store: &Store, state: &Path, host: &str, sources: &[Arc<Source>]) -> Result<(), store::Error> {
    let text = std::fs::read(reached_file(state)).unwrap_or_default();
    let reached: Vec<Reached> = serde_json::from_slice(&text).unwrap_or_default();
    let public: Vec<_> = sources.iter().filter_map(|source| Some((&source.name, source.settings.public_url.as_deref()?))).collect();
    let arrival = store.arrive(host, &reached, &public).await?;
    if arrival.is_restored {
        tracing::warn!("the database is restored or a copy: every source is compared, and readers of its changes have to start again");
        for source in sources {
            source.reporter.emit(GapOpened { source: source.name.to_string(), cause: RESTORED.to_owned() });
        }
    }
    for (name, why) in arrival.strange {
        let why = format!("{why}: nothing of them is changed until `instep adopt {name}`");
        tracing::error!(source = %name, why, "managing webhooks is suspended");
        if let Some(source) = sources.iter().find(|source| source.name == name) {
            *source.suspended.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        }
    }
    Ok(())
}

impl Source {
    /// Why registrations may not be changed here, where they are another's until somebody says otherwise.
    #[must_use]
    pub fn suspended(&self) -> Option<String> {
        self.suspended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An operator says that this is the source's home.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn adopt(&self) -> Result<(), store::Error> {
        let Some(public_url) = &self.settings.public_url else { return Ok(()) };
        self.store.adopt(&self.name, &self.host, public_url).await?;
        *self.suspended.lock().unwrap_or_else(PoisonError::into_inner) = None;
        tracing::warn!(source = %self.name, "the source is adopted: webhooks are managed from here");
        self.keeper.wake();
        Ok(())
    }
}
