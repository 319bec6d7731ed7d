//! Provisioning: what tenants want of their relays, and how it reaches zooid.
//!
//! - [`relay`]: the relay's row, its mutations, lists. A mutation commits the row, a record in
//!   [`activity`] and a SyncRelay job together.
//! - [`claim`], [`complete`], [`fail`]: the ledger's side of an attempt, before and after the call.
//! - [`backoff`]: when a failed attempt is retried. [`instance`]: zooid instances, their outage
//!   breakers and the calls in flight.
//! - [`enqueue_pending`]: reconcile. [`start_resync`]: every relay again.
//!
//! Functions return [`sqlx::Error`] when the database is unreachable or refuses the statement.

pub mod activity;
pub mod backoff;
mod breaker;
mod claim;
mod fail;
mod failure;
mod hold;
pub mod instance;
mod job;
mod plan;
mod reconcile;
pub mod relay;
mod resync;
mod settle;
pub(crate) mod steer;

pub use breaker::BreakerPolicy;
pub use claim::{Claim, ClaimRequest, LEASE, Lease, claim, is_leased, lease_of};
pub use fail::{Rules, fail};
pub use failure::{Failure, Reached, Verdict};
pub use hold::release_held;
pub use job::{Cause, RECONCILE, RESYNC, SYNC_RELAY, SyncPayload, UnreadablePayload};
pub use reconcile::{PAGE as RECONCILE_PAGE, Page, enqueue_pending};
pub use resync::{MAX_RATE, ResyncPayload, Resynced, advance_resync, start_resync};
pub use settle::{Attempt, Completed, Completion, complete};

/// The queues of this wing.
pub const QUEUES: [&str; 3] = [SYNC_RELAY, RECONCILE, RESYNC];
