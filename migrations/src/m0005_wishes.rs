//! What operators ask of the reconciler: when a gap was opened by hand, and which pass of a resource is wanted now.
//!
//! Quick on both stores: columns without a default are added in the catalogue alone.

use sea_orm_migration::prelude::*;

/// Adds `instep_gap.opened_at`, `instep_progress.asked_kind` and `instep_progress.asked_at`.
#[derive(Debug)]
pub(crate) struct Wishes;

impl MigrationName for Wishes {
    fn name(&self) -> &str {
        "m0005_wishes"
    }
}

const COLUMNS: [(&str, &str, bool); 3] =
    [("instep_gap", "opened_at", false), ("instep_progress", "asked_kind", true), ("instep_progress", "asked_at", false)];

#[expect(elided_lifetimes_in_paths, reason = "async_trait wants the signature exactly as the trait has it")]
#[async_trait::async_trait]
impl MigrationTrait for Wishes {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (table, name, is_text) in COLUMNS {
            // SQLite has no "add column if not exists".
            if manager.has_column(table, name).await? {
                continue;
            }
            let mut column = ColumnDef::new(Alias::new(name));
            if is_text {
                column.text()
            } else {
                column.big_integer()
            };
            manager.alter_table(Table::alter().table(Alias::new(table)).add_column(column).take()).await?;
            crate::between();
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
