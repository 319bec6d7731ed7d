//! What GRASP promises, seen from outside: relays in this process, and the real wiring.

mod cut;
mod follow;
mod pages;
mod refusal;

use crate::support::grasp::GraspWorld;
