//! The life of one entity is found by its key, and a row says when it was last compared with the upstream.
//!
//! Not quick where the logs are long: three indexes are built. PostgreSQL's limits on statements
//! do not hold meanwhile.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

use crate::{Added, add_column};

/// Adds `instep_entity.compared_at` and the indexes by entity.
#[derive(Debug)]
pub(crate) struct Histories;

impl MigrationName for Histories {
    fn name(&self) -> &str {
        "m0006_histories"
    }
}

const ENTITY: &str = "instep_entity";
const COMPARED_AT: &str = "compared_at";

/// Index, table, what orders the rows of one entity, condition.
const INDEXES: [(&str, &str, &str, Option<&str>); 3] = [
    ("instep_outcome_entity", "instep_outcome", "id", None),
    ("instep_change_entity", "instep_change", "number", None),
    ("instep_quarantine_entity", "instep_quarantine", "id", Some("key is not null")),
];

#[expect(elided_lifetimes_in_paths, reason = "async_trait wants the signature exactly as the trait has it")]
#[async_trait::async_trait]
impl MigrationTrait for Histories {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if manager.get_database_backend() == DbBackend::Postgres {
            manager.get_connection().execute_unprepared("set local statement_timeout = 0; set local lock_timeout = 0").await?;
        }
        add_column(manager, ENTITY, COMPARED_AT, Added::Int).await?;
        for (name, table, order, condition) in INDEXES {
            let mut index = Index::create();
            index.if_not_exists().name(name).table(Alias::new(table));
            for column in ["source", "resource", "key", order] {
                index.col(Alias::new(column));
            }
            if let Some(condition) = condition {
                index.and_where(Expr::cust(condition));
            }
            manager.create_index(index).await?;
            crate::between();
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, ..) in INDEXES {
            manager.drop_index(Index::drop().name(name).if_exists().to_owned()).await?;
        }
        manager.alter_table(Table::alter().table(Alias::new(ENTITY)).drop_column(Alias::new(COMPARED_AT)).take()).await
    }
}
