//! Databases that come from elsewhere: a copy beside its original changes nobody's webhooks, and a backup that is put back is compared
//! and says so to whoever reads its changes.

use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::process::{INSTEP, Process, free_port};
use crate::support::{Database, Pim, Setup, Universe, eventually, on_both, pim};

mod beside;

on_both!(
    a_copy_changes_no_webhooks_until_it_is_adopted,
    a_backup_that_is_put_back_is_compared,
    a_backup_of_a_pims_replica_that_is_put_back_is_compared,
    a_restart_is_no_copy,
    who_may_not_manage_only_watches,
);

const SOON: Duration = Duration::from_secs(60);
/// Registrations are looked at every second.
const WATCHED: &str = "watch = { look = \"1s\", mend = \"1s\" }\n";

/// A daemon over a copy of a universe's database.
struct Copy {
    database: Database,
    admin_port: u16,
    client: reqwest::Client,
    daemon: Process,
}

impl Copy {
    /// Starts it with the original's configuration on ports of its own.
    async fn start(of: &Universe, database: Database) -> Self {
        Self::configured(of, database, std::fs::read_to_string(of.config()).expect("it was written")).await
    }

    /// As [`Self::start`], with this text as the original's configuration.
    async fn configured(of: &Universe, database: Database, text: String) -> Self {
        let (hooks, admin_port) = (free_port(), free_port());
        // The public address stays: whoever clones a system rarely thinks of it.
        let text = text.replace(&format!("hooks = \"127.0.0.1:{}\"", of.hooks_port), &format!("hooks = \"127.0.0.1:{hooks}\""));
        let mut text = text.replace(&format!("admin = \"127.0.0.1:{}\"", of.admin_port), &format!("admin = \"127.0.0.1:{admin_port}\""));
        if !of.database.name().is_empty() {
            text = text.replace(of.database.name(), database.name());
        }
        std::fs::write(database.folder().join("instep.toml"), text).expect("our own folder");
        let mut command = Self::command(&database, &["run"]);
        let daemon = Process::start(command.env_remove("NOTIFY_SOCKET"), &database.folder().join("daemon.log"));
        Self { database, admin_port, client: of.client.clone(), daemon }
    }

    fn command(database: &Database, arguments: &[&str]) -> Command {
        let mut command = Command::new(INSTEP);
        command.args(arguments).arg("--config").arg(database.folder().join("instep.toml"));
        command.env("STATE_DIRECTORY", database.state()).current_dir(database.folder());
        command
    }

    fn verb(&self, arguments: &[&str]) -> Output {
        Self::command(&self.database, arguments).output().expect("the binary runs")
    }

    /// Waits until it says that it leaves the registrations alone, and what to do.
    async fn is_suspended(&self, source: &str) {
        let adopt = format!("instep adopt {source}");
        eventually("the copy says so first", SOON, async || match self.wrong().await?.first() {
            Some(wrong) if wrong.contains("suspended") && wrong.contains(&adopt) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }

    /// Ends it, and its database goes.
    async fn remove(self) {
        drop(self.daemon);
        self.database.remove().await;
    }

    async fn wrong(&self) -> Result<Vec<String>, String> {
        let answer = self.client.get(format!("http://127.0.0.1:{}/status", self.admin_port)).send().await;
        let body = answer.map_err(|error| error.to_string())?.bytes().await.map_err(|error| error.to_string())?;
        let status: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        Ok(status["wrong"].as_array().into_iter().flatten().filter_map(|wrong| wrong.as_str().map(ToOwned::to_owned)).collect())
    }
}

async fn a_copy_changes_no_webhooks_until_it_is_adopted(database: Database) {
    let mut universe = Universe::started(database, &Setup { source: WATCHED, ..Setup::default() }).await;
    create(&universe, "pmp");
    let names: Vec<Value> = universe.sandbox.truth("webhooks").await.into_values().map(|one| one["attributes"]["name"].clone()).collect();
    let instance = universe.database.texts("select name as v from instep_instance").await.remove(0);
    assert!(names.iter().all(|name| name.as_str().is_some_and(|name| name.ends_with(&instance))), "{names:?} of {instance}");
    assert_eq!(universe.stop().await, Some(0));
    universe.database.disconnect().await;
    let copied = universe.database.copied().await;
    universe.run().await;
    let (changed, looked) = webhooks(&universe).await;
    let copy = Copy::start(&universe, copied).await;
    copy.is_suspended("pmp").await;
    // What it could put right, what an operator asks of it, and many looks of both.
    let id = universe.database.texts("select upstream_id as v from instep_registration where route = 'task-updated'").await.remove(0);
    universe.kill();
    delete(&universe, &id).await;
    for action in ["create", "delete"] {
        let refused = copy.verb(&["hooks", action, "pmp"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(1) && said.contains("suspended"), "{action}: {said}");
    }
    eventually("the copy looks at the webhooks", SOON, async || match webhooks(&universe).await {
        (_, n) if n >= looked + 6 => Ok(()),
        (_, n) => Err(format!("{n} looks, {looked} before")),
    })
    .await;
    let ours = 1;
    assert_eq!(webhooks(&universe).await.0, changed + ours, "requests other than GET");
    let adopted = copy.verb(&["adopt", "pmp"]);
    assert!(adopted.status.success(), "{}", String::from_utf8_lossy(&adopted.stderr));
    eventually("the copy puts right what is missing", SOON, async || match universe.sandbox.truth("webhooks").await.len() {
        3 => Ok(()),
        n => Err(format!("{n} webhooks")),
    })
    .await;
    println!("copy {:?}: 0 requests, {} once adopted", universe.database.engine, webhooks(&universe).await.0 - changed - ours);
    copy.remove().await;
}

async fn a_backup_that_is_put_back_is_compared(database: Database) {
    let setup = Setup { resources: vec![("tasks", "poll = \"1h\", sweep = \"24h\"")], source: "", ..Setup::default() };
    let universe = Universe::started(database, &setup).await;
    let lose = async |universe: &Universe| {
        let keys = universe.sandbox.keys("tasks").await;
        for key in &keys[..LOST] {
            universe.sandbox.control("update", json!({ "collection": "tasks", "id": key, "attributes": { "title": "lost again" } })).await;
        }
        for key in &keys[LOST..LOST + 4] {
            // Nothing tells of these any more once the database is older than they are.
            universe.sandbox.control("delete", json!({ "collection": "tasks", "id": key, "announce": false })).await;
        }
    };
    is_compared(universe, lose, async |universe: &Universe| universe.in_step(SOON).await).await;
}

/// A PIM has no log that could be asked once more: only passes know what its events told in vain.
async fn a_backup_of_a_pims_replica_that_is_put_back_is_compared(database: Database) {
    let setup = Pim { resources: vec![("products", "poll = \"1h\", sweep = \"24h\"")], source: "", ..Pim::default() };
    let universe = setup.started(database).await;
    pim::subscribe(&universe, true, false).await;
    let lose = async |universe: &Universe| {
        let keys = pim::keys(&universe.sandbox, "products", |_| true).await;
        for key in &keys[..LOST] {
            pim::change(universe, "update", "products", Some(key), json!({ "fields": { "groups": ["lost_again"] } })).await;
        }
        for key in &keys[LOST..LOST + 4] {
            pim::change(universe, "delete", "products", Some(key), json!({ "announce": false })).await;
        }
    };
    is_compared(universe, lose, async |universe: &Universe| pim::in_step(universe, &["products"], SOON).await).await;
}

/// Records that change after the backup, and are learned once more.
const LOST: usize = 30;

/// A backup is put back after `lose` has changed `LOST` records and removed some without a word: all is found again, and told.
async fn is_compared(mut universe: Universe, lose: impl AsyncFn(&Universe), in_step: impl AsyncFn(&Universe)) {
    let before = generation(&universe).await;
    assert_eq!(universe.stop().await, Some(0));
    universe.database.disconnect().await;
    let mut backup = universe.database.copied().await;
    backup.disconnect().await;
    universe.run().await;
    assert_eq!(generation(&universe).await, before, "a restart changes nothing");
    lose(&universe).await;
    let learned = "select count(distinct key) as n from instep_changes where operation = 'update'";
    eventually("what changed is known", SOON, async || match universe.database.try_number(learned).await? {
        n if n == LOST as i64 => Ok(()),
        n => Err(format!("{n} of {LOST}")),
    })
    .await;
    is_written_down(&universe).await;
    universe.kill();
    universe.database.disconnect().await;
    universe.database.become_like(&backup).await;
    universe.run().await;
    in_step(&universe).await;
    assert_ne!(generation(&universe).await, before, "readers have to start again");
    let sql = "select count(*) as n from instep_gaps where cause = 'restored' and state = 'repaired'";
    eventually("the gap is repaired", SOON, async || match universe.database.try_number(sql).await? {
        1 => Ok(()),
        n => Err(format!("{n}")),
    })
    .await;
    let passes = "select count(*) as n from instep_pass where started_at > (select max(ended_at) from instep_gap where cause = 'restored')";
    println!("backup {:?}: 0 differences, passes since {:?}", universe.database.engine, universe.database.try_number(passes).await);
    backup.remove().await;
}

async fn a_restart_is_no_copy(database: Database) {
    let mut universe = Universe::started(database, &Setup { source: WATCHED, ..Setup::default() }).await;
    create(&universe, "pmp");
    let before = generation(&universe).await;
    universe.kill();
    universe.run().await;
    let status = universe.status().await.expect("it answers");
    assert_eq!(status["sources"]["pmp"]["suspended"], Value::Null, "{status}");
    assert_eq!(generation(&universe).await, before);
    let deleted = universe.verb(&["hooks", "delete", "pmp"]);
    assert!(deleted.status.success(), "{}", String::from_utf8_lossy(&deleted.stderr));
}

async fn who_may_not_manage_only_watches(database: Database) {
    let source = "manage = false\nwatch = { look = \"1s\" }\n";
    let universe = Universe::started(database, &Setup { source, ..Setup::default() }).await;
    let refused = universe.verb(&["hooks", "create", "pmp"]);
    assert_eq!(refused.status.code(), Some(1), "{}", String::from_utf8_lossy(&refused.stderr));
    eventually("it watches", SOON, async || match webhooks(&universe).await {
        (0, looks) if looks >= 3 => Ok(()),
        (changes, looks) => Err(format!("{changes} changes, {looks} looks")),
    })
    .await;
}

fn create(universe: &Universe, source: &str) {
    let created = universe.verb(&["hooks", "create", source]);
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
}

/// An administrator deletes a webhook.
async fn delete(universe: &Universe, id: &str) {
    let delete = universe.client.delete(format!("{}webhooks/{id}", universe.sandbox.url)).header("x-auth-token", "an administrator");
    let deleted = delete.header("x-organization-id", "435").header("content-type", "application/vnd.api+json").send().await;
    assert!(deleted.expect("an answer").status().is_success());
}

/// Waits until the state directory says how far the database has come, which is written there every ten seconds.
async fn is_written_down(universe: &Universe) {
    let wanted = universe.database.number("select max(next_change) as n from instep_source").await;
    eventually("how far the database has come is written down", SOON, async || {
        let text = std::fs::read(universe.database.state().join("reached")).map_err(|error| error.to_string())?;
        let reached: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        match reached[0]["next_change"].as_i64() {
            Some(number) if number >= wanted => Ok(()),
            other => Err(format!("{other:?}, {wanted} wanted")),
        }
    })
    .await;
}

async fn generation(universe: &Universe) -> String {
    universe.database.texts("select generation as v from instep_feed").await.remove(0)
}

/// Requests about registrations so far: those that change something, and looks.
async fn webhooks(universe: &Universe) -> (u64, u64) {
    requests(universe, "webhooks").await
}

/// As [`webhooks`], of what the sandbox calls registrations.
async fn requests(universe: &Universe, collection: &str) -> (u64, u64) {
    let report = universe.sandbox.report().await;
    let rows = report["requests"].as_array().cloned().unwrap_or_default();
    let about = rows.iter().filter(|row| row["collection"] == collection);
    let (looks, changes): (Vec<&Value>, Vec<&Value>) = about.partition(|row| row["method"] == "GET");
    let sum = |rows: Vec<&Value>| rows.iter().filter_map(|row| row["count"].as_u64()).sum();
    (sum(changes), sum(looks))
}
