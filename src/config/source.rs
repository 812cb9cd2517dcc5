//! `[sources.<name>]`: what every kind of upstream has in common, and which kinds there are.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::de::DeValue;
use url::Url;

use super::akeneo::{self, Akeneo, AkeneoResource};
use super::productive::Productive;
use super::reader::{Context, Item, Table, suggestion};
use super::reso::{self, Reso, ResoResource};
use super::schema::{Key, Presence, default, optional, required, section, table};
use super::value::{Value, confidential, days, if_set, seconds, text, within};

/// One configured upstream account.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// What every kind has.
    pub common: Common,
    /// What its kind alone has.
    pub connector: Connector,
    /// The resources to replicate, by the vendor's names.
    pub resources: BTreeMap<String, Resource>,
}

/// The settings of one kind of upstream.
#[derive(Clone, Debug, PartialEq)]
pub enum Connector {
    /// Productive.io.
    Productive(Box<Productive>),
    /// Akeneo PIM.
    Akeneo(Box<Akeneo>, BTreeMap<String, AkeneoResource>),
    /// A server of the RESO Web API.
    Reso(Box<Reso>, BTreeMap<String, ResoResource>),
}

impl Connector {
    /// As written in `kind`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Productive(_) => "productive",
            Self::Akeneo(..) => "akeneo",
            Self::Reso(..) => "reso",
        }
    }
}

section! {
    /// Keys that a source of any kind may have.
    pub struct Common {
        /// Where the upstream reaches us from outside, without the /hooks/… part. Not set: poll only, no webhooks.
        public_url: Option<Url> = optional("\"https://hooks.example.org\""), if_set(confidential);
        /// How long the payload of a record removed upstream stays in the _all view; "0d" drops it at once.
        keep_deleted: Duration = default("\"30d\""), within(Duration::ZERO..=days(3650));
        /// How long a read by key or in bulk may show an older state. The upstream promises nothing, so half a minute is allowed for.
        read_lag: Duration = default("\"30s\""), within(Duration::ZERO..=days(1));
        /// The same for lists, which indexes serve.
        list_lag: Duration = default("\"5m\""), within(Duration::ZERO..=days(1));
        /// How long marks gather before a fetch: one request then answers many hooks, and nobody notices half a second.
        linger: Duration = default("\"500ms\""), within(Duration::ZERO..=seconds(60));
        /// Share of what is ours of the quota that refreshes may have, which go before everything else; beyond it they are refused with 429.
        refresh_share: f64 = default("0.2"), within(0.0..=1.0);
        /// Whether passes compare whole resources with the upstream. Off, a lost hook is never repaired.
        passes: bool = default("true");
        /// A time of day for sweeps that come once a day or less often, so that the quota is free at work; each source begins up to a
        /// quarter of an hour later, so that they do not begin at once. Not set: a sweep begins when the last one is old enough.
        sweep_at: Option<String> = optional("\"03:00\""), if_set(text(time_of_day));
        /// The zone of that time, by its name in the tz database.
        sweep_zone: String = default("\"UTC\""), text(zone);
        /// Whether registrations of webhooks may be made, replaced, resumed and removed. Off, they are only watched.
        manage: bool = default("true");
        /// How webhooks that are lost are noticed.
        watch: Watch = table();
        /// When too many records vanish at once, rows stay and a person decides.
        brake: Brake = table();
        /// When an endpoint of the upstream, or all of it, is left alone for a while.
        breaker: Breaker = table();
        /// How the replica is compared with the upstream unasked, a few random rows at a time.
        audit: Audit = table();
    }
}

section! {
    /// What the metrics of agreement rest on.
    pub struct Audit {
        /// Part of the limit of requests that goes into it: a hundredth nobody misses. 0 turns it off.
        share: f64 = default("0.01"), within(0.0..=0.5);
        /// Shortest time between two such requests, however large the limit; four hours of one a minute are 2,400 rows.
        every: Duration = default("\"1m\""), within(seconds(1)..=days(1));
    }
}

fn time_of_day(text: &str) -> Result<(), String> {
    let digits = |text: &str, max: u8| {
        text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u8>().is_ok_and(|n| n < max)
    };
    let is_one = text.split_once(':').is_some_and(|(hour, minute)| digits(hour, 24) && digits(minute, 60));
    if is_one { Ok(()) } else { Err("must be a time of day, such as \"03:00\"".to_owned()) }
}

fn zone(name: &str) -> Result<(), String> {
    jiff::tz::TimeZone::get(name).map(drop).map_err(|_| "must be the name of a zone, such as \"Europe/Amsterdam\"".to_owned())
}

section! {
    /// Whatever loses webhooks is to be noticed within five minutes, so what looks for it does so a bit more often. Of silence, feeds and
    /// passes tell: a change is learned within `feed_poll` or `poll`, and judged `late` after that.
    pub struct Watch {
        /// Between two looks at the registrations upstream: one request each, two where a subscriber stands above them: 15 or 30 an hour.
        look: Duration = default("\"4m\""), within(seconds(1)..=days(1));
        /// Between two times at which registrations that were switched off or are missing are put right: an upstream may take away for good what comes back too often.
        mend: Duration = default("\"1h\""), within(seconds(1)..=days(30));
        /// Between two requests to ourselves by way of public_url, which cost the upstream nothing; "0s" sends none. One that fails is sent again after an eighth of it.
        probe: Duration = default("\"4m\""), within(Duration::ZERO..=days(1));
        /// A webhook that comes later than this after its change counts as missed.
        late: Duration = default("\"2m\""), within(seconds(1)..=seconds(6 * 3_600));
        /// So many missed within an hour are a gap: a few are lost by any upstream, and feeds and passes have found what they told of.
        missed: u32 = default("5"), within(1..=1_000_000);
    }
}

section! {
    /// After so many failures in a row only a probe goes now and then.
    pub struct Breaker {
        /// Failures in a row; five are no accident.
        failures: u32 = default("5"), within(1..=1_000);
        /// Time before the first probe, enough to spare an ailing server; each failed probe doubles it.
        open_for: Duration = default("\"10s\""), within(Duration::from_millis(100)..=seconds(3_600));
        /// The longest time between two probes, which is how late a recovery may be noticed.
        open_max: Duration = default("\"5m\""), within(seconds(1)..=days(1));
    }
}

section! {
    /// How many removals absence alone may cause in a rolling day, per resource: the larger of share and rows, at most cap.
    pub struct Brake {
        /// Part of the live rows.
        share: f64 = default("0.2"), within(0.0..=1.0);
        /// Rows that may always go, so that small resources are not stuck.
        rows: u64 = default("10"), within(0..=1_000_000);
        /// Rows at most, however large the resource.
        cap: u64 = default("1000"), within(0..=100_000_000);
    }
}

section! {
    /// One resource of a source.
    pub struct Resource {
        /// Relations to ask for beside those the connector always asks for.
        include: Vec<String> = default("[]");
        /// How often changes are looked for.
        poll: Duration = default("\"1m\""), within(seconds(1)..=days(30));
        /// How often the whole resource is compared.
        sweep: Duration = default("\"24h\""), within(seconds(1)..=days(365));
        /// As of the source, where this resource differs.
        keep_deleted: Option<Duration> = optional("\"30d\""), if_set(within(Duration::ZERO..=days(3650)));
        /// As of the source, where this resource differs.
        read_lag: Option<Duration> = optional("\"30s\""), if_set(within(Duration::ZERO..=days(1)));
    }
}

/// `kind`, by which all other keys are judged.
pub(super) const KIND: Key =
    Key { name: "kind", doc: " Which kind of upstream this is.\n", presence: required("\"productive\""), keys: &[], secret: false };

/// `resources`; read apart from the other keys because which names are allowed depends on the kind.
pub(super) const RESOURCES: Key = Key {
    name: "resources",
    doc: " What to replicate: \"all\", a list of names, or a table with a table for each name, which may be empty.\n",
    presence: Presence::Default("\"all\""),
    keys: Resource::KEYS,
    secret: false,
};

/// The same for a PIM.
pub(super) const AKENEO_RESOURCES: Key = Key { keys: AkeneoResource::KEYS, ..RESOURCES };

/// The same for a server of the RESO Web API, where any name may be one.
pub(super) const RESO_RESOURCES: Key = Key {
    doc: " What to replicate: \"all\" (Property, Member, Office, Media and OpenHouse), a list of names, or a table with a table for each.\n",
    keys: ResoResource::KEYS,
    ..RESOURCES
};

/// Keys of kinds other than the one at hand, so that a key in the wrong source can be told from a misspelt one.
const OTHER_KINDS: [(&str, &[&str]); 5] = [
    ("productive", &["organization", "manage_token", "feeds", "feed_poll", "signature_tolerance", "quota"]),
    ("akeneo", &["auth", "zone", "product_key", "ignore_authors", "events_api", "event_platform"]),
    ("reso", &["auth", "profile", "originating_system", "push", "push_resume", "metadata", "concurrent"]),
    ("shopify", &["shop", "api_version"]),
    ("declared", &["preset", "events"]),
];

/// The kinds that can be configured.
pub const KINDS: [&str; 3] = ["productive", "akeneo", "reso"];

impl Source {
    /// The settings of a Productive source; none for any other kind.
    #[must_use]
    pub fn productive(&self) -> Option<&Productive> {
        match &self.connector {
            Connector::Productive(productive) => Some(productive),
            Connector::Akeneo(..) | Connector::Reso(..) => None,
        }
    }

    /// How long the payload of a removed record of `resource` stays.
    #[must_use]
    pub fn keep_deleted(&self, resource: &str) -> Duration {
        self.resources.get(resource).and_then(|resource| resource.keep_deleted).unwrap_or(self.common.keep_deleted)
    }

    /// How long reads of `resource` by key or in bulk may lag.
    #[must_use]
    pub fn read_lag(&self, resource: &str) -> Duration {
        self.resources.get(resource).and_then(|resource| resource.read_lag).unwrap_or(self.common.read_lag)
    }

    pub(super) fn read(item: &Item<'_>) -> Option<Self> {
        let table = item.table()?;
        let kind = table.value::<String>(&KIND, &[])?;
        if !KINDS.contains(&kind.as_str()) {
            let written = table.item(KIND.name)?;
            let message = match OTHER_KINDS.iter().any(|(other, _)| *other == kind) {
                true => format!("this kind is not built into this version; known here: {}", KINDS.join(", ")),
                false => format!("unknown kind{}", suggestion(&kind, KINDS.into_iter())),
            };
            return written.mistake(message);
        }
        let common = Common::read_keys(&table);
        if kind == "akeneo" {
            let settings = Akeneo::read_keys(&table);
            let resources = read_resources(&table, &akeneo::RESOURCES, |_| false, akeneo::misplaced);
            table.finish(&OTHER_KINDS);
            let resources = resources?;
            return Some(Self {
                common: common?,
                resources: akeneo::common(&resources),
                connector: Connector::Akeneo(Box::new(settings?), resources),
            });
        }
        if kind == "reso" {
            let settings = Reso::read_keys(&table);
            let resources = read_resources(&table, &reso::RESOURCES, reso::is_name, |_, _| None);
            table.finish(&OTHER_KINDS);
            let resources = resources?;
            return Some(Self {
                common: common?,
                resources: reso::common(&resources),
                connector: Connector::Reso(Box::new(settings?), resources),
            });
        }
        let productive = Productive::read_keys(&table);
        let resources = read_resources(&table, &super::productive::RESOURCES, |_| false, |_, _| None);
        table.finish(&OTHER_KINDS);
        Some(Self { common: common?, connector: Connector::Productive(Box::new(productive?)), resources: resources? })
    }
}

/// A name is part of table, view and URL names, so it is short, lower case and not ours.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let mut letters = name.chars();
    let plain = letters.next().is_some_and(|first| first.is_ascii_lowercase())
        && letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    match name {
        "instep" => Err("this name is taken: views of the daemon itself begin with it".to_owned()),
        _ if plain && name.len() <= 31 => Ok(()),
        _ => Err("a source's name is a lower-case letter, then at most 30 lower-case letters, digits and _".to_owned()),
    }
}

/// `may_be` knows further names; `misplaced` says why a setting cannot be one of this resource.
fn read_resources<T: Value>(
    table: &Table<'_>,
    known: &'static [&'static str],
    may_be: fn(&str) -> bool,
    misplaced: fn(&str, &T) -> Option<&'static str>,
) -> Option<BTreeMap<String, T>> {
    let Some(item) = table.item(RESOURCES.name) else {
        return table.defaults(RESOURCES.name, known.iter().copied());
    };
    match item.get() {
        DeValue::String(word) if word == "all" => table.defaults(RESOURCES.name, known.iter().copied()),
        DeValue::Table(_) => {
            let table = item.table()?;
            let read = table.named().map(|(name, offset, resource)| {
                let known = check_known(&resource.context, offset, &resource.path, name, known, may_be);
                let item = resource;
                let resource = T::read(&item);
                if let Some(reason) = resource.as_ref().and_then(|resource| misplaced(name, resource)) {
                    return item.mistake(reason);
                }
                known.and(resource).map(|resource| (name.to_owned(), resource))
            });
            collect_all(read)
        }
        DeValue::Array(_) => {
            let read = item.array("a list of names")?.into_iter().map(|item| {
                let name = item.text("the name of a resource")?;
                check_known(&item.context, item.value.span().start, &item.path, name, known, may_be)?;
                Some(name)
            });
            let names: Vec<&str> = collect_all(read)?;
            table.defaults(RESOURCES.name, names.into_iter())
        }
        _ => item.wrong_type("\"all\", a list of names or a table"),
    }
}

fn check_known(context: &Context<'_>, offset: usize, path: &str, name: &str, known: &[&str], may_be: fn(&str) -> bool) -> Option<()> {
    if known.contains(&name) || may_be(name) {
        return Some(());
    }
    context.mistake(offset, path, format!("unknown resource{}", suggestion(name, known.iter().copied())));
    None
}

/// All or nothing, but only after every one was read.
fn collect_all<T, C: FromIterator<T>>(read: impl Iterator<Item = Option<T>>) -> Option<C> {
    let read: Vec<Option<T>> = read.collect();
    read.into_iter().collect()
}
