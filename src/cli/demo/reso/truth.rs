//! What the fake producer really holds, by its own collections.
//!
//! Written without the code that reads, normalises or stores records.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::Error;
use super::super::upstream::Upstream;

/// Rows of a page, the fake's most.
const PAGE: usize = 1_000;
/// Pages of one collection: far more than the largest demo has.
const PAGES_MAX: usize = 100_000;

/// All records of a resource by their keys.
pub(in super::super) async fn records(upstream: &Upstream, resource: &str) -> Result<BTreeMap<String, Value>, Error> {
    // Of a Property the standard says another name.
    let key = if resource == "Property" { "ListingKey".to_owned() } else { format!("{resource}Key") };
    let mut records = BTreeMap::new();
    for _ in 0..PAGES_MAX {
        // Nothing changes while we compare, so that counting rows is safe.
        let mut page = upstream.observe(&format!("/odata/{resource}?$orderby={key}&$top={PAGE}&$skip={}", records.len())).await?;
        let Some(Value::Array(rows)) = page.get_mut("value").map(Value::take) else {
            return Err(Error::Answer(format!("a page of {resource} has no rows")));
        };
        let is_last = rows.len() < PAGE;
        records.extend(rows.into_iter().map(|row| (row.get(&key).and_then(Value::as_str).unwrap_or_default().to_owned(), row)));
        if is_last {
            return Ok(records);
        }
    }
    Err(Error::Answer(format!("{resource} has no last page")))
}
