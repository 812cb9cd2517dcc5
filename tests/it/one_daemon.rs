//! One daemon a SQLite file, and any number of readers: of another user, with the daemon running, stopped and killed.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sea_orm::{ConnectionTrait as _, Statement};

use crate::support::process::{INSTEP, free_port};
use crate::support::{Database, Engine, Process, Setup, Universe, run};

/// Set in the process that a test starts as another user: this test binary again, in the part of a reader.
const FILE: &str = "INSTEP_IT_FILE";
/// `nobody` and `nogroup` of Debian.
const NOBODY: u32 = 65_534;

#[test]
fn a_second_daemon_is_refused() {
    run(Engine::Sqlite, second_daemon);
}

async fn second_daemon(database: Database) {
    let mut universe = Universe::started(database, &Setup { entities: 100, ..Setup::default() }).await;
    let second = universe.folder("second.toml");
    let text = std::fs::read_to_string(universe.config()).expect("the configuration");
    let text = text.replace(&format!("127.0.0.1:{}\"", universe.hooks_port), &format!("127.0.0.1:{}\"", free_port()));
    let text = text.replace(&format!("127.0.0.1:{}\"", universe.admin_port), &format!("127.0.0.1:{}\"", free_port()));
    std::fs::write(&second, text).expect("our own folder");
    let mut command = Command::new(INSTEP);
    command.args(["run", "--config"]).arg(&second).env("STATE_DIRECTORY", universe.database.state());
    let mut refused = Process::start(&mut command, &universe.folder("second.log"));
    let code = refused.exit_code(Duration::from_secs(20)).await;
    let said = refused.said();
    println!("one_daemon: the second ends with {code:?}: {}", said.trim());
    assert_eq!(code, Some(78));
    let pid = universe.daemon().pid().to_string();
    assert!(said.contains("another daemon") && said.contains(&pid), "it names the first: {said}");
    assert!(universe.daemon().ended().is_none(), "the first lives");
}

#[test]
fn another_user_reads_whatever_the_daemon_does() {
    if let Some(file) = std::env::var_os(FILE) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(read(Path::new(&file)));
        return;
    }
    run(Engine::Sqlite, readers);
}

async fn readers(database: Database) {
    let is_root = nix::unistd::Uid::effective().is_root();
    let group = nix::unistd::Group::from_gid(if is_root { nix::unistd::Gid::from_raw(NOBODY) } else { nix::unistd::Gid::effective() });
    let group = group.expect("groups can be looked up").expect("the group has a name").name;
    let tables: &'static str = Box::leak(format!("read_group = {group:?}").into_boxed_str());
    let mut universe = Universe::new(database, &Setup { entities: 100, ..Setup::default() });
    let text = std::fs::read_to_string(universe.config()).expect("the configuration");
    std::fs::write(universe.config(), text.replace("[store]\n", &format!("[store]\n{tables}\n"))).expect("our own folder");
    // A program that the other user may run.
    let program = universe.folder("reader");
    std::fs::copy(std::env::current_exe().expect("a test has a path"), &program).expect("copied");
    universe.run().await;
    universe.backfilled().await;
    let n = universe.database.number("select count(*) as n from pmp_tasks").await;
    // Our own connection would keep the files beside the database alive.
    universe.database.disconnect().await;
    let file = universe.database.file();
    let as_another = |when: &str| {
        let mut command = Command::new(&program);
        command.args(["--exact", "one_daemon::another_user_reads_whatever_the_daemon_does", "--nocapture"]);
        command.env(FILE, &file).current_dir("/");
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        let output = command.output().expect("the reader runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{when}: {said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains(&format!("{n} tasks")), "{when}: {said}");
        println!("one_daemon: read as {} with the daemon {when}", if is_root { "another user" } else { "the same user (not root)" });
    };
    as_another("running");
    assert_eq!(universe.daemon().ended().map(|status| status.code()), None);
    universe.daemon().signal("TERM");
    assert_eq!(universe.daemon().exit_code(Duration::from_secs(30)).await, Some(0));
    as_another("stopped");
    universe.kill();
    universe.run().await;
    let key = universe.sandbox.keys("tasks").await.remove(0);
    let body = crate::support::universe::about_task(&key, "so that the log is not empty");
    universe.deliver_surely("task-updated", &body).await;
    universe.kill();
    as_another("killed");
}

async fn read(file: &Path) {
    let database = sea_orm::Database::connect(format!("sqlite://{}?mode=ro", file.display())).await.expect("it opens");
    let statement = Statement::from_string(database.get_database_backend(), "select count(*) as n from pmp_tasks");
    let row = database.query_one_raw(statement).await.expect("it answers").expect("a row");
    println!("{} tasks", row.try_get::<i64>("", "n").expect("a number"));
    assert!(database.execute_unprepared("delete from instep_entity").await.is_err(), "a reader cannot write");
}
