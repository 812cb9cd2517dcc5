//! What is promised, shown on the real binary: the daemon and a fake upstream as processes, on both stores.
//!
//! One module a promise. `INSTEP_LONG=1` runs the long forms. `--features failpoints` adds those that break the daemon from within. PostgreSQL is the server of `INSTEP_TEST_POSTGRES`, else the local
//! one, else a temporary one; without any its half is skipped aloud, and fails where `CI` is set.

#[path = "../support/support.rs"]
mod support;

mod ack_first;
mod ack_is_durable;
mod actors_md;
mod agreement;
mod api;
mod asked_passes;
mod backfill;
mod canaries;
mod copies;
mod decided_removals;
mod delays;
mod documents;
mod duplicates;
mod durability;
mod edge;
mod explain;
#[cfg(feature = "failpoints")]
#[path = "../failpoints/failpoints.rs"]
mod failpoints;
#[cfg_attr(not(feature = "failpoints"), expect(dead_code, reason = "without fail points nobody dies there"))]
#[path = "../failpoints/table.rs"]
mod failpoints_table;
mod hostile_edge;
mod large_pages;
mod long_reader;
mod lost_hooks;
mod lost_view;
mod memory;
mod mls;
mod neighbours;
mod one_daemon;
mod orders;
mod origin;
mod pim_cascade;
mod pim_scope;
mod pim_subscription;
mod planned_passes;
mod poison;
mod properties;
mod quarantine;
mod queries;
mod ractor_semantics;
mod refresh;
mod removal;
mod rotation;
mod service;
mod soak;
mod store_away;
mod sweeps;
mod tidy;
mod upstream_faults;
mod verify;
