//! What vendors do otherwise than the standard, as data. Where a vendor's pages are silent the standard's way is taken.

use std::time::Duration;

/// How lists are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    /// From key to key, or from stamp to stamp; by links where that is refused.
    Keys,
    /// By the links that every page but the last has; `$top` is the size of a page.
    Links,
}

/// How the whole of a resource is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replication {
    /// As any other list.
    Plain,
    /// At a path of its own, changes too: `Property/replication`.
    Path,
    /// By a parameter, for sweeps: `replication=true`.
    Parameter,
}

/// What a vendor allows in any window of this length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// So much.
    pub amount: u64,
    /// In so long.
    pub per: Duration,
    /// Bytes of answers; else requests.
    pub is_bytes: bool,
}

/// One vendor.
#[derive(Debug, PartialEq, Eq)]
pub struct Profile {
    /// As written in the configuration.
    pub name: &'static str,
    /// How lists are walked.
    pub walk: Walk,
    /// How the whole of a resource is asked for.
    pub replication: Replication,
    /// Records of a page.
    pub page: usize,
    /// The same where related records come along.
    pub page_expanded: usize,
    /// Keys of a read of several; 1: there is none.
    pub bulk: usize,
    /// The field by which changes are found.
    pub timestamp: &'static str,
    /// A field that says whether we may still see the record.
    pub visible: Option<&'static str>,
    /// Whether every request has to name one originating system.
    pub needs_system: bool,
    /// How long a list may lag at least.
    pub list_lag: Duration,
    /// Resources without a collection of their own.
    pub expanded_only: &'static [&'static str],
    /// Whether the vendor is known to have the log of events.
    pub has_log: bool,
    /// Its limits.
    pub rates: &'static [Rate],
    /// The largest answer to be reckoned with, where bytes are limited.
    pub answer_bytes: u64,
}

const fn requests(amount: u64, seconds: u64) -> Rate {
    Rate { amount, per: Duration::from_secs(seconds), is_bytes: false }
}

const PLAIN: Profile = Profile {
    name: "plain",
    walk: Walk::Keys,
    replication: Replication::Plain,
    page: 1_000,
    page_expanded: 200,
    bulk: 100,
    timestamp: "ModificationTimestamp",
    visible: None,
    needs_system: false,
    list_lag: Duration::ZERO,
    expanded_only: &[],
    has_log: true,
    rates: &[],
    answer_bytes: 0,
};

/// A server of the standard, and the vendors whose pages are known.
pub const PROFILES: [Profile; 5] = [
    PLAIN,
    // Each request names one system; a record that we may no longer see comes once more, with its flag down, before it is gone.
    Profile {
        name: "mlsgrid",
        walk: Walk::Links,
        page: 1_000,
        page_expanded: 250,
        visible: Some("MlgCanView"),
        needs_system: true,
        expanded_only: &["Media", "PropertyRooms", "PropertyUnitTypes"],
        has_log: false,
        rates: &[
            requests(2, 1),
            requests(7_200, 3_600),
            requests(40_000, 86_400),
            Rate { amount: 4_000_000_000, per: Duration::from_secs(3_600), is_bytes: true },
        ],
        answer_bytes: 32 * 1024 * 1024,
        ..PLAIN
    },
    // What lies beyond ten thousand rows is served at the path for replication only, where a header leads to the next page.
    Profile {
        name: "bridge",
        walk: Walk::Links,
        replication: Replication::Path,
        page: 2_000,
        page_expanded: 2_000,
        timestamp: "BridgeModificationTimestamp",
        has_log: false,
        rates: &[requests(5_000, 3_600), requests(334, 60)],
        ..PLAIN
    },
    // Plain queries end at a million rows. A link dies after five idle minutes: the pass then begins again.
    Profile {
        name: "trestle",
        walk: Walk::Links,
        replication: Replication::Parameter,
        page_expanded: 300,
        has_log: false,
        rates: &[requests(180, 60), requests(7_200, 3_600)],
        ..PLAIN
    },
    // Its lists are served by caches: clients are told to overlap by twenty minutes.
    Profile {
        name: "spark",
        walk: Walk::Links,
        page_expanded: 300,
        list_lag: Duration::from_secs(20 * 60),
        has_log: false,
        rates: &[requests(1_500, 300)],
        ..PLAIN
    },
];

/// By name.
#[must_use]
pub fn profile(name: &str) -> Option<&'static Profile> {
    PROFILES.iter().find(|profile| profile.name == name)
}
