//! Addresses and logins.

use super::*;

fn since(text: &str) -> ListQuery<'static> {
    ListQuery { since: Timestamp::parse(text), ..page(None) }
}

fn list(akeneo: &Akeneo, name: &str, query: ListQuery<'_>) -> String {
    akeneo.list(&resource(akeneo, name), query).url
}

fn pair(url: &str, name: &str) -> Option<String> {
    let url = url::Url::parse(url).expect("a URL");
    url.query_pairs().find(|(n, _)| n == name).map(|(_, value)| value.into_owned())
}

#[test]
fn the_filter_of_products_is_in_the_servers_zone_and_all_others_are_instants() {
    let asked = since("2026-03-14T10:15:30Z");
    let product = |zone_seconds| {
        let akeneo = Akeneo::new(Options { zone_seconds, ..options() }).expect("known resources");
        pair(&list(&akeneo, "products", asked), "search")
    };
    let expected = |value: &str| Some(format!(r#"{{"updated":[{{"operator":">","value":"{value}"}}]}}"#));
    assert_eq!(product(0), expected("2026-03-14 10:15:29"), "later than the second before: the bound itself is asked for");
    assert_eq!(product(3600), expected("2026-03-14 11:15:29"));
    assert_eq!(product(-36_000), expected("2026-03-14 00:15:29"));
    for name in ["families", "attributes", "attribute-groups", "categories"] {
        assert_eq!(pair(&list(&akeneo(), name, asked), "search"), expected("2026-03-14T10:15:29Z"), "{name}");
    }
    for name in ["channels", "locales", "currencies", "association-types", "measurement-families"] {
        assert_eq!(pair(&list(&akeneo(), name, asked), "search"), None, "{name}");
        assert_eq!(resource(&akeneo(), name).mode, Mode::Sweep, "{name}");
    }
}

#[test]
fn keys_are_asked_for_together_where_the_upstream_can() {
    let akeneo = akeneo();
    let keys = [key("a\"b"), key("2+3/4")];
    for (name, path, property) in [
        ("products", "products-uuid", "uuid"),
        ("product-models", "product-models", "identifier"),
        ("families", "families", "code"),
        ("categories", "categories", "code"),
    ] {
        let request = akeneo.fetch(&resource(&akeneo, name), &keys, By::Bulk);
        assert!(request.url.starts_with(&format!("https://pim.example.test/api/rest/v1/{path}?limit=100&search=")), "{}", request.url);
        let search = format!(r#"{{"{property}":[{{"operator":"IN","value":["a\"b","2+3/4"]}}]}}"#);
        assert_eq!(pair(&request.url, "search"), Some(search));
    }
    for name in ["channels", "family-variants", "attribute-options", "assets", "reference-entity-records", "measurement-families"] {
        assert_eq!(resource(&akeneo, name).bulk, 1, "{name}");
    }
    let by_identifier = Akeneo::new(Options { product_key: ProductKey::Identifier, ..options() }).expect("known resources");
    let request = by_identifier.fetch(&resource(&by_identifier, "products"), &keys, By::Bulk);
    assert!(request.url.contains("/products?") && pair(&request.url, "search").expect("a search").starts_with("{\"identifier\""));
}

#[test]
fn single_records_are_asked_for_by_escaped_paths() {
    let akeneo = akeneo();
    for (name, text, path) in [
        ("products", "u-1", "products-uuid/u-1"),
        ("product-models", "a/b ?#%é", "product-models/a%2Fb%20%3F%23%25%C3%A9"),
        ("attribute-options", "color/red", "attributes/color/options/red"),
        ("family-variants", "shoes/by_size", "families/shoes/variants/by_size"),
        ("assets", "pack/p 1", "asset-families/pack/assets/p%201"),
        ("reference-entity-records", "brand/b", "reference-entities/brand/records/b"),
        ("measurement-families", "Area", "measurement-families"),
    ] {
        let url = akeneo.fetch(&resource(&akeneo, name), &[key(text)], By::Key).url;
        assert_eq!(url, format!("https://pim.example.test/api/rest/v1/{path}"));
        assert_eq!(url::Url::parse(&url).expect("a URL").as_str(), url, "in its normal form");
    }
}

#[test]
fn as_many_keys_go_together_as_an_address_holds() {
    let akeneo = akeneo();
    let products = resource(&akeneo, "products");
    let of = |n: usize, text: &str| (0..n).map(|at| key(&format!("{at:03}{text}"))).collect::<Vec<_>>();
    for keys in [of(100, &"x".repeat(33)), of(100, &"é".repeat(60)), of(100, &"/".repeat(200)), of(300, "x"), of(1, &"é".repeat(250))] {
        let n = akeneo.fitting(&products, &keys);
        assert!((1..=100).contains(&n));
        let url = akeneo.fetch(&products, &keys[..n], By::Bulk).url;
        assert!(url.len() < 7_000, "{n} keys: {} bytes", url.len());
    }
    assert_eq!(akeneo.fitting(&products, &of(100, &"x".repeat(33))), 100, "a hundred uuids go into one");
    assert_eq!(akeneo.fitting(&products, &[]), 1);
}

#[test]
fn the_projection_goes_along_where_the_upstream_takes_it_as_we_do() {
    let set = |locales: &[&str]| ResourceOptions {
        scope: Some("ecommerce".into()),
        locales: locales.iter().map(|text| (*text).to_owned()).collect(),
        attributes: vec!["name".into(), "sku".into()],
        ..ResourceOptions::default()
    };
    let url = list(&with("products", set(&["fr_FR", "en_US"])), "products", page(None));
    let asked = ["scope", "locales", "attributes"].map(|name| pair(&url, name));
    assert_eq!(asked, [Some("ecommerce".into()), Some("fr_FR,en_US".into()), Some("name,sku".into())]);
    let url = list(&with("products", set(&[])), "products", page(None));
    assert_eq!((pair(&url, "scope"), pair(&url, "locales")), (None, None), "a channel alone hides locales that a single read shows");
    let one = with("products", set(&["fr_FR"]));
    assert!(!one.fetch(&resource(&one, "products"), &[key("u")], By::Key).url.contains('?'));
}

#[test]
fn pages_are_walked_by_key_or_number_and_halved_where_that_is_harmless() {
    let akeneo = akeneo();
    let url = list(&akeneo, "products", ListQuery { halvings: 2, ..page(Some("u&1")) });
    let asked = ["pagination_type", "limit", "search_after"].map(|name| pair(&url, name));
    assert_eq!(asked, [Some("search_after".into()), Some("25".into()), Some("u&1".into())]);
    assert_eq!(pair(&list(&akeneo, "products", ListQuery { halvings: 99, ..page(None) }), "limit"), Some("1".into()));
    let url = list(&akeneo, "families", ListQuery { halvings: 2, ..page(Some("3")) });
    assert_eq!((pair(&url, "page"), pair(&url, "limit")), (Some("3".into()), Some("100".into())));
    assert_eq!(list(&akeneo, "measurement-families", page(None)), "https://pim.example.test/api/rest/v1/measurement-families");
}

#[test]
fn a_login_carries_what_it_must_and_shows_none_of_it() {
    let akeneo = akeneo();
    let texts = ["client-secret".to_owned(), "hunter2".to_owned()];
    let login = akeneo.login(&texts, None).expect("a login");
    assert_eq!((login.0.method.as_str(), login.0.url.as_str()), ("POST", "https://pim.example.test/api/oauth/v1/token"));
    assert!(login.0.declared_write);
    let body: serde_json::Value = serde_json::from_slice(login.0.body.as_ref().expect("a body")).expect("JSON");
    assert_eq!(body, serde_json::json!({ "grant_type": "password", "username": "shop_1234", "password": "hunter2" }));
    assert!(!format!("{login:?}").contains("hunter2") && !format!("{login:?}").contains("Basic"), "{login:?}");
    let refresh = akeneo.login(&texts, Some("again")).expect("a login").0.body.expect("a body");
    assert_eq!(&refresh[..], br#"{"grant_type":"refresh_token","refresh_token":"again"}"#);
    assert_eq!(akeneo.login(&[], None), None);
    let app = Akeneo::new(Options { auth: Auth::App, ..options() }).expect("known resources");
    assert!(app.login_needs().is_empty() && app.login(&texts, None).is_none());
    assert_eq!(app.authorize(&app.nothing(), "token"), [("authorization".to_owned(), "Bearer token".to_owned())]);
}

#[test]
fn what_a_login_answers_is_a_session_or_a_reason() {
    let akeneo = akeneo();
    let session =
        akeneo.read_login(&answer(200, r#"{"access_token":"t","expires_in":3600,"token_type":"bearer","scope":null,"refresh_token":"r"}"#));
    let expected = Session { token: "t".into(), refresh: Some("r".into()), lasts: Some(Duration::from_secs(3600)) };
    assert_eq!(session, Ok(expected));
    let bare = akeneo.read_login(&answer(200, r#"{"access_token":"t"}"#)).expect("a session");
    assert_eq!((bare.refresh, bare.lasts), (None, None));
    for status in [400, 401, 403, 422] {
        assert_eq!(akeneo.read_login(&answer(status, "")), Err(ReadError::Denied(status)));
    }
    assert_eq!(akeneo.read_login(&answer(429, "")), Err(ReadError::RateLimited));
    assert_eq!(akeneo.read_login(&answer(502, "<html>")), Err(ReadError::Server(502)));
    assert_eq!(akeneo.read_login(&answer(302, "")), Err(ReadError::Refused(302)));
    for body in ["", "{}", r#"{"access_token":""}"#, r#"{"access_token":1}"#, "<html>"] {
        assert!(matches!(akeneo.read_login(&answer(200, body)), Err(ReadError::Malformed(_))), "{body}");
    }
}
