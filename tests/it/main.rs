//! Tests of the ledger, the jobs and the API, through public functions and real HTTP, on a real
//! PostgreSQL. `bin/test` runs them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod apalis_contract;
mod api;
mod api_auth;
mod api_matrix;
mod api_v1;
mod attempt;
mod attempt_outcomes;
mod body;
mod breaker;
mod dashboard;
mod deploy;
mod enqueue;
mod event_store;
mod fencing;
mod interleaving;
mod ledger;
mod reconcile;
mod rescue;
mod steer;
mod sync;
mod sync_lanes;
mod sync_misbehaviour;
mod sync_properties;
mod workers;
