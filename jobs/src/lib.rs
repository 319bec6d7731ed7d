//! The ledger: what must be done and what was done, each type beside its SQL.
//!
//! - [`relay`]: what a tenant wants, and its mutations.
//! - [`activity`]: the append-only record of changes and of the outcomes of syncs.
//! - [`queue`]: durable jobs; the only room that knows apalis's tables.
//! - [`recurring`], [`stats`]: the schedule's rows, and what syncs came to.
//! - [`upstream`], [`lane`], [`event`], [`filter`]: event sync.
//! - [`api_key`]: who may use its API.
//! - [`operator`], [`session`]: what operators did, and who may.
//! - [`backoff`]: attempt → delay, arithmetic only.
//!
//! Functions take a connection or a pool and return [`sqlx::Error`]; nothing here speaks to a
//! network other than PostgreSQL's, and nothing here reads a clock: the database is the clock.

pub mod activity;
pub mod api_key;
pub mod backoff;
pub mod database;
pub mod event;
pub mod filter;
pub mod lane;
pub mod operator;
pub mod queue;
pub mod recurring;
pub mod relay;
pub mod session;
pub mod stats;
pub mod upstream;
