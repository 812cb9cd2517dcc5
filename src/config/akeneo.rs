//! Keys of `kind = "akeneo"` alone.

use std::collections::BTreeMap;
use std::time::Duration;

use url::Url;

use super::productive::pointer;
use super::reader::Item;
use super::schema::{default, optional, required, section, table};
use super::secret::{Secret, Secrets};
use super::source::Resource;
use super::value::{Value, confidential, days, each, if_set, quoted, seconds, text, within, words};

/// Resources of a PIM, by the vendor's names.
pub const RESOURCES: [&str; 15] = [
    "products",
    "product-models",
    "families",
    "family-variants",
    "attributes",
    "attribute-options",
    "attribute-groups",
    "categories",
    "channels",
    "locales",
    "currencies",
    "association-types",
    "measurement-families",
    "assets",
    "reference-entity-records",
];

section! {
    /// A PIM of Akeneo.
    pub struct Akeneo {
        /// Where the PIM is.
        url: Url = required("\"https://acme.cloud.akeneo.com\""), confidential;
        /// A connection that sees everything the replica is to hold, or the token of an app.
        auth: Auth = required("{ client_id = \"3_x\", secret = { credential = \"pim-secret\" }, username = \"shop_1234\", password = { credential = \"pim-password\" } }"), one_way;
        /// The server's zone, in which it reads the date filter of products: "UTC" (SaaS), or its offset such as "+01:00". Where it
        /// has summer time, the winter's: that only asks for an hour more.
        zone: Zone = default("\"UTC\"");
        /// What identifies a product; "identifier" for PIMs before 7.0, whose products without one are then left out.
        product_key: ProductKey = default("\"uuid\"");
        /// Deliveries of the Events API, to …/hooks/<name>/events. The vendor ends it on 2026-12-31: drop it then.
        events_api: Option<EventsApi> = optional("{ secrets = [{ credential = \"pim-events-secret\" }] }");
        /// Deliveries of the Event Platform, to …/hooks/<name>/platform. Its subscription must not have the address of the Events API.
        event_platform: Option<EventPlatform> = optional("{ secrets = [{ credential = \"pim-ep-primary\" }] }");
        /// Users and clients whose changes are left to passes: those of whoever writes what it reads here.
        ignore_authors: Vec<String> = default("[]");
        /// Part of the PIM's 100 requests a second that the daemon uses; other connections count there too.
        quota_share: f64 = default("0.6"), within(0.01..=1.0);
        /// JSON pointers, with * for any run of characters but /, that are cut before hashing and storing.
        exclude: Vec<String> = default("[]"), each(text(pointer));
    }
}

section! {
    /// How the daemon shows who it is: client, user and their secrets, or a token alone.
    pub struct Auth {
        /// Client id of the connection.
        client_id: Option<String> = optional("\"3_x\"");
        /// Secret of the connection.
        secret: Option<Secret> = optional("{ credential = \"pim-secret\" }");
        /// User of the connection.
        username: Option<String> = optional("\"shop_1234\"");
        /// Password of that user.
        password: Option<Secret> = optional("{ credential = \"pim-password\" }");
        /// Token of an app, which does not expire.
        token: Option<Secret> = optional("{ credential = \"pim-app-token\" }");
    }
}

section! {
    /// The older of the two event systems.
    pub struct EventsApi {
        /// Secret of the subscription; while it is replaced both.
        secrets: Secrets = required("[{ credential = \"pim-events-secret\" }]");
    }
}

section! {
    /// The newer of the two event systems.
    pub struct EventPlatform {
        /// Primary and secondary secret of the subscriptions, and the one of notifications.
        secrets: Secrets = required("[{ credential = \"pim-ep-primary\" }]");
        /// Ids of the subscriptions whose events are taken; empty: of all that the secrets sign.
        subscriptions: Vec<String> = default("[]");
        /// Whether notifications are taken, at …/hooks/<name>/notifications: a suspension then opens a gap until it is over.
        notifications: bool = default("true");
        /// Whether the daemon watches its subscriber and subscription, which `instep hooks create` makes, and resumes it after a suspension.
        manage: bool = default("false");
        /// The technical contact that a subscriber needs; with manage.
        contact: Option<String> = optional("\"ops@acme.example\"");
        /// Where subscriptions are managed.
        url: Url = default("\"https://event.prd.sdk.akeneo.cloud/api/v1\""), confidential;
    }
}

words! {
    /// What identifies a product.
    pub enum ProductKey {
        /// Its uuid.
        Uuid = "uuid",
        /// Its identifier.
        Identifier = "identifier",
    }
}

section! {
    /// One resource of a PIM.
    pub struct AkeneoResource {
        /// Of values that differ by channel only those of this one; for products and product-models.
        scope: Option<String> = optional("\"ecommerce\"");
        /// Of values that differ by locale only those of these, empty for all; for products and product-models.
        locales: Vec<String> = default("[]");
        /// Only values of these attributes, empty for all; for products and product-models.
        attributes: Vec<String> = default("[]");
        /// Which records are relevant; others are taken out of the replica, and come back once they are.
        keep: Keep = table();
        /// How often changes are looked for; it is by this that lost events are noticed.
        poll: Duration = default("\"1m\""), within(seconds(1)..=days(30));
        /// How often the whole resource is compared.
        sweep: Duration = default("\"24h\""), within(seconds(1)..=days(365));
        /// As of the source, where this resource differs.
        keep_deleted: Option<Duration> = optional("\"30d\""), if_set(within(Duration::ZERO..=days(3650)));
        /// As of the source, where this resource differs.
        read_lag: Option<Duration> = optional("\"30s\""), if_set(within(Duration::ZERO..=days(1)));
    }
}

section! {
    /// Patterns in which * stands for any run of characters; an empty list asks for nothing. A record has to fit every list.
    pub struct Keep {
        /// Of the record's own code.
        codes: Vec<String> = default("[]");
        /// Of the code it stands below: the attribute of an option, the family of a variant or asset, the reference entity of a record.
        above: Vec<String> = default("[]");
        /// Of its family.
        families: Vec<String> = default("[]");
        /// Of one of its categories.
        categories: Vec<String> = default("[]");
        /// Whether it is enabled.
        enabled: Option<bool> = optional("true");
    }
}

/// An offset from UTC, in seconds to the east.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Zone(pub i32);

impl Value for Zone {
    fn read(item: &Item<'_>) -> Option<Self> {
        let text = item.text("a zone in quotes, \"UTC\" or an offset such as \"+01:00\"")?;
        match offset(text) {
            Some(seconds) => Some(Self(seconds)),
            None => item.mistake("must be \"UTC\" or an offset such as \"+01:00\"; of a zone with summer time that of winter"),
        }
    }

    fn show(&self) -> String {
        let minutes = self.0.abs() / 60;
        let sign = if self.0 < 0 { '-' } else { '+' };
        if self.0 == 0 { quoted("UTC") } else { format!("\"{sign}{:02}:{:02}\"", minutes / 60, minutes % 60) }
    }
}

fn offset(text: &str) -> Option<i32> {
    if text == "UTC" {
        return Some(0);
    }
    let (sign, rest) = text.strip_prefix('+').map(|rest| (1, rest)).or_else(|| text.strip_prefix('-').map(|rest| (-1, rest)))?;
    let (hours, minutes) = rest.split_once(':')?;
    let number = |digits: &str| digits.parse::<i32>().ok().filter(|_| digits.len() == 2 && digits.bytes().all(|c| c.is_ascii_digit()));
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours <= 14 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

fn one_way(auth: &Auth) -> Result<(), String> {
    match (&auth.client_id, &auth.secret, &auth.username, &auth.password, &auth.token) {
        (Some(_), Some(_), Some(_), Some(_), None) | (None, None, None, None, Some(_)) => Ok(()),
        _ => Err("must be { client_id, secret, username, password } of a connection, or { token } of an app".to_owned()),
    }
}

/// What every kind has for its resources.
pub(super) fn common(resources: &BTreeMap<String, AkeneoResource>) -> BTreeMap<String, Resource> {
    let resource = |(name, set): (&String, &AkeneoResource)| {
        let resource =
            Resource { include: Vec::new(), poll: set.poll, sweep: set.sweep, keep_deleted: set.keep_deleted, read_lag: set.read_lag };
        (name.clone(), resource)
    };
    resources.iter().map(resource).collect()
}

/// Why these settings make no sense for this resource, if so.
pub(super) fn misplaced(name: &str, set: &AkeneoResource) -> Option<&'static str> {
    let has_values = matches!(name, "products" | "product-models");
    let is_projected = set.scope.is_some() || !set.locales.is_empty() || !set.attributes.is_empty();
    (is_projected && !has_values).then_some("scope, locales and attributes are for products and product-models only")
}
