//! The rule with one line of it broken. Each must be found out: a simulation that finds nothing would prove nothing.

use std::time::Duration;

use super::world::{End, World};
use super::{Freshness, Pushes, Rule, Setting, Stamps};
use crate::clock::Timestamp;
use crate::model::ids::Tick;
use crate::model::ordering::{By, Mark, MarkAction, Observation, Reason, Row, RowAction, Spans, Started, Verdict, decide};
use crate::model::version::{Order, compare};

/// Schedules within which a broken rule must be found out.
const FOUND_WITHIN: u64 = 100_000;

const CONSISTENT: Setting =
    Setting { stamps: Stamps::Millis, pushes: Pushes::Mixed, freshness: Freshness::Consistent, restore: true, scopes: false };
const SECONDS: Setting = Setting { stamps: Stamps::Seconds, ..CONSISTENT };
const LISTS_LAG: Setting = Setting { freshness: Freshness::ListsLag, ..SECONDS };
const ALL_LAG: Setting = Setting { freshness: Freshness::AllLag, ..SECONDS };
const NO_STAMPS: Setting = Setting { stamps: Stamps::None, ..CONSISTENT };
const SCOPES: Setting = Setting { scopes: true, ..CONSISTENT };
const SCOPES_LAG: Setting = Setting { scopes: true, ..LISTS_LAG };

#[test]
fn every_broken_rule_is_found_out() {
    let broken: [(&str, Rule, Setting); 20] = [
        ("a push that ties is applied", tie_is_newer, SECONDS),
        ("a push that ties is dropped", tie_is_stale, SECONDS),
        ("a delete is dropped by its version", delete_can_be_stale, CONSISTENT),
        ("a push revives", push_revives, CONSISTENT),
        ("a push clears the mark", push_clears, CONSISTENT),
        ("a read clears a mark that was set after it was issued", clears_later_marks, CONSISTENT),
        ("a mark is cleared without the lag", no_lag, ALL_LAG),
        ("a list revives", list_revives, LISTS_LAG),
        ("a lagging page wins a tie", page_wins_tie, LISTS_LAG),
        ("an older version wins at once", older_wins, LISTS_LAG),
        ("absent in a list is gone", missing_is_gone, LISTS_LAG),
        ("gone leaves nothing where no row was", gone_leaves_nothing, CONSISTENT),
        ("gone wins whenever it was issued", gone_always_wins, CONSISTENT),
        ("a lagging read that found it gone leaves no mark", lagging_gone_is_final, ALL_LAG),
        ("a delete's version counts as a hint", delete_is_a_hint, ALL_LAG),
        ("the same content does not raise the version", same_is_kept, CONSISTENT),
        ("the tick forgets its epoch", no_epoch, NO_STAMPS),
        ("out of scope is gone, whatever the version", outside_is_gone, SCOPES_LAG),
        ("out of scope leaves nothing where a mark was", outside_leaves_nothing, SCOPES),
        ("out of scope is not looked at", outside_is_ignored, SCOPES),
    ];
    let mut unnoticed = Vec::new();
    for (name, rule, setting) in broken {
        let mut world = World::new(setting, rule);
        match (0..FOUND_WITHIN).find(|seed| world.run(*seed, false) != End::Right) {
            Some(seed) => println!("{name}: found out by schedule {seed}"),
            None => unnoticed.push(name),
        }
    }
    assert!(unnoticed.is_empty(), "not found out: {unnoticed:?}");
}

fn keep(reason: Reason) -> Verdict {
    Verdict { row: RowAction::Keep, mark: MarkAction::Keep, reason }
}

fn order(observation: &Observation, row: Option<&Row>) -> Order {
    compare(observation.version(), row.and_then(|row| row.version.as_ref()))
}

fn live(row: Option<&Row>) -> bool {
    row.is_some_and(|row| !row.deleted)
}

fn whole(observation: &Observation) -> bool {
    matches!(observation, Observation::Push { delete: false, hash: Some(_), .. })
}

fn tie_is_newer(o: &Observation, row: Option<&Row>, mark: Option<&Mark>, flight: bool, spans: &Spans, now: Timestamp) -> Verdict {
    if whole(o) && live(row) && order(o, row) == Order::Tie {
        return Verdict { row: RowAction::Apply, ..keep(Reason::Applied) };
    }
    decide(o, row, mark, flight, spans, now)
}

fn tie_is_stale(o: &Observation, row: Option<&Row>, mark: Option<&Mark>, flight: bool, spans: &Spans, now: Timestamp) -> Verdict {
    if whole(o) && live(row) && order(o, row) == Order::Tie {
        return keep(Reason::Stale);
    }
    decide(o, row, mark, flight, spans, now)
}

fn delete_can_be_stale(o: &Observation, row: Option<&Row>, mark: Option<&Mark>, flight: bool, spans: &Spans, now: Timestamp) -> Verdict {
    let delete = matches!(o, Observation::Push { delete: true, .. });
    if delete && live(row) && matches!(order(o, row), Order::Older { .. }) {
        return keep(Reason::Stale);
    }
    decide(o, row, mark, flight, spans, now)
}

fn push_revives(o: &Observation, row: Option<&Row>, mark: Option<&Mark>, flight: bool, spans: &Spans, now: Timestamp) -> Verdict {
    if whole(o) && row.is_some_and(|row| row.deleted) {
        return Verdict { row: RowAction::Apply, ..keep(Reason::Revived) };
    }
    decide(o, row, mark, flight, spans, now)
}

fn push_clears(o: &Observation, row: Option<&Row>, mark: Option<&Mark>, flight: bool, spans: &Spans, now: Timestamp) -> Verdict {
    let verdict = decide(o, row, mark, flight, spans, now);
    if whole(o) && verdict.row == RowAction::Apply {
        return Verdict { mark: MarkAction::Clear, ..verdict };
    }
    verdict
}

fn clears_later_marks(o: &Observation, row: Option<&Row>, mark: Option<&Mark>, flight: bool, spans: &Spans, now: Timestamp) -> Verdict {
    let mark = mark.map(|mark| Mark { tick: Tick::default(), ..mark.clone() });
    decide(o, row, mark.as_ref(), flight, spans, now)
}

fn no_lag(o: &Observation, row: Option<&Row>, mark: Option<&Mark>, flight: bool, spans: &Spans, now: Timestamp) -> Verdict {
    let none = Spans { read_lag: Duration::ZERO, list_lag: Duration::ZERO, ..*spans };
    decide(o, row, mark, flight, &none, now)
}

fn by(o: &Observation, from: By, to: By) -> Observation {
    match o {
        Observation::Read { by, started, version, hash, in_scope } if *by == from => {
            Observation::Read { by: to, started: *started, version: version.clone(), hash: *hash, in_scope: *in_scope }
        }
        _ => o.clone(),
    }
}

fn list_revives(o: &Observation, row: Option<&Row>, mark: Option<&Mark>, flight: bool, spans: &Spans, now: Timestamp) -> Verdict {
    let by_key = by(o, By::List, By::Key);
    decide(if live(row) { o } else { &by_key }, row, mark, flight, spans, now)
}

fn page_wins_tie(o: &Observation, row: Option<&Row>, mark: Option<&Mark>, flight: bool, spans: &Spans, now: Timestamp) -> Verdict {
    let in_bulk = by(o, By::List, By::Bulk);
    decide(if order(o, row) == Order::Tie { &in_bulk } else { o }, row, mark, flight, spans, now)
}

fn older_wins(o: &Observation, row: Option<&Row>, mark: Option<&Mark>, flight: bool, spans: &Spans, now: Timestamp) -> Verdict {
    let verdict = decide(o, row, mark, flight, spans, now);
    let read = matches!(o, Observation::Read { .. });
    if read && live(row) && verdict.reason == Reason::Confirm {
        return Verdict { row: RowAction::Apply, ..keep(Reason::Applied) };
    }
    verdict
}

fn missing_is_gone(o: &Observation, row: Option<&Row>, mark: Option<&Mark>, flight: bool, spans: &Spans, now: Timestamp) -> Verdict {
    match o {
        Observation::Missing { started } => decide(&Observation::Gone { started: *started }, row, mark, flight, spans, now),
        _ => decide(o, row, mark, flight, spans, now),
    }
}

fn gone_leaves_nothing(o: &Observation, row: Option<&Row>, mark: Option<&Mark>, flight: bool, spans: &Spans, now: Timestamp) -> Verdict {
    let verdict = decide(o, row, mark, flight, spans, now);
    if row.is_none() && verdict.row == RowAction::Tombstone { Verdict { row: RowAction::Keep, ..verdict } } else { verdict }
}

fn gone_always_wins(o: &Observation, row: Option<&Row>, mark: Option<&Mark>, flight: bool, spans: &Spans, now: Timestamp) -> Verdict {
    match o {
        Observation::Gone { .. } => {
            let row = row.map(|row| Row { tick: Tick::default(), ..row.clone() });
            decide(o, row.as_ref(), mark, flight, spans, now)
        }
        _ => decide(o, row, mark, flight, spans, now),
    }
}

fn lagging_gone_is_final(o: &Observation, row: Option<&Row>, mark: Option<&Mark>, flight: bool, spans: &Spans, now: Timestamp) -> Verdict {
    let verdict = decide(o, row, mark, flight, spans, now);
    if verdict.row == RowAction::Tombstone && mark.is_none() { Verdict { mark: MarkAction::Keep, ..verdict } } else { verdict }
}

fn delete_is_a_hint(o: &Observation, row: Option<&Row>, mark: Option<&Mark>, flight: bool, spans: &Spans, now: Timestamp) -> Verdict {
    let verdict = decide(o, row, mark, flight, spans, now);
    match (o, &verdict.mark) {
        (Observation::Push { delete: true, version, .. }, MarkAction::Set { announced_delete, .. }) => {
            let mark = MarkAction::Set { hint: version.clone(), announced_delete: *announced_delete };
            Verdict { mark, ..verdict }
        }
        _ => verdict,
    }
}

fn same_is_kept(o: &Observation, row: Option<&Row>, mark: Option<&Mark>, flight: bool, spans: &Spans, now: Timestamp) -> Verdict {
    let verdict = decide(o, row, mark, flight, spans, now);
    if verdict.row == RowAction::Raise { Verdict { row: RowAction::Keep, ..verdict } } else { verdict }
}

fn no_epoch(o: &Observation, row: Option<&Row>, mark: Option<&Mark>, flight: bool, spans: &Spans, now: Timestamp) -> Verdict {
    let flat = |tick: Tick| Tick { epoch: 0, ..tick };
    let at = |started: &Started| Started { tick: flat(started.tick), ..*started };
    let o = match o {
        Observation::Read { by, started, version, hash, in_scope } => {
            Observation::Read { by: *by, started: at(started), version: version.clone(), hash: *hash, in_scope: *in_scope }
        }
        Observation::Missing { started } => Observation::Missing { started: at(started) },
        Observation::Gone { started } => Observation::Gone { started: at(started) },
        push @ Observation::Push { .. } => push.clone(),
    };
    let row = row.map(|row| Row { tick: flat(row.tick), ..row.clone() });
    let mark = mark.map(|mark| Mark { tick: flat(mark.tick), ..mark.clone() });
    decide(&o, row.as_ref(), mark.as_ref(), flight, spans, now)
}

fn outside(o: &Observation) -> Option<Started> {
    match o {
        Observation::Read { started, in_scope: false, .. } => Some(*started),
        _ => None,
    }
}

fn outside_is_gone(o: &Observation, row: Option<&Row>, mark: Option<&Mark>, flight: bool, spans: &Spans, now: Timestamp) -> Verdict {
    match outside(o) {
        Some(started) => decide(&Observation::Gone { started }, row, mark, flight, spans, now),
        None => decide(o, row, mark, flight, spans, now),
    }
}

fn outside_leaves_nothing(o: &Observation, row: Option<&Row>, mark: Option<&Mark>, flight: bool, spans: &Spans, now: Timestamp) -> Verdict {
    let verdict = decide(o, row, mark, flight, spans, now);
    if outside(o).is_some() && row.is_none() { Verdict { row: RowAction::Keep, ..verdict } } else { verdict }
}

fn outside_is_ignored(o: &Observation, row: Option<&Row>, mark: Option<&Mark>, flight: bool, spans: &Spans, now: Timestamp) -> Verdict {
    let verdict = decide(o, row, mark, flight, spans, now);
    if outside(o).is_some() { Verdict { row: RowAction::Keep, ..verdict } } else { verdict }
}
