//! What a service has accepted already, as far as a batch of events can touch it.

use std::collections::{HashMap, HashSet};

use crate::{grasp::policy::Rule, mirror::event::EventId};

/// A repository of a service.
#[derive(Debug, Clone, Default)]
pub(super) struct Repo {
    pub(super) pubkey: [u8; 32],
    pub(super) identifier: String,
    /// The newest announcement that was seen: time and id.
    pub(super) newest: Version,
    /// Whether the newest announcement does not name the service any more.
    pub(super) has_left: bool,
    /// Whether only its author's maintainership of another repository admits it.
    pub(super) by_maintainer: bool,
    pub(super) maintainers: Vec<[u8; 32]>,
}

/// A version of an addressable event: later ones are greater.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    at: i64,
    /// Within a second, the smallest id wins.
    id: std::cmp::Reverse<[u8; 32]>,
}

impl Version {
    pub(super) fn new(at: i64, id: EventId) -> Self {
        Self { at, id: std::cmp::Reverse(id.0) }
    }
}

/// What a service has accepted, among the things that some events name.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    /// The repositories with an address or an identifier of the batch, by address.
    pub(super) repos: HashMap<String, Repo>,
    /// The events of the batch that are admitted already.
    pub(super) standing: HashMap<EventId, Rule>,
    /// The accepted events that the batch names, and the repositories through which they came.
    pub(super) accepted: HashMap<EventId, Vec<String>>,
    /// The accepted addressable events that the batch names, except for announcements.
    pub(super) addresses: HashMap<String, Vec<String>>,
    /// The newest known announcement of a repository of the batch that is not admitted.
    pub(super) outside: HashMap<String, Version>,
    /// Addresses, and ids in hex, to which accepted events point.
    pub(super) pointed: HashMap<String, Vec<String>>,
    /// Events of the batch that the store refuses, because a deletion covers them, or because only their
    /// author may publish them.
    pub(super) deleted: HashSet<EventId>,
}
