//! Keys of `kind = "reso"` alone.

use std::collections::BTreeMap;
use std::time::Duration;

use url::Url;

use super::productive::pointer;
use super::schema::{default, optional, required, section, table};
use super::secret::{Secret, Secrets};
use super::source::Resource;
use super::value::{Size, confidential, days, each, if_set, seconds, text, within, words};

/// Resources of a server of the standard that are replicated where nothing else is said; any other may be named.
pub const RESOURCES: [&str; 5] = ["Property", "Member", "Office", "Media", "OpenHouse"];

section! {
    /// A server of the RESO Web API.
    pub struct Reso {
        /// Its service root.
        url: Url = required("\"https://api.mls.example/odata/\""), confidential;
        /// A token that lasts, or a client that asks for tokens.
        auth: Auth = required("{ token = { credential = \"mls-token\" } }"), one_way;
        /// Whose server it is, for what vendors do otherwise than the standard; docs/reso.md tells of each.
        profile: Profile = default("\"plain\"");
        /// Only records of this system; required at "mlsgrid".
        originating_system: Option<String> = optional("\"actris\"");
        /// Pushed events, to …/hooks/<name>/events. Whoever is invited by `instep hooks invite` needs no token here.
        push: Option<Push> = optional("{ label = \"mls-prod\" }");
        /// A request that has the producer deliver again once it has stopped; the standard leaves open what that is. With push.
        push_resume: Option<PushResume> = optional("{ url = \"/push/resume\" }");
        /// How the log of events is read.
        events: Events = table();
        /// A file with what the server answers at $metadata: keys and columns are then those that it declares, else those of the
        /// Data Dictionary that are built in.
        metadata: Option<String> = optional("\"/etc/instep/mls.xml\""), if_set(text(absolute));
        /// Part of the limits that the daemon uses.
        quota_share: f64 = default("0.8"), within(0.01..=1.0);
        /// Limits in place of those of the profile; the standard has none.
        quota: Option<Vec<Quota>> = optional("[{ requests = 4000, per = \"5m\" }]"), if_set(each(one_amount));
        /// Requests at once.
        concurrent: u32 = default("4"), within(1..=64);
        /// JSON pointers, with * for any run of characters but /, that are cut before hashing and storing.
        exclude: Vec<String> = default("[]"), each(text(pointer));
    }
}

section! {
    /// How the daemon shows who it is.
    pub struct Auth {
        /// A token that lasts.
        token: Option<Secret> = optional("{ credential = \"mls-token\" }");
        /// Id of a client.
        client_id: Option<String> = optional("\"instep\"");
        /// Secret of that client.
        secret: Option<Secret> = optional("{ credential = \"mls-secret\" }");
        /// Where it asks for tokens: an address, or a path on the server.
        token_url: Option<String> = optional("\"/oauth2/token\""), if_set(text(place));
        /// What it asks for, where the server wants to be told.
        scope: Option<String> = optional("\"api\"");
        /// Whether it shows itself by a header, or else in the form.
        basic: bool = default("false");
    }
}

words! {
    /// Whose server it is.
    pub enum Profile {
        /// Any of the standard.
        Plain = "plain",
        /// MLS Grid, version 2.
        MlsGrid = "mlsgrid",
        /// Bridge.
        Bridge = "bridge",
        /// Trestle.
        Trestle = "trestle",
        /// Spark.
        Spark = "spark",
    }
}

section! {
    /// How pushed events are taken.
    pub struct Push {
        /// Tokens that producers were given in other ways; while one is replaced both.
        tokens: Secrets = default("[]");
        /// What the feed is called, here and in the producer's header EntityEventSource.
        label: String = default("\"\""), text(label);
        /// Whether a record that comes along (`Data`) is taken as a read would show it; else it is passed over.
        data: bool = default("false");
        /// How long the producer sends a refused delivery again; the standard leaves it to the producer, which may stop then.
        retries_for: Duration = default("\"4h\""), within(Duration::ZERO..=days(30));
        /// What it is told to wait while too much is pending; not set: as the daemon reckons.
        retry_after: Option<Duration> = optional("\"60s\""), if_set(within(seconds(1)..=seconds(86_400)));
        /// How it is told.
        retry_after_form: RetryForm = default("\"seconds\"");
    }
}

words! {
    /// The two forms of `Retry-After`.
    pub enum RetryForm {
        /// So many seconds.
        Seconds = "seconds",
        /// A date.
        Date = "date",
    }
}

section! {
    /// A request that has a producer deliver again.
    pub struct PushResume {
        /// Where it goes: an address on the server, or a path.
        url: String = required("\"/push/resume\""), text(place);
        /// Its method: POST, PUT or PATCH.
        method: String = default("\"POST\""), text(method);
        /// Its headers, beside the credential's.
        headers: Vec<String> = default("[]"), each(text(header));
        /// Its body, if it is to have one.
        body: Option<String> = optional("\"{}\"");
        /// It is sent when the log told of events for so long that no delivery announced.
        after: Duration = default("\"15m\""), within(seconds(10)..=days(7));
    }
}

words! {
    /// Whether the log of events is read.
    pub enum ReadLog {
        /// Where the profile is known to have it.
        Auto = "auto",
        /// Whatever the profile.
        Yes = "yes",
        /// Not at all.
        No = "no",
    }
}

section! {
    /// How the log of events is read.
    pub struct Events {
        /// Whether it is; "auto": where the profile is known to have it, which is "plain".
        read: ReadLog = default("\"auto\"");
        /// How often it is asked for.
        poll: Duration = default("\"30s\""), within(seconds(1)..=days(1));
        /// So many numbers below the highest are asked for again, for some become visible late.
        overlap: u64 = default("200"), within(0..=1_000_000);
        /// So many rows make a page.
        page: u64 = default("1000"), within(1..=100_000);
    }
}

section! {
    /// One limit: of requests or of bytes, in any window.
    pub struct Quota {
        /// So many requests.
        requests: Option<u64> = optional("7200"), if_set(within(1..=1_000_000_000));
        /// So much of answers.
        bytes: Option<Size> = optional("\"4GB\"");
        /// Length of the window.
        per: Duration = required("\"1h\""), within(seconds(1)..=days(31));
    }
}

section! {
    /// One resource of a server of the standard.
    pub struct ResoResource {
        /// The field that identifies a record, where it is not the standard's.
        key: Option<String> = optional("\"TourKey\"");
        /// Whether keys are numbers.
        numeric: bool = default("false");
        /// The field that says when a record changed, where it is not the profile's; empty if there is none.
        timestamp: Option<String> = optional("\"ModificationTimestamp\"");
        /// Only these fields, beside those that are needed; empty: all.
        select: Vec<String> = default("[]");
        /// What of related records comes along.
        expand: Vec<String> = default("[]");
        /// An OData filter of what is to be held.
        filter: Option<String> = optional("\"PropertyType eq 'Residential'\"");
        /// How often changes are looked for; else every five minutes, or every minute where events are pushed and no log is read, since
        /// lost ones are then noticed by this alone.
        poll: Option<Duration> = optional("\"5m\""), if_set(within(seconds(1)..=days(30)));
        /// How often the whole resource is compared.
        sweep: Duration = default("\"24h\""), within(seconds(1)..=days(365));
        /// As of the source, where this resource differs.
        keep_deleted: Option<Duration> = optional("\"30d\""), if_set(within(Duration::ZERO..=days(3650)));
        /// As of the source, where this resource differs.
        read_lag: Option<Duration> = optional("\"30s\""), if_set(within(Duration::ZERO..=days(1)));
    }
}

fn one_way(auth: &Auth) -> Result<(), String> {
    match (&auth.token, &auth.client_id, &auth.secret, &auth.token_url) {
        (Some(_), None, None, None) | (None, Some(_), Some(_), Some(_)) => Ok(()),
        _ => Err("must be { token }, or { client_id, secret, token_url } of a client".to_owned()),
    }
}

fn absolute(path: &str) -> Result<(), String> {
    if std::path::Path::new(path).is_absolute() { Ok(()) } else { Err("must be an absolute path".to_owned()) }
}

/// An address that may be told a secret, or a path on the server.
fn place(place: &str) -> Result<(), String> {
    if place.starts_with('/') && !place.starts_with("//") {
        return Ok(());
    }
    match Url::parse(place) {
        Ok(url) => confidential(&url),
        Err(_) => Err("must be an address, or a path on the server that begins with /".to_owned()),
    }
}

fn method(method: &str) -> Result<(), String> {
    match method {
        "POST" | "PUT" | "PATCH" => Ok(()),
        _ => Err("must be POST, PUT or PATCH".to_owned()),
    }
}

fn header(header: &str) -> Result<(), String> {
    let is_one = header.split_once(':').is_some_and(|(name, value)| {
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        is_name && value.chars().all(|c| !c.is_control())
    });
    if is_one { Ok(()) } else { Err("must be a header such as \"X-Feed: mls-prod\"".to_owned()) }
}

fn label(label: &str) -> Result<(), String> {
    match label.len() <= 255 && label.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && label.trim() == label {
        true => Ok(()),
        false => Err("must be at most 255 plain characters, as a header holds them".to_owned()),
    }
}

fn one_amount(quota: &Quota) -> Result<(), String> {
    match (quota.requests, quota.bytes) {
        (Some(_), None) | (None, Some(_)) => Ok(()),
        _ => Err("a limit is { requests, per } or { bytes, per }".to_owned()),
    }
}

/// What every kind has for its resources.
pub(super) fn common(resources: &BTreeMap<String, ResoResource>) -> BTreeMap<String, Resource> {
    let resource = |(name, set): (&String, &ResoResource)| {
        let resource = Resource {
            include: Vec::new(),
            poll: set.poll.unwrap_or(seconds(5 * 60)),
            sweep: set.sweep,
            keep_deleted: set.keep_deleted,
            read_lag: set.read_lag,
        };
        (name.clone(), resource)
    };
    resources.iter().map(resource).collect()
}

/// Whether producers may call a resource so; the standard's own extensions are free.
pub(super) fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.len() <= 63
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
