//! Tender keeps Nostr relays in step through durable jobs in PostgreSQL.
//!
//! - [`command`]: what can be typed.
//! - [`config`]: the environment, read once.
//! - [`dashboard`]: pages for operators.
//! - [`fleet`]: the fleet at one look, and what of it needs attention.
//! - [`http`]: the API.
//! - [`postgres`]: the private PostgreSQL.
//! - [`demo`]: the demo and the zooid stand-in.
//! - [`telemetry`]: log and metrics.
//! - [`tokens`]: tokens of event sync's API.
//!
//! The ledger is the crate `tender-jobs`, the jobs' work is in `tender-workers`; both are below this
//! one and know nothing of it. `docs/ARCHITECTURE.md` is the map.

pub mod command;
pub mod config;
pub mod dashboard;
pub mod demo;
pub mod fleet;
pub mod http;
pub mod postgres;
pub mod telemetry;
pub mod tokens;
mod words;
