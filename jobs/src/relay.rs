//! A relay: what its tenant wants, and how far zooid has followed.

mod fleet;
mod list;
mod mutation;
pub(crate) mod resync;
mod wanted;

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use fleet::{COUNT_CAP, Order, Row, Search, Summary, gave_up, search, summary};
pub use list::{Filter, find, last_sent, list, of_tenant};
pub use mutation::{By, MutationError, Requested, create, request_sync, set_status, update};
pub use resync::request_all;
pub use wanted::{Change, FieldError, Flags, NewRelay, Wanted};

/// A relay's id: a UUID in its usual lower-case form.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type,
)]
#[serde(try_from = "String", into = "String")]
#[sqlx(transparent)]
pub struct RelayId(String);

/// The text is no UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a relay's id is a UUID, such as 0b6d9f0e-5b1c-4c7e-9b43-1c1f6b8f2a10")]
pub struct InvalidRelayId;

impl RelayId {
    /// A new random id.
    pub fn random() -> Self {
        Self(Uuid::new_v4().to_string())
    }

    /// The id's text.
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
    /// It does.
    Active,
    /// Its tenant switched it off.
    Inactive,
    /// The operator switched it off.
    Delinquent,
}

impl Status {
    /// The name stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Delinquent => "delinquent",
        }
    }
}

/// Whether a failure may pass by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum FailureKind {
    /// It may: tried again on the schedule.
    Transient,
    /// It will not: zooid refused what we sent.
    Permanent,
}

impl FailureKind {
    /// The name stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
        }
    }
}

/// How far zooid has followed, as an operator reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncState {
    /// What is wanted is on zooid.
    Synced,
    /// Not tried yet at this generation.
    Pending,
    /// Failed, and a next attempt has its time.
    Retrying,
    /// Failed for good, or the schedule is used up.
    GaveUp,
}

impl SyncState {
    pub(crate) fn of(synced: bool, has_given_up: bool, attempts: i32) -> Self {
        match (synced, has_given_up, attempts) {
            (true, ..) => Self::Synced,
            (false, true, _) => Self::GaveUp,
            (false, false, 0) => Self::Pending,
            (false, false, _) => Self::Retrying,
        }
    }

    /// The name shown and accepted as a filter.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Pending => "pending",
            Self::Retrying => "retrying",
            Self::GaveUp => "gave_up",
        }
    }
}

/// A relay's row, without its lease.
#[derive(Debug, Clone, Serialize)]
pub struct Relay {
    /// Its id on zooid too.
    pub id: RelayId,
    /// The owner's key, 64 hex digits.
    pub tenant_pubkey: String,
    /// First label of its host.
    pub subdomain: String,
    /// The rest of its host.
    pub zooid_domain: String,
    /// The plan it is billed by; opaque here.
    pub plan_id: String,
    /// Whether it serves its members.
    pub status: Status,
    /// Its SQLite schema on zooid; never changes.
    pub schema: String,
    /// Shown name, at most 200 characters.
    pub info_name: String,
    /// URL of its picture, or empty.
    pub info_icon: String,
    /// Shown description, at most 10,000 characters.
    pub info_description: String,
    /// Who may do what, and which features are on.
    #[serde(flatten)]
    pub flags: Flags,
    /// The tenant's own domain, or empty.
    pub custom_domain: String,
    /// Whether that domain was seen to point here.
    pub custom_domain_verified: bool,
    /// +1 by every mutation; starts at 1.
    pub generation: i64,
    /// The generation that zooid was last told of; 0 at first.
    pub synced_generation: i64,
    /// Whether the two are equal.
    pub synced: bool,
    /// The last failure at this generation in one line; empty when none.
    pub sync_error: String,
    /// What kind of failure that was.
    pub failure_kind: Option<FailureKind>,
    /// Failed attempts in a row at this generation.
    pub attempts: i32,
    /// When the next attempt is due, while one is waiting for its time.
    pub retry_at: Option<DateTime<Utc>>,
    /// When we gave up.
    pub exhausted_at: Option<DateTime<Utc>>,
    /// First completed sync; `None` means that zooid was never known to have it.
    pub provisioned_at: Option<DateTime<Utc>>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When what is wanted last changed.
    pub updated_at: DateTime<Utc>,
}

impl Relay {
    /// `subdomain.zooid_domain`.
    pub fn host(&self) -> String {
        format!("{}.{}", self.subdomain, self.zooid_domain)
    }

    /// How far zooid has followed.
    pub fn sync_state(&self) -> SyncState {
        SyncState::of(self.synced, self.exhausted_at.is_some(), self.attempts)
    }
}

/// A relay's row as the database gives it; flat, because `query_as!` knows no nesting.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "a row's columns")]
pub(crate) struct RelayRow {
    pub(crate) id: RelayId,
    pub(crate) tenant_pubkey: String,
    pub(crate) subdomain: String,
    pub(crate) zooid_domain: String,
    pub(crate) plan_id: String,
    pub(crate) status: Status,
    pub(crate) schema: String,
    pub(crate) info_name: String,
    pub(crate) info_icon: String,
    pub(crate) info_description: String,
    pub(crate) policy_public_read: bool,
    pub(crate) policy_public_write: bool,
    pub(crate) policy_public_join: bool,
    pub(crate) policy_strip_signatures: bool,
    pub(crate) groups_enabled: bool,
    pub(crate) management_enabled: bool,
    pub(crate) members_can_invite: bool,
    pub(crate) blossom_enabled: bool,
    pub(crate) livekit_enabled: bool,
    pub(crate) push_enabled: bool,
    pub(crate) custom_domain: String,
    pub(crate) custom_domain_verified: bool,
    pub(crate) generation: i64,
    pub(crate) synced_generation: i64,
    pub(crate) synced: bool,
    pub(crate) sync_error: String,
    pub(crate) failure_kind: Option<FailureKind>,
    pub(crate) attempts: i32,
    pub(crate) retry_at: Option<DateTime<Utc>>,
    pub(crate) exhausted_at: Option<DateTime<Utc>>,
    pub(crate) provisioned_at: Option<DateTime<Utc>>,
    pub(crate) lease_job: Option<String>,
    pub(crate) lease_epoch: i64,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
}

/// `query_as!` over every column of a relay, from what is called `relay` in the statement's tail;
/// `$head` is what goes before `select` (a `with`).
macro_rules! relay_query {
    ($head:literal, $tail:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            $crate::relay::RelayRow,
            $head
                + r#" select relay.id as "id!: RelayId", relay.tenant_pubkey as "tenant_pubkey!",
                    relay.subdomain as "subdomain!", relay.zooid_domain as "zooid_domain!",
                    relay.plan_id as "plan_id!", relay.status as "status!: crate::relay::Status",
                    relay.schema as "schema!", relay.info_name as "info_name!",
                    relay.info_icon as "info_icon!", relay.info_description as "info_description!",
                    relay.policy_public_read as "policy_public_read!",
                    relay.policy_public_write as "policy_public_write!",
                    relay.policy_public_join as "policy_public_join!",
                    relay.policy_strip_signatures as "policy_strip_signatures!",
                    relay.groups_enabled as "groups_enabled!",
                    relay.management_enabled as "management_enabled!",
                    relay.members_can_invite as "members_can_invite!",
                    relay.blossom_enabled as "blossom_enabled!",
                    relay.livekit_enabled as "livekit_enabled!",
                    relay.push_enabled as "push_enabled!",
                    relay.custom_domain as "custom_domain!",
                    relay.custom_domain_verified as "custom_domain_verified!",
                    relay.generation as "generation!",
                    relay.synced_generation as "synced_generation!",
                    relay.synced as "synced!", relay.sync_error as "sync_error!",
                    relay.failure_kind as "failure_kind: crate::relay::FailureKind",
                    relay.attempts as "attempts!", relay.retry_at, relay.exhausted_at,
                    relay.provisioned_at, relay.lease_job, relay.lease_epoch as "lease_epoch!",
                    relay.created_at as "created_at!", relay.updated_at as "updated_at!" "#
                + $tail
            $(, $argument)*
        )
    };
}
pub(crate) use relay_query;

impl From<RelayRow> for Relay {
    fn from(row: RelayRow) -> Self {
        Self {
            flags: Flags {
                policy_public_read: row.policy_public_read,
                policy_public_write: row.policy_public_write,
                policy_public_join: row.policy_public_join,
                policy_strip_signatures: row.policy_strip_signatures,
                groups_enabled: row.groups_enabled,
                management_enabled: row.management_enabled,
                members_can_invite: row.members_can_invite,
                blossom_enabled: row.blossom_enabled,
                livekit_enabled: row.livekit_enabled,
                push_enabled: row.push_enabled,
            },
            id: row.id,
            tenant_pubkey: row.tenant_pubkey,
            subdomain: row.subdomain,
            zooid_domain: row.zooid_domain,
            plan_id: row.plan_id,
            status: row.status,
            schema: row.schema,
            info_name: row.info_name,
            info_icon: row.info_icon,
            info_description: row.info_description,
            custom_domain: row.custom_domain,
            custom_domain_verified: row.custom_domain_verified,
            generation: row.generation,
            synced_generation: row.synced_generation,
            synced: row.synced,
            sync_error: row.sync_error,
            failure_kind: row.failure_kind,
            attempts: row.attempts,
            retry_at: row.retry_at,
            exhausted_at: row.exhausted_at,
            provisioned_at: row.provisioned_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}
