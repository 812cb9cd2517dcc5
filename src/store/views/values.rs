//! A view of a map of values: a row for each, whatever the map holds. What is not as declared gives no row, never a failing query.

use super::columns::{postgres_path, sqlite_path};
use super::{View, literal};
use crate::connectors::{ResourceSpec, ValuesView};
use crate::model::SourceName;
use crate::store::connect::Engine;

/// The view `<source>_<name>` over live rows: `key, attribute, locale, scope, data, text`. `data` is JSON; `text` is there for
/// scalars. `None`: the pointer cannot be written as a path of this store.
pub(super) fn view(engine: Engine, source: &SourceName, spec: &ResourceSpec, values: &ValuesView) -> Option<View> {
    let live = format!("e.source = {} and e.resource = {} and e.deleted_at is null", literal(source.as_str()), literal(spec.name.as_str()));
    let query = match engine {
        Engine::Postgres => postgres(&postgres_path(&values.pointer), &live),
        Engine::Sqlite => sqlite(&sqlite_path(&values.pointer)?, &live),
    };
    Some(View { name: format!("{source}_{}", values.name), before: Vec::new(), query })
}

/// A map without entries may be written as a list; then there are none.
fn postgres(path: &str, live: &str) -> String {
    let map = format!("e.payload #> {path}");
    let scalar = "jsonb_typeof(v.value -> 'data') in ('string', 'number', 'boolean')";
    format!(
        "select e.key, a.attribute, v.value ->> 'locale' as locale, v.value ->> 'scope' as scope, \
         nullif(v.value -> 'data', 'null'::jsonb) as data, case when {scalar} then v.value ->> 'data' end as text \
         from instep_entity e \
         cross join lateral jsonb_each(case when jsonb_typeof({map}) = 'object' then {map} else '{{}}'::jsonb end) as a(attribute, list) \
         cross join lateral jsonb_array_elements(case when jsonb_typeof(a.list) = 'array' then a.list else '[]'::jsonb end) as v(value) \
         where {live} and jsonb_typeof(v.value) = 'object'"
    )
}

fn sqlite(path: &str, live: &str) -> String {
    // Scalars of a list come as SQL values, which are no JSON. Members of a map have names, those of a list have numbers; asking for
    // the payload's type would parse it once more.
    let value = "(case v.type when 'object' then v.value end)";
    let kind = format!("json_type({value}, '$.data')");
    format!(
        "select e.key, cast(a.key as text) as attribute, {value} ->> '$.locale' as locale, {value} ->> '$.scope' as scope, \
         nullif({value} -> '$.data', 'null') as data, \
         case {kind} when 'text' then {value} ->> '$.data' when 'array' then null when 'object' then null when 'null' then null \
         else {value} -> '$.data' end as text \
         from instep_entity e cross join json_each(e.payload, {path}) a \
         cross join json_each(case a.type when 'array' then a.value else '[]' end) v \
         where {live} and typeof(a.key) = 'text' and v.type = 'object'"
    )
}
