//! Tokens are replaced without a gap: the signature tokens that the upstream makes, and those that callers of the admin socket bear.

use serde_json::json;

use std::time::Duration;

use crate::support::universe::{about_task, signature};
use crate::support::{Database, Setup, Universe, eventually, on_both};

on_both!(registrations_work_at_once_and_replaced_tokens_still_do, callers_may_bear_either_of_two_tokens);

const SOON: Duration = Duration::from_secs(30);

async fn registrations_work_at_once_and_replaced_tokens_still_do(database: Database) {
    let universe = Universe::started(database, &Setup::default()).await;
    let key = universe.sandbox.keys("tasks").await.remove(0);
    // A delivery before, so that the daemon has read the tokens as they were.
    universe.deliver_surely("task-updated", &about_task(&key, "before")).await;
    create(&universe);
    let old = token(&universe).await;
    assert_eq!(send(&universe, &old, &about_task(&key, "the new token")).await, 200, "a token is used as soon as it is registered");
    assert_eq!(send(&universe, "never issued", &about_task(&key, "a lie")).await, 401);

    // The upstream's own deliveries arrive.
    universe.sandbox.control("update", json!({ "collection": "tasks", "id": key, "attributes": { "title": "told by webhook" } })).await;
    eventually("the webhook's change is here", SOON, async || {
        let n = universe
            .database
            .try_number(&format!("select count(*) as n from pmp_tasks where key = '{key}' and title = 'told by webhook'"))
            .await?;
        if n == 1 { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    universe.sandbox.quiet(SOON).await;
    let report = universe.sandbox.report().await;
    println!("rotation {:?}: deliveries {}", universe.database.engine, report["deliveries"]);
    assert!(report["deliveries"]["2xx"].as_u64() >= Some(1) && report["deliveries"]["failed"].is_null(), "{report}");

    let removed = universe.verb(&["hooks", "delete", "pmp"]);
    assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
    create(&universe);
    let new = token(&universe).await;
    assert_ne!(old, new, "the upstream makes a token a registration");
    assert_eq!(send(&universe, &new, &about_task(&key, "the second token")).await, 200);
    assert_eq!(send(&universe, &old, &about_task(&key, "a late retry")).await, 200, "retries carry the token they were made with");
}

async fn callers_may_bear_either_of_two_tokens(database: Database) {
    let tokens = ["one-that-is-to-be-replaced", "one-that-replaces-the-first"];
    let mut universe = Universe::new(database, &Setup::default());
    let listed: Vec<String> = tokens.iter().map(|token| universe.secret(token, token)).collect();
    let (old, port) = (std::fs::read_to_string(universe.config()).expect("it was written"), universe.admin_port);
    let admin = format!("admin = {{ address = \"127.0.0.1:{port}\", token = [{}] }}", listed.join(", "));
    let new = old.replace(&format!("admin = \"127.0.0.1:{port}\""), &admin);
    assert_ne!(old, new);
    std::fs::write(universe.config(), new).expect("our own folder");
    let mut command = universe.command();
    universe.launch(&mut command);
    let status = async |token: &str| {
        let asked = universe.client.get(format!("http://127.0.0.1:{port}/livez")).bearer_auth(token).send().await;
        asked.map(|answer| answer.status().as_u16()).map_err(|error| error.to_string())
    };
    for token in tokens {
        eventually("the token is let in", SOON, async || match status(token).await? {
            200 => Ok(()),
            status => Err(format!("{token}: {status}")),
        })
        .await;
    }
    assert_eq!(status("one-that-nobody-configured").await, Ok(401));
    println!("rotation {:?}: {} tokens of the admin socket", universe.database.engine, tokens.len());
}

fn create(universe: &Universe) {
    let created = universe.verb(&["hooks", "create", "pmp", "--json"]);
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&created.stdout).expect("JSON");
    let n = answer["registrations"].as_array().map_or(0, Vec::len);
    assert_eq!(n, 3, "created, updated and deleted of tasks: {answer}");
}

/// The token of the live registration for changed tasks.
async fn token(universe: &Universe) -> String {
    let sql = "select secret as v from instep_registration where route = 'task-updated' and replaced_at is null";
    universe.database.texts(sql).await.remove(0)
}

async fn send(universe: &Universe, token: &str, body: &str) -> u16 {
    let url = format!("http://127.0.0.1:{}/hooks/pmp/task-updated", universe.hooks_port);
    let request = universe.client.post(url).header("productive-signature", signature(token, body)).body(body.to_owned());
    request.send().await.expect("an answer").status().as_u16()
}
