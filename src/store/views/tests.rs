//! The views as their users ask them.

use std::time::Duration;

use crate::connectors::{Absence, Column, ColumnKind, ResourceSpec, ValuesView};
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
        inherits: false,
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
    put_of(store, records, &specs()).await;
}

async fn put_of(store: &Store, records: &[(&str, &str, &str)], specs: &[ResourceSpec]) {
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
        page.rules = specs.iter().map(|spec| (spec.name.clone(), ResourceRules::of(spec))).collect();
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

/// A catalogue, named as its vendor's columns are.
fn catalogue() -> Vec<ResourceSpec> {
    use ColumnKind::{Bool, Text};
    let flat = |name: &str, columns: &[(&str, ColumnKind)]| {
        let mut spec = spec(name, columns);
        for column in &mut spec.columns {
            column.pointer = format!("/{}", column.name);
        }
        spec
    };
    let products = flat("products", &[("enabled", Bool), ("parent", Text)]);
    let values = ValuesView { name: "product_values".to_owned(), pointer: "/values".to_owned() };
    vec![ResourceSpec { values: Some(values), ..products }, flat("product-models", &[("parent", Text)])]
}

async fn put_products(store: &Store, products: &[(&str, &str)]) {
    let products: Vec<_> = products.iter().map(|(key, json)| ("products", *key, *json)).collect();
    store.install_views(&source(), &catalogue()).await.expect("installed");
    put_of(store, &products, &catalogue()).await;
}

const VALUES: &str = "select attribute || ' ' || coalesce(locale, '-') || ' ' || coalesce(scope, '-') || ' ' || coalesce(text, '-') || ' ' || \
    case when data is null then '-' else 'data' end as v from pmp_product_values where key = 'all' order by 1";

#[tokio::test]
async fn a_view_of_values_has_a_row_for_each_and_none_for_what_is_no_value() {
    on_both(|store| async move {
        let all = r#"{"values":{
            "name":[{"locale":"fr_FR","scope":null,"data":"N"},{"locale":"en_US","scope":"ecommerce","data":"M"}],
            "price":[{"locale":null,"scope":"ecommerce","data":[{"amount":"1.50","currency":"EUR"}]}],
            "weight":[{"locale":null,"scope":null,"data":{"amount":1,"unit":"KG"}}],
            "n":[{"locale":null,"scope":null,"data":1.50}], "b":[{"locale":null,"scope":null,"data":true}],
            "none":[{"locale":null,"scope":null,"data":null}], "empty":[], "text":"x", "object":{"data":1}, "scalars":[1,"x",null,[2]]}}"#;
        let others =
            [r#"{"values":[]}"#, r#"{"values":{}}"#, "{}", r#"{"values":null}"#, r#"{"values":"x"}"#, r#"{"values":[1,{"data":2}]}"#];
        let keys: Vec<String> = (0..others.len()).map(|n| n.to_string()).collect();
        let mut products: Vec<(&str, &str)> = keys.iter().map(String::as_str).zip(others).collect();
        products.push(("all", all));
        put_products(&store, &products).await;
        assert_eq!(
            texts(&store, VALUES).await,
            [
                "b - - true data",
                "n - - 1.50 data",
                "name en_US ecommerce M data",
                "name fr_FR - N data",
                "none - - - -",
                "price - ecommerce - data",
                "weight - - - data"
            ]
        );
        assert_eq!(texts(&store, "select count(*) as v from pmp_product_values where key <> 'all'").await, ["0"]);
        let amount = match store.kind() {
            Engine::Sqlite => "data ->> '$.amount'",
            Engine::Postgres => "data ->> 'amount'",
        };
        let weight = format!("select {amount} as v from pmp_product_values where key = 'all' and attribute = 'weight'");
        assert_eq!(texts(&store, &weight).await, ["1"]);
    })
    .await;
}

const B1: &str = "select p.key, s.text as sku, n.text as name, v.data as price from pmp_products p \
    left join pmp_product_values s on s.key = p.key and s.attribute = 'sku' \
    left join pmp_product_values n on n.key = p.key and n.attribute = 'name' and n.locale = 'fr_FR' \
    left join pmp_product_values v on v.key = p.key and v.attribute = 'price' and v.scope = 'ecommerce' \
    where p.enabled and p.key in (select key from instep_changes where source = 'pmp' and resource = 'products' and number > :cursor) \
    order by p.key";
const B2: &str = "select p.key, p.parent from pmp_products p left join pmp_product_models m on m.key = p.parent \
    where p.parent is not null and m.key is null";
const B3: &str = "select resource, operation, count(distinct key) filter (where via = 'events_api') as legacy, \
    count(distinct key) filter (where via = 'event_platform') as platform \
    from instep_events where source = 'pmp' and received_at >= :since group by 1, 2";
const B3_MISSED: &str = "select learned_by, count(*) from instep_changes where source = 'pmp' and at >= :since group by 1";

fn product(name: &str, parent: &str, enabled: bool) -> String {
    let value = |data: &str, locale: &str, scope: &str| format!(r#"[{{"locale":{locale},"scope":{scope},"data":{data}}}]"#);
    let (sku, name) = (value(&format!(r#""{name}""#), "null", "null"), value(&format!(r#""{name} en français""#), r#""fr_FR""#, "null"));
    let price = value(r#"[{"amount":"9.90","currency":"EUR"}]"#, "null", r#""ecommerce""#);
    let parent = if parent.is_empty() { "null".to_owned() } else { format!(r#""{parent}""#) };
    format!(r#"{{"enabled":{enabled},"parent":{parent},"values":{{"sku":{sku},"name":{name},"price":{price}}}}}"#)
}

#[tokio::test]
async fn the_queries_over_a_catalogue_run_unchanged() {
    on_both(|store| async move {
        let bodies = [product("one", "", true), product("two", "m", true), product("three", "lost", true), product("four", "m", false)];
        let products: Vec<(&str, &str)> = ["1", "2", "3", "4"].into_iter().zip(bodies.iter().map(String::as_str)).collect();
        put_products(&store, &products).await;
        put_of(&store, &[("product-models", "m", r#"{"parent":null}"#)], &catalogue()).await;
        let b1 = B1.replace(":cursor", "1");
        let shown = format!(
            "select key || ' ' || sku || ' ' || name || ' ' || case when price is null then '-' else 'price' end as v from ({b1}) y"
        );
        assert_eq!(texts(&store, &shown).await, ["2 two two en français price", "3 three three en français price"]);
        assert_eq!(texts(&store, &format!("select key || ' ' || parent as v from ({B2}) y")).await, ["3 lost"]);
        let since = "'2020-01-01T00:00:00.000000Z'";
        texts(&store, &format!("select legacy as v from ({}) y", B3.replace(":since", since))).await;
        let missed = format!("select learned_by as v from ({}) y", B3_MISSED.replace(":since", since));
        assert_eq!(texts(&store, &missed).await, ["mark"]);
    })
    .await;
}

#[tokio::test]
async fn one_value_of_one_record_is_found_by_its_key() {
    on_both(|store| async move {
        let keys: Vec<String> = (0..2_000).map(|n| format!("p{n:05}")).collect();
        let bodies: Vec<String> = keys.iter().map(|key| product(key, "", true)).collect();
        let products: Vec<(&str, &str)> = keys.iter().map(String::as_str).zip(bodies.iter().map(String::as_str)).collect();
        put_products(&store, &products).await;
        sea_orm::ConnectionTrait::execute_unprepared(store.writer(), "analyze").await.expect("analyzed");
        let one = "select text from pmp_product_values where key = 'p00007' and attribute = 'sku'";
        let two =
            "select s.text from pmp_products p join pmp_product_values s on s.key = p.key and s.attribute = 'sku' where p.key = 'p00007'";
        let (explain, column) = match store.kind() {
            Engine::Sqlite => ("explain query plan", "detail"),
            Engine::Postgres => ("explain", "QUERY PLAN"),
        };
        for query in [one, two] {
            let rows = sea_orm::ConnectionTrait::query_all_raw(&store.reader(), store.raw(format!("{explain} {query}"), [])).await;
            let plan: Vec<String> = rows.expect("a plan").iter().map(|row| row.try_get("", column).expect("a line")).collect();
            let by_key = |line: &&String| line.contains("instep_entity_pkey") || line.contains("sqlite_autoindex_instep_entity_1");
            let expected = 1 + query.matches(" join ").count();
            assert_eq!(plan.iter().filter(by_key).count(), expected, "{query}: {plan:#?}");
        }
        assert_eq!(texts(&store, &format!("select text as v from ({one}) y")).await, ["p00007"]);
        let changed = format!("select count(*) as v from ({}) y", B1.replace(":cursor", "1990"));
        assert_eq!(texts(&store, &changed).await, ["10"]);
    })
    .await;
}
