//! The pure heart: what an entity, an event and a version are, and the rule by which a state that arrives is weighed
//! against the one we hold.
//!
//! Architecture invariant: nothing here knows tokio, warp, the database or a clock.

pub mod agreement;
pub mod delivery;
pub mod document;
pub mod event;
pub mod ids;
pub mod ordering;
pub mod version;

pub use delivery::{Delivery, DeliveryId, HookRequest};
pub use document::{Document, Hash, Json, Parsed, Shape, Unreadable};
pub use event::{Event, Operation, Push, Sequence};
pub use ids::{Entity, Key, ResourceName, SourceName, Tick};
pub use version::Version;
