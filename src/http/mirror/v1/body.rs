//! The request bodies, as the OpenAPI document describes them.
#![expect(dead_code, reason = "the handlers read the bodies field by field, to name what is wrong")]

use std::collections::BTreeMap;

use utoipa::ToSchema;

/// An upstream to add, or the fields of it to change.
#[derive(ToSchema)]
pub(super) struct UpstreamBody {
    upstream_relay: UpstreamFields,
}

/// The settable fields of an upstream. Unknown fields are ignored.
#[derive(ToSchema)]
struct UpstreamFields {
    /// The address, `wss://…` or `ws://…`.
    url: Option<String>,
    /// Whether the upstream is worked on.
    enabled: Option<bool>,
    /// Whether its history is fetched.
    backfill: Option<bool>,
    /// Whether negentropy (NIP-77) may be used.
    negentropy: Option<bool>,
    /// Whether new events are received as they are published.
    live: Option<bool>,
    /// `down`, `up` or `both`.
    direction: Option<String>,
    /// Settings that differ from the deployment's; replaced as a whole.
    config: Option<BTreeMap<String, serde_json::Value>>,
    /// The operator's notes, at most 2,000 characters.
    notes: Option<String>,
}

/// An API key to create.
#[derive(ToSchema)]
pub(super) struct KeyBody {
    api_key: KeyFields,
}

#[derive(ToSchema)]
struct KeyFields {
    /// The operator's name for the key: 1 to 200 characters.
    name: String,
}
