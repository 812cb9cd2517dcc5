//! `instep` keeps a local SQL database in step with the SaaS systems a team depends on.
#![forbid(unsafe_code)]

pub mod actors;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connectors;
pub mod daemon;
pub mod http;
pub mod model;
pub mod quota;
pub mod reconcile;
pub mod report;
pub mod retry;
pub mod sandbox;
pub mod service;
pub mod store;
pub mod supervision;
pub mod telemetry;
pub mod upstream;
