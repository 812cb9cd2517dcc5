//! The views as their users ask them.

use std::time::Duration;

use crate::connectors::{Absence, Column, ColumnKind, ResourceSpec};
use crate::model::ordering::Spans;
use crate::model::{Entity, Key, ResourceName};
use crate::reconcile::Mode;
use crate::store::testing::{batch, on_both, read_json, source, texts};
use crate::store::{Engine, Observed, ResourceRules, Store, What};

fn spec(name: &str, columns: &[(&str, ColumnKind)]) -> ResourceSpec {
    let column = |(name, kind): &(&str, ColumnKind)| {
        let relation = name.strip_suffix("_id");
        Column {
            name: (*name).to_owned(),
            pointer: relation.map_or_else(|| format!("/a/{name}"), |relation| format!("/r/{relation}/id")),
            kind: *kind,
            reference: relation.is_some(),
        }
    };
    let hour = Duration::from_secs(3_600);
    ResourceSpec {
        name: ResourceName::new(name).expect("a name"),
        columns: columns.iter().map(column).collect(),
        mode: Mode::Sweep,
        variants: 1,
        bulk: 200,
        spans: Spans { read_lag: Duration::ZERO, list_lag: hour, version_skew: Duration::ZERO, tombstones: hour },
        absence: Absence::ByKey,
        poll: hour,
        sweep: hour,
        keep_deleted: hour,
        parent: None,
        values: None,
    }
}

fn specs() -> Vec<ResourceSpec> {
    use ColumnKind::{Bool, Date, Instant, Integer, Json, Real, Text};
    vec![
        spec("projects", &[("name", Text), ("archived_at", Instant), ("company_id", Text)]),
        spec(
            "tasks",
            &[
                ("title", Text),
                ("closed", Bool),
                ("due_date", Date),
                ("project_id", Text),
                ("n", Integer),
                ("x", Real),
                ("at", Instant),
                ("tags", Json),
            ],
        ),
        spec("time-entries", &[("time", Integer), ("billable_time", Integer), ("date", Date), ("service_id", Text)]),
        spec("services", &[("deal_id", Text)]),
        spec("deals", &[("name", Text), ("budget", Bool)]),
    ]
}

async fn put(store: &Store, records: &[(&str, &str, &str)]) {
    let fence = store.claim(&source(), "test").await.expect("claimed");
    let observe = |(resource, key, json): &(&str, &str, &str)| {
        let mut observed: Observed = read_json(&fence, key, 1, json);
        let resource = ResourceName::new(*resource).expect("a name");
        observed.entity = Entity { resource, key: Key::new(*key).expect("a key") };
        if let What::Record { record, .. } = &mut observed.what {
            record.key = observed.entity.key.clone();
        }
        observed
    };
    for part in records.chunks(200) {
        let mut page = batch(part.iter().map(observe).collect());
        page.rules = specs().iter().map(|spec| (spec.name.clone(), ResourceRules::of(spec))).collect();
        store.apply(&fence, &page).await.expect("applied");
    }
}

const TYPES: &str = "select coalesce(cast(n as text), '-') || ' ' || coalesce(cast(x as text), '-') || ' ' || \
    coalesce(cast(due_date as text), '-') || ' ' || case when at is null then '-' else 'at' end || ' ' || \
    case closed when true then 'yes' when false then 'no' else '-' end || ' ' || coalesce(title, '-') || ' ' || \
    case when tags is null then '-' else 'tags' end as v from pmp_tasks order by key";

#[tokio::test]
async fn a_value_that_does_not_fit_its_type_is_null() {
    on_both(|store| async move {
        store.install_views(&source(), &specs()).await.expect("installed");
        store.install_views(&source(), &specs()).await.expect("installed again");
        let records = [
            ("tasks", "1", r#"{"a":{"n":5,"x":1.5,"due_date":"2026-02-28","at":"2026-01-02T03:04:05.678+01:00","closed":true,"title":12345678901234567890123,"tags":[1]}}"#),
            ("tasks", "2", r#"{"a":{"n":"7","x":"2.5","due_date":"2026-02-30","at":"yesterday","closed":"maybe","title":"t","tags":null}}"#),
            ("tasks", "3", r#"{"a":{"n":"7a","x":"x","due_date":"0000-00-00","at":"2026-02-30T00:00:00Z","closed":0,"title":null}}"#),
            ("tasks", "4", r#"{"a":{"n":12345678901234567890,"x":{},"due_date":5,"at":{},"closed":[],"title":true}}"#),
        ];
        put(&store, &records).await;
        assert_eq!(
            texts(&store, TYPES).await,
            ["5 1.5 2026-02-28 at yes 12345678901234567890123 tags", "7 2.5 - - - t -", "- - - - - - -", "- - - - - true -"]
        );
        let utc = match store.kind() {
            Engine::Sqlite => "2026-01-02T02:04:05.678000Z",
            Engine::Postgres => "2026-01-02 02:04:05.678+00",
        };
        assert_eq!(texts(&store, "select at as v from pmp_tasks where key = '1'").await, [utc]);
    })
    .await;
}

const A1: &str = "select p.key, p.name, count(t.key) filter (where not t.closed) as open, \
    count(t.key) filter (where not t.closed and t.due_date < current_date) as late \
    from pmp_projects p left join pmp_tasks t on t.project_id = p.key where p.company_id = '9' and p.archived_at is null \
    group by p.key, p.name";
const A2: &str = "select d.key, d.name, sum(e.time)/60.0 as hours, sum(e.billable_time)/60.0 as billable from pmp_time_entries e \
    join pmp_services s on s.key = e.service_id join pmp_deals d on d.key = s.deal_id where d.budget and e.date >= '2026-01-01' \
    group by d.key, d.name";
const A3: &str = "select c.number, c.operation, c.learned_by, t.key, t.title from instep_changes c \
    left join pmp_tasks t on t.key = c.key where c.source = 'pmp' and c.resource = 'tasks' and c.number > 0 order by c.number limit 500";

#[tokio::test]
async fn the_users_queries_run_unchanged() {
    on_both(|store| async move {
        store.install_views(&source(), &specs()).await.expect("installed");
        let records = [
            ("projects", "1", r#"{"a":{"name":"one","archived_at":null},"r":{"company":{"id":"9"}}}"#),
            ("projects", "2", r#"{"a":{"name":"two"},"r":{"company":{"id":"9"}}}"#),
            ("tasks", "1", r#"{"a":{"title":"t","closed":false,"due_date":"2020-01-01"},"r":{"project":{"id":"1"}}}"#),
            ("tasks", "2", r#"{"a":{"title":"u","closed":true,"due_date":"2020-01-01"},"r":{"project":{"id":"1"}}}"#),
            ("deals", "1", r#"{"a":{"name":"d","budget":true}}"#),
            ("services", "1", r#"{"r":{"deal":{"id":"1"}}}"#),
            ("time-entries", "1", r#"{"a":{"time":90,"billable_time":60,"date":"2026-01-02"},"r":{"service":{"id":"1"}}}"#),
        ];
        put(&store, &records).await;
        let a1 = format!("select name || ' ' || open || ' ' || late as v from ({A1}) y order by name");
        assert_eq!(texts(&store, &a1).await, ["one 1 1", "two 0 0"]);
        assert_eq!(texts(&store, &format!("select 10 * hours + billable = 16 as v from ({A2}) y")).await.len(), 1);
        assert_eq!(texts(&store, &format!("select title as v from ({A3}) y order by number")).await, ["t", "u"]);
        let rows = "select \"rows\" as v from instep_resources where source = 'pmp' and resource = 'tasks'";
        assert_eq!(texts(&store, rows).await, ["2"]);
        for view in ["sources", "events", "gaps", "answers", "feed"] {
            texts(&store, &format!("select count(*) as v from instep_{view}")).await;
        }
        assert_eq!(texts(&store, "select marks as v from instep_sources").await, ["0"]);
        assert_eq!(texts(&store, "select newest as v from instep_feed").await, ["7"]);
    })
    .await;
}

#[tokio::test]
async fn joins_over_a_reference_use_its_index() {
    on_both(|store| async move {
        store.install_views(&source(), &specs()).await.expect("installed");
        let ids: Vec<String> = (0..4_000).map(|n| n.to_string()).collect();
        let bodies: Vec<String> =
            (0..4_000).map(|n| format!(r#"{{"a":{{"title":"t","closed":false}},"r":{{"project":{{"id":"{}"}}}}}}"#, n % 400)).collect();
        let tasks: Vec<_> = ids.iter().zip(&bodies).map(|(id, body)| ("tasks", id.as_str(), body.as_str())).collect();
        put(&store, &tasks).await;
        put(&store, &[("projects", "7", r#"{"a":{"name":"p"},"r":{"company":{"id":"9"}}}"#)]).await;
        sea_orm::ConnectionTrait::execute_unprepared(store.writer(), "analyze").await.expect("analyzed");
        let (explain, column) = match store.kind() {
            Engine::Sqlite => ("explain query plan", "detail"),
            Engine::Postgres => ("explain", "QUERY PLAN"),
        };
        let one = "select key from pmp_tasks where project_id = '7' and not closed";
        for query in [A1, one] {
            let statement = store.raw(format!("{explain} {query}"), []);
            let rows = sea_orm::ConnectionTrait::query_all_raw(&store.reader(), statement).await.expect("a plan");
            let plan: Vec<String> = rows.iter().map(|row| row.try_get("", column).expect("a line")).collect();
            assert!(plan.iter().any(|line| line.contains("instep_ref_")), "{query}: {plan:#?}");
        }
        assert_eq!(texts(&store, &format!("select count(*) as v from ({one}) y")).await, ["10"]);
    })
    .await;
}
