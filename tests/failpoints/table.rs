//! Every fail point that stands at a durable step, and what makes the daemon pass there.
//!
//! `tests/it/tidy/durable.rs` holds this against the code: a step without its row here is a failure, and so is a row without its
//! step. `tests/failpoints/aborts.rs` goes through it, with `cascades.rs`, `producer.rs` and `operators.rs`.

use crate::support::Engine;

/// What makes the daemon pass a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The first start over an empty store and an empty state directory.
    FreshStart,
    /// Every start.
    Start,
    /// A start after these statements.
    StartAfter(&'static str),
    /// A start that finds that its predecessor died while it decoded a delivery.
    DeathWhileDecoding,
    /// Deliveries, and what the upstream changes meanwhile.
    Deliveries,
    /// Passes and feeds, which come by themselves.
    Passes,
    /// A record that goes without a word.
    SilentDelete,
    /// Reads that fail.
    FailingReads,
    /// Reads that are told to come later.
    Refusals,
    /// A record that changes, of a resource that cannot be read in bulk; the start before forgot that.
    NoBulk,
    /// `instep hooks create`.
    HooksCreate,
    /// `instep hooks delete`.
    HooksDelete,
    /// A change or removal of a record that others stand below (`cascades.rs`, over a fake PIM).
    Cascade,
    /// A log of numbered events that is walked (`producer.rs`, over a fake producer).
    Log,
    /// `instep hooks invite` (`producer.rs`).
    HooksInvite,
    /// `instep hooks invite --revoke` (`producer.rs`).
    HooksRevoke,
    /// `instep gaps open`, `instep reconcile` (`operators.rs`, as all that follow).
    Wish,
    /// `instep reconcile approve` and `reject`.
    Decision,
    /// `instep quarantine replay` and `discard`.
    Quarantine,
    /// `instep verify --repair`.
    Repair,
    /// `instep adopt`.
    Adopt,
}

impl By {
    /// Whether only a start passes there.
    pub(crate) fn needs_a_start(self) -> bool {
        matches!(self, Self::FreshStart | Self::Start | Self::StartAfter(_) | Self::DeathWhileDecoding)
    }

    /// Whether the universe of `story.rs` passes there, and not only those of other tests.
    pub(crate) fn is_of_a_story(self) -> bool {
        let of_upstreams = matches!(self, Self::Cascade | Self::Log | Self::HooksInvite | Self::HooksRevoke);
        let of_operators = matches!(self, Self::Wish | Self::Decision | Self::Quarantine | Self::Repair | Self::Adopt);
        !of_upstreams && !of_operators
    }
}

/// A durable step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) moments: &'static [&'static str],
    pub(crate) by: By,
    /// Where it is taken on one store only.
    pub(crate) only: Option<Engine>,
}

/// The moments of every transaction.
pub(crate) const TRANSACTION: &[&str] = &["begun", "before_commit", "after_commit"];

const fn transaction(name: &'static str, by: By) -> Step {
    Step { name, moments: TRANSACTION, by, only: None }
}

const fn step(name: &'static str, moments: &'static [&'static str], by: By) -> Step {
    Step { name, moments, by, only: None }
}

const fn on_sqlite(step: Step) -> Step {
    Step { only: Some(Engine::Sqlite), ..step }
}

const fn on_postgres(step: Step) -> Step {
    Step { only: Some(Engine::Postgres), ..step }
}

/// The heartbeat of a daemon that went two days ago.
const LONG_DOWN: &str = "update instep_heartbeat set at = at - 172800000000";
/// A row whose time is long over.
const OUTLIVED: &str = "insert into instep_answer (minute, source, status, n) values (1, 'pmp', 200, 1) on conflict do nothing";
/// A sweep that stands at a cursor which the upstream does not know.
const LOST_CURSOR: &str = "update instep_pass set state = 'stopped', ended_at = started_at where state = 'running' and resource = 'tasks'; \
     insert into instep_pass (id, source, resource, kind, variant, cursor, first_epoch, first_counter, started_at, state, pages, records, \
     restarted) select '01900000-0000-7000-8000-' || substr(cast(1000000000000 + (select count(*) from instep_pass) as text), 2), \
     'pmp', 'tasks', 'sweep', 0, 'lost', 1, 1, at, 'running', 1, 1, false from instep_heartbeat";

/// All of them, in the order in which a first start meets those of a start.
pub(crate) const STEPS: &[Step] = &[
    // A first start.
    on_sqlite(step("files", &["directory_made", "database_made", "locked"], By::FreshStart)),
    on_sqlite(step("vacuum_mode", &["begun", "set"], By::FreshStart)),
    on_postgres(transaction("migrate", By::FreshStart)),
    step("migration", &["begun", "statement", "taken"], By::FreshStart),
    transaction("instance", By::FreshStart),
    transaction("view", By::FreshStart),
    transaction("arrive", By::Start),
    step("token", &["drafted", "linked"], By::FreshStart),
    // Every start.
    transaction("known_resources", By::Start),
    transaction("claim", By::Start),
    transaction("permit_block", By::Start),
    step("permit", &["booked"], By::Start),
    transaction("drop_payloads", By::Start),
    on_sqlite(step("checkpoint", &["begun", "copied", "vacuumed"], By::Start)),
    // A start after something happened.
    transaction("extend_gap", By::StartAfter(LONG_DOWN)),
    transaction("retention", By::StartAfter(OUTLIVED)),
    transaction("restart_pass", By::StartAfter(LOST_CURSOR)),
    transaction("attempt", By::DeathWhileDecoding),
    // The way of a delivery.
    step("hook", &["head_read", "body_read", "verified", "stored"], By::Deliveries),
    transaction("journal", By::Deliveries),
    transaction("answers", By::Deliveries),
    transaction("heartbeat", By::Deliveries),
    step("decode", &["named", "read"], By::Deliveries),
    step("batch", &["gathered"], By::Deliveries),
    transaction("apply", By::Deliveries),
    step("apply", &["changes_written", "rows_written", "marks_written", "deliveries_written"], By::Deliveries),
    step("fetch", &["permitted", "answered"], By::Deliveries),
    // Passes, marks, registrations.
    step("apply", &["page_written", "feed_written"], By::Passes),
    transaction("start_pass", By::Passes),
    transaction("finish_pass", By::Passes),
    transaction("close_gap", By::Passes),
    transaction("set_marks", By::SilentDelete),
    transaction("touch_marks", By::FailingReads),
    transaction("pause", By::Refusals),
    transaction("bulk_unsupported", By::NoBulk),
    transaction("put_registration", By::HooksCreate),
    transaction("note_healthy", By::HooksCreate),
    transaction("drop_registration", By::HooksDelete),
    transaction("put_invitation", By::HooksInvite),
    transaction("revoke_invitation", By::HooksRevoke),
    step("apply", &["cascades_written"], By::Cascade),
    transaction("cascade", By::Cascade),
    step("cascade", &["marks_written"], By::Cascade),
    step("apply", &["log_written"], By::Log),
    // What operators ask for.
    transaction("open_gap", By::Wish),
    transaction("ask_passes", By::Wish),
    transaction("approve_removals", By::Decision),
    transaction("reject_removals", By::Decision),
    transaction("replay", By::Quarantine),
    transaction("replay_record", By::Quarantine),
    transaction("discard", By::Quarantine),
    transaction("distrust", By::Repair),
    transaction("adopt", By::Adopt),
];
