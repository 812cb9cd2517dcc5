//! `instep` keeps a local SQL database **in step** with the SaaS systems a team depends on.
//!
//! It receives their webhooks, fetches what a webhook only hints at, repairs what a webhook never told, stays inside their rate
//! limits, and survives every crash without losing an acknowledged delivery. Applications read the replica with plain SQL.
//!
//! # The way of the data
//!
//! ```text
//! upstream ──webhook──▶ edge ──▶ journal ──ack 2xx──▶ upstream
//!                                  │ (durable, many deliveries in one commit)
//!                                  ▼
//!                               intake: parse → events → one transaction: apply what may be applied, mark the rest, deliveries done
//!                                  │ "marks exist"
//!                                  ▼
//!                     sync:<resource>: drain marks → bulk fetch through the limiter → apply reads
//!                                  ▲
//! event feeds, passes ── marks and pages of records ──┘
//!                                  ▼
//!        store::apply, always one transaction: replica + changes + marks (+ delivery state, + page cursor)
//!                                  ▼
//!                              SQL views
//! ```
//!
//! Three ideas carry it:
//!
//! - **An event is a hint, a read is the truth.** A hint becomes a *mark*, a durable note "look at this entity again"; marks of one
//!   entity coalesce, marks of one resource are fetched together. What a read means beside the stored row is decided by one pure
//!   rule, [`model::ordering`].
//! - **State is in rows.** No actor holds what a restart may not forget, no mailbox holds a payload. Whatever moves together
//!   moves in one transaction.
//! - **Outside is thin.** Actors wait, send and commit; what they decide by is pure code that takes values and returns
//!   decisions: [`model`], [`quota`], [`reconcile`], [`connectors`].
//!
//! # The rooms
//!
//! The modules below stand in reading order, each with its invariants. What they may use of each other and of other crates is a
//! test (`tests/it/tidy.rs`), and so is the supervision tree (`tests/it/actors_md.rs` holds `actors.md` against
//! [`actors::Plan::tree`]).
//!
//! What the words mean:
//! - [`model`]: ids, deliveries, events, documents, versions, the ordering rule. Pure: values in, decisions out.
//!
//! What decides, equally pure; time comes in as an argument:
//! - [`connectors`]: the code that knows a kind of upstream. Bytes in, decisions out; what it panics on costs one delivery or record.
//! - [`quota`]: rate limits, permits, what is durable of them, breakers. Written independently of what the sandbox counts by.
//! - [`reconcile`]: which pass is next, watermarks, what a sweep's silence means, the removal budget.
//!
//! What touches the world, each thing in one room:
//! - [`clock`]: nobody else reads time.
//! - [`config`]: one typed tree, every mistake with its place; secrets are referred to, never held.
//! - [`failpoint`]: places where a test may break a step; nothing in an ordinary build.
//! - [`http`]: the three sockets. Nothing unverified is parsed or stored; below `/hooks/` there is never a 404, 405 or 3xx.
//! - [`report`]: what happens, log line and metric together; no bodies, tokens, signatures or keys in either.
//! - [`retry`]: delays between tries; the only user of the crate `backoff`.
//! - [`service`]: the only one who speaks to systemd.
//! - [`store`]: the only one who knows SQL, the same on SQLite and PostgreSQL; every write of a source begins with its fence.
//! - [`telemetry`]: log format and level.
//! - [`upstream`]: executes a connector's requests; follows no redirect, leaves no configured origin, retries nothing by itself.
//!
//! What lives:
//! - [`supervision`]: children as data, restarts, intensity, ordered stops, signs of life; the only starter of actors.
//! - [`actors`]: the tree, and one file an actor. No state that is not in rows, but for what a restart may forget.
//! - [`daemon`]: the daemon as a value, which `main` and every test start and stop.
//! - [`cli`]: one file a verb.
//!
//! What judges:
//! - [`sandbox`]: faithful fake upstreams over real HTTP, with faults; shares nothing with what it judges.
//!
//! Words (one per thing, in code, tables, command line and documents): a **source** is one configured upstream account; a
//! **connector** the code that knows a kind of upstream; a **resource** a kind of record; an **entity** one record; a **delivery** one
//! webhook request, kept byte for byte; an **event** one statement in it; a **pass** one run of the reconciler over a resource; a **gap** a
//! period in which deliveries may have been lost; **quarantine** is where goes what cannot be processed.
#![forbid(unsafe_code)]

// What the words mean.
pub mod model;

// What decides.
pub mod connectors;
pub mod quota;
pub mod reconcile;

// What touches the world.
pub mod clock;
pub mod config;
pub mod failpoint;
pub mod http;
pub mod report;
pub mod retry;
pub mod service;
pub mod store;
pub mod telemetry;
pub mod upstream;

// What lives.
pub mod supervision;

pub mod actors;

pub mod daemon;

pub mod cli;

// What judges.
pub mod sandbox;
