//! A database of a test's own, and questions to it in SQL.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sea_orm::{ConnectOptions, ConnectionTrait, DatabaseConnection, Statement, TransactionTrait as _};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::{postgres, skipped};

/// Which database it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

/// A database that only one test uses, and a folder for everything else of that test.
#[derive(Clone)]
pub(crate) struct Database {
    pub(crate) engine: Engine,
    /// As it stands in the configuration.
    pub(crate) url: String,
    folder: Arc<TempDir>,
    name: String,
    /// It lies on the server that all tests share.
    is_shared: bool,
    reader: Arc<OnceCell<DatabaseConnection>>,
}

/// Rows, each value as text.
pub(crate) type Rows = Vec<Vec<Option<String>>>;

impl Database {
    /// A fresh one; `None` where there is no server, which is said aloud.
    pub(crate) async fn fresh(engine: Engine) -> Option<Self> {
        if engine == Engine::Sqlite {
            return Some(Self::new(engine, "sqlite://replica.db".to_owned(), String::new()));
        }
        let name = format!("instep_it_{}", uuid::Uuid::now_v7().simple());
        match postgres::server(&name).await {
            Ok(url) => {
                admin(&format!("create database {name}")).await;
                Some(Self { is_shared: true, ..Self::new(engine, url, name) })
            }
            Err(reason) => {
                skipped(&format!("PostgreSQL half: {reason}"));
                None
            }
        }
    }

    /// The only database of a server of the test's own.
    pub(crate) fn of_server(url: String) -> Self {
        Self::new(Engine::Postgres, url, "postgres".to_owned())
    }

    fn new(engine: Engine, url: String, name: String) -> Self {
        let folder = tempfile::Builder::new().prefix("instep-it").tempdir().expect("a folder");
        // Readers of another user come through here.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("our own folder");
        if engine == Engine::Postgres {
            // systemd makes it; on SQLite the store does.
            std::fs::create_dir(folder.path().join("state")).expect("our own folder");
        }
        Self { engine, url, folder: Arc::new(folder), name, is_shared: false, reader: Arc::default() }
    }

    /// Drops it.
    pub(crate) async fn remove(self) {
        if self.is_shared {
            admin(&format!("drop database {} with (force)", self.name)).await;
        }
    }

    /// A copy with a folder of its own. No daemon may run.
    pub(crate) async fn copied(&self) -> Self {
        let name = format!("instep_it_{}", uuid::Uuid::now_v7().simple());
        let copy = match self.engine {
            Engine::Sqlite => Self::new(Engine::Sqlite, self.url.clone(), String::new()),
            Engine::Postgres => Self { is_shared: true, ..Self::new(Engine::Postgres, self.url.replace(&self.name, &name), name) },
        };
        copy.become_like(self).await;
        copy
    }

    /// Its content becomes that of another. No daemon may run, and nobody may be connected to either.
    pub(crate) async fn become_like(&self, other: &Self) {
        match self.engine {
            Engine::Sqlite => {
                std::fs::create_dir_all(self.state()).expect("our own folder");
                for end in ["", "-wal", "-shm"] {
                    let file = |database: &Self| format!("{}{end}", database.file().display());
                    // Whichever of the two beside it is not there has nothing in it.
                    let _ = std::fs::remove_file(file(self));
                    let copied = std::fs::copy(file(other), file(self));
                    assert!(copied.is_ok() || !end.is_empty(), "{copied:?}");
                }
            }
            Engine::Postgres => {
                admin(&format!("drop database if exists {} with (force)", self.name)).await;
                admin(&format!("create database {} template {}", self.name, other.name)).await;
            }
        }
    }

    /// The name of the database on its server; empty where it is a file.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The folder of the test.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The state directory of the test's daemon, which makes it.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder().join("state")
    }

    /// The file, where it is one.
    pub(crate) fn file(&self) -> PathBuf {
        self.state().join("replica.db")
    }

    /// Closes our connection; the next question opens another.
    pub(crate) async fn disconnect(&mut self) {
        if let Some(reader) = std::mem::take(&mut self.reader).get() {
            reader.close_by_ref().await.expect("closed");
        }
    }

    async fn reader(&self) -> Result<&DatabaseConnection, String> {
        let connect = async || {
            let url = match self.engine {
                Engine::Sqlite => format!("sqlite://{}?mode=ro", self.file().display()),
                Engine::Postgres => self.url.clone(),
            };
            let mut options = ConnectOptions::new(url);
            options.max_connections(1).sqlx_logging(false).acquire_timeout(Duration::from_secs(10));
            if self.engine == Engine::Postgres {
                options.set_schema_search_path("public,instep");
            }
            sea_orm::Database::connect(options).await
        };
        self.reader.get_or_try_init(connect).await.map_err(|error| error.to_string())
    }

    /// The rows of a query, unchanged but for the parentheses round it; each column as text.
    pub(crate) async fn try_rows(&self, sql: &str, columns: &[&str]) -> Result<Rows, String> {
        let shown: Vec<String> = columns.iter().enumerate().map(|(at, name)| format!("cast(x.\"{name}\" as text) as c{at}")).collect();
        let text = format!("select {} from ({sql}) x", shown.join(", "));
        let reader = self.reader().await?;
        let statement = Statement::from_string(reader.get_database_backend(), text);
        let rows = reader.query_all_raw(statement).await.map_err(|error| format!("{sql}: {error}"))?;
        let value = |row: &sea_orm::QueryResult, at: usize| row.try_get::<Option<String>>("", &format!("c{at}")).expect("it is text");
        Ok(rows.iter().map(|row| (0..columns.len()).map(|at| value(row, at)).collect()).collect())
    }

    /// As [`Self::try_rows`], for a database that is there.
    pub(crate) async fn rows(&self, sql: &str, columns: &[&str]) -> Rows {
        self.try_rows(sql, columns).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The only number of a query whose column is `n`.
    pub(crate) async fn try_number(&self, sql: &str) -> Result<i64, String> {
        let rows = self.try_rows(sql, &["n"]).await?;
        let text = rows.first().and_then(|row| row.first().cloned().flatten()).ok_or_else(|| format!("{sql}: no number"))?;
        text.parse().map_err(|_| format!("{sql}: {text} is no number"))
    }

    /// As [`Self::try_number`], for a database that is there.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        self.try_number(sql).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// A column of texts named `v`.
    pub(crate) async fn texts(&self, sql: &str) -> Vec<String> {
        self.rows(sql, &["v"]).await.into_iter().flatten().map(Option::unwrap_or_default).collect()
    }

    /// How many changes there are; each number from 1 to the next free one must stand once.
    pub(crate) async fn assert_numbers_without_holes(&self) -> i64 {
        let sql = "select count(*) as n, count(distinct number) as d, coalesce(min(number), 1) as low, coalesce(max(number), 0) as high \
                   from instep_changes";
        let row = self.rows(sql, &["n", "d", "low", "high"]).await.remove(0);
        let numbers: Vec<i64> = row.into_iter().map(|text| text.and_then(|text| text.parse().ok()).expect("numbers")).collect();
        let n = numbers[0];
        assert_eq!(numbers, [n, n, 1, n], "count, distinct, lowest, highest");
        assert_eq!(self.number("select next_change as n from instep_source").await, n + 1, "the next number follows the last change");
        n
    }

    /// How these bytes stand in a statement.
    pub(crate) fn blob(&self, bytes: impl AsRef<[u8]>) -> String {
        let hex: String = bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        if self.engine == Engine::Postgres { format!("'\\x{hex}'::bytea") } else { format!("x'{hex}'") }
    }

    /// Changes rows behind the daemon's back, which must not run.
    pub(crate) async fn execute(&self, sql: &str) {
        let url = match self.engine {
            Engine::Sqlite => format!("sqlite://{}?mode=rw", self.file().display()),
            Engine::Postgres => self.url.clone(),
        };
        let mut options = ConnectOptions::new(url);
        options.max_connections(1).sqlx_logging(false).set_schema_search_path("public,instep");
        let writer = sea_orm::Database::connect(options).await.expect("the database is there");
        writer.execute_unprepared(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        writer.close().await.expect("closed");
    }

    /// Bytes of the database and of its WAL; PostgreSQL's WAL belongs to the server and counts as none.
    pub(crate) async fn bytes(&self) -> Result<(u64, u64), String> {
        if self.engine == Engine::Postgres {
            let n = self.try_number(&format!("select pg_database_size('{}') as n", self.name)).await?;
            return Ok((u64::try_from(n).unwrap_or(0), 0));
        }
        let size = |path: PathBuf| std::fs::metadata(path).map_or(0, |data| data.len());
        Ok((size(self.file()), size(self.file().with_extension("db-wal"))))
    }

    /// Opens a transaction that reads, and leaves it idle for so long, as an application with a mistake does.
    pub(crate) async fn read_without_end(&self, span: Duration) {
        let mut other = self.clone();
        other.reader = Arc::default();
        let reader = other.reader().await.expect("the database is there");
        let idle = reader.begin().await.expect("a transaction");
        if self.engine == Engine::Postgres {
            // Otherwise the snapshot ends with the question.
            idle.execute_unprepared("set transaction isolation level repeatable read").await.expect("a setting");
        }
        let statement = Statement::from_string(reader.get_database_backend(), "select count(*) from instep_sources");
        // The question is what takes the snapshot.
        idle.query_all_raw(statement).await.expect("an answer");
        super::until(super::monotonic() + span).await;
        idle.rollback().await.expect("ended");
        other.disconnect().await;
    }

    /// Does what the server's autovacuum does, where that is off as on machines for tests.
    pub(crate) async fn vacuum(&self) {
        if self.engine == Engine::Postgres {
            let connection = sea_orm::Database::connect(&self.url).await.expect("the database is there");
            connection.execute_unprepared("vacuum").await.expect("vacuumed");
            connection.close().await.expect("closed");
        }
    }

    /// Cuts every connection of the daemon to a server; a file has none.
    pub(crate) async fn cut_connections(&self) {
        if self.engine == Engine::Postgres {
            let of = format!("from pg_stat_activity where datname = '{}' and application_name = 'instep'", self.name);
            admin(&format!("select pg_terminate_backend(pid) {of}")).await;
        }
    }

    /// How the database would run a query, on one connection after `before`.
    pub(crate) async fn plan(&self, before: &str, sql: &str) -> String {
        let reader = self.reader().await.expect("the database is there");
        let (explain, column) = match self.engine {
            Engine::Sqlite => ("explain query plan", "detail"),
            Engine::Postgres => ("explain", "QUERY PLAN"),
        };
        if !before.is_empty() {
            reader.execute_unprepared(before).await.expect("a setting");
        }
        let statement = Statement::from_string(reader.get_database_backend(), format!("{explain} {sql}"));
        let rows = reader.query_all_raw(statement).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let lines: Vec<String> = rows.iter().map(|row| row.try_get("", column).expect("a line")).collect();
        lines.join("\n")
    }
}

/// Runs a statement on the server's own database.
async fn admin(sql: &str) {
    let url = postgres::server("postgres").await.expect("the server was there");
    let connection = sea_orm::Database::connect(url).await.expect("the server was there");
    connection.execute_unprepared(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    connection.close().await.expect("closed");
}
