//! The commands of provisioning.

mod instance;
mod relay;

pub(super) use instance::InstanceCommand;
pub(super) use relay::{RelayCommand, find};
