//! Upstreams: the relays that the mirror reads from and writes to.
//!
//! Functions return [`sqlx::Error`] when the database is unreachable or refuses the statement.

mod change;
mod connection;
mod error;
mod forget;
mod knowledge;
mod learned;
mod remove;
mod service;
pub mod settings;
mod url;

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

pub use change::{Change, create, update};
pub use connection::{
    Connection, ConnectionState, connections, forget_connections, forget_dead_connections,
    note_connections,
};
pub use error::UpstreamError;
pub use forget::reset;
pub use knowledge::{
    judge_negentropy, note_authors_only, note_information, tries_negentropy, wants_information,
};
pub use learned::{Fact, Learned, learn, learned};
pub use remove::{Removal, delete, removals, remove_page, resume_removals};
use settings::Settings;
pub use url::UpstreamUrl;

use super::lane::LaneKind;

/// The direction in which events are mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum Direction {
    /// From the upstream to us.
    #[default]
    Down,
    /// From us to the upstream.
    Up,
    /// In both directions.
    Both,
}

impl Direction {
    /// Every direction, in the order in which messages list them.
    pub const ALL: [Self; 3] = [Self::Down, Self::Up, Self::Both];

    /// Returns the name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Up => "up",
            Self::Both => "both",
        }
    }

    /// Returns the direction with this name; `None` if there is none.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|direction| direction.as_str() == text)
    }

    /// Returns whether the mirror reads from the upstream.
    pub fn downloads(self) -> bool {
        self != Self::Up
    }

    /// Returns whether the mirror writes to the upstream.
    pub fn uploads(self) -> bool {
        self != Self::Down
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The row of an upstream.
#[derive(Debug, Clone, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub struct Upstream {
    /// The id of the row.
    pub id: Uuid,
    /// The address in its normal form; see [`UpstreamUrl`].
    pub url: String,
    /// Whether the mirror works on the upstream.
    pub enabled: bool,
    /// Whether events from before the upstream was added are mirrored too.
    pub backfill: bool,
    /// Whether NIP-77 is used if the upstream supports it.
    pub negentropy: bool,
    /// Whether a process keeps a subscription open and pushes local changes at once.
    pub live: bool,
    /// The direction in which events are mirrored.
    pub direction: Direction,
    /// The operator's notes.
    pub notes: Option<String>,
    /// Overrides of the deployment's settings; see [`Settings`].
    pub config: Value,
    /// The id of the relay that we host at this address; `None` for a relay elsewhere.
    pub relay_id: Option<String>,
    /// Whether its host may have an address that is not public.
    pub allow_private: bool,
    /// Whether the operator added it to the mirror. Otherwise another wing follows it, and the mirror has
    /// no lanes for it.
    pub mirrored: bool,
    /// Whether it gets only events that another wing has admitted.
    pub admission: bool,
    /// Whether the upstream supports NIP-77: `unknown`, `supported` or `unsupported`.
    pub negentropy_verdict: String,
    /// When the verdict expires.
    pub negentropy_verdict_until: Option<DateTime<Utc>>,
    /// The upstream's message when it refused NIP-77.
    pub negentropy_reason: Option<String>,
    /// The fields of the NIP-11 document that the mirror uses.
    pub information: Option<Value>,
    /// When the NIP-11 document was last requested.
    pub information_at: Option<DateTime<Utc>>,
    /// Since when the upstream is known to take events from their authors only.
    pub authors_only_at: Option<DateTime<Utc>>,
    /// The upstream's message when it refused an event of another author.
    pub authors_only_reason: Option<String>,
    /// Time of creation, by the database's clock.
    pub created_at: DateTime<Utc>,
    /// Time of the last change by an operator.
    pub updated_at: DateTime<Utc>,
}

impl Upstream {
    /// Returns the deployment's settings with the overrides of this upstream. If the overrides are
    /// invalid, which the checks on write prevent, it returns the deployment's settings.
    pub fn settings(&self, deployment: &Settings) -> Settings {
        deployment.overlaid(&self.config).unwrap_or_else(|_| deployment.clone())
    }

    /// Returns whether the upstream needs a lane of this kind.
    pub fn takes_part_in(&self, kind: LaneKind) -> bool {
        let Self { enabled, direction, backfill, negentropy, live, .. } = *self;
        Participation { enabled, direction, backfill, negentropy, live }.takes_part_in(kind)
    }
}

/// The fields of an upstream that decide which lanes it needs.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "four independent switches")]
pub(super) struct Participation {
    pub(super) enabled: bool,
    pub(super) direction: Direction,
    pub(super) backfill: bool,
    pub(super) negentropy: bool,
    pub(super) live: bool,
}

impl Participation {
    /// Returns whether an upstream with these fields needs a lane of this kind. An upstream that
    /// only receives events has its history compared by negentropy, or not at all.
    pub(super) fn takes_part_in(self, kind: LaneKind) -> bool {
        let (down, up) = (self.direction.downloads(), self.direction.uploads());
        self.enabled
            && match kind {
                LaneKind::Realtime => down,
                LaneKind::Backfill | LaneKind::Full => self.backfill && (down || self.negentropy),
                LaneKind::Upload => up,
                LaneKind::Live => down && self.live,
            }
    }
}

/// Returns the upstream with this id; `None` if it does not exist or is being removed.
pub async fn find(db: impl PgExecutor<'_>, id: Uuid) -> Result<Option<Upstream>, sqlx::Error> {
    sqlx::query_as!(
        Upstream,
        r#"select id, url, enabled, backfill, negentropy, live, direction as "direction: Direction",
                  notes, config, relay_id, allow_private, mirrored, admission, negentropy_verdict, negentropy_verdict_until,
                  negentropy_reason, information, information_at, authors_only_at, authors_only_reason,
                  created_at, updated_at
           from upstream where id = $1 and removing_at is null"#,
        id,
    )
    .fetch_optional(db)
    .await
}

/// The most upstreams that [`list`] returns.
pub const MAX_LISTED: i64 = 10_000;

/// Returns every upstream of the mirror that is not being removed, by address; at most [`MAX_LISTED`].
pub async fn list(db: impl PgExecutor<'_>) -> Result<Vec<Upstream>, sqlx::Error> {
    sqlx::query_as!(
        Upstream,
        r#"select id, url, enabled, backfill, negentropy, live, direction as "direction: Direction",
                  notes, config, relay_id, allow_private, mirrored, admission, negentropy_verdict, negentropy_verdict_until,
                  negentropy_reason, information, information_at, authors_only_at, authors_only_reason,
                  created_at, updated_at
           from upstream where removing_at is null and mirrored order by url limit $1"#,
        MAX_LISTED,
    )
    .fetch_all(db)
    .await
}

/// Returns upstreams of the mirror whose address contains a text, at most `limit`: one whose address or host it is,
/// then those whose address or host begins with it, then the others, each by address.
pub async fn matching(
    db: impl PgExecutor<'_>,
    text: &str,
    limit: i64,
) -> Result<Vec<Upstream>, sqlx::Error> {
    sqlx::query_as!(
        Upstream,
        r#"select id, url, enabled, backfill, negentropy, live, direction as "direction: Direction",
                  notes, config, relay_id, allow_private, mirrored, admission, negentropy_verdict, negentropy_verdict_until,
                  negentropy_reason, information, information_at, authors_only_at, authors_only_reason,
                  created_at, updated_at
           from upstream where removing_at is null and mirrored and strpos(url, lower($1)) > 0
           order by case when lower($1) in (url, split_part(url, '://', 2)) then 0
                         when starts_with(url, lower($1)) or starts_with(split_part(url, '://', 2), lower($1)) then 1
                         else 2 end, url limit $2"#,
        text,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Returns whether an upstream is enabled.
pub async fn any(db: impl PgExecutor<'_>) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"select exists (select from upstream where enabled) as "any!""#)
        .fetch_one(db)
        .await
}

/// Returns the upstream with this id, address or host. The address need not be in its normal form.
pub async fn find_named(db: &PgPool, name: &str) -> Result<Option<Upstream>, sqlx::Error> {
    if let Ok(id) = name.parse() {
        return find(db, id).await;
    }
    // A host without a scheme is that of wss, else that of ws.
    let names = [name.to_owned(), format!("wss://{name}"), format!("ws://{name}")];
    for url in names.iter().filter_map(|name| UpstreamUrl::parse(name).ok()) {
        let id = sqlx::query_scalar!("select id from upstream where url = $1", url.as_str());
        if let Some(id) = id.fetch_optional(db).await? {
            return find(db, id).await;
        }
    }
    Ok(None)
}
