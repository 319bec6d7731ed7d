//! Events: what is kept in step. This file says what one is and which of the storage rules it falls
//! under; its SQL is in the files below.
//!
//! - [`store`](fn@store): the one way in, for every source; keeps the four storage rules under any
//!   concurrency.
//! - [`set`](fn@set): the ids of a window, for negentropy.
//! - [`outgoing`]: what an upstream has not got yet.
//! - [`purge`](fn@purge): expiry, and the end of what was deleted long ago.

mod deletion;
pub mod outgoing;
mod parse;
mod purge;
mod set;
mod stats;
mod store;

use std::fmt;

use serde::{Serialize, Serializer, ser::SerializeStruct};

pub use deletion::reapply as reapply_deletion;
pub use parse::{Limits, Unusable, parse};
pub use purge::{Purged, purge, wipe};
pub use set::{Item, Set, set};
pub use stats::{EventStats, KindCount, note, stats};
pub use store::{Batch, Known, Stored, known, store};

/// An event's id: SHA-256 of its canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(pub [u8; 32]);

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl EventId {
    /// Reads 64 lower-case hex characters.
    pub fn parse(text: &str) -> Option<Self> {
        parse::bytes(text).map(Self)
    }

    /// From a row's column, whose length is checked there.
    pub(crate) fn of_row(bytes: &[u8]) -> Self {
        let mut id = [0; 32];
        id.copy_from_slice(&bytes[..32]);
        Self(id)
    }
}

/// An event whose shape was checked; not its id nor its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// SHA-256 of its canonical form, as it says.
    pub id: EventId,
    /// Its author.
    pub pubkey: [u8; 32],
    /// Unix seconds, as its author says.
    pub created_at: i64,
    /// What it is.
    pub kind: u16,
    /// Lists of texts, none empty.
    pub tags: Vec<Vec<String>>,
    /// What it says.
    pub content: String,
    /// BIP-340, of the id under the author's key.
    pub sig: [u8; 64],
}

/// How an event is stored, by its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Kept.
    Regular,
    /// One live version of author and kind.
    Replaceable,
    /// One live version of author, kind and `d` tag.
    Addressable,
    /// Never stored.
    Ephemeral,
}

/// A tag that can be asked for.
#[derive(Debug, Clone, Copy)]
pub struct IndexedTag<'a> {
    /// Its letter.
    pub name: char,
    /// Its second element.
    pub value: &'a str,
    /// Its place in the event.
    pub index: usize,
}

/// Why an event is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// No JSON object with all seven fields, or one of them is not what it must be.
    Malformed,
    /// Longer than the limit.
    TooLarge,
    /// More tags than the limit, or a `d` tag of more than 1,024 bytes.
    TooManyTags,
    /// Holds U+0000, which PostgreSQL's text cannot.
    Unstorable,
    /// The id is not that of the event.
    WrongId,
    /// The signature is not that of the author.
    BadSignature,
    /// Of an ephemeral kind.
    Ephemeral,
    /// Created more than 15 minutes from now.
    Future,
    /// Its expiration is past.
    Expired,
    /// Only its author may publish it (NIP-70).
    Protected,
    /// A deletion covers it.
    Deleted,
    /// A newer version is known.
    Superseded,
}

impl Reason {
    /// Its word in rows, metrics and pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too-large",
            Self::TooManyTags => "too-many-tags",
            Self::Unstorable => "unstorable",
            Self::WrongId => "wrong-id",
            Self::BadSignature => "bad-signature",
            Self::Ephemeral => "ephemeral",
            Self::Future => "future",
            Self::Expired => "expired",
            Self::Protected => "protected",
            Self::Deleted => "deleted",
            Self::Superseded => "superseded",
        }
    }

    /// Whether it holds wherever the event comes from: its id and signature were verified. The others
    /// tell of one relay's copy only.
    pub fn is_of_event(self) -> bool {
        !matches!(
            self,
            Self::Malformed
                | Self::TooLarge
                | Self::TooManyTags
                | Self::Unstorable
                | Self::WrongId
                | Self::BadSignature
        )
    }
}

impl Event {
    /// The storage rule of its kind. Source: NIP-01.
    pub fn rule(&self) -> Rule {
        match self.kind {
            0 | 3 | 10_000..=19_999 => Rule::Replaceable,
            20_000..=29_999 => Rule::Ephemeral,
            30_000..=39_999 => Rule::Addressable,
            _ => Rule::Regular,
        }
    }

    /// Whether it deletes others (NIP-09).
    pub fn is_deletion(&self) -> bool {
        self.kind == 5
    }

    /// The third part of its key: empty for replaceable kinds, the first `d` value for addressable
    /// ones, `None` for the rest.
    pub fn d_tag(&self) -> Option<&str> {
        match self.rule() {
            Rule::Regular | Rule::Ephemeral => None,
            Rule::Replaceable => Some(""),
            Rule::Addressable => Some(self.first_value("d").unwrap_or_default()),
        }
    }

    /// When it expires, if it does (NIP-40).
    pub fn expires_at(&self) -> Option<i64> {
        let expires_at = self.first_value("expiration")?.parse().ok();
        expires_at.filter(|expires_at| *expires_at > 0)
    }

    /// Whether only its author may publish it (NIP-70).
    pub fn is_protected(&self) -> bool {
        self.tags.iter().any(|tag| tag.len() == 1 && tag[0] == "-")
    }

    /// The tags that filters can ask for.
    pub fn indexed_tags(&self) -> impl Iterator<Item = IndexedTag<'_>> {
        self.tags.iter().enumerate().filter_map(|(index, tag)| {
            let mut letters = tag[0].chars();
            let name = letters.next().filter(char::is_ascii_alphabetic)?;
            let value = tag.get(1)?;
            let fits = value.chars().count() <= crate::filter::MAX_TAG_VALUE;
            (letters.next().is_none() && fits).then_some(IndexedTag { name, value, index })
        })
    }

    /// The text whose SHA-256 is its id.
    pub fn canonical(&self) -> String {
        let author = hex::encode(self.pubkey);
        let form = (0, author, self.created_at, self.kind, &self.tags, &self.content);
        serde_json::to_string(&form).unwrap_or_default() // texts and numbers only: cannot fail
    }

    fn first_value(&self, name: &str) -> Option<&str> {
        let tag = self.tags.iter().find(|tag| tag[0] == name)?;
        tag.get(1).map(String::as_str)
    }
}

/// The form that goes over the wire.
impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut event = serializer.serialize_struct("Event", 7)?;
        event.serialize_field("id", &self.id.to_string())?;
        event.serialize_field("pubkey", &hex::encode(self.pubkey))?;
        event.serialize_field("created_at", &self.created_at)?;
        event.serialize_field("kind", &self.kind)?;
        event.serialize_field("tags", &self.tags)?;
        event.serialize_field("content", &self.content)?;
        event.serialize_field("sig", &hex::encode(self.sig))?;
        event.end()
    }
}
