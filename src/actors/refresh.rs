//! Rows that are fresh enough for whoever asks: looked at, waited for, and read upstream where nothing else helps. Not an actor: it
//! runs inside requests, and the sync actor of the resource does the reading.

use std::sync::PoisonError;
use std::time::Duration;

use super::demands::Waiting;
use super::source::Source;
use crate::clock::Timestamp;
use crate::model::version::{Order, Value};
use crate::model::{Entity, Version};
use crate::store::{self, StoredRow};

/// A record that was compared within this time is not read again for whoever waits for a version; later looks double it.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A row that somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sought {
    /// As it is held.
    pub(super) row: Option<StoredRow>,
    /// It is as fresh, or as new, as was asked for.
    pub(super) is_met: bool,
    /// Why it is not.
    pub(super) why: Option<String>,
    /// The share of refreshes is spent for so long.
    pub(super) refused: Option<Duration>,
}

impl Sought {
    fn met(row: Option<StoredRow>) -> Self {
        Self { row, is_met: true, why: None, refused: None }
    }

    fn unmet(row: Option<StoredRow>, why: impl Into<String>) -> Self {
        Self { row, is_met: false, why: Some(why.into()), refused: None }
    }
}

impl Source {
    /// The row, compared with the upstream no longer ago than `max_age`; it is read if it has to be, and waited for until `timeout`.
    ///
    /// # Errors
    /// Of the store.
    pub(super) async fn fresh(&self, entity: &Entity, max_age: Duration, timeout: Duration) -> Result<Sought, store::Error> {
        let until = self.clock.monotonic() + timeout;
        let since = self.clock.now().minus(max_age);
        let mut waiting = self.demands.wait(entity);
        loop {
            // In this order: what ends in between shows in the row.
            let is_served = waiting.is_served();
            let row = self.store.stored_row(&self.name, entity).await?;
            if row.as_ref().is_some_and(|row| self.is_compared(row, since)) {
                return Ok(Sought::met(row));
            }
            if is_served {
                return self.in_vain(entity, row).await;
            }
            match self.demand(&waiting, since) {
                Ok(()) => {}
                Err(wait) => {
                    return Ok(Sought { refused: Some(wait), ..Sought::unmet(row, "refreshes have had their share of the quota") });
                }
            }
            if !self.news(&mut waiting, until).await {
                return Ok(Sought::unmet(row, "the upstream was not read in time"));
            }
        }
    }

    /// The row once it has a version that is at least `wanted`, waited for until `timeout`. It is read now and then meanwhile, as far as
    /// the share of refreshes goes.
    ///
    /// # Errors
    /// Of the store; `Ok(Err(_))` where `wanted` is no version of this record.
    pub(super) async fn in_version(
        &self,
        entity: &Entity,
        wanted: &str,
        timeout: Duration,
    ) -> Result<Result<Sought, String>, store::Error> {
        let until = self.clock.monotonic() + timeout;
        let (mut ask_at, mut pause) = (self.clock.monotonic(), AGAIN_AFTER);
        let mut waiting = self.demands.wait(entity);
        loop {
            let row = self.store.stored_row(&self.name, entity).await?;
            match row.as_ref().map_or_else(|| is_version(wanted), |row| reaches(row, wanted)) {
                Ok(true) => return Ok(Ok(Sought::met(row))),
                Ok(false) => {}
                Err(why) => return Ok(Err(why)),
            }
            let now = self.clock.monotonic();
            let since = self.clock.now().minus(AGAIN_AFTER);
            if now >= ask_at {
                if !row.as_ref().is_some_and(|row| self.is_compared(row, since)) {
                    // Without a share left the hook is waited for.
                    let _ = self.demand(&waiting, since);
                }
                ask_at = now + pause;
                pause *= 2;
            }
            if !self.news(&mut waiting, ask_at.min(until)).await && self.clock.monotonic() >= until {
                return Ok(Ok(Sought::unmet(row, format!("version {wanted} has not come in time"))));
            }
        }
    }

    /// Whether a read that was begun since then showed what is held. An instant ahead of us was dated by a clock that was set back.
    fn is_compared(&self, row: &StoredRow, since: Timestamp) -> bool {
        row.compared_at.is_some_and(|at| at >= since && at <= self.clock.now())
    }

    /// Has the sync actor read the record, unless it is about to; how long until that may be asked for.
    fn demand(&self, waiting: &Waiting<'_>, since: Timestamp) -> Result<(), Duration> {
        let admit = || {
            let mut share = self.refreshes.lock().unwrap_or_else(PoisonError::into_inner);
            share.take(self.clock.monotonic())
        };
        if waiting.demand(since, admit)? {
            self.wake([&waiting.entity().resource]);
        }
        Ok(())
    }

    /// Waits for news; false at `until`.
    async fn news(&self, waiting: &mut Waiting<'_>, until: Duration) -> bool {
        let left = until.saturating_sub(self.clock.monotonic());
        tokio::time::timeout(left, waiting.news()).await.is_ok()
    }

    /// The record was read, and what is held was not confirmed: its mark says why.
    async fn in_vain(&self, entity: &Entity, row: Option<StoredRow>) -> Result<Sought, store::Error> {
        let mark = self.store.open_mark(&self.name, entity).await?;
        let note = mark.and_then(|mark| mark.note);
        Ok(Sought::unmet(row, note.unwrap_or_else(|| "a read did not settle what is held".to_owned())))
    }
}

/// Whether the row has this version or a newer one; says why that cannot be told.
fn reaches(row: &StoredRow, wanted: &str) -> Result<bool, String> {
    let Some(held) = &row.version else { return Err("this record has no version to wait for".to_owned()) };
    let wanted = match held.value {
        Value::Sequence(_) => wanted.parse().ok().map(|number| Version::sequence(&held.field, number)),
        Value::Stamp { .. } => Version::stamp(&held.field, wanted),
    };
    let wanted = wanted.ok_or_else(|| format!("wait_for is no version of this record, which has {}", held.text()))?;
    Ok(row.deleted_at.is_none() && matches!(held.compare(&wanted), Order::Newer | Order::Tie))
}

/// Nothing is held to compare it with: it must at least look like one.
fn is_version(wanted: &str) -> Result<bool, String> {
    let looks = wanted.parse::<i64>().is_ok() || Timestamp::parse(wanted).is_some();
    if looks { Ok(false) } else { Err("wait_for is neither an instant in RFC 3339 nor a number".to_owned()) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn held(version: Option<Version>, deleted_at: Option<Timestamp>) -> StoredRow {
        StoredRow { version, deleted_at, deleted_reason: None, compared_at: None, last_change: 1, hash: None, payload: None }
    }

    #[test]
    fn a_version_is_reached_by_itself_and_by_newer_ones() {
        let field: Arc<str> = "updated_at".into();
        let row = held(Version::stamp(&field, "2026-03-14T10:00:00.500Z"), None);
        for (wanted, expected) in [
            ("2026-03-14T10:00:00.500Z", true),
            ("2026-03-14T11:00:00.500+01:00", true),
            ("2026-03-14T10:00:00.499Z", true),
            ("2026-03-14T10:00:00.501Z", false),
            // The coarser precision decides.
            ("2026-03-14T10:00:00Z", true),
        ] {
            assert_eq!(reaches(&row, wanted), Ok(expected), "{wanted}");
        }
        assert!(reaches(&row, "7").is_err_and(|why| why.contains("2026-03-14T10:00:00.500000Z")));
        let number = held(Some(Version::sequence(&field, 7)), None);
        assert_eq!((reaches(&number, "7"), reaches(&number, "8")), (Ok(true), Ok(false)));
        assert!(reaches(&number, "2026-03-14T10:00:00Z").is_err());
        assert!(reaches(&held(None, None), "7").is_err());
        assert_eq!(reaches(&held(Some(Version::sequence(&field, 9)), Some(Timestamp(1))), "7"), Ok(false), "it is removed");
        assert_eq!((is_version("7"), is_version("2026-03-14T10:00:00Z")), (Ok(false), Ok(false)));
        assert!(is_version("soon").is_err());
    }
}
