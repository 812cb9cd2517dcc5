//! Asks the daemon for one portion after another. Everything that is remembered is remembered here, within bounds.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use serde_json::{Value, json};

use super::doubts::{Doubts, Finding};
use super::show::{Outcome, Progress};
use super::{Args, Stop};
use crate::cli::client;
use crate::clock::Clock;
use crate::config::Config;

/// A daemon that is not there, or has no time for this, is asked again for so long: it may be restarting.
const ABSENCE: Duration = Duration::from_secs(60);
/// An upstream that gives no answer, or a quota without room, is waited for so long: longer than the longest common window.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// Between two tries.
const RETRY: Duration = Duration::from_secs(1);
/// Keys of one look or mark.
const KEYS: usize = 50;
/// Doubts that are remembered at once; beyond it they are settled before the walk goes on.
const DOUBTS_MAX: usize = 2_000;
/// Records of a list that are remembered, eight bytes each.
const SEEN_MAX: usize = 4_000_000;
/// Between two looks at marks that are to be worked off.
const MARKS_EVERY: Duration = Duration::from_millis(500);
/// Marks that do not become fewer for so long, beside the time a difference has to stand, are not waited for.
const MARKS_PATIENCE: Duration = Duration::from_secs(120);
/// A row that differs again after its repair is repaired so often.
const ROUNDS: u32 = 3;

/// One resource of a source, and how it is walked.
pub(super) struct Walk<'a> {
    pub(super) config: &'a Config,
    pub(super) clock: Clock,
    pub(super) args: &'a Args,
    pub(super) settle: Duration,
    /// Live rows, for the progress.
    pub(super) rows: u64,
    pub(super) outcome: Outcome,
    pub(super) progress: &'a mut Progress,
    /// Takes each difference that counts.
    pub(super) tell: &'a mut dyn FnMut(&Outcome, &Finding),
    doubts: Doubts,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        config: &'a Config,
        clock: Clock,
        args: &'a Args,
        (settle, rows): (Duration, u64),
        outcome: Outcome,
        progress: &'a mut Progress,
        tell: &'a mut dyn FnMut(&Outcome, &Finding),
    ) -> Self {
        Self { config, clock, args, settle, rows, outcome, progress, tell, doubts: Doubts::default() }
    }

    /// Walks the whole list, then the keys of the replica: what the list did not hold may be too much here.
    pub(super) async fn all(mut self) -> Result<Outcome, Stop> {
        let mut seen: HashSet<u64> = HashSet::new();
        let (mut at, mut halvings) = (json!({ "variant": 0 }), 0);
        while !at.is_null() {
            let further = json!({ "do": "page", "variant": at["variant"], "cursor": at["cursor"], "halvings": halvings });
            let page = self.ask(further).await?;
            if page["halve"] == true {
                halvings += 1;
                if halvings > 16 {
                    return Err(Stop::Refused("a record is larger than an answer may be: verify it with --sample".to_owned()));
                }
                continue;
            }
            for key in texts(&page["compared"]).chain(texts(&page["unreadable"])) {
                seen.insert(hash(key));
            }
            if seen.len() > SEEN_MAX {
                return Err(Stop::Refused(format!("the list has more than {SEEN_MAX} records: verify with --sample")));
            }
            self.outcome.n_unreadable += texts(&page["unreadable"]).count() as u64;
            self.outcome.compared = (seen.len() as u64).saturating_sub(self.outcome.n_unreadable);
            self.take(&page)?;
            self.make_room().await?;
            at = page["next"].clone();
        }
        let mut after = Value::Null;
        loop {
            let names = self.ask(json!({ "do": "names", "after": after })).await?;
            for key in texts(&names["keys"]).filter(|key| !seen.contains(&hash(key))) {
                self.outcome.compared += 1;
                self.doubts.doubt(key, None, self.clock.monotonic(), self.settle);
                self.make_room().await?;
            }
            after = texts(&names["keys"]).last().map_or(Value::Null, Value::from);
            if names["more"] != true {
                break;
            }
        }
        self.end().await
    }

    /// Looks at `n` live rows, chosen at random.
    pub(super) async fn sample(mut self, n: u64, keys_a_look: usize) -> Result<Outcome, Stop> {
        self.rows = n;
        let chosen = self.ask(json!({ "do": "random", "n": n })).await?;
        let mut left: Vec<String> = texts(&chosen["keys"]).map(str::to_owned).collect();
        let mut refused_since = None;
        while !left.is_empty() {
            let part: Vec<String> = left.drain(..left.len().min(keys_a_look)).collect();
            let looked = self.ask(json!({ "do": "look", "by": "bulk", "keys": part })).await?;
            self.outcome.compared += texts(&looked["compared"]).count() as u64;
            self.outcome.n_unreadable += texts(&looked["unreadable"]).count() as u64;
            self.take(&looked)?;
            self.make_room().await?;
            if texts(&looked["compared"]).count() > 0 {
                refused_since = None;
            } else {
                let since = *refused_since.get_or_insert(self.clock.monotonic());
                self.rest(&looked, since, PATIENCE).await?;
            }
            left.splice(0..0, texts(&looked["left"]).map(str::to_owned));
        }
        self.end().await
    }

    fn take(&mut self, looked: &Value) -> Result<(), Stop> {
        for finding in findings(looked)? {
            let key = finding.key.clone();
            self.doubts.doubt(&key, Some(finding), self.clock.monotonic(), self.settle);
        }
        let what = format!("verify {} {}", self.outcome.source, self.outcome.resource);
        self.progress.tell(&what, self.outcome.compared, self.rows);
        Ok(())
    }

    async fn make_room(&mut self) -> Result<(), Stop> {
        if self.doubts.len() >= DOUBTS_MAX { self.settle().await } else { Ok(()) }
    }

    async fn end(mut self) -> Result<Outcome, Stop> {
        self.settle().await?;
        self.progress.clear();
        Ok(self.outcome)
    }

    /// Looks again by key until no doubt is left, and repairs what is to be repaired.
    async fn settle(&mut self) -> Result<(), Stop> {
        self.look_again().await?;
        let confirmed = std::mem::take(&mut self.doubts.confirmed);
        for finding in &confirmed {
            (self.tell)(&self.outcome, finding);
            self.outcome.found(finding.clone());
        }
        if self.args.repair {
            let mut wrong: Vec<String> = confirmed.into_iter().map(|finding| finding.key).collect();
            let before = self.doubts.n_agreed;
            for _ in 0..ROUNDS {
                if wrong.is_empty() {
                    break;
                }
                wrong = self.repair(wrong).await?;
            }
            // What could not be read since is not known to be right.
            self.outcome.n_repaired += self.doubts.n_agreed - before;
            self.outcome.unrepaired.add(wrong);
        }
        self.outcome.unsettled.add(std::mem::take(&mut self.doubts.unsettled));
        self.outcome.unread.add(std::mem::take(&mut self.doubts.unread));
        Ok(())
    }

    async fn look_again(&mut self) -> Result<(), Stop> {
        while let Some(next) = self.doubts.next() {
            let wait = next.saturating_sub(self.clock.monotonic());
            let what = format!("verify {} {}: {} to be looked at again", self.outcome.source, self.outcome.resource, self.doubts.len());
            self.progress.tell(&what, self.outcome.compared, self.rows);
            if !wait.is_zero() {
                tokio::time::sleep(wait.min(RETRY)).await;
                continue;
            }
            let keys = self.doubts.due(self.clock.monotonic(), KEYS);
            let looked = self.ask(json!({ "do": "look", "keys": keys })).await?;
            let now = self.clock.monotonic();
            let findings = findings(&looked)?;
            let different: HashSet<&str> = findings.iter().map(|finding| finding.key.as_str()).collect();
            let seen = ["compared", "outside", "unreadable"].into_iter().flat_map(|of| texts(&looked[of]));
            seen.filter(|key| !different.contains(key)).for_each(|key| self.doubts.agrees(key));
            texts(&looked["left"]).for_each(|key| self.doubts.failed(key, now));
            for finding in findings {
                self.doubts.differs(finding, now, self.settle);
            }
        }
        Ok(())
    }

    /// Has the daemon read these again and waits until it has; those that differ all the same.
    async fn repair(&mut self, wrong: Vec<String>) -> Result<Vec<String>, Stop> {
        for keys in wrong.chunks(KEYS) {
            self.ask(json!({ "do": "repair", "keys": keys })).await?;
        }
        let (mut open, mut fewest, mut since) = (wrong.clone(), wrong.len(), self.clock.monotonic());
        loop {
            let mut still = Vec::new();
            for keys in open.chunks(KEYS) {
                let marks = self.ask(json!({ "do": "marks", "keys": keys })).await?;
                still.extend(texts(&marks["open"]).map(str::to_owned));
            }
            open = still;
            let what = format!("verify {} {}: repairing", self.outcome.source, self.outcome.resource);
            self.progress.tell(&what, (wrong.len() - open.len()) as u64, wrong.len() as u64);
            let now = self.clock.monotonic();
            if open.len() < fewest {
                (fewest, since) = (open.len(), now);
            }
            if open.is_empty() || now.saturating_sub(since) > self.settle + MARKS_PATIENCE {
                break;
            }
            tokio::time::sleep(MARKS_EVERY).await;
        }
        let now = self.clock.monotonic();
        let closed = wrong.iter().filter(|key| !open.contains(key));
        closed.for_each(|key| self.doubts.doubt(key, None, now, self.settle));
        self.look_again().await?;
        let again = std::mem::take(&mut self.doubts.confirmed);
        Ok(open.into_iter().chain(again.into_iter().map(|finding| finding.key)).collect())
    }

    /// One portion. A daemon that does not answer, or cannot now, is asked again.
    async fn ask(&mut self, mut request: Value) -> Result<Value, Stop> {
        request["source"] = self.outcome.source.as_str().into();
        request["resource"] = self.outcome.resource.as_str().into();
        let begun = self.clock.monotonic();
        loop {
            match client::control(self.config, "verify", &request).await {
                Ok(answer) if answer.get("again_ms").is_some_and(Value::is_u64) && answer.get("compared").is_none() => {
                    self.rest(&answer, begun, PATIENCE).await?;
                }
                Ok(answer) => return Ok(answer),
                Err(error) if error.may_pass() && self.clock.monotonic().saturating_sub(begun) < ABSENCE => {
                    tokio::time::sleep(RETRY).await;
                }
                Err(client::Error::Refused(reason)) => return Err(Stop::Refused(reason)),
                Err(error) => return Err(Stop::Absent(error)),
            }
        }
    }

    /// Waits before the next try, unless that has lasted too long.
    async fn rest(&mut self, answer: &Value, since: Duration, patience: Duration) -> Result<(), Stop> {
        let why = answer["why"].as_str().unwrap_or("no answer").to_owned();
        if self.clock.monotonic().saturating_sub(since) > patience {
            return Err(Stop::Later(why));
        }
        self.progress.tell(&format!("verify waits: {why}"), self.outcome.compared, self.rows);
        tokio::time::sleep(answer["again_ms"].as_u64().map_or(RETRY, Duration::from_millis)).await;
        Ok(())
    }
}

fn findings(looked: &Value) -> Result<Vec<Finding>, Stop> {
    serde_json::from_value(looked["findings"].clone()).map_err(|error| Stop::Refused(format!("the daemon is of another version: {error}")))
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// Two keys share one only by a chance of one in 2^64: an extra row would then be missed.
fn hash(key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}
