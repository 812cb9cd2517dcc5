//! Opening the store, its connections, and the order in which writers get their turn.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use migrations::{Migrator, MigratorTrait};
use sea_orm::sqlx::Connection as _;
use sea_orm::sqlx::sqlite::SqlitePoolOptions;
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbBackend, SqliteTransactionMode, Statement,
    TransactionOptions, TransactionTrait,
};
use tokio::sync::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Timestamp};
use crate::failpoint;
use crate::store::error::{Error, Kind};
use crate::store::files;
use crate::store::reads::Reads;

/// How long anybody waits for a connection: the store is away, and whoever asks must hear it soon.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// One transaction, with everything it waits for. The server's own statement timeout (10 s) ends first, unless the server hangs.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(15);
/// A transaction refused by a deadlock or serialisation failure is tried so often.
const CONFLICT_TRIES: u32 = 5;
/// Key of the advisory lock that lets one process migrate at a time: `instep` in ASCII.
const MIGRATION_LOCK: i64 = 0x696e_7374_6570;

/// Which database it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// One file, one process.
    Sqlite,
    /// A server, any number of processes.
    Postgres,
}

/// Where the store is and who may read it.
#[derive(Clone, Debug)]
pub struct Options {
    /// `sqlite:///path` or `postgres[ql]://…`.
    pub url: String,
    /// SQLite: the group that may read the file.
    pub read_group: Option<String>,
    /// PostgreSQL: roles that may select from the views.
    pub grant: Vec<String>,
    /// Connections beside the journal's own; 4 are enough for one daemon.
    pub connections: u32,
    /// Wall time for rows.
    pub clock: Clock,
}

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("engine", &self.inner.engine).finish_non_exhaustive()
    }
}

pub(crate) struct Inner {
    pub(crate) engine: Engine,
    pub(crate) clock: Clock,
    pub(crate) grant: Vec<String>,
    pub(crate) path: Option<PathBuf>,
    writer: DatabaseConnection,
    journal: DatabaseConnection,
    reader: DatabaseConnection,
    /// SQLite: copies the WAL beside the writer; on PostgreSQL it has nothing to do.
    checkpointer: DatabaseConnection,
    /// Cancelled for good when the disk did not keep what it was told to keep.
    broken: CancellationToken,
    /// SQLite: writers other than the journal queue here, so that at most one of them stands before the journal at the pen.
    turn: Mutex<()>,
    /// SQLite: who holds it writes.
    pen: Mutex<()>,
    _lock: Option<std::fs::File>,
}

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Deliveries: first.
    Journal,
    /// Everything else.
    Work,
}

/// A write transaction; dropped without [`Tx::commit`] it is rolled back.
pub(crate) struct Tx<'a> {
    pub(crate) db: DatabaseTransaction,
    pub(crate) engine: Engine,
    /// What it does: the name of its fail points.
    step: &'static str,
    _pen: Option<MutexGuard<'a, ()>>,
    _turn: Option<MutexGuard<'a, ()>>,
}

impl Tx<'_> {
    pub(crate) async fn commit(self) -> Result<(), Error> {
        failpoint::reach(self.step, "before_commit").await?;
        self.db.commit().await?;
        // An error after the commit is the unknown outcome that a lost connection leaves.
        Ok(failpoint::reach(self.step, "after_commit").await?)
    }
}

impl Store {
    /// Connects. On SQLite the file is made if it is not there, and locked against a second daemon.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] while a server does not answer, [`Kind::Locked`] if another daemon has the file, [`Kind::Schema`] for
    /// a url, path or group that cannot work.
    pub async fn open(options: Options) -> Result<Self, Error> {
        if let Some(path) = files::sqlite_path(&options.url)? {
            return Self::open_sqlite(options, path).await;
        }
        let Some(rest) = options.url.strip_prefix("postgresql:").or_else(|| options.url.strip_prefix("postgres:")) else {
            return Err(Error::new(Kind::Schema, "the store url begins with neither sqlite: nor postgresql:"));
        };
        let url = format!("postgres:{rest}");
        let writer = connect(postgres(&url, options.connections.max(2))).await?;
        let journal = connect(postgres(&url, 1)).await?;
        let (reader, checkpointer) = (writer.clone(), writer.clone());
        Ok(Self::assemble(Engine::Postgres, options, None, None, [writer, journal, reader, checkpointer]))
    }

    async fn open_sqlite(options: Options, path: PathBuf) -> Result<Self, Error> {
        let (path, lock) = files::prepare(&path, options.read_group.as_deref())?;
        let writer = connect(sqlite(&path, 1, false)).await?;
        vacuum_mode(&writer).await?;
        let reader = connect(sqlite(&path, options.connections.max(2), true)).await?;
        let checkpointer = connect(sqlite(&path, 1, false)).await?;
        files::share_side_files(&path, options.read_group.as_deref())?;
        let journal = writer.clone();
        Ok(Self::assemble(Engine::Sqlite, options, Some(path), Some(lock), [writer, journal, reader, checkpointer]))
    }

    fn assemble(
        engine: Engine,
        options: Options,
        path: Option<PathBuf>,
        lock: Option<std::fs::File>,
        [writer, journal, reader, checkpointer]: [DatabaseConnection; 4],
    ) -> Self {
        let (turn, pen, broken) = (Mutex::new(()), Mutex::new(()), CancellationToken::new());
        let (clock, grant) = (options.clock, options.grant);
        let inner = Inner { engine, clock, grant, path, writer, journal, reader, checkpointer, broken, turn, pen, _lock: lock };
        Self { inner: Arc::new(inner) }
    }

    /// Brings the schema up to date and makes the views that belong to no source.
    ///
    /// # Errors
    /// [`Kind::Schema`] if the database is newer than this program.
    pub async fn migrate(&self) -> Result<(), Error> {
        if self.inner.engine == Engine::Postgres {
            let lock = self.begin(Lane::Journal, "migrate").await?;
            let sql = format!(
                "set local idle_in_transaction_session_timeout = 0; set local statement_timeout = 0; \
                 set local lock_timeout = 0; select pg_advisory_xact_lock({MIGRATION_LOCK})"
            );
            lock.db.execute_unprepared(&sql).await?;
            self.inner.writer.execute_unprepared("create schema if not exists instep").await?;
            self.take_steps().await?;
            lock.commit().await?;
        } else {
            // One process has the file, and the only connection that writes is needed by the migrator itself.
            self.take_steps().await?;
        }
        self.create_instance().await?;
        self.install_own_views().await
    }

    /// The schema's steps that are still to be taken, one after the other.
    async fn take_steps(&self) -> Result<(), Error> {
        let writer = &self.inner.writer;
        for _ in Migrator::get_pending_migrations(writer).await? {
            failpoint::reach("migration", "begun").await?;
            Migrator::up(writer, Some(1)).await?;
            failpoint::reach("migration", "taken").await?;
        }
        Ok(())
    }

    /// Which database it is.
    #[must_use]
    pub fn kind(&self) -> Engine {
        self.inner.engine
    }

    /// Asks the database for a sign of life, and whether it takes writes at all.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] within 2 s if there is none.
    pub async fn ping(&self) -> Result<(), Error> {
        if self.is_read_only() {
            return Err(Error::new(Kind::Unavailable, "the file system of the database is read-only"));
        }
        // PostgreSQL: at the journal's own connection, for the others may all be at work.
        let (db, sql) = match self.inner.engine {
            Engine::Sqlite => (&self.inner.reader, "select 0 as read_only"),
            Engine::Postgres => (&self.inner.journal, "select cast(current_setting('transaction_read_only') = 'on' as int) as read_only"),
        };
        let answer = tokio::time::timeout(ACQUIRE_TIMEOUT, db.query_one_raw(self.raw(sql, []))).await;
        let row = answer.map_err(|_| Error::new(Kind::Unavailable, "the database did not answer in time"))??;
        match row.map(|row| row.try_get::<i32>("", "read_only")).transpose()? {
            Some(0) => Ok(()),
            _ => Err(Error::new(Kind::Unavailable, "the database is read-only")),
        }
    }

    /// Cancelled when the disk did not keep what it was told to keep. Nothing is written from then on: the process must end, and
    /// the next one begins with what the database recovers.
    #[must_use]
    pub fn broken(&self) -> &CancellationToken {
        &self.inner.broken
    }

    /// Ends the use of the store.
    ///
    /// On SQLite the content of the WAL is copied into the database, and the connections are then *left open* until the process
    /// ends: closing the last one would remove `-wal` and `-shm`, and readers of another user could not open the database until
    /// the next start.
    ///
    /// # Errors
    /// What the last checkpoint met.
    pub async fn close(self) -> Result<(), Error> {
        if self.inner.engine == Engine::Sqlite {
            let done = if self.inner.broken.is_cancelled() { Ok(()) } else { self.checkpoint().await };
            Box::leak(Box::new(self));
            return done;
        }
        self.inner.journal.close_by_ref().await?;
        self.inner.writer.close_by_ref().await?;
        Ok(())
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    pub(crate) fn reader(&self) -> Reads<'_> {
        Reads::new(&self.inner.reader, self.inner.engine)
    }

    pub(crate) fn checkpointer(&self) -> &DatabaseConnection {
        &self.inner.checkpointer
    }

    /// The connection that may change the schema or run a pragma, outside any transaction. The caller holds no [`Tx`].
    pub(crate) fn writer(&self) -> &DatabaseConnection {
        &self.inner.writer
    }

    pub(crate) fn backend(&self) -> DbBackend {
        backend(self.inner.engine)
    }

    /// A statement where sea-query has no words for it.
    pub(crate) fn raw<const N: usize>(&self, sql: impl Into<String>, values: [sea_orm::Value; N]) -> Statement {
        Statement::from_sql_and_values(self.backend(), sql, values)
    }

    /// Waits for this lane's turn and begins. SQLite: `BEGIN IMMEDIATE`, so that a transaction never fails half-way for want of
    /// the write lock. `step` is a name of its own, for the fail points.
    pub(crate) async fn begin(&self, lane: Lane, step: &'static str) -> Result<Tx<'_>, Error> {
        let tx = self.wait_and_begin(lane, step).await?;
        failpoint::reach(step, "begun").await?;
        Ok(tx)
    }

    async fn wait_and_begin(&self, lane: Lane, step: &'static str) -> Result<Tx<'_>, Error> {
        let inner = &*self.inner;
        if inner.broken.is_cancelled() {
            return Err(Error::new(Kind::Fsync, "nothing is written after a failed fsync"));
        }
        if inner.engine == Engine::Postgres {
            let db = if lane == Lane::Journal { &inner.journal } else { &inner.writer };
            return Ok(Tx { db: db.begin().await?, engine: inner.engine, step, _pen: None, _turn: None });
        }
        let turn = if lane == Lane::Work { Some(inner.turn.lock().await) } else { None };
        let pen = inner.pen.lock().await;
        let options = TransactionOptions { sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate), ..Default::default() };
        let db = inner.writer.begin_with_options(options).await?;
        Ok(Tx { db, engine: inner.engine, step, _pen: Some(pen), _turn: turn })
    }

    /// SQLite: keeps the writers out, the journal included, in their order.
    pub(crate) async fn hold_pen(&self) -> (MutexGuard<'_, ()>, MutexGuard<'_, ()>) {
        let turn = self.inner.turn.lock().await;
        (self.inner.pen.lock().await, turn)
    }

    /// Runs a transaction with a deadline, again after a conflict.
    pub(crate) async fn run<T, F>(&self, mut transaction: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut tries = 0;
        loop {
            tries += 1;
            let done = tokio::time::timeout(TRANSACTION_TIMEOUT, transaction()).await;
            match done.unwrap_or_else(|_| Err(Error::new(Kind::Unavailable, "the database did not answer in time"))) {
                Err(error) if error.is_conflict() && tries < CONFLICT_TRIES => {}
                Err(error) => return Err(self.saw(error)),
                done => return done,
            }
        }
    }

    /// After a failed fsync nobody knows what of the last commits is on the disk, and a second try would say "yes" all the same.
    pub(crate) fn saw(&self, error: Error) -> Error {
        if error.kind() == Kind::Fsync {
            self.inner.broken.cancel();
        }
        error
    }
}

pub(crate) fn backend(engine: Engine) -> DbBackend {
    match engine {
        Engine::Sqlite => DbBackend::Sqlite,
        Engine::Postgres => DbBackend::Postgres,
    }
}

pub(crate) async fn connect(options: ConnectOptions) -> Result<DatabaseConnection, Error> {
    let connected = tokio::time::timeout(ACQUIRE_TIMEOUT * 2, Database::connect(options)).await;
    Ok(connected.map_err(|_| Error::new(Kind::Unavailable, "the database did not answer in time"))??)
}

pub(crate) fn postgres(url: &str, connections: u32) -> ConnectOptions {
    let mut options = quiet(ConnectOptions::new(url), connections);
    options.set_schema_search_path("instep,public").set_application_name("instep");
    options.map_sqlx_postgres_opts(|options| {
        options.options([
            ("synchronous_commit", "on"),
            ("idle_in_transaction_session_timeout", "3s"),
            ("statement_timeout", "10s"),
            ("lock_timeout", "5s"),
            ("timezone", "UTC"),
        ])
    });
    options
}

pub(crate) fn sqlite(path: &std::path::Path, connections: u32, read_only: bool) -> ConnectOptions {
    let mut options = quiet(ConnectOptions::new("sqlite://"), connections);
    // Connections are never recycled: closing the last one would remove the files that readers need.
    options.idle_timeout(None).max_lifetime(None).min_connections(1);
    let path = path.to_owned();
    if !read_only {
        options.map_sqlx_sqlite_pool_opts(whole_transactions);
    }
    options.map_sqlx_sqlite_opts(move |options| {
        let options = options
            .filename(&path)
            .create_if_missing(false)
            .read_only(read_only)
            .busy_timeout(Duration::from_secs(5))
            .pragma("temp_store", "memory")
            .pragma("cache_size", if read_only { "-2000" } else { "-8000" });
        if read_only {
            return options;
        }
        options
            .pragma("journal_mode", "wal")
            .pragma("synchronous", "full")
            .pragma("journal_size_limit", "67108864")
            .pragma("wal_autocheckpoint", "0")
    });
    options
}

/// A full or failing disk makes SQLite roll back by itself, and the rollback after it fails: sqlx then believes that the connection
/// is inside a transaction, and begins every further one as a part of it. Once such a part is rolled back a transaction stays open
/// that nobody commits, and what is "committed" in it is not durable. Such a connection is not used again.
fn whole_transactions(options: SqlitePoolOptions) -> SqlitePoolOptions {
    options.after_release(|connection, _| {
        Box::pin(async move {
            // Behind the rollback that the transaction's end has sent.
            connection.ping().await?;
            Ok(!connection.is_in_transaction())
        })
    })
}

/// No statement reaches a log: statements carry payloads.
fn quiet(mut options: ConnectOptions, connections: u32) -> ConnectOptions {
    options
        .max_connections(connections)
        .connect_timeout(ACQUIRE_TIMEOUT)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .test_before_acquire_if_idle_for(Duration::from_secs(5))
        .sqlx_logging(false)
        .record_stmt_in_spans(false);
    options
}

/// Space that retention frees goes back to the disk step by step; the mode can only be chosen while the file is empty.
async fn vacuum_mode(writer: &DatabaseConnection) -> Result<(), Error> {
    let fresh = writer
        .query_one_raw(Statement::from_string(DbBackend::Sqlite, "select count(*) as n from sqlite_master"))
        .await?
        .map(|row| row.try_get::<i64>("", "n"))
        .transpose()?;
    if fresh == Some(0) {
        failpoint::reach("vacuum_mode", "begun").await?;
        writer.execute_unprepared("pragma auto_vacuum = incremental").await?;
        writer.execute_unprepared("vacuum").await?;
        failpoint::reach("vacuum_mode", "set").await?;
    }
    Ok(())
}
