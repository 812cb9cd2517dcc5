//! A PostgreSQL server of a test's own, which may be stopped, frozen and cut off without hurting other tests.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use sea_orm::{ConnectionTrait as _, Database, DbBackend, Statement};

use super::eventually;
use super::postgres::{as_server, newest};
use super::process::free_port;
use super::strace::SLOW_DISK;

/// Ends the server, whether it runs or is frozen, and removes its folder.
const UNDO: &str = "cat >/dev/null; read -r pid <data/postmaster.pid 2>/dev/null && \
                    { kill -CONT $pid $(pgrep -P $pid); kill -QUIT $pid; }; cd /; rm -rf \"$0\"";

/// A changed setting is in force after this; it takes milliseconds.
const IN_FORCE: Duration = Duration::from_secs(5);

/// The server. Its database is `postgres`, its superuser `root`; it begins stopped and ends when this is dropped or the test dies.
pub(crate) struct OwnServer {
    binaries: PathBuf,
    folder: PathBuf,
    port: u16,
    /// A shell that undoes everything when its standard input ends.
    keeper: (Child, Option<ChildStdin>),
}

impl OwnServer {
    /// Makes a cluster and starts it; `None` where there are no binaries.
    pub(crate) fn start() -> Option<Self> {
        let binaries = newest()?;
        let folder = tempfile::Builder::new().prefix("instep-own").tempdir().ok()?.keep();
        let mut command = Command::new("sh");
        command.args(["-c", UNDO]).arg(&folder).current_dir(&folder).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        as_server(&mut command, &folder)?;
        let mut keeper = command.spawn().ok()?;
        let stdin = keeper.stdin.take();
        let server = Self { binaries, folder, port: free_port(), keeper: (keeper, stdin) };
        server.call("initdb", &["--auth=trust", "--username=root", "--no-sync", "-D", "data"]);
        server.up();
        Some(server)
    }

    /// As it stands in the configuration.
    pub(crate) fn url(&self) -> String {
        format!("postgresql://root@127.0.0.1:{}/postgres", self.port)
    }

    /// Starts it and waits until it takes connections.
    pub(crate) fn up(&self) {
        self.start_as(&self.binaries.join("postgres"));
    }

    /// The same, with 10 ms more for every sync of a file.
    pub(crate) fn up_with_slow_disk(&self) {
        let slow = self.folder.join("slow-postgres");
        let script = format!("#!/bin/sh\nexec strace {} {} \"$@\"\n", SLOW_DISK.join(" "), self.binaries.join("postgres").display());
        std::fs::write(&slow, script).expect("our own folder");
        std::fs::set_permissions(&slow, std::fs::Permissions::from_mode(0o755)).expect("our own file");
        self.start_as(&slow);
    }

    fn start_as(&self, program: &Path) {
        let options = format!("-k {} -h 127.0.0.1 -p {}", self.folder.display(), self.port);
        self.call("pg_ctl", &["start", "-w", "-p", &program.display().to_string(), "-D", "data", "-l", "log", "-o", &options]);
    }

    /// Stops it as a power cut would.
    pub(crate) fn down(&self) {
        self.call("pg_ctl", &["stop", "-w", "-m", "immediate", "-D", "data"]);
    }

    /// Stops every process of it where it stands.
    pub(crate) fn freeze(&self) {
        // First the one that starts others.
        self.signal("STOP", &[self.postmaster()]);
        self.signal("STOP", &self.children());
    }

    /// Lets them go on.
    pub(crate) fn thaw(&self) {
        self.signal("CONT", &self.children());
        self.signal("CONT", &[self.postmaster()]);
    }

    /// Takes writes, or refuses them, once this returns: whoever connects only then has the setting by the server's own process, which
    /// has told all others of it before.
    pub(crate) async fn set_read_only(&self, is_read_only: bool) {
        self.execute(&format!("alter system set default_transaction_read_only = {is_read_only}")).await;
        self.execute("select pg_reload_conf()").await;
        let wanted = if is_read_only { "on" } else { "off" };
        let url = format!("postgresql://root@127.0.0.1:{}/template1", self.port);
        eventually("the setting is in force", IN_FORCE, async || {
            let connection = Database::connect(&url).await.map_err(|error| error.to_string())?;
            let statement = Statement::from_string(DbBackend::Postgres, "select current_setting('default_transaction_read_only') as v");
            let row = connection.query_one_raw(statement).await.map_err(|error| error.to_string())?;
            connection.close().await.map_err(|error| error.to_string())?;
            let value: String = row.ok_or("no row")?.try_get("", "v").map_err(|error| error.to_string())?;
            if value == wanted { Ok(()) } else { Err(value) }
        })
        .await;
    }

    /// Cuts every connection; new ones are taken or refused.
    pub(crate) async fn cut(&self, takes_new: bool) {
        self.execute(&format!("alter database postgres allow_connections {takes_new}")).await;
        self.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = 'postgres'").await;
    }

    /// By way of another database than the daemon's, whatever the server refuses to others.
    async fn execute(&self, sql: &str) {
        let url = format!("postgresql://root@127.0.0.1:{}/template1?options[default_transaction_read_only]=off", self.port);
        let connection = Database::connect(url).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        connection.execute_unprepared(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        connection.close().await.expect("closed");
    }

    fn postmaster(&self) -> u32 {
        let text = std::fs::read_to_string(self.folder.join("data/postmaster.pid")).expect("it runs");
        text.lines().next().and_then(|line| line.trim().parse().ok()).expect("a number")
    }

    fn children(&self) -> Vec<u32> {
        let listed = Command::new("pgrep").args(["-P", &self.postmaster().to_string()]).output().expect("pgrep");
        String::from_utf8_lossy(&listed.stdout).lines().filter_map(|line| line.trim().parse().ok()).collect()
    }

    fn signal(&self, name: &str, pids: &[u32]) {
        let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
        // One may have ended in between.
        let _ = Command::new("kill").arg(format!("-{name}")).args(pids).stderr(Stdio::null()).status().expect("kill");
    }

    fn call(&self, binary: &str, arguments: &[&str]) {
        let mut command = Command::new(self.binaries.join(binary));
        command.args(arguments).current_dir(&self.folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        as_server(&mut command, &self.folder).expect("the folder can be given");
        let status = command.status().unwrap_or_else(|error| panic!("{binary}: {error}"));
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        assert!(status.success(), "{binary} {arguments:?}: {status}\n{log}");
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.keeper.1 = None;
        // Whatever its end was, there is nothing more to do.
        let _ = self.keeper.0.wait();
    }
}
