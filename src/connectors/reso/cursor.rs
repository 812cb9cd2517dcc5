//! Where a list goes on.

use super::Reso;
use crate::clock::Timestamp;
use crate::connectors::ReadError;

/// A place in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A sweep: above this key.
    Key(String),
    /// An incremental pass: from this stamp on, behind so many records that have been met of it.
    Stamp(Timestamp, usize),
    /// At the beginning of a walk by links, because another way was refused.
    Walk,
    /// Behind so many records of a walk that has no links.
    Skip(usize),
    /// At this address, behind so many records; an address of an earlier version does not say how many.
    Link(String, usize),
}

impl Place {
    /// `None`: it is none of ours.
    pub(super) fn read(cursor: &str) -> Option<Self> {
        let (form, rest) = cursor.split_once(':')?;
        match form {
            "key" => Some(Self::Key(rest.to_owned())).filter(|_| !rest.is_empty()),
            "from" => {
                let (at, met) = rest.split_once('/')?;
                Some(Self::Stamp(Timestamp(at.parse().ok()?), met.parse().ok()?))
            }
            "walk" => Some(Self::Walk).filter(|_| rest.is_empty()),
            "skip" => Some(Self::Skip(rest.parse().ok()?)),
            "link" => {
                let counted = rest.split_once('/').and_then(|(met, url)| Some((url, met.parse().ok()?)));
                let (url, met) = counted.unwrap_or((rest, 0));
                Some(Self::Link(url.to_owned(), met)).filter(|_| !url.is_empty())
            }
            _ => None,
        }
    }

    pub(super) fn write(&self) -> String {
        match self {
            Self::Key(key) => format!("key:{key}"),
            Self::Stamp(at, met) => format!("from:{}/{met}", at.0),
            Self::Walk => "walk:".to_owned(),
            Self::Skip(met) => format!("skip:{met}"),
            Self::Link(url, met) => format!("link:{met}/{url}"),
        }
    }
}

/// A link as an address that may be followed: relative to its collection or not, but on the configured origin.
pub(super) fn link(reso: &Reso, resource: &str, link: &str) -> Result<String, ReadError> {
    let malformed = || ReadError::Malformed("the link to the next page is no address");
    let base = reso.options.url.join(resource).map_err(|_| malformed())?;
    let url = base.join(link).map_err(|_| malformed())?;
    if url.origin() != reso.options.url.origin() || !url.username().is_empty() || url.password().is_some() {
        return Err(ReadError::Malformed("the link to the next page leads elsewhere"));
    }
    Ok(url.into())
}

/// The address of `Link: <…>; rel="next"` (RFC 8288), if there is one.
pub(super) fn link_header(value: &str) -> Option<&str> {
    let mut rest = value;
    loop {
        let (_, after) = rest.split_once('<')?;
        let (address, after) = after.split_once('>')?;
        let parameters = after.split_once('<').map_or(after, |(parameters, _)| parameters);
        let is_next = parameters.split(';').any(|parameter| {
            let parameter = parameter.trim().trim_end_matches(',').trim_end();
            parameter.split_once('=').is_some_and(|(name, value)| {
                name.trim().eq_ignore_ascii_case("rel")
                    && value.trim().trim_matches('"').split(' ').any(|rel| rel.eq_ignore_ascii_case("next"))
            })
        });
        if is_next {
            return Some(address);
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn places_outlive_a_restart() {
        for place in [
            Place::Key("a:b/'".to_owned()),
            Place::Stamp(Timestamp(-5), 7),
            Place::Walk,
            Place::Skip(200),
            Place::Link("https://x.test/odata/Property?$skiptoken=1:2".to_owned(), 1_000),
        ] {
            assert_eq!(Place::read(&place.write()), Some(place));
        }
        for none in ["", ":", "key:", "key", "from:1", "from:x/1", "from:1/-1", "walk:x", "skip:-1", "link:", "link:7/", "other:1"] {
            assert_eq!(Place::read(none), None, "{none}");
        }
    }

    #[test]
    fn the_next_page_is_found_among_the_links_of_a_header() {
        let next = Some("https://x.test/a?b=1,2;c");
        assert_eq!(link_header("<https://x.test/a?b=1,2;c>; rel=\"next\""), next);
        assert_eq!(link_header("<https://x.test/p>; rel=prev, <https://x.test/a?b=1,2;c>; title=x; rel=next"), next);
        assert_eq!(link_header("<https://x.test/p>; rel=\"prev\""), None);
        for none in ["", "<", "<>", "rel=next", "<a>", ">; rel=next"] {
            assert_eq!(link_header(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}", like in "(key|from|walk|skip|link):[0-9/:-]{0,20}", header in "[<>;,= a-z\"]{0,60}") {
            let _ = (Place::read(&text), Place::read(&like), link_header(&text), link_header(&header));
        }
    }
}
