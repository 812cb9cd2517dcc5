//! A resource's view: typed columns out of the payload. A value that does not fit its type is null, never a failing query.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::{View, instant, literal, quoted};
use crate::connectors::{Column, ColumnKind, ResourceSpec};
use crate::model::SourceName;
use crate::store::connect::Engine;

/// Columns of ours, which a payload's field of the same name does not replace.
const TAKEN: [&str; 5] = ["key", "version", "payload", "deleted_at", "deleted_reason"];

/// The view of a resource; `all`: with tombstones.
pub(super) fn view(engine: Engine, source: &SourceName, spec: &ResourceSpec, all: bool) -> View {
    let mut name = format!("{source}_{}", spec.name.as_str().replace('-', "_").to_ascii_lowercase());
    let of_resource = format!("source = {} and resource = {}", literal(source.as_str()), literal(spec.name.as_str()));
    let mut before = Vec::new();
    let mut query = "select key".to_owned();
    let mut shown: Vec<&str> = TAKEN.to_vec();
    for column in &spec.columns {
        if shown.contains(&column.name.as_str()) {
            continue;
        }
        let Some(expression) = expression(engine, column) else {
            continue;
        };
        shown.push(&column.name);
        let expression = if column.reference {
            let (steps, expression) = reference(engine, &of_resource, column, &expression);
            before.extend(steps);
            expression
        } else {
            expression
        };
        let _ = write!(query, ", {expression} as {}", quoted(&column.name));
    }
    query.push_str(", version, payload");
    if all {
        name.push_str("_all");
        let _ = write!(query, ", {} as deleted_at, deleted_reason", instant(engine, "deleted_at"));
    }
    let _ = write!(query, " from instep_entity where {of_resource}");
    if !all {
        query.push_str(" and deleted_at is null");
    }
    View { name, before, query }
}

/// What makes a reference quick to join on, and the expression that the planner then recognises.
///
/// PostgreSQL: an index on the expression. SQLite wraps an expression that stands on the right side of a left join, and no
/// longer knows it as the indexed one; a generated column it does know. It is virtual (no space), shared by all resources that keep
/// a reference at the same pointer, and indexed where it is not null.
fn reference(engine: Engine, of_resource: &str, column: &Column, expression: &str) -> (Vec<String>, String) {
    let digest = |text: &str| -> String { Sha256::digest(text.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect() };
    match engine {
        Engine::Postgres => {
            let index = format!("instep_ref_{}", digest(&format!("{of_resource} {}", column.pointer)));
            let make =
                format!("create index if not exists {index} on instep_entity (({expression})) where {of_resource} and deleted_at is null");
            (vec![make], expression.to_owned())
        }
        Engine::Sqlite => {
            let name = format!("ref_{}", digest(&column.pointer));
            let add = format!("alter table instep_entity add column {name} text generated always as ({expression}) virtual");
            let index = format!(
                "create index if not exists instep_{name} on instep_entity (source, resource, {name}) \
                 where deleted_at is null and {name} is not null"
            );
            (vec![add, index], name)
        }
    }
}

/// `None`: the pointer cannot be written as a path of this store.
fn expression(engine: Engine, column: &Column) -> Option<String> {
    match engine {
        Engine::Postgres => Some(postgres(column)),
        Engine::Sqlite => sqlite(column),
    }
}

fn segments(pointer: &str) -> impl Iterator<Item = String> + '_ {
    pointer.split('/').skip(1).map(|segment| segment.replace("~1", "/").replace("~0", "~"))
}

/// A pointer as a path of PostgreSQL's, in quotes.
pub(super) fn postgres_path(pointer: &str) -> String {
    let path: Vec<String> =
        segments(pointer).map(|segment| format!("\"{}\"", segment.replace('\\', "\\\\").replace('"', "\\\""))).collect();
    literal(&format!("{{{}}}", path.join(",")))
}

fn postgres(column: &Column) -> String {
    let path = postgres_path(&column.pointer);
    let text = format!("payload #>> {path}");
    match column.kind {
        ColumnKind::Text => format!("({text})"),
        ColumnKind::Integer => format!("instep.to_integer({text})"),
        ColumnKind::Real => format!("instep.to_real({text})"),
        ColumnKind::Bool => {
            format!("(case {text} when 'true' then true when 'false' then false end)")
        }
        ColumnKind::Date => format!("instep.to_date({text})"),
        ColumnKind::Instant => format!("instep.to_instant({text})"),
        ColumnKind::Json => format!("nullif(payload #> {path}, 'null'::jsonb)"),
    }
}

/// A pointer as a path of SQLite's, in quotes; `None` where it cannot be written.
pub(super) fn sqlite_path(pointer: &str) -> Option<String> {
    let mut path = "$".to_owned();
    for segment in segments(pointer) {
        if segment.contains('"') {
            return None;
        }
        if !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit()) {
            let _ = write!(path, "[{segment}]");
        } else {
            let _ = write!(path, ".\"{segment}\"");
        }
    }
    Some(literal(&path))
}

fn sqlite(column: &Column) -> Option<String> {
    let path = sqlite_path(&column.pointer)?;
    let kind = format!("json_type(payload, {path})");
    let value = format!("json_extract(payload, {path})");
    Some(match column.kind {
        ColumnKind::Text => {
            format!("(case {kind} when 'text' then {value} when 'null' then null else payload -> {path} end)")
        }
        ColumnKind::Integer => format!(
            "(case when {kind} in ('integer', 'text') and length(ltrim({value}, '-')) between 1 and 18 \
             and ltrim({value}, '-') not glob '*[^0-9]*' and {value} not like '--%' then cast({value} as integer) end)"
        ),
        ColumnKind::Real => format!(
            "(case when {kind} in ('integer', 'real') then iif(abs({value}) < 1e300, cast({value} as real), null) \
             when {kind} = 'text' and json_valid({value}) then \
             case when json_type({value}) in ('integer', 'real') then iif(abs(cast({value} as real)) < 1e300, cast({value} as real), null) end end)"
        ),
        ColumnKind::Bool => format!(
            "(case {kind} when 'true' then 1 when 'false' then 0 when 'text' then case {value} when 'true' then 1 when 'false' then 0 end end)"
        ),
        ColumnKind::Date => {
            format!("(case when {kind} = 'text' and date({value}) = {value} then {value} end)")
        }
        ColumnKind::Instant => format!(
            "(case when {kind} = 'text' and {value} glob '????-??-??[T ]??:??:??*' \
             and date(substr({value}, 1, 10)) = substr({value}, 1, 10) \
             then strftime('%Y-%m-%dT%H:%M:%f', {value}) || '000Z' end)"
        ),
        ColumnKind::Json => format!("nullif(payload -> {path}, 'null')"),
    })
}
