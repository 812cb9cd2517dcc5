//! Finding secrets where none may be: as they are, escaped, in base64, in hex and in the form of URLs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// What must be found nowhere, in all its forms.
pub(crate) struct Searcher {
    /// Whose and which form, and the text that shows it.
    needles: Vec<(String, String)>,
}

impl Searcher {
    /// Looks for these texts, each with its name.
    pub(crate) fn new<'a>(canaries: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut needles = Vec::new();
        for (name, text) in canaries {
            needles.extend(forms(text).into_iter().map(|(form, needle)| (format!("{name} {form}"), needle)));
        }
        Self { needles }
    }

    /// Which of them are in it.
    pub(crate) fn find(&self, haystack: &[u8]) -> Vec<&str> {
        let text = String::from_utf8_lossy(haystack);
        self.needles.iter().filter(|(_, needle)| text.contains(needle.as_str())).map(|(name, _)| name.as_str()).collect()
    }

    /// Which of them are in a file below the folder, but for the files (paths below it) that `leave_out` names.
    pub(crate) fn find_below(&self, folder: &Path, leave_out: &dyn Fn(&Path) -> bool) -> Found {
        let mut found = Found::default();
        self.walk(folder, folder, leave_out, &mut found);
        found
    }

    fn walk(&self, root: &Path, folder: &Path, leave_out: &dyn Fn(&Path) -> bool, found: &mut Found) {
        for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("an entry").path();
            let below = path.strip_prefix(root).expect("it is below").to_owned();
            if leave_out(&below) {
                continue;
            }
            if path.is_dir() {
                self.walk(root, &path, leave_out, found);
                continue;
            }
            // A temporary file may be gone by now; its name was here.
            let bytes = std::fs::read(&path).unwrap_or_default();
            let hits = self.find(&bytes).into_iter().chain(self.find(below.to_string_lossy().as_bytes()));
            found.hits.extend(hits.map(|hit| format!("{}: {hit}", below.display())));
            found.files += 1;
        }
    }
}

/// What a walk found.
#[derive(Default)]
pub(crate) struct Found {
    /// Files that were read.
    pub(crate) files: usize,
    /// File and canary.
    pub(crate) hits: Vec<String>,
}

/// Every form in which a text may show, by the form's name.
pub(crate) fn forms(text: &str) -> BTreeMap<String, String> {
    let bytes = text.as_bytes();
    let each = |write: &dyn Fn(&mut String, u8)| {
        let mut out = String::new();
        bytes.iter().for_each(|byte| write(&mut out, *byte));
        out
    };
    let strict = |hex: &dyn Fn(&mut String, u8)| {
        each(&|out, byte| if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) { out.push(char::from(byte)) } else { hex(out, byte) })
    };
    let lower = |out: &mut String, byte: u8| write!(out, "%{byte:02x}").expect("a text can be written to");
    let upper = |out: &mut String, byte: u8| write!(out, "%{byte:02X}").expect("a text can be written to");
    let mut forms = BTreeMap::from([
        ("raw".to_owned(), text.to_owned()),
        ("as a JSON string".to_owned(), serde_json::to_string(text).expect("a text").trim_matches('"').to_owned()),
        ("as a debugged text".to_owned(), format!("{text:?}").trim_matches('"').to_owned()),
        ("as a list of bytes".to_owned(), format!("{bytes:?}").trim_matches(['[', ']']).to_owned()),
        ("in hex".to_owned(), each(&|out, byte| write!(out, "{byte:02x}").expect("a text can be written to"))),
        ("in upper-case hex".to_owned(), each(&|out, byte| write!(out, "{byte:02X}").expect("a text can be written to"))),
        ("in a form".to_owned(), url::form_urlencoded::byte_serialize(bytes).collect()),
        ("in a URL".to_owned(), strict(&upper)),
        ("in a lower-case URL".to_owned(), strict(&lower)),
        ("in a URL, every byte".to_owned(), each(&upper)),
        ("in a lower-case URL, every byte".to_owned(), each(&lower)),
    ]);
    for (name, last) in [("base64", *b"+/"), ("URL-safe base64", *b"-_")] {
        for offset in 0..3 {
            forms.insert(format!("in {name}, {offset} bytes off"), base64(bytes, offset, last));
        }
    }
    forms
}

/// The characters of base64 that depend on these bytes alone, where `offset` others stand before them and any behind.
fn base64(bytes: &[u8], offset: usize, last: [u8; 2]) -> String {
    let alphabet: Vec<u8> = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain(last).collect();
    let bit = |at: usize| bytes.get((at / 8).wrapping_sub(offset)).map(|byte| usize::from(byte >> (7 - at % 8) & 1));
    let sextet = |at: usize| (0..6).try_fold(0, |value, n| Some(value << 1 | bit(at * 6 + n)?));
    let first = (offset * 8).div_ceil(6);
    (first..).map_while(sextet).map(|value: usize| char::from(alphabet[value])).collect()
}

#[test]
fn what_is_known_of_the_forms_holds() {
    let found = forms("a+b/?");
    for (form, wanted) in [
        ("in base64, 0 bytes off", "YStiLz"),
        ("in base64, 1 bytes off", "ErYi8/"),
        ("in base64, 2 bytes off", "hK2IvP"),
        ("in URL-safe base64, 1 bytes off", "ErYi8_"),
        ("in hex", "612b622f3f"),
        ("in a URL", "a%2Bb%2F%3F"),
        ("in a form", "a%2Bb%2F%3F"),
        ("in a lower-case URL, every byte", "%61%2b%62%2f%3f"),
        ("as a list of bytes", "97, 43, 98, 47, 63"),
    ] {
        assert_eq!(found[form], wanted, "{form}");
    }
}
