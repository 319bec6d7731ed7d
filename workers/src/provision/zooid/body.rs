//! A relay as zooid's document. The functions are pure: the same relay gives the same body.

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tender_jobs::provision::relay::{Relay, Status};

/// An S3 bucket for media, from `BLOSSOM_S3_*`.
#[derive(Debug, Clone)]
pub struct Blossom {
    /// The URL of the S3 service; empty for AWS.
    pub endpoint: String,
    /// The region; not empty.
    pub region: String,
    /// The name of the bucket; not empty.
    pub bucket: String,
    /// The id of the access key; not empty.
    pub access_key: SecretString,
    /// The secret of the access key; not empty.
    pub secret_key: SecretString,
}

/// A LiveKit server for calls, from `LIVEKIT_*`.
#[derive(Debug, Clone)]
pub struct Livekit {
    /// The websocket URL of the server.
    pub server_url: String,
    /// The API key. zooid enables calls if and only if it is not empty.
    pub api_key: SecretString,
    /// The secret of the API key.
    pub api_secret: SecretString,
}

/// Returns the body that creates or replaces a relay: what a change has, without nulls, and the secret.
pub(super) fn post(
    relay: &Relay,
    secret: &SecretString,
    blossom: Option<&Blossom>,
    livekit: Option<&Livekit>,
) -> Value {
    let mut body = without_nulls(patch(relay, blossom, livekit));
    body["secret"] = json!(secret.expose_secret());
    body
}

/// Returns the body that changes a relay. zooid merges it into its document, and a key that is left out
/// keeps its old value, so each key that has no value is null. The secret is left out, because it is the
/// relay's identity.
pub(super) fn patch(relay: &Relay, blossom: Option<&Blossom>, livekit: Option<&Livekit>) -> Value {
    let mut body = document(relay);
    body["blossom"] = blossom_of(relay, blossom);
    body["livekit"] = livekit_of(livekit.filter(|_| relay.flags.livekit_enabled));
    body
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        value => value,
    }
}

/// Replaces a secret in a preview.
const MASK: &str = "(secret)";

/// Returns the body that changes a relay, with every secret masked. The body that creates a relay
/// has the same keys and the secret.
pub(super) fn preview(
    relay: &Relay,
    blossom: Option<&Blossom>,
    livekit: Option<&Livekit>,
) -> Value {
    let mask = || SecretString::from(MASK);
    let blossom = blossom.map(|blossom| Blossom {
        access_key: mask(),
        secret_key: mask(),
        ..blossom.clone()
    });
    let livekit =
        livekit.map(|livekit| Livekit { api_key: mask(), api_secret: mask(), ..livekit.clone() });
    patch(relay, blossom.as_ref(), livekit.as_ref())
}

fn document(relay: &Relay) -> Value {
    let flags = relay.flags;
    json!({
        "host": relay.host(),
        "schema": relay.schema,
        "inactive": relay.status != Status::Active,
        "info": {
            "name": relay.info_name,
            "icon": relay.info_icon,
            "description": relay.info_description,
            "pubkey": relay.tenant_pubkey,
        },
        "policy": {
            "public_read": flags.policy_public_read,
            "public_write": flags.policy_public_write,
            "public_join": flags.policy_public_join,
            "strip_signatures": flags.policy_strip_signatures,
        },
        "groups": { "enabled": flags.groups_enabled },
        "management": { "enabled": flags.management_enabled },
        "push": { "enabled": flags.push_enabled },
        "roles": {
            "admin": { "can_invite": true, "can_manage": true },
            "member": { "can_invite": flags.members_can_invite },
        },
    })
}

/// Media: in the bucket, on zooid's own disk, or off. zooid keeps the bucket and its credentials until
/// they are null, also if media are off.
fn blossom_of(relay: &Relay, blossom: Option<&Blossom>) -> Value {
    let is_enabled = relay.flags.blossom_enabled;
    let Some(blossom) = blossom.filter(|_| is_enabled) else {
        return json!({ "enabled": is_enabled, "adapter": null, "s3": null });
    };
    json!({
        "enabled": true,
        "adapter": "s3",
        "s3": {
            "endpoint": blossom.endpoint,
            "region": blossom.region,
            "bucket": blossom.bucket,
            "access_key": blossom.access_key.expose_secret(),
            "secret_key": blossom.secret_key.expose_secret(),
            "key_prefix": relay.schema,
        },
    })
}

/// Calls have no flag on zooid: they are on if there is an API key.
fn livekit_of(livekit: Option<&Livekit>) -> Value {
    let Some(livekit) = livekit else {
        return json!({ "server_url": null, "api_key": null, "api_secret": null });
    };
    json!({
        "server_url": livekit.server_url,
        "api_key": livekit.api_key.expose_secret(),
        "api_secret": livekit.api_secret.expose_secret(),
    })
}
