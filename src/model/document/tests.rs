use proptest::prelude::*;

use super::*;

fn canonical(text: &str) -> String {
    Json::parse(text.as_bytes()).expect("readable").to_string()
}

fn document(text: &str, volatile: &[&str], exclude: &[&str]) -> Document {
    let owned = |list: &[&str]| list.iter().map(|pointer| (*pointer).to_owned()).collect();
    let shape = Shape { exclude: owned(exclude), volatile: owned(volatile) };
    Document::parse(text.as_bytes(), &shape).expect("readable")
}

#[test]
fn canonical_form_sorts_and_keeps_literals() {
    let sent = r#" { "b" : [1.0, 1e2, 12345678901234567890123, -0.0], "a" : "\u00e9\/\n\ud83d\ude00", "A": {} } "#;
    assert_eq!(canonical(sent), "{\"A\":{},\"a\":\"é/\\n😀\",\"b\":[1.0,1e2,12345678901234567890123,-0.0]}");
}

#[test]
fn duplicate_keys_are_refused_also_when_escaped() {
    assert_eq!(Json::parse(br#"{"a":1,"\u0061":2}"#), Err(Unreadable::DuplicateKey));
    assert_eq!(Json::parse(br#"[{"x":{"a":1,"a":1}}]"#), Err(Unreadable::DuplicateKey));
}

#[test]
fn what_no_store_can_hold_is_replaced_and_flagged() {
    for (sent, text) in [
        (&br#"{"a\u0000":"\u0000x"}"#[..], "{\"a\u{FFFD}\":\"\u{FFFD}x\"}"),
        (br#""\ud800x\udc00""#, "\"\u{FFFD}x\u{FFFD}\""),
        (br#""\ud800\ud83d\ude00""#, "\"\u{FFFD}😀\""),
        (b"\"\xff\xfe\"", "\"\u{FFFD}\u{FFFD}\""),
    ] {
        let document = Document::parse(sent, &Shape::default()).expect("readable");
        assert_eq!(&*document.text, text);
        assert!(document.lossy);
        assert_eq!(document.raw.as_deref(), Some(sent));
    }
    let plain = document(r#"{"a":"b"}"#, &[], &[]);
    assert_eq!((plain.lossy, plain.raw), (false, None));
}

#[test]
fn excluded_fields_are_not_kept_in_the_raw_bytes_either() {
    let document = document(r#"{"attributes":{"cost_default":5,"cost":7,"title":"\u0000"}}"#, &[], &["/attributes/cost*"]);
    assert_eq!(&*document.text, "{\"attributes\":{\"title\":\"\u{FFFD}\"}}");
    assert_eq!((document.lossy, document.raw), (true, None));
}

#[test]
fn numbers_that_some_reader_could_not_hold_are_refused() {
    for bad in ["1e400", "-1e309", "1e-401", "1e99999999999", "0e401"] {
        assert_eq!(Json::parse(bad.as_bytes()), Err(Unreadable::Number), "{bad}");
    }
    assert_eq!(Json::parse("1".repeat(1_001).as_bytes()), Err(Unreadable::Number));
    for good in ["1e308", "1E-400", "1e+2", "-0"] {
        assert_eq!(canonical(good), good);
        assert!(serde_json::from_str::<serde_json::Value>(good).is_ok(), "{good}");
    }
}

#[test]
fn what_we_accept_serde_json_reads_again() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(serde_json::from_str::<serde_json::Value>(&canonical(&nested(127))).is_ok());
    assert_eq!(Json::parse(nested(128).as_bytes()), Err(Unreadable::TooDeep));
    assert_eq!(Json::parse(nested(200_000).as_bytes()), Err(Unreadable::TooDeep));
}

#[test]
fn syntax_errors_name_the_place_only() {
    assert_eq!(Json::parse(b"{\"secret\": }").expect_err("broken").to_string(), "not json at line 1 column 12");
    for bad in ["", "{", "nul", "1 2", "\"\x01\"", "[1,]", "{\"a\":1,}", "01"] {
        assert!(matches!(Json::parse(bad.as_bytes()), Err(Unreadable::Syntax { .. })), "{bad}");
    }
}

#[test]
fn version_and_volatile_fields_are_stored_and_not_hashed() {
    let old = document(r#"{"t":"x","updated_at":1,"seen":{"at":1}}"#, &["/updated_at", "/seen/*"], &[]);
    let new = document(r#"{"t":"x","updated_at":2,"seen":{"at":2}}"#, &["/updated_at", "/seen/*"], &[]);
    assert_eq!(old.hash, new.hash);
    assert_ne!(old.text, new.text);
    assert_ne!(old.hash, document(r#"{"t":"y","updated_at":1,"seen":{}}"#, &["/updated_at", "/seen/*"], &[]).hash);
}

#[test]
fn one_bad_record_does_not_spoil_the_page() {
    let deep = "[".repeat(200_000) + &"]".repeat(200_000);
    let page =
        format!(r#"{{"data":[{{"id":"1"}},{{"id":1e400}},{{"id":"\ud800"}},{deep},{{"a":1,"a":2}},{{"id":"2"}}],"links":{{"next":"n"}}}}"#);
    let records = split_records(&page, "/data").expect("a page");
    let read: Vec<bool> = records.iter().map(|raw| Json::parse(raw.get().as_bytes()).is_ok()).collect();
    assert_eq!(read, [true, false, true, false, false, true]);
    assert_eq!(raw_at(&page, "/links/next").expect("a page").map(serde_json::value::RawValue::get), Some("\"n\""));
    assert_eq!(split_records(&page, "/links").expect_err("no list"), Unreadable::NoList("/links".to_owned()));
}

#[test]
fn pointers_find_and_cut() {
    let mut json = Json::parse(br#"{"a/b":{"~":[10,20,30]},"items":[{"u":1,"v":2},{"u":3}]}"#).expect("readable");
    assert_eq!(json.pointer("/a~1b/~0/1").and_then(Json::as_i64), Some(20));
    assert_eq!(json.pointer("/a~1b/nope"), None);
    assert_eq!(json.remove_pointer("/items/*/u"), 2);
    assert_eq!(json.remove_pointer("/a~1b/~0/1"), 1);
    assert_eq!(json.remove_pointer(""), 0);
    assert_eq!(json.to_string(), r#"{"a/b":{"~":[10,30]},"items":[{"v":2},{}]}"#);
}

#[test]
fn globs_match_within_a_segment() {
    for (pattern, key, cut) in [
        ("/cost*", "cost", 1),
        ("/cost*", "cost_default", 1),
        ("/cost*", "total_cost", 0),
        ("/*cost*", "total_cost_eur", 1),
        ("/a*a", "a", 0),
        ("/a*a", "aa", 1),
        ("/*", "anything", 1),
        ("/a*b*c", "a-b-b-c", 1),
        ("/a*b*c", "a-c-b", 0),
    ] {
        let mut json = Json::parse(format!("{{\"{key}\":1}}").as_bytes()).expect("readable");
        assert_eq!(json.remove_pointer(pattern), cut, "{pattern} on {key}");
    }
}

#[test]
fn changed_fields_are_named_below_the_roots() {
    let old = r#"{"attributes":{"title":"a","due":1,"gone":0},"relationships":{"project":{"id":1}},"type":"t"}"#;
    let new = r#"{"attributes":{"title":"b","due":1,"new":0},"relationships":{"project":{"id":2}},"type":"u"}"#;
    assert_eq!(changed_fields(old, new, &["/attributes", "/relationships"]), ["gone", "new", "project", "title"]);
    assert_eq!(changed_fields(old, new, &[""]), ["attributes", "relationships", "type"]);
    assert_eq!(changed_fields("{", new, &[""]), ["*"]);
}

/// A value together with a text of it whose keys stand in another order and that is blown up with blanks.
fn any_json() -> impl Strategy<Value = Json> {
    let number = prop_oneof![any::<i64>().prop_map(|n| n.to_string()), any::<u32>().prop_map(|n| format!("{n}.50e-2"))];
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        number.prop_map(|literal| Json::Number(literal.into())),
        "\\PC{0,8}".prop_map(|text| Json::String(text.into())),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::Array),
            prop::collection::btree_map("[a-z\"\\\\\n]{0,3}".prop_map(Box::<str>::from), inner, 0..6).prop_map(Json::Object),
        ]
    })
}

fn backwards(json: &Json) -> String {
    let string = |text: &str| serde_json::to_string(text).expect("a string");
    match json {
        Json::Array(items) => format!("[ {} ]", items.iter().map(backwards).collect::<Vec<_>>().join(" , ")),
        Json::Object(entries) => {
            let entries: Vec<String> = entries.iter().rev().map(|(k, v)| format!("{}\n:{}", string(k), backwards(v))).collect();
            format!("{{ {} }}", entries.join("\t,"))
        }
        leaf => leaf.to_string(),
    }
}

proptest! {
    #[test]
    fn canonical_form_is_idempotent_and_blind_to_order(json in any_json()) {
        let text = json.to_string();
        prop_assert_eq!(Parsed::read(text.as_bytes()), Ok(Parsed { json: json.clone(), lossy: false }));
        prop_assert_eq!(canonical(&backwards(&json)), text);
    }

    #[test]
    fn parse_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(document) = Document::parse(&bytes, &Shape::default()) {
            prop_assert_eq!(canonical(&document.text), &*document.text);
        }
    }

    #[test]
    fn parse_never_panics_on_what_looks_like_json(text in r#"[\[\]{}",:0-9eE+\-.\\udtrfnals \x00]{0,60}"#) {
        if let Ok(document) = Document::parse(text.as_bytes(), &Shape::default()) {
            prop_assert_eq!(canonical(&document.text), &*document.text);
        }
    }
}
