//! What operators ask of the reconciler: when a gap was opened by hand, and which pass of a resource is wanted now.
//!
//! Quick on both stores: columns without a default are added in the catalogue alone.

use sea_orm_migration::prelude::*;

use crate::{Added, add_column};

/// Adds `instep_gap.opened_at`, `instep_progress.asked_kind` and `instep_progress.asked_at`.
#[derive(Debug)]
pub(crate) struct Wishes;

impl MigrationName for Wishes {
    fn name(&self) -> &str {
        "m0005_wishes"
    }
}

const COLUMNS: [(&str, &str, Added); 3] =
    [("instep_gap", "opened_at", Added::Int), ("instep_progress", "asked_kind", Added::Text), ("instep_progress", "asked_at", Added::Int)];

#[expect(elided_lifetimes_in_paths, reason = "async_trait wants the signature exactly as the trait has it")]
#[async_trait::async_trait]
impl MigrationTrait for Wishes {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (table, name, kind) in COLUMNS {
            add_column(manager, table, name, kind).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (table, name, _) in COLUMNS {
            manager.alter_table(Table::alter().table(Alias::new(table)).drop_column(Alias::new(name)).take()).await?;
        }
        Ok(())
    }
}
