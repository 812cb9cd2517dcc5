//! Schema steps: expand first, contract in a later release. Every step is re-runnable, because SQLite commits statement by
//! statement and a process may die between two of them.
//!
//! Architecture invariant: a step never uses the live code's types: it describes the schema as it was when it was written.

use sea_orm_migration::prelude::*;

pub use sea_orm_migration::MigratorTrait;

mod m0001_tables;
mod m0002_parents;
mod m0003_logs;
mod m0004_invitations;
mod m0005_wishes;
mod m0006_histories;
mod m0007_homes;

/// The steps in their order.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_tables::Tables),
            Box::new(m0002_parents::Parents),
            Box::new(m0003_logs::Logs),
            Box::new(m0004_invitations::Invitations),
            Box::new(m0005_wishes::Wishes),
            Box::new(m0006_histories::Histories),
            Box::new(m0007_homes::Homes),
        ]
    }

    fn migration_table_name() -> DynIden {
        "instep_migration".into_iden()
    }
}

/// What a column of a table that stands already is added as: either may be null.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Added {
    /// A text.
    Text,
    /// A number of 64 bits.
    Int,
}

/// Adds a column, unless a step that was cut off has added it.
pub(crate) async fn add_column(manager: &SchemaManager<'_>, table: &str, name: &str, kind: Added) -> Result<(), DbErr> {
    // SQLite has no "add column if not exists".
    if manager.has_column(table, name).await? {
        return Ok(());
    }
    let mut column = ColumnDef::new(Alias::new(name));
    match kind {
        Added::Text => column.text(),
        Added::Int => column.big_integer(),
    };
    manager.alter_table(Table::alter().table(Alias::new(table)).add_column(column).take()).await?;
    between();
    Ok(())
}

/// Between two statements of a step: with fail points the process can be made to end here (`migration::statement`).
pub(crate) fn between() {
    #[cfg(feature = "failpoints")]
    fail::fail_point!("migration::statement", |what| {
        let line = format!("fail point migration::statement: {}\n", what.unwrap_or_default());
        eprint!("{line}");
        std::process::abort()
    });
}
