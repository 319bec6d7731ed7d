//! The console: who may use the dashboard and the API, what operators did and put aside, and
//! statistics for charts.
//!
//! Functions return [`sqlx::Error`] when the database is unreachable or refuses the statement.

pub mod api_key;
pub mod charts;
pub mod operator;
pub mod session;
pub mod snooze;
pub mod stats;
