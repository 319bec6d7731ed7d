//! Lanes: independent streams of work for one upstream and filter. `docs/ARCHITECTURE.md` draws
//! their states.
//!
//! A lane has at most one holder: a job, or a process for the lane `live`. Every claim adds one to
//! the lane's epoch, and every write names the epoch of its claim. A write that changes no row has
//! lost the lease, and its whole transaction is rolled back. Windows and cursors never lose
//! progress. In the queue, a lane's job has the key `lane:<id>`, so at most one waits or runs.
//!
//! Functions return [`sqlx::Error`] when the database is unreachable or refuses the statement.

mod attempt;
mod claim;
mod condition;
mod count;
mod ensure;
pub mod gap;
mod list;
mod recover;
mod settle;
mod trouble;

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use uuid::Uuid;

pub use attempt::{LiveFailure, live_confirmed, live_failed};
pub use claim::{Beat, Claim, Lease, beat, claim, claim_live, release_live};
pub use condition::Condition;
pub use count::count_violations;
pub(super) use count::{count, count_live, count_uploads};
pub(in crate::mirror) use ensure::ensure_upload;
pub use ensure::{ensure, working};
pub use list::{LaneState, number, state, states, states_of};
pub use recover::{Recovered, recover};
pub use settle::{Ending, NextWindow, Progress, checkpoint, settle};
pub use trouble::{Trouble, troubles, upstreams_with};

use super::{filter::Filter, upstream::settings::Settings};

/// The kind of a lane: the work that it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum LaneKind {
    /// Downloads new events.
    Realtime,
    /// Mirrors the history once.
    Backfill,
    /// Mirrors the history again, to verify it.
    Full,
    /// Uploads our events to the upstream.
    Upload,
    /// Keeps a subscription open. Its holder is a process, not a job.
    Live,
}

impl LaneKind {
    /// The four modes: the kinds that can be triggered.
    pub const MODES: [Self; 4] = [Self::Realtime, Self::Backfill, Self::Full, Self::Upload];

    /// Returns the name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Realtime => "realtime",
            Self::Backfill => "backfill",
            Self::Full => "full",
            Self::Upload => "upload",
            Self::Live => "live",
        }
    }

    /// Returns the mode with this name; `None` if there is none.
    pub fn parse_mode(text: &str) -> Option<Self> {
        Self::MODES.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for LaneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A lane's row, without its statistics.
#[derive(Debug, Clone)]
pub struct Lane {
    /// The id of the row.
    pub id: Uuid,
    /// The id of the upstream.
    pub upstream_id: Uuid,
    /// The work that the lane does.
    pub kind: LaneKind,
    /// The identity of its filter; see [`identity`].
    pub filter_hash: String,
    /// `idle`, `syncing`, `completed` or `error`.
    pub status: String,
    /// Realtime: the upstream was asked for every event before this time, in Unix seconds.
    pub cursor_at: Option<i64>,
    /// When the backfill began, in Unix seconds.
    pub backfill_started_at: Option<i64>,
    /// The oldest time that the backfill covers, in Unix seconds.
    pub backfill_target: Option<i64>,
    /// The backfill has covered the time from here to its beginning; Unix seconds.
    pub backfill_until: Option<i64>,
    /// The length of the next window.
    pub window_seconds: Option<i64>,
    /// Easy windows in a row since that length has changed; below 0 if so many must come before it grows.
    pub cheap_windows: i32,
    /// The shortest window that the upstream has refused, in seconds. The next full run remembers it.
    pub window_refused: Option<i64>,
    /// Every stored event up to this position has a verdict of the upstream.
    pub upload_position: i64,
    /// Realtime: the beginning of the window that an earlier job has begun; see [`Walked`].
    pub walk_since: Option<i64>,
    /// Realtime: the end of that window.
    pub walk_until: Option<i64>,
    /// Realtime: everything of that window from here on is stored.
    pub walk_at: Option<i64>,
    /// Realtime: the cursor of the lane once that window is finished.
    pub walk_cursor: Option<i64>,
    /// When a lane in error is due for its retry.
    pub retry_at: Option<DateTime<Utc>>,
    /// Whether a gap is due for its retry.
    pub has_due_gap: bool,
    /// Whether the holder has sent no heartbeat for `stale_threshold_minutes`.
    pub is_stale: bool,
    /// Whether the lane is in error and its retry is not due yet.
    pub is_resting: bool,
    /// The error of the last failed attempt; `None` once an attempt succeeds.
    pub last_error: Option<String>,
}

/// A window that a realtime lane has begun, in Unix seconds. It is walked from its end to its
/// beginning, in as many jobs as that takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walked {
    /// The beginning of the window.
    pub since: i64,
    /// The end of the window.
    pub until: i64,
    /// Everything from here to the end is stored.
    pub at: i64,
    /// The cursor of the lane once the window is finished.
    pub cursor: i64,
}

impl Lane {
    /// Returns the window that an earlier job has begun; `None` if there is none.
    pub fn walked(&self) -> Option<Walked> {
        let (since, until) = (self.walk_since?, self.walk_until?);
        Some(Walked { since, until, at: self.walk_at?, cursor: self.walk_cursor? })
    }

    /// Returns whether the backfill has reached its target.
    pub fn is_complete(&self) -> bool {
        self.backfill_until.is_some() && self.backfill_until <= self.backfill_target
    }
}

/// Stands for the filter in the identity of an upload lane: a changed filter keeps the lane.
const UPLOAD_HASH: &str = "upload";

/// Returns the identity of a filter: the first 16 hex characters of the SHA-256 of `down:` and its
/// canonical form.
pub fn filter_hash(filter: &Filter) -> String {
    let form = serde_json::Value::Object(filter.to_json()).to_string();
    hex::encode(Sha256::digest(format!("down:{form}")))[..16].to_owned()
}

/// Returns the identity of the filter by which a lane of this kind works under these settings. An
/// upload lane has one identity for all filters, because its position counts every stored event.
pub fn identity(kind: LaneKind, settings: &Settings) -> String {
    match kind {
        LaneKind::Upload => UPLOAD_HASH.to_owned(),
        _ => filter_hash(&settings.download_filter()),
    }
}

/// Starts a full run over the last `hours` hours. Returns false if the previous run is not
/// completed, or if the lane is held or in error.
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

/// Lets a full run end `hours` hours before its beginning, if it would go further back: the upstream turned
/// out not to support NIP-77, and polling would fetch the whole history again. Returns false if the lease
/// is lost or the run was short enough.
pub async fn shorten_full(db: &PgPool, lease: &Lease, hours: u64) -> Result<bool, sqlx::Error> {
    let seconds = i64::try_from(hours).unwrap_or(i64::MAX).saturating_mul(3600);
    let shortened = sqlx::query!(
        "update lane set backfill_target = least(backfill_started_at - $3, backfill_until)
         where id = $1 and lease_epoch = $2 and lane = 'full'
           and backfill_target < least(backfill_started_at - $3, backfill_until)",
        lease.lane.id,
        lease.epoch,
        seconds,
    )
    .execute(db)
    .await?;
    Ok(shortened.rows_affected() == 1)
}

/// Returns whether the lane of this kind has a holder.
pub async fn is_running(db: &PgPool, upstream: Uuid, kind: LaneKind) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select exists (select from lane where upstream_id = $1 and lane = $2 and status = 'syncing'
                          and retired_at is null) as "is!""#,
        upstream,
        kind.as_str(),
    )
    .fetch_one(db)
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
