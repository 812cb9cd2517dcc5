//! Signature schemes: message authentication codes over raw bytes, compared in constant time.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// Whether `signature` is the HMAC-SHA256 of the concatenated `parts` under `key`, in lower-case hex: a signature has one spelling,
/// so that no bit of it may be turned.
#[must_use]
pub fn hmac_sha256_hex(key: &[u8], parts: &[&[u8]], signature: &str) -> bool {
    let Some(expected) = unhex(signature) else { return false };
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return false };
    for part in parts {
        mac.update(part);
    }
    mac.verify_slice(&expected).is_ok()
}

/// The HMAC-SHA256 of the concatenated `parts` under `key`, in lower-case hex.
///
/// # Panics
/// Never: a key may have any length.
#[must_use]
pub fn signed_sha256_hex(key: &[u8], parts: &[&[u8]]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("invariant: HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    hex(&mac.finalize().into_bytes())
}

/// Lower-case hex SHA-256 of the parts, each preceded by its length so that borders count.
#[must_use]
pub fn digest(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hex(&hasher.finalize())
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let digits: Vec<u8> = text.bytes().map(digit).collect::<Option<_>>()?;
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_vector_holds_and_every_flipped_bit_fails() {
        // GitHub's documented example.
        let (key, body) = (b"It's a Secret to Everybody".as_slice(), b"Hello, World!".as_slice());
        let good = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert!(hmac_sha256_hex(key, &[body], good));
        for bit in 0..body.len() * 8 {
            let mut flipped = body.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!hmac_sha256_hex(key, &[&flipped], good));
        }
        for bit in 0..good.len() * 8 {
            let mut flipped = good.as_bytes().to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // What is no text never gets here.
            assert!(!String::from_utf8(flipped).is_ok_and(|text| hmac_sha256_hex(key, &[body], &text)), "bit {bit}");
        }
    }

    #[test]
    fn malformed_signatures_never_match() {
        for bad in ["", "7", "zz", "757107", "7571 7ea", "é"] {
            assert!(!hmac_sha256_hex(b"k", &[b"b"], bad), "{bad}");
        }
    }
}
