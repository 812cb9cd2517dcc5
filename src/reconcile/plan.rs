//! Which pass is next for a resource.

use std::time::Duration;

use super::Mode;
use crate::clock::Timestamp;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The kind of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PassKind {
    /// What changed since the watermark.
    Incremental,
    /// Everything, in every variant. The first one is the backfill.
    Sweep,
}

/// How often a resource is looked at, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// How changes are found.
    pub mode: Mode,
    /// From the start of one incremental pass to the start of the next.
    pub poll: Duration,
    /// From the start of one sweep to the start of the next.
    pub sweep: Duration,
    /// Whether an event feed with a durable cursor tells of every delete: then an incremental pass repairs a gap, else only a sweep.
    pub deletes_by_feed: bool,
}

/// A period in which deliveries may have been lost, as far as planning needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// When it ended; none while it is still open.
    pub ended_at: Option<Timestamp>,
    /// Only a sweep repairs it.
    pub wants_sweep: bool,
}

impl Gap {
    /// Which kind of pass repairs it where others are repaired by this kind.
    fn repairing(&self, others: PassKind) -> PassKind {
        if self.wants_sweep { PassKind::Sweep } else { others }
    }
}

/// What happened to a resource so far, as its rows tell it (wall time).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// When the last incremental pass began.
    pub incremental_started_at: Option<Timestamp>,
    /// When the last *completed* sweep began; none before the backfill is complete.
    pub sweep_started_at: Option<Timestamp>,
    /// An incremental pass is unfinished (between two pages, or since a crash).
    pub incremental_open: bool,
    /// A sweep is unfinished.
    pub sweep_open: bool,
    /// Gaps of this resource that no pass has repaired yet.
    pub gaps: Vec<Gap>,
    /// A pass of this kind at least is wanted now: none that began since was completed.
    pub asked: Option<PassKind>,
    /// When the next sweep is due where sweeps have a time of day ([`sweep_not_before`]).
    pub sweep_due_at: Option<Timestamp>,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Read the next page of the unfinished pass of this kind.
    Resume(PassKind),
    /// Begin a pass of this kind.
    Begin(PassKind),
    /// Nothing is due for this long; ask again then, and when a gap ends.
    Wait(Duration),
}

/// A pass that has ended, as far as gaps need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassOutcome {
    /// Its kind.
    pub kind: PassKind,
    /// When it began.
    pub started_at: Timestamp,
    /// Whether it went to its end with everything applied: neither given up nor held by the removal budget.
    pub complete: bool,
}

/// Decides what is next. To be asked after every page: a due incremental pass goes between two pages of a long sweep.
///
/// Before the backfill is complete there is no watermark, so nothing else runs. After it an unfinished incremental pass comes first,
/// then one that is due, wanted or that a gap asks for, then the unfinished sweep, then a sweep that is due, wanted or that a gap asks
/// for. Where only sweeps find changes, whoever wants a pass gets one.
#[must_use]
pub fn next(history: &History, schedule: &Schedule, wall: Timestamp) -> Next {
    let Some(swept_at) = history.sweep_started_at else {
        return begin_or_resume(PassKind::Sweep, history.sweep_open);
    };
    let polls = schedule.mode != Mode::Sweep;
    let repair = repairing(schedule);
    let asked_by_gap = |kind: PassKind, begun: Option<Timestamp>| {
        let unrepaired = |gap: &Gap| gap.repairing(repair) == kind && gap.ended_at.is_some_and(|end| is_unrepaired(end, begun, wall));
        history.gaps.iter().any(unrepaired)
    };
    let poll_in = wait(history.incremental_started_at, schedule.poll, wall);
    let sweep_in = match history.sweep_due_at {
        Some(at) => sane(at.since(wall), schedule.sweep + DAY),
        None => wait(Some(swept_at), schedule.sweep, wall),
    };
    if polls {
        let gap = asked_by_gap(PassKind::Incremental, history.incremental_started_at);
        if history.incremental_open || poll_in.is_zero() || gap || history.asked == Some(PassKind::Incremental) {
            return begin_or_resume(PassKind::Incremental, history.incremental_open);
        }
    }
    if history.sweep_open || sweep_in.is_zero() || history.asked.is_some() || asked_by_gap(PassKind::Sweep, Some(swept_at)) {
        return begin_or_resume(PassKind::Sweep, history.sweep_open);
    }
    Next::Wait(if polls { poll_in.min(sweep_in) } else { sweep_in })
}

/// The next sweep is due at the first of its times of day from then on; `None` where it comes more often than once a day.
///
/// A sweep begins a little later each time that it waits for another, so half a day less than its interval must be over.
#[must_use]
pub fn sweep_not_before(swept_at: Timestamp, sweep: Duration) -> Option<Timestamp> {
    (sweep >= DAY).then(|| swept_at.plus(sweep - DAY / 2))
}

/// Whether an ended pass repairs a gap: it is complete, of a kind that sees all that may have been lost, and *began* after the gap's
/// end. One that began before has read some pages too early.
#[must_use]
pub fn closes(gap: &Gap, pass: &PassOutcome, schedule: &Schedule) -> bool {
    let sees_all = pass.kind == PassKind::Sweep || gap.repairing(repairing(schedule)) == PassKind::Incremental;
    pass.complete && sees_all && gap.ended_at.is_some_and(|end| pass.started_at > end)
}

/// Which kind of pass repairs a gap.
#[must_use]
pub fn repairing(schedule: &Schedule) -> PassKind {
    match schedule.mode {
        Mode::Watermark | Mode::SortAndStop if schedule.deletes_by_feed => PassKind::Incremental,
        _ => PassKind::Sweep,
    }
}

/// A gap's end ahead of our clock can only come from a clock that leapt; it counts as ended now.
fn is_unrepaired(end: Timestamp, begun: Option<Timestamp>, wall: Timestamp) -> bool {
    begun.is_none_or(|begun| begun <= end.min(wall))
}

fn begin_or_resume(kind: PassKind, open: bool) -> Next {
    if open { Next::Resume(kind) } else { Next::Begin(kind) }
}

/// How long until a pass is due. A due instant further ahead than its own interval can only come from a clock that was wrong: due.
fn wait(last: Option<Timestamp>, interval: Duration, wall: Timestamp) -> Duration {
    let Some(last) = last else { return Duration::ZERO };
    sane(last.plus(interval).since(wall), interval)
}

fn sane(left: Duration, longest: Duration) -> Duration {
    if left > longest { Duration::ZERO } else { left }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const SCHEDULE: Schedule = Schedule { mode: Mode::Watermark, poll: HOUR, sweep: Duration::from_secs(24 * 3600), deletes_by_feed: true };

    fn at(hours: i64) -> Timestamp {
        Timestamp(hours * 3_600_000_000)
    }

    fn settled() -> History {
        History { incremental_started_at: Some(at(99)), sweep_started_at: Some(at(90)), ..History::default() }
    }

    #[test]
    fn the_backfill_is_first_and_alone() {
        let fresh = History::default();
        assert_eq!(next(&fresh, &SCHEDULE, at(100)), Next::Begin(PassKind::Sweep));
        let begun = History { sweep_open: true, ..fresh };
        assert_eq!(next(&begun, &SCHEDULE, at(100)), Next::Resume(PassKind::Sweep));
    }

    #[test]
    fn passes_are_due_by_their_intervals() {
        assert_eq!(next(&settled(), &SCHEDULE, at(100)), Next::Begin(PassKind::Incremental));
        let polled = History { incremental_started_at: Some(at(100)), ..settled() };
        assert_eq!(next(&polled, &SCHEDULE, at(100)), Next::Wait(HOUR));
        let swept_long_ago = History { sweep_started_at: Some(at(76)), ..polled };
        assert_eq!(next(&swept_long_ago, &SCHEDULE, at(100)), Next::Begin(PassKind::Sweep));
        let sweep_only = Schedule { mode: Mode::Sweep, ..SCHEDULE };
        assert_eq!(next(&settled(), &sweep_only, at(100)), Next::Wait(HOUR * 14));
    }

    #[test]
    fn an_incremental_pass_goes_between_the_pages_of_a_sweep() {
        let sweeping = History { sweep_open: true, ..settled() };
        assert_eq!(next(&sweeping, &SCHEDULE, at(100)), Next::Begin(PassKind::Incremental));
        let both = History { incremental_open: true, incremental_started_at: Some(at(100)), ..sweeping };
        assert_eq!(next(&both, &SCHEDULE, at(100)), Next::Resume(PassKind::Incremental));
        let polled = History { incremental_open: false, ..both };
        assert_eq!(next(&polled, &SCHEDULE, at(100)), Next::Resume(PassKind::Sweep));
    }

    #[test]
    fn a_clock_that_leapt_stops_nothing() {
        let ahead = History { incremental_started_at: Some(at(9_000)), ..settled() };
        assert_eq!(next(&ahead, &SCHEDULE, at(100)), Next::Begin(PassKind::Incremental));
        let sweep_ahead = History { incremental_started_at: Some(at(100)), sweep_started_at: Some(at(9_000)), ..settled() };
        assert_eq!(next(&sweep_ahead, &SCHEDULE, at(100)), Next::Begin(PassKind::Sweep));
    }

    #[test]
    fn a_gap_asks_for_the_pass_that_can_repair_it_once_it_has_ended() {
        let with = |ended_at| History {
            incremental_started_at: Some(at(100)),
            sweep_started_at: Some(at(99)),
            gaps: vec![Gap { ended_at, wants_sweep: false }],
            ..History::default()
        };
        let now = at(100).plus(HOUR / 2);
        assert_eq!(next(&with(None), &SCHEDULE, now), Next::Wait(HOUR / 2), "still open");
        let ended = with(Some(at(100).plus(HOUR / 4)));
        assert_eq!(next(&ended, &SCHEDULE, now), Next::Begin(PassKind::Incremental));
        let lost = History { gaps: vec![Gap { wants_sweep: true, ..ended.gaps[0] }], ..ended.clone() };
        assert_eq!(next(&lost, &SCHEDULE, now), Next::Begin(PassKind::Sweep), "no incremental pass sees what was lost");
        let hooks_tell_deletes = Schedule { deletes_by_feed: false, ..SCHEDULE };
        assert_eq!(next(&ended, &hooks_tell_deletes, now), Next::Begin(PassKind::Sweep));
        let seen = with(Some(at(98)));
        assert_eq!(next(&seen, &SCHEDULE, now), Next::Wait(HOUR / 2), "a pass after its end is under way or done");
    }

    #[test]
    fn a_pass_that_is_wanted_is_due_at_once() {
        let now = at(99).plus(HOUR / 2);
        let wanting = |asked| History { asked, ..settled() };
        assert_eq!(next(&wanting(None), &SCHEDULE, now), Next::Wait(HOUR / 2));
        assert_eq!(next(&wanting(Some(PassKind::Incremental)), &SCHEDULE, now), Next::Begin(PassKind::Incremental));
        assert_eq!(next(&wanting(Some(PassKind::Sweep)), &SCHEDULE, now), Next::Begin(PassKind::Sweep));
        let sweep_only = Schedule { mode: Mode::Sweep, ..SCHEDULE };
        assert_eq!(next(&wanting(Some(PassKind::Incremental)), &sweep_only, now), Next::Begin(PassKind::Sweep), "nothing else finds it");
        let fresh = History { asked: Some(PassKind::Incremental), ..History::default() };
        assert_eq!(next(&fresh, &SCHEDULE, now), Next::Begin(PassKind::Sweep), "the backfill is first");
    }

    #[test]
    fn a_sweep_with_a_time_of_day_is_due_then() {
        let day = HOUR * 24;
        assert_eq!(sweep_not_before(at(90), HOUR), None, "more often than once a day");
        // At hours 3, 27, 51 … it is three o'clock.
        let three = |from: Timestamp| (0..).map(|days| at(3 + 24 * days)).find(|at| *at >= from).expect("one of them");
        let due = |swept, sweep| three(sweep_not_before(swept, sweep).expect("once a day or less often"));
        assert_eq!(due(at(3).plus(HOUR / 2), day), at(27), "a late begin of the last one delays nothing");
        assert_eq!(due(at(20), day), at(51), "not twice within half a day");
        assert_eq!(due(at(3), 7 * day), at(3 + 7 * 24));
        let history = |due| History { incremental_started_at: Some(at(100)), sweep_due_at: Some(due), ..settled() };
        let schedule = Schedule { poll: 9 * day, ..SCHEDULE };
        assert_eq!(next(&history(at(123)), &schedule, at(100)), Next::Wait(HOUR * 23));
        assert_eq!(next(&history(at(100)), &schedule, at(100)), Next::Begin(PassKind::Sweep));
        assert_eq!(next(&history(at(9_000)), &schedule, at(100)), Next::Begin(PassKind::Sweep), "by a clock that was wrong");
    }

    #[test]
    fn only_a_complete_pass_that_began_after_the_gap_closes_it() {
        let gap = Gap { ended_at: Some(at(10)), wants_sweep: false };
        let pass = PassOutcome { kind: PassKind::Incremental, started_at: at(11), complete: true };
        assert!(closes(&gap, &pass, &SCHEDULE));
        assert!(!closes(&gap, &PassOutcome { started_at: at(10), ..pass }, &SCHEDULE));
        assert!(!closes(&gap, &PassOutcome { complete: false, ..pass }, &SCHEDULE));
        assert!(!closes(&Gap { ended_at: None, ..gap }, &pass, &SCHEDULE));
        assert!(!closes(&Gap { wants_sweep: true, ..gap }, &pass, &SCHEDULE));
        let hooks_tell_deletes = Schedule { deletes_by_feed: false, ..SCHEDULE };
        assert!(!closes(&gap, &pass, &hooks_tell_deletes));
        assert!(closes(&gap, &PassOutcome { kind: PassKind::Sweep, ..pass }, &hooks_tell_deletes));
    }
}
