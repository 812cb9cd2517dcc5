//! Whether a row of the replica says what the upstream says, and where not.
//!
//! Content is compared as the ordering rule does it, by the hash of the canonical document; and since a database may be changed by
//! others, the stored payload itself is compared too, member by member, without what changes without the record changing. Numbers are
//! compared by their value: PostgreSQL keeps `1e2` as `100`.

use sha2::{Digest, Sha256};

use super::document::{Hash, Json, differing_fields};
use super::ordering::Row;
use super::version::{Order, Version, compare};

/// In what a row and the upstream differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Other content, though no version says so.
    Changed,
    /// The upstream has it, the replica has no live row.
    Missing,
    /// The replica has a live row, the upstream does not have it.
    Extra,
    /// The row's version is older than the upstream's.
    Stale,
    /// The row's version is newer than the upstream's: reads alone do not put that right.
    Ahead,
}

impl Kind {
    /// As it is shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Stale => "stale",
            Self::Ahead => "ahead",
        }
    }
}

/// The state that was read.
#[derive(Clone, Copy, Debug)]
pub struct Upstream<'a> {
    /// Its version.
    pub version: Option<&'a Version>,
    /// Its hash.
    pub hash: Hash,
    /// Its canonical text.
    pub text: &'a str,
}

/// The row that is held.
#[derive(Clone, Copy, Debug)]
pub struct Held<'a> {
    /// As the rule knows it.
    pub row: &'a Row,
    /// Its payload, as the database shows it.
    pub payload: Option<&'a str>,
}

/// What of a document is compared, and how it is named.
#[derive(Clone, Copy, Debug)]
pub struct Compared<'a> {
    /// What changes without the record changing (JSON pointers with `*`).
    pub volatile: &'a [String],
    /// The maps whose entries are named, as in change rows (JSON pointers).
    pub roots: &'a [String],
}

/// A row that does not say what the upstream says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// In what.
    pub kind: Kind,
    /// The members that differ; empty where whole rows are concerned, or the version alone.
    pub members: Vec<String>,
    /// The upstream's version.
    pub upstream: Option<String>,
    /// The row's version.
    pub held: Option<String>,
    /// Of both states: the same again is the same difference.
    pub fingerprint: String,
}

/// Compares what the upstream shows of a record (`None`: it does not have it) with the row (`None`: there is none).
#[must_use]
pub fn difference(upstream: Option<Upstream<'_>>, held: Option<Held<'_>>, compared: Compared<'_>) -> Option<Difference> {
    let live = held.filter(|held| !held.row.deleted);
    let (kind, members) = match (upstream, live) {
        (None, None) => return None,
        (Some(_), None) => (Kind::Missing, Vec::new()),
        (None, Some(_)) => (Kind::Extra, Vec::new()),
        (Some(upstream), Some(held)) => in_content(upstream, held, compared)?,
    };
    let text = |version: Option<&Version>| version.map(Version::text);
    Some(Difference {
        kind,
        members,
        upstream: text(upstream.and_then(|upstream| upstream.version)),
        held: text(live.and_then(|held| held.row.version.as_ref())),
        fingerprint: fingerprint(upstream, live),
    })
}

fn in_content(upstream: Upstream<'_>, held: Held<'_>, compared: Compared<'_>) -> Option<(Kind, Vec<String>)> {
    let members = differing_fields(upstream.text, held.payload.unwrap_or_default(), compared.volatile, compared.roots);
    let is_same = members.is_empty() && held.row.hash == Some(upstream.hash);
    let kind = match compare(upstream.version, held.row.version.as_ref()) {
        Order::Newer => Kind::Stale,
        Order::Older { .. } => Kind::Ahead,
        // A version that the row does not have was never read.
        Order::Incomparable if upstream.version.is_some() => Kind::Stale,
        Order::Tie | Order::Incomparable if is_same => return None,
        Order::Tie | Order::Incomparable => Kind::Changed,
    };
    Some((kind, members))
}

fn fingerprint(upstream: Option<Upstream<'_>>, held: Option<Held<'_>>) -> String {
    let version = |version: Option<&Version>| version.map(Version::text).unwrap_or_default();
    let mut digest = Sha256::new();
    if let Some(upstream) = upstream {
        digest.update(upstream.hash.0);
        digest.update(version(upstream.version));
    }
    digest.update("|");
    if let Some(held) = held {
        digest.update(held.row.hash.map(|hash| hash.0).unwrap_or_default());
        digest.update(version(held.row.version.as_ref()));
        digest.update(held.payload.unwrap_or_default());
    }
    digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

impl Json {
    /// The same with every number in one spelling, so that equal numbers are equal texts.
    #[must_use]
    pub fn with_plain_numbers(self) -> Self {
        match self {
            Self::Number(literal) => Self::Number(plain(&literal).into_boxed_str()),
            Self::Array(items) => Self::Array(items.into_iter().map(Self::with_plain_numbers).collect()),
            Self::Object(entries) => Self::Object(entries.into_iter().map(|(key, item)| (key, item.with_plain_numbers())).collect()),
            other => other,
        }
    }
}

/// A number literal as its significant digits and the power of ten behind them: `-1.50e3` is `-15e2`, every zero is `0`.
fn plain(literal: &str) -> String {
    let (sign, rest) = literal.strip_prefix('-').map_or(("", literal), |rest| ("-", rest));
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return "0".to_owned();
    }
    let n_zeros = digits.len() - digits.trim_end_matches('0').len();
    // Literals are at most 1,000 bytes, and their written exponents at most 400 either way.
    let power = exponent.parse::<i64>().unwrap_or(0) - fraction.len() as i64 + n_zeros as i64;
    format!("{sign}{significant}e{power}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::document::{Document, Shape};
    use crate::model::ids::Tick;

    fn document(text: &str) -> Document {
        let shape = Shape { volatile: vec!["/seen".into(), "/at".into()], ..Shape::default() };
        Document::parse(text.as_bytes(), &shape).expect("readable")
    }

    fn at(second: u8) -> Option<Version> {
        Version::stamp(&Arc::from("at"), &format!("2026-03-14T10:00:{second:02}Z"))
    }

    fn row(text: &str, version: Option<Version>) -> Row {
        Row { deleted: false, version, hash: Some(document(text).hash), tick: Tick::default() }
    }

    /// The kind and the members of what differs between a state and a row whose payload is `payload`.
    fn between(upstream: Option<(&str, Option<Version>)>, held: Option<(Row, &str)>) -> Option<(Kind, Vec<String>)> {
        let read = upstream.map(|(text, version)| (document(text), version));
        let upstream = read.as_ref().map(|(read, version)| Upstream { version: version.as_ref(), hash: read.hash, text: &read.text });
        let held = held.as_ref().map(|(row, payload)| Held { row, payload: Some(payload) });
        let volatile = ["/seen".to_owned(), "/at".to_owned()];
        let compared = Compared { volatile: &volatile, roots: &["".to_owned()] };
        difference(upstream, held, compared).map(|found| (found.kind, found.members))
    }

    #[test]
    fn what_agrees_is_no_difference() {
        let text = r#"{"title":"a","n":100,"seen":1}"#;
        assert_eq!(between(Some((text, at(1))), Some((row(text, at(1)), text))), None);
        assert_eq!(between(Some((text, None)), Some((row(text, None), text))), None);
        assert_eq!(between(None, None), None);
        let volatile = r#"{"title":"a","n":100,"seen":2}"#;
        assert_eq!(between(Some((text, at(1))), Some((row(text, at(1)), volatile))), None, "it changes without the record changing");
    }

    #[test]
    fn every_kind_is_told_from_the_others() {
        let (new, old) = (r#"{"title":"new","size":1}"#, r#"{"title":"old","size":1}"#);
        let of = |kind, members: &[&str]| Some((kind, members.iter().map(|name| (*name).to_owned()).collect()));
        assert_eq!(between(Some((new, at(1))), None), of(Kind::Missing, &[]));
        assert_eq!(between(None, Some((row(new, at(1)), new))), of(Kind::Extra, &[]));
        assert_eq!(between(Some((new, at(1))), Some((row(old, at(1)), old))), of(Kind::Changed, &["title"]));
        assert_eq!(between(Some((new, at(2))), Some((row(old, at(1)), old))), of(Kind::Stale, &["title"]));
        assert_eq!(between(Some((new, at(2))), Some((row(new, at(1)), new))), of(Kind::Stale, &[]));
        assert_eq!(between(Some((new, at(1))), Some((row(old, at(2)), old))), of(Kind::Ahead, &["title"]));
        assert_eq!(between(Some((new, at(1))), Some((row(new, None), new))), of(Kind::Stale, &[]), "never read with a version");
        let tombstone = Row { deleted: true, ..row(new, at(1)) };
        assert_eq!(between(Some((new, at(1))), Some((tombstone.clone(), new))), of(Kind::Missing, &[]));
        assert_eq!(between(None, Some((tombstone, new))), None);
    }

    #[test]
    fn a_payload_that_somebody_else_changed_is_seen_though_its_hash_stands() {
        let (text, edited) = (r#"{"title":"a","size":1}"#, r#"{"title":"b","size":1,"more":2}"#);
        let found = between(Some((text, at(1))), Some((row(text, at(1)), edited)));
        assert_eq!(found, Some((Kind::Changed, vec!["more".into(), "title".into()])));
        let gone = between(Some((text, at(1))), Some((row(text, at(1)), "")));
        assert_eq!(gone, Some((Kind::Changed, vec!["*".into()])));
    }

    #[test]
    fn the_same_difference_has_the_same_fingerprint_and_another_has_another() {
        let (new, old) = (document(r#"{"title":"new"}"#), row(r#"{"title":"old"}"#, at(1)));
        let version = (at(2), at(3));
        let print = |version: &Option<Version>, payload| {
            let upstream = Upstream { version: version.as_ref(), hash: new.hash, text: &new.text };
            let compared = Compared { volatile: &[], roots: &[] };
            difference(Some(upstream), Some(Held { row: &old, payload }), compared).expect("they differ").fingerprint
        };
        let first = print(&version.0, Some("{}"));
        assert_eq!(first, print(&version.0, Some("{}")));
        assert_ne!(first, print(&version.1, Some("{}")));
        assert_ne!(first, print(&version.0, Some(r#"{"x":1}"#)));
    }

    #[test]
    fn equal_numbers_are_spelt_alike() {
        let groups =
            [&["100", "1e2", "1.0E+2", "100.00", "1000e-1"][..], &["0", "-0", "0.000", "0e7"], &["-1.5", "-15e-1"], &["0.015", "1.5e-2"]];
        for group in groups {
            let first = plain(group[0]);
            assert!(group.iter().all(|literal| plain(literal) == first), "{group:?} {first}");
        }
        assert_ne!(plain("10"), plain("1"));
        assert_ne!(plain("-1"), plain("1"));
        assert_ne!(plain("0.1"), plain("0.01"));
    }
}
