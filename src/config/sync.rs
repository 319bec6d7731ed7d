//! Event sync.

use nostr::key::Keys;
use secrecy::SecretString;
use tender_jobs::upstream::settings::Settings;
use tender_workers::sync::{Profile, SyncSettings};

use super::Env;

pub(super) fn sync(env: &mut Env, robot: Option<&Keys>) -> SyncSettings {
    let own =
        env.parse("RELAY_PRIVATE_KEY", "nsec1… or 64 hex digits", |text| Keys::parse(text).ok());
    let profile =
        env.parse("SCHEDULE_PROFILE", "production, development or off", |text| match text {
            "production" => Some(Profile::Production),
            "development" => Some(Profile::Development),
            "off" => Some(Profile::Off),
            _ => None,
        });
    SyncSettings {
        settings: settings(env),
        key: own.or_else(|| robot.cloned()),
        profile: profile.unwrap_or_default(),
    }
}

/// Under which tokens of the API are recognised.
pub(super) fn key_secret(env: &mut Env) -> Option<SecretString> {
    let example = "what `openssl rand -hex 32` prints";
    env.parse("API_KEY_HMAC_SECRET", example, |text| {
        (text.len() >= 16).then(|| SecretString::from(text))
    })
}

fn settings(env: &mut Env) -> Settings {
    let example = r#"{"backfill_since_hours": 720, "poll_page_limit": 300}"#;
    let Some(text) = env.text("SYNC_DEFAULTS") else { return Settings::default() };
    let read = serde_json::from_str(&text).map_err(|error| error.to_string());
    let read =
        read.and_then(|value| Settings::of_deployment(&value).map_err(|error| error.to_string()));
    read.unwrap_or_else(|problem| {
        env.problem("SYNC_DEFAULTS", format!("{problem}; e.g. {example}"));
        Settings::default()
    })
}
