//! One statement inside a delivery or an event feed.

use crate::model::document::{Document, Hash};
use crate::model::ids::Entity;
use crate::model::version::Version;

/// What an event says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// The record was made.
    Create,
    /// The record changed (archived and restored are changes too).
    Update,
    /// The record is said to be gone.
    Delete,
}

impl Operation {
    /// As it stands in views and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// What came along with an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Push {
    /// Nothing, or a part: look at the entity again.
    Hint,
    /// A document that has exactly the shape and the version field of a read.
    Whole(Document),
}

impl Push {
    /// The hash of a whole push.
    #[must_use]
    pub fn hash(&self) -> Option<Hash> {
        match self {
            Self::Hint => None,
            Self::Whole(document) => Some(document.hash),
        }
    }
}

/// An event's place in a log (RCP-27): unique within its label, and for ever that of the same entity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sequence {
    /// Which log: what the sender calls the feed; empty where it says nothing.
    pub label: String,
    /// The number, from 0 on.
    pub number: i64,
}

/// This entity was created, updated or deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which record.
    pub entity: Entity,
    /// What happened.
    pub operation: Operation,
    /// The version that the event states for the record, if it states one of the reads' version field.
    pub version: Option<Version>,
    /// The state that came along.
    pub push: Push,
    /// Its number in the sender's log, where it has one: the same number again is the same event.
    pub sequence: Option<Sequence>,
    /// Which way it came, as `instep_events.via` shows it: `hook`, `feed`, or the name of one of an upstream's several event systems.
    pub via: &'static str,
}
