//! Tests of the ledger, the jobs and the API, through public functions and real HTTP, on a real
//! PostgreSQL. `bin/test` runs them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod apalis_contract;
mod api;
mod api_auth;
mod api_limits;
mod api_matrix;
mod api_service;
mod api_v1;
mod architecture;
mod attempt;
mod attempt_outcomes;
mod bad_rows;
mod body;
mod breaker;
mod connections;
mod dashboard;
mod deletion;
mod deploy;
mod enqueue;
mod event_counts;
mod event_monsters;
mod event_store;
mod event_upkeep;
mod exhaustive;
mod fencing;
mod in_flight;
mod interleaving;
mod ledger;
mod migrations;
mod mirror;
mod mirror_attempts;
mod mirror_caps;
mod mirror_dispatch;
mod mirror_filter;
mod mirror_forget;
mod mirror_lanes;
mod mirror_matrix;
mod mirror_misbehaviour;
mod mirror_negentropy;
mod mirror_oldest;
mod mirror_properties;
mod mirror_retry;
mod mirror_settings;
mod mirror_uploader;
mod mirror_uploads;
mod mirror_wakeup;
mod mirror_wire;
mod moves;
mod reassertion;
mod reconcile;
mod repair;
mod rescue;
mod retention;
mod settings_walk;
mod small_outage;
mod stand_in;
mod steer;
mod unanswered;
mod workers;
mod zooid_client;
mod zooid_rules;
