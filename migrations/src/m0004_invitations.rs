//! The tokens that senders were given by us: what is kept of them.
//!
//! Quick on both stores: one new table.

use sea_orm_migration::prelude::*;

/// Adds the table of invitations.
#[derive(Debug)]
pub(crate) struct Invitations;

impl MigrationName for Invitations {
    fn name(&self) -> &str {
        "m0004_invitations"
    }
}

const INVITATION: &str = "instep_invitation";

#[expect(elided_lifetimes_in_paths, reason = "async_trait wants the signature exactly as the trait has it")]
#[async_trait::async_trait]
impl MigrationTrait for Invitations {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut table = Table::create();
        table.if_not_exists().table(Alias::new(INVITATION));
        for text in ["source", "id", "route", "token_sha256"] {
            table.col(ColumnDef::new(Alias::new(text)).text().not_null());
        }
        table.col(ColumnDef::new(Alias::new("created_at")).big_integer().not_null());
        table.col(ColumnDef::new(Alias::new("revoked_at")).big_integer());
        table.primary_key(Index::create().col(Alias::new("source")).col(Alias::new("id")));
        manager.create_table(table.take()).await?;
        crate::between();
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table(Alias::new(INVITATION)).if_exists().to_owned()).await
    }
}
