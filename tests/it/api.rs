//! Applications read rows by their keys, as fresh as they want them, with tokens of their own.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::api::{Answer, Api, PORTAL, REPORTS};
use crate::support::universe::about_task;
use crate::support::{Database, Engine, Pim, Setup, Universe, eventually, on_both};

on_both!(
    a_row_is_as_fresh_as_was_asked_for,
    whoever_waits_for_a_version_gets_it_when_its_hook_comes,
    a_key_may_hold_anything,
    a_pims_records_are_read_by_their_own_names,
    without_a_token_nothing_is_read_or_asked,
);

const SOON: Duration = Duration::from_secs(30);

fn small() -> Setup {
    Setup { entities: 100, ..Setup::default() }
}

fn title(answer: &Answer) -> &Value {
    &answer.body["payload"]["attributes"]["title"]
}

/// Every request that reached the upstream.
async fn asked(universe: &Universe) -> u64 {
    let report = universe.sandbox.report().await;
    let rows = report["requests"].as_array().cloned().unwrap_or_default();
    rows.iter().filter_map(|row| row["count"].as_u64()).sum()
}

async fn a_row_is_as_fresh_as_was_asked_for(database: Database) {
    let (universe, api) = Api::started(database, &small()).await;
    let key = universe.sandbox.keys("tasks").await.remove(0);
    let task = Api::task(&key);
    let held = api.get(&task).await;
    assert_eq!(
        (held.status, &held.body["key"], &held.body["deleted"], &held.body["stale"]),
        (200, &json!(key), &json!(false), &json!(false))
    );
    assert!(held.body["age_s"].as_f64().is_some_and(|age| age >= 0.0) && held.body["as_of"].is_string(), "{:?}", held.body);
    let tag = held.header("etag").expect("an ETag").to_owned();
    let known = api.ask(universe.client.get(api.url(&task)).bearer_auth(PORTAL).header("if-none-match", &tag)).await;
    assert_eq!((known.status, known.header("etag")), (304, Some(tag.as_str())));

    universe.sandbox.change_silently("tasks", &key, json!({ "title": "behind everybody's back" })).await;
    let before = asked(&universe).await;
    let held = api.get(&format!("{task}?max_age=1h")).await;
    assert_eq!((held.status, asked(&universe).await - before), (200, 0), "it was compared within the hour");
    assert_ne!(title(&held), "behind everybody's back");
    let fresh = api.get(&format!("{task}?max_age=1ms")).await;
    assert_eq!((fresh.status, title(&fresh), &fresh.body["stale"]), (200, &json!("behind everybody's back"), &json!(false)), "{fresh:?}");
    assert_eq!(asked(&universe).await - before, 1);
    assert_ne!(fresh.header("etag"), Some(tag.as_str()), "another state");

    // An upstream that does not answer costs the time that the caller gives, and the row comes all the same.
    universe.sandbox.change_silently("tasks", &key, json!({ "title": "too late" })).await;
    universe.sandbox.control("faults", json!({ "timeouts": 1.0 })).await;
    let stale = api.get(&format!("{task}?max_age=1ms&timeout=700ms")).await;
    assert_eq!((stale.status, title(&stale), &stale.body["stale"]), (200, &json!("behind everybody's back"), &json!(true)), "{stale:?}");
    assert!(stale.header("warning").is_some() && stale.body["why"].is_string());
    universe.sandbox.control("faults", json!({ "timeouts": 0.0 })).await;

    for (path, status) in
        [("/v1/pmp/tasks/999999999", 404), ("/v1/pmp/nothing/1", 404), ("/v1/pmp/tasks/a%00b", 400), ("/v1/pmp/tasks", 404)]
    {
        let answer = api.get(path).await;
        assert!(answer.status == status && answer.body["error"].is_string(), "{path}: {answer:?}");
    }
    let story = api.get(&format!("{task}/history")).await;
    assert_eq!(story.status, 200);
    let last = story.body["entries"].as_array().and_then(|entries| entries.last()).cloned().unwrap_or_default();
    assert_eq!((&last["what"], &last["learned_by"]), (&json!("change"), &json!("refresh")), "{:?}", story.body);
}

async fn whoever_waits_for_a_version_gets_it_when_its_hook_comes(database: Database) {
    // Without a share nothing but the hook brings it.
    let (universe, api) =
        Api::started(database, &Setup { source: "passes = false\nfeeds = false\nrefresh_share = 0.0\n", ..small() }).await;
    let keys = universe.sandbox.keys("tasks").await;
    let (key, other) = (&keys[0], &keys[1]);
    universe.sandbox.control("update", json!({ "collection": "tasks", "id": key, "attributes": { "title": "written" } })).await;
    let version = universe.sandbox.truth("tasks").await[key]["attributes"]["updated_at"].as_str().expect("a stamp").to_owned();
    let version: String = url::form_urlencoded::byte_serialize(version.as_bytes()).collect();
    let path = format!("{}?wait_for={version}", Api::task(key));

    let late = api.get(&format!("{path}&timeout=500ms")).await;
    assert_eq!((late.status, &late.body["stale"]), (504, &json!(true)), "{late:?}");
    assert!(late.body["version"].is_string(), "with the version that is held");
    let path = format!("{path}&timeout=15s");
    let waiting = futures_util::future::join_all((0..20).map(|_| api.get(&path)));
    let hook = async {
        // Others' hooks wake nobody.
        universe.deliver_surely("task-updated", about_task(other, "another's")).await;
        universe.idle(SOON).await;
        universe.deliver_surely("task-updated", about_task(key, "late")).await;
    };
    let (answers, ()) = tokio::join!(waiting, hook);
    let n = answers.iter().filter(|answer| answer.status == 200 && title(answer) == "written").count();
    println!("api {:?}: {n} of {} who waited for a version got it by its hook", universe.database.engine, answers.len());
    assert_eq!(n, answers.len(), "{answers:?}");
    let sql = format!("select learned_by as v from instep_changes where key = '{key}' order by number desc limit 1");
    assert_eq!(universe.database.texts(&sql).await, ["mark"], "nobody refreshed it");
    for bad in ["soon", "7"] {
        assert_eq!(api.get(&format!("{}?wait_for={bad}", Api::task(key))).await.status, 400, "{bad}");
    }
}

async fn a_key_may_hold_anything(database: Database) {
    let (mut universe, api) = Api::started(database, &small()).await;
    universe.stop().await;
    let longest = "ß".repeat(256);
    let keys = [
        "shoe 12/red",
        "a/b/c",
        "/",
        "ключ",
        "靴 👟",
        "100%",
        "%2F",
        "%",
        "a+b&c=d?e#f",
        "'; drop table instep_entity; --",
        "\"quoted\"\\",
        "history",
        "refresh",
        "..%2f..",
        "a;b,c",
        "{key}",
        "~!@$^*()",
        &longest,
    ];
    let columns = "version, version_field, version_value, version_precision, changed_at, payload, hash, tick_epoch, tick_counter, \
                   first_change, last_change, hot_ms, compared_at";
    for key in keys {
        let quoted = key.replace('\'', "''");
        let sql = format!(
            "insert into instep_entity (source, resource, key, {columns}) select source, resource, '{quoted}', {columns} \
             from instep_entity where resource = 'tasks' and deleted_at is null order by key limit 1"
        );
        universe.database.execute(&sql).await;
    }
    universe.run().await;
    for key in keys {
        let encoded: String = key.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let lean: String = url::form_urlencoded::byte_serialize(key.as_bytes()).collect::<String>().replace('+', "%20");
        for path in [encoded, lean] {
            let row = api.get(&format!("/v1/pmp/tasks/{path}")).await;
            assert_eq!((row.status, &row.body["key"]), (200, &json!(key)), "{path}: {row:?}");
            let story = api.get(&format!("/v1/pmp/tasks/{path}/history")).await;
            assert_eq!((story.status, &story.body["key"]), (200, &json!(key)), "{path}");
        }
        let explained = universe.verb(&["explain", "pmp", "tasks", key, "--json"]);
        let explained: Value = serde_json::from_slice(&explained.stdout).unwrap_or_default();
        assert_eq!(explained["key"], key, "by the command line");
    }
    // A refresh asks the upstream, whatever is in the key, and for nothing else; however lately the row was compared.
    let answer = api.post("/v1/pmp/tasks/shoe%2012%2Fred/refresh?max_age=0s").await;
    println!(
        "api {:?}: {} keys read back; a refresh of one that the upstream has not: {}",
        universe.database.engine,
        keys.len(),
        answer.status
    );
    assert!(matches!(answer.status, 410 | 504), "{answer:?}");
    if universe.database.engine == Engine::Sqlite {
        assert_eq!(universe.database.number("select count(*) as n from sqlite_master where name = 'instep_entity'").await, 1);
    }
}

/// Products by identifier, most of which hold a slash; a category with blanks and letters of several scripts; options, whose keys have two parts.
async fn a_pims_records_are_read_by_their_own_names(database: Database) {
    let pim = Pim {
        resources: vec![("products", ""), ("categories", ""), ("attribute-options", "")],
        source: "passes = false\nproduct_key = \"identifier\"",
        ..Pim::default()
    };
    let mut universe = pim.universe(database);
    let api = Api::beside(&universe);
    universe.run().await;
    universe.backfilled().await;
    let category = "hiver été 2026 靴";
    universe.sandbox.control("create", json!({ "resource": "categories", "key": category, "announce": false })).await;
    let key = async |view: &str| universe.database.texts(&format!("select min(key) as v from {view} where key like '%/%'")).await.remove(0);
    let (product, option) = (key("pim_products").await, key("pim_attribute_options").await);
    let mut n_read = 0;
    for (resource, key) in [("categories", category), ("products", &*product), ("attribute-options", &*option)] {
        let encoded: String = url::form_urlencoded::byte_serialize(key.as_bytes()).collect::<String>().replace('+', "%20");
        let path = format!("/v1/pim/{resource}/{encoded}");
        let before = api.get(&path).await;
        assert_eq!(before.status, if resource == "categories" { 404 } else { 200 }, "{path}");
        let read = api.post(&format!("{path}/refresh?max_age=0")).await;
        let held = api.get(&path).await;
        assert_eq!((read.status, held.status, &held.body["key"]), (200, 200, &json!(key)), "{path}: {}", read.body["why"]);
        assert!(held.body["as_of"].as_str() > before.body["as_of"].as_str(), "{path}: it was read");
        n_read += 1;
    }
    println!(
        "api {:?}: {n_read} records of a PIM read by their own names: {category:?}, {product:?}, {option:?}",
        universe.database.engine
    );
}

async fn without_a_token_nothing_is_read_or_asked(database: Database) {
    let (universe, api) = Api::started(database, &small()).await;
    let key = universe.sandbox.keys("tasks").await.remove(0);
    let task = Api::task(&key);
    let before = asked(&universe).await;
    let marks = "select count(*) as n from instep_mark";
    for (bearing, challenge) in [
        (None, "Bearer"),
        (Some("Bearer wrong-token-of-nobody"), "Bearer error=\"invalid_token\""),
        (Some("Basic cG9ydGFsOg=="), "Bearer error=\"invalid_token\""),
    ] {
        for (method, path) in [
            ("GET", task.clone()),
            ("GET", format!("{task}?max_age=1ms")),
            ("GET", format!("{task}?wait_for=7")),
            ("GET", format!("{task}/history")),
            ("POST", format!("{task}/refresh")),
            ("GET", "/v1/nobody/tasks/1".to_owned()),
            ("GET", "/".to_owned()),
        ] {
            let request = universe.client.request(method.parse().expect("a method"), api.url(&path));
            let request = match bearing {
                Some(bearing) => request.header("authorization", bearing),
                None => request,
            };
            let answer = api.ask(request).await;
            assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some(challenge)), "{method} {path} {bearing:?}");
        }
    }
    // The reports may read every source and refresh none; the portal knows one source.
    let reports = |path: &str| universe.client.get(api.url(path)).bearer_auth(REPORTS);
    assert_eq!(api.ask(reports(&task)).await.status, 200);
    for path in [format!("{task}?max_age=1ms"), format!("{task}?wait_for=7")] {
        let answer = api.ask(reports(&path)).await;
        let challenge = Some("Bearer error=\"insufficient_scope\", scope=\"refresh\"");
        assert_eq!((answer.status, answer.header("www-authenticate")), (403, challenge), "{path}");
    }
    let refused = api.ask(universe.client.post(api.url(&format!("{task}/refresh"))).bearer_auth(REPORTS)).await;
    assert_eq!(refused.status, 403);
    assert_eq!(api.get("/v1/other/tasks/1").await.status, 403);
    assert_eq!(api.ask(reports("/v1/other/tasks/1")).await.status, 404);
    assert_eq!(asked(&universe).await - before, 0, "nothing of it was asked upstream");
    assert_eq!(universe.database.number(marks).await, 0);
    // A browser of the network is nobody either, and the admin socket shows no rows.
    let admin = universe.client.get(format!("http://127.0.0.1:{}{task}", universe.admin_port)).send().await.expect("an answer");
    assert_eq!(admin.status().as_u16(), 404);
    eventually("the API is at its work", SOON, async || {
        let actors = universe.status().await?["actors"]["root/api"]["state"].clone();
        if actors == "running" { Ok(()) } else { Err(actors.to_string()) }
    })
    .await;
}
