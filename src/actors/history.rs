//! The life of one entity for people (`instep explain`) and for callers of the API: what stands in rows, and one sentence that says
//! what is held now and why. Not an actor: it runs inside requests.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::source::Source;
use crate::clock::Timestamp;
use crate::model::{Entity, Key, ResourceName, Version};
use crate::store::{self, Changed, Entry, Happened, History, OpenMark, StoredRow, Told};

/// Entries of an answer, unless the caller wants fewer or more.
pub const ENTRIES: usize = 200;
/// Most entries of an answer.
pub const ENTRIES_MAX: usize = 1_000;

impl Source {
    /// The entity that a caller names; says why it cannot be one.
    pub(super) fn entity(&self, resource: &str, key: &str) -> Result<Entity, String> {
        let known = ResourceName::new(resource).ok().filter(|name| self.spec(name).is_some());
        let resource = known.ok_or_else(|| format!("`{}` has no resource `{resource}`", self.name))?;
        let key = Key::new(key).map_err(|error| format!("the key {error}"))?;
        Ok(Entity { resource, key })
    }

    /// The life of an entity, its newest `limit` entries.
    pub(super) async fn history(&self, entity: &Entity, limit: usize) -> Result<Value, store::Error> {
        let history = self.store.history(&self.name, entity, limit).await?;
        let now = self.clock.now();
        Ok(json!({
            "source": self.name.as_str(),
            "resource": entity.resource.as_str(),
            "key": entity.key.as_str(),
            "holds": holds(&history),
            "row": history.row.as_ref().map(|row| self::row(row, now)),
            "mark": history.mark.as_ref().map(mark),
            "entries": history.entries.iter().map(entry).collect::<Vec<_>>(),
            "more": history.more,
        }))
    }
}

/// A number of entries as a caller wrote it.
pub(super) fn limit(text: Option<&str>) -> Result<usize, String> {
    let Some(text) = text else { return Ok(ENTRIES) };
    let limit = text.parse().ok().filter(|limit| (1..=ENTRIES_MAX).contains(limit));
    limit.ok_or_else(|| format!("limit is a number from 1 to {ENTRIES_MAX}"))
}

fn row(row: &StoredRow, now: Timestamp) -> Value {
    let StoredRow { version, deleted_at, deleted_reason, compared_at, last_change, .. } = row;
    json!({
        "version": version.as_ref().map(Version::text),
        "deleted": deleted_at.is_some(),
        "deleted_at": deleted_at.map(text),
        "deleted_reason": deleted_reason,
        "as_of": compared_at.map(text),
        "age_s": compared_at.map(|at| now.since(at).as_secs_f64()),
        "last_change": last_change,
    })
}

fn mark(mark: &OpenMark) -> Value {
    let OpenMark { reason, last_hint_at, hint, announced_delete, attempts, next, held, note } = mark;
    json!({
        "reason": reason,
        "last_hint_at": text(*last_hint_at),
        "hint": hint.as_ref().map(Version::text),
        "announced_delete": announced_delete,
        "attempts": attempts,
        "next": text(*next),
        "held": held,
        "note": note,
    })
}

fn entry(entry: &Entry) -> Value {
    let at = text(entry.at);
    match &entry.what {
        Happened::Event(Told { via, operation, outcome, reason, delivery, received_at }) => json!({
            "at": at, "what": "event", "via": via, "operation": operation, "outcome": outcome, "reason": reason,
            "delivery": delivery, "received_at": received_at.map(text),
        }),
        Happened::Change(Changed { number, operation, version, upstream_at, learned_by, delivery, fields }) => json!({
            "at": at, "what": "change", "number": number, "operation": operation, "version": version,
            "upstream_at": upstream_at.map(text), "learned_by": learned_by, "delivery": delivery,
            "changed": serde_json::from_str::<&RawValue>(fields).ok(),
        }),
        Happened::Quarantined(reason) => json!({ "at": at, "what": "quarantined", "reason": reason }),
    }
}

fn text(at: Timestamp) -> String {
    at.to_string()
}

/// What is held now and why, in one sentence.
fn holds(history: &History) -> String {
    let put_aside = history.entries.iter().rev().find_map(|entry| match &entry.what {
        Happened::Quarantined(reason) => Some(format!("its record could not be read at {} ({reason})", entry.at)),
        _ => None,
    });
    let mut sentence = match &history.row {
        Some(row) => held(row, last_change(&history.entries, row.last_change)),
        None if history.entries.is_empty() && history.mark.is_none() => {
            "Nothing is held: no event that is still kept named it, and no read showed it".to_owned()
        }
        None => "Nothing is held".to_owned(),
    };
    if let Some(put_aside) = put_aside {
        sentence.push_str("; ");
        sentence.push_str(&put_aside);
    }
    if let Some(mark) = &history.mark {
        sentence.push_str(&again(mark));
    }
    sentence.push('.');
    sentence
}

fn held(row: &StoredRow, change: Option<&Changed>) -> String {
    let how = change.map_or_else(
        || "a change that is no longer kept".to_owned(),
        |change| format!("change {}, learned by {}", change.number, way(&change.learned_by)),
    );
    let compared = row
        .compared_at
        .map_or_else(|| "not compared with the upstream yet".to_owned(), |at| format!("compared with the upstream as of {at}"));
    match (row.deleted_at, &row.version) {
        (Some(at), _) => {
            let reason = row.deleted_reason.as_deref().unwrap_or("no reason is kept");
            // A tombstone that was written for a record that was never held has no change.
            let how = if row.last_change == 0 { "it was never held".to_owned() } else { how };
            format!("It is held as removed since {at} ({reason}; {how}), {compared}")
        }
        (None, Some(version)) => format!("Version {} is held ({how}), {compared}", version.text()),
        (None, None) => format!("A state without a version is held ({how}), {compared}"),
    }
}

fn again(mark: &OpenMark) -> String {
    let note = mark.note.as_deref().map_or_else(String::new, |note| format!("; the last read met: {note}"));
    let what = if mark.held { "its removal waits" } else { "it will be read again" };
    format!("; {what}, not before {} (mark: {}, {} reads in vain{note})", mark.next, mark.reason, mark.attempts)
}

fn last_change(entries: &[Entry], number: i64) -> Option<&Changed> {
    entries.iter().rev().find_map(|entry| match &entry.what {
        Happened::Change(change) if change.number == number => Some(change),
        _ => None,
    })
}

fn way(learned_by: &str) -> &str {
    match learned_by {
        "hook" => "a push",
        "feed" => "an event feed",
        "pass" => "a page of a pass",
        "mark" => "a read that a mark asked for",
        "refresh" => "a read that was asked for at once",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp(1_700_000_000_000_000 + second * 1_000_000)
    }

    fn live() -> StoredRow {
        let version = Version::stamp(&"updated_at".into(), &at(1).to_string());
        StoredRow { version, deleted_at: None, deleted_reason: None, compared_at: Some(at(2)), last_change: 7, hash: None, payload: None }
    }

    fn change(number: i64) -> Entry {
        let what = Changed {
            number,
            operation: "insert".to_owned(),
            version: None,
            upstream_at: None,
            learned_by: "mark".to_owned(),
            delivery: None,
            fields: "[]".to_owned(),
        };
        Entry { at: at(2), what: Happened::Change(what) }
    }

    fn open() -> OpenMark {
        OpenMark {
            reason: "event".to_owned(),
            last_hint_at: at(3),
            hint: None,
            announced_delete: false,
            attempts: 2,
            next: at(9),
            held: false,
            note: Some("the upstream answered 500".to_owned()),
        }
    }

    #[test]
    fn the_sentence_says_what_is_held_and_why() {
        let known = History { entries: vec![change(7)], row: Some(live()), ..History::default() };
        assert_eq!(
            holds(&known),
            "Version 2023-11-14T22:13:21.000000Z is held (change 7, learned by a read that a mark asked for), compared with the upstream as of \
             2023-11-14T22:13:22.000000Z."
        );
        let marked = holds(&History { mark: Some(open()), ..known.clone() });
        assert!(marked.ends_with("; it will be read again, not before 2023-11-14T22:13:29.000000Z (mark: event, 2 reads in vain; the last read met: the upstream answered 500)."), "{marked}");
        let removed = StoredRow { deleted_at: Some(at(5)), deleted_reason: Some("not found".to_owned()), ..live() };
        let removed = holds(&History { row: Some(removed), ..known.clone() });
        assert!(removed.starts_with("It is held as removed since 2023-11-14T22:13:25.000000Z (not found; change 7,"), "{removed}");
        let aside = Entry { at: at(6), what: Happened::Quarantined("a number is none".to_owned()) };
        let aside = holds(&History { entries: vec![aside], ..History::default() });
        assert_eq!(aside, "Nothing is held; its record could not be read at 2023-11-14T22:13:26.000000Z (a number is none).");
        assert!(holds(&History::default()).starts_with("Nothing is held: no event"));
        let purged = holds(&History { entries: vec![change(3)], ..known });
        assert!(purged.contains("a change that is no longer kept"), "{purged}");
    }

    #[test]
    fn a_limit_is_bounded() {
        assert_eq!((limit(None), limit(Some("1")), limit(Some("1000"))), (Ok(200), Ok(1), Ok(1000)));
        for bad in ["0", "1001", "-1", "", "x", "99999999999999999999999"] {
            assert!(limit(Some(bad)).is_err(), "{bad}");
        }
    }
}
