//! Since when a registration was not seen working, and where an instance is at home.
//!
//! Quick on both stores: columns that may be null, and one new table.

use sea_orm_migration::prelude::*;

use crate::{Added, add_column};

/// Adds when registrations were last seen working, and the homes of instances.
#[derive(Debug)]
pub(crate) struct Homes;

impl MigrationName for Homes {
    fn name(&self) -> &str {
        "m0007_homes"
    }
}

const HOME: &str = "instep_home";
const COLUMNS: [(&str, &str, Added); 3] =
    [("instep_registration", "healthy_at", Added::Int), ("instep_instance", "name", Added::Text), ("instep_instance", "host", Added::Text)];

#[expect(elided_lifetimes_in_paths, reason = "async_trait wants the signature exactly as the trait has it")]
#[async_trait::async_trait]
impl MigrationTrait for Homes {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (table, name, kind) in COLUMNS {
            add_column(manager, table, name, kind).await?;
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
