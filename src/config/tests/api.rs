//! The API socket and its tokens.

use super::*;

fn api(text: &str) -> String {
    format!("{PMP}[listen.api]\naddress = \"127.0.0.1:8712\"\n{text}\n")
}

#[test]
fn tokens_have_names_scopes_and_sources() {
    assert_eq!(parse(PMP).listen.api, None, "off by default");
    let config = parse(&api(
        "tokens = [{ name = \"portal\", token = [{ env = \"NEW\" }, { env = \"OLD\" }], scopes = [\"read\", \"refresh\"], sources = [\"pmp\"] },\n\
         { name = \"reports\", token = { credential = \"reports\" } }]",
    ));
    let api = config.listen.api.expect("it was written");
    let [portal, reports] = api.tokens.as_slice() else { panic!("{api:?}") };
    assert_eq!(
        (portal.token.0.len(), &portal.scopes, portal.sources.as_deref()),
        (2, &vec![ApiScope::Read, ApiScope::Refresh], Some(&["pmp".to_owned()][..]))
    );
    assert_eq!((&reports.scopes, reports.sources.as_deref()), (&vec![ApiScope::Read], None));
    assert_eq!(api.timeout, Duration::from_secs(10));
}

#[test]
fn a_mistake_in_a_token_is_told() {
    for (text, message) in [
        ("tokens = []", "must hold at least one"),
        ("tokens = [{ name = \"a\", token = { env = \"A\" } }, { name = \"a\", token = { env = \"B\" } }]", "holds the name `a` twice"),
        ("tokens = [{ name = \"a\", token = [] }]", "must be at least one"),
        ("tokens = [{ name = \"a\", token = { env = \"A\" }, scopes = [\"write\"] }]", "must be one of \"read\", \"refresh\""),
        (
            "tokens = [{ name = \"a\", token = { env = \"A\" }, sources = [\"pim\"] }]",
            "the token `a` is for the source `pim`, which is not defined",
        ),
        ("timeout = \"16s\"\ntokens = [{ name = \"a\", token = { env = \"A\" } }]", "must be between \"100ms\" and \"15s\""),
    ] {
        let (.., found) = only_mistake(&api(text));
        assert_eq!(found, message, "{text}");
    }
    let (.., same) =
        only_mistake(&format!("[listen]\nhooks = \"127.0.0.1:8712\"\n{}", api("tokens = [{ name = \"a\", token = { env = \"A\" } }]")));
    assert_eq!(same, "hooks and api must be two sockets");
}
