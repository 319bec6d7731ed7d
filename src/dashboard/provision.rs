//! Pages and actions of provisioning.

pub(super) mod actions;
pub(super) mod relay;
pub(super) mod relays;
