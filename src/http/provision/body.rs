//! Bodies of the provision routes: requests, relays and activity.

use serde::Serialize;
use serde_json::{Map, Value};
use tender_jobs::provision::relay::{Change, FieldError, Flags, Relay};
use utoipa::ToSchema;

use crate::http::ApiError;

/// A parsed request body.
#[derive(Debug, Default)]
pub(in crate::http) struct Sent {
    pub(in crate::http) change: Change,
    pub(in crate::http) tenant_pubkey: Option<String>,
}

/// Parses a body. Unknown fields are ignored; the error lists every field of a wrong type.
pub(in crate::http) fn parse(bytes: &[u8]) -> Result<Sent, ApiError> {
    let fields: Map<String, Value> =
        serde_json::from_slice(bytes).map_err(|error| ApiError::BadJson(error.to_string()))?;
    let mut problems = Vec::new();
    let mut sent = Sent::default();
    let change = &mut sent.change;
    for (name, place) in [
        ("subdomain", &mut change.subdomain),
        ("zooid_domain", &mut change.zooid_domain),
        ("plan_id", &mut change.plan_id),
        ("info_name", &mut change.info_name),
        ("info_icon", &mut change.info_icon),
        ("info_description", &mut change.info_description),
        ("custom_domain", &mut change.custom_domain),
        ("tenant_pubkey", &mut sent.tenant_pubkey),
    ] {
        match fields.get(name) {
            None => {}
            Some(Value::String(text)) => *place = Some(text.clone()),
            Some(_) => problems.push(FieldError::new(name, "must be a string")),
        }
    }
    for name in Flags::NAMES {
        match fields.get(name).map(flag) {
            None => {}
            Some(Some(on)) => sent.change.flags.push((name, on)),
            Some(None) => problems.push(FieldError::new(name, "must be 0, 1, false or true")),
        }
    }
    if problems.is_empty() { Ok(sent) } else { Err(ApiError::Invalid(problems)) }
}

fn flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(on) => Some(*on),
        Value::Number(number) => match number.as_u64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        },
        _ => None,
    }
}

/// A relay. Flags are 0 or 1, and times are Unix seconds.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Relay)]
pub(in crate::http) struct RelayBody {
    id: String,
    tenant_pubkey: String,
    subdomain: String,
    zooid_domain: String,
    plan_id: String,
    /// `active`, `inactive` or `delinquent`.
    status: &'static str,
    /// The last error on one line; empty if there is none.
    sync_error: String,
    synced: u8,
    custom_domain: String,
    custom_domain_verified: u8,
    info_name: String,
    info_icon: String,
    info_description: String,
    policy_public_read: u8,
    policy_public_write: u8,
    policy_public_join: u8,
    policy_strip_signatures: u8,
    groups_enabled: u8,
    management_enabled: u8,
    members_can_invite: u8,
    blossom_enabled: u8,
    livekit_enabled: u8,
    push_enabled: u8,
    schema: String,
    created_at: i64,
    updated_at: i64,
}

impl From<Relay> for RelayBody {
    fn from(relay: Relay) -> Self {
        let flags = relay.flags;
        Self {
            id: relay.id.to_string(),
            tenant_pubkey: relay.tenant_pubkey,
            subdomain: relay.subdomain,
            zooid_domain: relay.zooid_domain,
            plan_id: relay.plan_id,
            status: relay.status.as_str(),
            sync_error: relay.sync_error,
            synced: relay.synced.into(),
            custom_domain: relay.custom_domain,
            custom_domain_verified: relay.custom_domain_verified.into(),
            info_name: relay.info_name,
            info_icon: relay.info_icon,
            info_description: relay.info_description,
            policy_public_read: flags.policy_public_read.into(),
            policy_public_write: flags.policy_public_write.into(),
            policy_public_join: flags.policy_public_join.into(),
            policy_strip_signatures: flags.policy_strip_signatures.into(),
            groups_enabled: flags.groups_enabled.into(),
            management_enabled: flags.management_enabled.into(),
            members_can_invite: flags.members_can_invite.into(),
            blossom_enabled: flags.blossom_enabled.into(),
            livekit_enabled: flags.livekit_enabled.into(),
            push_enabled: flags.push_enabled.into(),
            schema: relay.schema,
            created_at: relay.created_at.timestamp(),
            updated_at: relay.updated_at.timestamp(),
        }
    }
}

/// The settable fields of a relay.
#[derive(ToSchema)]
#[schema(as = RelayChange)]
#[expect(dead_code, reason = "only the OpenAPI document uses its shape")]
pub(in crate::http) struct RelayChange {
    /// Matches `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`; required for a creation.
    subdomain: Option<String>,
    /// A zooid domain that this server is configured for.
    zooid_domain: Option<String>,
    /// Read for a creation only. Only an admin may name another key than its own.
    tenant_pubkey: Option<String>,
    /// At most 64 characters.
    plan_id: Option<String>,
    /// At most 200 characters.
    info_name: Option<String>,
    /// An http(s) URL of at most 2,048 characters, or empty.
    info_icon: Option<String>,
    /// At most 10,000 characters.
    info_description: Option<String>,
    /// A domain name, or empty.
    custom_domain: Option<String>,
    /// 0, 1, false or true, like all flags.
    policy_public_read: Option<u8>,
    policy_public_write: Option<u8>,
    policy_public_join: Option<u8>,
    policy_strip_signatures: Option<u8>,
    groups_enabled: Option<u8>,
    management_enabled: Option<u8>,
    members_can_invite: Option<u8>,
    blossom_enabled: Option<u8>,
    livekit_enabled: Option<u8>,
    push_enabled: Option<u8>,
}

/// A record of activity.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Activity)]
pub(in crate::http) struct ActivityBody {
    /// The value for `before` to request the next page.
    id: String,
    tenant_pubkey: String,
    created_at: i64,
    activity_type: &'static str,
    resource_type: String,
    resource_id: String,
    detail: Value,
}

impl From<tender_jobs::provision::activity::Activity> for ActivityBody {
    fn from(activity: tender_jobs::provision::activity::Activity) -> Self {
        Self {
            id: activity.id.to_string(),
            tenant_pubkey: activity.tenant_pubkey,
            created_at: activity.created_at.timestamp(),
            activity_type: activity.activity_type.as_str(),
            resource_type: activity.resource_type,
            resource_id: activity.resource_id,
            detail: activity.detail,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_field_of_a_wrong_type_is_named() {
        let body = br#"{"subdomain": 1, "push_enabled": 2, "groups_enabled": "yes", "new": {}}"#;
        let Err(ApiError::Invalid(problems)) = parse(body) else { panic!("accepted") };
        let fields: Vec<_> = problems.iter().map(|problem| problem.field).collect();
        assert_eq!(fields, ["subdomain", "groups_enabled", "push_enabled"]);
    }

    #[test]
    fn flags_come_as_numbers_or_booleans() {
        let sent = parse(br#"{"push_enabled": true, "groups_enabled": 0}"#).expect("valid");
        assert_eq!(sent.change.flags, [("groups_enabled", false), ("push_enabled", true)]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_parsing_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
