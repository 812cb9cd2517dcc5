//! A blocked thread cannot be mended from within: the pings end, and the service manager starts another process.

use std::cell::Cell;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::{SOON, SOURCE, actors, nothing_is_lost};
use crate::failpoints::{Points, with_points};
use crate::support::{Database, Engine, Load, Setup, Universe, eventually, is_long, monotonic, run, until};

/// Longer than any test.
const FOR_EVER: &str = "sleep(600000)";

#[test]
fn who_blocks_its_thread_for_ever_is_replaced_on_sqlite() {
    run(Engine::Sqlite, async |database| {
        let mut universe = Universe::new(database, &Setup { entities: 100, ..Setup::default() });
        // What a restarted journal needs is held by the one before it.
        replaced(&mut universe, &["journal::before_commit"]).await;
        // The runtime has two threads: nothing is left.
        let (intake, owner) = (format!("actor:{SOURCE}/intake::step"), format!("actor:{SOURCE}/owner::step"));
        replaced(&mut universe, &[&intake, &owner]).await;
        if is_long() {
            replaced(&mut universe, &["actor:root::step"]).await;
            replaced(&mut universe, &["actor:root/listener::step"]).await;
        }
    });
}

#[test]
fn who_blocks_its_thread_for_ever_is_replaced_on_postgres() {
    run(Engine::Postgres, async |database| {
        let mut universe = Universe::new(database, &Setup { entities: 100, ..Setup::default() });
        let (journal, root) = ("actor:root/journal::step", "actor:root::step");
        for blocked in if is_long() { vec![journal, "journal::before_commit", root] } else { vec![root] } {
            replaced(&mut universe, &[blocked]).await;
        }
    });
}

/// What the unit file says, in seconds.
fn unit(key: &str) -> Duration {
    let text = include_str!("../../../systemd/instep.service");
    let seconds = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')?.strip_suffix('s')?.parse().ok());
    Duration::from_secs(seconds.unwrap_or_else(|| panic!("no {key}")))
}

/// Blocks threads for ever, and does what systemd does by the unit file. The short form is quicker by what it waits for less.
async fn replaced(universe: &mut Universe, blocked: &[&str]) {
    let in_the_unit = (unit("WatchdogSec"), unit("RestartSec"));
    let (watchdog, restart) = if is_long() { in_the_unit } else { (Duration::from_secs(3), Duration::ZERO) };
    let path = universe.folder("notify");
    // A socket of an earlier process may lie there.
    let _ = std::fs::remove_file(&path);
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_nonblocking(true).expect("a socket");
    let pinged = Cell::new(monotonic());
    let listen = || {
        let mut bytes = [0; 1024];
        while let Ok(length) = socket.recv(&mut bytes) {
            if bytes[..length].starts_with(b"WATCHDOG=1") {
                pinged.set(monotonic());
            }
        }
    };
    let mut command = with_points(universe.command(), "");
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", watchdog.as_micros().to_string()).env_remove("WATCHDOG_PID");
    universe.launch(&mut command);
    universe.ready().await;
    universe.backfilled().await;
    let mut points = Points::of(universe.daemon());
    let load = Load::start(universe.hooks_port, universe.sandbox.keys("tasks").await, 2);
    eventually("deliveries are acknowledged", SOON, async || if load.ledger.len() > 20 { Ok(()) } else { Err("none".to_owned()) }).await;
    let began = monotonic();
    for point in blocked {
        points.set(point, FOR_EVER);
    }
    eventually("the pings stay away", Duration::from_secs(60), async || {
        listen();
        if monotonic() - pinged.get().max(began) > watchdog { Ok(()) } else { Err("it pings".to_owned()) }
    })
    .await;
    let silent = monotonic() - began;
    universe.daemon().signal("ABRT");
    universe.daemon().exit_code(SOON).await;
    universe.kill();
    until(monotonic() + restart).await;
    universe.run().await;
    let acknowledged = load.ledger.len();
    eventually(
        "deliveries are acknowledged again",
        SOON,
        async || {
            if load.ledger.len() > acknowledged { Ok(()) } else { Err("none".to_owned()) }
        },
    )
    .await;
    let took = monotonic() - began - watchdog - restart + in_the_unit.0 + in_the_unit.1;
    let ledger = load.end().await;
    nothing_is_lost(universe, &ledger).await;
    assert_eq!(universe.stop().await, Some(0));
    println!(
        "actors {:?}: {blocked:?} blocked, killed {silent:.1?} later with WatchdogSec={}, by the unit at work again after {took:.1?}; \
         {} acknowledged, all there",
        universe.database.engine,
        watchdog.as_secs(),
        ledger.len()
    );
    assert!(took <= Duration::from_secs(30), "{took:?}");
}

#[test]
fn one_blocked_thread_stops_nobody_else() {
    run(Engine::Sqlite, one_blocked);
}

/// The runtime has two threads; the other one does the work of both.
async fn one_blocked(database: Database) {
    let mut universe = Universe::new(database, &Setup { entities: 100, ..Setup::default() });
    universe.launch(&mut with_points(universe.command(), ""));
    universe.ready().await;
    universe.backfilled().await;
    let mut points = Points::of(universe.daemon());
    // By a timer, while nothing else goes on that would wake the other thread.
    blocked(&universe, &mut points, "owner", "1*sleep(10000)->off", 1).await;
    // As the first thing that it does, just after its start woke its supervisor.
    blocked(&universe, &mut points, "owner", "1*panic->1*sleep(10000)->off", 3).await;
    // No worker, and its step may last for longer than the thread is blocked.
    blocked(&universe, &mut points, "limiter", "1*sleep(10000)->off", 1).await;
}

async fn blocked(universe: &Universe, points: &mut Points, actor: &str, actions: &str, restarts: u64) {
    let path = format!("{SOURCE}/{actor}");
    let began = monotonic();
    points.set(&format!("actor:{path}::step"), actions);
    let mut slowest = Duration::ZERO;
    eventually("it was found and restarted", SOON, async || {
        let asked = monotonic();
        let actors = actors(universe).await?;
        slowest = slowest.max(monotonic() - asked);
        if actors[&path]["restarts"] == restarts && actors[&path]["state"] == "running" {
            Ok(())
        } else {
            Err(format!("{}", actors[&path]))
        }
    })
    .await;
    let took = monotonic() - began;
    println!("actors: {path} {actions}, restarted after {took:.1?}; no question waited longer than {slowest:.1?}");
    assert!(took < Duration::from_secs(10), "before the thread came back: {took:?}");
    assert!(slowest < Duration::from_secs(3), "the others went on: {slowest:?}");
    // Two blocked threads would be another test.
    until(began + Duration::from_secs(12)).await;
}
