//! `verify`: compares the replica with the upstream, in portions that hold no state here.
//!
//! Whoever asks walks: it says which page or which keys, and gets what differs and where to go on. So nothing here outlives a request,
//! a lost connection costs one portion, and what is remembered is remembered by who asked. Nothing that is read is applied.
//!
//! What differs in one look is a suspicion. It counts once a later read by key, the resource's lag and the time of a delivery apart,
//! shows the same difference between the same two states; the fingerprint of a finding says whether it is the same.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::ask::{Answer, AskError};
use super::control::{text, unavailable};
use super::source::{LiveMode, Source};
use super::status::Desk;
use crate::connectors::{Asked, ListQuery, Page, ReadError, Record, ResourceSpec, Response};
use crate::http::admin::ControlError;
use crate::model::agreement::{Compared, Difference, Held, Upstream, difference};
use crate::model::ordering::By;
use crate::model::{Key, ResourceName};
use crate::quota::Class;
use crate::store::{self, Fence, Replica, ResourceRules};
use crate::supervision::Context;

/// Keys that one portion reads or marks: their names fit into the body of a verb.
const KEYS_MAX: usize = 100;
/// Keys of the replica named in one portion.
const NAMES_MAX: u64 = 5_000;
/// Keys read alone at once.
const AT_ONCE: usize = 4;
/// No further read is begun in a portion after this: with a wait for a permit and an answer it ends well before its caller's patience.
const BEGIN_WITHIN: Duration = Duration::from_secs(20);
/// For a delivery to come and its read to be applied, beside the lag.
const DELIVERY: Duration = Duration::from_secs(10);
/// When whoever was refused asks again.
const AGAIN: Duration = Duration::from_secs(1);

/// How the replica is compared with the upstream unasked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Audit {
    /// Part of the requests that go into it; 0: none.
    pub share: f64,
    /// Shortest time between two of them.
    pub every: Duration,
}

impl Default for Audit {
    fn default() -> Self {
        Self { share: 0.01, every: Duration::from_secs(60) }
    }
}

/// What differs, by key.
pub(super) type Findings = Vec<(Key, Difference, bool)>;

/// What a look at records found.
#[derive(Default)]
pub(super) struct Looked {
    /// Keys that were compared.
    pub(super) compared: Vec<Key>,
    /// Records that are not to be held, and are not.
    pub(super) outside: Vec<Key>,
    /// What differs, and whether a mark is open.
    pub(super) findings: Findings,
    /// Records that cannot be read, which say nothing.
    pub(super) unreadable: Vec<Key>,
    /// Keys that there was no time or no answer for.
    pub(super) left: Vec<Key>,
    /// Why there was no answer, of one of them.
    pub(super) why: Option<String>,
}

impl Desk {
    /// One portion.
    pub(super) async fn verify(&self, source: &Source, request: &Value) -> Result<Value, ControlError> {
        if text(request, "do") == "plan" {
            return plan(source, text(request, "resource")).await;
        }
        let spec = ResourceName::new(text(request, "resource")).ok().and_then(|name| source.spec(&name));
        let spec = spec.ok_or_else(|| ControlError::Invalid(format!("there is no resource `{}`", text(request, "resource"))))?;
        let Some(fence) = source.fence_now() else { return Ok(again("the source has no owner yet")) };
        if source.lost_view(&spec.name).is_some() {
            return Err(ControlError::Conflict(format!("the upstream does not show {} any more: nothing can be compared", spec.name)));
        }
        let cx = self.context();
        match text(request, "do") {
            "page" => page(source, &cx, &fence, spec, request).await,
            "names" => {
                let after = Key::new(text(request, "after")).ok();
                let keys = source.store.live_keys(&source.name, &spec.name, after.as_ref(), NAMES_MAX).await.map_err(unavailable)?;
                Ok(json!({ "more": keys.len() as u64 == NAMES_MAX, "keys": names(&keys) }))
            }
            "random" => {
                let n = request.get("n").and_then(Value::as_u64).unwrap_or(0).min(NAMES_MAX);
                let keys = source.store.random_keys(&source.name, &spec.name, n).await.map_err(unavailable)?;
                Ok(json!({ "keys": names(&keys) }))
            }
            "look" => {
                let by = if text(request, "by") == "bulk" { By::Bulk } else { By::Key };
                let looked = look(source, &cx, &fence, spec, &keys(request)?, by).await;
                looked.map(|looked| shown(&looked)).map_err(unavailable)
            }
            "marks" => {
                let held = source.store.replicas(&source.name, &spec.name, &keys(request)?).await.map_err(unavailable)?;
                let open: Vec<&str> = held.iter().filter(|(_, held)| held.mark.is_some()).map(|(key, _)| key.as_str()).collect();
                Ok(json!({ "open": open }))
            }
            "repair" => {
                let keys = keys(request)?;
                source.store.distrust(&fence, &spec.name, &keys).await.map_err(unavailable)?;
                source.wake([&spec.name]);
                Ok(json!({ "marked": keys.len() }))
            }
            other => Err(ControlError::Invalid(format!("there is nothing called `{other}` to do"))),
        }
    }
}

/// What there is to compare, and how long a difference has to stand.
async fn plan(source: &Source, wanted: &str) -> Result<Value, ControlError> {
    let mut resources = Vec::new();
    for spec in source.connector.resources().iter().filter(|spec| wanted.is_empty() || spec.name.as_str() == wanted) {
        let rows = source.store.live_rows(&source.name, &spec.name).await.map_err(unavailable)?;
        resources.push(json!({
            "resource": spec.name.as_str(), "rows": rows, "settle_ms": settle(source, spec).as_millis() as u64,
            "keys_a_look": spec.bulk.clamp(1, KEYS_MAX),
        }));
    }
    if resources.is_empty() {
        return Err(ControlError::Invalid(format!("source `{}` has no resource `{wanted}`", source.name)));
    }
    Ok(json!({ "resources": resources }))
}

/// How long a difference has to stand before it counts: reads may lag so long, and so long a change may take to be heard of.
pub(super) fn settle(source: &Source, spec: &ResourceSpec) -> Duration {
    let heard = match source.live_mode() {
        LiveMode::Webhooks { .. } | LiveMode::Unwatched => Duration::ZERO,
        LiveMode::PollOnly if source.settings.feeds && !source.connector.feeds().is_empty() => source.settings.feed_poll,
        LiveMode::PollOnly if source.settings.passes => spec.poll + spec.spans.list_lag,
        LiveMode::PollOnly => Duration::ZERO,
    };
    spec.spans.read_lag + heard + DELIVERY
}

async fn page(source: &Source, cx: &Context, fence: &Fence, spec: &ResourceSpec, request: &Value) -> Result<Value, ControlError> {
    let number = |name: &str| request.get(name).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let (variant, cursor) = (number("variant"), request.get("cursor").and_then(Value::as_str));
    if variant >= spec.variants {
        return Err(ControlError::Invalid(format!("there is no list {variant} of {}", spec.name)));
    }
    let query = ListQuery { variant, since: None, cursor, halvings: u32::try_from(number("halvings")).unwrap_or(u32::MAX) };
    let asked = source.connector.list(spec, query);
    let read = |response: &Response| source.connector.read(spec, Asked::Page(query), response);
    let page = match source.ask(cx, fence, Class::Audit, &asked, read).await {
        Ok(Answer { what: page, .. }) => page,
        Err((error, _)) if error.is_too_large() => return Ok(json!({ "halve": true })),
        Err((error @ AskError::Read(ReadError::CursorRefused | ReadError::Unsupported | ReadError::Denied(_)), _)) => {
            return Err(ControlError::Conflict(format!("the list of {} cannot be walked: {error}", spec.name)));
        }
        Err((error, _)) => return Ok(again(&error.to_string())),
    };
    let next = match &page.next {
        Some(cursor) => json!({ "variant": variant, "cursor": cursor }),
        None if variant + 1 < spec.variants => json!({ "variant": variant + 1 }),
        None => Value::Null,
    };
    let looked = compare(source, spec, page, &[]).await.map_err(unavailable)?;
    let mut answer = shown(&looked);
    answer["next"] = next;
    Ok(answer)
}

/// Reads these keys and compares: in bulk, where an absence is asked for again by key, or each alone.
pub(super) async fn look(
    source: &Source,
    cx: &Context,
    fence: &Fence,
    spec: &ResourceSpec,
    keys: &[Key],
    by: By,
) -> Result<Looked, store::Error> {
    let in_bulk = by == By::Bulk && spec.bulk > 1 && !source.store.progress(&source.name, &spec.name).await?.bulk_unsupported;
    if !in_bulk {
        return look_alone(source, cx, fence, spec, keys).await;
    }
    let (now, later) = keys.split_at(source.connector.fitting(spec, keys).clamp(1, spec.bulk).min(keys.len()));
    let request = source.connector.fetch(spec, now, By::Bulk);
    let mut looked = match source.ask(cx, fence, Class::Audit, &request, |response| source.read_bulk(spec, now, response)).await {
        Ok(answer) => compare(source, spec, answer.what, now).await?,
        Err((AskError::Read(ReadError::Unsupported), _)) => return look_alone(source, cx, fence, spec, keys).await,
        Err((error, _)) if error.is_too_large() && now.len() > 1 => {
            let half = &now[..now.len() / 2];
            let mut looked = Box::pin(look(source, cx, fence, spec, half, By::Bulk)).await?;
            looked.left.extend_from_slice(&now[half.len()..]);
            looked
        }
        Err((error, _)) => Looked { left: now.to_vec(), why: Some(error.to_string()), ..Looked::default() },
    };
    looked.left.extend_from_slice(later);
    Ok(looked)
}

async fn look_alone(source: &Source, cx: &Context, fence: &Fence, spec: &ResourceSpec, keys: &[Key]) -> Result<Looked, store::Error> {
    let begun = source.clock.monotonic();
    let reads = keys.iter().cloned().map(|key| async move {
        let is_late = source.clock.monotonic().saturating_sub(begun) > BEGIN_WITHIN;
        let read = if is_late { None } else { Some(source.ask_key(cx, fence, Class::Audit, spec, &key).await) };
        (key, read)
    });
    let reads: Vec<_> = futures_util::stream::iter(reads).buffer_unordered(AT_ONCE).collect().await;
    let mut looked = Looked::default();
    for (key, read) in reads {
        let page = match read {
            Some(Ok((page, _))) => page,
            Some(Err((AskError::Read(ReadError::NotFound), _))) => Page::default(),
            Some(Err((error, _))) => {
                looked.left.push(key);
                looked.why = Some(error.to_string());
                continue;
            }
            None => {
                looked.left.push(key);
                continue;
            }
        };
        let one = compare(source, spec, page, std::slice::from_ref(&key)).await?;
        looked.compared.extend(one.compared);
        looked.outside.extend(one.outside);
        looked.findings.extend(one.findings);
        looked.unreadable.extend(one.unreadable);
    }
    Ok(looked)
}

/// Compares a page with the rows as they stand now, after it was read: what changed meanwhile looks different, and is looked at again.
/// Keys of `asked` that the page does not hold are not there upstream.
async fn compare(source: &Source, spec: &ResourceSpec, page: Page, asked: &[Key]) -> Result<Looked, store::Error> {
    let mut looked = Looked::default();
    let mut records: HashMap<Key, Option<Record>> = asked.iter().map(|key| (key.clone(), None)).collect();
    for record in page.records {
        match record {
            Ok(record) => drop(records.insert(record.key.clone(), Some(record))),
            Err(unreadable) => looked.unreadable.extend(unreadable.key),
        }
    }
    records.retain(|key, _| !looked.unreadable.contains(key));
    let keys: Vec<Key> = records.keys().cloned().collect();
    let held = source.store.replicas(&source.name, &spec.name, &keys).await?;
    let (volatile, roots) = (source.connector.volatile(spec), ResourceRules::of(spec).roots);
    for (key, record) in records {
        let replica = held.get(&key);
        // A record that is not to be held is, to the replica, one that is not there.
        let upstream = record.as_ref().filter(|record| record.in_scope);
        let found = one(upstream, replica, Compared { volatile: &volatile, roots: &roots });
        let is_open = replica.is_some_and(|replica| replica.mark.is_some());
        // A catalogue may be far larger than the scope: what agrees in not being held is no agreement to speak of.
        if found.is_none() && record.is_some_and(|record| !record.in_scope) {
            looked.outside.push(key);
            continue;
        }
        looked.findings.extend(found.map(|found| (key.clone(), found, is_open)));
        looked.compared.push(key);
    }
    Ok(looked)
}

fn one(record: Option<&Record>, replica: Option<&Replica>, compared: Compared<'_>) -> Option<Difference> {
    let upstream =
        record.map(|record| Upstream { version: record.version.as_ref(), hash: record.document.hash, text: &record.document.text });
    let held = replica.and_then(|replica| Some(Held { row: replica.row.as_ref()?, payload: replica.payload.as_deref() }));
    difference(upstream, held, compared)
}

fn shown(looked: &Looked) -> Value {
    let findings = looked.findings.iter().map(|(key, found, is_open)| {
        json!({
            "key": key.as_str(), "kind": found.kind.name(), "members": found.members, "upstream": found.upstream, "held": found.held,
            "fingerprint": found.fingerprint, "open": is_open,
        })
    });
    json!({
        "compared": names(&looked.compared), "outside": names(&looked.outside), "findings": findings.collect::<Vec<_>>(), "unreadable": names(&looked.unreadable),
        "left": names(&looked.left), "why": looked.why, "again_ms": looked.why.as_ref().map(|_| AGAIN.as_millis() as u64),
    })
}

fn names(keys: &[Key]) -> Vec<&str> {
    keys.iter().map(Key::as_str).collect()
}

fn again(why: &str) -> Value {
    json!({ "again_ms": AGAIN.as_millis() as u64, "why": why })
}

fn keys(request: &Value) -> Result<Vec<Key>, ControlError> {
    let keys = request.get("keys").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if keys.is_empty() || keys.len() > KEYS_MAX {
        return Err(ControlError::Invalid(format!("keys are a list of 1 to {KEYS_MAX}")));
    }
    let key = |key: &Value| key.as_str().and_then(|key| Key::new(key).ok()).ok_or_else(|| ControlError::Invalid("a key is none".into()));
    keys.iter().map(key).collect()
}
