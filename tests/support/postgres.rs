//! Where the tests find PostgreSQL: the server of `INSTEP_TEST_POSTGRES`, else the local one, else a temporary one from the
//! server's binaries.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;

use sea_orm::Database;

/// What is tried when nothing is configured.
const LOCAL: &str = "postgresql://root@127.0.0.1:5432/postgres";

/// Holds the temporary server: it ends when its standard input does, that is with this process.
static TEMPORARY: OnceLock<Option<(String, ChildStdin)>> = OnceLock::new();

/// The URL of a database `name` on the server that tests use, or why there is none. The server's own is `postgres`.
pub(crate) async fn server(name: &str) -> Result<String, String> {
    let configured = std::env::var("INSTEP_TEST_POSTGRES").unwrap_or_else(|_| LOCAL.to_owned());
    let url = with_database(&configured, name);
    match Database::connect(with_database(&configured, "postgres")).await {
        Ok(connection) => {
            // Only tried out; a failure to close it changes nothing.
            let _ = connection.close().await;
            Ok(url)
        }
        Err(error) => {
            let temporary = TEMPORARY.get_or_init(start).as_ref();
            let (base, _) = temporary.ok_or_else(|| format!("no server at {configured} ({error}) and no binaries of one"))?;
            let base = base.clone();
            super::eventually("the temporary server answers", std::time::Duration::from_secs(30), async || {
                Database::connect(with_database(&base, "postgres")).await.map(drop).map_err(|error| error.to_string())
            })
            .await;
            Ok(with_database(&base, name))
        }
    }
}

fn with_database(url: &str, name: &str) -> String {
    let mut url = url::Url::parse(url).unwrap_or_else(|error| panic!("INSTEP_TEST_POSTGRES: {error}"));
    url.set_path(name);
    url.to_string()
}

/// Starts a server of our own. As root it needs the server's user, for PostgreSQL refuses to run as root.
fn start() -> Option<(String, ChildStdin)> {
    let binaries = newest()?;
    let folder = tempfile::Builder::new().prefix("instep-pg").tempdir().ok()?.keep();
    let port = super::process::free_port();
    let script = format!(
        "set -e; cd {folder}; {bin}/initdb --auth=trust --username=root --no-sync -D {folder}/data >/dev/null; \
         {bin}/postgres -D {folder}/data -k {folder} -h 127.0.0.1 -p {port} 2>/dev/null & server=$!; cat >/dev/null; \
         kill -INT $server; wait $server || true; rm -rf {folder}/data",
        bin = binaries.display(),
        folder = folder.display(),
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    as_server(&mut command, &folder)?;
    let mut child = command.spawn().ok()?;
    let stdin = child.stdin.take()?;
    Some((format!("postgresql://root@127.0.0.1:{port}/postgres"), stdin))
}

/// Gives folder and command to the server's user, where we are root.
pub(super) fn as_server(command: &mut Command, folder: &Path) -> Option<()> {
    if let Some(user) = nix::unistd::User::from_name("postgres").ok().flatten().filter(|_| nix::unistd::Uid::effective().is_root()) {
        use std::os::unix::process::CommandExt as _;
        std::os::unix::fs::chown(folder, Some(user.uid.as_raw()), Some(user.gid.as_raw())).ok()?;
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    Some(())
}

/// The folder of the newest server's binaries.
pub(super) fn newest() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|entry| entry.path().join("bin"));
    let number = |path: &Path| path.parent().and_then(Path::file_name).and_then(|name| name.to_str()?.parse::<u32>().ok());
    versions.filter(|path| path.join("initdb").exists()).max_by_key(|path| number(path))
}
