//! The interface for everybody else: views, with the same names and columns on both stores.

use sea_orm::ConnectionTrait;
use sea_orm::sea_query::{Expr, ExprTrait, OnConflict, Query};
use sha2::{Digest, Sha256};

use crate::connectors::ResourceSpec;
use crate::model::SourceName;
use crate::store::connect::{Engine, Lane, Store, Tx};
use crate::store::error::{Error, Kind};

mod columns;
mod own;
#[cfg(test)]
mod tests;
mod values;

/// A view and the statements that it rests on.
struct View {
    name: String,
    /// Generated columns, functions, indexes: statements that may run again.
    before: Vec<String>,
    query: String,
}

impl Store {
    /// Makes or renews the views of a source: `<source>_<resource>` holds live rows, `<source>_<resource>_all` tombstones too, and
    /// a resource with a map of values has a view of those.
    ///
    /// # Errors
    /// [`Kind::Schema`] if a statement is refused (a role to grant to that does not exist), [`Kind::Unavailable`].
    pub async fn install_views(&self, source: &SourceName, specs: &[ResourceSpec]) -> Result<(), Error> {
        let engine = self.inner.engine;
        for spec in specs {
            for all in [false, true] {
                self.install(&columns::view(engine, source, spec, all)).await?;
            }
            if let Some(view) = spec.values.as_ref().and_then(|values| values::view(engine, source, spec, values)) {
                self.install(&view).await?;
            }
        }
        self.run(|| async {
            let tx = self.begin(Lane::Work, "known_resources").await?;
            for spec in specs {
                // So that `instep_resources` tells of it before its first record.
                let insert = Query::insert()
                    .into_table("instep_progress")
                    .columns(["source", "resource", "bulk_unsupported"])
                    .values_panic([source.as_str().into(), spec.name.as_str().into(), false.into()])
                    .on_conflict(OnConflict::new().do_nothing().to_owned())
                    .take();
                tx.db.execute(&insert).await?;
            }
            tx.commit().await
        })
        .await
    }

    pub(crate) async fn install_own_views(&self) -> Result<(), Error> {
        for view in own::views(self.inner.engine) {
            self.install(&view).await?;
        }
        Ok(())
    }

    pub(crate) async fn create_instance(&self) -> Result<(), Error> {
        let generation = uuid::Uuid::now_v7().to_string();
        // The last digits: the first are those of the time.
        let name = generation[generation.len() - 8..].to_owned();
        let insert = Query::insert()
            .into_table("instep_instance")
            .columns(["id", "generation", "created_at", "name"])
            .values_panic(["instance".into(), generation.into(), self.now().0.into(), name.into()])
            .on_conflict(OnConflict::column("id").value("name", Expr::cust("coalesce(instep_instance.name, excluded.name)")).to_owned())
            .take();
        let tx = self.begin(Lane::Work, "instance").await?;
        tx.db.execute(&insert).await?;
        tx.commit().await
    }

    /// Makes the view anew if its definition has changed: applications may hold plans and grants of the old one.
    async fn install(&self, view: &View) -> Result<(), Error> {
        let engine = self.inner.engine;
        let name = quoted(&view.name);
        let schema = if engine == Engine::Postgres { "public." } else { "" };
        let mut statements = view.before.clone();
        statements.push(format!("drop view if exists {schema}{name}"));
        statements.push(format!("create view {schema}{name} as {}", view.query));
        if engine == Engine::Postgres {
            for role in &self.inner.grant {
                statements.push(format!("grant select on {schema}{name} to {}", quoted(role)));
            }
        }
        let definition: String = Sha256::digest(statements.join(";\n").as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let tx = self.begin(Lane::Work, "view").await?;
        if self.holds(&tx, &view.name, &definition).await? {
            return Ok(());
        }
        if engine == Engine::Postgres {
            tx.db.execute_unprepared("set local statement_timeout = 0").await?;
        }
        for statement in &statements {
            match tx.db.execute_unprepared(statement).await.map_err(Error::from) {
                // SQLite has no "add column if not exists".
                Err(error) if error.to_string().starts_with("duplicate column name") => {}
                Err(error) if error.kind() == Kind::Bug => {
                    return Err(Error::new(Kind::Schema, format!("cannot make the view {}: {error}", view.name)));
                }
                done => {
                    done?;
                }
            }
        }
        let known = Query::insert()
            .into_table("instep_view")
            .columns(["name", "definition"])
            .values_panic([view.name.as_str().into(), definition.into()])
            .on_conflict(OnConflict::column("name").update_column("definition").to_owned())
            .take();
        tx.db.execute(&known).await?;
        tx.commit().await
    }

    async fn holds(&self, tx: &Tx<'_>, name: &str, definition: &str) -> Result<bool, Error> {
        let mut known = Query::select();
        known.column("definition").from("instep_view").and_where(Expr::col("name").eq(name));
        let known: Option<String> = tx.db.query_one(&known).await?.map(|row| row.try_get("", "definition")).transpose()?;
        Ok(known.as_deref() == Some(definition))
    }
}

/// An identifier in quotes.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in quotes.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Our instants (microseconds) as the views show them: `timestamptz`, or ISO 8601 in UTC of one width, so that text sorts as time.
fn instant(engine: Engine, column: &str) -> String {
    match engine {
        Engine::Postgres => format!("(timestamptz 'epoch' + {column} * interval '1 microsecond')"),
        Engine::Sqlite => {
            format!("(strftime('%Y-%m-%dT%H:%M:%S', {column} / 1000000, 'unixepoch') || printf('.%06dZ', {column} % 1000000))")
        }
    }
}
