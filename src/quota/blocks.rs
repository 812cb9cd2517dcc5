//! Durable blocks: the upper bound of what was used, written before it is used.
//!
//! # What a start knows, and what it must hold back
//! After a kill permits are of four kinds, of which the rows tell three apart. None is held back shorter than can be proved necessary,
//! and only the fourth is longer:
//!
//! | permit | what its row says | held back |
//! | --- | --- | --- |
//! | answered, and that is written | a finished block | one window after the answer |
//! | lost (timeout, reset), and that is written | a finished block that ends in the future | window + `max_server_queue` after the loss |
//! | under way, or its end not yet written | an unfinished block | window + `max_server_queue` after the start |
//! | booked and never granted | the same unfinished block | the same |
//!
//! The third kind cannot be helped. The kernel closes a killed process's connections at once, but the server may have read the
//! request already and stamp it from its queue; no limit's answer says whether it did. The start, not the kill, begins the span,
//! because nobody wrote down when the kill was. The fourth kind is waste, and so is an end that was there and not written: a row
//! tells neither from a request under way.
//!
//! # Who was killed books little and writes at once
//! A block of a twentieth is no loss to a process that lives for days, and writing every answer down by itself would be a commit for
//! each request. To one that is killed every few seconds it is everything: at 4 s between kills 17 blocks of a twentieth are held
//! back at a time, of twenty. So a limiter that found an unfinished block, which is what a kill leaves behind, is *wary*: it books
//! no more than it grants now ([`wary_size`]), and writes ends at once ([`Limiter::news_due`](super::Limiter::news_due)). A wary
//! block grows with the age of the process, such that the waste of a kill stays below a hundredth of what the life before it could
//! use, until it is a twentieth again. A wary process may leave nothing unfinished when it is killed, so it keeps a block of nothing
//! as a marker for the next one. An ordered stop finishes every block and takes the marker away.
//!
//! # What can be had
//! *Our share* of a limit is `quota_share` times the limit; it is *used* as far as the upstream counted requests of ours. What
//! requests without a verdict bind is part of the share and counts as **not** used: it is the price of 0 refusals. In the long run
//! each request holds a permit from its booking until it comes back: `window + t` where `t` is the time until its answer is written,
//! and `max_server_queue` more where there is no answer, because it was lost (a part `p` of them, after the timeout `T`) or because
//! a kill met it, which for kills every `k` on average are `t / k` of them. So of the share at most
//!
//! ```text
//! window / (window + t + (p + t / k) * max_server_queue + p * T)
//! ```
//!
//! can be used by whoever causes no refusal, whatever the limiter does. With the window of 10 s, the queue of 60 s and no losses
//! nine tenths need `t * (1 + 60 s / k) < 1.1 s`: at 4 s between kills answers must be written 69 ms after the booking on average,
//! at 20 s 277 ms, at 60 s half a second. The simulation holds the limiter to within a few per cent of this bound.

use std::time::Duration;

use crate::clock::Timestamp;

/// A block is a twentieth of our share: the most that a kill wastes of a limit.
const BLOCKS_PER_LIMIT: u64 = 20;

/// A wary block wastes at most such a part of what the life so far could use.
const WARY_PART: f64 = 100.0;

/// How finely rows tell when a budget comes back; what a start counts too long is at most such a part of the window, half of it on
/// average.
const SPANS_PER_WINDOW: u32 = 60;

/// The row of a block in the database; the store makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub i64);

/// A block to be written before its permits are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRequest {
    /// The limit's id.
    pub limit: String,
    /// How much it covers, in the limit's unit.
    pub amount: u64,
}

/// A block all of whose requests have ended: what to write into its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FinishedBlock {
    /// The row.
    pub id: BlockId,
    /// What was really spent of it; replaces the row's amount.
    pub amount: u64,
    /// When its last response arrived, or the last instant at which the server may have stamped a lost request (then in the future).
    pub finished_at: Timestamp,
}

/// A block as a start finds it in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBlock {
    /// The row.
    pub id: BlockId,
    /// The limit's id.
    pub limit: String,
    /// How much it covers, or what was spent of it if it is finished.
    pub amount: u64,
    /// See [`FinishedBlock::finished_at`]; none while the block is in use.
    pub finished_at: Option<Timestamp>,
}

impl StoredBlock {
    /// A block of nothing that nobody finished: a wary process was killed.
    pub(crate) fn is_marker(&self) -> bool {
        self.amount == 0 && self.finished_at.is_none()
    }
}

/// One transaction of bookkeeping: write `wanted` as new rows, `finished` into theirs, delete `expired`. After its commit call
/// [`Limiter::booked`](super::Limiter::booked); if the commit failed or its outcome is unknown, ask again: nothing has changed here,
/// and a row that was written after all counts as an unfinished block at the next start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bookings {
    /// New blocks, to be inserted in this order; one of nothing is a marker.
    pub wanted: Vec<BlockRequest>,
    /// Blocks that are used up and have no request under way.
    pub finished: Vec<FinishedBlock>,
    /// Rows that bind nothing any more.
    pub expired: Vec<BlockId>,
}

impl Bookings {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.finished.is_empty() && self.expired.is_empty()
    }
}

/// The blocks of one limit. Few: one for each twentieth of a window, and as many more as there are requests under way.
#[derive(Debug)]
pub(crate) struct Blocks {
    usable: u64,
    expected_max: u64,
    window: Duration,
    max_server_queue: Duration,
    /// Since when it is wary; none if no kill was found.
    wary_since: Option<Duration>,
    /// Somebody waits for a block.
    is_asked: bool,
    open: Option<Block>,
    draining: Vec<Block>,
    /// At most one for each span of this length: blocks that end in the same one are merged into one row.
    span: Duration,
    done: Vec<Done>,
    /// Rows that bind nothing, or whose amount another row has taken over.
    obsolete: Vec<BlockId>,
}

#[derive(Debug)]
struct Block {
    id: BlockId,
    unissued: u64,
    spent: u64,
    under_way: u32,
    /// The latest end of one of its requests: (back in the budget, wall time of its last possible stamp).
    ended: (Duration, Timestamp),
}

#[derive(Debug)]
struct Done {
    row: FinishedBlock,
    back_at: Duration,
    /// Since when there is something to write; without meaning once it is written.
    known_at: Duration,
    written: bool,
}

impl Blocks {
    pub(crate) fn new(usable: u64, window: Duration, max_server_queue: Duration, expected_max: u64) -> Self {
        Self {
            usable,
            expected_max,
            window,
            max_server_queue,
            wary_since: None,
            is_asked: false,
            open: None,
            draining: Vec::new(),
            span: window / SPANS_PER_WINDOW,
            done: Vec::new(),
            obsolete: Vec::new(),
        }
    }

    /// A block that nobody finished was found: its process was killed, and ours may be next.
    pub(crate) fn be_wary(&mut self, now: Duration) {
        self.wary_since = Some(now);
    }

    pub(crate) fn is_wary(&self) -> bool {
        self.wary_since.is_some()
    }

    /// Somebody waits for a block.
    pub(crate) fn ask(&mut self) {
        self.is_asked = true;
    }

    /// When a wary process is to write the ends that are not yet written. Each costs a kill the queue's time on top of the window,
    /// so it may wait as long as that is within a hundredth of what the life so far could use.
    pub(crate) fn news_due(&self) -> Option<Duration> {
        let since = self.wary_since?;
        let due = |done: &Done| {
            let life = done.known_at.saturating_sub(since).as_secs_f64();
            let wait = self.window.as_secs_f64() * life / (WARY_PART * self.max_server_queue.as_secs_f64().max(1e-3));
            done.known_at + self.window.min(Duration::from_secs_f64(wait))
        };
        self.done.iter().filter(|done| !done.written).map(due).min()
    }

    /// Whether the open block covers `charge`.
    pub(crate) fn covers(&self, charge: u64) -> bool {
        self.open.as_ref().is_some_and(|block| block.unissued >= charge)
    }

    /// Takes `charge` from the open block, which must cover it.
    pub(crate) fn take(&mut self, charge: u64) -> Option<BlockId> {
        let block = self.open.as_mut().filter(|block| block.unissued >= charge)?;
        block.unissued -= charge;
        block.under_way += 1;
        Some(block.id)
    }

    /// Ends a request of block `id`. What it reserved and did not spend goes back to the block while that is open.
    pub(crate) fn put_back(&mut self, id: BlockId, reserved: u64, spent: u64, ended: (Duration, Timestamp), now: Duration) {
        let blocks = self.open.iter_mut().chain(&mut self.draining);
        let Some(block) = blocks.into_iter().find(|block| block.id == id) else { return };
        block.spent += spent;
        block.unissued = (block.unissued + reserved).saturating_sub(spent);
        block.under_way -= 1;
        block.ended = block.ended.max(ended);
        if self.wary_since.is_some() {
            // Its rest would be wasted by a kill; whoever comes next gets a block of his own.
            self.draining.extend(self.open.take_if(|block| block.id == id && block.under_way == 0));
        }
        self.finish_drained(now);
    }

    /// What is to be written; `wanted` is the amount of a new block if the open one does not cover the largest charge any more.
    pub(crate) fn bookings(&self, now: Duration) -> (Option<u64>, Vec<FinishedBlock>, Vec<BlockId>) {
        let is_wanted = self.is_asked || self.wary_since.is_none();
        let wanted = (is_wanted && !self.covers(self.expected_max)).then(|| self.size(now));
        let finished = self.done.iter().filter(|done| !done.written).map(|done| done.row).collect();
        (wanted, finished, self.obsolete.clone())
    }

    fn full(&self) -> u64 {
        (self.usable / BLOCKS_PER_LIMIT).max(1).max(self.expected_max)
    }

    fn size(&self, now: Duration) -> u64 {
        let bound_for = self.window + self.max_server_queue;
        let wary = |since| wary_size(self.usable, now.saturating_sub(since), bound_for);
        self.wary_since.map_or(self.full(), |since| wary(since).clamp(self.expected_max.max(1), self.full()))
    }

    /// A new block was written: it is open, the one before it drains.
    pub(crate) fn opened(&mut self, id: BlockId, amount: u64, now: Duration, wall: Timestamp) {
        self.is_asked = false;
        let block = Block { id, unissued: amount, spent: 0, under_way: 0, ended: (now, wall) };
        self.draining.extend(self.open.replace(block));
        self.finish_drained(now);
    }

    /// An ordered end: nothing is granted any more, so what is left of the open block goes back.
    pub(crate) fn close(&mut self, now: Duration) {
        self.draining.extend(self.open.take());
        self.finish_drained(now);
    }

    /// These rows were written or deleted. A row that changed since it was asked for is still to be written.
    pub(crate) fn written(&mut self, finished: &[FinishedBlock], expired: &[BlockId]) {
        for done in &mut self.done {
            done.written |= finished.contains(&done.row);
        }
        self.obsolete.retain(|id| !expired.contains(id));
    }

    /// A block found at a start, which binds until `back_at`; `written` unless its end is news to the database.
    pub(crate) fn found(&mut self, row: FinishedBlock, back_at: Duration, written: bool, now: Duration) {
        self.add(Done { row, back_at, known_at: now, written });
    }

    /// The row of a block found at a start binds nothing.
    pub(crate) fn found_obsolete(&mut self, id: BlockId) {
        self.obsolete.push(id);
    }

    /// Lets time pass: blocks that bind nothing any more are only there to be deleted.
    pub(crate) fn expire(&mut self, now: Duration) {
        if self.wary_since.is_some() && self.size(now) >= self.full() {
            self.wary_since = None;
        }
        self.obsolete.extend(self.done.extract_if(.., |done| done.back_at <= now).map(|done| done.row.id));
    }

    /// Merging is safe because one transaction writes the sum and deletes the row that went into it.
    fn add(&mut self, new: Done) {
        let span = |at: Duration| at.as_nanos() / self.span.as_nanos().max(1);
        match self.done.iter_mut().find(|done| span(done.back_at) == span(new.back_at)) {
            Some(done) => {
                let finished_at = done.row.finished_at.max(new.row.finished_at);
                done.row = FinishedBlock { amount: done.row.amount + new.row.amount, finished_at, ..done.row };
                done.back_at = done.back_at.max(new.back_at);
                done.known_at = if done.written { new.known_at } else { done.known_at };
                done.written = false;
                self.obsolete.push(new.row.id);
            }
            None => self.done.push(new),
        }
    }

    fn finish_drained(&mut self, now: Duration) {
        let drained: Vec<Block> = self.draining.extract_if(.., |block| block.under_way == 0).collect();
        for block in drained {
            let (back_at, finished_at) = block.ended;
            let row = FinishedBlock { id: block.id, amount: block.spent, finished_at };
            self.add(Done { row, back_at, known_at: now, written: false });
        }
    }
}

/// What a process of this age may book ahead: held back for `bound_for` by a kill, it is a hundredth of what is usable in that age.
fn wary_size(usable: u64, age: Duration, bound_for: Duration) -> u64 {
    (usable as f64 * age.as_secs_f64() / (WARY_PART * bound_for.as_secs_f64())) as u64
}
