//! A relay's row as the database returns it.

use chrono::{DateTime, Utc};

use super::{FailureKind, Flags, Relay, RelayId, Status};

/// A relay's row as the database returns it. It is flat, because `query_as!` does not support
/// nested structs.
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
    pub(crate) confirm_at: Option<DateTime<Utc>>,
    pub(crate) identity: Option<String>,
    pub(crate) lease_job: Option<String>,
    pub(crate) lease_epoch: i64,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
}

/// `query_as!` over every column of the table that the statement's tail calls `relay`. `$head` is
/// the text before `select`, such as a `with` clause.
macro_rules! relay_query {
    ($head:literal, $tail:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            $crate::provision::relay::RelayRow,
            $head
                + r#" select relay.id as "id!: RelayId", relay.tenant_pubkey as "tenant_pubkey!",
                    relay.subdomain as "subdomain!", relay.zooid_domain as "zooid_domain!",
                    relay.plan_id as "plan_id!", relay.status as "status!: crate::provision::relay::Status",
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
                    relay.failure_kind as "failure_kind: crate::provision::relay::FailureKind",
                    relay.attempts as "attempts!", relay.retry_at, relay.exhausted_at,
                    relay.provisioned_at, relay.confirm_at,
                    relay.identity, relay.lease_job, relay.lease_epoch as "lease_epoch!",
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
            confirm_at: row.confirm_at,
            identity: row.identity,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}
