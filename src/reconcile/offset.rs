//! How far the upstream's clock is ahead of ours, from what its answers say of the time.
//!
//! `Date` names a second: the upstream's clock stood in it at some instant between our sending and our receiving. So its distance from
//! ours lies between `Date` − received and `Date` + 1 s − sent. Many answers, each at another place of its second, leave only a narrow
//! span that all of them allow; the estimate is its middle, the error half of it. No answer's own delay is taken for anything.

use crate::clock::Timestamp;

/// After so many answers the span is found anew, for clocks drift.
const ANSWERS: u32 = 500;
const SECOND: i64 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    low: i64,
    high: i64,
}

/// What the answers allow.
#[derive(Clone, Debug, Default)]
pub struct Offset {
    now: Option<Span>,
    n: u32,
    /// Of the answers before these.
    before: Option<Span>,
}

/// How far a clock is ahead of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// In microseconds; negative: it is behind.
    pub ahead_us: i64,
    /// At most so far from the truth, in microseconds.
    pub error_us: i64,
}

impl Estimate {
    /// By how much the upstream's stamps are to be put right, in microseconds: not at all where the answers allow that both clocks are
    /// one, for clocks are kept right, and what few answers leave open is no difference.
    #[must_use]
    pub fn shown_us(&self) -> i64 {
        if self.ahead_us.abs() <= self.error_us { 0 } else { self.ahead_us }
    }

    /// By how much a delay may be too long, and by how much too short, that was put right by [`Self::shown_us`]; in microseconds.
    #[must_use]
    pub fn bounds_us(&self) -> (i64, i64) {
        let short = self.ahead_us - self.shown_us();
        (self.error_us - short, self.error_us + short)
    }
}

impl Offset {
    /// Takes an answer into account: when we sent the question and had the answer, by our wall clock, and its `Date`.
    pub fn saw(&mut self, sent: Timestamp, received: Timestamp, date: Timestamp) {
        let span = Span { low: date.0 - received.0, high: date.0 + SECOND - sent.0 };
        if self.n >= ANSWERS {
            (self.before, self.now, self.n) = (self.now, None, 0);
        }
        self.n += 1;
        self.now = match self.now.and_then(|now| both(now, span)) {
            Some(narrower) => Some(narrower),
            // The first; or a clock was set, and what was learned before it is void.
            None => {
                if self.now.is_some() {
                    self.before = None;
                }
                Some(span)
            }
        };
    }

    /// The estimate; `None` before the first answer.
    #[must_use]
    pub fn estimate(&self) -> Option<Estimate> {
        let span = match (self.now?, self.before) {
            (now, Some(before)) => both(now, before).unwrap_or(now),
            (now, None) => now,
        };
        Some(Estimate { ahead_us: span.low + (span.high - span.low) / 2, error_us: (span.high - span.low + 1) / 2 })
    }
}

fn both(one: Span, other: Span) -> Option<Span> {
    let span = Span { low: one.low.max(other.low), high: one.high.min(other.high) };
    (span.low <= span.high).then_some(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an upstream whose clock is `ahead` says of a request sent at `sent` that takes `took`, stamped half-way.
    fn answer(offset: &mut Offset, ahead: i64, sent: i64, took: i64) {
        let date = (sent + took / 2 + ahead).div_euclid(SECOND) * SECOND;
        offset.saw(Timestamp(sent), Timestamp(sent + took), Timestamp(date));
    }

    #[test]
    fn many_answers_narrow_it_and_the_truth_is_within() {
        for ahead in [0, 250_000, -7_300_000, 3_600_123_456] {
            let mut offset = Offset::default();
            assert_eq!(offset.estimate(), None);
            for n in 0..200_i64 {
                answer(&mut offset, ahead, 1_700_000_000 * SECOND + n * 337_777, 20_000 + n % 7 * 5_000);
                let found = offset.estimate().expect("an answer");
                assert!((found.ahead_us - ahead).abs() <= found.error_us, "{found:?} {ahead}");
            }
            assert!(offset.estimate().expect("answers").error_us < 20_000, "{:?}", offset.estimate());
        }
    }

    #[test]
    fn what_few_answers_leave_open_is_no_difference() {
        let mut offset = Offset::default();
        answer(&mut offset, 0, 1_700_000_000 * SECOND + 123_456, 10_000);
        let found = offset.estimate().expect("an answer");
        assert!(found.ahead_us != 0 && found.shown_us() == 0, "{found:?}");
        let (too_long, too_short) = found.bounds_us();
        assert_eq!((too_long + too_short, too_short - too_long), (2 * found.error_us, 2 * found.ahead_us), "{found:?}");
        answer(&mut offset, 7 * SECOND, 1_700_000_000 * SECOND + 223_456, 10_000);
        let set = offset.estimate().expect("answers");
        assert_eq!(set.shown_us(), set.ahead_us);
        assert_eq!(set.bounds_us(), (set.error_us, set.error_us), "what was put right is wrong by its error either way");
    }

    #[test]
    fn a_clock_that_is_set_begins_anew() {
        let mut offset = Offset::default();
        for n in 0..50_i64 {
            answer(&mut offset, 0, 1_700_000_000 * SECOND + n * 337_777, 10_000);
        }
        for n in 50..60_i64 {
            answer(&mut offset, 60 * SECOND, 1_700_000_000 * SECOND + n * 337_777, 10_000);
        }
        let found = offset.estimate().expect("answers");
        assert!((found.ahead_us - 60 * SECOND).abs() <= found.error_us, "{found:?}");
    }
}
