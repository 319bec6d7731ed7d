//! The commands of provisioning.

mod relay;

pub(super) use relay::{RelayCommand, find};
