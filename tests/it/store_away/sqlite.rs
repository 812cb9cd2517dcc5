//! The disk fails.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::universe::{about_task, deliver};
use crate::support::{Database, Engine, Paced, Setup, Strace, Universe, eventually, monotonic, run, skipped};

use super::{Watched, settled, span};

/// No floor: the disk is to be really full before it is noticed.
pub(super) const NO_FLOOR: &str = "[retention]\ndisk_floor = \"0B\"\n";

/// A small file system in memory; it goes when this is dropped or the test dies.
pub(super) struct Disk {
    at: PathBuf,
    keeper: Child,
}

impl Disk {
    /// Mounts one; `None` for whoever may not, which is said aloud.
    pub(super) fn mount(at: &Path, mib: u32, options: &str) -> Option<Self> {
        std::fs::create_dir_all(at).expect("our own folder");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={mib}m{options}"), "instep-it"]).arg(at).status();
        if !mounted.is_ok_and(|status| status.success()) {
            skipped("store_away: this user may not mount a file system");
            return None;
        }
        // Lazily, for the daemon may still have files open.
        let mut keeper = Command::new("sh");
        keeper.args(["-c", "cat >/dev/null; umount -l \"$0\""]).arg(at).stdin(Stdio::piped());
        Some(Self { at: at.to_owned(), keeper: keeper.spawn().expect("a shell") })
    }

    /// Fills it to the last byte.
    pub(super) fn fill(&self) {
        let filled = Command::new("sh").arg("-c").arg("cat /dev/zero >\"$0\"/filler").arg(&self.at).stderr(Stdio::null()).status();
        assert!(!filled.expect("a shell").success(), "the disk is not full");
    }

    /// Makes room again.
    pub(super) fn free(&self) {
        std::fs::remove_file(self.at.join("filler")).expect("it was filled");
    }

    /// Mounts it again with other options.
    pub(super) fn remount(&self, options: &str) {
        let mounted = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.at).status();
        assert!(mounted.expect("mount").success(), "remount {options}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // Whatever its end was, there is nothing more to do.
        let _ = self.keeper.wait();
    }
}

#[test]
fn a_disk_that_takes_no_writes_is_waited_for() {
    run(Engine::Sqlite, outages);
}

async fn outages(database: Database) {
    let Some(disk) = Disk::mount(&database.state(), 96, "") else { return };
    let mut universe = Universe::new(database, &Setup { entities: 6_000, tables: NO_FLOOR, ..Setup::default() });
    universe.run().await;
    let mut watched = Watched::start("sqlite", &mut universe).await;
    let sql = "select count(*) as n from instep_resources where complete_as_of is not null";
    assert_eq!(watched.universe.database.number(sql).await, 0, "the backfill is still running when the disk is full");
    let (client, port) = (watched.universe.client.clone(), watched.universe.hooks_port);
    let away = async || {
        disk.fill();
        use_up(&client, port).await
    };
    // Small deliveries may still find room now and then, and are taken.
    watched.is_total = false;
    watched.outage("full during the backfill", span(60), away, async || disk.free()).await;
    watched.is_total = true;
    watched.universe.swept().await;
    if !Strace::is_here() {
        skipped("store_away: there is no strace");
        return;
    }
    let log = watched.universe.folder("strace.log");
    let pid = watched.universe.daemon().pid();
    // A file system cannot be mounted read-only under open files; one that turns so by itself answers with EROFS.
    for (name, error) in [("without any room", "ENOSPC"), ("read-only", "EROFS")] {
        let inject = format!("inject=pwrite64:error={error}");
        let strace = RefCell::new(None);
        let away = async || {
            let refuse = ["-e", "trace=pwrite64", "-e", &inject, "-o", "/dev/null"];
            strace.replace(Some(Strace::attach(pid, &refuse, &log).await));
            monotonic()
        };
        let back = async || strace.take().expect("it is attached").detach().await;
        watched.outage(name, span(60), away, back).await;
    }
    watched.end().await;
}

/// The log has room of its own, in which commits go on for a while on a disk that is full. Answers with when there is none left
/// for a large delivery.
async fn use_up(client: &reqwest::Client, port: u16) -> Duration {
    for number in 0..200 {
        let body = about_task("1", &format!("{number} {}", "x".repeat(1 << 20)));
        if deliver(client, port, "task-updated", &body).await != Ok(200) {
            return monotonic();
        }
    }
    panic!("a full disk takes 200 MiB");
}

#[test]
fn a_failed_fsync_ends_the_process_and_nothing_is_lost() {
    if !Strace::is_here() {
        skipped("store_away: there is no strace");
        return;
    }
    run(Engine::Sqlite, failed_fsync);
}

async fn failed_fsync(database: Database) {
    let mut universe = Universe::started(database, &Setup { entities: 300, ..Setup::default() }).await;
    let keys = universe.sandbox.keys("tasks").await;
    let load = Paced::start(universe.hooks_port, keys, super::PER_SECOND);
    let log = universe.folder("strace.log");
    for round in 0..3 {
        let before = load.ledger.len();
        eventually("deliveries are accepted", Duration::from_secs(20), async || match load.ledger.len() - before {
            n if n >= 20 => Ok(()),
            n => Err(format!("{n} so far")),
        })
        .await;
        let inject = ["-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:error=EIO", "-o", "/dev/null"];
        let strace = Strace::attach(universe.daemon().pid(), &inject, &log).await;
        let code = universe.daemon().exit_code(Duration::from_secs(10)).await;
        strace.detach().await;
        let said = universe.daemon().said();
        let failures = said.matches("journal failed").count();
        println!(
            "store_away sqlite fsync EIO, round {round}: ended with {code:?}, {} acknowledged, {failures} failed commits",
            load.ledger.len()
        );
        assert_eq!(code, Some(70), "the service manager is to start another");
        universe.kill();
        universe.run().await;
    }
    let (ledger, _) = load.end().await;
    settled(&universe, &ledger).await;
    println!("store_away sqlite fsync EIO: {} acknowledged, none lost", ledger.len());
}
