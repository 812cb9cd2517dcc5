//! How single values are read from the file and shown again as TOML: numbers, texts, durations, sizes, addresses.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serialize;
use url::Url;

use super::reader::Item;
use super::schema::Key;

/// Refuses a value that was read but is not allowed; the message says what is.
pub(super) type Check<'c, T> = &'c dyn Fn(&T) -> Result<(), String>;

/// A type that a key may have.
pub(super) trait Value: Sized {
    /// The keys below it, when it is a table.
    const KEYS: &'static [Key] = &[];

    /// Whether it refers to a secret.
    const SECRET: bool = false;

    /// Reads it; none when a mistake was recorded.
    fn read(item: &Item<'_>) -> Option<Self>;

    /// As TOML, such that [`Value::read`] gives it back. A secret shows its reference.
    fn show(&self) -> String;

    /// What holds when an optional key is not written; none for types that cannot be left out.
    fn absent() -> Option<Self> {
        None
    }
}

/// An amount of bytes, written `"2MiB"` or `"500kB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Size(pub u64);

impl Size {
    /// So many KiB.
    #[must_use]
    pub const fn kib(amount: u64) -> Self {
        Self(amount << 10)
    }

    /// So many MiB.
    #[must_use]
    pub const fn mib(amount: u64) -> Self {
        Self(amount << 20)
    }

    /// So many GiB.
    #[must_use]
    pub const fn gib(amount: u64) -> Self {
        Self(amount << 30)
    }

    /// As an amount of memory; saturates where memory is addressed with fewer bits.
    #[must_use]
    pub fn to_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// Accepts what lies in `range`.
pub(super) fn within<T: Value + PartialOrd>(range: RangeInclusive<T>) -> impl Fn(&T) -> Result<(), String> {
    move |value| match range.contains(value) {
        true => Ok(()),
        false => Err(format!("must be between {} and {}", range.start().show(), range.end().show())),
    }
}

/// Accepts what lies in `range`, or nothing at all.
pub(super) fn if_set<T: Value>(check: impl Fn(&T) -> Result<(), String>) -> impl Fn(&Option<T>) -> Result<(), String> {
    move |value| value.as_ref().map_or(Ok(()), &check)
}

/// Accepts a list of what `check` accepts.
pub(super) fn each<T>(check: impl Fn(&T) -> Result<(), String>) -> impl Fn(&Vec<T>) -> Result<(), String> {
    move |values| values.iter().try_for_each(&check)
}

/// A check of texts as a check of values.
pub(super) fn text(check: impl Fn(&str) -> Result<(), String>) -> impl Fn(&String) -> Result<(), String> {
    move |value| check(value)
}

/// Accepts `https` URLs, and `http` to this very machine: a token must not cross a network in the clear.
pub(super) fn confidential(url: &Url) -> Result<(), String> {
    let local = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => {}
        "http" if local => {}
        _ => return Err("must begin with https:// (http:// only to this machine)".to_owned()),
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err("must hold no user, password, query or fragment".to_owned());
    }
    Ok(())
}

/// So many seconds.
pub(super) const fn seconds(amount: u64) -> Duration {
    Duration::from_secs(amount)
}

/// So many days.
pub(super) const fn days(amount: u64) -> Duration {
    Duration::from_secs(amount * 86_400)
}

/// A text as TOML.
pub(crate) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl Value for bool {
    fn read(item: &Item<'_>) -> Option<Self> {
        item.get().as_bool().or_else(|| item.wrong_type("true or false"))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for u64 {
    fn read(item: &Item<'_>) -> Option<Self> {
        let Some(integer) = item.get().as_integer() else {
            return item.wrong_type("a whole number");
        };
        match Self::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) => Some(number),
            Err(_) => item.mistake("must be a whole number that is not negative and fits in 64 bits"),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for u32 {
    fn read(item: &Item<'_>) -> Option<Self> {
        let number = u64::read(item)?;
        match Self::try_from(number) {
            Ok(number) => Some(number),
            Err(_) => item.mistake(format!("must be at most {}", Self::MAX)),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for f64 {
    fn read(item: &Item<'_>) -> Option<Self> {
        let text = match (item.get().as_float(), item.get().as_integer()) {
            (Some(fraction), _) => fraction.as_str(),
            (None, Some(integer)) if integer.radix() == 10 => integer.as_str(),
            _ => return item.wrong_type("a number"),
        };
        match text.parse::<Self>() {
            Ok(number) if number.is_finite() => Some(number),
            _ => item.mistake("must be a finite number"),
        }
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl Value for String {
    fn read(item: &Item<'_>) -> Option<Self> {
        item.text("a string").map(str::to_owned)
    }

    fn show(&self) -> String {
        quoted(self)
    }
}

impl Value for Duration {
    fn read(item: &Item<'_>) -> Option<Self> {
        let text = item.text("a duration in quotes, such as \"500ms\", \"30s\", \"5m\", \"6h\" or \"30d\"")?;
        match humantime::parse_duration(text) {
            Ok(duration) => Some(duration),
            Err(_) => item.mistake("is not a duration; write for example \"500ms\", \"30s\", \"5m\", \"6h\" or \"30d\""),
        }
    }

    /// In the largest unit that holds it without a rest.
    fn show(&self) -> String {
        let millis = self.as_millis();
        let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];
        if *self != Self::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)) {
            return quoted(&humantime::format_duration(*self).to_string());
        }
        let (scale, unit) = match millis {
            0 => (1000, "s"),
            _ => units.into_iter().find(|(scale, _)| millis.is_multiple_of(*scale)).unwrap_or((1, "ms")),
        };
        format!("\"{}{unit}\"", millis / scale)
    }
}

impl Value for Size {
    fn read(item: &Item<'_>) -> Option<Self> {
        let text = item.text("a size in quotes, such as \"64KiB\", \"2MiB\" or \"1GiB\"")?;
        // A bare number is refused: it does not say whether it means bytes or what it was copied from.
        let has_unit = text.trim_end().ends_with(|last: char| last.is_ascii_alphabetic());
        match text.parse::<bytesize::ByteSize>() {
            Ok(size) if has_unit => Some(Self(size.as_u64())),
            _ => item.mistake("is not a size; write for example \"64KiB\", \"2MiB\" or \"1GiB\""),
        }
    }

    fn show(&self) -> String {
        let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let unit = units.into_iter().find(|(scale, _)| self.0 > 0 && self.0.is_multiple_of(*scale)).unwrap_or((1, "B"));
        format!("\"{}{}\"", self.0 / unit.0, unit.1)
    }
}

impl Value for Url {
    fn read(item: &Item<'_>) -> Option<Self> {
        match Self::parse(item.text("a URL in quotes")?) {
            Ok(mut url) => {
                // Paths are appended to it, and joining to a path without a final slash would cut its last part.
                if !url.cannot_be_a_base() && !url.path().ends_with('/') {
                    url.set_path(&format!("{}/", url.path()));
                }
                Some(url)
            }
            Err(error) => item.mistake(format!("is not a URL: {error}")),
        }
    }

    fn show(&self) -> String {
        quoted(self.as_str())
    }
}

impl<T: Value> Value for Option<T> {
    const KEYS: &'static [Key] = T::KEYS;
    const SECRET: bool = T::SECRET;

    fn read(item: &Item<'_>) -> Option<Self> {
        T::read(item).map(Some)
    }

    fn show(&self) -> String {
        self.as_ref().map(T::show).unwrap_or_default()
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: Value> Value for Vec<T> {
    const SECRET: bool = T::SECRET;

    /// Every element is read, so that each mistake is found.
    fn read(item: &Item<'_>) -> Option<Self> {
        let values: Vec<Option<T>> = item.array("a list")?.iter().map(Item::element).collect();
        values.into_iter().collect()
    }

    fn show(&self) -> String {
        let values: Vec<String> = self.iter().map(T::show).collect();
        format!("[{}]", values.join(", "))
    }
}

/// Declares an enum of words and how it is written.
macro_rules! words {
    ($(#[doc = $about:literal])+ pub enum $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $word:literal,)+ }) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[doc = $doc])+ $variant,)+ }

        impl $name {
            /// As it is written in the file.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl $crate::config::value::Value for $name {
            fn read(item: &$crate::config::reader::Item<'_>) -> Option<Self> {
                let wanted = [$(concat!("\"", $word, "\"")),+].join(", ");
                match item.text(&format!("one of {wanted}"))? {
                    $($word => Some(Self::$variant),)+
                    _ => item.mistake(format!("must be one of {wanted}")),
                }
            }

            fn show(&self) -> String {
                $crate::config::value::quoted(self.word())
            }
        }
    };
}

pub(super) use words;
