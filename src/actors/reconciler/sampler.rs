//! A few random rows, now and then: whether the replica says what the upstream says, without being asked.
//!
//! One request in each turn, at the lowest class and within a small share of the quota. What differs is read again by key once its time
//! to settle is over; what then differs in the same way counts, is reported, and is marked as `verify --repair` does. What was seen
//! lately is in memory alone: after a restart the ratio begins anew.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::{LOOK_EVERY, Reconciler};
use crate::actors::source::{Audit, Source};
use crate::actors::verify::{look, settle};
use crate::clock::Timestamp;
use crate::model::agreement::Kind;
use crate::model::ordering::By;
use crate::model::{Key, ResourceName};
use crate::quota::{Class, Limit, Shape, Unit};
use crate::report::{AgreementRatio, RowDiffered, StalenessSeconds};
use crate::store::{Error, Fence};
use crate::supervision::{Context, Rest};

/// Rows of one turn: they are one request where the upstream has bulk reads.
const ROWS: usize = 10;
/// Keys chosen at once, for choosing looks at every row.
const POOL: u64 = 500;
/// Turns that the ratio is made of: with a turn a minute the last four hours or so.
const TURNS: usize = 256;
/// Differences that wait for a second look.
const DOUBTS_MAX: usize = 100;
/// Looks after which a record that is another way each time is let go.
const TRIES: u32 = 4;
/// A turn for which there is no permit within this is left out: feeds and passes must not wait for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// What differed in a look.
struct Doubt {
    resource: ResourceName,
    key: Key,
    fingerprint: String,
    /// In monotonic time.
    next: Duration,
    tries: u32,
}

/// What one turn saw.
#[derive(Clone, Copy, Default)]
struct Seen {
    compared: u64,
    differing: u64,
    /// How old the state was that a row lacked, in seconds.
    staleness: f64,
}

/// The rows that are looked at, and what they said.
#[derive(Default)]
pub(super) struct Sampler {
    /// When the next turn is, in monotonic time.
    next: Option<Duration>,
    turn: usize,
    pools: HashMap<ResourceName, Vec<Key>>,
    doubts: VecDeque<Doubt>,
    seen: VecDeque<Seen>,
}

impl Sampler {
    fn saw(&mut self, source: &Source, seen: Seen) {
        self.seen.push_back(seen);
        if self.seen.len() > TURNS {
            self.seen.pop_front();
        }
        let sum = |of: fn(&Seen) -> u64| self.seen.iter().map(of).sum::<u64>();
        let (compared, differing) = (sum(|seen| seen.compared), sum(|seen| seen.differing));
        if compared > 0 {
            let name = source.name.to_string();
            let agreement = compared.saturating_sub(differing) as f64 / compared as f64;
            source.reporter.set(AgreementRatio { source: name.clone() }, agreement);
            let staleness = self.seen.iter().map(|seen| seen.staleness).fold(0.0, f64::max);
            source.reporter.set(StalenessSeconds { source: name }, staleness);
        }
    }
}

/// Time between two turns: the configured share of the slowest limit of requests, but no sooner than configured; `None`: never.
fn interval(audit: &Audit, limits: &[Limit]) -> Option<Duration> {
    if audit.share <= 0.0 {
        return None;
    }
    let per_second = |limit: &Limit| match limit.shape {
        Shape::Window(window) | Shape::Aligned(window) => limit.usable() as f64 / window.as_secs_f64(),
        Shape::Bucket { refill_per_second } => refill_per_second * limit.share,
    };
    let slowest = limits.iter().filter(|limit| limit.unit == Unit::Requests).map(per_second).fold(f64::INFINITY, f64::min);
    let by_quota = Duration::try_from_secs_f64(1.0 / (slowest * audit.share)).unwrap_or(Duration::ZERO);
    Some(by_quota.max(audit.every))
}

impl Reconciler {
    /// One turn, if it is due; how long until the next.
    pub(super) async fn sample(&mut self, cx: &Context, fence: &Fence) -> Result<Rest, Error> {
        let source = Arc::clone(&self.source);
        let Some(every) = interval(&source.settings.audit, source.limits.list()) else { return Ok(Rest::For(LOOK_EVERY)) };
        let now = source.clock.monotonic();
        let next = *self.sampler.next.get_or_insert(now + every);
        if next > now {
            return Ok(Rest::For(next - now));
        }
        self.sampler.next = Some(now + every);
        let endpoint = match source.connector.resources().first() {
            Some(spec) => source.connector.fetch(spec, &[], By::Bulk).endpoint,
            None => return Ok(Rest::For(LOOK_EVERY)),
        };
        // Only where one is to be had at once: what is asked for below takes one of its own.
        match source.limiter.acquire(Class::Audit, &endpoint, PATIENCE).await {
            Ok(permit) => permit.unused(),
            Err(_) => return Ok(Rest::Again),
        }
        match self.sampler.doubts.iter().position(|doubt| doubt.next <= now) {
            Some(at) => self.look_again(cx, fence, at).await?,
            None => self.look_at_some(cx, fence).await?,
        }
        Ok(Rest::Again)
    }

    /// A few rows of the next resource that was read completely once.
    async fn look_at_some(&mut self, cx: &Context, fence: &Fence) -> Result<(), Error> {
        let source = Arc::clone(&self.source);
        let specs = source.connector.resources();
        for _ in 0..specs.len() {
            self.sampler.turn = (self.sampler.turn + 1) % specs.len();
            let spec = &specs[self.sampler.turn];
            if source.lost_view(&spec.name).is_some() || source.store.progress(&source.name, &spec.name).await?.sweep_at.is_none() {
                continue;
            }
            let pool = self.sampler.pools.entry(spec.name.clone()).or_default();
            if pool.is_empty() {
                *pool = source.store.random_keys(&source.name, &spec.name, POOL).await?;
            }
            let n = if spec.bulk > 1 { ROWS } else { 1 };
            let keys = pool.split_off(pool.len().saturating_sub(n));
            if keys.is_empty() {
                continue;
            }
            let looked = look(&source, cx, fence, spec, &keys, By::Bulk).await?;
            let wait = source.clock.monotonic() + settle(&source, spec);
            for (key, found, _) in looked.findings {
                if self.sampler.doubts.len() < DOUBTS_MAX {
                    let (resource, fingerprint) = (spec.name.clone(), found.fingerprint);
                    self.sampler.doubts.push_back(Doubt { resource, key, fingerprint, next: wait, tries: 0 });
                }
            }
            self.sampler.saw(&source, Seen { compared: looked.compared.len() as u64, ..Seen::default() });
            return Ok(());
        }
        Ok(())
    }

    /// One that differed, by its key.
    async fn look_again(&mut self, cx: &Context, fence: &Fence, at: usize) -> Result<(), Error> {
        let source = Arc::clone(&self.source);
        let Some(mut doubt) = self.sampler.doubts.remove(at) else { return Ok(()) };
        let Some(spec) = source.spec(&doubt.resource) else { return Ok(()) };
        let looked = look(&source, cx, fence, spec, std::slice::from_ref(&doubt.key), By::Key).await?;
        doubt.tries += 1;
        doubt.next = source.clock.monotonic() + settle(&source, spec);
        let Some((key, found, is_open)) = looked.findings.into_iter().next() else {
            // Without an answer it is asked again; else it agrees by now.
            if looked.compared.is_empty() && looked.outside.is_empty() && doubt.tries < TRIES {
                self.sampler.doubts.push_back(doubt);
            }
            return Ok(());
        };
        // Of what has an open mark the daemon knows.
        if found.fingerprint != doubt.fingerprint || is_open {
            if doubt.tries < TRIES {
                self.sampler.doubts.push_back(Doubt { fingerprint: found.fingerprint, ..doubt });
            }
            return Ok(());
        }
        let (name, resource, kind) = (source.name.to_string(), spec.name.to_string(), found.kind.name().to_owned());
        source.reporter.emit(RowDiffered { source: name, resource, kind });
        source.store.distrust(fence, &spec.name, &[key]).await?;
        source.wake([&spec.name]);
        let stamp = found.upstream.as_deref().filter(|_| found.kind == Kind::Stale).and_then(Timestamp::parse);
        let staleness = stamp.map_or(0.0, |stamp| source.clock.now().since(stamp).as_secs_f64());
        self.sampler.saw(&source, Seen { differing: 1, staleness, ..Seen::default() });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::{Limits, QuotaShare};

    #[test]
    fn a_turn_comes_as_often_as_the_share_of_the_slowest_limit_says() {
        let limits = Limits::productive("435", "main", QuotaShare::default()).expect("valid");
        let audit = Audit::default();
        let at = |audit: Audit| interval(&audit, limits.list());
        assert_eq!(at(audit), Some(Duration::from_secs(75)), "a hundredth of 2,400 in half an hour");
        assert_eq!(at(Audit { share: 0.5, ..audit }), Some(Duration::from_secs(60)), "no sooner than once a minute");
        assert_eq!(at(Audit { share: 0.5, every: Duration::from_secs(1) }), Some(Duration::from_millis(1_500)));
        assert_eq!(at(Audit { share: 0.0, ..audit }), None);
        assert_eq!(interval(&audit, &[]), Some(Duration::from_secs(60)));
    }
}
