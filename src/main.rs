//! instep
fn main() {}
