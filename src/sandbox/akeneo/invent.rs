//! Values of products and models that nobody ever set: a function of the seed, the owner's key and the attribute.

use serde_json::{Value, json};

use super::world::Record;
use crate::sandbox::dice::{Dice, happens, mix};

/// Channels and their locales.
pub(super) const CHANNELS: [(&str, &[&str]); 3] =
    [("ecommerce", &["en_US", "fr_FR", "de_DE"]), ("print", &["en_US"]), ("mobile", &["fr_FR"])];
/// Activated locales.
pub(super) const LOCALES: [&str; 3] = ["en_US", "fr_FR", "de_DE"];
/// Codes of assets and records that are seeded and may be linked: `packshot_1` to `packshot_8`.
pub(super) const LINKED: u64 = 8;

const WORDS: [&str; 12] = ["chaise", "Zażółć", "lamp", "50/50", "<R&D>", "\"mini\"", "oak", "été", "steel", "gamme", "Größe", "set"];
const COLOURS: [&str; 8] = ["red", "blue", "green", "black", "white", "oak", "grey", "yellow"];
const SIZES: [&str; 6] = ["xs", "s", "m", "l", "xl", "xxl"];
const FEATURES: [&str; 5] = ["foldable", "washable", "outdoor", "handmade", "stackable"];

/// A text as a number.
pub(super) fn hash(text: &str) -> u64 {
    text.bytes().fold(0, |hash, byte| mix(&[hash, u64::from(byte)]))
}

/// A uuid of version 4 of a number.
pub(super) fn uuid(seed: u64, number: u64) -> String {
    let high = (mix(&[seed, number]) & !0xf000) | 0x4000;
    let low = (mix(&[seed, number, 1]) & (u64::MAX >> 2)) | (1 << 63);
    format!("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", high >> 32, (high >> 16) & 0xffff, high & 0xffff, low >> 48, low & 0xffff_ffff_ffff)
}

/// The codes of a select attribute's first options.
pub(super) fn options(attribute: &str) -> &'static [&'static str] {
    match attribute {
        "color" => &COLOURS,
        "size" => &SIZES,
        "features" => &FEATURES,
        _ => &[],
    }
}

/// Some words.
pub(super) fn words(dice: &mut Dice, count: u64) -> String {
    let words: Vec<&str> = (0..count).map(|_| WORDS[dice.below(WORDS.len() as u64) as usize]).collect();
    words.join(" ")
}

/// The values of an attribute; none where it was left empty.
pub(super) fn values(seed: u64, owner: &str, attribute: &Record) -> Option<Vec<Value>> {
    let code = attribute.text("code");
    let base = mix(&[seed, hash(owner), hash(code)]);
    if !matches!(code, "name" | "color" | "size") && !happens(base, 0.75) {
        return None;
    }
    let is = |name: &str| attribute.document.get(name) == Some(&Value::Bool(true));
    let kind = attribute.text("type");
    let places: Vec<(Value, Value)> = match (is("localizable"), is("scopable")) {
        (false, false) => vec![(Value::Null, Value::Null)],
        (true, false) => LOCALES.iter().map(|locale| ((*locale).into(), Value::Null)).collect(),
        (false, true) => CHANNELS.iter().map(|(channel, _)| (Value::Null, (*channel).into())).collect(),
        (true, true) => {
            CHANNELS.iter().flat_map(|(channel, locales)| locales.iter().map(|locale| ((*locale).into(), (*channel).into()))).collect()
        }
    };
    let mut dice = Dice::new(base);
    let value = |(locale, scope): (Value, Value)| json!({ "locale": locale, "scope": scope, "data": data(&mut dice, kind, code) });
    Some(places.into_iter().map(value).collect())
}

fn data(dice: &mut Dice, kind: &str, code: &str) -> Value {
    let amount = |dice: &mut Dice| format!("{}.{:02}", dice.below(900), dice.below(100));
    match kind {
        "pim_catalog_textarea" => format!("{}\n{}", words(dice, 6), words(dice, 9)).into(),
        "pim_catalog_price_collection" => {
            json!([{ "amount": amount(dice), "currency": "EUR" }, { "amount": amount(dice), "currency": "USD" }])
        }
        "pim_catalog_simpleselect" => {
            let options = options(code);
            options[dice.below(options.len() as u64) as usize].into()
        }
        "pim_catalog_multiselect" => {
            let wanted = dice.throw();
            options(code).iter().enumerate().filter(|(index, _)| wanted >> index & 1 == 1).map(|(_, option)| Value::from(*option)).collect()
        }
        "pim_catalog_boolean" => dice.happens(0.5).into(),
        "pim_catalog_number" => dice.below(10_000).into(),
        "pim_catalog_metric" => json!({ "amount": format!("{}00", amount(dice)), "unit": "KILOGRAM" }),
        "pim_catalog_date" => {
            let (month, day) = (1 + dice.below(12), 1 + dice.below(28));
            format!("20{:02}-{month:02}-{day:02}T00:00:00+00:00", 20 + dice.below(8)).into()
        }
        "pim_catalog_image" => {
            let number = dice.throw();
            let folder = |place: u64| number >> (60 - 4 * place) & 0xf;
            format!("{:x}/{:x}/{:x}/{:x}/{number:016x}_front.jpg", folder(0), folder(1), folder(2), folder(3)).into()
        }
        "pim_catalog_asset_collection" => (0..1 + dice.below(2)).map(|_| format!("packshot_{}", 1 + dice.below(LINKED))).collect(),
        "akeneo_reference_entity" => format!("designer_{}", 1 + dice.below(LINKED)).into(),
        _ => words(dice, 3).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_invented_repeats_and_differs() {
        let document = json!({ "code": "name", "type": "pim_catalog_text", "localizable": true, "scopable": false });
        let attribute = Record { document: document.as_object().cloned().unwrap_or_default(), ..Record::default() };
        let first = values(1, "a", &attribute).expect("a name is always there");
        assert_eq!((first.len(), &first[1]["locale"], &first[1]["scope"]), (3, &json!("fr_FR"), &Value::Null));
        assert_eq!(Some(&first), values(1, "a", &attribute).as_ref());
        assert_ne!(Some(&first), values(1, "b", &attribute).as_ref());
        let made = uuid(1, 1);
        assert_eq!((made.len(), &made[14..15]), (36, "4"));
        assert!(matches!(&made[19..20], "8" | "9" | "a" | "b"), "{made}");
        assert_ne!(made, uuid(1, 2));
    }
}
