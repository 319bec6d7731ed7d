//! The variables of the mirror.

use nostr::key::Keys;
use secrecy::SecretString;
use serde_json::Value;
use tender_jobs::mirror::{
    deployment::{Environment, Profile},
    upstream::settings,
};
use tender_workers::mirror::Settings;

use super::Env;

/// Reads how this process mirrors. Without `RELAY_PRIVATE_KEY`, the mirror does not authenticate to
/// upstreams: the key that governs zooid is told to no other relay. The profile `off` concerns this
/// process; the others are the deployment's.
pub(super) fn mirror(env: &mut Env, environment: &Environment) -> Settings {
    let key =
        env.parse("RELAY_PRIVATE_KEY", "nsec1… or 64 hex digits", |text| Keys::parse(text).ok());
    Settings {
        key,
        profile: environment.profile.unwrap_or_default(),
        allow_private: env.flag("ALLOW_PRIVATE_UPSTREAMS", false),
        ..Settings::default()
    }
}

/// Reads the variables that are stored once as the deployment's settings.
pub(super) fn environment(env: &mut Env) -> Environment {
    let profile = env.parse("MIRROR_PROFILE", "production, development or off", Profile::parse);
    Environment { config: defaults(env), profile }
}

/// Reads the HMAC key of API tokens.
pub(super) fn key_secret(env: &mut Env) -> Option<SecretString> {
    let example = "the output of `openssl rand -hex 32`";
    env.parse("API_KEY_HMAC_SECRET", example, |text| {
        (text.len() >= 16).then(|| SecretString::from(text))
    })
}

fn defaults(env: &mut Env) -> Option<Value> {
    let example = r#"{"backfill_since_hours": 720, "poll_page_limit": 300}"#;
    let text = env.text("MIRROR_DEFAULTS")?;
    let read = serde_json::from_str(&text).map_err(|error| error.to_string());
    let checked = read.and_then(|value| match settings::Settings::of_deployment(&value) {
        Ok(_) => Ok(value),
        Err(error) => Err(error.to_string()),
    });
    checked
        .map_err(|problem| env.problem("MIRROR_DEFAULTS", format!("{problem}; e.g. {example}")))
        .ok()
}
