//! Reading with a deadline: a server that hangs must not hold up whoever reads.

use std::future::Future;
use std::time::Duration;

use sea_orm::prelude::async_trait::async_trait;
use sea_orm::{ConnAcquireErr, ConnectionTrait, DatabaseConnection, DbBackend, DbErr, ExecResult, QueryResult, Statement};

use crate::store::connect::Engine;

/// One read on PostgreSQL. The server's own statement timeout (10 s) ends first, unless the server hangs.
const READ_TIMEOUT: Duration = Duration::from_secs(12);

/// The connection that reads. SQLite answers out of a file and needs no deadline; a long count there ends by itself.
#[derive(Clone, Copy)]
pub(crate) struct Reads<'a> {
    db: &'a DatabaseConnection,
    engine: Engine,
}

impl<'a> Reads<'a> {
    pub(crate) fn new(db: &'a DatabaseConnection, engine: Engine) -> Self {
        Self { db, engine }
    }

    async fn in_time<T>(&self, read: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
        match self.engine {
            Engine::Sqlite => read.await,
            Engine::Postgres => {
                let read = tokio::time::timeout(READ_TIMEOUT, read).await;
                read.unwrap_or(Err(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)))
            }
        }
    }
}

#[async_trait]
impl ConnectionTrait for Reads<'_> {
    fn get_database_backend(&self) -> DbBackend {
        self.db.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.in_time(self.db.execute_raw(statement)).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.in_time(self.db.execute_unprepared(sql)).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.in_time(self.db.query_one_raw(statement)).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.in_time(self.db.query_all_raw(statement)).await
    }
}
