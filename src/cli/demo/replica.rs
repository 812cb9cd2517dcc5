//! The replica as any reader sees it, and waiting for what it should hold.

use std::time::Duration;

use super::Error;
use super::compare::instant;
use super::outcome::Seen;
use super::process::{DAEMON_LOG, Directory, Running, tail};
use crate::clock::{Clock, Timestamp};
use crate::store::reader::Reader;

/// How often a state is looked at while waiting for it.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Longest wait for the daemon's first sign of life.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// The views of a running daemon.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) reader: Reader,
}

impl Replica {
    /// Waits until the daemon can take hooks, and opens its store for reading.
    pub(super) async fn open(clock: Clock, store: &str, admin: u16, daemon: &mut Running, directory: &Directory) -> Result<Self, Error> {
        let failed = |error: Error| {
            let log = tail(&directory.path.join(DAEMON_LOG));
            Error::Process(format!("the daemon did not start: {error}\n{log}"))
        };
        ready(clock, admin, daemon).await.map_err(failed)?;
        Ok(Self { reader: Reader::open(store).await? })
    }

    /// Opens the store of a daemon that has ended.
    pub(super) async fn closed(store: &str) -> Result<Self, Error> {
        Ok(Self { reader: Reader::open(store).await? })
    }

    /// Whether every resource of a source has been swept (after an instant).
    pub(super) async fn swept(&self, source: &str, n_resources: usize, after: Option<Timestamp>) -> Result<bool, Error> {
        let of_source = format!("instep_resources where source = '{source}'");
        let rows = self.reader.texts(&["complete_as_of"], &of_source).await?;
        let late = |row: &Vec<Option<String>>| {
            let at = row.first().and_then(|text| instant(text.as_deref()?));
            at.is_some_and(|at| after.is_none_or(|after| at > after))
        };
        Ok(rows.len() == n_resources && rows.iter().all(late))
    }

    /// The same, and no mark is left of it.
    pub(super) async fn swept_since(&self, source: &str, n_resources: usize, after: Option<Timestamp>) -> Result<bool, Error> {
        Ok(self.swept(source, n_resources, after).await? && self.idle().await?)
    }

    /// Whether no delivery waits and no mark is open.
    pub(super) async fn idle(&self) -> Result<bool, Error> {
        let rows = self.reader.texts(&["pending", "marks"], "instep_sources").await?;
        Ok(!rows.is_empty() && rows.iter().flatten().all(|count| count.as_deref() == Some("0")))
    }

    /// Changes of the replica since an instant, in their order.
    pub(super) async fn change_rows(&self, source: &str, since: Timestamp) -> Result<Vec<Seen>, Error> {
        let changes = format!("instep_changes where source = '{source}' and at >= '{since}' order by number");
        let rows = self.reader.texts(&["resource", "key", "at"], &changes).await?;
        let seen = rows.into_iter().filter_map(|mut row| {
            let (at, key, resource) = (row.pop()??, row.pop()??, row.pop()??);
            Some(Seen { resource, key, at: instant(&at)? })
        });
        Ok(seen.collect())
    }
}

async fn ready(clock: Clock, admin: u16, daemon: &mut Running) -> Result<(), Error> {
    let client = reqwest::Client::builder().no_proxy().timeout(START_DEADLINE).build()?;
    let begin = clock.monotonic();
    while clock.monotonic().saturating_sub(begin) < START_DEADLINE {
        if let Some(status) = daemon.ended() {
            return Err(Error::Process(format!("it ended with {status}")));
        }
        let answer = client.get(format!("http://127.0.0.1:{admin}/readyz")).send().await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(Error::Late { what: "its /readyz".to_owned(), after: START_DEADLINE })
}

/// Waits until something holds while the daemon lives.
pub(super) async fn wait(
    clock: Clock,
    daemon: &mut Running,
    what: &str,
    deadline: Duration,
    mut holds: impl AsyncFnMut() -> Result<bool, Error>,
) -> Result<(), Error> {
    let begin = clock.monotonic();
    let mut in_a_row = 0;
    while clock.monotonic().saturating_sub(begin) < deadline {
        if let Some(status) = daemon.ended() {
            return Err(Error::Process(format!("the daemon ended with {status} while we waited for {what}")));
        }
        // Twice, since a row may be between two tables' transactions.
        in_a_row = if holds().await? { in_a_row + 1 } else { 0 };
        if in_a_row == 2 {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(Error::Late { what: what.to_owned(), after: deadline })
}
