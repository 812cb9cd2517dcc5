//! The queries that users want to write, unchanged on both stores, over a replica that the daemon made.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Database, Engine, Setup, Universe, eventually, on_both};

on_both!(the_portals_queries_run_unchanged, joins_lose_nothing_and_references_are_indexed);

/// Open and overdue tasks per project of one client.
const A1: &str = "select p.key, p.name, count(t.key) filter (where not t.closed) as open, count(t.key) filter (where not t.closed and t.due_date < current_date) as late
from pmp_projects p left join pmp_tasks t on t.project_id = p.key where p.company_id = :client and p.archived_at is null group by p.key, p.name";
/// Hours on each budget since a date.
const A2: &str = "select d.key, d.name, sum(e.time)/60.0 as hours, sum(e.billable_time)/60.0 as billable from pmp_time_entries e
join pmp_services s on s.key = e.service_id join pmp_deals d on d.key = s.deal_id where d.budget and e.date >= :from group by d.key, d.name";
/// What changed since the client last looked.
const A3: &str = "select c.number, c.operation, c.learned_by, t.key, t.title from instep_changes c left join pmp_tasks t on t.key = c.key
where c.source = 'pmp' and c.resource = 'tasks' and c.number > :seen order by c.number limit 500";
/// How fresh the page is.
const A3_FRESH: &str = "select resource, rows, as_of from instep_resources where source = 'pmp' and resource = 'tasks'";

const RESOURCES: [&str; 7] = ["companies", "projects", "task_lists", "tasks", "deals", "services", "time_entries"];

fn setup() -> Setup {
    Setup { entities: 2_500, resources: RESOURCES.map(|name| (name, "")).to_vec(), ..Setup::default() }
}

/// The key that a record's relation points at.
fn to<'a>(record: &'a Value, relation: &str) -> Option<&'a str> {
    record["relationships"][relation]["data"]["id"].as_str()
}

async fn the_portals_queries_run_unchanged(database: Database) {
    let universe = Universe::started(database, &setup()).await;
    universe.in_step(Duration::from_secs(30)).await;
    let (projects, tasks) = (universe.sandbox.truth("projects").await, universe.sandbox.truth("tasks").await);

    let is_live = |project: &&Value| project["attributes"]["archived_at"].is_null();
    let client = projects.values().filter(is_live).find_map(|project| to(project, "company")).expect("a project has a company");
    let rows = universe.database.rows(&A1.replace(":client", &format!("'{client}'")), &["key", "name", "open", "late"]).await;
    let is_open = |task: &&Value| task["attributes"]["closed"] == false;
    let of = |key: &str| tasks.values().filter(is_open).filter(|task| to(task, "project") == Some(key)).count();
    let expected = projects.values().filter(is_live).filter(|project| to(project, "company") == Some(client)).count();
    assert_eq!(rows.len(), expected, "a row a live project of the client");
    for row in &rows {
        let key = row[0].clone().expect("a key");
        assert_eq!(row[2], Some(of(&key).to_string()), "open tasks of {key}");
    }
    let n_open: usize = rows.iter().filter_map(|row| row[2].as_deref()?.parse::<usize>().ok()).sum();
    println!("queries {:?}: A1 {} projects, {n_open} open tasks", universe.database.engine, rows.len());

    budgets(&universe).await;
    changes(&universe).await;
    coverage(&universe).await;
}

/// Without webhooks everything is first learned by passes, but for what a feed told in time.
async fn coverage(universe: &Universe) {
    let asked = universe.verb(&["coverage", "pmp", "--since", "1d", "--json"]);
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    let answer: Value = serde_json::from_slice(&asked.stdout).expect("json");
    let rows = answer["rows"].as_array().expect("rows");
    let created = rows.iter().find(|row| row["resource"] == "companies" && row["operation"] == "create").expect("a row");
    let inserted = "select count(*) as n from instep_changes where resource = 'companies' and operation = 'insert' and learned_by = 'pass'";
    let n_inserted = universe.database.number(inserted).await;
    assert!(n_inserted > 0 && created["pass"].as_i64().is_some_and(|pass| pass <= n_inserted), "{answer} and {n_inserted}");
    let shown = universe.verb(&["coverage", "pmp"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("by a pass"), "the table has a head");
    assert!(!universe.verb(&["coverage", "pmp", "--since", "lately"]).status.success());
    assert!(!universe.verb(&["coverage", "nobody"]).status.success());
}

async fn budgets(universe: &Universe) {
    let rows = universe.database.rows(&A2.replace(":from", "'2000-01-01'"), &["key", "name", "hours", "billable"]).await;
    let (deals, services) = (universe.sandbox.truth("deals").await, universe.sandbox.truth("services").await);
    let entries = universe.sandbox.truth("time_entries").await;
    let deal = |entry: &Value| to(services.get(to(entry, "service")?)?, "deal").map(str::to_owned);
    let mut minutes = std::collections::BTreeMap::<String, i64>::new();
    for entry in entries.values() {
        let Some(key) = deal(entry).filter(|key| deals.get(key).is_some_and(|deal| deal["attributes"]["budget"] == true)) else { continue };
        let time = &entry["attributes"]["time"];
        *minutes.entry(key).or_default() += time.as_i64().or_else(|| time.as_str()?.parse().ok()).unwrap_or(0);
    }
    assert!(!minutes.is_empty() && rows.len() == minutes.len(), "{} budgets with hours, {} expected", rows.len(), minutes.len());
    for row in &rows {
        let hours: f64 = row[2].as_deref().and_then(|text| text.parse().ok()).expect("hours");
        let expected = minutes[row[0].as_deref().expect("a key")] as f64 / 60.0;
        assert!((hours - expected).abs() < 1e-6, "{row:?}: {expected} hours expected");
    }
    println!("queries {:?}: A2 {} budgets", universe.database.engine, rows.len());
}

async fn changes(universe: &Universe) {
    let seen = universe.database.number("select max(number) as n from instep_changes").await;
    let key = universe.sandbox.keys("tasks").await.remove(0);
    universe.sandbox.change_silently("tasks", &key, json!({ "title": "what is new" })).await;
    let body = crate::support::universe::about_task(&key, "hint");
    universe.deliver_surely("task-updated", &body).await;
    let sql = A3.replace(":seen", &seen.to_string());
    let rows = eventually("the change is told", Duration::from_secs(20), async || {
        let rows = universe.database.try_rows(&sql, &["number", "operation", "learned_by", "key", "title"]).await?;
        if rows.is_empty() { Err("no change".to_owned()) } else { Ok(rows) }
    })
    .await;
    let text = |at: usize| rows[0][at].clone().unwrap_or_default();
    assert_eq!((text(0), text(3), text(4)), ((seen + 1).to_string(), key, "what is new".to_owned()));
    let fresh = universe.database.rows(A3_FRESH, &["resource", "rows", "as_of"]).await;
    println!("queries {:?}: A3 {rows:?}, fresh {fresh:?}", universe.database.engine);
    assert_eq!(fresh.len(), 1);
    assert!(fresh[0].iter().all(Option::is_some), "{fresh:?}");
}

async fn joins_lose_nothing_and_references_are_indexed(database: Database) {
    let universe = Universe::started(database, &setup()).await;
    universe.in_step(Duration::from_secs(30)).await;
    let tasks = universe.sandbox.truth("tasks").await;
    let joined = "select count(*) as n from pmp_tasks t join pmp_task_lists l on l.key = t.task_list_id \
                  join pmp_projects p on p.key = l.project_id join pmp_companies c on c.key = p.company_id";
    let n = universe.database.number(joined).await;
    println!("queries {:?}: {n} rows of {} tasks in the join", universe.database.engine, tasks.len());
    assert_eq!(n, tasks.len() as i64, "the join loses no task");
    for relation in ["project", "task_list", "assignee", "workflow_status", "creator"] {
        let null = universe.database.number(&format!("select count(*) as n from pmp_tasks where {relation}_id is null")).await;
        let expected = tasks.values().filter(|task| to(task, relation).is_none()).count();
        assert_eq!(null, expected as i64, "tasks without {relation}");
    }
    // The planner may prefer a scan while a table is this small.
    let before = if universe.database.engine == Engine::Postgres { "set enable_seqscan = off" } else { "" };
    let plan = universe.database.plan(before, "select t.key from pmp_tasks t where t.project_id = '1'").await;
    assert!(plan.contains("instep_ref_"), "the reference's index is used: {plan}");
}
