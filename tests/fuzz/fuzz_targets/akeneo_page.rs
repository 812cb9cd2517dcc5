//! Fuzz target: its body is in `akeneo.rs`, which CI runs over the seeds too.
#![no_main]

#[path = "../parsers.rs"]
mod parsers;

libfuzzer_sys::fuzz_target!(|data: &[u8]| parsers::run("akeneo_page", data));
