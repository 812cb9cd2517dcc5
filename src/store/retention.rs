//! Nothing grows without end: old rows go, a little at a time, and never so many that a wrong clock empties a table.

use std::time::Duration;

use nix::sys::statvfs::{FsFlags, Statvfs};
use sea_orm::ConnectionTrait;
use sea_orm::sea_query::{Alias, Expr, ExprTrait, Func, Order, Query, SelectStatement};

use crate::clock::Timestamp;
use crate::failpoint;
use crate::store::connect::{Engine, Lane, Store};
use crate::store::error::Error;
use crate::store::files;

/// Rows deleted in one transaction.
const CHUNK: u64 = 200;
/// At most this share of a table goes in one run (a clock that jumped must not empty it) …
const SHARE: u64 = 20;
/// … but a small table may lose as many rows.
const SMALL: u64 = 1_000;
/// Pages from which on a WAL is to begin anew: 16 MiB.
const LARGE_PAGES: i32 = 4_096;
/// Pages of the WAL that are copied with the pen held: a few milliseconds and two syncs.
const REST_PAGES: i32 = 500;
/// So often the rest is made smaller; a disk that cannot copy as fast as is written has its next chance in the next run.
const COPIES_MAX: u32 = 4;
/// So often in one run 100 free pages are given back.
const VACUUMS_MAX: u32 = 5;

/// How long things are kept.
#[derive(Clone, Debug)]
pub struct RetentionOptions {
    /// Deliveries that are done.
    pub deliveries: Duration,
    /// Deliveries that are done, whatever their age.
    pub deliveries_max: u64,
    /// Change rows.
    pub changes: Duration,
    /// Change rows, whatever their age.
    pub changes_max: u64,
    /// The log of events.
    pub outcomes: Duration,
    /// Rows of the log of events, whatever their age.
    pub outcomes_max: u64,
    /// Quarantined things.
    pub quarantine: Duration,
    /// Quarantined things, whatever their age.
    pub quarantine_max: u64,
    /// Counts of answers, ended passes, repaired gaps.
    pub history: Duration,
    /// Rows of feeds; longer than any feed's overlap.
    pub seen: Duration,
    /// Numbers of logs below where the next poll begins, whatever their age.
    pub sequences_max: u64,
    /// Skeletons of tombstones; longer than any upstream's retries.
    pub tombstones: Duration,
    /// Skeletons of tombstones, whatever their age.
    pub tombstones_max: u64,
    /// Payloads of tombstones, by source and resource.
    pub keep_deleted: Vec<(String, String, Duration)>,
}

impl Default for RetentionOptions {
    fn default() -> Self {
        let days = |n: u64| Duration::from_secs(n * 86_400);
        Self {
            deliveries: days(14),
            deliveries_max: 5_000_000,
            changes: days(90),
            changes_max: 20_000_000,
            outcomes: days(30),
            outcomes_max: 2_000_000,
            quarantine: days(90),
            quarantine_max: 10_000,
            history: days(90),
            seen: days(7),
            sequences_max: 5_000_000,
            tombstones: days(90),
            tombstones_max: 10_000_000,
            keep_deleted: Vec::new(),
        }
    }
}

/// What a run removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Rows by table.
    pub rows: Vec<(&'static str, u64)>,
    /// Payloads of tombstones.
    pub payloads: u64,
}

/// How large a table is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TableSize {
    /// Its name.
    pub name: String,
    /// Rows; an estimate on PostgreSQL.
    pub rows: u64,
    /// Bytes with indexes; `None` on SQLite, which counts them for the whole file only.
    pub bytes: Option<u64>,
}

/// Tables that [`Store::sizes`] tells of.
const TABLES: [&str; 10] = [
    "instep_delivery",
    "instep_entity",
    "instep_mark",
    "instep_change",
    "instep_outcome",
    "instep_quarantine",
    "instep_pass",
    "instep_answer",
    "instep_seen",
    "instep_sequence",
];

/// What a passive checkpoint found.
#[derive(Clone, Copy, Debug, Default)]
struct Copied {
    /// Pages in the WAL.
    pages: i32,
    /// Those not copied: a reader needs them, or they were written meanwhile.
    left: i32,
}

/// Numbers that no poll asks for again; those of a log that is not polled are told by deliveries alone.
const BELOW_FLOOR: &str = "number <= coalesce((select min(l.floor) from instep_log l where l.source = instep_sequence.source \
     and l.label = instep_sequence.label), 9223372036854775807)";

/// Columns of a primary key.
type Key = &'static [&'static str];

/// Table, key, which rows and what their age is told by, rows at most.
fn caps(options: &RetentionOptions) -> [(&'static str, Key, (&'static str, &'static str), u64); 6] {
    [
        ("instep_delivery", &["id"], ("state <> 'pending'", "done_at"), options.deliveries_max),
        ("instep_change", &["source", "number"], ("true", "at"), options.changes_max),
        ("instep_outcome", &["id"], ("true", "id"), options.outcomes_max),
        ("instep_quarantine", &["id"], ("true", "id"), options.quarantine_max),
        ("instep_entity", &["source", "resource", "key"], ("deleted_at is not null", "deleted_at"), options.tombstones_max),
        ("instep_sequence", &["source", "label", "number"], (BELOW_FLOOR, "at"), options.sequences_max),
    ]
}

impl Store {
    /// Removes what has outlived its time: of each table at most 5 % (or 1,000 rows), in transactions of 200 rows.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`]; what was removed stays removed.
    pub async fn purge(&self, options: &RetentionOptions, now: Timestamp) -> Result<Purged, Error> {
        let before = |age: Duration| now.minus(age).0;
        let older = |column: &'static str, age: Duration| Expr::col(column).lt(before(age));
        let rules: [(&'static str, Key, Expr); 9] = [
            ("instep_delivery", &["id"], older("done_at", options.deliveries).and(Expr::cust("state <> 'pending'"))),
            ("instep_change", &["source", "number"], older("at", options.changes)),
            ("instep_outcome", &["id"], older("received_at", options.outcomes)),
            ("instep_quarantine", &["id"], older("at", options.quarantine)),
            ("instep_answer", &["minute", "source", "status"], older("minute", options.history)),
            ("instep_pass", &["id"], older("ended_at", options.history)),
            ("instep_seen", &["source", "label", "id"], older("at", options.seen)),
            ("instep_sequence", &["source", "label", "number"], older("at", options.seen).and(Expr::cust(BELOW_FLOOR))),
            (
                "instep_entity",
                &["source", "resource", "key"],
                older("deleted_at", options.tombstones).and(Expr::cust("deleted_at is not null")),
            ),
        ];
        let mut purged = Purged::default();
        for (table, key, condition) in rules {
            let rows = self.purge_where(table, key, &condition).await?;
            purged.rows.push((table, rows));
        }
        for (table, key, of, cap) in caps(options) {
            let rows = self.purge_over(table, key, of, cap).await?;
            purged.rows.push((table, rows));
        }
        for (source, resource, keep) in &options.keep_deleted {
            purged.payloads += self.drop_payloads(source, resource, before(*keep)).await?;
        }
        Ok(purged)
    }

    async fn purge_where(&self, table: &'static str, key: &[&'static str], condition: &Expr) -> Result<u64, Error> {
        let mut any = Query::select();
        any.expr(Expr::val(1_i64)).from(table).and_where(condition.clone()).limit(1);
        if self.reader().query_one(&any).await?.is_none() {
            return Ok(0);
        }
        let mut count = Query::select();
        count.expr_as(Func::count(Expr::cust("*")), Alias::new("n")).from(table);
        let allowed = Ord::max(self.count(&count).await? / SHARE, SMALL);
        let mut chosen = Query::select();
        chosen.columns(key.iter().copied()).from(table).and_where(condition.clone());
        self.delete_chunks(table, key, &chosen, allowed).await
    }

    /// Removes the oldest rows beyond a cap, among those that fulfil a condition.
    async fn purge_over(
        &self,
        table: &'static str,
        key: Key,
        (condition, age): (&'static str, &'static str),
        cap: u64,
    ) -> Result<u64, Error> {
        let mut count = Query::select();
        count.expr_as(Func::count(Expr::cust("*")), Alias::new("n")).from(table).and_where(Expr::cust(condition));
        let rows = self.count(&count).await?;
        let over = Ord::min(rows.saturating_sub(cap), Ord::max(rows / SHARE, SMALL));
        let mut chosen = Query::select();
        chosen.columns(key.iter().copied()).from(table).and_where(Expr::cust(condition)).order_by(age, Order::Asc);
        self.delete_chunks(table, key, &chosen, over).await
    }

    async fn delete_chunks(
        &self,
        table: &'static str,
        key: &[&'static str],
        chosen: &SelectStatement,
        mut allowed: u64,
    ) -> Result<u64, Error> {
        let mut deleted = 0;
        while allowed > 0 {
            let chunk = Ord::min(CHUNK, allowed);
            let key = sea_orm::sea_query::Expr::tuple(key.iter().map(|column| Expr::col(*column)));
            let delete = Query::delete().from_table(table).and_where(key.in_subquery(chosen.clone().limit(chunk).take())).take();
            let gone = self
                .run(|| async {
                    let tx = self.begin(Lane::Work, "retention").await?;
                    let gone = tx.db.execute(&delete).await?.rows_affected();
                    tx.commit().await?;
                    Ok(gone)
                })
                .await?;
            deleted += gone;
            allowed -= Ord::min(gone, allowed);
            if gone < chunk {
                break;
            }
        }
        Ok(deleted)
    }

    async fn drop_payloads(&self, source: &str, resource: &str, before: i64) -> Result<u64, Error> {
        let mut dropped = 0;
        loop {
            let old = Expr::col("source").eq(source).and(Expr::col("resource").eq(resource));
            let old = old.and(Expr::col("deleted_at").lt(before)).and(Expr::cust("deleted_at is not null and payload is not null"));
            let chosen = Query::select().column("key").from("instep_entity").and_where(old.clone()).limit(CHUNK).take();
            let update = Query::update()
                .table("instep_entity")
                .value("payload", Expr::cust("null"))
                .value("raw", Option::<Vec<u8>>::None)
                .value("hash", Option::<Vec<u8>>::None)
                .and_where(old)
                .and_where(Expr::col("key").in_subquery(chosen))
                .take();
            let gone = self
                .run(|| async {
                    let tx = self.begin(Lane::Work, "drop_payloads").await?;
                    let gone = tx.db.execute(&update).await?.rows_affected();
                    tx.commit().await?;
                    Ok(gone)
                })
                .await?;
            dropped += gone;
            if gone < CHUNK {
                return Ok(dropped);
            }
        }
    }

    /// SQLite: copies the WAL into the database without making anybody wait, and gives free pages back.
    ///
    /// The copying has a connection of its own, beside which the writer goes on. So it never reaches the end of a WAL that is
    /// being written, and only at its end the WAL begins anew: one that has grown large gets its short rest with the pen held.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn checkpoint(&self) -> Result<(), Error> {
        if self.inner.engine == Engine::Postgres {
            return Ok(());
        }
        failpoint::reach("checkpoint", "begun").await?;
        let mut copied = self.copy_wal().await?;
        if copied.pages > LARGE_PAGES {
            for _ in 0..COPIES_MAX {
                if copied.left <= REST_PAGES {
                    let _pen = self.hold_pen().await;
                    self.copy_wal().await?;
                    break;
                }
                copied = self.copy_wal().await?;
            }
        }
        failpoint::reach("checkpoint", "copied").await?;
        self.give_back().await?;
        Ok(failpoint::reach("checkpoint", "vacuumed").await?)
    }

    async fn copy_wal(&self) -> Result<Copied, Error> {
        let row = self.checkpointer().query_one_raw(self.raw("pragma wal_checkpoint(passive)", [])).await;
        let Some(row) = row.map_err(|error| self.saw(error.into()))? else { return Ok(Copied::default()) };
        let (pages, copied): (i32, i32) = (row.try_get("", "log")?, row.try_get("", "checkpointed")?);
        Ok(Copied { pages, left: pages - copied })
    }

    /// Gives free pages back to the disk, a few in a transaction: the journal waits behind each.
    async fn give_back(&self) -> Result<(), Error> {
        for _ in 0..VACUUMS_MAX {
            let row = self.reader().query_one_raw(self.raw("pragma freelist_count", [])).await?;
            if row.map_or(Ok(0), |row| row.try_get::<i32>("", "freelist_count"))? == 0 {
                break;
            }
            // The statement is a transaction of its own.
            let _pen = self.hold_pen().await;
            let given = self.writer().execute_unprepared("pragma incremental_vacuum(100)").await;
            given.map_err(|error| self.saw(error.into()))?;
        }
        Ok(())
    }

    /// Bytes of SQLite's WAL; 0 on PostgreSQL.
    #[must_use]
    pub fn wal_bytes(&self) -> u64 {
        let wal = self.inner.path.as_ref().map(|path| files::side(path, "-wal"));
        wal.and_then(|wal| std::fs::metadata(wal).ok()).map_or(0, |metadata| metadata.len())
    }

    /// Bytes free on the disk of the SQLite file; `None` on PostgreSQL, whose disk is not ours to see.
    #[must_use]
    pub fn disk_free(&self) -> Option<u64> {
        let disk = self.disk()?;
        Some(disk.blocks_available().saturating_mul(disk.fragment_size()))
    }

    /// Whether the SQLite file lies on a file system that takes no writes now.
    pub(crate) fn is_read_only(&self) -> bool {
        self.disk().is_some_and(|disk| disk.flags().contains(FsFlags::ST_RDONLY))
    }

    fn disk(&self) -> Option<Statvfs> {
        let folder = self.inner.path.as_ref()?.parent()?;
        nix::sys::statvfs::statvfs(folder).ok()
    }

    /// How large the tables are.
    ///
    /// # Errors
    /// [`crate::store::Kind::Unavailable`].
    pub async fn sizes(&self) -> Result<Vec<TableSize>, Error> {
        let mut sizes = Vec::new();
        for table in TABLES {
            let statement = match self.inner.engine {
                Engine::Sqlite => self.raw(format!("select count(*) as n, null as bytes from {table}"), []),
                Engine::Postgres => self.raw(
                    "select greatest(reltuples, 0)::bigint as n, pg_total_relation_size(oid) as bytes from pg_class where oid = $1::regclass",
                    [table.into()],
                ),
            };
            let Some(row) = self.reader().query_one_raw(statement).await? else {
                continue;
            };
            let rows = u64::try_from(row.try_get::<i64>("", "n")?).unwrap_or(0);
            let bytes = match self.inner.engine {
                Engine::Sqlite => None,
                Engine::Postgres => u64::try_from(row.try_get::<i64>("", "bytes")?).ok(),
            };
            sizes.push(TableSize { name: table.to_owned(), rows, bytes });
        }
        Ok(sizes)
    }
}
