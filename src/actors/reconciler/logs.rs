//! Feeds that are ordered by numbers: walked by keyset ([`crate::reconcile::LogPosition`]), every row a mark, never a state.

use std::sync::Arc;

use super::{GIVEN_UP_REST, Reconciler};
use crate::actors::ask::{Answer, AskError};
use crate::clock::Timestamp;
use crate::connectors::{FeedPage, FeedPosition, FeedRow, FeedSpec, ReadError, Response, signature};
use crate::model::ResourceName;
use crate::quota::Class;
use crate::reconcile::{LogPage, LogPosition, LogProbe, LogShown, LogTurn, floor};
use crate::report::{FetchFailed, GapOpened};
use crate::store::{Error, FEED_BEGAN_LATE, Fence, LOG_RESTARTED, LearnedBy, LogLoss, LogStep, Observed, What};
use crate::supervision::Context;

/// Why a log is left alone for a while: nothing can be asked for above the last number.
const LEADS_NOWHERE: &str = "the feed says that there is more and shows no number above the last";
/// Without a number nobody knows where the log stands.
const UNNUMBERED: &str = "the newest row of the feed has no number that can be read";

/// What a feed of numbers is, beside its name.
#[derive(Clone, Copy)]
pub(super) struct LogOrder<'a> {
    pub(super) overlap: u64,
    pub(super) page: usize,
    pub(super) label: &'a str,
}

impl Reconciler {
    /// One page of a log, or where it stands.
    pub(super) async fn poll_log(&mut self, cx: &Context, fence: &Fence, feed: &FeedSpec, order: LogOrder<'_>) -> Result<(), Error> {
        let source = Arc::clone(&self.source);
        let Some(at) = source.store.log_position(&source.name, feed.name).await? else {
            return self.stand(cx, fence, feed, order).await;
        };
        let after = at.after(order.overlap);
        let position = FeedPosition::Number { after, page: order.page };
        let Some(page) = self.ask_feed(cx, fence, feed, position).await else { return Ok(()) };
        if self.is_another_log(order, &at, &page).await? {
            return self.begin_anew(cx, fence, feed, order, at).await;
        }
        let numbers = page.rows.iter().flatten().filter_map(|row| row.number);
        let shown = LogPage { asked: order.page, rows: page.rows.len(), highest: numbers.max(), more: page.next.is_some() };
        let widest = self.widest.entry(feed.name).or_default();
        let before = std::mem::replace(widest, shown.rows.max(*widest));
        let (to, is_complete, caught_up) = match at.turn(order.overlap, &shown, before) {
            LogTurn::On(to) => (to, false, false),
            LogTurn::Done { to, caught_up } => (to, true, caught_up),
            LogTurn::Probe => {
                let Some(newest) = self.ask_newest(cx, fence, feed).await else { return Ok(()) };
                match at.probed(order.overlap, &shown, newest) {
                    LogProbe::Walk(to) => (to, false, false),
                    LogProbe::Done(to) => (to, true, true),
                    LogProbe::Restarted(to) => return self.restart(fence, feed, order, at, to).await,
                }
            }
        };
        let leads_nowhere = is_complete && shown.more && shown.highest.is_none_or(|highest| highest <= after);
        let step = LogStep { is_complete, ..log_step(feed, order, Some(at), to) };
        self.step_log(fence, feed, order, step, page).await?;
        if leads_nowhere {
            source.ails(feed.name, Some(LEADS_NOWHERE.to_owned()));
            self.trouble.rest(feed.name, GIVEN_UP_REST);
            return Ok(());
        }
        self.trouble.over(feed.name);
        source.ails(feed.name, None);
        if caught_up {
            self.polled.insert(feed.name, source.clock.monotonic());
        }
        Ok(())
    }

    /// A log that was never polled is read from its newest row on: the backfill reads every record anyway, and begins after this.
    async fn stand(&mut self, cx: &Context, fence: &Fence, feed: &FeedSpec, order: LogOrder<'_>) -> Result<(), Error> {
        let source = Arc::clone(&self.source);
        let Some(newest) = self.ask_newest(cx, fence, feed).await else { return Ok(()) };
        let began = self.passes_began().await?;
        let lost = began.map(LogLoss::BeganLate);
        let step = LogStep { is_complete: true, lost, ..log_step(feed, order, None, LogPosition::at(newest)) };
        self.step_log(fence, feed, order, step, FeedPage::default()).await?;
        self.trouble.over(feed.name);
        source.ails(feed.name, None);
        if began.is_some() {
            source.reporter.emit(GapOpened { source: source.name.to_string(), cause: FEED_BEGAN_LATE.to_owned() });
        }
        Ok(())
    }

    /// When the first pass began that may have read what changed before the log was first asked; `None`: none has.
    async fn passes_began(&mut self) -> Result<Option<Timestamp>, Error> {
        let source = Arc::clone(&self.source);
        let mut began: Option<Timestamp> = None;
        for spec in source.connector.resources() {
            let known = self.known(&spec.name).await?;
            let running = known.running.filter(|pass| pass.records > 0).map(|pass| pass.started_at);
            for at in known.progress.sweep_at.into_iter().chain(running) {
                began = Some(began.map_or(at, |began| began.min(at)));
            }
        }
        Ok(began)
    }

    /// Whether the number at which a log stands is another record's now.
    async fn is_another_log(&self, order: LogOrder<'_>, at: &LogPosition, page: &FeedPage) -> Result<bool, Error> {
        let is_there = |row: &&FeedRow| row.number == Some(at.high);
        let Some(event) = page.rows.iter().flatten().find(is_there).and_then(|row| row.event.as_ref()) else { return Ok(false) };
        let noted = self.source.store.noted_numbers(&self.source.name, order.label, &[at.high]).await?;
        let is_other = |(resource, key): &(String, String)| resource != event.entity.resource.as_str() || key != event.entity.key.as_str();
        Ok(noted.get(&at.high).is_some_and(is_other))
    }

    async fn begin_anew(
        &mut self,
        cx: &Context,
        fence: &Fence,
        feed: &FeedSpec,
        order: LogOrder<'_>,
        at: LogPosition,
    ) -> Result<(), Error> {
        let Some(newest) = self.ask_newest(cx, fence, feed).await else { return Ok(()) };
        self.restart(fence, feed, order, at, LogPosition::at(newest)).await
    }

    /// What the log said since its last poll is lost; it is read from its newest row on, and a sweep finds the rest.
    async fn restart(
        &mut self,
        fence: &Fence,
        feed: &FeedSpec,
        order: LogOrder<'_>,
        at: LogPosition,
        to: LogPosition,
    ) -> Result<(), Error> {
        let step = LogStep { is_complete: true, lost: Some(LogLoss::Restarted), ..log_step(feed, order, Some(at), to) };
        self.step_log(fence, feed, order, step, FeedPage::default()).await?;
        self.widest.remove(feed.name);
        self.shown.remove(feed.name);
        let source = &self.source;
        source.reporter.emit(GapOpened { source: source.name.to_string(), cause: LOG_RESTARTED.to_owned() });
        Ok(())
    }

    /// The number of the newest row; `Some(None)`: the log is empty. `None`: there was no answer.
    async fn ask_newest(&mut self, cx: &Context, fence: &Fence, feed: &FeedSpec) -> Option<Option<i64>> {
        let page = self.ask_feed(cx, fence, feed, FeedPosition::Newest).await?;
        let newest = page.rows.iter().flatten().filter_map(|row| row.number).max();
        if newest.is_none() && !page.rows.is_empty() {
            self.source.ails(feed.name, Some(UNNUMBERED.to_owned()));
            self.trouble.rest(feed.name, GIVEN_UP_REST);
            return None;
        }
        Some(newest)
    }

    async fn ask_feed(&mut self, cx: &Context, fence: &Fence, feed: &FeedSpec, position: FeedPosition<'_>) -> Option<FeedPage> {
        let source = Arc::clone(&self.source);
        let request = source.connector.feed(feed, position);
        let read = |response: &Response| source.connector.read_feed(feed, response);
        match source.ask(cx, fence, Class::Incremental, &request, read).await {
            Ok(Answer { what: page, .. }) => Some(page),
            Err((AskError::Stopping | AskError::NoPermit(_) | AskError::Read(ReadError::RateLimited), _)) => None,
            Err((error, _)) => {
                self.fails(feed.name, &error);
                let (source, resource) = (source.name.to_string(), feed.name.to_owned());
                self.source.reporter.emit(FetchFailed { source, resource, reason: "feed".into(), error: error.to_string() });
                None
            }
        }
    }

    /// Marks what the page's new rows speak of, notes their numbers and moves the log, in one transaction; of a page with more rows than
    /// one holds, in several, of which the last moves it.
    async fn step_log(
        &mut self,
        fence: &Fence,
        feed: &FeedSpec,
        order: LogOrder<'_>,
        mut step: LogStep,
        page: FeedPage,
    ) -> Result<(), Error> {
        let source = Arc::clone(&self.source);
        let (rows, unreadable): (Vec<_>, Vec<_>) = page.rows.into_iter().partition(Result::is_ok);
        let rows: Vec<FeedRow> = rows.into_iter().flatten().collect();
        let numbers: Vec<i64> = rows.iter().filter_map(|row| row.number).collect();
        let noted = source.store.noted_numbers(&source.name, order.label, &numbers).await?;
        let shown = self.shown.entry(feed.name).or_insert_with(|| LogShown::at(step.from.as_ref().unwrap_or(&step.to)));
        let mut n_first_told = 0;
        let observe = |row: FeedRow| {
            let event = row.event?;
            // One that is noted for another record goes on to be complained of.
            let is_noted = row
                .number
                .and_then(|number| noted.get(&number))
                .is_some_and(|(resource, key)| resource == event.entity.resource.as_str() && key == event.entity.key.as_str());
            n_first_told += usize::from(!is_noted);
            // What a delivery told before marks nothing, but the log has told of it too.
            let is_said = !is_noted || row.number.is_some_and(|number| shown.is_news(number));
            let observed = Observed { entity: event.entity.clone(), what: What::Event(event), delivery: None };
            is_said.then_some(observed)
        };
        // A row that has no number is known by its bytes.
        let unreadable = unreadable.into_iter().filter_map(Result::err).map(|row| (signature::digest(&[&row.raw]), row));
        let unreadable: Vec<_> = unreadable.collect();
        let ids: Vec<String> = unreadable.iter().map(|(id, _)| id.clone()).collect();
        let seen = source.store.feed_seen(&source.name, feed.name, &ids).await?;
        let name = ResourceName::new(feed.name).expect("invariant: feeds are named like resources");
        let fresh = unreadable.into_iter().filter(|(id, _)| !seen.contains(id));
        let (ids, keyless): (Vec<_>, Vec<_>) = fresh.map(|(id, row)| (id, (name.clone(), row))).unzip();
        step.unreadable = ids;
        let observed: Vec<Observed> = rows.into_iter().filter_map(observe).collect();
        let mut observed = observed.into_iter().peekable();
        loop {
            let mut batch = source.batch(LearnedBy::Feed);
            batch.observations = crate::actors::ask::take_bounded(&mut observed);
            if observed.peek().is_some() {
                source.apply_batch(fence, batch).await?;
                continue;
            }
            batch.keyless = keyless;
            batch.log = Some(step);
            source.apply_batch(fence, batch).await?;
            source.unannounced(n_first_told);
            // As far as the next poll or page goes back.
            let most = usize::try_from(order.overlap).unwrap_or(usize::MAX).saturating_add(order.page.saturating_mul(2));
            self.shown.entry(feed.name).and_modify(|shown| shown.note(numbers, most));
            return Ok(());
        }
    }
}

/// A step that loses nothing and completes nothing.
fn log_step(feed: &FeedSpec, order: LogOrder<'_>, from: Option<LogPosition>, to: LogPosition) -> LogStep {
    LogStep {
        feed: feed.name.to_owned(),
        label: order.label.to_owned(),
        from,
        to,
        floor: floor(to.high, order.overlap),
        is_complete: false,
        lost: None,
        unreadable: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
