//! `include = ["sources.d/*.toml"]`: which files are read beside the main one.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::reader::{Context, File, Item, Log, Mistake, Table};
use super::value::Value;

/// A configuration is written by hand; what is larger is another file by mistake.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Reads a whole file.
pub(super) fn read(path: &Path) -> Result<File, Mistake> {
    let name = path.display().to_string();
    let unreadable = |message: String| Mistake { file: name.clone(), line: 0, column: 0, key: String::new(), message };
    let length = std::fs::metadata(path).map_err(|error| unreadable(format!("cannot be read: {error}")))?.len();
    if length > FILE_BYTES_MAX {
        return Err(unreadable("is larger than 4 MiB".to_owned()));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(format!("cannot be read: {error}")))?;
    Ok(File { name: name.clone(), text })
}

/// The files that `main` includes, in the order of its patterns and, within one, of their names.
pub(super) fn files(main: &File, log: &RefCell<Log>) -> Vec<File> {
    let context = Context { file: Some(main), log };
    let (map, _) = DeTable::parse_recoverable(&main.text);
    let root = Table::new(String::new(), map.get_ref(), 0, context);
    let Some(item) = root.item("include") else {
        return Vec::new();
    };
    let beside = Path::new(&main.name).parent().unwrap_or(Path::new("")).to_owned();
    let mut files = Vec::new();
    for pattern in item.array("a list of files").unwrap_or_default() {
        for path in matching(&pattern, &beside).unwrap_or_default() {
            match read(&path) {
                Ok(file) => files.push(file),
                Err(mistake) => log.borrow_mut().mistakes.push(mistake),
            }
        }
    }
    files
}

/// The files of one pattern. A plain name must exist; a pattern may match nothing, as an empty `sources.d` does.
fn matching(item: &Item<'_>, beside: &Path) -> Option<Vec<PathBuf>> {
    let path = beside.join(String::read(item)?);
    let (Some(directory), Some(pattern)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return item.mistake("must be a file or a pattern such as \"sources.d/*.toml\"");
    };
    if directory.to_string_lossy().contains('*') {
        return item.mistake("may hold * in its last part only");
    }
    if !pattern.contains('*') {
        return match path.is_file() {
            true => Some(vec![path]),
            false => item.mistake(format!("there is no file {}", path.display())),
        };
    }
    let listed = match std::fs::read_dir(if directory.as_os_str().is_empty() { Path::new(".") } else { directory }) {
        Ok(listed) => listed,
        Err(error) => return item.mistake(format!("{} cannot be read: {error}", directory.display())),
    };
    let names = listed.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    // Hidden files are editors' and package managers' leftovers.
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.') && matches(pattern, name)).collect();
    names.sort();
    Some(names.into_iter().map(|name| directory.join(name)).collect())
}

/// Whether `*` in the pattern can stand for parts of the name such that they are equal.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices().map(|(index, _)| index).chain([rest.len()]).any(|index| matches(after, &rest[index..]))
        }),
    }
}
