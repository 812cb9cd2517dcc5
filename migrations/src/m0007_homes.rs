//! Since when a registration was not seen working, and where an instance is at home.
//!
//! Quick on both stores: columns that may be null, and one new table.

use sea_orm_migration::prelude::*;

/// Adds when registrations were last seen working, and the homes of instances.
#[derive(Debug)]
pub(crate) struct Homes;

impl MigrationName for Homes {
    fn name(&self) -> &str {
        "m0007_homes"
    }
}

const HOME: &str = "instep_home";
/// Table, column, whether it is text.
const COLUMNS: [(&str, &str, bool); 3] =
    [("instep_registration", "healthy_at", false), ("instep_instance", "name", true), ("instep_instance", "host", true)];

#[expect(elided_lifetimes_in_paths, reason = "async_trait wants the signature exactly as the trait has it")]
#[async_trait::async_trait]
impl MigrationTrait for Homes {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (table, name, is_text) in COLUMNS {
            // SQLite has no "add column if not exists".
            if !manager.has_column(table, name).await? {
                let mut column = ColumnDef::new(Alias::new(name));
                if is_text {
                    column.text()
                } else {
                    column.big_integer()
                };
                manager.alter_table(Table::alter().table(Alias::new(table)).add_column(column).take()).await?;
                crate::between();
            }
        }
        let mut table = Table::create();
        table.if_not_exists().table(Alias::new(HOME));
        for text in ["source", "host", "public_url"] {
            table.col(ColumnDef::new(Alias::new(text)).text().not_null());
        }
        table.col(ColumnDef::new(Alias::new("at")).big_integer().not_null());
        table.primary_key(Index::create().col(Alias::new("source")));
        manager.create_table(table.take()).await?;
        crate::between();
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table(Alias::new(HOME)).if_exists().to_owned()).await?;
        for (table, name, _) in COLUMNS {
            manager.alter_table(Table::alter().table(Alias::new(table)).drop_column(Alias::new(name)).take()).await?;
        }
        Ok(())
    }
}
