//! What stands above an entity, and whose children are still to be marked.
//!
//! Quick on both stores: a column without a default is added in the catalogue alone, and the index is partial, so that no row of
//! an older release is in it.

use sea_orm_migration::prelude::*;

use crate::{Added, add_column};

/// Adds `instep_entity.parent` and the table of cascades.
#[derive(Debug)]
pub(crate) struct Parents;

impl MigrationName for Parents {
    fn name(&self) -> &str {
        "m0002_parents"
    }
}

const ENTITY: &str = "instep_entity";
const CASCADE: &str = "instep_cascade";

#[expect(elided_lifetimes_in_paths, reason = "async_trait wants the signature exactly as the trait has it")]
#[async_trait::async_trait]
impl MigrationTrait for Parents {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        add_column(manager, ENTITY, "parent", Added::Text).await?;
        // The key as well: the live children of one parent are walked in its order, a page at a time.
        let children = ["source", "resource", "parent", "key"];
        let mut index = index("instep_entity_children", ENTITY, &children);
        index.and_where(Expr::cust("deleted_at is null and parent is not null"));
        manager.create_index(index).await?;
        crate::between();
        manager.create_table(cascade()).await?;
        crate::between();
        manager.create_index(index_of_turns()).await?;
        crate::between();
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table(Alias::new(CASCADE)).if_exists().to_owned()).await?;
        manager.drop_index(Index::drop().name("instep_entity_children").if_exists().to_owned()).await?;
        let column = Alias::new("parent");
        manager.alter_table(Table::alter().table(Alias::new(ENTITY)).drop_column(column).take()).await
    }
}

fn index(name: &str, table: &str, columns: &[&str]) -> IndexCreateStatement {
    let mut index = Index::create();
    index.if_not_exists().name(name).table(Alias::new(table));
    for column in columns {
        index.col(Alias::new(*column));
    }
    index.take()
}

fn index_of_turns() -> IndexCreateStatement {
    index("instep_cascade_turn", CASCADE, &["source", "resource", "tick_epoch", "tick_counter"])
}

fn cascade() -> TableCreateStatement {
    let mut table = Table::create();
    table.if_not_exists().table(Alias::new(CASCADE));
    for text in ["source", "resource", "parent"] {
        table.col(ColumnDef::new(Alias::new(text)).text().not_null());
    }
    for flag in ["removed", "announced"] {
        table.col(ColumnDef::new(Alias::new(flag)).boolean().not_null());
    }
    for number in ["depth", "tick_epoch", "tick_counter"] {
        table.col(ColumnDef::new(Alias::new(number)).big_integer().not_null());
    }
    table.col(ColumnDef::new(Alias::new("done_to")).text());
    table.col(ColumnDef::new(Alias::new("again_depth")).big_integer());
    let mut primary = Index::create();
    for column in ["source", "resource", "parent"] {
        primary.col(Alias::new(column));
    }
    table.primary_key(&mut primary);
    table.take()
}
