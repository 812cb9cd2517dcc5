//! What a key is. One line in a [`section!`] declares a key: its name, type, default, bounds and reason.
//! The reader, the detection of unknown keys, `check --print` and the example file all follow from that line.

/// One key of a table.
#[derive(Debug)]
pub(super) struct Key {
    /// As written in the file.
    pub(super) name: &'static str,
    /// What it is for and why its default is what it is, one line per line.
    pub(super) doc: &'static str,
    /// What holds when it is not written.
    pub(super) presence: Presence,
    /// The keys below it, when it is a table.
    pub(super) keys: &'static [Key],
    /// Whether it refers to a secret.
    pub(super) secret: bool,
}

/// What holds for a key that is not written. Every text is TOML.
#[derive(Clone, Copy, Debug)]
pub(super) enum Presence {
    /// This value.
    Default(&'static str),
    /// Nothing; the text is an example.
    Optional(&'static str),
    /// A mistake; the text is an example.
    Required(&'static str),
}

/// A key with a default value, as TOML.
pub(super) const fn default(text: &'static str) -> Presence {
    Presence::Default(text)
}

/// A key that may be left out, with an example as TOML.
pub(super) const fn optional(example: &'static str) -> Presence {
    Presence::Optional(example)
}

/// A key that must be written, with an example as TOML.
pub(super) const fn required(example: &'static str) -> Presence {
    Presence::Required(example)
}

/// The default of a table whose keys all have defaults.
pub(super) const fn table() -> Presence {
    Presence::Default("{}")
}

/// Declares a table of the file as a struct: `field: Type = presence, check;` with the key's reason as its doc comment.
/// `[or reader]` after the name gives a shorter form that the table may have; the reader returns none when it is not that form.
/// The keys are read all before the first failure is looked at, so every mistake is found in one pass.
macro_rules! section {
    ($(#[doc = $about:literal])+ pub struct $name:ident $([or $other:path])? {
        $($(#[doc = $doc:literal])+ $field:ident: $type:ty = $presence:expr $(, $check:expr)?;)+
    }) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $field: $type,)+
        }

        impl $name {
            pub(in crate::config) fn read_keys(table: &$crate::config::reader::Table<'_>) -> Option<Self> {
                $(let $field = table.value::<$type>(Self::key(stringify!($field)), &[$(&$check)?]);)+
                Some(Self { $($field: $field?),+ })
            }

            pub(in crate::config) fn key(name: &str) -> &'static $crate::config::schema::Key {
                <Self as $crate::config::value::Value>::KEYS
                    .iter()
                    .find(|key| key.name == name)
                    .expect("a section asks only for keys it declares")
            }
        }

        impl $crate::config::value::Value for $name {
            const KEYS: &'static [$crate::config::schema::Key] = &[$($crate::config::schema::Key {
                name: stringify!($field),
                doc: concat!($($doc, "\n"),+),
                presence: $presence,
                keys: <$type as $crate::config::value::Value>::KEYS,
                secret: <$type as $crate::config::value::Value>::SECRET,
            }),+];

            fn read(item: &$crate::config::reader::Item<'_>) -> Option<Self> {
                $(if let Some(other_form) = $other(item) {
                    return other_form;
                })?
                let table = item.table()?;
                let section = Self::read_keys(&table);
                table.finish(&[]);
                section
            }

            fn show(&self) -> String {
                let keys = [$((stringify!($field), self.$field.show())),+];
                let written: Vec<String> =
                    keys.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| format!("{name} = {value}")).collect();
                format!("{{ {} }}", written.join(", "))
            }
        }
    };
}

pub(super) use section;
