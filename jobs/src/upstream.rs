//! Upstreams: the relays that we read from and write to.

mod connection;
pub mod settings;

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

pub use connection::{
    Connection, ConnectionState, connections, forget_connections, note_connection,
};
use settings::{Settings, SettingsError};

use crate::relay::RelayId;

/// Which way events go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum Direction {
    /// From it to us.
    #[default]
    Down,
    /// From us to it.
    Up,
    /// Both ways.
    Both,
}

impl Direction {
    /// Every direction.
    pub const ALL: [Self; 3] = [Self::Down, Self::Up, Self::Both];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Up => "up",
            Self::Both => "both",
        }
    }

    /// Reads its word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|direction| direction.as_str() == text)
    }

    /// Whether events come from it.
    pub fn downloads(self) -> bool {
        self != Self::Up
    }

    /// Whether events go to it.
    pub fn uploads(self) -> bool {
        self != Self::Down
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The address of an upstream, normalised: scheme and host in lower case, no default port, no `/` for
/// an empty path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UpstreamUrl(String);

impl UpstreamUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const INVALID: &str = "must be a valid WebSocket URL, such as wss://relay.example.com";
        let text = text.trim();
        if text.is_empty() {
            return Err("can't be blank");
        }
        let url = url::Url::parse(text).map_err(|_| INVALID)?;
        if !matches!(url.scheme(), "ws" | "wss") || url.host_str().is_none_or(str::is_empty) {
            return Err(INVALID);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must be a valid WebSocket URL without user and password");
        }
        if url.fragment().is_some() {
            return Err("must be a valid WebSocket URL without a fragment");
        }
        let mut text = url.to_string();
        if url.path() == "/" && url.query().is_none() {
            text.pop();
        }
        if text.len() > 255 { Err("must have at most 255 characters") } else { Ok(Self(text)) }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An upstream, as its row is.
#[derive(Debug, Clone, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "four independent switches")]
pub struct Upstream {
    /// Its row's id.
    pub id: Uuid,
    /// Its address.
    pub url: String,
    /// Whether it is worked on.
    pub enabled: bool,
    /// Whether its history is wanted too.
    pub backfill: bool,
    /// Whether NIP-77 is tried.
    pub negentropy: bool,
    /// Whether a standing subscription is kept, and local changes are pushed at once.
    pub live: bool,
    /// Which way events go.
    pub direction: Direction,
    /// What people wrote about it.
    pub notes: Option<String>,
    /// What it sets differently; see [`Settings`].
    pub config: Value,
    /// The hosted relay that it is, if it is one.
    pub relay_id: Option<String>,
    /// Whether it speaks NIP-77: `unknown`, `supported`, `unsupported`.
    pub negentropy_verdict: String,
    /// Until when that holds.
    pub negentropy_verdict_until: Option<DateTime<Utc>>,
    /// Its words, when it refused.
    pub negentropy_reason: Option<String>,
    /// What its NIP-11 document says, as far as it is used.
    pub information: Option<Value>,
    /// When that was read.
    pub information_at: Option<DateTime<Utc>>,
    /// When it was added.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

impl Upstream {
    /// Its settings: the deployment's, and what it sets differently. What cannot be read, which the
    /// checks on write exclude, falls back to the deployment's.
    pub fn settings(&self, deployment: &Settings) -> Settings {
        deployment.overlaid(&self.config).unwrap_or_else(|_| deployment.clone())
    }

    /// Whether history is worked on.
    pub fn wants_backfill(&self) -> bool {
        self.enabled && self.backfill && (self.direction.downloads() || self.negentropy)
    }
}

/// What a new upstream is, or what of one changes; `None` leaves a field as it is.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Change {
    /// Its address.
    pub url: Option<String>,
    /// Whether it is worked on.
    pub enabled: Option<bool>,
    /// Whether its history is wanted too.
    pub backfill: Option<bool>,
    /// Whether NIP-77 is tried.
    pub negentropy: Option<bool>,
    /// Whether a standing subscription is kept.
    pub live: Option<bool>,
    /// Which way events go.
    pub direction: Option<String>,
    /// What people say about it.
    pub notes: Option<String>,
    /// What it sets differently; replaced as a whole.
    pub config: Option<Value>,
    /// The hosted relay that it is.
    #[serde(skip)]
    pub relay_id: Option<RelayId>,
}

/// Why an upstream was not written.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Fields break their rules; each sentence names its field.
    #[error("{}", .0.join("; "))]
    Invalid(Vec<String>),
    /// There is one with this address.
    #[error("Url has already been taken")]
    Taken,
    /// No such upstream.
    #[error("there is no such upstream; see `tender upstream list`")]
    NotFound,
    /// The database did not answer.
    #[error("the database did not answer")]
    Database(#[from] sqlx::Error),
}

/// A change whose fields keep their rules.
struct Valid {
    url: Option<UpstreamUrl>,
    direction: Option<Direction>,
}

fn check(change: &Change, is_new: bool) -> Result<Valid, UpstreamError> {
    let mut problems = Vec::new();
    let url = match &change.url {
        Some(url) => UpstreamUrl::parse(url).map(Some),
        None if is_new => Err("can't be blank"),
        None => Ok(None),
    };
    let url = url.map_err(|problem| problems.push(format!("Url {problem}"))).unwrap_or_default();
    let direction = change.direction.as_deref().map(Direction::parse);
    if direction == Some(None) {
        problems.push("Direction is not in the list: down, up, both".to_owned());
    }
    if change.notes.as_ref().is_some_and(|notes| notes.chars().count() > 2000) {
        problems.push("Notes are longer than 2,000 characters".to_owned());
    }
    if change.notes.as_ref().is_some_and(|notes| notes.contains('\0')) {
        problems.push("Notes must not hold U+0000".to_owned());
    }
    if let Some(config) = &change.config
        && let Err(SettingsError(found)) = Settings::default().overlaid(config)
    {
        problems.extend(found.into_iter().map(|problem| format!("Config {problem}")));
    }
    if problems.is_empty() {
        Ok(Valid { url, direction: direction.flatten() })
    } else {
        Err(UpstreamError::Invalid(problems))
    }
}

/// Adds an upstream.
///
/// # Errors
/// [`UpstreamError::Invalid`], [`UpstreamError::Taken`].
pub async fn create(db: &PgPool, change: &Change) -> Result<Upstream, UpstreamError> {
    let valid = check(change, true)?;
    let created = sqlx::query_as!(
        Upstream,
        r#"insert into upstream (url, enabled, backfill, negentropy, live, direction, notes, config, relay_id)
           values ($1, coalesce($2, true), coalesce($3, true), coalesce($4, false), coalesce($5, false),
                   $6, $7, coalesce($8, '{}'::jsonb), $9)
           on conflict (url) do nothing
           returning id, url, enabled, backfill, negentropy, live, direction as "direction: Direction",
                     notes, config, relay_id, negentropy_verdict, negentropy_verdict_until,
                     negentropy_reason, information, information_at, created_at, updated_at"#,
        valid.url.as_ref().map(UpstreamUrl::as_str),
        change.enabled,
        change.backfill,
        change.negentropy,
        change.live,
        valid.direction.unwrap_or_default().as_str(),
        change.notes,
        change.config,
        change.relay_id.as_ref().map(RelayId::as_str),
    )
    .fetch_optional(db)
    .await;
    created.map_err(taken)?.ok_or(UpstreamError::Taken)
}

/// Changes an upstream. A new address, direction or filter starts its work anew where it must; see
/// `lane::ensure`.
///
/// # Errors
/// [`UpstreamError::Invalid`], [`UpstreamError::Taken`], [`UpstreamError::NotFound`].
pub async fn update(db: &PgPool, id: Uuid, change: &Change) -> Result<Upstream, UpstreamError> {
    let valid = check(change, false)?;
    let updated = sqlx::query_as!(
        Upstream,
        r#"update upstream set
               url = coalesce($2, url), enabled = coalesce($3, enabled),
               backfill = coalesce($4, backfill), negentropy = coalesce($5, negentropy),
               live = coalesce($6, live), direction = coalesce($7, direction),
               notes = coalesce($8, notes), config = coalesce($9, config), updated_at = now()
           where id = $1
           returning id, url, enabled, backfill, negentropy, live, direction as "direction: Direction",
                     notes, config, relay_id, negentropy_verdict, negentropy_verdict_until,
                     negentropy_reason, information, information_at, created_at, updated_at"#,
        id,
        valid.url.as_ref().map(UpstreamUrl::as_str),
        change.enabled,
        change.backfill,
        change.negentropy,
        change.live,
        valid.direction.map(Direction::as_str),
        change.notes,
        change.config,
    )
    .fetch_optional(db)
    .await;
    updated.map_err(taken)?.ok_or(UpstreamError::NotFound)
}

fn taken(error: sqlx::Error) -> UpstreamError {
    let is_unique = |error: &dyn sqlx::error::DatabaseError| error.is_unique_violation();
    match &error {
        sqlx::Error::Database(found) if is_unique(&**found) => UpstreamError::Taken,
        _ => error.into(),
    }
}

/// Removes an upstream with its lanes and what is known of it; its events stay. False when there is
/// none.
///
/// # Errors
/// The database did not answer.
pub async fn delete(db: impl PgExecutor<'_>, id: Uuid) -> Result<bool, sqlx::Error> {
    let deleted = sqlx::query!("delete from upstream where id = $1", id).execute(db).await?;
    Ok(deleted.rows_affected() == 1)
}

/// An upstream.
///
/// # Errors
/// The database did not answer.
pub async fn find(db: impl PgExecutor<'_>, id: Uuid) -> Result<Option<Upstream>, sqlx::Error> {
    sqlx::query_as!(
        Upstream,
        r#"select id, url, enabled, backfill, negentropy, live, direction as "direction: Direction",
                  notes, config, relay_id, negentropy_verdict, negentropy_verdict_until,
                  negentropy_reason, information, information_at, created_at, updated_at
           from upstream where id = $1"#,
        id,
    )
    .fetch_optional(db)
    .await
}

/// The most upstreams that a list holds.
pub const MAX_LISTED: i64 = 10_000;

/// Every upstream, by address.
///
/// # Errors
/// The database did not answer.
pub async fn list(db: impl PgExecutor<'_>) -> Result<Vec<Upstream>, sqlx::Error> {
    sqlx::query_as!(
        Upstream,
        r#"select id, url, enabled, backfill, negentropy, live, direction as "direction: Direction",
                  notes, config, relay_id, negentropy_verdict, negentropy_verdict_until,
                  negentropy_reason, information, information_at, created_at, updated_at
           from upstream order by url limit $1"#,
        MAX_LISTED,
    )
    .fetch_all(db)
    .await
}

/// Whether there is an upstream to work on.
///
/// # Errors
/// The database did not answer.
pub async fn any(db: impl PgExecutor<'_>) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"select exists (select from upstream where enabled) as "any!""#)
        .fetch_one(db)
        .await
}

/// By id or by address, in any spelling.
///
/// # Errors
/// The database did not answer.
pub async fn find_named(db: &PgPool, name: &str) -> Result<Option<Upstream>, sqlx::Error> {
    if let Ok(id) = name.parse() {
        return find(db, id).await;
    }
    let Ok(url) = UpstreamUrl::parse(name) else { return Ok(None) };
    let id = sqlx::query_scalar!("select id from upstream where url = $1", url.as_str());
    match id.fetch_optional(db).await? {
        Some(id) => find(db, id).await,
        None => Ok(None),
    }
}

/// Notes whether the upstream speaks NIP-77, for a day.
///
/// # Errors
/// The database did not answer.
pub async fn judge_negentropy(
    db: impl PgExecutor<'_>,
    id: Uuid,
    refused: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update upstream set
             negentropy_verdict = case when $2::text is null then 'supported' else 'unsupported' end,
             negentropy_verdict_until = now() + interval '24 hours', negentropy_reason = $2
         where id = $1",
        id,
        refused.map(crate::queue::one_line),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Whether NIP-77 is to be tried now.
///
/// # Errors
/// The database did not answer.
pub async fn tries_negentropy(db: impl PgExecutor<'_>, id: Uuid) -> Result<bool, sqlx::Error> {
    let tries = sqlx::query_scalar!(
        r#"select negentropy and (negentropy_verdict <> 'unsupported'
                                  or negentropy_verdict_until < now()) as "tries!"
           from upstream where id = $1"#,
        id,
    );
    Ok(tries.fetch_optional(db).await?.unwrap_or(false))
}

/// Whether the NIP-11 document is to be read again: once a day.
///
/// # Errors
/// The database did not answer.
pub async fn wants_information(db: impl PgExecutor<'_>, id: Uuid) -> Result<bool, sqlx::Error> {
    let wants = sqlx::query_scalar!(
        r#"select coalesce(information_at < now() - interval '1 day', true) as "wants!"
           from upstream where id = $1"#,
        id,
    );
    Ok(wants.fetch_optional(db).await?.unwrap_or(false))
}

/// Keeps what the NIP-11 document says; `None`: it could not be read, which is tried again in a day.
///
/// # Errors
/// The database did not answer.
pub async fn note_information(
    db: impl PgExecutor<'_>,
    id: Uuid,
    information: Option<&Value>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update upstream set information = coalesce($2, information), information_at = now()
         where id = $1",
        id,
        information,
    )
    .execute(db)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_address_are_one() {
        for (text, wanted) in [
            ("WSS://Relay.Example.COM", "wss://relay.example.com"),
            ("wss://relay.example.com:443/", "wss://relay.example.com"),
            ("ws://relay.example.com:80", "ws://relay.example.com"),
            (" ws://127.0.0.1:7777/ ", "ws://127.0.0.1:7777"),
            ("wss://relay.example.com/Chat/", "wss://relay.example.com/Chat/"),
        ] {
            assert_eq!(UpstreamUrl::parse(text).map(|url| url.0), Ok(wanted.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("wss://a/{}", "x".repeat(255));
        for (text, words) in [
            ("", "blank"),
            ("relay.example.com", "valid WebSocket URL"),
            ("https://relay.example.com", "valid WebSocket URL"),
            ("wss://", "valid WebSocket URL"),
            ("wss://user:pass@relay.example.com", "without user"),
            ("wss://relay.example.com/#a", "fragment"),
            (&long, "255"),
        ] {
            let error = UpstreamUrl::parse(text).expect_err("refused");
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
