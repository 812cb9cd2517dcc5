//! Keys of `kind = "productive"` alone.

use std::time::Duration;

use url::Url;

use super::reader::Item;
use super::schema::{default, optional, required, section, table};
use super::secret::{Secret, Secrets};
use super::value::{Value, confidential, each, if_set, seconds, text, within, words};

/// Resources of a Productive source, by the vendor's names.
pub const RESOURCES: [&str; 22] = [
    "projects",
    "tasks",
    "task_lists",
    "boards",
    "people",
    "companies",
    "deals",
    "services",
    "bookings",
    "time_entries",
    "comments",
    "invoices",
    "payments",
    "expenses",
    "workflows",
    "workflow_statuses",
    "custom_fields",
    "custom_field_options",
    "memberships",
    "pages",
    "todos",
    "task_dependencies",
];

section! {
    /// An organisation on Productive.io.
    pub struct Productive {
        /// Number of the organisation, as in the address of its pages.
        organization: u64 = required("12345"), within(1..=u64::MAX);
        /// Where its API is; another address is for a sandbox or a proxy.
        url: Url = default("\"https://api.productive.io/api/v2/\""), confidential;
        /// Read-only token of a user who sees everything: the replica holds what its user may see.
        token: Secret = required("{ credential = \"productive-read\" }");
        /// Token for /webhooks and nothing else. Not set: registrations are neither made nor watched.
        manage_token: Option<Secret> = optional("{ credential = \"productive-write\" }");
        /// Signature tokens of webhooks made by hand. Those that `instep hooks create` makes are kept by the daemon.
        secrets: Secrets = default("[]");
        /// Part of the rate limits that the daemon uses; the rest is for other clients. A single number is for both.
        quota_share: QuotaShare = table();
        /// Rate limits in place of the vendor's published ones (100/10s a token; 4000/30m and 30m of server time an hour an organisation).
        quota: Option<Vec<Quota>> = optional(
            "[{ requests = 100, per = \"10s\", scope = \"token\" }, { server_time = \"30m\", per = \"1h\", scope = \"organization\" }, { concurrent = 8 }]"), if_set(some_quota);
        /// JSON pointers, with * for any run of characters but /, that are cut before hashing and storing: what a replica of
        /// project data should not spread.
        exclude: Vec<String> = default("[\"/attributes/*cost*\", \"/attributes/*salar*\", \"/attributes/*margin*\"]"), each(text(pointer));
        /// Whether the event feeds (activities, deleted_items, time_entry_versions) are polled: without hooks they are the fast way.
        feeds: bool = default("true");
        /// How often each of them is.
        feed_poll: Duration = default("\"30s\""), within(seconds(1)..=seconds(86_400));
        /// Greatest age of a signed hook. Not set: any, because the vendor's retries keep their first stamp or do not, which is not known.
        signature_tolerance: Option<Duration> = optional("\"5m\""), if_set(within(seconds(1)..=seconds(86_400)));
    }
}

section! {
    /// Part of the limits that is ours.
    pub struct QuotaShare [or number_for_both] {
        /// Of a token's limit: the token is ours alone.
        token: f64 = default("0.9"), within(0.01..=1.0);
        /// Of the organisation's limit: everyone else's tokens count there too.
        organization: f64 = default("0.6"), within(0.01..=1.0);
    }
}

words! {
    /// Whose limit it is.
    pub enum QuotaScope {
        /// The token's.
        Token = "token",
        /// The organisation's.
        Organization = "organization",
    }
}

section! {
    /// One rate limit: one of requests, server_time and concurrent.
    pub struct Quota {
        /// So many requests in any window.
        requests: Option<u64> = optional("100"), if_set(within(1..=1_000_000_000));
        /// So much server time in an aligned window.
        server_time: Option<Duration> = optional("\"30m\""), if_set(within(seconds(1)..=seconds(86_400)));
        /// So many requests at once.
        concurrent: Option<u64> = optional("8"), if_set(within(1..=1000));
        /// Length of the window; with requests and server_time.
        per: Option<Duration> = optional("\"10s\""), if_set(within(Duration::from_millis(1)..=seconds(31 * 86_400)));
        /// Whose limit it is.
        scope: QuotaScope = default("\"token\"");
    }
}

fn number_for_both(item: &Item<'_>) -> Option<Option<QuotaShare>> {
    if item.get().is_table() {
        return None;
    }
    let read = || {
        let share = f64::read(item)?;
        if let Err(message) = within(0.01..=1.0)(&share) {
            return item.mistake(message);
        }
        item.record("token", share.show());
        item.record("organization", share.show());
        Some(QuotaShare { token: share, organization: share })
    };
    Some(read())
}

fn some_quota(quotas: &Vec<Quota>) -> Result<(), String> {
    if quotas.is_empty() {
        return Err("must hold a limit; leave it out for the vendor's published ones".to_owned());
    }
    for quota in quotas {
        match (quota.requests, quota.server_time, quota.concurrent, quota.per) {
            (Some(_), None, None, Some(_)) | (None, Some(_), None, Some(_)) | (None, None, Some(_), None) => {}
            _ => {
                return Err("a limit is { requests, per }, { server_time, per } or { concurrent }".to_owned());
            }
        }
    }
    Ok(())
}

pub(super) fn pointer(pointer: &str) -> Result<(), String> {
    match pointer.starts_with('/') && pointer.len() > 1 {
        true => Ok(()),
        false => Err(format!("{pointer:?} is not a JSON pointer such as \"/attributes/cost*\"")),
    }
}
