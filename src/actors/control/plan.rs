//! `reconcile plan`: what passes would cost, before any runs.

use std::time::Duration;

use serde_json::{Value, json};

use super::passes::chosen;
use super::unavailable;
use crate::actors::source::Source;
use crate::actors::status::Desk;
use crate::connectors::ResourceSpec;
use crate::http::admin::ControlError;
use crate::quota::Class;
use crate::reconcile::{self, Mode};
use crate::store;

impl Desk {
    /// The requests of each pass, and the time that they take at least at the limits of their class.
    pub(super) async fn plan(&self, source: &Source, request: &Value) -> Result<Value, ControlError> {
        let (mut resources, mut sweeps, mut incrementals) = (Vec::new(), 0, 0);
        for spec in chosen(source, request)? {
            let planned = self.plan_of(source, spec).await.map_err(unavailable)?;
            sweeps += planned.sweep;
            incrementals += planned.incremental.unwrap_or(0);
            resources.push(planned.show(source, spec));
        }
        let feeds: Vec<&str> = source.connector.feeds().iter().filter(|_| source.settings.feeds).map(|feed| feed.name).collect();
        Ok(json!({
            "source": source.name.as_str(),
            "resources": resources,
            "sweeps": cost(source, Class::Sweep, sweeps, None),
            "incrementals": cost(source, Class::Incremental, incrementals, None),
            // A poll of a feed is one request, and a further one for each further page of what happened since.
            "feeds": { "names": feeds, "requests": feeds.len(), "every_s": source.settings.feed_poll.as_secs() },
        }))
    }

    async fn plan_of(&self, source: &Source, spec: &ResourceSpec) -> Result<Planned, store::Error> {
        let lists = source.connector.lists(spec);
        let rows = self.store.live_rows(&source.name, &spec.name).await?;
        let parents = if lists.above.is_some() { self.store.lists_below(&source.name, &spec.name).await? } else { 0 };
        let watermark = self.store.progress(&source.name, &spec.name).await?.watermark;
        let incremental = match watermark.filter(|_| spec.mode != Mode::Sweep) {
            Some(at) => {
                let since = reconcile::lower_bound(at, spec.spans.list_lag, spec.spans.read_lag);
                Some(lists.requests(self.store.changed_since(&source.name, &spec.name, since).await?, 0))
            }
            None => None,
        };
        Ok(Planned { rows, page: lists.page, sweep: lists.requests(rows, parents), incremental })
    }
}

/// Requests of the passes over a resource.
struct Planned {
    rows: u64,
    page: u64,
    sweep: u64,
    /// `None`: only sweeps find changes, or nothing was swept yet.
    incremental: Option<u64>,
}

impl Planned {
    fn show(&self, source: &Source, spec: &ResourceSpec) -> Value {
        json!({
            "resource": spec.name.as_str(),
            "live_rows": self.rows,
            "page": self.page,
            "sweep": cost(source, Class::Sweep, self.sweep, Some(spec.sweep)),
            "incremental": self.incremental.map(|requests| cost(source, Class::Incremental, requests, Some(spec.poll))),
        })
    }
}

fn cost(source: &Source, class: Class, requests: u64, every: Option<Duration>) -> Value {
    let seconds = source.limits.span(class, requests).as_secs_f64();
    json!({ "requests": requests, "seconds": seconds, "every_s": every.map(|every| every.as_secs()) })
}
