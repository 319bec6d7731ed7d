//! Tests with the real executable: what it prints, and what it survives.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod commands;
#[cfg(feature = "failpoints")]
mod failpoints;
mod private_postgres;
mod secrets;
mod steering;
mod sync_commands;
#[cfg(feature = "otel")]
mod traces;
