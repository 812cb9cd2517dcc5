//! Event feeds: logs of an upstream that are polled with a durable position, every row a mark, never a state.

use std::time::Duration;

use super::Unreadable;
use crate::clock::Timestamp;
use crate::model::Event;

/// An event feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedSpec {
    /// Its name, e.g. `deleted_items`.
    pub name: &'static str,
    /// What its rows are ordered by.
    pub order: FeedOrder,
}

/// What the rows of a feed are ordered by, and with that how it is walked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedOrder {
    /// By stamps: a poll walks the upstream's cursor from one bound, which moves when it has met the last page.
    Stamps {
        /// How late a row may appear in it: each poll asks again from the newest stamp minus this.
        overlap: Duration,
    },
    /// By numbers that only grow, with holes that may stay for ever (RCP-27): each page asks for what lies above a number.
    Numbers {
        /// So many numbers below the highest are asked for again by each poll, for some become visible late.
        overlap: u64,
        /// Rows per page.
        page: usize,
        /// The feed's numbers are those of deliveries with this label ([`crate::model::Sequence::label`]).
        label: String,
    },
}

/// Which page of a feed is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedPosition<'a> {
    /// [`FeedOrder::Stamps`]: what is not older than `since`, at the cursor if there is one.
    Stamp {
        /// The bound of the whole poll.
        since: Timestamp,
        /// [`FeedPage::next`] of the page before.
        cursor: Option<&'a str>,
    },
    /// [`FeedOrder::Numbers`]: at most `page` rows above a number, the lowest first.
    Number {
        /// The number; −1: from the first row on.
        after: i64,
        /// So many rows at most.
        page: usize,
    },
    /// [`FeedOrder::Numbers`]: the newest row alone, by which a feed that was never polled learns where it stands.
    Newest,
}

/// One row of an event feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedRow {
    /// Identifies the row within the feed, so that overlap does not mark twice.
    pub id: String,
    /// Its number, where the feed is ordered by numbers.
    pub number: Option<i64>,
    /// The feed's own stamp.
    pub at: Option<Timestamp>,
    /// What it says; `None` for rows about records we do not replicate.
    pub event: Option<Event>,
}

/// A page of an event feed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedPage {
    /// Its rows.
    pub rows: Vec<Result<FeedRow, Unreadable>>,
    /// Where the next page is; `None` after the last. In a feed of numbers it says no more than that there are further rows.
    pub next: Option<String>,
}
