//! The ledger: everything that Tender knows, in PostgreSQL, each type beside its SQL.
//!
//! - [`queue`]: durable jobs. It knows no wing.
//! - [`provision`], [`mirror`], [`grasp`]: the rows of the wings, and what they commit together with jobs.
//! - [`console`]: sessions, API keys, operators' actions, statistics.
//! - [`database`]: the schema. [`steer`]: what operators do to jobs. [`subject`]: what jobs are about.
//!
//! Nothing here speaks to a network other than PostgreSQL's, and nothing here reads a clock: the
//! database is the clock. Functions take a connection or a pool and return [`sqlx::Error`] when the
//! database is unreachable or refuses the statement.

pub mod console;
pub mod database;
pub mod grasp;
pub mod mirror;
pub mod provision;
pub mod queue;
pub mod steer;
pub mod subject;

/// The queue of the recurring pruning, which belongs to no wing.
pub const PRUNE: &str = "prune";

/// Returns the name of every queue, wing by wing.
pub fn queues() -> Vec<&'static str> {
    [&provision::QUEUES[..], &mirror::QUEUES, &grasp::QUEUES, &[PRUNE]].concat()
}
