//! Tests with the real executable: its commands, the processes that stay, and their recovery from faults.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::doc_markdown,
    clippy::large_stack_arrays,
    reason = "tests, some of which print their figures"
)]

#[path = "../support/mod.rs"]
mod support;

mod audit;
mod commands;
mod doctor;
#[cfg(feature = "failpoints")]
mod failpoints;
mod faults;
mod first_run;
mod grasp;
mod grasp_commands;
mod logs;
mod migrations;
mod mirror_commands;
mod private_postgres;
mod secrets;
mod steering;
mod stop;
#[cfg(feature = "otel")]
mod traces;
mod usage;
mod width;
mod wings;

use nostr::key::Keys;
use support::process::ROBOT_SECRET;
use tender::demo::zooid::ZooidStandIn;

/// A stand-in for zooid that knows the key of real processes.
async fn stand_in() -> ZooidStandIn {
    support::install_tls();
    ZooidStandIn::start(vec![Keys::parse(ROBOT_SECRET).unwrap().public_key()]).await.unwrap()
}
