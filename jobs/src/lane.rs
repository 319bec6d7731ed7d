//! Lanes: independent streams of work for one upstream and filter. `docs/ARCHITECTURE.md` draws their
//! states.
//!
//! A lane has at most one holder: the job whose id is its owner. Every claim adds one to its epoch and
//! every write names the epoch that it believes in; one that changes no row has lost the lane, and its
//! whole transaction is rolled back. Windows and cursors never move the wrong way. In the queue, a
//! lane's job holds the key `lane:<id>`, so there is at most one, waiting or running.

mod claim;
mod list;
mod recover;
mod settle;

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

pub use claim::{Beat, Claim, Lease, beat, claim, claim_live, release_live};
pub use list::{LaneState, state, states, states_of, troubled};
pub use recover::{Recovered, recover, reset};
pub use settle::{Ending, Progress, checkpoint, note, settle};

use crate::{
    filter::Filter,
    upstream::{Upstream, settings::Settings},
};

/// A lane's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum LaneKind {
    /// What is published now.
    Realtime,
    /// History, once.
    Backfill,
    /// History again, to verify it.
    Full,
    /// From us to the upstream.
    Upload,
    /// The standing subscription; its holder is a process.
    Live,
}

impl LaneKind {
    /// The kinds that are triggered: the four modes.
    pub const MODES: [Self; 4] = [Self::Realtime, Self::Backfill, Self::Full, Self::Upload];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Realtime => "realtime",
            Self::Backfill => "backfill",
            Self::Full => "full",
            Self::Upload => "upload",
            Self::Live => "live",
        }
    }

    /// Reads a mode's word.
    pub fn parse_mode(text: &str) -> Option<Self> {
        Self::MODES.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Whether an upstream takes part in it.
    pub fn is_for(self, upstream: &Upstream) -> bool {
        let (down, up) = (upstream.direction.downloads(), upstream.direction.uploads());
        upstream.enabled
            && match self {
                Self::Realtime => down,
                Self::Backfill | Self::Full => upstream.wants_backfill(),
                Self::Upload => up,
                Self::Live => down && upstream.live,
            }
    }
}

impl fmt::Display for LaneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A lane, as far as work needs it.
#[derive(Debug, Clone)]
pub struct Lane {
    /// Its row's id.
    pub id: Uuid,
    /// Its upstream.
    pub upstream_id: Uuid,
    /// Its kind.
    pub kind: LaneKind,
    /// `idle`, `syncing`, `completed`, `error`.
    pub status: String,
    /// Realtime: the relay was asked for everything before this second.
    pub cursor_at: Option<i64>,
    /// The instant that backfill began at.
    pub backfill_started_at: Option<i64>,
    /// The oldest instant wanted.
    pub backfill_target: Option<i64>,
    /// Everything from here to the start is done.
    pub backfill_until: Option<i64>,
    /// How long the next window is.
    pub window_seconds: Option<i64>,
    /// Cheap windows in a row.
    pub cheap_windows: i32,
    /// How far uploads have come.
    pub upload_position: i64,
    /// When it may be tried again, after an error.
    pub retry_at: Option<DateTime<Utc>>,
    /// Its holder has shown no sign of life for too long.
    pub is_stale: bool,
    /// Its cool-down is not over.
    pub is_resting: bool,
}

impl Lane {
    /// Whether history is done down to its target.
    pub fn is_complete(&self) -> bool {
        self.backfill_until.is_some() && self.backfill_until <= self.backfill_target
    }
}

/// What identifies a filter: the first 16 hex characters of SHA-256 over `down:` and its canonical form.
pub fn filter_hash(filter: &Filter) -> String {
    let form = serde_json::Value::Object(filter.to_json()).to_string();
    hex::encode(Sha256::digest(format!("down:{form}")))[..16].to_owned()
}

/// The lane of an upstream, made if it is not there. A lane of another filter goes: its progress says
/// nothing of this one. A backfill whose history is wanted further back is open again.
///
/// # Errors
/// The database did not answer.
pub async fn ensure(
    db: &PgPool,
    upstream: &Upstream,
    kind: LaneKind,
    settings: &Settings,
) -> Result<Lane, sqlx::Error> {
    let hash = match kind {
        LaneKind::Upload => "upload".to_owned(),
        _ => filter_hash(&settings.download_filter()),
    };
    let mut tx = db.begin().await?;
    sqlx::query!(
        "delete from lane where upstream_id = $1 and lane = $2 and filter_hash <> $3",
        upstream.id,
        kind.as_str(),
        hash,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "insert into lane (upstream_id, lane, filter_hash) select id, $2, $3 from upstream where id = $1
         on conflict do nothing",
        upstream.id,
        kind.as_str(),
        hash,
    )
    .execute(&mut *tx)
    .await?;
    if kind == LaneKind::Backfill {
        aim(&mut tx, upstream.id, &hash, settings.backfill_since_hours).await?;
    }
    let stale = settings.stale_threshold_minutes;
    let lane = find(&mut tx, upstream.id, kind, stale).await?;
    tx.commit().await?;
    Ok(lane)
}

/// Sets where a backfill goes: at its start, and again when more is wanted.
async fn aim(
    tx: &mut PgConnection,
    upstream: Uuid,
    hash: &str,
    hours: u64,
) -> Result<(), sqlx::Error> {
    let seconds = i64::try_from(hours).unwrap_or(i64::MAX).saturating_mul(3600);
    sqlx::query!(
        "update lane set
             backfill_started_at = coalesce(backfill_started_at, extract(epoch from now())::bigint),
             backfill_until = coalesce(backfill_until, extract(epoch from now())::bigint),
             backfill_target = least(backfill_target, greatest(
                 coalesce(backfill_started_at, extract(epoch from now())::bigint) - $3, 0)),
             status = case when status = 'completed' then 'idle' else status end
         where upstream_id = $1 and lane = 'backfill' and filter_hash = $2
           and (backfill_target is null
                or greatest(backfill_started_at - $3, 0) < backfill_target)",
        upstream,
        hash,
        seconds,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Starts a full run over the last `hours`, unless one goes on. False when it does.
///
/// # Errors
/// The database did not answer.
pub async fn begin_full(db: &PgPool, lane: Uuid, hours: u64) -> Result<bool, sqlx::Error> {
    let seconds = i64::try_from(hours).unwrap_or(i64::MAX).saturating_mul(3600);
    let begun = sqlx::query!(
        "update lane set
             backfill_started_at = extract(epoch from now())::bigint,
             backfill_until = extract(epoch from now())::bigint,
             backfill_target = greatest(extract(epoch from now())::bigint - $2, 0),
             window_seconds = null, cheap_windows = 0, status = 'idle'
         where id = $1 and lane = 'full' and status in ('idle', 'completed')
           and (backfill_until is null or backfill_until <= backfill_target)",
        lane,
        seconds,
    )
    .execute(db)
    .await?;
    Ok(begun.rows_affected() == 1)
}

async fn find(
    tx: &mut PgConnection,
    upstream: Uuid,
    kind: LaneKind,
    stale_minutes: u64,
) -> Result<Lane, sqlx::Error> {
    sqlx::query_as!(
        Lane,
        r#"select id, upstream_id, lane as "kind: LaneKind", status, cursor_at, backfill_started_at,
                  backfill_target, backfill_until, window_seconds, cheap_windows, upload_position, retry_at,
                  coalesce(status = 'syncing'
                      and heartbeat_at < now() - make_interval(mins => $3), false) as "is_stale!",
                  coalesce(status = 'error' and retry_at > now(), false) as "is_resting!"
           from lane where upstream_id = $1 and lane = $2"#,
        upstream,
        kind.as_str(),
        i32::try_from(stale_minutes).unwrap_or(i32::MAX),
    )
    .fetch_one(tx)
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_filter_has_the_hash_of_its_specification() {
        assert_eq!(filter_hash(&Filter::default()), "dcf37e3092693008");
    }
}
