//! Provisioning: what tenants want of their relays, and how it reaches zooid.
//!
//! - [`relay`]: the relay's row, its mutations, lists. A mutation commits the row, a record in
//!   [`activity`] and a SyncRelay job together.
//! - [`claim`], [`complete`], [`fail`]: the ledger's side of an attempt, before and after the call.
//! - [`backoff`]: when a failed attempt is retried. [`instance`]: zooid instances, their outage
//!   breakers and the calls in flight.
//! - [`enqueue_pending`]: reconcile. [`start_resync`]: every relay again. [`reassert`]: every relay again,
//!   slowly and for ever.
//!
//! Functions return [`sqlx::Error`] when the database is unreachable or refuses the statement.

pub mod activity;
pub mod backoff;
mod breaker;
mod claim;
mod conflict;
mod delete;
mod fail;
mod failure;
mod hold;
pub mod instance;
mod job;
mod plan;
mod probe;
mod reassert;
mod reconcile;
pub mod relay;
mod resync;
mod revive;
mod settle;
pub(crate) mod steer;

pub use breaker::BreakerPolicy;
pub use claim::{Claim, ClaimRequest, Lease, claim, is_leased, lease_of};
pub use conflict::{Occupant, had_host, occupant};
pub use delete::delete_done;
pub use fail::{Rules, fail};
pub use failure::{Conflict, Failure, Reached, Verdict};
pub use hold::release_waiting;
pub use job::{Cause, REASSERT, RECONCILE, RESYNC, SYNC_RELAY, SyncPayload, UnreadablePayload};
pub use reassert::{Reasserted, reassert};
pub use reconcile::{PAGE as RECONCILE_PAGE, Page, enqueue_pending};
pub use resync::{MAX_RATE, ResyncPayload, Resynced, advance_resync, start_resync};
pub use revive::revive;
pub use settle::{Attempt, Completed, Completion, complete};

/// The settings of sessions that claim and complete. By default PostgreSQL plans these statements again for each array
/// length, which costs a fifth of an attempt. But a generic plan that is made while a table is small reads all of it, until
/// the next analysis: a claim took 2.2 ms beside a few thousand jobs, and takes 0.4 ms with lookups by key alone. A batch
/// does not wait long for the lock of one row: its other rows are then settled one by one. The function `claim_relays` has
/// the settings of its plans itself, for sessions behind a pooler; whoever replaces it repeats them.
pub const PLANS: &str = "set plan_cache_mode = force_generic_plan; set enable_seqscan = off; \
     set enable_hashjoin = off; set enable_mergejoin = off; set enable_material = off; set lock_timeout = '2s'";

/// The queues of this wing.
pub const QUEUES: [&str; 4] = [SYNC_RELAY, RECONCILE, RESYNC, REASSERT];
