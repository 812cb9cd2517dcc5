//! The first schema.
//!
//! Names of tables are singular, so that none collides with a view (`instep_sources`, `instep_changes`, …). Instants are whole
//! microseconds since the epoch (UTC). `text` columns hold no NUL: the writers see to it.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

/// Makes every table of the first release.
#[derive(Debug)]
pub(crate) struct Tables;

impl MigrationName for Tables {
    fn name(&self) -> &str {
        "m0001_tables"
    }
}

/// `name kind` with kind one of `text`, `int`, `bool`, `bytes`, `json`, `id`; a trailing `?` allows NULL.
type Columns = &'static [&'static str];

/// Table, columns, primary key.
const TABLES: &[(&str, Columns, &[&str])] = &[
    ("instep_instance", &["id text", "generation text", "created_at int"], &["id"]),
    ("instep_heartbeat", &["name text", "at int"], &["name"]),
    ("instep_source", &["name text", "epoch int", "owner text?", "expires_at int?", "next_change int", "claimed_at int?"], &["name"]),
    (
        "instep_delivery",
        &[
            "id text",
            "source text",
            "received_at int",
            "dedupe text",
            "route text",
            "query text",
            "headers bytes",
            "body bytes",
            "state text",
            "attempts int",
            "reason text?",
            "done_at int?",
        ],
        &["id"],
    ),
    (
        "instep_entity",
        &[
            "source text",
            "resource text",
            "key text",
            "version text?",
            "version_field text?",
            "version_value int?",
            "version_precision int?",
            "changed_at int?",
            "payload json?",
            "raw bytes?",
            "hash bytes?",
            "deleted_at int?",
            "deleted_reason text?",
            "tick_epoch int",
            "tick_counter int",
            "first_change int",
            "last_change int",
            "looked_at int?",
            "hot_ms int",
        ],
        &["source", "resource", "key"],
    ),
    (
        "instep_mark",
        &[
            "source text",
            "resource text",
            "key text",
            "reason text",
            "hint_field text?",
            "hint_value int?",
            "hint_precision int?",
            "versionless bool",
            "announced_delete bool",
            "last_hint_at int",
            "tick_epoch int",
            "tick_counter int",
            "attempts int",
            "not_before int",
            "agreeing_hash bytes?",
            "agreeing_epoch int?",
            "agreeing_counter int?",
            "agreeing_since int?",
            "missing_since int?",
            "confirm bool",
            "held bool",
            "note text?",
        ],
        &["source", "resource", "key"],
    ),
    (
        "instep_change",
        &[
            "source text",
            "number int",
            "epoch int",
            "resource text",
            "key text",
            "operation text",
            "version text?",
            "upstream_at int?",
            "at int",
            "learned_by text",
            "delivery_id text?",
            "changed json",
            "unannounced bool",
        ],
        &["source", "number"],
    ),
    (
        "instep_outcome",
        &[
            "id id",
            "source text",
            "via text",
            "delivery_id text?",
            "resource text",
            "key text",
            "operation text",
            "received_at int",
            "outcome text",
            "reason text?",
        ],
        &[],
    ),
    (
        "instep_pass",
        &[
            "id text",
            "source text",
            "resource text",
            "kind text",
            "variant int",
            "cursor text?",
            "lower_bound int?",
            "first_epoch int",
            "first_counter int",
            "first_date int?",
            "high_stamp int?",
            "started_at int",
            "ended_at int?",
            "state text",
            "pages int",
            "records int",
            "restarted bool",
            "note text?",
        ],
        &["id"],
    ),
    ("instep_seen", &["source text", "label text", "id text", "at int"], &["source", "label", "id"]),
    (
        "instep_progress",
        &[
            "source text",
            "resource text",
            "watermark int?",
            "incremental_at int?",
            "sweep_at int?",
            "ended_at int?",
            "live_as_of int?",
            "complete_as_of int?",
            "control_key text?",
            "bulk_unsupported bool",
        ],
        &["source", "resource"],
    ),
    ("instep_cursor", &["source text", "feed text", "since int?", "cursor text?", "at int"], &["source", "feed"]),
    ("instep_gap", &["id id", "source text", "began_at int", "ended_at int?", "cause text", "state text", "pass_id text?"], &[]),
    ("instep_answer", &["minute int", "source text", "status int", "n int"], &["minute", "source", "status"]),
    ("instep_permit_block", &["id id", "scope text", "limit_id text", "amount int", "booked_at int", "finished_at int?"], &[]),
    (
        "instep_registration",
        &["source text", "route text", "upstream_id text", "secret text?", "created_at int", "replaced_at int?", "state text"],
        &["source", "route", "upstream_id"],
    ),
    (
        "instep_quarantine",
        &["id id", "source text", "kind text", "resource text?", "key text?", "reason text", "body bytes?", "delivery_id text?", "at int"],
        &[],
    ),
    ("instep_view", &["name text", "definition text"], &["name"]),
];

/// Index, table, columns, condition, unique.
type IndexDef = (&'static str, &'static str, Columns, Option<&'static str>, bool);

const INDEXES: &[IndexDef] = &[
    ("instep_delivery_dedupe", "instep_delivery", &["source", "dedupe"], Some("state = 'pending'"), true),
    ("instep_delivery_pending", "instep_delivery", &["source", "received_at", "id"], Some("state = 'pending'"), false),
    ("instep_delivery_done", "instep_delivery", &["done_at"], Some("state <> 'pending'"), false),
    ("instep_entity_live", "instep_entity", &["source", "resource"], Some("deleted_at is null"), false),
    ("instep_entity_deleted", "instep_entity", &["source", "resource", "deleted_at"], Some("deleted_at is not null"), false),
    ("instep_mark_due", "instep_mark", &["source", "resource", "not_before"], None, false),
    ("instep_change_at", "instep_change", &["at"], None, false),
    ("instep_change_removed", "instep_change", &["source", "resource", "at"], Some("unannounced"), false),
    ("instep_outcome_at", "instep_outcome", &["received_at"], None, false),
    ("instep_pass_running", "instep_pass", &["source", "resource"], Some("state = 'running'"), true),
    ("instep_pass_ended", "instep_pass", &["ended_at"], None, false),
    ("instep_seen_at", "instep_seen", &["at"], None, false),
    ("instep_gap_open", "instep_gap", &["source", "cause"], Some("state = 'open'"), true),
    ("instep_permit_block_scope", "instep_permit_block", &["scope"], None, false),
    ("instep_quarantine_at", "instep_quarantine", &["source", "at"], None, false),
];

#[expect(elided_lifetimes_in_paths, reason = "async_trait wants the signature exactly as the trait has it")]
#[async_trait::async_trait]
impl MigrationTrait for Tables {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, columns, key) in TABLES {
            manager.create_table(table(manager.get_database_backend(), name, columns, key)).await?;
            crate::between();
        }
        for (name, on, columns, condition, unique) in INDEXES {
            let mut index = Index::create();
            index.if_not_exists().name(*name).table(Alias::new(*on));
            for column in *columns {
                index.col(Alias::new(*column));
            }
            if let Some(condition) = condition {
                index.and_where(Expr::cust(*condition));
            }
            if *unique {
                index.unique();
            }
            manager.create_index(index).await?;
            crate::between();
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, _, _) in TABLES.iter().rev() {
            manager.drop_table(Table::drop().table(Alias::new(*name)).if_exists().to_owned()).await?;
        }
        Ok(())
    }
}

fn table(backend: DbBackend, name: &str, columns: Columns, key: &[&str]) -> TableCreateStatement {
    let mut table = Table::create();
    table.if_not_exists().table(Alias::new(name));
    for column in columns {
        table.col(column_def(backend, column));
    }
    if !key.is_empty() {
        let mut primary = Index::create();
        for column in key {
            primary.col(Alias::new(*column));
        }
        table.primary_key(&mut primary);
    }
    table.take()
}

fn column_def(backend: DbBackend, text: &str) -> ColumnDef {
    let (name, kind) = text.split_once(' ').unwrap_or((text, "text"));
    let (kind, nullable) = kind.strip_suffix('?').map_or((kind, false), |kind| (kind, true));
    let mut column = ColumnDef::new(Alias::new(name));
    match kind {
        "int" => column.big_integer(),
        "bool" => column.boolean(),
        "bytes" => column.blob(),
        "id" => column.big_integer().auto_increment().primary_key(),
        "json" if backend == DbBackend::Postgres => column.json_binary(),
        "json" => column.text().check(Expr::cust(format!("json_valid({name})"))),
        _ => column.text(),
    };
    if !nullable {
        column.not_null();
    }
    column
}
