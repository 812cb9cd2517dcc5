//! The views that belong to no single source, and PostgreSQL's functions that turn text into types without failing.

use super::{View, instant};
use crate::store::connect::Engine;

/// Functions without exception blocks: those would forbid parallel plans. Each checks before it casts.
const FUNCTIONS: [&str; 4] = [
    "create or replace function instep.to_integer(t text) returns bigint language sql immutable parallel safe as \
     $$ select case when t ~ '^-?[0-9]{1,18}$' then t::bigint end $$",
    "create or replace function instep.to_real(t text) returns double precision language sql immutable parallel safe as \
     $$ select case when length(t) <= 200 and t ~ '^-?[0-9]+(\\.[0-9]+)?([eE][-+]?[0-9]{1,2})?$' then t::double precision end $$",
    "create or replace function instep.to_date(t text) returns date language sql immutable parallel safe as \
     $$ select case when t ~ '^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$' and substr(t, 1, 4) <> '0000' then \
     case when substr(t, 9, 2)::int <= extract(day from make_date(substr(t, 1, 4)::int, substr(t, 6, 2)::int, 1) + interval '1 month' - interval '1 day') \
     then make_date(substr(t, 1, 4)::int, substr(t, 6, 2)::int, substr(t, 9, 2)::int) end end $$",
    "create or replace function instep.to_instant(t text) returns timestamptz language sql stable parallel safe as \
     $$ select case when t ~ '^[0-9-]{10}[T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[-+](0[0-9]|1[0-4]):[0-5][0-9])?$' \
     and instep.to_date(substr(t, 1, 10)) is not null \
     then (case when t ~ '(Z|[-+][0-9]{2}:[0-9]{2})$' then t else t || 'Z' end)::timestamptz end $$",
];

/// All of them.
pub(super) fn views(engine: Engine) -> Vec<View> {
    let at = |column: &str| instant(engine, column);
    let before = if engine == Engine::Postgres { FUNCTIONS.map(str::to_owned).to_vec() } else { Vec::new() };
    let seconds = match engine {
        Engine::Postgres => "cast(extract(epoch from clock_timestamp()) as bigint)",
        Engine::Sqlite => "unixepoch()",
    };
    let view = |name: &str, query: String| View { name: name.to_owned(), before: Vec::new(), query };
    let count = |table: &str, condition: &str| format!("(select count(*) from {table} x where x.source = s.name{condition})");
    let mut views = vec![
        view(
            "instep_changes",
            format!(
                "select source, number, epoch, resource, key, operation, version, {} as upstream_at, {} as at, learned_by, \
                 delivery_id, changed from instep_change",
                at("upstream_at"),
                at("at")
            ),
        ),
        view(
            "instep_events",
            format!(
                "select source, via, delivery_id, resource, key, operation, {} as received_at, outcome, reason from instep_outcome",
                at("received_at")
            ),
        ),
        view(
            "instep_resources",
            format!(
                "select source, resource, (select count(*) from instep_entity e where e.source = p.source \
                 and e.resource = p.resource and e.deleted_at is null) as \"rows\", \
                 {live} as live_as_of, {live} as as_of, {} as complete_as_of from instep_progress p",
                at("complete_as_of"),
                live = at(LIVE)
            ),
        ),
        view(
            "instep_sources",
            format!(
                "select s.name as source, s.epoch, s.owner, \
                 {seconds} - (select min(x.received_at) / 1000000 from instep_delivery x where x.source = s.name and x.state = 'pending') \
                 as oldest_pending_s, {} as pending, {} as marks, {} as quarantined, {} as open_gaps, {} as last_pass_at \
                 from instep_source s",
                count("instep_delivery", " and x.state = 'pending'"),
                count("instep_mark", ""),
                count("instep_quarantine", ""),
                count("instep_gap", " and x.state = 'open'"),
                at("(select max(x.ended_at) from instep_progress x where x.source = s.name)"),
            ),
        ),
        view(
            "instep_gaps",
            format!(
                "select id, source, {} as began_at, {} as ended_at, cause, state, pass_id from instep_gap",
                at("began_at"),
                at("ended_at")
            ),
        ),
        view("instep_answers", format!("select {} as minute, source, status, n from instep_answer", at("minute"))),
        view(
            "instep_feed",
            "select s.name as source, i.generation, (select min(c.number) from instep_change c where c.source = s.name) as oldest, \
             s.next_change - 1 as newest from instep_source s cross join instep_instance i"
                .to_owned(),
        ),
    ];
    views[0].before = before;
    views
}

/// The newest stamp applied, but not beyond the beginning of an open gap.
const LIVE: &str = "(select case when min(g.began_at) < p.live_as_of then min(g.began_at) else p.live_as_of end \
                    from instep_gap g where g.source = p.source and g.state = 'open')";
