//! Reading the views from outside the daemon: read-only, without its lock, on both stores.
//!
//! SQLite: the file is opened read-only beside the running daemon, as any other program may. PostgreSQL: one connection whose
//! transactions are all read-only.

use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};

use crate::store::connect::{self, Engine};
use crate::store::error::{Error, Kind};
use crate::store::files;

/// Rows as texts, column by column; `None` is SQL's null.
pub type TextRow = Vec<Option<String>>;

/// A reader of the views.
#[derive(Debug)]
pub struct Reader {
    db: DatabaseConnection,
    engine: Engine,
}

impl Reader {
    /// Opens the database of a store that a daemon may be using.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] while it is not there, [`Kind::Schema`] for a url of another kind.
    pub async fn open(url: &str) -> Result<Self, Error> {
        if let Some(path) = files::sqlite_path(url)? {
            let db = connect::connect(connect::sqlite(&path, 1, true)).await?;
            return Ok(Self { db, engine: Engine::Sqlite });
        }
        let db = server(url).await?;
        db.execute_unprepared("set session characteristics as transaction read only; set statement_timeout = '60s'").await?;
        Ok(Self { db, engine: Engine::Postgres })
    }

    /// Selects `columns` (SQL expressions) as texts from `source` (a view's name, with any condition behind it).
    ///
    /// # Errors
    /// What the database says of the statement, [`Kind::Unavailable`].
    pub async fn texts(&self, columns: &[&str], source: &str) -> Result<Vec<TextRow>, Error> {
        let list: Vec<String> = columns.iter().map(|column| format!("cast({column} as text)")).collect();
        let sql = format!("select {} from {source}", list.join(", "));
        let rows = self.db.query_all_raw(Statement::from_string(connect::backend(self.engine), sql)).await?;
        let texts = |row: sea_orm::QueryResult| (0..columns.len()).map(|index| row.try_get_by_index(index)).collect::<Result<TextRow, _>>();
        Ok(rows.into_iter().map(texts).collect::<Result<_, _>>()?)
    }
}

/// Makes an empty database on the server of `url`; for trials that must leave nothing behind.
///
/// # Errors
/// What the server says, [`Kind::Unavailable`].
pub async fn create_database(url: &str, name: &str) -> Result<(), Error> {
    let db = server(url).await?;
    db.execute_unprepared(&format!("create database \"{}\"", name.replace('"', "\"\""))).await?;
    Ok(db.close().await?)
}

/// Drops a database that [`create_database`] made, together with whoever is still connected to it.
///
/// # Errors
/// What the server says, [`Kind::Unavailable`].
pub async fn drop_database(url: &str, name: &str) -> Result<(), Error> {
    let db = server(url).await?;
    db.execute_unprepared(&format!("drop database if exists \"{}\" with (force)", name.replace('"', "\"\""))).await?;
    Ok(db.close().await?)
}

async fn server(url: &str) -> Result<DatabaseConnection, Error> {
    let rest = url.strip_prefix("postgresql:").or_else(|| url.strip_prefix("postgres:"));
    let rest = rest.ok_or_else(|| Error::new(Kind::Schema, "the store url begins with neither sqlite: nor postgresql:"))?;
    connect::connect(connect::postgres(&format!("postgres:{rest}"), 1)).await
}
