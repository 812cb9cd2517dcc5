//! Durable blocks: the upper bound of what was used, written before it is used.

use std::time::Duration;

use crate::clock::Timestamp;

/// A block is a twentieth of our share: the most that a kill wastes of a limit.
const BLOCKS_PER_LIMIT: u64 = 20;

/// How finely rows tell when a budget comes back; what a start counts too long is at most such a part of the window.
const SPANS_PER_WINDOW: u32 = 20;

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

/// One transaction of bookkeeping: write `wanted` as new rows, `finished` into theirs, delete `expired`. After its commit call
/// [`Limiter::booked`](super::Limiter::booked); if the commit failed or its outcome is unknown, ask again: nothing has changed here,
/// and a row that was written after all counts as an unfinished block at the next start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bookings {
    /// New blocks, to be inserted in this order.
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
    size: u64,
    expected_max: u64,
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
    written: bool,
}

impl Blocks {
    pub(crate) fn new(usable: u64, window: Duration, expected_max: u64) -> Self {
        Self {
            size: (usable / BLOCKS_PER_LIMIT).max(1).max(expected_max),
            expected_max,
            open: None,
            draining: Vec::new(),
            span: window / SPANS_PER_WINDOW,
            done: Vec::new(),
            obsolete: Vec::new(),
        }
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
    pub(crate) fn put_back(&mut self, id: BlockId, reserved: u64, spent: u64, ended: (Duration, Timestamp)) {
        let blocks = self.open.iter_mut().chain(&mut self.draining);
        let Some(block) = blocks.into_iter().find(|block| block.id == id) else { return };
        block.spent += spent;
        block.unissued = (block.unissued + reserved).saturating_sub(spent);
        block.under_way -= 1;
        block.ended = block.ended.max(ended);
        self.finish_drained();
    }

    /// What is to be written; `wanted` is the amount of a new block if the open one does not cover the largest charge any more.
    pub(crate) fn bookings(&self) -> (Option<u64>, Vec<FinishedBlock>, Vec<BlockId>) {
        let wanted = (!self.covers(self.expected_max)).then_some(self.size);
        let finished = self.done.iter().filter(|done| !done.written).map(|done| done.row).collect();
        (wanted, finished, self.obsolete.clone())
    }

    /// A new block was written: it is open, the one before it drains.
    pub(crate) fn opened(&mut self, id: BlockId, amount: u64, now: Duration, wall: Timestamp) {
        let block = Block { id, unissued: amount, spent: 0, under_way: 0, ended: (now, wall) };
        self.draining.extend(self.open.replace(block));
        self.finish_drained();
    }

    /// These rows were written or deleted. A row that changed since it was asked for is still to be written.
    pub(crate) fn written(&mut self, finished: &[FinishedBlock], expired: &[BlockId]) {
        for done in &mut self.done {
            done.written |= finished.contains(&done.row);
        }
        self.obsolete.retain(|id| !expired.contains(id));
    }

    /// A block found at a start, which binds until `back_at`; `written` unless its end is news to the database.
    pub(crate) fn found(&mut self, row: FinishedBlock, back_at: Duration, written: bool) {
        self.add(Done { row, back_at, written });
    }

    /// The row of a block found at a start binds nothing.
    pub(crate) fn found_obsolete(&mut self, id: BlockId) {
        self.obsolete.push(id);
    }

    /// Lets time pass: blocks that bind nothing any more are only there to be deleted.
    pub(crate) fn expire(&mut self, now: Duration) {
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
                done.written = false;
                self.obsolete.push(new.row.id);
            }
            None => self.done.push(new),
        }
    }

    fn finish_drained(&mut self) {
        let drained: Vec<Block> = self.draining.extract_if(.., |block| block.under_way == 0).collect();
        for block in drained {
            let (back_at, finished_at) = block.ended;
            let row = FinishedBlock { id: block.id, amount: block.spent, finished_at };
            self.add(Done { row, back_at, written: false });
        }
    }
}
