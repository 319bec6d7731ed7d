//! What admission needs to know of an event itself. Pure.

use crate::{
    grasp::address::{Address, Announcement, STATE},
    mirror::event::{Event, EventId, Rule},
};

/// The most references of an event that count, in the order of its tags.
const MAX_REFERENCES: usize = 200;

/// An event, and what it points to.
#[derive(Debug)]
pub(super) struct Subject<'e> {
    pub(super) event: &'e Event,
    /// What it announces, if it is an announcement.
    pub(super) announcement: Option<Announcement>,
    /// Its own address, if it is addressable or replaceable.
    pub(super) own: Option<String>,
    /// The addresses that it points to by `a`, `A` or `q`.
    pub(super) addresses: Vec<String>,
    /// The ids that it points to by `e`, `E` or `q`.
    pub(super) ids: Vec<EventId>,
}

impl<'e> Subject<'e> {
    pub(super) fn of(event: &'e Event) -> Self {
        let (mut addresses, mut ids) = (Vec::new(), Vec::new());
        let refers = |tag: &&Vec<String>| {
            tag.len() > 1 && matches!(tag[0].as_str(), "a" | "A" | "q" | "e" | "E")
        };
        for tag in event.tags.iter().filter(refers).take(MAX_REFERENCES) {
            let (name, value) = (tag[0].as_str(), tag[1].as_str());
            if matches!(name, "a" | "A" | "q") {
                addresses.extend(Address::parse(value).map(|address| address.to_string()));
            }
            if matches!(name, "e" | "E" | "q") {
                ids.extend(EventId::parse(value));
            }
        }
        Self {
            event,
            announcement: Announcement::of(event),
            own: own(event),
            addresses: once(addresses),
            ids: once(ids),
        }
    }

    /// The identifier of an announcement or a state.
    pub(super) fn identifier(&self) -> Option<&'e str> {
        let is_named = self.announcement.is_some() || self.event.kind == STATE;
        is_named.then(|| self.event.d_tag().unwrap_or_default())
    }

    /// The address of an announced repository.
    pub(super) fn repo(&self) -> Option<String> {
        let address = self.announcement.as_ref()?.address.as_ref()?;
        Some(address.to_string())
    }

    /// The keys of what the event waits for as long as nothing connects it: what it points to, and an
    /// accepted event that points to it.
    pub(super) fn keys(&self) -> Vec<String> {
        let addresses = self.addresses.iter().map(|address| format!("a:{address}"));
        let ids = self.ids.iter().map(|id| format!("e:{id}"));
        let own = self.own.iter().map(|address| format!("i:{address}"));
        addresses.chain(ids).chain(own).chain([format!("i:{}", self.event.id)]).collect()
    }
}

fn own(event: &Event) -> Option<String> {
    if !matches!(event.rule(), Rule::Addressable | Rule::Replaceable) {
        return None;
    }
    let identifier = event.d_tag().filter(|tag| !tag.contains('\0'))?.to_owned();
    Some(Address { kind: event.kind, pubkey: event.pubkey, identifier }.to_string())
}

/// Returns each value once, in the order of first appearance.
fn once<T: PartialEq>(values: Vec<T>) -> Vec<T> {
    let mut once = Vec::with_capacity(values.len());
    for value in values {
        if !once.contains(&value) {
            once.push(value);
        }
    }
    once
}
