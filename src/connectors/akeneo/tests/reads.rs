//! Records, pages and the walk through nested collections.

use super::*;
use crate::connectors::Record;

const PRODUCT: &str = r#"{"_links":{"self":{"href":"https://x/1"}},"uuid":"u-1","enabled":true,"family":"shoes","categories":["summer"],"groups":[],
  "parent":"m-1","values":{"name":[{"locale":"fr_FR","scope":null,"data":"N"},{"locale":"de_DE","scope":null,"data":"D"}],
  "price":[{"locale":null,"scope":"ecommerce","data":[{"amount":"1.10","currency":"EUR"}]},{"locale":null,"scope":"print","data":[]}],
  "photo":[{"locale":null,"scope":null,"data":"a/b.jpg","_links":{"download":{"href":"https://x/f"}}}],"cost_net":[{"locale":null,"scope":null,"data":1}]},
  "created":"2026-01-01T10:00:00+00:00","updated":"2026-01-01T11:00:01+01:00","associations":[],"quantified_associations":[],"metadata":[]}"#;

fn read(akeneo: &Akeneo, name: &str, asked: Asked<'_>, body: &str) -> Page {
    akeneo.read(&resource(akeneo, name), asked, &answer(200, body)).unwrap_or_else(|error| panic!("{name}: {error}: {body}"))
}

/// The one record of a read by key.
fn alone(akeneo: &Akeneo, name: &str, text: &str, body: &str) -> Record {
    let mut page = read(akeneo, name, Asked::Keys(&[key(text)], By::Key), body);
    page.records.remove(0).unwrap_or_else(|unreadable| panic!("{unreadable}"))
}

fn hal(items: &str, next: Option<&str>) -> String {
    let next = next.map(|href| format!(r#","next":{{"href":"{href}"}}"#)).unwrap_or_default();
    format!(r#"{{"_links":{{"self":{{"href":"https://pim.example.test/x"}}{next}}},"_embedded":{{"items":[{items}]}}}}"#)
}

#[test]
fn a_product_is_read_whole_without_links() {
    let record = alone(&akeneo(), "products", "u-1", PRODUCT);
    assert_eq!((record.key.as_str(), record.parent.as_ref().map(Key::as_str), record.in_scope), ("u-1", Some("m-1"), true));
    let version = record.version.expect("a version");
    assert_eq!((&*version.field, version.text().as_str(), version.precision_us()), ("updated", "2026-01-01T10:00:01.000000Z", 1_000_000));
    assert_eq!(record.changed_at, version.at());
    let text = &record.document.text;
    assert!(!text.contains("_links") && !text.contains("href"), "{text}");
    assert!(!text.contains("cost_net"), "excluded");
    assert!(text.contains(r#""amount":"1.10""#), "numbers in texts stay as they are");
    let orphan = alone(&akeneo(), "products", "u-1", &PRODUCT.replace("\"m-1\"", "null"));
    assert_eq!(orphan.parent, None);
}

#[test]
fn empty_maps_are_one_however_php_writes_them() {
    let akeneo = akeneo();
    for (name, text) in [("products", PRODUCT), ("product-models", &PRODUCT.replace("uuid", "code"))] {
        for field in ["associations", "quantified_associations", "metadata"] {
            let object = text.replace(&format!("\"{field}\":[]"), &format!("\"{field}\":{{}}"));
            assert_ne!(object, text);
            assert_eq!(alone(&akeneo, name, "u-1", &object).document.text, alone(&akeneo, name, "u-1", text).document.text, "{field}");
        }
    }
    let (list, map) = (r#"{"uuid":"u","values":[]}"#, r#"{"uuid":"u","values":{}}"#);
    assert_eq!(alone(&akeneo, "products", "u", list).document, alone(&akeneo, "products", "u", map).document);
    let (list, map) = (
        r#"{"code":"f","labels":[],"attributes":[],"attribute_requirements":[]}"#,
        r#"{"code":"f","labels":{},"attributes":[],"attribute_requirements":{}}"#,
    );
    let family = alone(&akeneo, "families", "f", list).document;
    assert_eq!(family, alone(&akeneo, "families", "f", map).document);
    assert!(family.text.contains(r#""attributes":[]"#), "a list stays one");
}

#[test]
fn stamps_scores_and_drafts_are_no_change() {
    let akeneo = akeneo();
    let hash = |text: &str| alone(&akeneo, "products", "u-1", text).document.hash;
    let with_scores = PRODUCT.replace("\"groups\"", r#""quality_scores":[{"data":"A"}],"completenesses":[{"data":10}],"groups""#);
    assert_eq!(hash(&with_scores), hash(PRODUCT));
    assert_eq!(hash(&PRODUCT.replace("11:00:01", "11:00:02")), hash(PRODUCT));
    assert_eq!(hash(&PRODUCT.replace("\"metadata\":[]", r#""metadata":{"workflow_status":"draft"}"#)), hash(PRODUCT));
    assert_ne!(hash(&PRODUCT.replace("1.10", "1.20")), hash(PRODUCT));
}

#[test]
fn every_read_of_a_projection_shows_the_same() {
    let set = ResourceOptions {
        scope: Some("ecommerce".into()),
        locales: vec!["fr_FR".into()],
        attributes: vec!["name".into(), "price".into()],
        ..ResourceOptions::default()
    };
    let akeneo = with("products", set);
    // A list carries the wishes, a single read cannot.
    let listed = r#""values":{"name":[{"locale":"fr_FR","scope":null,"data":"N"}],"price":[{"locale":null,"scope":"ecommerce","data":[{"amount":"1.10","currency":"EUR"}]}]}"#;
    let (start, end) = (PRODUCT.find("\"values\"").expect("values"), PRODUCT.find("\"created\"").expect("created"));
    let listed = format!("{}{listed},{}", &PRODUCT[..start], &PRODUCT[end..]);
    let page = read(&akeneo, "products", Asked::Page(page(None)), &hal(&listed, None));
    assert_eq!(page.records[0].as_ref().expect("readable").document, alone(&akeneo, "products", "u-1", PRODUCT).document);
}

#[test]
fn what_is_not_relevant_is_out_of_scope() {
    let in_scope = |keep: Keep| {
        let akeneo = with("products", ResourceOptions { keep, ..ResourceOptions::default() });
        alone(&akeneo, "products", "u-1", PRODUCT).in_scope
    };
    assert!(in_scope(Keep { families: vec!["sh*".into()], categories: vec!["summer".into()], enabled: Some(true), ..Keep::default() }));
    assert!(!in_scope(Keep { families: vec!["hats".into()], ..Keep::default() }));
    assert!(!in_scope(Keep { categories: vec!["winter".into()], ..Keep::default() }));
    assert!(!in_scope(Keep { enabled: Some(false), ..Keep::default() }));
}

#[test]
fn a_next_link_is_a_key_or_number_and_never_followed() {
    let akeneo = akeneo();
    let next = |name: &str, href: &str| {
        let body = hal("", Some(href));
        akeneo.read(&resource(&akeneo, name), Asked::Page(page(None)), &answer(200, &body)).map(|page| page.next)
    };
    let api = "https://pim.example.test/api/rest/v1";
    assert_eq!(next("products", &format!("{api}/products-uuid?limit=100&search_after=u-9%2B")), Ok(Some("u-9+".into())));
    assert_eq!(next("families", &format!("{api}/families?page=2&limit=100")), Ok(Some("2".into())));
    // Behind a proxy the PIM takes itself for another host; what counts is rebuilt on ours.
    assert_eq!(next("products", "http://10.0.0.1:8080/api/rest/v1/products-uuid?search_after=u"), Ok(Some("u".into())));
    assert_eq!(next("products", "/api/rest/v1/products-uuid?search_after=u"), Ok(Some("u".into())));
    for hostile in [
        "https://evil.example/steal?search_after=u",
        "https://pim.example.test/api/rest/v1/product-models?search_after=u",
        "https://pim.example.test/api/rest/v1/products-uuid/../../../x?search_after=u",
        "https://pim.example.test/api/rest/v1/products-uuid",
        "https://pim.example.test/api/rest/v1/products-uuid?page=2",
        "https://pim.example.test/api/rest/v1/products-uuid?search_after=",
        "file:///api/rest/v1/products-uuid?search_after=u",
        "javascript:alert(1)",
        "//evil.example?search_after=u",
        "https://[::1/api/rest/v1/products-uuid?search_after=u",
    ] {
        assert!(matches!(next("products", hostile), Err(ReadError::Malformed(_))), "{hostile}");
    }
    for none in [
        r#"{"_embedded":{"items":[]}}"#,
        r#"{"_links":[],"_embedded":{"_items":[]}}"#,
        r#"{"_links":{"next":null},"_embedded":{"items":[]}}"#,
    ] {
        assert_eq!(read(&akeneo, "products", Asked::Page(page(None)), none), Page::default(), "{none}");
    }
}

#[test]
fn a_nested_walk_keeps_its_place_in_the_cursor() {
    let akeneo = akeneo();
    let options = resource(&akeneo, "attribute-options");
    let api = "https://pim.example.test/api/rest/v1";
    let select = |code: &str, kind: &str| format!(r#"{{"code":"{code}","type":"pim_catalog_{kind}"}}"#);
    let option = |code: &str, attribute: &str| format!(r#"{{"code":"{code}","attribute":"{attribute}","labels":[]}}"#);
    // What each address answers.
    let answers = |url: &str| {
        let path = url.strip_prefix(api).expect("our own").split('&').next().unwrap_or_default();
        match path {
            "/attributes?page=1" => hal(
                &[select("color", "simpleselect"), select("name", "text"), select("gone", "multiselect")].join(","),
                Some(&format!("{api}/attributes?page=2&limit=50")),
            ),
            "/attributes?page=2" => hal(&select("weight", "metric"), Some(&format!("{api}/attributes?page=3&limit=50"))),
            "/attributes?page=3" => hal(&select("size", "simpleselect"), None),
            "/attributes/color/options?page=1" => {
                hal(&[option("red", "color"), "{}".into()].join(","), Some(&format!("{api}/attributes/color/options?page=2&limit=100")))
            }
            "/attributes/color/options?page=2" => hal("", None),
            "/attributes/size/options?page=1" => hal(&option("xl", "size"), None),
            _ => String::new(),
        }
    };
    let (mut cursor, mut asked, mut keys, mut longest) = (None::<String>, Vec::new(), Vec::new(), 0);
    for _ in 0..20 {
        let query = page(cursor.as_deref());
        let request = akeneo.list(&options, query);
        let body = answers(&request.url);
        asked.push(request.url.trim_start_matches(api).split('&').next().unwrap_or_default().to_owned());
        let response = if body.is_empty() { answer(404, "{}") } else { answer(200, &body) };
        let read = akeneo.read(&options, Asked::Page(query), &response).expect("a page");
        keys.extend(
            read.records.iter().map(|record| record.as_ref().map(|one| one.key.to_string()).unwrap_or_else(|bad| bad.reason.clone())),
        );
        cursor = read.next;
        longest = longest.max(cursor.as_ref().map_or(0, String::len));
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(keys, ["color/red", "the record has no usable code", "size/xl"]);
    let pages = [
        "/attributes?page=1",
        "/attributes/color/options?page=1",
        "/attributes/color/options?page=2",
        "/attributes/gone/options?page=1",
        "/attributes?page=2",
        "/attributes?page=3",
        "/attributes/size/options?page=1",
    ];
    assert_eq!((asked, cursor), (pages.map(str::to_owned).to_vec(), None));
    assert!(longest < 100, "{longest} bytes");
    let strange = akeneo.read(&options, Asked::Page(page(Some("{\"l\":1}"))), &answer(200, &hal("", None)));
    assert_eq!(strange, Err(ReadError::CursorRefused));
}

#[test]
fn a_nested_record_says_what_it_stands_below() {
    let akeneo = akeneo();
    for (name, text, field) in [
        ("family-variants", "shoes/by_size", r#""family":"shoes""#),
        ("assets", "pack/by_size", r#""asset_family":"pack""#),
        ("reference-entity-records", "brand/by_size", r#""reference_entity":"brand""#),
    ] {
        let record = alone(&akeneo, name, text, r#"{"code":"by_size"}"#);
        assert_eq!(record.key.as_str(), text);
        assert!(record.document.text.contains(field), "{}", record.document.text);
    }
    for code in [r#""..""#, r#"".""#, r#""""#, "null", "{}"] {
        let keys = [key("pack/x")];
        let page = read(&akeneo, "assets", Asked::Keys(&keys, By::Key), &format!(r#"{{"code":{code}}}"#));
        assert!(page.records[0].is_err(), "{code}");
    }
}

#[test]
fn measurement_families_are_a_bare_list_that_tells_of_each() {
    let akeneo = akeneo();
    let body = r#"[{"code":"Area","labels":[]},{"code":"Length","labels":{}}]"#;
    assert_eq!(read(&akeneo, "measurement-families", Asked::Page(page(None)), body).records.len(), 2);
    assert_eq!(alone(&akeneo, "measurement-families", "Length", body).key.as_str(), "Length");
    let keys = [key("Volume")];
    let gone = akeneo.read(&resource(&akeneo, "measurement-families"), Asked::Keys(&keys, By::Key), &answer(200, body));
    assert_eq!(gone, Err(ReadError::NotFound));
}

#[test]
fn one_unreadable_record_does_not_spoil_its_page() {
    let akeneo = akeneo();
    let items = format!(r#"{PRODUCT},{{"uuid":"u-2","values":{{"x":1,"x":2}}}},{{"identifier":"old"}},{{"uuid":"u-3","parent":"."}}"#);
    let page = read(&akeneo, "products", Asked::Keys(&[], By::Bulk), &hal(&items, None));
    let keys: Vec<_> =
        page.records.iter().map(|record| record.as_ref().map(|one| one.key.clone()).map_err(|bad| bad.key.clone())).collect();
    assert_eq!(keys, [Ok(key("u-1")), Err(Some(key("u-2"))), Err(None), Err(Some(key("u-3")))]);
    assert!(page.records[2].as_ref().expect_err("no uuid").reason.contains("product_key = \"identifier\""));
}

#[test]
fn statuses_become_reasons_once() {
    let akeneo = akeneo();
    let products = resource(&akeneo, "products");
    let since = ListQuery { since: Some(Timestamp(0)), ..page(None) };
    let read = |asked, status, body: &str| akeneo.read(&products, asked, &answer(status, body)).expect_err("a failure");
    let filter = r#"{"code":422,"message":"Filter on property \"updated\" is not supported or does not support operator \">\"."}"#;
    assert_eq!(read(Asked::Page(since), 422, filter), ReadError::Unsupported);
    assert_eq!(read(Asked::Keys(&[], By::Bulk), 422, filter), ReadError::Unsupported);
    assert_eq!(read(Asked::Keys(&[], By::Bulk), 422, "{}"), ReadError::Refused(422));
    assert_eq!(read(Asked::Page(page(None)), 422, filter), ReadError::Refused(422), "nothing was filtered");
    assert_eq!(read(Asked::Page(page(Some("u"))), 422, "{}"), ReadError::CursorRefused);
    let list = Asked::Page(page(None));
    for (status, error) in [
        (404, ReadError::NotFound),
        (401, ReadError::Denied(401)),
        (403, ReadError::Denied(403)),
        (429, ReadError::RateLimited),
        (502, ReadError::Server(502)),
        (302, ReadError::Refused(302)),
    ] {
        assert_eq!(read(list, status, "<html>"), error);
        assert_eq!(read(Asked::Keys(&[], By::Key), status, "<html>"), error);
    }
    for body in ["", "<html>login</html>", "{}", r#"{"_embedded":{}}"#, "[1", "null"] {
        assert!(matches!(read(list, 200, body), ReadError::Malformed(_)), "{body}");
    }
}

#[test]
fn models_stand_above_variants_and_both_have_values() {
    let akeneo = akeneo();
    for (name, view) in [("products", "product_values"), ("product-models", "product_model_values")] {
        let spec = resource(&akeneo, name);
        assert_eq!(spec.parent.as_ref().map(ResourceName::as_str), Some("product-models"));
        assert_eq!(spec.values, Some(ValuesView { name: view.to_owned(), pointer: "/values".to_owned() }));
        assert!(spec.columns.iter().any(|column| column.name == "parent" && column.reference));
    }
    assert_eq!(akeneo.resources().len(), 15);
    assert!(resource(&akeneo, "categories").values.is_none() && resource(&akeneo, "categories").parent.is_none());
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

        #[test]
        fn nothing_that_an_upstream_sends_panics(bytes in prop::collection::vec(any::<u8>(), 0..400), text in "[\\[\\]{}\":,a-z/%.0-9\\\\]{0,80}") {
            let akeneo = akeneo();
            for body in [&bytes[..], text.as_bytes()] {
                let response = Response { body: Bytes::copy_from_slice(body), ..answer(200, "") };
                let keys = Key::new(&text).into_iter().collect::<Vec<_>>();
                for spec in akeneo.resources() {
                    for asked in [Asked::Page(page(None)), Asked::Page(page(Some(&text))), Asked::Keys(&keys, By::Bulk), Asked::Keys(&keys, By::Key)] {
                        let _ = akeneo.read(spec, asked, &response);
                    }
                    let _ = (akeneo.list(spec, page(Some(&text))), akeneo.fetch(spec, &keys, By::Key), akeneo.fetch(spec, &keys, By::Bulk));
                }
                let _ = akeneo.read_login(&response);
                for route in [EVENTS, PLATFORM, NOTIFICATIONS, "other"] {
                    let delivery = Delivery { request: request(route, &[], body), ..delivery(route, "") };
                    let _ = (akeneo.events(&delivery), akeneo.verify(&delivery.request, &[], Timestamp(0)));
                }
            }
        }
    }
}

#[test]
fn a_zone_that_is_not_the_servers_is_told_of() {
    let body = r#"{"_embedded":{"items":[{"uuid":"u-1","updated":"2026-01-01T12:00:00+02:00","values":{}}]}}"#;
    let doubts = |zone_seconds: i32, name: &str| {
        let akeneo = Akeneo::new(Options { zone_seconds, ..options() }).expect("known resources");
        let spec = resource(&akeneo, name);
        akeneo.doubts(&spec, &akeneo.read(&spec, Asked::Page(page(None)), &answer(200, body)).expect("a page"))
    };
    assert!(doubts(0, "products").is_some_and(|doubt| doubt.contains("zone = \"+02:00\"")));
    assert_eq!((doubts(7200, "products"), doubts(3600, "products")), (None, None), "in summer the winter's offset is configured");
    assert_eq!(doubts(0, "channels"), None, "only the filter of products has no zone");
}
