//! One test for each sentence of the contract.

use std::time::Duration;

use super::*;
use crate::clock::Timestamp;

const S: Duration = Duration::from_secs(1);
const WALL: Timestamp = Timestamp(1_773_461_839_000_000);

fn requests(id: &str, amount: u64, window: Duration) -> Limit {
    Limit { id: id.into(), amount, shape: Shape::Window(window), unit: Unit::Requests, share: 1.0 }
}

fn limiter(list: Vec<Limit>) -> Limiter {
    let expected = Expected { server_ms: 10_000, bytes: 1_000, ..Expected::default() };
    Limiter::new(Limits::new(list, Concurrency { cap: 100, floor: 0 }, [expected; 5]).expect("valid"), 1)
}

/// Acquires, booking where needed; block rows get `now`'s microseconds as ids so that they differ.
fn ask(limiter: &mut Limiter, now: Duration, class: Class) -> Decision {
    match limiter.acquire(now, class, "/tasks") {
        Decision::NeedsBlock => {
            let bookings = limiter.bookings(now);
            let fresh = limiter.snapshot(now).in_flight as i64 * 100 + now.as_millis() as i64 * 100_000;
            let ids: Vec<BlockId> = (0..bookings.wanted.len() as i64).map(|n| BlockId(fresh + n)).collect();
            limiter.booked(&bookings, &ids, now, WALL.plus(now));
            limiter.acquire(now, class, "/tasks")
        }
        other => other,
    }
}

fn granted(limiter: &mut Limiter, now: Duration, class: Class) -> PermitId {
    match ask(limiter, now, class) {
        Decision::Granted(id) => id,
        other => panic!("expected a permit at {now:?}, got {other:?}"),
    }
}

fn settle(limiter: &mut Limiter, id: PermitId, now: Duration) {
    assert!(limiter.settle(id, now, WALL.plus(now), Outcome::default()));
}

/// How many permits of `class` are to be had at `now`.
fn take_all(limiter: &mut Limiter, now: Duration, class: Class) -> Vec<PermitId> {
    std::iter::from_fn(|| match ask(limiter, now, class) {
        Decision::Granted(id) => Some(id),
        _ => None,
    })
    .collect()
}

#[test]
fn a_permit_comes_back_one_window_after_its_response() {
    let mut limiter = limiter(vec![requests("x", 1, S * 10)]);
    let id = granted(&mut limiter, S, Class::Live);
    let none = Decision::Wait { until: None, reason: Reason::Limit(0) };
    assert_eq!(ask(&mut limiter, S * 2, Class::Live), none, "nothing but the response can help");
    settle(&mut limiter, id, S * 3);
    let at_13 = Decision::Wait { until: Some(S * 13), reason: Reason::Limit(0) };
    assert_eq!(ask(&mut limiter, S * 12, Class::Live), at_13);
    granted(&mut limiter, S * 13, Class::Live);
}

#[test]
fn a_lost_permit_comes_back_after_the_servers_queue_and_lowers_concurrency_until_then() {
    let limits = Limits::new(vec![requests("x", 2, S * 10)], Concurrency { cap: 1, floor: 0 }, Default::default());
    let mut limiter = Limiter::new(limits.expect("valid"), 1);
    let id = granted(&mut limiter, S, Class::Live);
    assert!(limiter.lost(id, S * 2, WALL));
    let busy = Decision::Wait { until: Some(S * 62), reason: Reason::Concurrency };
    assert_eq!(ask(&mut limiter, S * 3, Class::Live), busy);
    granted(&mut limiter, S * 62, Class::Live);
    assert_eq!(limiter.snapshot(S * 71).limits[0].spent, 2);
    assert_eq!(limiter.snapshot(S * 72).limits[0].spent, 1);
}

#[test]
fn losses_do_not_lower_concurrency_below_its_floor() {
    let limits = Limits::new(vec![requests("x", 50, S)], Concurrency { cap: 4, floor: 2 }, Default::default());
    let mut limiter = Limiter::new(limits.expect("valid"), 1);
    for _ in 0..6 {
        let id = granted(&mut limiter, S, Class::Live);
        assert!(limiter.lost(id, S, WALL));
    }
    assert_eq!(take_all(&mut limiter, S, Class::Live).len(), 2);
}

#[test]
fn a_late_verdict_of_an_earlier_limiter_releases_nothing() {
    let list = || Limits::new(vec![requests("x", 5, S)], Concurrency { cap: 9, floor: 0 }, Default::default());
    let mut before = Limiter::new(list().expect("valid"), 1);
    let mut after = Limiter::new(list().expect("valid"), 2);
    let stale = granted(&mut before, S, Class::Live);
    granted(&mut after, S, Class::Live);
    assert!(!after.settle(stale, S, WALL, Outcome::default()) && !after.lost(stale, S, WALL));
    assert_eq!(after.snapshot(S).in_flight, 1);
}

#[test]
fn in_long_windows_lower_classes_leave_the_share_of_those_above() {
    let mut limiter = limiter(vec![requests("x", 100, S * 1800)]);
    assert_eq!(take_all(&mut limiter, S, Class::Sweep).len(), 70);
    assert_eq!(take_all(&mut limiter, S, Class::Incremental).len(), 10);
    assert_eq!(take_all(&mut limiter, S, Class::Live).len(), 20);
    assert_eq!(take_all(&mut limiter, S, Class::Refresh).len(), 0);
}

#[test]
fn unknown_charges_are_reserved_and_settled_at_the_response() {
    let hour = Limit { unit: Unit::ServerMillis, ..requests("ms", 30_000, S * 50) };
    let mut limiter = limiter(vec![hour]);
    let ids = take_all(&mut limiter, S, Class::Live);
    assert_eq!(ids.len(), 3, "three reserves of 10 s");
    settle(&mut limiter, ids[0], S + S / 2);
    assert_eq!(limiter.snapshot(S * 2).limits[0].spent, 20_501, "the time it took is the most it can have cost");
    let stated = Outcome { server_ms: Some(40), ..Outcome::default() };
    assert!(limiter.settle(ids[1], S * 2, WALL, stated));
    assert_eq!(limiter.snapshot(S * 2).limits[0].spent, 10_541);
}

#[test]
fn a_refusal_pauses_the_scope_clamped_and_halves_the_burst_which_recovers() {
    let mut limiter = limiter(vec![requests("x", 100, S * 10)]);
    limiter.refused(S, S * 9_999, None);
    let paused = Decision::Wait { until: Some(S * 11), reason: Reason::ScopePaused };
    assert_eq!(ask(&mut limiter, S * 2, Class::Refresh), paused);
    assert_eq!(limiter.snapshot(S * 2).refusals, 1);
    assert_eq!(take_all(&mut limiter, S * 11, Class::Live).len(), 50, "half of it at once");
    let paced = ask(&mut limiter, S * 11, Class::Live);
    assert!(matches!(paced, Decision::Wait { until: Some(at), .. } if at > S * 11 && at < S * 12), "{paced:?}");
    for window in 2..12 {
        limiter.snapshot(S * (1 + 10 * window));
    }
    assert_eq!(limiter.snapshot(S * 200).limits[0].burst, 100);
}

#[test]
fn only_the_limit_that_the_refusal_named_is_halved() {
    let mut limiter = limiter(vec![requests("a", 100, S * 10), requests("b", 100, S * 20)]);
    limiter.refused(S, S * 2, Some("b"));
    let bursts: Vec<u64> = limiter.snapshot(S).limits.iter().map(|limit| limit.burst).collect();
    assert_eq!(bursts, [100, 50]);
}

#[test]
fn an_unavailable_endpoint_rests_alone() {
    let mut limiter = limiter(vec![requests("x", 100, S * 10)]);
    limiter.unavailable(S, "/projects", S * 3);
    let rests = Decision::Wait { until: Some(S * 3), reason: Reason::EndpointPaused };
    assert_eq!(limiter.acquire(S * 2, Class::Live, "/projects"), rests);
    granted(&mut limiter, S * 2, Class::Live);
    assert!(matches!(limiter.acquire(S * 3, Class::Live, "/projects"), Decision::Granted(_)));
    assert!(limiter.snapshot(S * 3).paused_endpoints.is_empty());
}

#[test]
fn a_header_lowers_the_current_window_only_and_never_raises_it() {
    let mut limiter = limiter(vec![requests("x", 100, S * 10)]);
    limiter.lower("x", 1_000, S, S * 5);
    assert_eq!(limiter.snapshot(S).limits[0].spent, 0);
    limiter.lower("x", 30, S, S * 9_999);
    limiter.lower("x", 30, S, S * 9_999);
    assert_eq!(limiter.snapshot(S).limits[0].spent, 70, "said twice, counted once");
    assert_eq!(limiter.snapshot(S * 11).limits[0].spent, 0, "the next window is whole again");
}

#[test]
fn nothing_is_granted_from_a_block_that_is_not_booked() {
    let mut limiter = limiter(vec![requests("x", 100, S * 10)]);
    assert_eq!(limiter.acquire(S, Class::Live, "/tasks"), Decision::NeedsBlock);
    let bookings = limiter.bookings(S);
    assert_eq!(bookings.wanted, [BlockRequest { limit: "x".into(), amount: 5 }]);
    assert_eq!(limiter.bookings(S), bookings, "a failed commit changes nothing");
    assert_eq!(limiter.acquire(S, Class::Live, "/tasks"), Decision::NeedsBlock);
    limiter.booked(&bookings, &[BlockId(1)], S, WALL);
    let under_way: Vec<Decision> = (0..5).map(|_| limiter.acquire(S, Class::Live, "/tasks")).collect();
    assert!(under_way.iter().all(|decision| matches!(decision, Decision::Granted(_))));
    assert_eq!(limiter.acquire(S, Class::Live, "/tasks"), Decision::NeedsBlock);
}

#[test]
fn a_used_block_is_finished_with_its_last_response_and_expires_a_window_later() {
    let mut limiter = limiter(vec![requests("x", 20, S * 10)]);
    let first = limiter.bookings(S);
    limiter.booked(&first, &[BlockId(1)], S, WALL.plus(S));
    let id = granted(&mut limiter, S, Class::Live);
    settle(&mut limiter, id, S * 2);
    let second = limiter.bookings(S * 3);
    limiter.booked(&second, &[BlockId(2)], S * 3, WALL.plus(S * 3));
    let third = limiter.bookings(S * 4);
    let finished = FinishedBlock { id: BlockId(1), amount: 1, finished_at: WALL.plus(S * 2) };
    assert_eq!((third.wanted.len(), third.finished), (0, vec![finished]));
    assert_eq!(limiter.bookings(S * 12).expired, [BlockId(1)]);
}

fn found(amount: u64, finished_at: Option<Timestamp>) -> StoredBlock {
    StoredBlock { id: BlockId(7), limit: "x".into(), amount, finished_at }
}

#[test]
fn an_unfinished_block_counts_as_lost_at_the_start_and_is_written_down_so() {
    let mut limiter = limiter(vec![requests("x", 100, S * 10)]);
    limiter.restore(&[found(5, None)], S, WALL);
    assert_eq!(limiter.bookings(S).finished[0].finished_at, WALL.plus(S * 60));
    assert_eq!(limiter.snapshot(S * 70).limits[0].spent, 5);
    assert_eq!(limiter.snapshot(S * 71).limits[0].spent, 0);
    assert_eq!(limiter.bookings(S * 71).expired, [BlockId(7)]);
}

/// A limiter that found a block of a killed process, with what it then wrote.
fn wary() -> Limiter {
    let mut limiter = limiter(vec![requests("x", 100, S * 10)]);
    limiter.restore(&[found(5, None)], S, WALL.plus(S));
    let bookings = limiter.bookings(S);
    assert_eq!(bookings.wanted, [BlockRequest { limit: "x".into(), amount: 0 }], "a marker, and no block that nobody asked for");
    limiter.booked(&bookings, &[BlockId(8)], S, WALL.plus(S));
    limiter
}

#[test]
fn a_limiter_that_found_a_kill_books_what_it_grants_and_has_its_ends_written_at_once() {
    let mut limiter = wary();
    assert_eq!(limiter.news_due(), None);
    assert_eq!(limiter.acquire(S * 5, Class::Live, "/tasks"), Decision::NeedsBlock);
    assert_eq!(limiter.bookings(S * 5).wanted, [BlockRequest { limit: "x".into(), amount: 1 }]);
    let id = granted(&mut limiter, S * 5, Class::Live);
    settle(&mut limiter, id, S * 7);
    let due = S * 7 + S / 100;
    assert_eq!(limiter.news_due(), Some(due), "after 6 s of life, 10 s / 60 s of a hundredth of it");
    let bookings = limiter.bookings(due);
    assert_eq!((bookings.wanted.len(), bookings.finished.len()), (0, 1));
    limiter.booked(&bookings, &[], due, WALL.plus(due));
    assert_eq!(limiter.news_due(), None);
}

#[test]
fn blocks_grow_with_the_age_of_a_process_that_found_a_kill_until_it_forgets_it() {
    let mut limiter = wary();
    let sizes = [60, 141, 300, 400].map(|second| {
        while limiter.acquire(S * second, Class::Live, "/tasks") != Decision::NeedsBlock {}
        let bookings = limiter.bookings(S * second);
        limiter.booked(&bookings, &[BlockId(i64::from(second)), BlockId(9)], S * second, WALL.plus(S * second));
        (bookings.wanted.first().map(|block| block.amount), bookings.expired.contains(&BlockId(8)))
    });
    assert_eq!(sizes, [(Some(1), false), (Some(2), false), (Some(4), false), (Some(5), true)], "and then the marker goes");
}

#[test]
fn a_killed_process_that_wrote_every_end_leaves_a_marker_and_an_orderly_one_leaves_nothing() {
    let marker = StoredBlock { id: BlockId(8), limit: "x".into(), amount: 0, finished_at: None };
    let mut again = limiter(vec![requests("x", 100, S * 10)]);
    again.restore(std::slice::from_ref(&marker), S, WALL);
    assert_eq!(again.acquire(S, Class::Live, "/tasks"), Decision::NeedsBlock);
    assert_eq!(again.bookings(S).wanted, [BlockRequest { limit: "x".into(), amount: 1 }], "wary again, with the same marker");
    assert_eq!(again.close(S).expired, [BlockId(8)]);
    let mut calm = limiter(vec![requests("x", 100, S * 10)]);
    let id = granted(&mut calm, S, Class::Live);
    settle(&mut calm, id, S * 2);
    let closed = calm.close(S * 2);
    assert_eq!((closed.wanted.len(), closed.finished.len()), (0, 1), "what was left of its block is given up");
}

#[test]
fn an_unused_permit_comes_back_whole_and_at_once() {
    let mut limiter = limiter(vec![requests("x", 1, S * 10)]);
    let id = granted(&mut limiter, S, Class::Live);
    assert!(limiter.unused(id, S * 2, WALL));
    granted(&mut limiter, S * 2, Class::Live);
}

#[test]
fn a_second_start_does_not_count_an_old_block_anew() {
    let mut again = limiter(vec![requests("x", 100, S * 10)]);
    again.restore(&[found(5, Some(WALL.plus(S * 60)))], S, WALL.plus(S * 30));
    assert_eq!(again.snapshot(S * 40).limits[0].spent, 5);
    assert_eq!(again.snapshot(S * 41).limits[0].spent, 0);
}

#[test]
fn a_finished_block_binds_one_window_and_a_clock_that_went_back_freezes_nothing() {
    let spent_at = |finished: Timestamp, seconds: u32| {
        let mut limiter = limiter(vec![requests("x", 100, S * 10)]);
        limiter.restore(&[found(5, Some(finished))], S, WALL);
        limiter.snapshot(S * seconds).limits[0].spent
    };
    assert_eq!(spent_at(WALL.minus(S * 4), 6), 5);
    assert_eq!(spent_at(WALL.minus(S * 4), 7), 0);
    assert_eq!(spent_at(WALL.minus(S * 10), 1), 0, "older than a window");
    let year_ahead = WALL.plus(S * 31_000_000);
    assert_eq!(spent_at(year_ahead, 70), 5);
    assert_eq!(spent_at(year_ahead, 71), 0, "at most the queue and a window");
}

#[test]
fn rows_of_a_limit_that_is_gone_are_deleted() {
    let mut limiter = limiter(vec![requests("other", 100, S * 10)]);
    limiter.restore(&[found(5, None)], S, WALL);
    assert_eq!(limiter.snapshot(S).limits[0].spent, 0);
    assert_eq!(limiter.bookings(S).expired, [BlockId(7)]);
}

#[test]
fn a_bucket_gives_its_capacity_at_once_and_its_refill_after() {
    let bucket = Limit { shape: Shape::Bucket { refill_per_second: 2.0 }, ..requests("b", 40, S) };
    let mut limiter = limiter(vec![bucket]);
    let ids = take_all(&mut limiter, S, Class::Live);
    assert_eq!(ids.len(), 40);
    for id in ids {
        settle(&mut limiter, id, S * 2);
    }
    assert_eq!(take_all(&mut limiter, S * 2, Class::Live).len(), 0, "it leaks from the response on, not from the request");
    assert_eq!(take_all(&mut limiter, S * 7, Class::Live).len(), 10, "five seconds of refill");
}

#[test]
fn what_the_limiter_keeps_is_bounded() {
    let mut limiter = limiter(vec![requests("x", 40_000, S * 86_400)]);
    for second in 0..20_000_u32 {
        let id = granted(&mut limiter, S * second, Class::Live);
        settle(&mut limiter, id, S * second);
    }
    assert!(format!("{limiter:?}").len() < 60_000, "a day is kept in slots, not in requests");
}
