//! A history is found by its key, however long the logs are.

use crate::clock::Timestamp;
use crate::model::Operation;
use crate::store::testing::{batch, break_schema, entity, gone, hint, on_both, read, source, started, texts};
use crate::store::{Batch, Engine, Happened, LearnedBy, Store};

/// Events and changes of others in the logs.
fn rows() -> u32 {
    if std::env::var_os("INSTEP_LONG").is_some_and(|value| value != "0") { 1_000_000 } else { 20_000 }
}

/// Fills both logs with what concerns other records, within the server's time for one statement.
async fn fill(store: &Store, rows: u32) {
    const AT_ONCE: u32 = 100_000;
    for begun in (0..rows).step_by(AT_ONCE as usize) {
        let end = rows.min(begun + AT_ONCE);
        let (numbers, empty, no) = match store.kind() {
            Engine::Sqlite => (
                format!("with recursive n(i) as (select {begun} + 1 union all select i + 1 from n where i < {end}) select * from n"),
                "'[]'",
                "0",
            ),
            Engine::Postgres => (format!("select i from generate_series({begun} + 1, {end}) as n(i)"), "cast('[]' as jsonb)", "false"),
        };
        let outcomes = format!(
            "insert into instep_outcome (source, via, resource, key, operation, received_at, outcome) \
             select 'pmp', 'hook', 'tasks', 'k' || (n.i % 50000), 'update', n.i, 'marked' from ({numbers}) n"
        );
        let changes = format!(
            "insert into instep_change (source, number, epoch, resource, key, operation, at, learned_by, changed, unannounced) \
             select 'pmp', n.i + 1000, 1, 'tasks', 'k' || (n.i % 50000), 'update', n.i, 'mark', {empty}, {no} from ({numbers}) n"
        );
        for sql in [outcomes, changes] {
            break_schema(store, &sql).await;
        }
    }
}

#[tokio::test]
async fn a_history_holds_what_concerns_the_entity_alone_and_is_found_by_its_index() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        let hooks = |observations| Batch { learned_by: LearnedBy::Hook, ..batch(observations) };
        store.apply(&fence, &batch(vec![read(&fence, "1", 1, "a"), read(&fence, "2", 1, "b")])).await.expect("applied");
        store.apply(&fence, &hooks(vec![hint("1", Operation::Delete), hint("2", Operation::Update)])).await.expect("marked");
        store.apply(&fence, &batch(vec![gone(started(&fence).tick, "1")])).await.expect("removed");
        let rows = rows();
        fill(&store, rows).await;
        let analyze = if store.kind() == Engine::Postgres { "analyze" } else { "select 1" };
        break_schema(&store, analyze).await;
        let begun = store.now();
        let history = store.history(&source(), &entity("1"), 10).await.expect("a history");
        println!("history {:?}: beside {rows} events and as many changes in {:?}", store.kind(), store.now().since(begun));
        let kinds: Vec<&str> = history
            .entries
            .iter()
            .map(|entry| match &entry.what {
                Happened::Event(told) => told.outcome.as_str(),
                Happened::Change(change) => change.operation.as_str(),
                Happened::Quarantined(_) => "quarantined",
            })
            .collect();
        assert_eq!((kinds, history.more), (vec!["insert", "marked", "delete"], false));
        let row = history.row.expect("a tombstone");
        assert!(row.deleted_at.is_some() && row.deleted_reason.as_deref() == Some("not found") && row.last_change == 3, "{row:?}");
        assert!(history.mark.is_none());
        let newest = store.history(&source(), &entity("1"), 2).await.expect("a history");
        assert_eq!((newest.entries.len(), newest.more), (2, true));
        assert!(store.history(&source(), &entity("3"), 2).await.expect("a history").row.is_none());
        for (table, index) in [("instep_outcome", "instep_outcome_entity"), ("instep_change", "instep_change_entity")] {
            let plan = plan(&store, table).await;
            assert!(plan.contains(index), "{plan}");
        }
    })
    .await;
}

/// How the newest rows of one entity are found.
async fn plan(store: &Store, table: &str) -> String {
    use sea_orm::ConnectionTrait as _;
    let (explain, column) = match store.kind() {
        Engine::Sqlite => ("explain query plan", "detail"),
        Engine::Postgres => ("explain", "QUERY PLAN"),
    };
    let order = if table == "instep_change" { "number" } else { "id" };
    let sql = format!(
        "{explain} select * from {table} where source = 'pmp' and resource = 'tasks' and key = 'k7' order by {order} desc limit 11"
    );
    let rows = store.reader().query_all_raw(store.raw(sql, [])).await.expect("a plan");
    rows.iter().map(|row| row.try_get::<String>("", column).expect("a line")).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_row_knows_when_it_was_compared() {
    on_both(|store| async move {
        let fence = store.claim(&source(), "test").await.expect("claimed");
        let begun = store.now();
        let compared = async |key: &str| store.stored_row(&source(), &entity(key)).await.expect("read").and_then(|row| row.compared_at);
        store.apply(&fence, &batch(vec![read(&fence, "1", 1, "a")])).await.expect("applied");
        let first = compared("1").await.expect("compared");
        assert!(first >= begun, "{first:?}");
        // An event compares nothing, an equal read does.
        store.apply(&fence, &Batch { learned_by: LearnedBy::Hook, ..batch(vec![hint("1", Operation::Update)]) }).await.expect("marked");
        assert_eq!(compared("1").await, Some(first));
        store.apply(&fence, &batch(vec![read(&fence, "1", 1, "a")])).await.expect("applied");
        let second = compared("1").await.expect("compared");
        assert!(second > first);
        store.apply(&fence, &batch(vec![gone(started(&fence).tick, "1")])).await.expect("removed");
        assert!(compared("1").await > Some(second), "its absence was compared, too");
        // Rows of an earlier release were never compared as far as anybody knows.
        break_schema(&store, "update instep_entity set compared_at = null").await;
        assert_eq!(compared("1").await, None::<Timestamp>);
        assert_eq!(texts(&store, "select compared_at as v from instep_entity").await, ["null"]);
    })
    .await;
}
