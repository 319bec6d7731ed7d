//! A relay: the state that its tenant wants, and the state that zooid has.
//!
//! Functions return [`sqlx::Error`] when the database is unreachable or refuses the statement.

mod cause;
mod fleet;
mod held;
mod limit;
mod list;
mod moved;
mod mutation;
mod named;
pub(crate) mod resync;
mod row;
mod search;
mod state;
mod wanted;
mod write;

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use cause::{Cause, CauseRequested, Causes, causes, late, request_cause, request_within};
pub use fleet::{COUNT_CAP, Row, Summary, search, summary};
pub use list::{find, find_by_host, last_sent, list, of_tenant};
pub use mutation::{
    By, MutationError, Requested, create, create_within, delete, request_own_sync, request_sync,
    set_own_status, set_status, update,
};
pub use resync::request_all;
pub(crate) use row::{RelayRow, relay_query};
pub(crate) use search::starting_with;
pub use search::{Order, Search};
pub use state::SyncState;
pub use wanted::{Change, FieldError, Flags, NewRelay, Wanted};

/// A relay's id: a UUID in lower case with hyphens.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type,
)]
#[serde(try_from = "String", into = "String")]
#[sqlx(transparent)]
pub struct RelayId(String);

/// The text is not a UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a relay's id is a UUID, such as 0b6d9f0e-5b1c-4c7e-9b43-1c1f6b8f2a10")]
pub struct InvalidRelayId;

impl RelayId {
    /// Returns a new random id.
    pub fn random() -> Self {
        Self(Uuid::new_v4().to_string())
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RelayId {
    type Err = InvalidRelayId;

    fn from_str(text: &str) -> Result<Self, InvalidRelayId> {
        Uuid::try_parse(text).map(|id| Self(id.to_string())).map_err(|_| InvalidRelayId)
    }
}

impl TryFrom<String> for RelayId {
    type Error = InvalidRelayId;

    fn try_from(text: String) -> Result<Self, InvalidRelayId> {
        text.parse()
    }
}

impl From<RelayId> for String {
    fn from(id: RelayId) -> Self {
        id.0
    }
}

impl fmt::Display for RelayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a relay serves its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum Status {
    /// The relay serves its members.
    Active,
    /// The tenant deactivated the relay.
    Inactive,
    /// The operator deactivated the relay.
    Delinquent,
    /// The relay is being deleted. It keeps its host until zooid has deleted it.
    Deleting,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Active, Self::Inactive, Self::Delinquent, Self::Deleting];

    /// Returns the name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Delinquent => "delinquent",
            Self::Deleting => "deleting",
        }
    }
}

/// Whether a retry of a failed attempt may succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum FailureKind {
    /// A retry may succeed; it follows the backoff schedule.
    Transient,
    /// A retry cannot succeed, because zooid refused the request.
    Permanent,
}

impl FailureKind {
    /// Returns the name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
        }
    }
}

/// A relay's row, without its lease.
#[derive(Debug, Clone, Serialize)]
pub struct Relay {
    /// The relay's id, in Tender and on zooid.
    pub id: RelayId,
    /// The public key of the tenant, 64 hex digits.
    pub tenant_pubkey: String,
    /// The first label of the host.
    pub subdomain: String,
    /// The rest of the host.
    pub zooid_domain: String,
    /// The billing plan, which Tender does not interpret.
    pub plan_id: String,
    /// Whether the relay serves its members.
    pub status: Status,
    /// The SQLite schema on zooid; it never changes.
    pub schema: String,
    /// The displayed name, at most 200 characters.
    pub info_name: String,
    /// The URL of the icon, or empty.
    pub info_icon: String,
    /// The displayed description, at most 10,000 characters.
    pub info_description: String,
    /// Permissions and features.
    #[serde(flatten)]
    pub flags: Flags,
    /// The tenant's own domain, or empty.
    pub custom_domain: String,
    /// Whether a check found that the custom domain points to this host.
    pub custom_domain_verified: bool,
    /// The version of the wanted state: 1 at first, plus 1 with every mutation.
    pub generation: i64,
    /// The generation that zooid accepted last; 0 at first.
    pub synced_generation: i64,
    /// Whether both generations are equal.
    pub synced: bool,
    /// The last failure at this generation, on one line; empty without a failure.
    pub sync_error: String,
    /// The kind of that failure.
    pub failure_kind: Option<FailureKind>,
    /// Failed attempts in a row at this generation.
    pub attempts: i32,
    /// When the next retry is due; `None` if none is scheduled.
    pub retry_at: Option<DateTime<Utc>>,
    /// When the relay gave up; `None` while attempts are left.
    pub exhausted_at: Option<DateTime<Utc>>,
    /// Time of the first successful attempt; `None` if zooid is not known to have the relay.
    pub provisioned_at: Option<DateTime<Utc>>,
    /// When the last call can be confirmed, because zooid may still apply an earlier one that was not
    /// answered; `None` if there is nothing to confirm.
    pub confirm_at: Option<DateTime<Utc>>,
    /// The public key of the relay's own key on zooid, 64 hex digits; `None` if it is not known.
    pub identity: Option<String>,
    /// Time of creation, by the database's clock.
    pub created_at: DateTime<Utc>,
    /// When the generation last changed.
    pub updated_at: DateTime<Utc>,
}

impl Relay {
    /// Returns `subdomain.zooid_domain`.
    pub fn host(&self) -> String {
        format!("{}.{}", self.subdomain, self.zooid_domain)
    }

    /// Returns the progress of the current generation.
    pub fn sync_state(&self) -> SyncState {
        SyncState::of(self.synced, self.exhausted_at.is_some(), self.attempts)
    }
}
