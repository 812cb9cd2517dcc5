//! The permit limiter: a deterministic state machine over all limits of a scope.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::account::Account;
use super::blocks::{BlockId, BlockRequest, Bookings, FinishedBlock, StoredBlock};
use super::limits::{Class, Limits, Shape, Unit};
use crate::clock::Timestamp;

/// Endpoints that are paused at once are few; a table of more is a fault of the caller and loses its oldest pause.
const PAUSED_ENDPOINTS_MAX: usize = 256;

/// One permit. Ids of an earlier limiter (before a restart) are never equal to those of a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PermitId {
    incarnation: u64,
    number: u64,
}

/// The answer to a wish for a permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// Send one request, then call [`Limiter::settle`] or [`Limiter::lost`], whatever happens.
    Granted(PermitId),
    /// Not now.
    Wait {
        /// When to ask again at the latest, in monotonic time; none if only the end of a request under way can help.
        until: Option<Duration>,
        /// What is in the way.
        reason: Reason,
    },
    /// The budget is there, but must be booked durably first: [`Limiter::bookings`].
    NeedsBlock,
}

/// What keeps a request waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The upstream said 429.
    ScopePaused,
    /// The upstream said 503 for this endpoint.
    EndpointPaused,
    /// As many requests as allowed are under way, or may still be at the server.
    Concurrency,
    /// The limit of this index in [`Limits::list`] is spent, as far as this class may.
    Limit(usize),
}

/// What a response tells about its cost. What it does not tell stays at what was reserved; the server's time is at most the time
/// between granting and settling, so that is taken where nothing better is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Milliseconds of server time, if the upstream states them.
    pub server_ms: Option<u64>,
    /// Bytes of the response.
    pub bytes: Option<u64>,
    /// Cost points.
    pub points: Option<u64>,
}

/// One limit at this instant, for status and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitState {
    /// The limit's id.
    pub id: String,
    /// Our share, in the limit's unit.
    pub usable: u64,
    /// Spent and not back yet.
    pub spent: u64,
    /// How much may go at once; less than `usable` after a refusal.
    pub burst: u64,
}

/// The limiter at this instant, for status and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Each limit.
    pub limits: Vec<LimitState>,
    /// Requests under way.
    pub in_flight: usize,
    /// Requests without a verdict that the server may still work on.
    pub lost: usize,
    /// Until when a 429 pauses everything, in monotonic time.
    pub paused_until: Option<Duration>,
    /// Endpoints paused by a 503.
    pub paused_endpoints: Vec<String>,
    /// 429 answers since the start.
    pub refusals: u64,
}

#[derive(Debug)]
struct Permit {
    granted_at: Duration,
    /// One (block, reserved charge) for each account, in order.
    charges: Vec<(BlockId, u64)>,
}

/// Grants permits. See the [module](super) for the proof, the durable part and the order of calls.
#[derive(Debug)]
pub struct Limiter {
    limits: Limits,
    accounts: Vec<Account>,
    /// The row by which the next start learns that this wary process was killed.
    marker: Option<BlockId>,
    incarnation: u64,
    granted: u64,
    permits: HashMap<u64, Permit>,
    /// Until when each lost request may occupy the server; at most as many as the cap.
    lost: VecDeque<Duration>,
    paused_until: Duration,
    endpoints: Vec<(String, Duration)>,
    refusals: u64,
}

impl Limiter {
    /// A limiter with nothing spent. `incarnation` differs from that of every limiter whose requests may still be under way (the
    /// source's epoch, or a random number): a late verdict for a permit of an earlier one must not release one of ours.
    #[must_use]
    pub fn new(limits: Limits, incarnation: u64) -> Self {
        let queue = limits.max_server_queue();
        let accounts = limits.list().iter().map(|limit| Account::new(limit.clone(), limits.expected_max(limit), queue)).collect();
        Self {
            limits,
            accounts,
            marker: None,
            incarnation,
            granted: 0,
            permits: HashMap::new(),
            lost: VecDeque::new(),
            paused_until: Duration::ZERO,
            endpoints: Vec::new(),
            refusals: 0,
        }
    }

    /// Counts the blocks found in the database as spent. To be called once, before the first permit.
    ///
    /// A finished block binds until one window after its last response; its age is clamped to what it can be, so that a wall clock
    /// that went back does not freeze a budget. An unfinished one binds as if all of it was lost at this instant; the next
    /// [`Limiter::bookings`] write that down, so that a further restart does not count it anew, and blocks are small for a while.
    /// Blocks of unknown limits are deleted.
    ///
    /// Not detectable here: a wall clock that leapt ahead while no limiter ran makes finished blocks look older than they are.
    pub fn restore(&mut self, blocks: &[StoredBlock], now: Duration, wall: Timestamp) {
        let queue = self.limits.max_server_queue();
        let (markers, blocks): (Vec<_>, Vec<_>) = blocks.iter().partition(|block| block.is_marker());
        for block in &blocks {
            let account = self.accounts.iter_mut().find(|account| account.limit.id == block.limit);
            let finished_at = block.finished_at.unwrap_or_else(|| wall.plus(queue));
            let row = FinishedBlock { id: block.id, amount: block.amount, finished_at };
            match account {
                Some(account) => restore_block(account, row, block.finished_at.is_some(), queue, now, wall),
                None => self.obsolete(row.id),
            }
        }
        if !markers.is_empty() || blocks.iter().any(|block| block.finished_at.is_none()) {
            for account in &mut self.accounts {
                account.blocks.be_wary(now);
            }
        }
        self.marker = markers.first().map(|block| block.id);
        // A commit of unknown outcome may have left another.
        for block in markers.iter().skip(1) {
            self.obsolete(block.id);
        }
    }

    /// Asks for a permit for one request of `class` to `endpoint`. Waiters are served in the order of their class by the caller; in
    /// windows over a minute a lower class also leaves the share reserved for those above it.
    pub fn acquire(&mut self, now: Duration, class: Class, endpoint: &str) -> Decision {
        self.advance(now);
        if let Some(wait) = self.paused(now, endpoint) {
            return wait;
        }
        if self.permits.len() >= self.concurrency() {
            return Decision::Wait { until: self.lost.front().copied(), reason: Reason::Concurrency };
        }
        let expected = self.limits.expected(class);
        for (index, account) in self.accounts.iter().enumerate() {
            if let Err(until) = account.fits(now, class, expected.of(account.limit.unit)) {
                return Decision::Wait { until, reason: Reason::Limit(index) };
            }
        }
        let mut is_covered = true;
        for account in &mut self.accounts {
            if !account.blocks.covers(expected.of(account.limit.unit)) {
                account.blocks.ask();
                is_covered = false;
            }
        }
        if !is_covered {
            return Decision::NeedsBlock;
        }
        let mut charges = Vec::with_capacity(self.accounts.len());
        for account in &mut self.accounts {
            let charge = expected.of(account.limit.unit);
            let block = account.blocks.take(charge).expect("every account was just found to cover the charge");
            account.take(now, charge);
            charges.push((block, charge));
        }
        self.granted += 1;
        self.permits.insert(self.granted, Permit { granted_at: now, charges });
        Decision::Granted(PermitId { incarnation: self.incarnation, number: self.granted })
    }

    /// The response to the permit's request arrived, whatever its status. False if the permit is not ours (any more).
    pub fn settle(&mut self, id: PermitId, now: Duration, wall: Timestamp, outcome: Outcome) -> bool {
        let Some(permit) = self.remove(id) else { return false };
        let elapsed = u64::try_from(now.saturating_sub(permit.granted_at).as_millis()).unwrap_or(u64::MAX);
        for (account, (block, reserved)) in self.accounts.iter_mut().zip(permit.charges) {
            let spent = match account.limit.unit {
                Unit::Requests => reserved,
                Unit::Bytes => outcome.bytes.unwrap_or(reserved),
                Unit::ServerMillis => outcome.server_ms.unwrap_or(elapsed.saturating_add(1)),
                Unit::Points => outcome.points.unwrap_or(reserved),
            };
            end(account, block, reserved, spent.min(account.usable.max(reserved)), (now, wall), now);
        }
        true
    }

    /// The permit's request ended without a verdict: timeout, reset, dropped. The server may stamp it as late as
    /// [`Limits::max_server_queue`] from now; until then it also lowers the concurrency. False if the permit is not ours.
    pub fn lost(&mut self, id: PermitId, now: Duration, wall: Timestamp) -> bool {
        let Some(permit) = self.remove(id) else { return false };
        let queue = self.limits.max_server_queue();
        for (account, (block, reserved)) in self.accounts.iter_mut().zip(permit.charges) {
            end(account, block, reserved, reserved, (now + queue, wall.plus(queue)), now);
        }
        self.lost.push_back(now + queue);
        if self.lost.len() > self.limits.concurrency().cap as usize {
            self.lost.pop_front();
        }
        true
    }

    /// The permit was not used: nothing was sent under it, so it comes back whole and at once. False if the permit is not ours.
    pub fn unused(&mut self, id: PermitId, now: Duration, wall: Timestamp) -> bool {
        let Some(permit) = self.remove(id) else { return false };
        for (account, (block, reserved)) in self.accounts.iter_mut().zip(permit.charges) {
            end(account, block, reserved, 0, (now, wall), now);
        }
        true
    }

    /// The upstream answered 429: nothing goes until `until` (clamped to the longest window), and bursts are halved: of the limit
    /// that the answer named, or of all. Settle the permit as well.
    pub fn refused(&mut self, now: Duration, until: Duration, limit: Option<&str>) {
        self.refusals += 1;
        self.paused_until = self.paused_until.max(self.clamped(now, until));
        for account in &mut self.accounts {
            if limit.is_none_or(|id| id == account.limit.id) {
                account.halve_burst(now);
            }
        }
    }

    /// Whether a 429 pauses everything now.
    #[must_use]
    pub fn is_paused(&self, now: Duration) -> bool {
        self.paused_until > now
    }

    /// Nothing goes until `until`: a pause that an earlier limiter was told of.
    pub fn pause(&mut self, now: Duration, until: Duration) {
        self.paused_until = self.paused_until.max(self.clamped(now, until));
    }

    /// Requests under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.permits.len()
    }

    /// The upstream answered 503: this endpoint rests until `until` (clamped to the longest window). Settle the permit as well.
    pub fn unavailable(&mut self, now: Duration, endpoint: &str, until: Duration) {
        let until = self.clamped(now, until);
        self.endpoints.retain(|(name, end)| *end > now && name != endpoint);
        if self.endpoints.len() == PAUSED_ENDPOINTS_MAX {
            self.endpoints.remove(0);
        }
        self.endpoints.push((endpoint.to_owned(), until));
    }

    /// A header said that `remaining` of the limit are left until `until` (clamped to its window): lowers the current window, never
    /// raises it. Unknown limits are ignored.
    pub fn lower(&mut self, limit: &str, remaining: u64, now: Duration, until: Duration) {
        self.advance(now);
        if let Some(account) = self.accounts.iter_mut().find(|account| account.limit.id == limit) {
            account.lower(remaining, until.min(now + account.limit.window()));
        }
    }

    /// What is to be written in one transaction now. Changes nothing: ask again if the commit fails.
    pub fn bookings(&mut self, now: Duration) -> Bookings {
        self.advance(now);
        let mut bookings = Bookings::default();
        for account in &self.accounts {
            let (wanted, finished, expired) = account.blocks.bookings(now);
            let request = |amount| BlockRequest { limit: account.limit.id.clone(), amount };
            bookings.wanted.extend(wanted.map(request));
            bookings.finished.extend(finished);
            bookings.expired.extend(expired);
        }
        bookings.wanted.extend(self.wanted_marker());
        bookings
    }

    /// When [`Limiter::bookings`] are to be written for the ends of requests in them, because the process may be killed any moment;
    /// may be past. None if they can go with the next booking that is made anyway.
    #[must_use]
    pub fn news_due(&self) -> Option<Duration> {
        let ends = self.accounts.iter().filter_map(|account| account.blocks.news_due());
        ends.chain(self.wanted_marker().map(|_| Duration::ZERO)).min()
    }

    /// The bookings are committed; `ids` are the rows of `wanted`, in its order.
    pub fn booked(&mut self, bookings: &Bookings, ids: &[BlockId], now: Duration, wall: Timestamp) {
        for account in &mut self.accounts {
            account.blocks.written(&bookings.finished, &bookings.expired);
        }
        for (request, id) in bookings.wanted.iter().zip(ids) {
            if request.amount == 0 {
                self.marker = Some(*id);
            } else if let Some(account) = self.accounts.iter_mut().find(|account| account.limit.id == request.limit) {
                account.blocks.opened(*id, request.amount, now, wall);
            }
        }
    }

    /// What is to be written at an ordered end, after which nothing is granted: every block without a request under way is finished,
    /// so that the next start has nothing to be wary of.
    pub fn close(&mut self, now: Duration) -> Bookings {
        for account in &mut self.accounts {
            account.blocks.close(now);
        }
        if let Some(marker) = self.marker.take() {
            self.obsolete(marker);
        }
        Bookings { wanted: Vec::new(), ..self.bookings(now) }
    }

    /// The state for status and metrics.
    pub fn snapshot(&mut self, now: Duration) -> Snapshot {
        self.advance(now);
        let limit = |account: &Account| LimitState {
            id: account.limit.id.clone(),
            usable: account.usable,
            spent: account.spent(),
            burst: account.burst(),
        };
        Snapshot {
            limits: self.accounts.iter().map(limit).collect(),
            in_flight: self.permits.len(),
            lost: self.lost.len(),
            paused_until: (self.paused_until > now).then_some(self.paused_until),
            paused_endpoints: self.endpoints.iter().map(|(name, _)| name.clone()).collect(),
            refusals: self.refusals,
        }
    }

    fn advance(&mut self, now: Duration) {
        for account in &mut self.accounts {
            account.advance(now);
        }
        if let Some(marker) = self.marker.take_if(|_| !self.accounts.iter().any(|account| account.blocks.is_wary())) {
            self.obsolete(marker);
        }
        self.lost.retain(|end| *end > now);
        self.endpoints.retain(|(_, end)| *end > now);
    }

    /// A wary process that wrote every end leaves nothing unfinished, so it leaves this: a block of nothing.
    fn wanted_marker(&self) -> Option<BlockRequest> {
        let account = self.accounts.iter().find(|account| account.blocks.is_wary())?;
        self.marker.is_none().then(|| BlockRequest { limit: account.limit.id.clone(), amount: 0 })
    }

    /// Has a row deleted; any account will do.
    fn obsolete(&mut self, row: BlockId) {
        if let Some(account) = self.accounts.first_mut() {
            account.blocks.found_obsolete(row);
        }
    }

    fn paused(&self, now: Duration, endpoint: &str) -> Option<Decision> {
        if self.paused_until > now {
            return Some(Decision::Wait { until: Some(self.paused_until), reason: Reason::ScopePaused });
        }
        let (_, until) = self.endpoints.iter().find(|(name, _)| name == endpoint)?;
        Some(Decision::Wait { until: Some(*until), reason: Reason::EndpointPaused })
    }

    fn concurrency(&self) -> usize {
        let concurrency = self.limits.concurrency();
        (concurrency.cap as usize).saturating_sub(self.lost.len()).max(concurrency.floor as usize)
    }

    fn clamped(&self, now: Duration, until: Duration) -> Duration {
        until.min(now + self.limits.longest_window())
    }

    fn remove(&mut self, id: PermitId) -> Option<Permit> {
        if id.incarnation != self.incarnation {
            return None;
        }
        self.permits.remove(&id.number)
    }
}

/// Ends one charge, whose last possible stamp is at `stamped` (monotonic and wall).
fn end(account: &mut Account, block: BlockId, reserved: u64, spent: u64, stamped: (Duration, Timestamp), now: Duration) {
    let back_at = stamped.0 + account.limit.hold(stamped.1);
    account.put_back(reserved, spent, back_at);
    // A bucket's row binds until what it covers has leaked at the latest.
    let binds = back_at.max(stamped.0 + account.limit.hold_max());
    account.blocks.put_back(block, reserved, spent, (binds, stamped.1), now);
}

/// Counts a block found at a start; `known` if the database knows its end already.
fn restore_block(account: &mut Account, row: FinishedBlock, known: bool, queue: Duration, now: Duration, wall: Timestamp) {
    let is_bucket = matches!(account.limit.shape, Shape::Bucket { .. });
    let longest = account.limit.hold_max();
    let hold = if is_bucket { longest } else { account.limit.hold(row.finished_at) };
    let left = row.finished_at.plus(hold).since(wall).min(longest + queue);
    if left.is_zero() {
        account.blocks.found_obsolete(row.id);
        return;
    }
    // A bucket gets no credit for what may have leaked before this start.
    let back = if is_bucket { row.finished_at.since(wall).min(queue) } else { left };
    account.schedule(row.amount, now + back);
    account.blocks.found(row, now + left, known, now);
}
