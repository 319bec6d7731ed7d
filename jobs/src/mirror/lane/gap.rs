//! The gaps of a lane: events that the lane knows to be missing. A gap is written in the
//! transaction that settles its window. A finished window replaces the gaps in it.
//!
//! The number of gaps of a lane is bounded: the gaps beyond the bound become one span.

mod due;
mod replace;

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use crate::mirror::event::EventId;
pub use due::{Due, Share, continue_due, take_due};
pub use replace::add;
pub(super) use replace::replace;

/// The most ids that a lane keeps as gaps.
pub const MOST_IDS: usize = 10_000;
/// The most seconds and spans that a lane keeps as gaps.
pub const MOST_WINDOWS: usize = 1000;

/// The kind of a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum GapKind {
    /// A second that holds more events than the upstream gives.
    Second,
    /// An event that the upstream listed and did not deliver.
    Id,
    /// A window whose answer was not proven to be complete.
    Span,
}

impl GapKind {
    /// Returns the name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Id => "id",
            Self::Span => "span",
        }
    }
}

/// A gap that a job found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The kind of the gap.
    pub kind: GapKind,
    /// The first second of the window, in Unix seconds.
    pub since: i64,
    /// The last second of the window, in Unix seconds.
    pub until: i64,
    /// The missing event; only for [`GapKind::Id`].
    pub event_id: Option<EventId>,
    /// Why the lane knows that something is missing.
    pub reason: String,
}

impl Gap {
    /// A second that holds more events than the upstream gives.
    pub fn second(at: i64, reason: &str) -> Self {
        Self { kind: GapKind::Second, ..Self::span(at, at, reason) }
    }

    /// A window that was not proven to be complete.
    pub fn span(since: i64, until: i64, reason: &str) -> Self {
        Self { kind: GapKind::Span, since, until, event_id: None, reason: reason.to_owned() }
    }

    /// An event that the upstream listed in the window `since..=until` and did not deliver.
    pub fn id(event_id: EventId, since: i64, until: i64, reason: &str) -> Self {
        Self { kind: GapKind::Id, event_id: Some(event_id), ..Self::span(since, until, reason) }
    }
}

/// A finished window: all its events are stored, except its gaps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finished {
    /// The first second of the window, in Unix seconds.
    pub since: i64,
    /// The last second of the window, in Unix seconds.
    pub until: i64,
    /// The gaps that the job found in the window.
    pub gaps: Vec<Gap>,
    /// Ids that were listed again and not requested, because their retry was not due. Their gaps
    /// stay as they are.
    pub skipped: Vec<EventId>,
    /// Ids that were requested one by one, outside of any window: their gaps end, unless they are
    /// found again.
    pub retried: Vec<EventId>,
}

impl Finished {
    /// A window without a gap.
    pub fn window(since: i64, until: i64) -> Self {
        Self { since, until, ..Self::default() }
    }

    /// The retry of single ids. Those of `gaps` were not delivered again.
    pub fn retry(retried: Vec<EventId>, gaps: Vec<Gap>) -> Self {
        Self { gaps, retried, ..Self::window(1, 0) }
    }
}

/// A stored gap.
#[derive(Debug, Clone, Serialize)]
pub struct GapRow {
    /// The id of the row.
    pub id: i64,
    /// The kind of the gap.
    pub kind: GapKind,
    /// The first second of the window, in Unix seconds.
    pub since: i64,
    /// The last second of the window, in Unix seconds.
    pub until: i64,
    /// The missing event, in hex; only for [`GapKind::Id`].
    pub event_id: Option<String>,
    /// Why the lane knows that something is missing.
    pub reason: String,
    /// When the gap was found.
    pub first_seen_at: DateTime<Utc>,
    /// Retries that did not close the gap.
    pub attempts: i32,
    /// When the gap is due for its next retry.
    pub retry_at: DateTime<Utc>,
}

/// Returns at most `limit` gaps of a lane: windows before ids, the newest window first.
pub async fn gaps(
    db: impl PgExecutor<'_>,
    lane: Uuid,
    limit: i64,
) -> Result<Vec<GapRow>, sqlx::Error> {
    sqlx::query_as!(
        GapRow,
        r#"select id, kind as "kind: GapKind", since, until, encode(event_id, 'hex') as event_id,
                  reason, first_seen_at, attempts, retry_at
           from lane_gap where lane_id = $1
           order by event_id is not null, until desc, id limit $2"#,
        lane,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Returns the ids whose retry is not due.
pub async fn waiting_ids(
    db: impl PgExecutor<'_>,
    lane: Uuid,
) -> Result<HashSet<EventId>, sqlx::Error> {
    let ids = sqlx::query_scalar!(
        r#"select event_id as "id!" from lane_gap
           where lane_id = $1 and event_id is not null and retry_at > now()"#,
        lane,
    );
    Ok(ids.fetch_all(db).await?.iter().map(|id| EventId::of_row(id)).collect())
}

/// Adds a span to a lane: the upstream sent events of this window after the end of the page that they
/// belong to. Nothing happens if the lane does not work any more.
pub async fn add_late(db: &PgPool, lane: Uuid, since: i64, until: i64) -> Result<(), sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    let lane = sqlx::query_scalar!(
        "select id from lane where id = $1 and retired_at is null for update",
        lane,
    );
    if let Some(lane) = lane.fetch_optional(&mut *tx).await? {
        let reason = "events came after the end of the page that they belong to";
        add(&mut tx, lane, &[Gap::span(since, until, reason)]).await?;
    }
    tx.commit().await
}
