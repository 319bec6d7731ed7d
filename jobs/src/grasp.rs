//! GRASP: relays of ours that host git repositories (services), the relays that the repositories'
//! announcements name (followed relays), and how much of what the services should hold has been
//! fetched (coverage). `docs/GRASP.md` explains the rules.
//!
//! - [`service`], [`policy`]: the services and their rules of admission.
//! - [`address`]: repository addresses, and the relays that an announcement names.
//! - [`admission`]: judges events, whatever their source, in the transaction that stores them.
//!   [`parked`]: events that are refused for now.
//! - [`wanted`]: the repositories, roots and authors of a service, and the coverage that they ask for.
//! - [`coverage`], [`batch`]: what a followed relay has delivered, and what is being fetched.
//! - [`followed`]: the rows of followed relays: leases, health, due times.
//! - [`work`]: the wing's jobs. [`view`]: what people see.

pub mod address;
pub mod admission;
pub mod batch;
pub mod coverage;
pub mod family;
pub mod followed;
pub mod parked;
pub mod policy;
pub mod service;
pub mod view;
pub mod wanted;
pub mod work;

/// The queue of the wing's jobs.
pub const GRASP: &str = "grasp";

/// The wing's queues.
pub const QUEUES: [&str; 1] = [GRASP];
