//! The files of an SQLite store: path, permissions, the lock against a second daemon.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::unistd::Group;

use crate::failpoint;
use crate::store::error::{Error, Kind};

/// Readers of the group may read, nobody else.
const FILE_MODE: u32 = 0o640;
/// The group is inherited by `-wal` and `-shm`.
const DIR_MODE: u32 = 0o2750;

/// The path in an `sqlite:` url; `None` for another scheme.
pub(crate) fn sqlite_path(url: &str) -> Result<Option<PathBuf>, Error> {
    let Some(rest) = url.strip_prefix("sqlite:") else {
        return Ok(None);
    };
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if path.is_empty() || path.starts_with(":memory:") || path.contains('?') {
        return Err(Error::new(Kind::Schema, "the store url must be sqlite:// and the path of a file, without parameters"));
    }
    Ok(Some(PathBuf::from(path)))
}

/// Makes directory and file where they are missing and takes the lock. Returns the canonical path.
pub(crate) fn prepare(path: &Path, read_group: Option<&str>) -> Result<(PathBuf, File), Error> {
    let group = read_group.map(group_id).transpose()?;
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty() && !dir.exists()) {
        make_directory(dir, group)?;
    }
    match OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path) {
        Ok(_) => {
            failpoint::reach_now("files", "database_made")?;
            give(path, FILE_MODE, group)?;
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            if group.is_some() {
                give(path, FILE_MODE, group)?;
            }
        }
        Err(e) => return Err(refused("make the database", &e)),
    }
    let path = fs::canonicalize(path).map_err(|e| refused("find the database", &e))?;
    let lock = lock(&side(&path, ".lock"))?;
    Ok((path, lock))
}

/// Made beside its place and moved there with its mode and group: a process that dies in between leaves none that readers cannot enter.
fn make_directory(dir: &Path, group: Option<u32>) -> Result<(), Error> {
    let draft = side(dir, ".draft");
    fs::create_dir_all(&draft).map_err(|e| refused("make the directory of the database", &e))?;
    failpoint::reach_now("files", "directory_made")?;
    give(&draft, DIR_MODE, group)?;
    fs::rename(&draft, dir).map_err(|e| refused("move the directory of the database into its place", &e))
}

/// Gives `-wal` and `-shm` the group and mode of the database.
pub(crate) fn share_side_files(path: &Path, read_group: Option<&str>) -> Result<(), Error> {
    let group = read_group.map(group_id).transpose()?;
    for suffix in ["-wal", "-shm"] {
        let file = side(path, suffix);
        if file.exists() {
            give(&file, FILE_MODE, group)?;
        }
    }
    Ok(())
}

/// `<path><suffix>`.
pub(crate) fn side(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Takes the lock beside the database. Never on the database itself: closing any descriptor of that file would drop SQLite's own locks.
fn lock(path: &Path) -> Result<File, Error> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path);
    let mut file = opened.map_err(|e| refused("open the lock file", &e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // The pid is a help for people; without it the refusal stands all the same.
            let _ = file.read_to_string(&mut holder);
            let text = format!("another daemon (pid {}) has the database: {} is locked", holder.trim(), path.display());
            return Err(Error::new(Kind::Locked, text));
        }
        Err(TryLockError::Error(e)) => return Err(refused("lock the database", &e)),
    }
    failpoint::reach_now("files", "locked")?;
    let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(|e| refused("write the lock file", &e))?;
    Ok(file)
}

fn group_id(name: &str) -> Result<u32, Error> {
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(Error::new(Kind::Schema, format!("there is no group {name}"))),
        Err(e) => Err(Error::new(Kind::Schema, format!("cannot look up the group {name}: {e}"))),
    }
}

fn give(path: &Path, mode: u32, group: Option<u32>) -> Result<(), Error> {
    if group.is_some() {
        chown(path, None, group).map_err(|e| refused("give the database to its readers' group", &e))?;
    }
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|e| refused("set the mode of the database", &e))
}

/// A full disk and a read-only one pass; the rest does not pass by waiting.
fn refused(what: &str, error: &io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::Interrupted | io::ErrorKind::ReadOnlyFilesystem => {
            Kind::Unavailable
        }
        _ => Kind::Schema,
    };
    Error::new(kind, format!("cannot {what}: {error}"))
}
