//! How a log of numbered events is walked (RCP-27): numbers only grow, holes are legal and may stay for ever, and some numbers become
//! visible after higher ones.
//!
//! A poll asks by keyset, from a little below the highest number of the polls before ([`floor`]), so that a number that became visible
//! late is met by a later poll. Only a poll that met the end moves that number; deliveries never do, and a hole means nothing.
//!
//! - What a poll did not see lies above, or less than the overlap below, the newest number *as its page was read*. So a poll of one page
//!   may move to the highest number of that page. One of several pages may not: while it goes on the log grows, perhaps by more than the
//!   overlap. It first asks for the newest number, and that is its *ceiling*: it ends there, and moves no further.
//! - Whether there is more is not told by `next` alone, which some servers do not have, nor by the number of rows alone, which some
//!   servers cap. A short page without `next` is the end if another page of the log has shown more rows: then no cap cut it. Else the newest number
//!   tells, and what lies between is walked at once, however much has gathered.
//! - A log whose newest number lies below the floor has begun anew. One that shows nothing at all may do either, and is waited for.

use std::collections::BTreeSet;

/// Where a log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPosition {
    /// The highest number of the polls that met the end; −1 before the first number.
    pub high: i64,
    /// How far a poll of several pages is.
    pub walk: Option<LogWalk>,
}

/// A poll of several pages under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogWalk {
    /// The next page holds what lies above this number.
    pub after: i64,
    /// The newest number as it began.
    pub ceiling: i64,
}

/// What a page showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPage {
    /// So many rows at most were asked for.
    pub asked: usize,
    /// Its rows.
    pub rows: usize,
    /// Its highest number.
    pub highest: Option<i64>,
    /// It says that there are further rows.
    pub more: bool,
}

/// What is to be done after a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogTurn {
    /// The next page.
    On(LogPosition),
    /// The poll is complete; `caught_up`: at the end of the log, and not only at its ceiling.
    Done {
        /// From now on.
        to: LogPosition,
        /// Nothing more is to be asked for now.
        caught_up: bool,
    },
    /// The newest number is to be asked for ([`LogPosition::probed`]).
    Probe,
}

/// What the newest number says of a poll's first page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogProbe {
    /// There is more: a poll of several pages begins, with the first one once more.
    Walk(LogPosition),
    /// The page was the last.
    Done(LogPosition),
    /// The log has begun anew: what is known of its numbers holds no longer.
    Restarted(LogPosition),
}

/// Above which number a poll begins: it asks for the highest again, and for so many below it.
#[must_use]
pub fn floor(high: i64, overlap: u64) -> i64 {
    high.saturating_sub_unsigned(overlap).saturating_sub(1).max(-1)
}

impl LogPosition {
    /// At the newest row of a log; before the first number where it has none.
    #[must_use]
    pub fn at(newest: Option<i64>) -> Self {
        Self { high: newest.unwrap_or(-1), walk: None }
    }

    /// Above which number the next page is.
    #[must_use]
    pub fn after(&self, overlap: u64) -> i64 {
        self.walk.map_or_else(|| floor(self.high, overlap), |walk| walk.after)
    }

    /// What follows from the next page. `widest`: so many rows the longest of the pages before had.
    #[must_use]
    pub fn turn(&self, overlap: u64, page: &LogPage, widest: usize) -> LogTurn {
        let after = self.after(overlap);
        let highest = page.highest.filter(|highest| *highest > after);
        let Some(walk) = self.walk else {
            let ends = page.rows < page.asked && !page.more;
            return match highest {
                Some(highest) if ends && page.rows < widest && highest >= self.high => self.done(highest),
                // All of the log was asked for, and there is nothing.
                None if ends && after < 0 => self.done(self.high),
                _ => LogTurn::Probe,
            };
        };
        match highest {
            Some(highest) if highest < walk.ceiling => LogTurn::On(Self { walk: Some(LogWalk { after: highest, ..walk }), ..*self }),
            Some(_) => {
                // Where it had grown by less than a page, the next poll may wait.
                let grown = walk.ceiling.saturating_sub(self.high);
                let caught_up = usize::try_from(grown).map_or(true, |grown| grown <= page.asked);
                LogTurn::Done { to: Self::at(Some(self.high.max(walk.ceiling))), caught_up }
            }
            // What stood at the ceiling is gone since.
            None => self.done(walk.after.min(walk.ceiling)),
        }
    }

    /// What follows where the first page left open whether it was the last.
    #[must_use]
    pub fn probed(&self, overlap: u64, page: &LogPage, newest: Option<i64>) -> LogProbe {
        let after = floor(self.high, overlap);
        let highest = page.highest.filter(|highest| *highest > after);
        match newest {
            Some(newest) if newest < self.high && newest <= after => LogProbe::Restarted(Self::at(Some(newest))),
            Some(newest) if newest > highest.unwrap_or(after) => {
                LogProbe::Walk(Self { high: self.high, walk: Some(LogWalk { after, ceiling: newest }) })
            }
            _ => LogProbe::Done(Self::at(Some(self.high.max(highest.unwrap_or(-1))))),
        }
    }

    fn done(&self, highest: i64) -> LogTurn {
        LogTurn::Done { to: Self::at(Some(self.high.max(highest))), caught_up: true }
    }
}

/// The numbers that a log has shown, as far as it may show them again. Another way may have told of them before: the log tells all the
/// same, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogShown {
    /// Those up to this one were shown.
    below: i64,
    numbers: BTreeSet<i64>,
}

impl LogShown {
    /// Of a log that stands there; an earlier process has seen what lies below.
    #[must_use]
    pub fn at(position: &LogPosition) -> Self {
        Self { below: position.high, numbers: BTreeSet::new() }
    }

    /// Whether the log shows it for the first time.
    #[must_use]
    pub fn is_news(&self, number: i64) -> bool {
        number > self.below && !self.numbers.contains(&number)
    }

    /// Remembers what a page has shown; no more than the `most` highest.
    pub fn note(&mut self, numbers: impl IntoIterator<Item = i64>, most: usize) {
        self.numbers.extend(numbers.into_iter().filter(|number| *number > self.below));
        while self.numbers.len() > most {
            self.below = self.numbers.pop_first().unwrap_or(self.below);
        }
    }
}

#[cfg(test)]
mod tests;
