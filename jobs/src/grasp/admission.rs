//! Admission: judges events, whatever their source, in the transaction that stores them. An event that
//! a service admits has a row in `admission`; one that it refuses is parked.
//!
//! - `subject`: what an event says. `lookup`, `load`: what the services have accepted.
//! - `judge`: the rules, without I/O. `bench`: the judgement of a batch by every service.
//! - `gate`: the gates of the sources. `keep`: what follows from an acceptance.
//! - `explain`: what the services would decide on an event, and why.
//!
//! All judgements run one after another, under one advisory lock. A transaction that parks an event
//! therefore sees the acceptance for which it waits, or the accepting transaction sees the parked row.

mod bench;
mod explain;
mod gate;
mod judge;
mod keep;
mod load;
mod lookup;
mod services;
mod subject;

use sqlx::PgConnection;

pub use explain::{Explained, explain, find_event};
pub use gate::{Followed, OwnFeed, Rejudged, Scanned};
pub(super) use services::{Service, services};

/// The advisory lock of admission; the number has no meaning, and no other lock uses it.
const LOCK: i64 = 0x47_52_41_53_50;

/// Takes the lock of admission until the end of the transaction.
pub(super) async fn lock(tx: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("select pg_advisory_xact_lock($1)", LOCK).execute(tx).await?;
    Ok(())
}

/// Keeps the planner, until the end of the transaction, from scanning large tables while their statistics
/// are young: a judgement looks up few rows in each. Compiling such a plan would take longer than running
/// it. The statements fix the order of their joins themselves; these settings choose how each is done.
pub(super) async fn look_up_only(tx: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"select set_config('enable_seqscan', 'off', true) as "scan",
                  set_config('enable_hashjoin', 'off', true) as "hash",
                  set_config('enable_mergejoin', 'off', true) as "merge", set_config('jit', 'off', true) as "jit""#
    )
    .fetch_one(tx)
    .await?;
    Ok(())
}
