//! Requests to ourselves by way of the public address. No upstream sees them, so no limit of one counts them.

use std::time::Duration;

use super::chain;
use crate::clock::Timestamp;

/// Time for connecting, the handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What the public address answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status. A redirect is an answer: it is not followed, for upstreams do not follow it either.
    pub status: u16,
    /// When the certificate that was shown ends, where there was one that can be read.
    pub certificate_until: Option<Timestamp>,
}

/// Asks public addresses. Every request has a connection of its own, so that a way which was cut is noticed.
#[derive(Clone, Debug)]
pub struct PublicUrl(reqwest::Client);

impl PublicUrl {
    /// Time for the whole answer. Two that fail and what lies between them stay below five minutes.
    pub const PATIENCE: Duration = Duration::from_secs(10);

    /// # Errors
    /// When the platform's certificates cannot be used.
    pub fn new() -> Result<Self, String> {
        // An error only says that another was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(Self::PATIENCE)
            .user_agent(concat!("instep/", env!("CARGO_PKG_VERSION"), " probe"))
            .pool_max_idle_per_host(0)
            .http1_only()
            .tls_info(true)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self(client))
    }

    /// Sends an empty POST with one header, once.
    ///
    /// # Errors
    /// Says why there is no answer.
    pub async fn post(&self, url: &str, (name, value): (&str, &str)) -> Result<Answer, String> {
        let mut value = http::HeaderValue::try_from(value).map_err(|error| error.to_string())?;
        value.set_sensitive(true);
        let answer = self.0.post(url).header(name, value).header("content-length", "0").send().await.map_err(|error| chain(&error))?;
        let certificate = answer.extensions().get::<reqwest::tls::TlsInfo>().and_then(|tls| tls.peer_certificate());
        Ok(Answer { status: answer.status().as_u16(), certificate_until: certificate.and_then(not_after) })
    }
}

/// When an X.509 certificate ends (RFC 5280, 4.1): the second time of `validity`, the fifth field of what is signed.
fn not_after(der: &[u8]) -> Option<Timestamp> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (_, certificate, _) = element(der).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, signed, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (tag, _, rest) = element(signed)?;
    // Serial number, algorithm, issuer; before them the version, which the first one leaves out.
    let mut rest = if tag == VERSION { rest } else { signed };
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (_, validity, _) = element(rest).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, _, after) = element(validity)?;
    let (tag, text, _) = element(after)?;
    time(tag, std::str::from_utf8(text).ok()?)
}

/// Tag and content of the first element, and what stands behind it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match usize::from(first) {
        short @ 0..=0x7f => (short, rest),
        long @ 0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(long - 0x80)?;
            (bytes.iter().fold(0usize, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ` (UTCTime; below 50 it is this century) or `YYYYMMDDHHMMSSZ` (GeneralizedTime).
fn time(tag: u8, text: &str) -> Option<Timestamp> {
    let full = match tag {
        0x17 if text.get(..2)? < "50" => format!("20{text}"),
        0x17 => format!("19{text}"),
        0x18 => text.to_owned(),
        _ => return None,
    };
    let part = |from: usize| full.get(from..from + 2);
    let (year, date) = (full.get(..4)?, [part(4)?, part(6)?]);
    let text = format!("{year}-{}-{}T{}:{}:{}Z", date[0], date[1], part(8)?, part(10)?, part(12)?);
    Timestamp::parse(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `tag`, length, content.
    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        let head = if length < 0x80 { vec![tag, length as u8] } else { vec![tag, 0x82, (length >> 8) as u8, length as u8] };
        [head, content.to_vec()].concat()
    }

    fn certificate(version: &[u8], until: &[u8]) -> Vec<u8> {
        let validity = der(0x30, &[der(0x17, b"200101000000Z"), until.to_vec()].concat());
        let issuer = der(0x30, &[0x55; 200]);
        let fields = [version.to_vec(), der(0x02, &[1, 2]), der(0x30, &[6, 1, 1]), issuer, validity, der(0x30, &[])].concat();
        der(0x30, &[der(0x30, &fields), der(0x30, &[]), der(0x03, &[0])].concat())
    }

    #[test]
    fn a_certificate_says_when_it_ends() {
        let at = |text: &str| Timestamp::parse(text);
        let third = der(0xa0, &der(0x02, &[2]));
        assert_eq!(not_after(&certificate(&third, &der(0x17, b"270304050607Z"))), at("2027-03-04T05:06:07Z"));
        assert_eq!(not_after(&certificate(&[], &der(0x18, b"20610304050607Z"))), at("2061-03-04T05:06:07Z"));
        assert_eq!(not_after(&certificate(&third, &der(0x17, b"991231235959Z"))), at("1999-12-31T23:59:59Z"));
    }

    #[test]
    fn what_is_no_certificate_says_nothing() {
        let whole = certificate(&[], &der(0x17, b"270304050607Z"));
        for end in 0..whole.len() {
            assert_eq!(not_after(&whole[..end]), None, "{end} of {} bytes", whole.len());
        }
        assert_eq!(not_after(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0]), None);
        assert_eq!(not_after(&certificate(&[], &der(0x17, b"no time"))), None);
        assert_eq!(not_after(&certificate(&[], &der(0x04, b"270304050607Z"))), None);
    }
}
