//! Mirroring: Nostr events kept in step with other relays.
//!
//! - [`upstream`]: the relays to read from and write to, and their settings.
//! - [`deployment`]: the settings of all upstreams that override none.
//! - [`lane`]: who works on which stream of events, and how far it has come.
//! - [`event`]: the store. [`filter`]: which events are wanted.
//! - [`work`]: the jobs. [`briefing`](fn@briefing): what a lane's job reads before it starts.
//!
//! Functions return [`sqlx::Error`] when the database is unreachable or refuses the statement.

pub mod address;
mod briefing;
pub(crate) mod contended;
pub mod deployment;
pub mod event;
pub mod filter;
pub mod lane;
pub mod upstream;
pub mod work;

pub use briefing::{Briefing, briefing};

/// The queue of windows, orchestration and upkeep.
pub const MIRROR: &str = "mirror";
/// The queue of events that were received and wait to be stored.
pub const EVENTS: &str = "mirror-events";
/// The queue of uploads to upstreams.
pub const UPLOADS: &str = "mirror-uploads";
/// The queue of deletions that are applied again.
pub const DELETIONS: &str = "mirror-deletions";

/// The queues of this wing.
pub const QUEUES: [&str; 4] = [MIRROR, EVENTS, UPLOADS, DELETIONS];
