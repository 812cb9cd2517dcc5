//! What is not there when the daemon starts is waited for.

use std::time::Duration;

use crate::support::process::free_port;
use crate::support::{Database, Engine, Notify, OwnServer, Setup, Universe, eventually, on_both, run, run_on_own_server};

use super::sqlite::{Disk, NO_FLOOR};

const SOON: Duration = Duration::from_secs(20);
const WAITING: &str = "STATUS=waiting for the store";

on_both!(a_start_without_network_is_ready_and_catches_up);

#[test]
fn a_start_without_a_server_waits_for_it() {
    run_on_own_server(without_server);
}

async fn without_server(database: Database, server: OwnServer) {
    let mut universe = Universe::new(database, &Setup { entities: 100, ..Setup::default() });
    // No server at all, then one that takes no connections, then one that takes no writes.
    server.down();
    let notify = launch(&mut universe);
    waits(&notify, &mut universe, "no server").await;
    server.up();
    server.cut(false).await;
    waits(&notify, &mut universe, "no connections").await;
    server.set_read_only(true).await;
    server.cut(true).await;
    waits(&notify, &mut universe, "read-only").await;
    server.set_read_only(false).await;
    becomes_ready(&notify, &mut universe).await;
}

#[test]
fn a_start_on_a_disk_that_takes_no_writes_waits_for_it() {
    run(Engine::Sqlite, on_a_bad_disk);
}

async fn on_a_bad_disk(database: Database) {
    let Some(disk) = Disk::mount(&database.state(), 32, ",ro") else { return };
    let mut universe = Universe::new(database, &Setup { entities: 100, tables: NO_FLOOR, ..Setup::default() });
    let notify = launch(&mut universe);
    waits(&notify, &mut universe, "read-only").await;
    disk.remount("rw");
    becomes_ready(&notify, &mut universe).await;
    assert_eq!(universe.stop().await, Some(0));

    // The same with a database yet to be made, on a disk without a free byte.
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(format!("{}{suffix}", universe.database.file().display())).expect("it was there");
    }
    universe.database.disconnect().await;
    disk.fill();
    let notify = launch(&mut universe);
    waits(&notify, &mut universe, "full").await;
    disk.free();
    becomes_ready(&notify, &mut universe).await;
    assert_eq!(universe.stop().await, Some(0));
}

fn launch(universe: &mut Universe) -> Notify {
    let path = universe.folder(&format!("notify-{}", free_port()));
    let notify = Notify::at(path);
    let mut command = universe.command();
    notify.hears(&mut command);
    universe.launch(&mut command);
    notify
}

/// It says that it waits, twice, and neither ends nor claims to be ready.
async fn waits(notify: &Notify, universe: &mut Universe, what: &str) {
    for _ in 0..2 {
        let said = notify.wait(WAITING, SOON).await;
        println!("store_away at boot, {what}: {said}");
        notify.forget(&said);
    }
    assert!(universe.daemon().ended().is_none(), "it ended: {}", universe.daemon().said());
    assert!(!notify.heard().iter().any(|line| line == "READY=1"), "it said that it is ready");
}

async fn becomes_ready(notify: &Notify, universe: &mut Universe) {
    notify.wait("READY=1", SOON).await;
    universe.ready().await;
    universe.backfilled().await;
}

/// Nobody upstream answers; deliveries are taken all the same, and when the upstream is there everything is caught up with.
async fn a_start_without_network_is_ready_and_catches_up(database: Database) {
    let mut universe = Universe::new(database, &Setup { entities: 100, ..Setup::default() });
    let port = free_port();
    let (there, elsewhere) = (universe.sandbox.url.clone(), format!("http://127.0.0.1:{port}/api/v2/"));
    let text = std::fs::read_to_string(universe.config()).expect("the configuration");
    std::fs::write(universe.config(), text.replace(&there, &elsewhere)).expect("our own folder");
    universe.run().await;
    let key = universe.sandbox.keys("tasks").await.remove(0);
    let body = crate::support::universe::about_task(&key, "while nobody is there");
    universe.deliver_surely("task-updated", &body).await;
    eventually("a fetch fails", SOON, async || {
        let said = universe.daemon().said();
        if said.contains("fetch failed") { Ok(()) } else { Err("none yet".to_owned()) }
    })
    .await;

    let upstream: std::net::SocketAddr = url::Url::parse(&there).expect("a URL").authority().parse().expect("an address");
    let line = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free");
    let mut lines = tokio::task::JoinSet::new();
    lines.spawn(async move {
        let mut calls = tokio::task::JoinSet::new();
        while let Ok((mut near, _)) = line.accept().await {
            calls.spawn(async move {
                let mut far = tokio::net::TcpStream::connect(upstream).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    universe.backfilled().await;
    universe.in_step(SOON).await;
    println!("store_away {:?} at boot, no network: ready, then in step", universe.database.engine);
}
