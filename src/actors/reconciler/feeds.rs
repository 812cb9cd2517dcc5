//! Event feeds: polled with a durable cursor, every row a mark, never a state.

use std::sync::Arc;
use std::time::Duration;

use super::logs::LogOrder;
use super::{GIVEN_UP_REST, LEADS_BACK, Reconciler};
use crate::actors::ask::{Answer, AskError};
use crate::clock::Timestamp;
use crate::connectors::{FeedOrder, FeedPage, FeedPosition, FeedRow, FeedSpec, ReadError, Response};
use crate::model::ResourceName;
use crate::quota::Class;
use crate::reconcile::FUTURE_TOLERANCE;
use crate::report::FetchFailed;
use crate::store::{Error, FeedCursor, FeedStep, Fence, LearnedBy, Observed, What};
use crate::supervision::{Context, Rest};

impl Reconciler {
    /// One page of the first feed that is due; how long the others wait.
    pub(super) async fn poll_feeds(&mut self, cx: &Context, fence: &Fence) -> Result<Rest, Error> {
        let source = Arc::clone(&self.source);
        let mut soonest = source.settings.feed_poll;
        if !source.settings.feeds {
            return Ok(Rest::For(soonest));
        }
        for feed in source.connector.feeds() {
            if let Some(rest) = self.trouble.rests(feed.name) {
                soonest = soonest.min(rest);
                continue;
            }
            let now = source.clock.monotonic();
            let polled_at = self.polled.get(feed.name).copied();
            let left = polled_at.map_or(Duration::ZERO, |at| (at + source.settings.feed_poll).saturating_sub(now));
            if left.is_zero() {
                self.poll(cx, fence, feed).await?;
                return Ok(Rest::Again);
            }
            soonest = soonest.min(left);
        }
        Ok(Rest::For(soonest))
    }

    async fn poll(&mut self, cx: &Context, fence: &Fence, feed: &FeedSpec) -> Result<(), Error> {
        let source = Arc::clone(&self.source);
        let overlap = match &feed.order {
            FeedOrder::Stamps { overlap } => *overlap,
            FeedOrder::Numbers { overlap, page, label } => {
                return self.poll_log(cx, fence, feed, LogOrder { overlap: *overlap, page: *page, label }).await;
            }
        };
        let at = source.store.feed_cursor(&source.name, feed.name).await?;
        let began = source.clock.now();
        let since = at.as_ref().map_or(began, |from| from.since.unwrap_or(began).minus(overlap));
        let cursor = at.as_ref().and_then(|from| from.cursor.as_deref());
        let request = source.connector.feed(feed, FeedPosition::Stamp { since, cursor });
        let read = |response: &Response| source.connector.read_feed(feed, response);
        let answer = source.ask(cx, fence, Class::Incremental, &request, read).await.map_err(|(error, _)| error);
        let from = match (at, &answer) {
            (Some(from), _) => from,
            (None, Ok(answer)) => {
                // The backfill reads every record anyway, so the feed begins now; by the upstream's clock, for ours may be wrong by years.
                let to = FeedCursor { since: Some(answer.date.unwrap_or(began).minus(overlap)), cursor: None };
                return self.step(fence, feed, None, to, FeedPage::default()).await;
            }
            (None, Err(_)) => FeedCursor { since: None, cursor: None },
        };
        match answer {
            Ok(Answer { what: page, date, .. }) => {
                // A stamp may be wrong, too (2099 is real); neither is to make the feed silent.
                let believable = date.map_or(Timestamp(i64::MAX), |date| date.plus(FUTURE_TOLERANCE));
                if from.cursor.is_none() {
                    self.tours.remove(feed.name);
                }
                let tour = self.tours.entry(feed.name.to_owned()).or_default();
                if page.next.as_ref().is_some_and(|next| tour.leads_back(next)) {
                    // Its rows are noted, but nothing says that they are all: the next poll asks from the same bound.
                    self.step(fence, feed, Some(from.clone()), FeedCursor { since: from.since, cursor: None }, page).await?;
                    source.ails(feed.name, Some(LEADS_BACK.to_owned()));
                    self.trouble.rest(feed.name, GIVEN_UP_REST);
                    return Ok(());
                }
                self.trouble.over(feed.name);
                source.ails(feed.name, None);
                // The cursor's `since` moves only when a poll has met its last page: pages are asked for from one fixed bound.
                let highest = page.rows.iter().flatten().filter_map(|row| row.at).filter(|at| *at <= believable).max();
                let to = match &page.next {
                    Some(next) => FeedCursor { since: from.since, cursor: Some(next.clone()) },
                    None => FeedCursor { since: highest.max(from.since.map(|since| since.min(believable))), cursor: None },
                };
                self.step(fence, feed, Some(from), to, page).await
            }
            Err(AskError::Stopping | AskError::NoPermit(_) | AskError::Read(ReadError::RateLimited)) => Ok(()),
            Err(AskError::Read(ReadError::CursorRefused)) if from.cursor.is_some() => {
                let to = FeedCursor { since: from.since, cursor: None };
                self.step(fence, feed, Some(from), to, FeedPage::default()).await
            }
            Err(error) => {
                self.fails(feed.name, &error);
                let (source, resource) = (source.name.to_string(), feed.name.to_owned());
                self.source.reporter.emit(FetchFailed { source, resource, reason: "feed".into(), error: error.to_string() });
                Ok(())
            }
        }
    }

    /// Marks what the page's new rows speak of and moves the cursor, in one transaction.
    async fn step(
        &mut self,
        fence: &Fence,
        feed: &FeedSpec,
        from: Option<FeedCursor>,
        to: FeedCursor,
        page: FeedPage,
    ) -> Result<(), Error> {
        let source = &self.source;
        let (rows, unreadable): (Vec<_>, Vec<_>) = page.rows.into_iter().partition(Result::is_ok);
        let rows: Vec<FeedRow> = rows.into_iter().flatten().collect();
        let ids: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
        let seen = source.store.feed_seen(&source.name, feed.name, &ids).await?;
        let fresh: Vec<FeedRow> = rows.into_iter().filter(|row| !seen.contains(&row.id)).collect();
        let mut batch = source.batch(LearnedBy::Feed);
        batch.feed =
            Some(FeedStep { feed: feed.name.to_owned(), from, to: to.clone(), seen: fresh.iter().map(|row| row.id.clone()).collect() });
        let name = ResourceName::new(feed.name).expect("invariant: feeds are named like resources");
        batch.keyless = unreadable.into_iter().filter_map(Result::err).map(|row| (name.clone(), row)).collect();
        let observe = |row: FeedRow| {
            let event = row.event?;
            Some(Observed { entity: event.entity.clone(), what: What::Event(event), delivery: None })
        };
        batch.observations = fresh.into_iter().filter_map(observe).collect();
        source.apply_batch(fence, batch).await?;
        if to.cursor.is_none() {
            self.polled.insert(feed.name, source.clock.monotonic());
        }
        Ok(())
    }
}
