//! Followed relays: which process holds which, their health, and what is shown of them.
//!
//! - `claim`: takes relays that are due. `lease`: keeps, ends and loses leases. `note`: what a session
//!   stores while it holds a relay. [`health`]: when a relay is tried again.
//! - `process`: the processes that share the relays. `upkeep`: relays that nothing names or holds.
//!
//! Every write of a session names its [`Lease`], and changes nothing once the lease is over or another
//! process has claimed the relay.
//!
//! Functions return [`sqlx::Error`] when the database is unreachable or refuses the statement.

mod claim;
pub mod health;
mod lease;
mod note;
mod process;
mod upkeep;

use std::time::Duration;

use uuid::Uuid;

pub use claim::{Claimed, claim};
pub use lease::{Kept, fail, give_back, limit, release, release_all, renew, renew_busy};
pub use note::{
    Refusals, Subscriptions, connected, count, good, note_refusals, note_subscriptions,
    note_verified, resynced,
};
pub use process::{Tick, forget_process, tick};
pub use upkeep::{Dropped, drop_unwanted, reap, wake_due};

/// The duration of a lease.
pub const LEASE: Duration = Duration::from_secs(30);

/// The right to follow a relay, until the lease is over. The epoch tells it from earlier leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The followed relay.
    pub relay: Uuid,
    /// Grows with each claim.
    pub epoch: i64,
}
