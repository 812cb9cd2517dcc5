//! Where logs of numbered events stand, and of which record each of their numbers is.

use sea_orm_migration::prelude::*;

/// Adds the tables of logs and of their numbers.
#[derive(Debug)]
pub(crate) struct Logs;

impl MigrationName for Logs {
    fn name(&self) -> &str {
        "m0003_logs"
    }
}

const LOG: &str = "instep_log";
const SEQUENCE: &str = "instep_sequence";

#[expect(elided_lifetimes_in_paths, reason = "async_trait wants the signature exactly as the trait has it")]
#[async_trait::async_trait]
impl MigrationTrait for Logs {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(log()).await?;
        crate::between();
        manager.create_table(sequence()).await?;
        crate::between();
        let mut index = Index::create();
        index.if_not_exists().name("instep_sequence_at").table(Alias::new(SEQUENCE)).col(Alias::new("at"));
        manager.create_index(index.take()).await?;
        crate::between();
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [SEQUENCE, LOG] {
            manager.drop_table(Table::drop().table(Alias::new(table)).if_exists().to_owned()).await?;
        }
        Ok(())
    }
}

fn table(name: &str, texts: &[&str], numbers: &[&str], key: &[&str]) -> TableCreateStatement {
    let mut table = Table::create();
    table.if_not_exists().table(Alias::new(name));
    for text in texts {
        table.col(ColumnDef::new(Alias::new(*text)).text().not_null());
    }
    for number in numbers {
        table.col(ColumnDef::new(Alias::new(*number)).big_integer().not_null());
    }
    let mut primary = Index::create();
    for column in key {
        primary.col(Alias::new(*column));
    }
    table.primary_key(&mut primary);
    table.take()
}

/// `floor`: above it the next poll begins; `began_at`: notes of numbers that are not younger are of a log that is no more.
fn log() -> TableCreateStatement {
    let mut table = table(LOG, &["source", "feed", "label"], &["high", "floor", "began_at", "polled_at"], &["source", "feed"]);
    for number in ["walk_after", "walk_ceiling"] {
        table.col(ColumnDef::new(Alias::new(number)).big_integer());
    }
    table.take()
}

fn sequence() -> TableCreateStatement {
    table(SEQUENCE, &["source", "label", "resource", "key"], &["number", "at"], &["source", "label", "number"])
}
