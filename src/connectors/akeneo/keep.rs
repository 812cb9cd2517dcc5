//! What of a source is relevant to whoever reads the replica: the scope, by patterns.

use crate::model::document::{Json, glob};

/// Which records of a resource are kept. Each list holds patterns in which `*` stands for any run of characters; an empty list asks
/// for nothing. A record is kept if every list that asks for something holds a pattern that fits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Of the record's own code (or identifier).
    pub codes: Vec<String>,
    /// Of the code of the record above it: an option's attribute, a variant's or an asset's family, a record's reference entity.
    pub above: Vec<String>,
    /// Of the record's family.
    pub families: Vec<String>,
    /// Of one of the record's categories. A product model's categories are inherited by its variants.
    pub categories: Vec<String>,
    /// Whether the record is enabled.
    pub enabled: Option<bool>,
}

impl Keep {
    /// Whether records below this one may be kept.
    pub(super) fn keeps_below(&self, above: &str) -> bool {
        fits(&self.above, above)
    }

    pub(super) fn keeps(&self, code: &str, above: Option<&str>, record: &Json) -> bool {
        let text = |name: &str| record.get(name).and_then(Json::as_str);
        let categories = record.get("categories").and_then(Json::as_array).unwrap_or_default();
        fits(&self.codes, code)
            && above.is_none_or(|above| self.keeps_below(above))
            && (self.families.is_empty() || text("family").is_some_and(|family| fits(&self.families, family)))
            && (self.categories.is_empty() || categories.iter().filter_map(Json::as_str).any(|code| fits(&self.categories, code)))
            && self.enabled.is_none_or(|enabled| record.get("enabled").and_then(Json::as_bool) == Some(enabled))
    }
}

fn fits(patterns: &[String], text: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| glob(pattern, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(codes: &[&str], categories: &[&str]) -> Keep {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Keep { codes: owned(codes), categories: owned(categories), ..Keep::default() }
    }

    #[test]
    fn a_record_fits_every_list_that_asks_for_something() {
        let record = Json::parse(br#"{"categories":["summer","sale_2026"],"enabled":true,"family":"shoes"}"#).expect("JSON");
        assert!(Keep::default().keeps("x", None, &record));
        assert!(keep(&["sku-*"], &["sale*"]).keeps("sku-1", None, &record));
        assert!(!keep(&["sku-*"], &["winter"]).keeps("sku-1", None, &record));
        assert!(!keep(&["sku-*"], &[]).keeps("other", None, &record));
        assert!(!Keep { enabled: Some(false), ..Keep::default() }.keeps("x", None, &record));
        let shoes = Keep { families: vec!["sho*s".into()], above: vec!["color".into()], ..Keep::default() };
        assert!(shoes.keeps("red", Some("color"), &record) && !shoes.keeps("red", Some("size"), &record));
        assert!(!shoes.keeps("red", None, &Json::parse(b"{}").expect("JSON")), "without a family there is nothing that fits");
    }

    #[test]
    fn patterns_stand_for_whole_codes() {
        for (pattern, text, fits) in
            [("a*c", "abc", true), ("a*c", "abcd", false), ("*", "", true), ("a", "ab", false), ("*b*", "abc", true)]
        {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }
}
