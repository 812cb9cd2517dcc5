//! One test for each line of the table, in its order. Where a simulation could not tell (the event that comes at least once would
//! repair the damage), these are the only guard: resources without events have no such repair.

use std::sync::Arc;

use super::*;
use crate::model::version::Value;

const SECOND: i64 = 1_000_000;
const NOW: Timestamp = Timestamp(1_000 * SECOND);
const LAG: Duration = Duration::from_secs(5);
const FRESH: Spans = spans(Duration::ZERO, Duration::ZERO);
const LAGGING: Spans = spans(LAG, LAG);
const LISTS_LAG: Spans = spans(Duration::ZERO, LAG);

const fn spans(read_lag: Duration, list_lag: Duration) -> Spans {
    Spans { read_lag, list_lag, version_skew: Duration::from_secs(60), tombstones: Duration::from_secs(500) }
}

/// A version of so many seconds after the beginning.
fn v(seconds: i64) -> Option<Version> {
    let value = Value::Stamp { at: Timestamp(seconds * SECOND), precision_us: SECOND };
    Some(Version { field: Arc::from("updated_at"), value })
}

fn tick(counter: i64) -> Tick {
    Tick { epoch: 1, counter }
}

fn content(byte: u8) -> Hash {
    Hash([byte; 32])
}

fn row(version: Option<Version>, byte: u8, counter: i64) -> Row {
    Row { deleted: false, version, hash: Some(content(byte)), tick: tick(counter) }
}

fn tombstone(version: Option<Version>, byte: u8, counter: i64) -> Row {
    Row { deleted: true, ..row(version, byte, counter) }
}

fn mark(hint: Option<Version>, counter: i64, hint_at: i64) -> Mark {
    Mark::coalesce(None, hint, false, tick(counter), Timestamp(hint_at * SECOND))
}

fn started(counter: i64, at: i64) -> Started {
    Started { tick: tick(counter), at: Timestamp(at * SECOND) }
}

fn whole(version: Option<Version>, byte: u8) -> Observation {
    Observation::Push { delete: false, version, hash: Some(content(byte)) }
}

fn thin(version: Option<Version>) -> Observation {
    Observation::Push { delete: false, version, hash: None }
}

fn delete(version: Option<Version>) -> Observation {
    Observation::Push { delete: true, version, hash: None }
}

fn read(by: By, counter: i64, at: i64, version: Option<Version>, byte: u8) -> Observation {
    Observation::Read { by, started: started(counter, at), version, hash: content(byte), in_scope: true }
}

fn outside(by: By, counter: i64, at: i64, version: Option<Version>, byte: u8) -> Observation {
    Observation::Read { by, started: started(counter, at), version, hash: content(byte), in_scope: false }
}

fn weigh(observation: &Observation, row: Option<&Row>, mark: Option<&Mark>, spans: &Spans) -> (RowAction, MarkAction, Reason) {
    let verdict = decide(observation, row, mark, false, spans, NOW);
    (verdict.row, verdict.mark, verdict.reason)
}

const KEEP: MarkAction = MarkAction::Keep;
const AGAIN: MarkAction = MarkAction::Again { agreeing: None };

fn set(hint: Option<Version>, announced_delete: bool) -> MarkAction {
    MarkAction::Set { hint, announced_delete }
}

#[test]
fn a_push_renews_an_open_mark_and_goes_on() {
    let open = mark(v(900), 1, 900);
    let held = row(v(900), 1, 1);
    let applied = (RowAction::Apply, set(None, false), Reason::Applied);
    assert_eq!(weigh(&whole(v(950), 2), Some(&held), Some(&open), &FRESH), applied);
    let verdict = decide(&whole(v(950), 2), Some(&held), None, true, &FRESH, NOW);
    assert_eq!((verdict.row, verdict.mark), (RowAction::Apply, set(None, false)), "a read is in flight");
    let stale = (RowAction::Keep, set(None, false), Reason::Stale);
    assert_eq!(weigh(&whole(v(800), 2), Some(&held), Some(&open), &FRESH), stale);
}

#[test]
fn a_push_for_an_unknown_key_is_applied_if_it_is_younger_than_the_tombstones() {
    assert_eq!(weigh(&whole(v(501), 1), None, None, &FRESH), (RowAction::Apply, KEEP, Reason::Applied));
    assert_eq!(weigh(&whole(v(500), 1), None, None, &FRESH), (RowAction::Keep, set(v(500), false), Reason::Marked));
    assert_eq!(weigh(&whole(None, 1), None, None, &FRESH), (RowAction::Keep, set(None, false), Reason::Marked));
    assert_eq!(weigh(&thin(v(999)), None, None, &FRESH), (RowAction::Keep, set(v(999), false), Reason::Marked));
    assert_eq!(weigh(&delete(v(999)), None, None, &FRESH), (RowAction::Keep, set(None, true), Reason::Marked));
}

#[test]
fn any_push_on_a_tombstone_is_a_mark() {
    let gone = tombstone(v(900), 1, 5);
    for push in [whole(v(900), 1), whole(v(950), 2), whole(v(100), 3), thin(v(950))] {
        assert_eq!(weigh(&push, Some(&gone), None, &FRESH), (RowAction::Keep, set(push.version().cloned(), false), Reason::Marked));
    }
}

#[test]
fn a_push_on_a_live_row_is_weighed_by_its_version() {
    let held = row(v(900), 1, 5);
    let marked = |hint| (RowAction::Keep, set(hint, false), Reason::Marked);
    for (push, expected) in [
        (whole(v(901), 2), (RowAction::Apply, KEEP, Reason::Applied)),
        (whole(v(901), 1), (RowAction::Raise, KEEP, Reason::Same)),
        (whole(v(900), 1), (RowAction::Keep, KEEP, Reason::Same)),
        (whole(v(840), 2), (RowAction::Keep, KEEP, Reason::Stale)),
        (thin(v(840)), (RowAction::Keep, KEEP, Reason::Stale)),
        (whole(v(841), 2), marked(v(841))),
        (whole(v(900), 2), marked(v(900))),
        (whole(None, 1), marked(None)),
        (thin(v(900)), marked(v(900))),
        (thin(v(950)), marked(v(950))),
        (delete(v(100)), (RowAction::Keep, set(None, true), Reason::Marked)),
        (delete(None), (RowAction::Keep, set(None, true), Reason::Marked)),
    ] {
        assert_eq!(weigh(&push, Some(&held), None, &FRESH), expected, "{push:?}");
    }
    let sequence = |n| Some(Version::sequence(&Arc::from("sequence"), n));
    let held = row(sequence(9), 1, 5);
    assert_eq!(weigh(&whole(sequence(8), 2), Some(&held), None, &FRESH).2, Reason::Stale, "sequences have no skew");
}

#[test]
fn a_newer_version_is_applied_whatever_its_tick() {
    let held = row(v(900), 1, 5);
    for counter in [3, 7] {
        let page = read(By::List, counter, 990, v(950), 2);
        assert_eq!(weigh(&page, Some(&held), None, &LAGGING), (RowAction::Apply, KEEP, Reason::Applied));
    }
    assert_eq!(weigh(&read(By::List, 3, 990, None, 2), None, None, &LAGGING), (RowAction::Apply, KEEP, Reason::Applied));
}

#[test]
fn an_older_version_wins_only_by_agreeing_reads_by_key_that_span_the_lag() {
    let held = row(v(900), 1, 5);
    assert_eq!(weigh(&read(By::Key, 3, 990, v(800), 2), Some(&held), None, &LAGGING), (RowAction::Keep, KEEP, Reason::Stale));
    let (row_action, first, reason) = weigh(&read(By::Key, 6, 990, v(800), 2), Some(&held), None, &LAGGING);
    let evidence = Agreeing { hash: content(2), tick: tick(6), since: Timestamp(990 * SECOND) };
    assert_eq!((row_action, &first, reason), (RowAction::Keep, &MarkAction::Again { agreeing: Some(evidence) }, Reason::Confirm));
    let open = first.applied_to(None, tick(7), Timestamp(990 * SECOND)).expect("a mark");
    assert!(open.versionless);

    let soon = read(By::Key, 8, 994, v(800), 2);
    assert_eq!(weigh(&soon, Some(&held), Some(&open), &LAGGING), (RowAction::Keep, first.clone(), Reason::Confirm));
    let in_bulk = read(By::Bulk, 8, 995, v(800), 2);
    assert_eq!(weigh(&in_bulk, Some(&held), Some(&open), &LAGGING), (RowAction::Keep, first, Reason::Confirm));
    let other = weigh(&read(By::Key, 8, 995, v(800), 3), Some(&held), Some(&open), &LAGGING);
    assert!(matches!(other, (RowAction::Keep, MarkAction::Again { agreeing: Some(e) }, _) if e.since == Timestamp(995 * SECOND)));
    let late = read(By::Key, 8, 995, v(800), 2);
    assert_eq!(weigh(&late, Some(&held), Some(&open), &LAGGING), (RowAction::Apply, MarkAction::Clear, Reason::Applied));
    let changed = row(v(900), 1, 7);
    assert_eq!(weigh(&late, Some(&changed), Some(&open), &LAGGING).0, RowAction::Keep, "the evidence is older than the row");
}

#[test]
fn other_content_of_an_equal_or_missing_version_is_decided_by_the_tick() {
    for version in [v(900), None] {
        let held = row(v(900), 1, 5);
        let before = read(By::Key, 3, 990, version.clone(), 2);
        assert_eq!(weigh(&before, Some(&held), None, &FRESH), (RowAction::Keep, AGAIN, Reason::Again));
        let after = read(By::Bulk, 6, 990, version.clone(), 2);
        assert_eq!(weigh(&after, Some(&held), None, &FRESH), (RowAction::Apply, KEEP, Reason::Applied));
        assert_eq!(weigh(&after, Some(&held), None, &LAGGING), (RowAction::Apply, AGAIN, Reason::Applied));
        let page = read(By::List, 6, 990, version, 2);
        assert_eq!(weigh(&page, Some(&held), None, &FRESH), (RowAction::Apply, KEEP, Reason::Applied));
        assert_eq!(weigh(&page, Some(&held), None, &LISTS_LAG), (RowAction::Keep, AGAIN, Reason::Again));
    }
}

#[test]
fn the_same_content_raises_version_and_tick() {
    let held = row(v(900), 1, 5);
    for (observation, action, version, counter) in [
        (read(By::List, 3, 990, v(950), 1), RowAction::Raise, v(950), 5),
        (read(By::List, 7, 990, v(950), 1), RowAction::Raise, v(950), 7),
        (read(By::List, 7, 990, v(900), 1), RowAction::Raise, v(900), 7),
        (read(By::List, 7, 990, None, 1), RowAction::Raise, v(900), 7),
        (read(By::List, 3, 990, v(900), 1), RowAction::Keep, v(900), 5),
        (read(By::List, 7, 990, v(800), 1), RowAction::Keep, v(900), 5),
    ] {
        let verdict = decide(&observation, Some(&held), None, false, &LAGGING, NOW);
        assert_eq!((verdict.row, verdict.reason), (action, Reason::Same), "{observation:?}");
        let (after, _) = verdict.applied_to(&observation, Some(held.clone()), None, tick(9), NOW);
        assert_eq!(after, Some(row(version, 1, counter)));
    }
}

#[test]
fn only_a_later_read_by_key_revives() {
    let gone = tombstone(v(900), 1, 5);
    for by in [By::List, By::Bulk] {
        assert_eq!(weigh(&read(by, 7, 990, v(950), 2), Some(&gone), None, &FRESH), (RowAction::Keep, AGAIN, Reason::Confirm));
    }
    let same = read(By::Key, 7, 990, v(900), 1);
    assert_eq!(weigh(&same, Some(&gone), None, &FRESH), (RowAction::Apply, KEEP, Reason::Revived));
    assert_eq!(weigh(&same, Some(&gone), None, &LAGGING), (RowAction::Apply, AGAIN, Reason::Revived));
    let open = mark(v(800), 2, 989);
    let before = read(By::Key, 3, 990, v(900), 1);
    assert_eq!(weigh(&before, Some(&gone), Some(&open), &LAGGING), (RowAction::Keep, AGAIN, Reason::Stale));
}

#[test]
fn absence_in_a_list_is_a_suspicion() {
    let missing = Observation::Missing { started: started(7, 990) };
    assert_eq!(weigh(&missing, Some(&row(v(900), 1, 5)), None, &FRESH), (RowAction::Keep, AGAIN, Reason::Confirm));
    assert_eq!(weigh(&missing, None, Some(&mark(None, 1, 900)), &FRESH), (RowAction::Keep, AGAIN, Reason::Confirm));
    assert_eq!(weigh(&missing, Some(&tombstone(None, 1, 5)), None, &FRESH), (RowAction::Keep, KEEP, Reason::Same));
}

#[test]
fn confirmed_absence_removes_what_is_not_younger() {
    let gone = Observation::Gone { started: started(7, 990) };
    assert_eq!(weigh(&gone, Some(&row(v(900), 1, 5)), None, &FRESH), (RowAction::Tombstone, KEEP, Reason::Removed));
    assert_eq!(weigh(&gone, Some(&row(v(900), 1, 5)), None, &LAGGING), (RowAction::Tombstone, AGAIN, Reason::Removed));
    assert_eq!(weigh(&gone, Some(&row(v(900), 1, 8)), None, &FRESH), (RowAction::Keep, AGAIN, Reason::Again));
    let verdict = decide(&gone, None, None, false, &FRESH, NOW);
    let (after, _) = verdict.applied_to(&gone, None, None, tick(9), NOW);
    assert_eq!(after, Some(Row { deleted: true, version: None, hash: None, tick: tick(7) }));
    let verdict = decide(&gone, Some(&tombstone(v(900), 1, 5)), None, false, &FRESH, NOW);
    let (after, _) = verdict.applied_to(&gone, Some(tombstone(v(900), 1, 5)), None, tick(9), NOW);
    assert_eq!(after, Some(tombstone(v(900), 1, 7)), "a read issued before this one must not revive it");
}

#[test]
fn a_state_out_of_scope_is_weighed_as_any_state_and_leaves_a_tombstone() {
    let held = row(v(900), 1, 5);
    let removed = (RowAction::Tombstone, KEEP, Reason::Removed);
    assert_eq!(weigh(&outside(By::List, 3, 990, v(950), 2), Some(&held), None, &LAGGING), removed, "newer, whatever its tick");
    let stale = (RowAction::Keep, KEEP, Reason::Stale);
    assert_eq!(weigh(&outside(By::List, 3, 990, v(800), 2), Some(&held), None, &LAGGING), stale, "an old page");
    let older = weigh(&outside(By::List, 7, 990, v(800), 2), Some(&held), None, &LISTS_LAG);
    assert_eq!(older, (RowAction::Keep, AGAIN, Reason::Confirm), "a page that lags");
    for version in [v(900), None] {
        let before = weigh(&outside(By::Key, 3, 990, version.clone(), 2), Some(&held), None, &FRESH);
        assert_eq!(before, (RowAction::Keep, AGAIN, Reason::Again), "two states within one second");
        assert_eq!(weigh(&outside(By::Bulk, 7, 990, version.clone(), 1), Some(&held), None, &FRESH), removed, "the scope alone changed");
        let page = weigh(&outside(By::List, 7, 990, version, 2), Some(&held), None, &LISTS_LAG);
        assert_eq!(page, (RowAction::Keep, AGAIN, Reason::Again), "a page that lags cannot tell");
    }
    let open = mark(v(960), 2, 989);
    for held in [Some(&held), None] {
        let page = weigh(&outside(By::List, 7, 990, v(950), 2), held, Some(&open), &LISTS_LAG);
        assert_eq!(page, (RowAction::Keep, AGAIN, Reason::Again), "a read that answers the mark may be under way, and fresher");
        let later = weigh(&outside(By::List, 7, 994, v(950), 2), held, Some(&open), &LISTS_LAG);
        assert_eq!(later, (RowAction::Tombstone, MarkAction::Clear, Reason::Removed));
    }
}

#[test]
fn what_is_out_of_scope_and_not_held_is_only_counted() {
    let nothing = (RowAction::Keep, KEEP, Reason::OutOfScope);
    for by in [By::List, By::Bulk, By::Key] {
        assert_eq!(weigh(&outside(by, 7, 990, v(950), 2), None, None, &LISTS_LAG), nothing);
    }
    let open = mark(v(940), 2, 989);
    let looked_for = weigh(&outside(By::Key, 7, 990, v(950), 2), None, Some(&open), &FRESH);
    assert_eq!(looked_for, (RowAction::Tombstone, MarkAction::Clear, Reason::Removed), "an older read under way must not insert it");
    let gone = tombstone(v(900), 1, 5);
    assert_eq!(weigh(&outside(By::List, 7, 990, v(950), 2), Some(&gone), None, &LISTS_LAG), nothing);
    let open = mark(None, 2, 989);
    let page = weigh(&outside(By::List, 7, 990, v(950), 2), Some(&gone), Some(&open), &LISTS_LAG);
    assert_eq!(page, (RowAction::Keep, AGAIN, Reason::OutOfScope), "it lags");
    let read = weigh(&outside(By::Key, 7, 990, v(950), 2), Some(&gone), Some(&open), &LISTS_LAG);
    assert_eq!(read, (RowAction::Raise, MarkAction::Clear, Reason::Same), "what was issued before it must not revive");
}

#[test]
fn a_mark_is_cleared_by_a_newer_version_or_by_time() {
    let held = row(v(900), 1, 1);
    let cleared = |open: &Mark, by, counter, at, version: Option<Version>, byte, spans: &Spans| {
        weigh(&read(by, counter, at, version, byte), Some(&held), Some(open), spans).1 == MarkAction::Clear
    };
    let open = mark(v(950), 5, 990);
    assert!(cleared(&open, By::Key, 6, 990, v(951), 2, &LAGGING), "newer than the hint");
    assert!(!cleared(&open, By::Key, 6, 990, v(950), 2, &LAGGING), "not newer than the hint");
    assert!(!cleared(&open, By::Key, 6, 994, v(900), 1, &LAGGING), "too soon");
    assert!(cleared(&open, By::Key, 6, 995, v(900), 1, &LAGGING), "the lag has passed");
    assert!(cleared(&open, By::Bulk, 6, 990, v(900), 1, &LISTS_LAG), "bulk reads are fresh here");
    assert!(!cleared(&open, By::List, 6, 994, v(900), 1, &LISTS_LAG), "lists are not");
    assert!(!cleared(&open, By::Key, 4, 999, v(999), 2, &FRESH), "the mark was set after the read was issued");
    let versionless = Mark::coalesce(Some(open.clone()), None, false, tick(5), Timestamp(990 * SECOND));
    assert!(!cleared(&versionless, By::Key, 6, 990, v(999), 2, &LAGGING), "only time clears a mark without a version");
    assert!(!cleared(&open, By::Key, 6, 985, v(900), 1, &LAGGING), "a clock set back by less than the lag waits longer");
    assert!(cleared(&open, By::Key, 6, 984, v(900), 1, &LAGGING), "a hint from the future counts as long past");
}

#[test]
fn hints_coalesce_into_the_newest() {
    let at = |seconds| Timestamp(seconds * SECOND);
    let first = Mark::coalesce(None, v(900), false, tick(1), at(1));
    let older = Mark::coalesce(Some(first.clone()), v(800), true, tick(2), at(2));
    let expected = Mark { tick: tick(2), announced_delete: true, last_hint_at: at(2), ..first.clone() };
    assert_eq!(older, expected);
    assert_eq!(Mark::coalesce(Some(first.clone()), v(950), false, tick(2), at(2)).hint, v(950));
    let other = Some(Version::sequence(&Arc::from("sequence"), 1));
    let mixed = Mark::coalesce(Some(first), other, false, tick(2), at(2));
    assert_eq!((mixed.hint, mixed.versionless), (v(900), true), "hints that do not compare");
    assert_eq!(expected.settles_at(&LAGGING), at(7));
}
