//! Whether the public address leads here: a request that we send to ourselves by way of it, and take back at our own door.
//!
//! It carries a number that is used once, signed with a secret of this instance. The door takes back only the one that is expected now:
//! whoever repeats a probe, or makes one up, gets the 401 of every stranger. An answer of 200 alone proves nothing, for a proxy may give
//! it; what counts is that the number came back to this process.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::source::Source;
use crate::clock::Timestamp;
use crate::connectors::{HookPolicy, Overload, RetryAfter, signature};
use crate::report::{CertificateDaysLeft, PublicUrlOk};
use crate::upstream::PublicUrl;

/// The route below `/hooks/{source}/`. No connector has one of this name; a test holds that.
pub const ROUTE: &str = "probe";
/// What a probe is known by.
pub const HEADER: &str = "instep-probe";
/// File in the state directory that holds what probes are signed with.
pub const SECRET_FILE: &str = "probe-secret";
/// How the door treats it: it has no body, and nothing is lost with it.
pub const POLICY: HookPolicy = HookPolicy {
    body_max: 0,
    overload: Overload::Accept,
    retries_for: Duration::from_secs(24 * 3600),
    signature_headers: &[HEADER],
    retry_after: RetryAfter::Seconds,
    retry_after_span: None,
    cap: None,
};
/// The cause of a gap in which the public address did not lead here.
pub const PUBLIC_URL: &str = "public_url";
/// Of a certificate that ends sooner `/status` tells.
const CERTIFICATE_DAYS_MIN: f64 = 14.0;
/// So many in a row are no accident.
const FAILURES_MIN: u32 = 2;
/// A failed probe is sent again after this part of the time between two.
const AGAIN_PART: u32 = 8;
/// The first one after a start: the public socket is the last to open.
const FIRST_AFTER: Duration = Duration::from_secs(15);

/// The longest time until a way that is cut is noticed.
#[cfg(test)]
pub(in crate::actors) fn noticed_within(every: Duration) -> Duration {
    every + every / AGAIN_PART + crate::upstream::PublicUrl::PATIENCE * FAILURES_MIN
}

/// What is known of the way from the public address to this process. Kept in memory: a new process looks anew.
#[derive(Debug)]
pub(super) struct Probe {
    secret: Arc<str>,
    expected: Mutex<Option<String>>,
    standing: Mutex<Standing>,
}

/// How the public address stands.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub(super) struct Standing {
    /// Whether the last probe came back; `None`: none was sent.
    ok: Option<bool>,
    /// Why the last one did not.
    why: Option<String>,
    /// Days until the certificate ends, at the last probe.
    certificate_days_left: Option<f64>,
    #[serde(skip)]
    failures: u32,
    #[serde(skip)]
    last_good: Option<Timestamp>,
}

impl Probe {
    pub(super) fn new(secret: Arc<str>) -> Self {
        Self { secret, expected: Mutex::default(), standing: Mutex::default() }
    }

    fn mac(&self, source: &str, nonce: &str) -> String {
        signature::signed_sha256_hex(self.secret.as_bytes(), &[source.as_bytes(), b".", nonce.as_bytes()])
    }

    /// The header of the next probe, which is expected from now on in the place of any before.
    fn expect(&self, source: &str, nonce: [u8; 16]) -> String {
        let nonce = signature::hex(&nonce);
        let header = format!("{nonce}.{}", self.mac(source, &nonce));
        *self.expected.lock().unwrap_or_else(PoisonError::into_inner) = Some(nonce);
        header
    }

    /// Whether what was expected has come back; from now on it is not taken any more.
    fn came_back(&self) -> bool {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner).take().is_none()
    }

    /// Whether a request to the door is the probe that is expected, which is then used up.
    pub(super) fn take(&self, source: &str, header: &Bytes) -> bool {
        let Some((nonce, mac)) = std::str::from_utf8(header).ok().and_then(|text| text.split_once('.')) else { return false };
        if !signature::hmac_sha256_hex(self.secret.as_bytes(), &[source.as_bytes(), b".", nonce.as_bytes()], mac) {
            return false;
        }
        self.expected.lock().unwrap_or_else(PoisonError::into_inner).take_if(|expected| expected == nonce).is_some()
    }

    pub(super) fn standing(&self) -> Standing {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Standing {
    /// What a person has to do, if anything.
    pub(super) fn wrong(&self) -> Option<String> {
        if let (Some(false), Some(why)) = (self.ok, &self.why) {
            return Some(format!(
                "public_url does not lead here ({why}): webhooks are lost until name, certificate, firewall and proxy let requests through"
            ));
        }
        let left = self.certificate_days_left.filter(|left| *left < CERTIFICATE_DAYS_MIN)?;
        Some(format!("the certificate of public_url ends in {left:.0} day(s): renew it, or upstreams will stop to deliver"))
    }
}

/// Sends the probes of a source; the keeper's.
#[derive(Debug, Default)]
pub(super) struct Prober {
    client: Option<PublicUrl>,
    next_at: Option<Duration>,
    began: Option<Timestamp>,
    is_told: bool,
}

impl Prober {
    /// Sends a probe where one is due; how long until the next. A gap that could not be noted is noted at the next turn.
    pub(super) async fn turn(&mut self, source: &Source) -> Option<Duration> {
        let every = Some(source.settings.watch.probe).filter(|every| !every.is_zero())?;
        let url = source.target(ROUTE).filter(|_| !source.connector.hook_routes().is_empty() && source.suspended().is_none())?;
        let now = source.clock.monotonic();
        let next_at = *self.next_at.get_or_insert(now + every.min(FIRST_AFTER));
        let began = *self.began.get_or_insert(source.clock.now());
        if next_at > now {
            return Some(next_at - now);
        }
        // A door that cannot keep deliveries refuses probes too, and says why by itself.
        if source.health.is_lost() {
            return Some(every / AGAIN_PART);
        }
        let mut standing = source.probe.standing();
        let sent_at = source.clock.now();
        let why = self.send(source, &url, &mut standing).await.err();
        standing.ok = Some(why.is_none());
        standing.failures = if why.is_none() { 0 } else { standing.failures.saturating_add(1) };
        standing.last_good = if why.is_none() { Some(sent_at) } else { standing.last_good };
        standing.why = why;
        source.reporter.set(PublicUrlOk { source: source.name.to_string() }, f64::from(u8::from(standing.why.is_none())));
        *source.probe.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing.clone();
        let noted = match standing.failures {
            0 => source.end_gap(PUBLIC_URL).await,
            n if n >= FAILURES_MIN => source.open_gap(PUBLIC_URL, standing.last_good.unwrap_or(began), None).await,
            _ => Ok(()),
        };
        self.tell(source, &standing);
        if let Err(error) = noted {
            tracing::debug!(source = %source.name, %error, "how the public address stands could not be noted");
        }
        let rest = if standing.failures == 1 { every / AGAIN_PART } else { every };
        self.next_at = Some(source.clock.monotonic() + rest);
        Some(rest)
    }

    async fn send(&mut self, source: &Source, url: &str, standing: &mut Standing) -> Result<(), String> {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => self.client.insert(PublicUrl::new()?).clone(),
        };
        let header = source.probe.expect(source.name.as_str(), rand::random());
        let answer = client.post(url, (HEADER, &header)).await;
        let is_back = source.probe.came_back();
        let answer = answer?;
        if let Some(until) = answer.certificate_until {
            let now = source.clock.now();
            let left = until.since(now).as_secs_f64() - now.since(until).as_secs_f64();
            standing.certificate_days_left = Some(left / 86_400.0);
            source.reporter.set(CertificateDaysLeft { source: source.name.to_string() }, left / 86_400.0);
        }
        match answer.status {
            _ if is_back => Ok(()),
            200..=299 => Err("somebody else answered".to_owned()),
            status => Err(format!("it was answered with status {status} on the way")),
        }
    }

    /// Says once that the way is cut, and once that it is free again.
    fn tell(&mut self, source: &Source, standing: &Standing) {
        let is_cut = standing.failures >= FAILURES_MIN;
        if is_cut && !self.is_told {
            let why = standing.why.as_deref().unwrap_or_default();
            tracing::error!(source = %source.name, why, "the public address does not lead here: webhooks are lost");
        } else if !is_cut && standing.failures == 0 && self.is_told {
            tracing::info!(source = %source.name, "the public address leads here again");
        }
        self.is_told = if standing.failures == 0 { false } else { self.is_told || is_cut };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe() -> Probe {
        Probe::new(Arc::from("a secret"))
    }

    #[test]
    fn a_probe_is_taken_once_and_only_while_it_is_expected() {
        let probe = probe();
        let header = Bytes::from(probe.expect("pmp", [7; 16]));
        assert!(!probe.take("pim", &header), "another source's");
        assert!(probe.take("pmp", &header) && probe.came_back());
        assert!(!probe.take("pmp", &header), "again");
        let second = Bytes::from(probe.expect("pmp", [8; 16]));
        assert!(!probe.take("pmp", &header) && !probe.came_back(), "one of before, and nothing came back");
        assert!(!probe.take("pmp", &second), "too late");
    }

    #[test]
    fn what_somebody_makes_up_is_refused_and_uses_nothing_up() {
        let probe = probe();
        let header = Bytes::from(probe.expect("pmp", [7; 16]));
        let other = Bytes::from(Probe::new(Arc::from("another secret")).expect("pmp", [7; 16]));
        let (nonce, _) = std::str::from_utf8(&header).expect("text").split_once('.').expect("two parts");
        for made_up in
            [other, Bytes::from(nonce.to_owned()), Bytes::from(format!("{nonce}.")), Bytes::from_static(b"\xff.\xff"), Bytes::new()]
        {
            assert!(!probe.take("pmp", &made_up), "{made_up:?}");
        }
        assert!(probe.take("pmp", &header));
    }

    #[test]
    fn what_is_wrong_says_what_to_do() {
        let good = Standing { ok: Some(true), certificate_days_left: Some(60.0), ..Standing::default() };
        assert_eq!((good.wrong(), Standing::default().wrong()), (None, None));
        let ends = Standing { certificate_days_left: Some(3.2), ..good.clone() };
        assert!(ends.wrong().is_some_and(|wrong| wrong.contains("3 day(s)")));
        let cut = Standing { ok: Some(false), why: Some("no connection".to_owned()), ..good };
        assert!(cut.wrong().is_some_and(|wrong| wrong.contains("no connection")));
    }
}
