//! What the documents name exists: tests, by the path that `cargo test` takes.

use super::tidy::{self, File};

const DOCUMENTS: [&str; 2] = ["docs/guarantees.md", "docs/pitfalls.md"];

/// The path of a file's module: `quota::tests` of `src/quota/tests.rs`, `edge` of `tests/it/edge.rs`.
fn module(file: &File) -> Option<String> {
    let path = file.path.with_extension("");
    let path = path.to_str()?;
    if let Some(rest) = path.strip_prefix("tests/failpoints/") {
        return Some(if rest == "failpoints" { rest.to_owned() } else { format!("failpoints::{}", rest.replace('/', "::")) });
    }
    let rest = path.strip_prefix("tests/it/").or_else(|| path.strip_prefix("src/"))?;
    Some(rest.replace('/', "::"))
}

/// Whether a path names a test, or a module of tests. Tests inside a file's own `mod tests` may be named with or without it.
fn exists(files: &[File], path: &str) -> bool {
    let (parent, name) = path.rsplit_once("::").unwrap_or(("", path));
    let holds = |file: &&File| {
        let Some(module) = module(file) else { return false };
        let is_module = module == path && (file.text.contains("on_both!") || file.text.contains("#[test]"));
        let is_here = module == parent || parent.strip_suffix("::tests").is_some_and(|outer| module == outer);
        is_module || is_here && file.text.contains(&format!("fn {name}("))
    };
    files.iter().any(|file| holds(&file))
}

/// What stands in backquotes in a table's row and looks like the path of a test.
fn named(line: &str) -> Vec<&str> {
    let cells = line.starts_with('|').then(|| line.split('`').skip(1).step_by(2)).into_iter().flatten();
    let is_path = |text: &&str| {
        text.contains("::") && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_:".contains(&byte))
    };
    cells.filter(is_path).collect()
}

#[test]
fn every_test_that_a_document_names_exists() {
    let files = tidy::files();
    let (mut n_named, mut missing) = (0, Vec::new());
    for document in DOCUMENTS {
        for (index, line) in tidy::read(document).lines().enumerate() {
            for path in named(line) {
                n_named += 1;
                if !exists(&files, path) {
                    missing.push(format!("{document}:{}: {path}", index + 1));
                }
            }
        }
    }
    assert!(n_named > 60, "only {n_named} names were found");
    assert!(missing.is_empty(), "no such test:\n{}", missing.join("\n"));
    // The check sees what it looks for.
    assert!(!exists(&files, "quota::tests::nothing_of_this_name") && !exists(&files, "nowhere::at_all"));
    assert!(exists(&files, "documents::every_test_that_a_document_names_exists"));
}
