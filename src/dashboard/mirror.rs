//! Pages and actions of the mirror.

pub(super) mod actions;
pub(super) mod events;
pub(super) mod upstream;
pub(super) mod upstreams;
