//! How long it takes until a gap opens where nothing is configured: each sender loses all webhooks for a minute. It takes minutes, so
//! that it is part of the long form alone; by arithmetic `daemon::sources` shows the same of every kind and way.

use std::time::Duration;

use serde_json::json;

use super::{CHANGES, EQUAL_WITHIN, SOON, mls, opened_within, outage, pim, productive, repaired, unannounced};
use crate::support::{self, Database, Mls, Pim, Setup, Universe, eventually, is_long, monotonic, on_both, until};

on_both!(
    productives_silence_is_noticed_within_five_minutes,
    a_pims_silence_is_noticed_within_five_minutes,
    a_producers_silence_is_noticed_within_five_minutes,
);

/// From the beginning of the loss until its gap is there.
const NOTICED_WITHIN: Duration = Duration::from_secs(5 * 60);

async fn productives_silence_is_noticed_within_five_minutes(database: Database) {
    if !is_long() {
        return;
    }
    let universe = Universe::started(database, &Setup { resources: vec![("tasks", "")], source: "", ..Setup::default() }).await;
    productive::create(&universe);
    let keys = universe.sandbox.keys("tasks").await;
    productive::change(&universe, &keys[CHANGES..CHANGES + 5], Duration::ZERO).await;
    universe.sandbox.quiet(SOON).await;
    universe.in_step(SOON).await;
    let loss = Loss::begins(&universe, "hooks_lost").await;
    productive::change(&universe, &keys[..CHANGES], outage()).await;
    loss.ends().await;
    universe.in_step(EQUAL_WITHIN).await;
    loss.noticed("pmp", CHANGES as u64).await;
}

async fn a_pims_silence_is_noticed_within_five_minutes(database: Database) {
    if !is_long() {
        return;
    }
    let pim = Pim { entities: 120, resources: vec![("products", "")], source: "", ..Pim::default() };
    let universe = pim.started(database).await;
    support::pim::subscribe(&universe, false, true).await;
    let keys = support::pim::keys(&universe.sandbox, "products", |product| product["enabled"] == true).await;
    pim::switch(&universe, &keys[CHANGES..CHANGES + 5], false, Duration::ZERO).await;
    universe.sandbox.quiet(SOON).await;
    support::pim::in_step(&universe, &["products"], SOON).await;
    // A PIM's stamps are cut to seconds: what changes within the second of the first delivery may be from before it.
    until(monotonic() + Duration::from_secs(1)).await;
    let loss = Loss::begins(&universe, "event_platform_lost").await;
    pim::switch(&universe, &keys[..CHANGES], false, outage()).await;
    loss.ends().await;
    support::pim::in_step(&universe, &["products"], EQUAL_WITHIN).await;
    loss.noticed("pim", CHANGES as u64).await;
}

async fn a_producers_silence_is_noticed_within_five_minutes(database: Database) {
    if !is_long() {
        return;
    }
    let universe = Mls { source: "", ..Mls::default() }.started(database).await;
    support::mls::subscribe(&universe).await;
    let keys: Vec<String> = support::mls::truth(&universe, "Property", "ListingKey").await.into_keys().collect();
    mls::change(&universe, &keys[CHANGES..CHANGES + 5], Duration::ZERO).await;
    universe.sandbox.quiet(SOON).await;
    support::mls::in_step(&universe, SOON).await;
    let before = super::logged(&universe).await;
    let loss = Loss::begins(&universe, "push_lost").await;
    mls::change(&universe, &keys[..CHANGES], outage()).await;
    loss.ends().await;
    let lost = unannounced(&universe, before).await;
    support::mls::in_step(&universe, EQUAL_WITHIN).await;
    loss.noticed("mls", lost).await;
}

/// A sender that loses every webhook.
struct Loss<'a> {
    universe: &'a Universe,
    fault: &'static str,
    began: Duration,
}

impl<'a> Loss<'a> {
    async fn begins(universe: &'a Universe, fault: &'static str) -> Self {
        universe.sandbox.control("faults", json!({ fault: 1.0 })).await;
        Self { universe, fault, began: monotonic() }
    }

    async fn ends(&self) {
        self.universe.sandbox.control("faults", json!({ self.fault: 0.0 })).await;
    }

    /// A gap opens in time and is repaired, and all of it is counted.
    async fn noticed(&self, source: &str, lost: u64) {
        let equal = monotonic() - self.began - outage();
        opened_within(self.universe, "silence", NOTICED_WITHIN.saturating_sub(monotonic() - self.began)).await;
        let noticed = monotonic() - self.began;
        repaired(self.universe, "silence").await;
        eventually("the missed changes are counted", NOTICED_WITHIN, async || {
            match self.universe.counted("webhooks_missed", source).await {
                n if n == lost => Ok(()),
                n => Err(format!("{n} counted, {lost} wanted")),
            }
        })
        .await;
        println!(
            "{:?}: {source} by its defaults: a gap {noticed:.1?} after the loss began, equal {equal:.1?} after it ended, {lost} missed",
            self.universe.database.engine
        );
    }
}
