//! Tender keeps Nostr relays in step through durable jobs in PostgreSQL.
//!
//! - [`command`]: the command line.
//! - [`config`]: the configuration, read once from the environment.
//! - [`dashboard`]: the pages for operators.
//! - [`fleet`]: the overview of the fleet, and the items that need attention.
//! - [`http`]: the HTTP API.
//! - [`postgres`]: the private PostgreSQL.
//! - [`demo`]: the demo, and the stand-in for zooid.
//! - [`telemetry`]: log, metrics and traces.
//! - [`tokens`]: the tokens of the API `/api/v1`.
//!
//! The crate `tender-jobs` is the ledger, and the crate `tender-workers` runs the jobs. Neither
//! depends on this crate. `docs/ARCHITECTURE.md` is the map.

pub mod command;
pub mod config;
pub mod dashboard;
pub mod demo;
pub mod fleet;
pub mod http;
mod nip98;
mod page;
pub mod postgres;
mod random;
mod search;
mod selection;
mod signal;
pub mod telemetry;
pub mod tokens;
mod words;
