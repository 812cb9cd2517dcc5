//! Small helpers for statements.

use sea_orm::sea_query::{Expr, ExprTrait};

use crate::model::{ResourceName, SourceName};

/// Rows in one multi-row statement: a round trip saved for each, under the source's lock, while the prepared statements stay small.
const ROWS_MAX: usize = 128;
/// Longest reason or note in bytes.
const NOTE_MAX: usize = 500;

/// When the delivery of a row of `instep_outcome` was received, as long as that is kept.
pub(crate) const RECEIVED_AT: &str = "(select d.received_at from instep_delivery d where d.id = instep_outcome.delivery_id)";

/// Splits rows into groups whose sizes are powers of two, so that few different statements are prepared.
pub(crate) fn groups<T>(mut rows: &[T]) -> Vec<&[T]> {
    let mut groups = Vec::new();
    while !rows.is_empty() {
        let size = ROWS_MAX.min(1 << rows.len().ilog2());
        let (group, rest) = rows.split_at(size);
        groups.push(group);
        rows = rest;
    }
    groups
}

/// The values of an `IN` list, the last repeated up to a power of two: few different statements are prepared.
pub(crate) fn padded<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut values: Vec<&str> = values.into_iter().collect();
    if let Some(last) = values.last().copied() {
        values.resize(values.len().next_power_of_two(), last);
    }
    values
}

/// A reason or note as it may be stored: no control characters, not too long.
pub(crate) fn clean(text: &str) -> String {
    let mut clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if clean.len() > NOTE_MAX {
        let end = (0..=NOTE_MAX).rev().find(|at| clean.is_char_boundary(*at)).unwrap_or(0);
        clean.truncate(end);
    }
    clean
}

pub(crate) fn of_source(source: &SourceName) -> Expr {
    Expr::col("source").eq(source.as_str())
}

pub(crate) fn of_resource(source: &SourceName, resource: &ResourceName) -> Expr {
    of_source(source).and(Expr::col("resource").eq(resource.as_str()))
}
