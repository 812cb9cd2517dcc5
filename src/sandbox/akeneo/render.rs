//! Records as the REST API and events show them.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::invent::{self, CHANNELS};
use super::moment::Zone;
use super::resource::{Resource as R, code, container};
use super::world::{Record, World};
use crate::sandbox::dice::mix;

/// Which values of a product are wanted; all where nothing is named.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) scope: Option<String>,
    pub(super) locales: Option<BTreeSet<String>>,
    pub(super) attributes: Option<BTreeSet<String>>,
}

/// How products are identified: by uuid as `products-uuid` does, or by identifier as `products` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Uuid,
    Identifier,
}

/// What an answer is made with: the world as of an instant, and the root of all links.
#[derive(Clone, Copy, Debug)]
pub(super) struct Renderer<'a> {
    pub(super) world: &'a World,
    /// None for now.
    pub(super) at_us: Option<i64>,
    pub(super) zone: Zone,
    /// `http://127.0.0.1:port`.
    pub(super) root: &'a str,
}

impl<'a> Renderer<'a> {
    /// A record as lists and single reads show it.
    pub(super) fn resource(&self, resource: R, key: &str, record: &Arc<Record>, format: Format, wanted: &Wanted) -> Value {
        let mut document = match resource {
            R::Products => self.product(key, record, format, wanted),
            R::ProductModels => self.model(key, record, wanted),
            _ => record.document.clone(),
        };
        if resource.spec().stamped {
            document.insert("created".to_owned(), self.zone.stamp(record.created_s).into());
            document.insert("updated".to_owned(), self.zone.stamp(record.updated_s).into());
        }
        if resource != R::MeasurementFamilies {
            let href = format!("{}{}", self.root, path(resource, key, document.get("identifier").and_then(Value::as_str), format));
            document.insert("_links".to_owned(), json!({ "self": { "href": href } }));
        }
        Value::Object(document)
    }

    /// The same as an event carries it: without links.
    pub(super) fn in_event(&self, resource: R, key: &str, record: &Arc<Record>, format: Format) -> Value {
        let mut document = self.resource(resource, key, record, format, &Wanted::default());
        if let Some(document) = document.as_object_mut() {
            document.remove("_links");
        }
        document
    }

    fn product(&self, key: &str, record: &Arc<Record>, format: Format, wanted: &Wanted) -> Map<String, Value> {
        let mut document = record.document.clone();
        document.insert("uuid".to_owned(), key.into());
        let root = self.parent(record).filter(|_| !record.text("parent").is_empty());
        let root = root.map(|parent| if parent.text("parent").is_empty() { parent.text("code") } else { parent.text("parent") });
        document.insert("root_parent".to_owned(), root.into());
        if format == Format::Uuid {
            document.remove("identifier");
        }
        self.finish(key, record, document, format, wanted)
    }

    fn model(&self, key: &str, record: &Arc<Record>, wanted: &Wanted) -> Map<String, Value> {
        self.finish(key, record, record.document.clone(), Format::Uuid, wanted)
    }

    fn finish(
        &self,
        key: &str,
        record: &Arc<Record>,
        mut document: Map<String, Value>,
        format: Format,
        wanted: &Wanted,
    ) -> Map<String, Value> {
        let listed = mix(&[self.world.seed, invent::hash(key)]).is_multiple_of(2);
        // PHP writes an empty map as a list when nobody told it otherwise; here it depends on the key.
        let map = |map: Map<String, Value>| if map.is_empty() && listed { json!([]) } else { Value::Object(map) };
        document.insert("values".to_owned(), map(self.values(key, record, wanted)));
        document.insert("quantified_associations".to_owned(), map(Map::new()));
        document.insert("metadata".to_owned(), json!({ "workflow_status": "working_copy" }));
        // Nothing says of a product that its category is gone.
        let is_live = |category: &&str| self.world.get_at(R::Categories, category, self.at_us).is_some();
        document.insert("categories".to_owned(), record.texts("categories").filter(is_live).collect());
        let associations = document.remove("associations").and_then(|found| found.as_object().cloned()).unwrap_or_default();
        document.insert("associations".to_owned(), map(self.associations(associations, format)));
        document
    }

    /// Links to what is gone have gone with it; by identifier where the format says so.
    fn associations(&self, mut associations: Map<String, Value>, format: Format) -> Map<String, Value> {
        for association in associations.values_mut() {
            let Some(products) = association.get_mut("products").and_then(Value::as_array_mut) else { continue };
            products.retain_mut(|product| {
                let Some(found) = self.world.get_at(R::Products, product.as_str().unwrap_or_default(), self.at_us) else { return false };
                if format == Format::Identifier {
                    *product = found.text("identifier").into();
                }
                *product != json!("")
            });
        }
        associations
    }

    /// All values, inherited ones included: those of the family's present attributes.
    fn values(&self, key: &str, record: &Arc<Record>, wanted: &Wanted) -> Map<String, Value> {
        let mut values = Map::new();
        let is_wanted = |attribute: &str| wanted.attributes.as_ref().is_none_or(|wanted| wanted.contains(attribute));
        if let Some(identifier) = record.document.get("identifier").filter(|identifier| identifier.is_string() && is_wanted("sku")) {
            let value = json!({ "locale": null, "scope": null, "data": identifier, "attribute_type": "pim_catalog_identifier" });
            values.insert("sku".to_owned(), json!([value]));
        }
        let chain = self.chain(key, record);
        let Some(family) = self.world.get_at(R::Families, record.text("family"), self.at_us) else { return values };
        for attribute_code in family.texts("attributes").filter(|code| *code != "sku" && is_wanted(code)) {
            let Some(attribute) = self.world.get_at(R::Attributes, attribute_code, self.at_us) else { continue };
            let Some((owner, owned)) = self.owner(&chain, attribute_code) else { continue };
            let rows = match owned.values.get(attribute_code) {
                Some(set) => set.as_array().cloned().unwrap_or_default(),
                None => invent::values(self.world.seed, owner, attribute).unwrap_or_default(),
            };
            let rows: Vec<Value> = rows.into_iter().filter(|row| is_in(row, wanted)).map(|row| self.completed(row, attribute)).collect();
            if !rows.is_empty() {
                values.insert(attribute_code.to_owned(), rows.into());
            }
        }
        values
    }

    fn completed(&self, mut row: Value, attribute: &Record) -> Value {
        let kind = attribute.text("type");
        row["attribute_type"] = kind.into();
        if kind == "pim_catalog_image" {
            let href = format!("{}/api/rest/v1/media-files/{}/download", self.root, row["data"].as_str().unwrap_or_default());
            row["_links"] = json!({ "download": { "href": href } });
        }
        row
    }

    /// The record and what it inherits from, nearest first.
    fn chain(&self, key: &str, record: &Arc<Record>) -> Vec<(String, Arc<Record>)> {
        let mut chain = vec![(key.to_owned(), Arc::clone(record))];
        // A family variant has two levels at most.
        while chain.len() < 3 {
            let Some((_, last)) = chain.last() else { break };
            let Some(parent) = self.parent(last) else { break };
            let code = last.text("parent").to_owned();
            chain.push((code, Arc::clone(parent)));
        }
        chain
    }

    fn parent(&self, record: &Record) -> Option<&'a Arc<Record>> {
        self.world.get_at(R::ProductModels, record.text("parent"), self.at_us)
    }

    /// Who of a chain holds an attribute's values; none where that is below.
    fn owner<'c>(&self, chain: &'c [(String, Arc<Record>)], attribute: &str) -> Option<(&'c str, &'c Record)> {
        let depth = chain.len() - 1;
        let variant = chain.iter().map(|(_, record)| record.text("family_variant")).find(|variant| !variant.is_empty());
        let level = match variant {
            None => depth,
            Some(variant) => self.level(chain[0].1.text("family"), variant, attribute),
        };
        let (key, record) = chain.get(depth.checked_sub(level)?)?;
        Some((key, record))
    }

    fn level(&self, family: &str, variant: &str, attribute: &str) -> usize {
        let variant = self.world.get_at(R::FamilyVariants, &format!("{family}/{variant}"), self.at_us);
        let sets = variant.and_then(|variant| variant.document.get("variant_attribute_sets")?.as_array());
        let set = sets.into_iter().flatten().find(|set| {
            let attributes = set["attributes"].as_array();
            attributes.is_some_and(|attributes| attributes.iter().any(|code| code == attribute))
        });
        set.and_then(|set| set["level"].as_u64()).and_then(|level| usize::try_from(level).ok()).unwrap_or(0)
    }

    /// When a record last changed as the index sees it: with its ancestors.
    pub(super) fn indexed_s(&self, record: &Record) -> i64 {
        let mut latest = record.updated_s;
        let mut parent = self.parent(record);
        for _ in 0..2 {
            let Some(found) = parent else { break };
            latest = latest.max(found.updated_s);
            parent = self.parent(found);
        }
        latest
    }

    /// Whether a model is among a record's ancestors.
    pub(super) fn descends_from(&self, record: &Record, model: &str) -> bool {
        let parent = record.text("parent");
        !parent.is_empty() && (parent == model || self.parent(record).is_some_and(|found| found.text("parent") == model))
    }
}

/// Whether a value lies in the channel and the locales asked for.
fn is_in(row: &Value, wanted: &Wanted) -> bool {
    let (locale, scope) = (row["locale"].as_str(), row["scope"].as_str());
    let in_scope = wanted.scope.as_ref().is_none_or(|wanted| {
        let locales = CHANNELS.iter().find(|(channel, _)| channel == wanted).map(|(_, locales)| *locales);
        let has_locale = locale.is_none_or(|locale| locales.is_none_or(|locales| locales.contains(&locale)));
        scope.is_none_or(|scope| scope == wanted) && has_locale
    });
    in_scope && wanted.locales.as_ref().is_none_or(|wanted| locale.is_none_or(|locale| wanted.contains(locale)))
}

/// The path of one record.
pub(super) fn path(resource: R, key: &str, identifier: Option<&str>, format: Format) -> String {
    let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20");
    let container = container(key).map(encode).unwrap_or_default();
    let code = encode(code(key));
    let rest = match resource {
        R::Products if format == Format::Uuid => format!("products-uuid/{code}"),
        R::Products => format!("products/{}", encode(identifier.unwrap_or_default())),
        R::FamilyVariants => format!("families/{container}/variants/{code}"),
        R::AttributeOptions => format!("attributes/{container}/options/{code}"),
        R::Assets => format!("asset-families/{container}/assets/{code}"),
        R::ReferenceEntityRecords => format!("reference-entities/{container}/records/{code}"),
        _ => format!("{}/{code}", resource.spec().name),
    };
    format!("/api/rest/v1/{rest}")
}

/// A document as PHP writes it: slashes escaped, nothing but ASCII.
pub(super) fn php(document: &Value) -> String {
    let mut text = String::new();
    for c in document.to_string().chars() {
        match c {
            '/' => text.push_str("\\/"),
            c if c.is_ascii() => text.push(c),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    text.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_written_as_php_writes_them() {
        let document = json!({ "a": "https://x/é 😀", "b": [] });
        assert_eq!(php(&document), r#"{"a":"https:\/\/x\/\u00e9 \ud83d\ude00","b":[]}"#);
        assert_eq!(serde_json::from_str::<Value>(&php(&document)).expect("JSON"), document);
    }
}
