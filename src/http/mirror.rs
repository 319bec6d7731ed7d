//! The routes of the mirror wing.

pub(super) mod v1;
