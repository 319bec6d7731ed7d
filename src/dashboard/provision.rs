//! Pages and actions of provisioning.

pub(super) mod actions;
mod attempts;
pub(super) mod relay;
pub(super) mod relays;
mod request;
