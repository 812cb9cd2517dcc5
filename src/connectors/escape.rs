//! Parts of addresses, escaped strictly.

use std::fmt::Write as _;

/// The text with everything escaped but letters, digits and the bytes of `plain` (RFC 3986, section 2.1).
pub(super) fn escape(text: &str, plain: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn what_has_a_meaning_in_an_address_is_escaped() {
        assert_eq!(escape("a-b_c.d/é ?#%&=+", b"_."), "a%2Db_c.d%2F%C3%A9%20%3F%23%25%26%3D%2B");
        assert_eq!(escape("a-b", b"-"), "a-b");
    }
}
