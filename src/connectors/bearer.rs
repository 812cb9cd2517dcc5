//! Bearer tokens (RFC 6750): what a sender shows that was given a secret of ours, looked for in constant time.

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::signature::hex;
use super::{HookSecret, SecretForm};

/// Longest token in bytes: a longer one was not made by us, and is not hashed.
pub const TOKEN_BYTES_MAX: usize = 1024;

/// The token in the value of an `Authorization` header. The scheme is read in any case; the token has the characters of a
/// `b64token` (RFC 6750, 2.1) and a bounded length. Nothing may stand behind it.
#[must_use]
pub fn token(value: &str) -> Option<&str> {
    let (scheme, rest) = value.split_once(' ')?;
    let token = rest.trim_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && is_b64token(token)).then_some(token)
}

/// Lower-case hex SHA-256 of a token: what is kept of one that we gave away.
#[must_use]
pub fn digest(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

/// Whether the token is one of the secrets. Every secret is compared, each in constant time, whichever matches: the time tells neither
/// how much of one was right nor which one it was. It does tell how many there are. Routes are the caller's to choose.
#[must_use]
pub fn matches(token: &str, secrets: &[HookSecret]) -> bool {
    let shown = digest(token);
    let mut found = Choice::from(0);
    for secret in secrets {
        // Digests are equally long, whatever was configured.
        found |= match secret.form {
            SecretForm::Whole => digest(&secret.text).as_bytes().ct_eq(shown.as_bytes()),
            SecretForm::Digest => secret.text.as_bytes().ct_eq(shown.as_bytes()),
        };
    }
    found.into()
}

fn is_b64token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let is_of_it = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    !body.is_empty() && text.len() <= TOKEN_BYTES_MAX && body.bytes().all(is_of_it)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secret(text: &str, form: SecretForm) -> HookSecret {
        HookSecret { route: None, text: text.to_owned(), form }
    }

    #[test]
    fn a_token_is_read_in_any_case_of_its_scheme() {
        for value in ["Bearer abc", "bearer abc", "BEARER abc", "bEaReR   abc", "Bearer abc "] {
            assert_eq!(token(value), Some("abc"), "{value:?}");
        }
        assert_eq!(token("Bearer aZ09-._~+/=="), Some("aZ09-._~+/=="));
    }

    #[test]
    fn what_is_no_bearer_token_is_none() {
        let (longest, longer) = ("a".repeat(TOKEN_BYTES_MAX), "a".repeat(TOKEN_BYTES_MAX + 1));
        assert!(token(&format!("Bearer {longest}")).is_some());
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer    ",
            "Bearer\tabc",
            " Bearer abc",
            "Basic abc",
            "Bearerabc",
            "Bearer a b",
            "Bearer a,b",
            "Bearer abc, Basic x",
            "Bearer \"abc\"",
            "Bearer a=b",
            "Bearer =",
            "Bearer é",
            "Bearer abc\n",
            "abc",
            &format!("Bearer {longer}"),
        ] {
            assert_eq!(token(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_digest_is_the_plain_sha_256() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(digest("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn a_token_is_known_whole_or_by_its_digest_wherever_it_stands() {
        let (whole, of_digest) = (secret("abc", SecretForm::Whole), secret(&digest("xyz"), SecretForm::Digest));
        for secrets in [[whole.clone(), of_digest.clone()], [of_digest, whole]] {
            assert!(matches("abc", &secrets) && matches("xyz", &secrets));
            for stranger in ["", "ab", "abcd", "ABC", "xy"] {
                assert!(!matches(stranger, &secrets), "{stranger}");
            }
            // A store that was read gives nobody a token.
            assert!(!matches(&digest("xyz"), &secrets));
        }
        assert!(!matches("abc", &[]));
        assert!(!matches("", &[secret("", SecretForm::Digest)]));
        assert!(!matches("abc", &[secret("abc", SecretForm::Digest)]), "a digest is no token");
    }

    proptest! {
        #[test]
        fn whatever_is_read_as_a_token_stands_in_the_header(value in "([bB][eE]arer|Basic)? {0,2}[ -~é]{0,40}") {
            if let Some(token) = token(&value) {
                prop_assert!(value.ends_with(token) || value.trim_end_matches(' ').ends_with(token));
                prop_assert!(!token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }

        #[test]
        fn tokens_match_themselves_and_no_other(texts in proptest::collection::vec("[a-z0-9]{1,8}", 1..6), other in "[a-z0-9]{9}", pick: prop::sample::Index, forms: u8) {
            let form = |n: usize| if forms >> n & 1 == 0 { SecretForm::Whole } else { SecretForm::Digest };
            let kept = |(n, text): (usize, &String)| match form(n) {
                SecretForm::Whole => secret(text, SecretForm::Whole),
                SecretForm::Digest => secret(&digest(text), SecretForm::Digest),
            };
            let secrets: Vec<HookSecret> = texts.iter().enumerate().map(kept).collect();
            prop_assert!(matches(&texts[pick.index(texts.len())], &secrets));
            prop_assert!(!matches(&other, &secrets));
        }

        #[test]
        fn a_header_made_of_a_token_gives_it_back(text in "[A-Za-z0-9._~+/-]{1,60}={0,2}") {
            let header = format!("Bearer {text}");
            prop_assert_eq!(token(&header), Some(text.as_str()));
        }
    }
}
