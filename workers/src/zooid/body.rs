//! A relay as zooid's document. Pure: the same relay gives the same body.

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tender_jobs::relay::{Relay, Status};

/// An S3 bucket for media, from `BLOSSOM_S3_*`.
#[derive(Debug, Clone)]
pub struct Blossom {
    /// May be empty: AWS.
    pub endpoint: String,
    /// Never empty.
    pub region: String,
    /// Never empty.
    pub bucket: String,
    /// Never empty.
    pub access_key: SecretString,
    /// Never empty.
    pub secret_key: SecretString,
}

/// A LiveKit server for calls, from `LIVEKIT_*`.
#[derive(Debug, Clone)]
pub struct Livekit {
    /// Its URL.
    pub server_url: String,
    /// zooid has calls on exactly when this is not empty.
    pub api_key: SecretString,
    /// Its secret.
    pub api_secret: SecretString,
}

/// The body that creates a relay.
pub(super) fn post(
    relay: &Relay,
    secret: &SecretString,
    blossom: Option<&Blossom>,
    livekit: Option<&Livekit>,
) -> Value {
    let mut body = document(relay, blossom);
    body["secret"] = json!(secret.expose_secret());
    body["livekit"] = match livekit.filter(|_| relay.flags.livekit_enabled) {
        Some(livekit) => enabled_livekit(livekit),
        None => json!({ "enabled": false }),
    };
    body
}

/// The body that changes a relay. zooid merges it, so what must be off is nulled, and the secret,
/// which is the relay's identity, is not there.
pub(super) fn patch(relay: &Relay, blossom: Option<&Blossom>, livekit: Option<&Livekit>) -> Value {
    let mut body = document(relay, blossom);
    body["livekit"] = match livekit.filter(|_| relay.flags.livekit_enabled) {
        Some(livekit) => enabled_livekit(livekit),
        None => {
            json!({ "enabled": false, "server_url": null, "api_key": null, "api_secret": null })
        }
    };
    body
}

/// What a secret is shown as.
const MASK: &str = "(secret)";

/// A relay's document to look at. A change's body, whose keys are those of a creation but for the
/// identity, which nobody sees.
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

fn document(relay: &Relay, blossom: Option<&Blossom>) -> Value {
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
        "blossom": blossom_of(relay, blossom),
        "roles": {
            "admin": { "can_invite": true, "can_manage": true },
            "member": { "can_invite": flags.members_can_invite },
        },
    })
}

fn blossom_of(relay: &Relay, blossom: Option<&Blossom>) -> Value {
    match blossom {
        _ if !relay.flags.blossom_enabled => json!({ "enabled": false }),
        None => json!({ "enabled": true }),
        Some(blossom) => json!({
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
        }),
    }
}

fn enabled_livekit(livekit: &Livekit) -> Value {
    json!({
        "enabled": true,
        "server_url": livekit.server_url,
        "api_key": livekit.api_key.expose_secret(),
        "api_secret": livekit.api_secret.expose_secret(),
    })
}
