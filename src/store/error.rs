//! What can go wrong between us and the database, classified once, here.

use sea_orm::{DbErr, RuntimeErr, SqlxError};

use crate::failpoint;

/// What an [`Error`] means for the one who sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The store is away, busy or full: wait and do the same again.
    Unavailable,
    /// A value that the database refuses: the same again fails again.
    Data,
    /// Another owner has the source: the subtree stops.
    Fenced,
    /// A cursor moved under us (another step was committed first): forget everything and reload from rows.
    Moved,
    /// The disk did not keep what it was told to keep: the process must end and recover at its next start.
    Fsync,
    /// Another daemon has the database.
    Locked,
    /// The schema is not what this program needs, or the options do not describe a store.
    Schema,
    /// Our mistake.
    Bug,
}

/// An error of the store. Its text names no payload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Error {
    kind: Kind,
    conflict: bool,
    text: String,
}

impl Error {
    pub(crate) fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, conflict: false, text: text.into() }
    }

    pub(crate) fn fenced(source: &str) -> Self {
        Self::new(Kind::Fenced, format!("another owner has taken the source {source}"))
    }

    /// What it means.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// A serialisation failure or deadlock: the transaction left nothing behind and is tried again at once.
    pub(crate) fn is_conflict(&self) -> bool {
        self.conflict
    }
}

impl From<failpoint::Told> for Error {
    fn from(told: failpoint::Told) -> Self {
        Self::new(Kind::Unavailable, told.to_string())
    }
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        match &error {
            DbErr::ConnectionAcquire(_) => Self::new(Kind::Unavailable, "no connection to the database in time"),
            DbErr::Conn(RuntimeErr::SqlxError(e)) | DbErr::Exec(RuntimeErr::SqlxError(e)) | DbErr::Query(RuntimeErr::SqlxError(e)) => {
                classify(e)
            }
            DbErr::Conn(_) => Self::new(Kind::Unavailable, error.to_string()),
            DbErr::Migration(text) => Self::new(Kind::Schema, text.clone()),
            _ => Self::new(Kind::Bug, error.to_string()),
        }
    }
}

fn classify(error: &SqlxError) -> Error {
    match error {
        SqlxError::Database(db) => {
            let code = db.code().unwrap_or_default().into_owned();
            let sqlite = code.parse::<i64>().is_ok() && code.len() != 5;
            let (kind, conflict) = if sqlite { sqlite_kind(&code) } else { postgres_kind(&code) };
            // PostgreSQL's message may quote the value it refuses (class 22); the code says enough.
            let text = match kind {
                Kind::Data => format!("the database refused a value (code {code})"),
                _ => format!("{} (code {code})", db.message()),
            };
            Error { kind, conflict, text }
        }
        SqlxError::PoolTimedOut | SqlxError::PoolClosed | SqlxError::WorkerCrashed => {
            Error::new(Kind::Unavailable, "no connection to the database in time")
        }
        SqlxError::Io(e) => Error::new(Kind::Unavailable, format!("connection to the database: {}", e.kind())),
        SqlxError::Tls(_) => Error::new(Kind::Unavailable, "connection to the database: tls failed"),
        SqlxError::Protocol(_) => Error::new(Kind::Unavailable, "connection to the database: protocol broken"),
        SqlxError::Encode(_) => Error::new(Kind::Data, "a value cannot be sent to the database"),
        SqlxError::Configuration(e) => Error::new(Kind::Schema, format!("the store url is not usable: {e}")),
        other => Error::new(Kind::Bug, other.to_string()),
    }
}

/// SQLite's (extended) result codes: <https://sqlite.org/rescode.html>.
fn sqlite_kind(code: &str) -> (Kind, bool) {
    let code: i64 = code.parse().unwrap_or(1);
    match (code & 0xff, code) {
        // IOERR_FSYNC, _DIR_FSYNC, _TRUNCATE: what was written may not be there.
        (_, 1034 | 1290 | 1546) => (Kind::Fsync, false),
        // BUSY, LOCKED, NOMEM, READONLY, IOERR, FULL, CANTOPEN, PROTOCOL. A write that is refused (a file system that turned
        // read-only) was never promised: its transaction is rolled back, and the next one writes the same place again.
        (5 | 6 | 7 | 8 | 10 | 13 | 14 | 15, _) => (Kind::Unavailable, false),
        // CORRUPT, NOTADB: nothing that we may write over.
        (11 | 26, _) => (Kind::Fsync, false),
        // TOOBIG, CONSTRAINT, MISMATCH.
        (18..=20, _) => (Kind::Data, false),
        _ => (Kind::Bug, false),
    }
}

/// PostgreSQL's SQLSTATE classes.
fn postgres_kind(code: &str) -> (Kind, bool) {
    match (code, code.get(..2).unwrap_or_default()) {
        ("40001" | "40P01", _) => (Kind::Unavailable, true),
        // 58030 io_error; XX001, XX002: data or index corrupted.
        ("58030" | "XX001" | "XX002", _) => (Kind::Fsync, false),
        // 55P03 lock_not_available, 25P03 idle_in_transaction_session_timeout, 25006 read_only_sql_transaction, 3D000: no such
        // database (yet), 55000: it takes no connections (now).
        ("55P03" | "25P03" | "25006" | "3D000" | "55000", _) | (_, "08" | "40" | "53" | "57") => (Kind::Unavailable, false),
        (_, "22" | "23" | "54") => (Kind::Data, false),
        (_, "28" | "42" | "3F") => (Kind::Schema, false),
        _ => (Kind::Bug, false),
    }
}
