//! What others do to the store: readers that keep a transaction open, and settings of the server.
//!
//! What a reader holds back grows until it ends.
//! On SQLite the WAL cannot begin anew while a reader needs its older part, so that it grows with every write. On PostgreSQL
//! vacuum keeps every row version that a snapshot may still see. Neither is visible to who causes it.

use std::time::Duration;

use sea_orm::ConnectionTrait;

use crate::store::connect::{Engine, Store};
use crate::store::error::Error;

/// What readers hold back at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldBack {
    /// SQLite: pages in the WAL, and how many of them are copied into the database.
    Wal {
        /// Pages.
        pages: i64,
        /// Copied ones.
        copied: i64,
    },
    /// PostgreSQL: age of the oldest snapshot of another program. A role without `pg_read_all_stats` sees its own only.
    Snapshot(Duration),
}

/// For how long something has been held back, from one look to the next.
#[derive(Clone, Debug, Default)]
pub struct LongReader {
    /// Copied pages that did not become more, and since when (monotonic time).
    stuck: Option<(i64, Duration)>,
}

impl LongReader {
    /// Takes a look into account; how long a reader has held something back by now.
    pub fn saw(&mut self, held: HeldBack, now: Duration) -> Duration {
        let (pages, copied) = match held {
            HeldBack::Snapshot(age) => return age,
            HeldBack::Wal { pages, copied } => (pages, copied),
        };
        // Beside a writer the copying never reaches the end, but it moves; only a reader makes it stand.
        let since = match self.stuck {
            _ if copied >= pages => None,
            Some((before, since)) if before == copied => Some((copied, since)),
            _ => Some((copied, now)),
        };
        self.stuck = since;
        since.map_or(Duration::ZERO, |(_, since)| now.saturating_sub(since))
    }
}

impl Store {
    /// What readers hold back now. To be asked after a checkpoint, which copies what it may.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn held_back(&self) -> Result<HeldBack, Error> {
        if self.kind() == Engine::Sqlite {
            let row = self.reader().query_one_raw(self.raw("pragma wal_checkpoint(noop)", [])).await?;
            let Some(row) = row else { return Ok(HeldBack::Wal { pages: 0, copied: 0 }) };
            let (pages, copied): (i32, i32) = (row.try_get("", "log")?, row.try_get("", "checkpointed")?);
            return Ok(HeldBack::Wal { pages: pages.into(), copied: copied.into() });
        }
        let oldest = "select cast(coalesce(max(extract(epoch from clock_timestamp() - xact_start)), 0) as double precision) as seconds \
                      from pg_stat_activity where datname = current_database() and backend_xmin is not null \
                      and coalesce(application_name, '') <> 'instep'";
        let row = self.reader().query_one_raw(self.raw(oldest, [])).await?;
        let seconds: f64 = row.map(|row| row.try_get("", "seconds")).transpose()?.unwrap_or(0.0);
        Ok(HeldBack::Snapshot(Duration::try_from_secs_f64(seconds).unwrap_or_default()))
    }
}

/// Settings of a PostgreSQL server without which a promise does not hold, and which one.
const NEEDED: [(&str, &str); 3] = [
    ("fsync", "what was acknowledged may be lost in a power cut"),
    ("full_page_writes", "a power cut may leave torn pages"),
    ("autovacuum", "rows that were removed or replaced keep their space for ever"),
];

impl Store {
    /// Settings of the server that are off and should not be, each with what that means. SQLite's are set by us.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn risky_settings(&self) -> Result<Vec<(String, &'static str)>, Error> {
        if self.kind() == Engine::Sqlite {
            return Ok(Vec::new());
        }
        let off = self.raw("select name from pg_settings where setting = 'off' order by name", []);
        let mut risky = Vec::new();
        for row in self.reader().query_all_raw(off).await? {
            let name: String = row.try_get("", "name")?;
            risky.extend(NEEDED.iter().find(|(needed, _)| *needed == name).map(|(_, risk)| (name, *risk)));
        }
        Ok(risky)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_copying_that_stands_is_a_reader() {
        let at = Duration::from_secs;
        let mut reader = LongReader::default();
        let saw = |reader: &mut LongReader, pages, copied, now| reader.saw(HeldBack::Wal { pages, copied }, at(now));
        assert_eq!(saw(&mut reader, 100, 100, 0), at(0));
        // A writer goes on while pages are copied.
        assert_eq!(saw(&mut reader, 200, 150, 10), at(0));
        assert_eq!(saw(&mut reader, 300, 250, 20), at(0));
        // It stands, whether more is written or not.
        assert_eq!(saw(&mut reader, 400, 250, 30), at(10));
        assert_eq!(saw(&mut reader, 400, 250, 40), at(20));
        // The WAL began anew.
        assert_eq!(saw(&mut reader, 50, 20, 50), at(0));
        assert_eq!(saw(&mut reader, 50, 50, 60), at(0));
        assert_eq!(reader.saw(HeldBack::Snapshot(at(7)), at(70)), at(7));
    }
}
