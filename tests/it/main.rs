//! Black-box tests of the daemon, and the house rules: one binary, one module per promise.

mod actors_md;
mod ractor_semantics;
mod tidy;
