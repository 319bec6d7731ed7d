//! The variables of the mirror.

use nostr::key::Keys;
use secrecy::SecretString;
use tender_jobs::mirror::upstream::settings;
use tender_workers::mirror::{Profile, Settings};

use super::Env;

/// Reads the settings of the mirror. Without `RELAY_PRIVATE_KEY`, the mirror does not authenticate
/// to upstreams: the key that governs zooid is told to no other relay.
pub(super) fn mirror(env: &mut Env) -> Settings {
    let key =
        env.parse("RELAY_PRIVATE_KEY", "nsec1… or 64 hex digits", |text| Keys::parse(text).ok());
    let profile =
        env.parse("MIRROR_PROFILE", "production, development or off", |text| match text {
            "production" => Some(Profile::Production),
            "development" => Some(Profile::Development),
            "off" => Some(Profile::Off),
            _ => None,
        });
    Settings {
        defaults: defaults(env),
        key,
        profile: profile.unwrap_or_default(),
        allow_private: env.flag("ALLOW_PRIVATE_UPSTREAMS", false),
        authorities: Vec::new(),
    }
}

/// Reads the HMAC key of API tokens.
pub(super) fn key_secret(env: &mut Env) -> Option<SecretString> {
    let example = "the output of `openssl rand -hex 32`";
    env.parse("API_KEY_HMAC_SECRET", example, |text| {
        (text.len() >= 16).then(|| SecretString::from(text))
    })
}

fn defaults(env: &mut Env) -> settings::Settings {
    let example = r#"{"backfill_since_hours": 720, "poll_page_limit": 300}"#;
    let Some(text) = env.text("MIRROR_DEFAULTS") else { return settings::Settings::default() };
    let read = serde_json::from_str(&text).map_err(|error| error.to_string());
    let read = read.and_then(|value| {
        settings::Settings::of_deployment(&value).map_err(|error| error.to_string())
    });
    read.unwrap_or_else(|problem| {
        env.problem("MIRROR_DEFAULTS", format!("{problem}; e.g. {example}"));
        settings::Settings::default()
    })
}
