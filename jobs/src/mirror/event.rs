//! Events and their storage rules. The modules below contain the SQL.
//!
//! - [`store`](fn@store): the only way to add events, from every source. It enforces the four
//!   storage rules under concurrency.
//! - [`set`](fn@set): the ids of a window, for negentropy.
//! - [`outgoing`]: the events that an upstream does not have yet.
//! - [`purge`](fn@purge): deletes expired events, and removes events that were deleted long ago.
//!
//! Functions return [`sqlx::Error`] when the database is unreachable or refuses the statement.

mod deletion;
mod exact;
mod gate;
mod kinds;
mod named;
pub mod outgoing;
mod parse;
mod purge;
mod set;
mod stats;
mod store;
mod tally;

use std::{borrow::Cow, fmt};

use serde::{Serialize, Serializer, ser::SerializeStruct};

pub use deletion::reapply as reapply_deletion;
pub use gate::{Gate, Gated, Judged};
pub use kinds::{KindCount, roll_up};
pub use named::{FoundEvent, starting_with};
pub use parse::{Limits, Unusable, parse};
pub use purge::{Purged, purge, wipe};
pub use set::{Item, Set, set};
pub use stats::{EventStats, ReasonCount, rejected_of, stats};

pub use store::{Batch, Known, Refused, Stored, known, store};
pub use tally::Tally;

pub(crate) use store::{column, deleted, rows_of};

/// The longest `d` tag that is stored, in bytes. A row of an index holds about 2,700 bytes.
const MAX_D_TAG: usize = 1024;

/// An event's id: the SHA-256 of its canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(pub [u8; 32]);

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl EventId {
    /// Parses 64 lower-case hex characters; `None` if malformed.
    pub fn parse(text: &str) -> Option<Self> {
        parse::bytes(text).map(Self)
    }

    /// Returns the id in a row's column. A constraint of the table guarantees its length.
    pub(crate) fn of_row(bytes: &[u8]) -> Self {
        let mut id = [0; 32];
        id.copy_from_slice(&bytes[..32]);
        Self(id)
    }
}

/// An event whose shape was checked, but not its id or its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The id that the event claims: the SHA-256 of its canonical form.
    pub id: EventId,
    /// The public key of the author.
    pub pubkey: [u8; 32],
    /// The time that the author claims, in Unix seconds.
    pub created_at: i64,
    /// The kind, which determines the storage [`Rule`].
    pub kind: u16,
    /// Lists of strings; no list is empty.
    pub tags: Vec<Vec<String>>,
    /// The content, which the mirror does not interpret.
    pub content: String,
    /// The BIP-340 signature of the id by the author's key.
    pub sig: [u8; 64],
}

/// How events of a kind are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Every event is kept.
    Regular,
    /// One live version per author and kind.
    Replaceable,
    /// One live version per author, kind and `d` tag.
    Addressable,
    /// Events are never stored.
    Ephemeral,
}

/// A tag that a filter can match.
#[derive(Debug, Clone, Copy)]
pub struct IndexedTag<'a> {
    /// The letter that names the tag.
    pub name: char,
    /// The second element of the tag.
    pub value: &'a str,
}

/// Why an event is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The event is not a JSON object with all seven fields, or a field is invalid.
    Malformed,
    /// The event is larger than the limit.
    TooLarge,
    /// The event has more tags than the limit.
    TooManyTags,
    /// The identifier (tag `d`) is longer than 1,024 bytes, which no setting admits.
    IdentifierTooLong,
    /// The id is not the hash of the event.
    WrongId,
    /// The signature was not made by the author's key.
    BadSignature,
    /// The kind is ephemeral.
    Ephemeral,
    /// The event was created more than 15 minutes in the future.
    Future,
    /// The event has expired (NIP-40).
    Expired,
    /// Only the author may publish the event (NIP-70).
    Protected,
    /// A deletion covers the event.
    Deleted,
    /// A newer version of the event is known.
    Superseded,
    /// The database refused a value of the event.
    RefusedByStore,
    /// The wing that received the event has no reason to store it, for now or for good.
    NotAdmitted,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 14] = [
        Self::Malformed,
        Self::TooLarge,
        Self::TooManyTags,
        Self::IdentifierTooLong,
        Self::WrongId,
        Self::BadSignature,
        Self::Ephemeral,
        Self::Future,
        Self::Expired,
        Self::Protected,
        Self::Deleted,
        Self::Superseded,
        Self::RefusedByStore,
        Self::NotAdmitted,
    ];

    /// Returns the name in rows, metrics and pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too-large",
            Self::TooManyTags => "too-many-tags",
            Self::IdentifierTooLong => "identifier-too-long",
            Self::WrongId => "wrong-id",
            Self::BadSignature => "bad-signature",
            Self::Ephemeral => "ephemeral",
            Self::Future => "future",
            Self::Expired => "expired",
            Self::Protected => "protected",
            Self::Deleted => "deleted",
            Self::Superseded => "superseded",
            Self::RefusedByStore => "refused-by-store",
            Self::NotAdmitted => "not-admitted",
        }
    }

    /// Returns whether the reason applies to the event from any source, because its id and
    /// signature were verified. Other reasons apply only to the copy of one relay.
    pub fn is_of_event(self) -> bool {
        !matches!(
            self,
            Self::Malformed
                | Self::TooLarge
                | Self::TooManyTags
                | Self::IdentifierTooLong
                | Self::WrongId
                | Self::BadSignature
        )
    }
}

/// Returns the storage rule of a kind. Source: NIP-01.
fn rule(kind: u16) -> Rule {
    match kind {
        0 | 3 | 10_000..=19_999 => Rule::Replaceable,
        20_000..=29_999 => Rule::Ephemeral,
        30_000..=39_999 => Rule::Addressable,
        _ => Rule::Regular,
    }
}

impl Event {
    /// Returns the storage rule of the kind.
    pub fn rule(&self) -> Rule {
        rule(self.kind)
    }

    /// Returns whether the event deletes others (NIP-09).
    pub fn is_deletion(&self) -> bool {
        self.kind == 5
    }

    /// Returns the third part of the event's key, after author and kind: empty for replaceable
    /// kinds, the first `d` value for addressable ones, `None` for the others.
    pub fn d_tag(&self) -> Option<&str> {
        match self.rule() {
            Rule::Regular | Rule::Ephemeral => None,
            Rule::Replaceable => Some(""),
            Rule::Addressable => Some(self.first_value("d").unwrap_or_default()),
        }
    }

    /// Returns the `d` tag of the event's key as the store has it.
    fn key_tag(&self) -> Option<Cow<'_, str>> {
        self.d_tag().map(exact::key)
    }

    /// Returns when the event expires, in Unix seconds (NIP-40); `None` if it does not.
    pub fn expires_at(&self) -> Option<i64> {
        let expires_at = self.first_value("expiration")?.parse().ok();
        expires_at.filter(|expires_at| *expires_at > 0)
    }

    /// Returns whether only the author may publish the event (NIP-70).
    pub fn is_protected(&self) -> bool {
        self.tags.iter().any(|tag| tag.len() == 1 && tag[0] == "-")
    }

    /// Returns the tags that a filter can match: single letters with values that are not too long
    /// and do not contain U+0000.
    pub fn indexed_tags(&self) -> impl Iterator<Item = IndexedTag<'_>> {
        self.tags.iter().filter_map(|tag| {
            let mut letters = tag[0].chars();
            let name = letters.next().filter(char::is_ascii_alphabetic)?;
            let value = tag.get(1)?;
            let fits = crate::mirror::filter::is_tag_value(value);
            (letters.next().is_none() && fits).then_some(IndexedTag { name, value })
        })
    }

    /// Returns the length of the event's texts in bytes: about what it takes in memory.
    pub fn bytes(&self) -> usize {
        self.content.len() + self.tags.iter().flatten().map(String::len).sum::<usize>()
    }

    /// Returns the text whose SHA-256 is the event's id.
    pub fn canonical(&self) -> String {
        let author = hex::encode(self.pubkey);
        let form = (0, author, self.created_at, self.kind, &self.tags, &self.content);
        // The serialisation of strings and numbers cannot fail.
        serde_json::to_string(&form).unwrap_or_default()
    }

    fn first_value(&self, name: &str) -> Option<&str> {
        let tag = self.tags.iter().find(|tag| tag[0] == name)?;
        tag.get(1).map(String::as_str)
    }
}

/// The JSON form that relays exchange (NIP-01).
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
