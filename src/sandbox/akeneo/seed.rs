//! Fills the PIM: structure first, then models and products in the proportions of a shop.

use serde_json::{Map, Value, json};

use super::invent::{self, CHANNELS, LINKED, LOCALES};
use super::resource::Resource as R;
use super::world::{Record, World};
use crate::sandbox::dice::Dice;

const DAY_S: i64 = 86_400;

/// Code, type, group, localizable, scopable.
const ATTRIBUTES: [(&str, &str, &str, bool, bool); 15] = [
    ("sku", "pim_catalog_identifier", "technical", false, false),
    ("name", "pim_catalog_text", "marketing", true, false),
    ("description", "pim_catalog_textarea", "marketing", true, true),
    ("price", "pim_catalog_price_collection", "marketing", false, true),
    ("color", "pim_catalog_simpleselect", "technical", false, false),
    ("size", "pim_catalog_simpleselect", "technical", false, false),
    ("features", "pim_catalog_multiselect", "technical", false, false),
    ("waterproof", "pim_catalog_boolean", "technical", false, false),
    ("stock", "pim_catalog_number", "technical", false, false),
    ("weight", "pim_catalog_metric", "technical", false, false),
    ("release_date", "pim_catalog_date", "marketing", false, false),
    ("picture", "pim_catalog_image", "media", false, false),
    ("packshots", "pim_catalog_asset_collection", "media", false, false),
    ("designer", "akeneo_reference_entity", "marketing", false, false),
    ("care", "pim_catalog_text", "other", true, false),
];
/// Attributes of a variant alone; all but these and the axes are common to all variants of a model.
const OF_VARIANTS: [&str; 4] = ["sku", "stock", "weight", "release_date"];
/// Products that others are associated with; the churn never deletes them.
pub(super) const ANCHORS: u64 = 5;

/// Makes about `entities` products and what they need, the youngest two days before `now_s`.
pub(super) fn seed(world: &mut World, entities: u64, now_s: i64) {
    let mut dice = Dice::new(world.seed);
    structure(world, &mut dice, entities, now_s);
    let families = world.len(R::Families) as u64;
    let mut n_products = 0;
    while n_products < entities {
        let family = family_code(1 + dice.below(families));
        if dice.happens(0.2) || n_products < ANCHORS {
            let product = draft_product(world, &mut dice, &family, None);
            n_products += 1;
            add(world, &mut dice, R::Products, None, product, now_s);
            continue;
        }
        let two_levels = dice.happens(0.4);
        let root = draft_model(world, &mut dice, &family, two_levels, None);
        let root = add(world, &mut dice, R::ProductModels, None, root, now_s);
        let mut parents = vec![root.clone()];
        if two_levels {
            parents.clear();
            for _ in 0..2 + dice.below(2) {
                let model = draft_model(world, &mut dice, &family, true, Some(&root));
                parents.push(add(world, &mut dice, R::ProductModels, None, model, now_s));
            }
        }
        for parent in parents {
            for _ in 0..2 + dice.below(5) {
                let variant = draft_product(world, &mut dice, &family, Some(&parent));
                n_products += 1;
                add(world, &mut dice, R::Products, None, variant, now_s);
            }
        }
    }
}

fn structure(world: &mut World, dice: &mut Dice, entities: u64, now_s: i64) {
    for (resource, code, document) in fixed() {
        add(world, dice, resource, Some(&code), document, now_s);
    }
    for (code, kind, group, localizable, scopable) in ATTRIBUTES {
        add(world, dice, R::Attributes, Some(code), attribute(code, kind, group, localizable, scopable), now_s);
        for (index, option) in invent::options(code).iter().enumerate() {
            let document = json!({ "code": option, "attribute": code, "sort_order": index, "labels": labels(option) });
            add(world, dice, R::AttributeOptions, Some(&format!("{code}/{option}")), document, now_s);
        }
    }
    for number in 1..=(entities / 250).clamp(4, 40) {
        let (code, family) = family(number);
        add(world, dice, R::Families, Some(&code), family, now_s);
        for variant in family_variants(&code) {
            let key = format!("{code}/{}", variant["code"].as_str().unwrap_or_default());
            add(world, dice, R::FamilyVariants, Some(&key), variant, now_s);
        }
    }
    add(world, dice, R::Categories, Some("master"), json!({ "code": "master", "parent": null, "labels": labels("master") }), now_s);
    for (resource, count) in [
        (R::Categories, (entities / 50).clamp(10, 2_000)),
        (R::Assets, (entities / 20).max(LINKED)),
        (R::ReferenceEntityRecords, (entities / 20).max(LINKED)),
    ] {
        for _ in 0..count {
            let document = draft(world, dice, resource);
            add(world, dice, resource, None, document, now_s);
        }
    }
}

/// What no size changes.
fn fixed() -> Vec<(R, String, Value)> {
    let mut fixed = Vec::new();
    for (channel, locales) in CHANNELS {
        let document = json!({
            "code": channel, "currencies": ["EUR", "USD"], "locales": locales, "category_tree": "master", "conversion_units": {},
            "labels": labels(channel),
        });
        fixed.push((R::Channels, channel.to_owned(), document));
    }
    for locale in LOCALES.iter().chain(&["es_ES", "it_IT", "pl_PL", "nl_BE"]) {
        fixed.push((R::Locales, (*locale).to_owned(), json!({ "code": locale, "enabled": LOCALES.contains(locale) })));
    }
    for (index, currency) in ["EUR", "USD", "GBP", "PLN"].iter().enumerate() {
        fixed.push((R::Currencies, (*currency).to_owned(), json!({ "code": currency, "enabled": index < 2, "label": currency })));
    }
    for group in ["marketing", "technical", "media", "other"] {
        let of_group: Vec<&str> = ATTRIBUTES.iter().filter(|attribute| attribute.2 == group).map(|attribute| attribute.0).collect();
        let document = json!({ "code": group, "sort_order": 1, "attributes": of_group, "labels": labels(group) });
        fixed.push((R::AttributeGroups, group.to_owned(), document));
    }
    for kind in ["PACK", "X_SELL", "UPSELL"] {
        let document = json!({ "code": kind, "labels": labels(kind), "is_quantified": false, "is_two_way": false });
        fixed.push((R::AssociationTypes, kind.to_owned(), document));
    }
    for (family, unit) in [("Weight", "KILOGRAM"), ("Length", "METER"), ("Area", "SQUARE_METER")] {
        let units = json!({ unit: { "code": unit, "labels": labels(unit), "convert_from_standard": [{ "operator": "mul", "value": "1" }], "symbol": "u" } });
        let document = json!({ "code": family, "labels": labels(family), "standard_unit_code": unit, "units": units });
        fixed.push((R::MeasurementFamilies, family.to_owned(), document));
    }
    let family = json!({ "code": "packshots", "labels": labels("packshots"), "attribute_as_main_media": "media" });
    fixed.push((R::AssetFamilies, "packshots".to_owned(), family));
    fixed.push((R::ReferenceEntities, "designer".to_owned(), json!({ "code": "designer", "labels": labels("designer") })));
    fixed
}

fn labels(text: &str) -> Value {
    json!({ "en_US": text, "fr_FR": format!("{text} é/à") })
}

fn attribute(code: &str, kind: &str, group: &str, localizable: bool, scopable: bool) -> Value {
    let is_metric = kind == "pim_catalog_metric";
    json!({
        "code": code, "type": kind, "group": group, "localizable": localizable, "scopable": scopable, "unique": code == "sku",
        "sort_order": 0, "labels": labels(code), "useable_as_grid_filter": true, "available_locales": [],
        "metric_family": is_metric.then_some("Weight"), "default_metric_unit": is_metric.then_some("KILOGRAM"),
        "decimals_allowed": is_metric, "reference_data_name": (code == "packshots").then_some("packshots"),
        "is_main_identifier": code == "sku",
    })
}

fn family_code(number: u64) -> String {
    format!("family_{number}")
}

fn family(number: u64) -> (String, Value) {
    let code = family_code(number);
    let attributes: Vec<&str> = ATTRIBUTES.iter().map(|attribute| attribute.0).collect();
    let requirements: Map<String, Value> = CHANNELS.iter().map(|(channel, _)| ((*channel).to_owned(), json!(["sku", "name"]))).collect();
    let document = json!({
        "code": code, "attributes": attributes, "attribute_as_label": "name", "attribute_as_image": "picture",
        "attribute_requirements": requirements, "labels": labels(&code),
    });
    (code, document)
}

fn family_variants(family: &str) -> [Value; 2] {
    let set = |level: u64, axis: &str, attributes: &[&str]| {
        let all: Vec<&str> = [axis].into_iter().chain(attributes.iter().copied()).collect();
        json!({ "level": level, "axes": [axis], "attributes": all })
    };
    let by_size = format!("{family}_by_size");
    let by_both = format!("{family}_by_color_size");
    [
        json!({ "code": by_size, "labels": labels(&by_size), "variant_attribute_sets": [set(1, "size", &OF_VARIANTS)] }),
        json!({
            "code": by_both, "labels": labels(&by_both),
            "variant_attribute_sets": [set(1, "color", &["picture", "packshots"]), set(2, "size", &OF_VARIANTS)],
        }),
    ]
}

/// A product of a family, simple or below a model; its key is chosen when it is added.
pub(super) fn draft_product(world: &World, dice: &mut Dice, family: &str, parent: Option<&str>) -> Value {
    let without_family = parent.is_none() && dice.happens(0.05);
    let identifier = (!dice.happens(if without_family { 0.5 } else { 0.03 })).then_some("");
    json!({
        "identifier": identifier, "enabled": dice.happens(0.9), "family": (!without_family).then_some(family), "parent": parent,
        "categories": categories(world, dice), "groups": [], "associations": associations(world, dice),
    })
}

/// A model; the family variant is that of its root.
pub(super) fn draft_model(world: &World, dice: &mut Dice, family: &str, two_levels: bool, parent: Option<&str>) -> Value {
    let variant = if two_levels { "by_color_size" } else { "by_size" };
    json!({
        "family": family, "family_variant": format!("{family}_{variant}"), "parent": parent,
        "categories": categories(world, dice), "associations": associations(world, dice),
    })
}

fn categories(world: &World, dice: &mut Dice) -> Vec<String> {
    let mut codes: Vec<String> = (0..dice.below(3)).map(|_| format!("category_{}", 1 + dice.below(10))).collect();
    codes.retain(|code| world.get(R::Categories, code).is_some());
    codes.sort();
    codes.dedup();
    codes
}

fn associations(world: &World, dice: &mut Dice) -> Value {
    if !dice.happens(0.1) {
        return json!({});
    }
    let product = invent::uuid(world.seed, 1 + dice.below(ANCHORS));
    let products: Vec<String> = if world.get(R::Products, &product).is_some() { vec![product] } else { Vec::new() };
    json!({ "X_SELL": { "products": products, "product_models": [], "groups": [] } })
}

/// A new record of a kind that refers to what is seeded; models and products are root models and simple products.
pub(super) fn draft(world: &World, dice: &mut Dice, resource: R) -> Value {
    let label = invent::words(dice, 2);
    let family = family_code(1 + dice.below(4));
    match resource {
        R::Products => draft_product(world, dice, &family, None),
        R::ProductModels => draft_model(world, dice, &family, false, None),
        R::Families => {
            json!({ "attributes": ["sku", "name"], "attribute_as_label": "name", "attribute_as_image": null, "attribute_requirements": {}, "labels": labels(&label) })
        }
        R::FamilyVariants => {
            json!({ "labels": labels(&label), "variant_attribute_sets": [{ "level": 1, "axes": ["size"], "attributes": ["size", "sku"] }] })
        }
        R::Attributes => attribute("", "pim_catalog_text", "other", false, false),
        R::AttributeOptions => json!({ "attribute": "color", "sort_order": 99, "labels": labels(&label) }),
        R::AttributeGroups => json!({ "sort_order": 9, "attributes": [], "labels": labels(&label) }),
        R::Categories => json!({ "parent": "master", "labels": labels(&label) }),
        R::Channels => {
            json!({ "currencies": ["EUR"], "locales": ["en_US"], "category_tree": "master", "conversion_units": {}, "labels": labels(&label) })
        }
        R::Locales => json!({ "enabled": false }),
        R::Currencies => json!({ "enabled": false, "label": label }),
        R::AssociationTypes => json!({ "labels": labels(&label), "is_quantified": false, "is_two_way": false }),
        R::MeasurementFamilies => {
            json!({ "labels": labels(&label), "standard_unit_code": "UNIT", "units": { "UNIT": { "code": "UNIT", "labels": {}, "convert_from_standard": [], "symbol": "u" } } })
        }
        R::AssetFamilies | R::ReferenceEntities => json!({ "labels": labels(&label) }),
        R::Assets | R::ReferenceEntityRecords => json!({ "values": { "label": [{ "locale": "en_US", "channel": null, "data": label }] } }),
    }
}

/// Adds a seeded record: as old as the dice say; its key.
fn add(world: &mut World, dice: &mut Dice, resource: R, key: Option<&str>, document: Value, now_s: i64) -> String {
    let age = 2 * DAY_S + i64::try_from(dice.below(700 * 86_400)).unwrap_or(0);
    let since = i64::try_from(dice.below(u64::try_from(age - DAY_S).unwrap_or(1))).unwrap_or(0);
    let key = key.map_or_else(|| new_key(world, resource, ""), ToOwned::to_owned);
    let mut record = record(resource, &key, document, now_s - age);
    record.updated_s += since;
    world.put(resource, &key, record, now_s * 1_000_000);
    key
}

/// A key that nobody has. Codes of what is made later begin with `new_`: only such structure is ever deleted.
pub(super) fn new_key(world: &mut World, resource: R, prefix: &str) -> String {
    let number = world.next_number(resource);
    if resource == R::Products {
        return invent::uuid(world.seed, number);
    }
    match resource {
        R::FamilyVariants => format!("family_1/{prefix}variant_{number}"),
        R::AttributeOptions => format!("color/{prefix}option_{number}"),
        R::Assets => format!("packshots/{prefix}packshot_{number}"),
        R::ReferenceEntityRecords => format!("designer/{prefix}designer_{number}"),
        R::ProductModels => format!("{prefix}model_{number}"),
        R::Categories => format!("{prefix}category_{number}"),
        _ => format!("{prefix}{}_{number}", resource.spec().name.replace('-', "_")),
    }
}

/// The record of a document, which gets its code, and a product its identifier.
pub(super) fn record(resource: R, key: &str, mut document: Value, at_s: i64) -> Record {
    if resource != R::Products {
        document["code"] = super::resource::code(key).into();
    } else if document["identifier"] == json!("") {
        document["identifier"] = format!("SKU/{:010x}", invent::hash(key) & 0xff_ffff_ffff).into();
    }
    let document = document.as_object().cloned().unwrap_or_default();
    Record { created_s: at_s, updated_s: at_s, document, ..Record::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_hold_together_and_the_seed_repeats() {
        let (mut world, mut again) = (World::new(3), World::new(3));
        seed(&mut world, 1_000, 1_790_000_000);
        seed(&mut again, 1_000, 1_790_000_000);
        for resource in R::all() {
            assert!(world.len(resource) > 0, "{}", resource.spec().name);
            for ((key, record), (twin_key, twin)) in world.live(resource).zip(again.live(resource)) {
                assert_eq!((key, &record.document), (twin_key, &twin.document));
                assert!(record.created_s <= record.updated_s && record.updated_s < 1_790_000_000);
            }
        }
        assert!((1_000..1_020).contains(&world.len(R::Products)), "{}", world.len(R::Products));
        let variants = world.live(R::Products).filter(|(_, product)| !product.text("parent").is_empty());
        let mut n_variants = 0;
        for (key, variant) in variants {
            n_variants += 1;
            let model = world.get(R::ProductModels, variant.text("parent")).unwrap_or_else(|| panic!("{key} has no model"));
            assert_eq!(model.text("family"), variant.text("family"));
            let of_family = format!("{}/{}", model.text("family"), model.text("family_variant"));
            assert!(world.get(R::FamilyVariants, &of_family).is_some(), "{of_family}");
        }
        assert!(n_variants > 500, "{n_variants}");
        assert!(world.live(R::Products).any(|(_, product)| product.document["identifier"].is_null()));
    }
}
