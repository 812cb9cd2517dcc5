//! Where a list goes on. Nested collections are walked record by record of the one above, and keep their place in the cursor.

use serde::{Deserialize, Serialize};

use super::Akeneo;
use super::catalog::Paging;
use crate::connectors::ReadError;
use crate::model::document::raw_at;

/// Records of the collection above that one of its pages may hold: they stand in the cursor until they have been walked.
pub(super) const ABOVE_PAGE: usize = 50;

/// A place in the walk through a nested collection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// The next page of the collection above; `None`: there is none.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub(super) above: Option<String>,
    /// Records of the collection above whose own are still to be listed, the one in hand first. Empty: the next page above is read.
    #[serde(rename = "l", default, skip_serializing_if = "Vec::is_empty")]
    pub(super) left: Vec<String>,
    /// The next page of the one in hand; `None`: its first.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub(super) page: Option<String>,
}

impl Place {
    /// Where a cursor stands: without one at the first page above. `None`: it is none of ours.
    pub(super) fn read(cursor: Option<&str>) -> Option<Self> {
        cursor.map_or(Some(Self::default()), |text| serde_json::from_str(text).ok())
    }

    /// After a page above that holds these codes.
    pub(super) fn after_above(next: Option<String>, codes: Vec<String>) -> Self {
        Self { above: next, left: codes, page: None }
    }

    /// After a page of the record in hand.
    pub(super) fn after_page(self, next: Option<String>) -> Self {
        match next {
            Some(next) => Self { page: Some(next), ..self },
            None => Self { left: self.left.into_iter().skip(1).collect(), page: None, ..self },
        }
    }

    /// The cursor to go on from; `None`: the walk is over.
    pub(super) fn write(&self) -> Option<String> {
        if self.left.is_empty() && self.above.is_none() {
            return None;
        }
        serde_json::to_string(self).ok()
    }
}

/// What `_links.next` carries: the key or number that the next page begins after. The link is never followed: its path has to be
/// the one that was asked for, and the request for the page is built anew on the configured origin. (Behind a proxy the upstream
/// may take itself for another host.)
pub(super) fn next(akeneo: &Akeneo, path: &str, paging: Paging, text: &str) -> Result<Option<String>, ReadError> {
    let raw = raw_at(text, "/_links/next/href").map_err(|_| ReadError::Malformed("`_links` cannot be read"))?;
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else { return Ok(None) };
    let no_url = || ReadError::Malformed("`_links.next` is no URL");
    let link: String = serde_json::from_str(raw.get()).map_err(|_| no_url())?;
    let url = akeneo.options.url.join(&link).map_err(|_| no_url())?;
    if !matches!(url.scheme(), "http" | "https") || !url.path().ends_with(&format!("/api/rest/v1/{path}")) {
        return Err(ReadError::Malformed("`_links.next` leads elsewhere"));
    }
    let name = if paging == Paging::Numbers { "page" } else { "search_after" };
    let value = url.query_pairs().find(|(n, _)| n == name).map(|(_, value)| value.into_owned());
    value.filter(|value| !value.is_empty()).map(Some).ok_or(ReadError::Malformed("`_links.next` does not say where the next page begins"))
}
