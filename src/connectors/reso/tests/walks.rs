//! How lists are walked, and what is done where a way is refused.

use super::*;

fn read(reso: &Reso, query: ListQuery<'_>, response: &Response) -> Result<Option<String>, ReadError> {
    reso.read(&resource(reso, "Property"), Asked::Page(query), response).map(|page| page.next)
}

fn records(keys: &[(&str, &str)], beside: &str) -> Response {
    let records: Vec<String> =
        keys.iter().map(|(key, stamp)| format!(r#"{{"ListingKey":"{key}","ModificationTimestamp":"{stamp}"}}"#)).collect();
    answer(200, &format!(r#"{{{beside}"value":[{}]}}"#, records.join(",")))
}

const T1: &str = "2026-01-01T00:00:01Z";
const T2: &str = "2026-01-01T00:00:02Z";

#[test]
fn a_sweep_goes_from_key_to_key_until_a_page_is_empty() {
    let reso = reso();
    let first = list(&reso, "Property", page(None, None));
    assert_eq!(
        (pair(&first, "$orderby").as_deref(), pair(&first, "$top").as_deref(), pair(&first, "$filter")),
        (Some("ListingKey"), Some("1000"), None)
    );
    let next = read(&reso, page(None, None), &records(&[("a", T1), ("b'", T1)], r#""@odata.nextLink":"?$skip=2","#)).expect("a page");
    let next = next.expect("it goes on");
    let second = list(&reso, "Property", page(None, Some(&next)));
    assert_eq!(pair(&second, "$filter").as_deref(), Some("ListingKey gt 'b'''"), "the link, which counts rows, is left alone");
    assert_eq!(read(&reso, page(None, Some(&next)), &records(&[], "")), Ok(None));
    let halved = list(&reso, "Property", ListQuery { halvings: 3, ..page(None, Some(&next)) });
    assert_eq!(pair(&halved, "$top").as_deref(), Some("125"));
}

#[test]
fn where_keys_are_not_compared_the_same_pass_walks_links() {
    let reso = reso();
    let walk = Some("walk:".to_owned());
    assert_eq!(read(&reso, page(None, None), &answer(400, "no $orderby")), Ok(walk.clone()));
    assert_eq!(read(&reso, page(None, Some("key:a")), &answer(501, "no gt")), Ok(walk.clone()));
    assert_eq!(read(&reso, page(None, Some("key:a")), &records(&[("a", T1)], "")), Ok(walk), "the filter was passed over");
    let request = reso.list(&resource(&reso, "Property"), page(None, Some("walk:")));
    assert_eq!((pair(&request.url, "$top"), pair(&request.url, "$orderby")), (None, None));
    assert!(request.headers.contains(&("prefer".into(), "odata.maxpagesize=1000".into())));
    assert_eq!(read(&reso, page(None, Some("walk:")), &answer(400, "")), Err(ReadError::Refused(400)), "this is no refusal of a way");
    for status in [401, 403, 429, 500] {
        assert!(read(&reso, page(None, None), &answer(status, "")).is_err(), "{status}");
    }
}

#[test]
fn links_are_followed_on_our_origin_only() {
    let reso = reso();
    let next = |link: &str| read(&reso, page(None, Some("walk:")), &records(&[("a", T1)], &format!(r#""@odata.nextLink":"{link}","#)));
    let followed = |link: &str| {
        let cursor = next(link).expect("a page").expect("it goes on");
        list(&reso, "Property", page(None, Some(&cursor)))
    };
    assert_eq!(followed("Property?$skiptoken=1"), "https://mls.example.test/odata/Property?$skiptoken=1");
    assert_eq!(followed("/odata/Property?$skip=5"), "https://mls.example.test/odata/Property?$skip=5");
    assert_eq!(followed("https://mls.example.test/x/y?id=1"), "https://mls.example.test/x/y?id=1");
    for elsewhere in [
        "https://evil.test/odata/Property",
        "http://mls.example.test/odata/Property",
        "//evil.test/",
        "https://a:b@mls.example.test/",
        "mailto:x",
    ] {
        assert!(matches!(next(elsewhere), Err(ReadError::Malformed(_))), "{elsewhere}");
    }
    assert_eq!(list(&reso, "Property", page(None, Some("link:https://evil.test/"))), "https://mls.example.test/odata/Property");
    let newer = read(&reso, page(None, Some("walk:")), &records(&[("a", T1)], r#""@nextLink":"Property?p=2","#)).expect("a page");
    assert_eq!(newer.as_deref(), Some("link:1/https://mls.example.test/odata/Property?p=2"));
    let at = Some("link:https://mls.example.test/odata/Property?p=2");
    assert_eq!(read(&reso, page(None, at), &records(&[("a", T1)], "")), Ok(None), "whoever gives links gives none on the last page");
    assert_eq!(read(&reso, page(None, at), &records(&[], r#""@odata.nextLink":"Property?p=3","#)), Ok(None), "an empty page ends");
    for status in [400, 404, 410] {
        assert_eq!(read(&reso, page(None, at), &answer(status, "")), Err(ReadError::CursorRefused));
    }
    for cursor in ["", "x", "key:", "from:1"] {
        assert_eq!(read(&reso, page(None, Some(cursor)), &records(&[("a", T1)], "")), Err(ReadError::CursorRefused), "{cursor}");
    }
}

#[test]
fn a_server_without_links_has_its_rows_counted() {
    let reso = reso();
    assert_eq!(read(&reso, page(None, Some("walk:")), &records(&[("a", T1), ("b", T1)], r#""@odata.count":"2","#)), Ok(None));
    let next = read(&reso, page(None, Some("walk:")), &records(&[("a", T1), ("b", T1)], r#""@odata.count":3,"#)).expect("a page");
    assert_eq!(next.as_deref(), Some("skip:2"));
    let url = list(&reso, "Property", page(None, next.as_deref()));
    assert_eq!((pair(&url, "$skip").as_deref(), pair(&url, "$top").as_deref()), (Some("2"), Some("1000")));
    assert_eq!(
        read(&reso, page(None, Some("skip:2")), &records(&[("c", T1)], "")),
        Ok(Some("skip:3".into())),
        "nobody says that it was all"
    );
    assert_eq!(read(&reso, page(None, Some("skip:3")), &records(&[], "")), Ok(None));
}

#[test]
fn changes_are_walked_from_stamp_to_stamp() {
    let reso = reso();
    let since = Some(at(T1));
    let first = list(&reso, "Property", page(since, None));
    assert_eq!(pair(&first, "$filter").as_deref(), Some("ModificationTimestamp ge 2026-01-01T00:00:01.000Z"), "the bound itself too");
    let asked = ["$orderby", "$top", "$count", "$skip"].map(|name| pair(&first, name));
    assert_eq!(asked, [Some("ModificationTimestamp".into()), Some("1000".into()), Some("true".into()), None]);
    let next =
        read(&reso, page(since, None), &records(&[("a", T1), ("b", T2)], r#""@odata.count":3,"#)).expect("a page").expect("it goes on");
    let second = list(&reso, "Property", page(since, Some(&next)));
    assert_eq!(
        pair(&second, "$filter").as_deref(),
        Some("ModificationTimestamp ge 2026-01-01T00:00:02.000Z"),
        "others may have the same stamp"
    );
    let third = read(&reso, page(since, Some(&next)), &records(&[("b", T2), ("c", T2)], r#""@odata.count":3,"#))
        .expect("a page")
        .expect("it goes on");
    let url = list(&reso, "Property", page(since, Some(&third)));
    assert_eq!((pair(&url, "$skip").as_deref(), pair(&url, "$filter")), (Some("2"), pair(&second, "$filter")));
    assert_eq!(read(&reso, page(since, Some(&third)), &records(&[("d", T2)], r#""@odata.count":3,"#)), Ok(None));
    assert!(read(&reso, page(since, Some(&third)), &records(&[("d", T2)], "")).expect("a page").is_some(), "uncounted it goes on");
    assert_eq!(read(&reso, page(since, Some(&third)), &records(&[], "")), Ok(None));
    let unordered = read(&reso, page(since, None), &records(&[("b", T2), ("a", T1), ("c", T2)], r#""@odata.count":4,"#)).expect("a page");
    assert_eq!(unordered.map(|next| next.ends_with("/3")), Some(true), "where the order is passed over, rows are counted");
    assert_eq!(read(&reso, page(since, None), &answer(501, "")), Err(ReadError::Unsupported));
    assert_eq!(read(&reso, page(since, None), &answer(400, "Field is NOT filterable")), Err(ReadError::Unsupported));
    assert_eq!(read(&reso, page(since, None), &answer(400, "")), Err(ReadError::Refused(400)));
    assert_eq!(read(&reso, page(since, None), &answer(404, "")), Err(ReadError::NotFound), "the collection");
}

#[test]
fn vendors_lead_by_links_in_the_body_or_a_header() {
    let grid = of_vendor("spark", None);
    assert_eq!(read(&grid, page(None, None), &records(&[("a", T1)], "")), Ok(None));
    let next = read(&grid, page(None, None), &records(&[("a", T1)], r#""@odata.nextLink":"Property?$skiptoken=a","#));
    assert_eq!(next, Ok(Some("link:1/https://mls.example.test/odata/Property?$skiptoken=a".into())));
    let bridge = of_vendor("bridge", None);
    let headers = vec![("link".to_owned(), "<https://mls.example.test/odata/Property/replication?next=7>; rel=\"next\"".to_owned())];
    let next = read(&bridge, page(None, None), &Response { headers, ..records(&[("a", T1)], "") });
    assert_eq!(next, Ok(Some("link:1/https://mls.example.test/odata/Property/replication?next=7".into())));
    assert_eq!(read(&bridge, page(None, None), &answer(404, "")), Ok(Some("walk:".into())), "there is a plainer way");
    assert!(list(&bridge, "Property", page(None, Some("walk:"))).starts_with("https://mls.example.test/odata/Property?"));
    assert_eq!(read(&grid, page(None, None), &answer(400, "")), Err(ReadError::Refused(400)), "there is no other way");
    assert_eq!(read(&grid, page(None, None), &rows(1_000, "")), Ok(Some("skip:1000".into())), "to some `$top` is all that is wanted");
}

fn rows(n: usize, beside: &str) -> Response {
    let keys: Vec<String> = (0..n).map(|n| format!("p{n}")).collect();
    records(&keys.iter().map(|key| (key.as_str(), T1)).collect::<Vec<_>>(), beside)
}

#[test]
fn links_that_end_with_what_was_asked_for_are_no_end_of_the_list() {
    // The server's pages are smaller than was asked for, and its links add up to that.
    let grid = of_vendor("spark", None);
    let link = r#""@odata.nextLink":"Property?$skiptoken=a&$top=600","#;
    let second = read(&grid, page(None, None), &rows(400, link)).expect("a page").expect("it goes on");
    assert_eq!(list(&grid, "Property", page(None, Some(&second))), "https://mls.example.test/odata/Property?$skiptoken=a&$top=600");
    let third = read(&grid, page(None, Some(&second)), &rows(400, link)).expect("a page").expect("it goes on");
    assert_eq!(read(&grid, page(None, Some(&third)), &rows(200, "")), Ok(Some("skip:1000".into())), "all that was asked for");
    assert_eq!(read(&grid, page(None, Some(&third)), &rows(199, "")), Ok(None), "less than that");
    let old = Some("link:https://mls.example.test/odata/Property?p=2");
    assert_eq!(list(&grid, "Property", page(None, old)), "https://mls.example.test/odata/Property?p=2", "of an earlier version");
    // What lies far behind is served at Bridge's own path alone.
    let bridge = of_vendor("bridge", None);
    let at = Some("link:1000/https://mls.example.test/odata/Property/replication?next=7");
    assert_eq!(read(&bridge, page(None, at), &rows(1_000, "")), Ok(None));
}
