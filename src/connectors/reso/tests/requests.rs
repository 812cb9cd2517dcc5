//! Addresses, logins, and what is asked of senders.

use super::*;

#[test]
fn a_record_is_asked_for_by_its_key_however_it_looks() {
    let reso = reso();
    for (text, path) in
        [("P-1", "Property('P-1')"), ("O'Neill", "Property('O%27%27Neill')"), ("a/b ?#%é", "Property('a%2Fb%20%3F%23%25%C3%A9')")]
    {
        let url = reso.fetch(&resource(&reso, "Property"), &[key(text)], By::Key).url;
        assert_eq!(url, format!("https://mls.example.test/odata/{path}"));
        assert_eq!(url::Url::parse(&url).expect("a URL").as_str(), url, "in its normal form");
    }
    let numeric = with(ResourceOptions { numeric: true, ..ResourceOptions::default() });
    assert!(numeric.fetch(&resource(&numeric, "Property"), &[key("42")], By::Key).url.ends_with("/Property(42)"));
}

#[test]
fn keys_are_asked_for_together_as_many_as_an_address_holds() {
    let reso = reso();
    let property = resource(&reso, "Property");
    let url = reso.fetch(&property, &[key("a"), key("O'N")], By::Bulk).url;
    assert_eq!(pair(&url, "$filter").as_deref(), Some("ListingKey in ('a','O''N')"));
    assert_eq!(pair(&url, "$top").as_deref(), Some("100"));
    let of = |n: usize, text: &str| (0..n).map(|at| key(&format!("{at:03}{text}"))).collect::<Vec<_>>();
    for keys in [of(100, &"x".repeat(30)), of(100, &"é'".repeat(60)), of(300, "x"), of(1, &"é".repeat(250))] {
        let n = reso.fitting(&property, &keys);
        assert!((1..=100).contains(&n));
        assert!(reso.fetch(&property, &keys[..n], By::Bulk).url.len() < 7_000, "{n} keys");
    }
    assert_eq!(reso.fitting(&property, &of(100, &"x".repeat(30))), 100);
    assert_eq!(reso.fitting(&property, &[]), 1);
}

#[test]
fn what_is_selected_holds_what_the_connector_needs_in_every_read() {
    let set = ResourceOptions {
        select: vec!["City".into(), "ListingKey".into()],
        expand: vec!["Media".into()],
        filter: Some("PropertyType eq 'Residential' or City eq 'X'".into()),
        ..ResourceOptions::default()
    };
    let reso = with(set);
    let property = resource(&reso, "Property");
    let urls = [
        reso.fetch(&property, &[key("a")], By::Key).url,
        reso.fetch(&property, &[key("a")], By::Bulk).url,
        reso.list(&property, page(None, None)).url,
        reso.list(&property, page(Some(at("2026-01-01T00:00:00Z")), None)).url,
    ];
    for url in &urls {
        assert_eq!(pair(url, "$select").as_deref(), Some("ListingKey,ModificationTimestamp,City"), "{url}");
        assert_eq!(pair(url, "$expand").as_deref(), Some("Media"));
        assert!(pair(url, "$filter").expect("a filter").ends_with("(PropertyType eq 'Residential' or City eq 'X')"), "{url}");
    }
    assert!(pair(&urls[0], "$filter").expect("a filter").starts_with("ListingKey eq 'a' and ("), "a record alone takes no filter");
    assert_eq!(pair(&urls[2], "$top").as_deref(), Some("200"), "with what comes along pages are smaller");
    let columns: Vec<String> = property.columns.iter().map(|column| column.name.clone()).collect();
    assert_eq!(columns, ["listingkey", "city", "modificationtimestamp"]);
}

#[test]
fn vendors_are_asked_as_they_want_it() {
    let since = Some(at("2026-03-14T04:17:19.999999Z"));
    let grid = of_vendor("mlsgrid", Some("actris"));
    let sweep = list(&grid, "Property", page(None, None));
    assert_eq!(pair(&sweep, "$filter").as_deref(), Some("OriginatingSystemName eq 'actris' and MlgCanView eq true"));
    assert_eq!((pair(&sweep, "$orderby"), pair(&sweep, "$top").as_deref()), (None, Some("1000")));
    let changes = pair(&list(&grid, "Property", page(since, None)), "$filter");
    assert_eq!(changes.as_deref(), Some("OriginatingSystemName eq 'actris' and ModificationTimestamp ge 2026-03-14T04:17:19.999Z"));
    let bulk = grid.fetch(&resource(&grid, "Member"), &[key("a")], By::Bulk).url;
    assert_eq!(pair(&bulk, "$filter").expect("a filter").matches("OriginatingSystemName eq").count(), 1);

    let bridge = of_vendor("bridge", None);
    let changes = list(&bridge, "Property", page(since, None));
    assert!(changes.starts_with("https://mls.example.test/odata/Property/replication?"), "{changes}");
    assert!(pair(&changes, "$filter").expect("a filter").starts_with("BridgeModificationTimestamp ge "));
    assert_eq!((pair(&changes, "$orderby"), pair(&changes, "$skip"), pair(&changes, "$top").as_deref()), (None, None, Some("2000")));

    let trestle = of_vendor("trestle", None);
    assert_eq!(pair(&list(&trestle, "Property", page(None, None)), "replication").as_deref(), Some("true"));
    assert_eq!(pair(&list(&trestle, "Property", page(since, None)), "replication"), None);

    let spark = of_vendor("spark", None);
    assert_eq!(list(&spark, "Property", page(None, None)), "https://mls.example.test/odata/Property?$top=1000");
    assert_eq!(resource(&spark, "Property").spans.list_lag, Duration::from_secs(20 * 60));
}

#[test]
fn a_client_shows_itself_in_the_form_or_by_a_header() {
    let client = |basic| {
        let auth = Auth::Client {
            client_id: "me & you".into(),
            token_url: "https://id.example.test/oauth2/token".parse().expect("a URL"),
            scope: Some("api".into()),
            basic,
        };
        Reso::new(Options { auth, ..options() }).expect("known resources")
    };
    let texts = ["s=cret".to_owned()];
    let form = client(false);
    assert_eq!(form.login_needs(), [Credential::Client]);
    let login = form.login(&texts, None).expect("a login");
    assert_eq!((login.0.method.as_str(), login.0.url.as_str()), ("POST", "https://id.example.test/oauth2/token"));
    let body = String::from_utf8(login.0.body.clone().expect("a body").to_vec()).expect("text");
    assert_eq!(body, "grant_type=client_credentials&scope=api&client_id=me+%26+you&client_secret=s%3Dcret");
    assert!(!format!("{login:?}").contains("cret") && login.0.declared_write);
    let login = client(true).login(&texts, None).expect("a login");
    assert_eq!(&login.0.body.expect("a body")[..], b"grant_type=client_credentials&scope=api");
    // `me+%26+you:s%3Dcret`
    assert!(login.0.headers.contains(&("authorization".into(), "Basic bWUrJTI2K3lvdTpzJTNEY3JldA==".into())));
    assert!(reso().login_needs().is_empty() && reso().login(&texts, None).is_none());
    let session = form.read_login(&answer(200, r#"{"access_token":"t","expires_in":"60"}"#)).expect("a session");
    assert_eq!((session.token.as_str(), session.lasts), ("t", Some(Duration::from_secs(60))));
    for status in [400, 401, 403] {
        assert_eq!(form.read_login(&answer(status, "")), Err(ReadError::Denied(status)));
    }
    for body in ["", "{}", r#"{"access_token":""}"#, r#"{"access_token":1}"#, "<html>"] {
        assert!(matches!(form.read_login(&answer(200, body)), Err(ReadError::Malformed(_))), "{body}");
    }
}

#[test]
fn a_sender_is_invited_and_asked_to_go_on_as_it_was_configured() {
    let reso = reso();
    let inviting = reso.inviting().expect("pushes are taken");
    assert_eq!((inviting.route, inviting.header, inviting.scheme), (EVENTS, "Authorization", "Bearer"));
    assert_eq!(inviting.label, Some(("EntityEventSource", "ours".to_owned())));
    assert!(reso.resume().is_none());
    let mut options = options();
    let resuming = Resuming {
        url: "https://mls.example.test/push/resume".parse().expect("a URL"),
        method: http::Method::POST,
        headers: vec![("X-Feed".into(), "ours".into())],
        body: Some("{}".into()),
        after: Duration::from_secs(600),
    };
    options.push.as_mut().expect("pushes are taken").resume = Some(resuming);
    let resume = Reso::new(options.clone()).expect("known resources").resume().expect("configured");
    assert!(resume.request.declared_write && resume.request.method == http::Method::POST && resume.after == Duration::from_secs(600));
    assert_eq!(resume.request.url, "https://mls.example.test/push/resume");
    assert!(resume.request.headers.contains(&("x-feed".into(), "ours".into())));
    assert!(resume.request.headers.contains(&("content-type".into(), "application/json".into())));
    let polled = Reso::new(Options { push: None, ..options }).expect("known resources");
    assert!(polled.inviting().is_none() && polled.hook_policy(EVENTS).is_none() && polled.hook_routes().is_empty());
}
