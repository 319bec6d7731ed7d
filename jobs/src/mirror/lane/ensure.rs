//! The lane of an upstream and filter: found, or created.
//!
//! Progress applies to one filter. When an operator changes the filter, the lane of the earlier filter
//! retires: it does no work and is not shown, but keeps its progress, because the filter may return.
//! The lane of the new filter inherits the progress of a lane whose filter covers its own.

use std::collections::HashMap;

use serde_json::Value;
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::{Lane, LaneKind, UPLOAD_HASH, identity};
use crate::mirror::{
    filter::Filter,
    upstream::{Upstream, settings::Settings},
};

/// Retired lanes of one upstream and kind that are kept.
const RETIRED_KEPT: i64 = 3;

/// Returns the lane of an upstream, and creates it if it does not exist. A lane of another filter
/// retires. A completed backfill reopens if the settings ask for older history.
pub async fn ensure(
    db: &PgPool,
    upstream: &Upstream,
    kind: LaneKind,
    settings: &Settings,
) -> Result<Lane, sqlx::Error> {
    let (hash, filter) = (identity(kind, settings), settings.download_filter());
    let stale = settings.stale_threshold_minutes;
    if kind != LaneKind::Backfill
        && let Some(lane) = find(db, upstream.id, kind, &hash, stale).await?
    {
        return Ok(lane);
    }
    let mut tx = crate::database::begin(db).await?;
    retire_others(&mut tx, upstream.id, kind, &hash).await?;
    let heir_of = covering(&mut tx, upstream.id, kind, &hash, &filter).await?;
    create(&mut tx, upstream.id, kind, &hash, &filter, heir_of).await?;
    if kind == LaneKind::Backfill {
        aim(&mut tx, upstream.id, &hash, settings.backfill_since_hours).await?;
    }
    let lane = find(&mut *tx, upstream.id, kind, &hash, stale).await?;
    tx.commit().await?;
    lane.ok_or(sqlx::Error::RowNotFound)
}

/// Returns the upload lane of an upstream that takes events, and creates it if it does not exist.
/// `None` if the upstream is disabled, takes no events of others, or does not exist.
pub(in crate::mirror) async fn ensure_upload(
    tx: &mut PgConnection,
    upstream: Uuid,
) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query!(
        "insert into lane (upstream_id, lane, filter_hash)
         select id, 'upload', $2 from upstream
         where id = $1 and enabled and direction in ('up', 'both')
         on conflict do nothing",
        upstream,
        UPLOAD_HASH,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query_scalar!(
        "select lane.id from lane join upstream u on u.id = lane.upstream_id
         where u.id = $1 and lane.lane = 'upload' and u.enabled and u.direction in ('up', 'both')
           and u.authors_only_at is null",
        upstream,
    )
    .fetch_optional(tx)
    .await
}

/// Retires the lanes of other filters, and returns the lane of this filter to work. A holder loses its
/// lease. Deletes the lanes that retired first if there are too many.
async fn retire_others(
    tx: &mut PgConnection,
    upstream: Uuid,
    kind: LaneKind,
    hash: &str,
) -> Result<(), sqlx::Error> {
    let moved = sqlx::query!(
        "with turned as materialized (
             select id from lane
             where upstream_id = $1 and lane = $2 and (filter_hash = $3) = (retired_at is not null)
             order by id for update
         )
         update lane set
             retired_at = case when filter_hash = $3 then null else now() end,
             status = case when status = 'syncing' then 'idle' else status end,
             lease_owner = null, lease_epoch = lease_epoch + 1
         from turned where lane.id = turned.id",
        upstream,
        kind.as_str(),
        hash,
    )
    .execute(&mut *tx)
    .await?;
    if moved.rows_affected() > 0 {
        sqlx::query!(
            "delete from lane where id in (
                 select id from lane where upstream_id = $1 and lane = $2 and retired_at is not null
                 order by retired_at desc, id offset $3)",
            upstream,
            kind.as_str(),
            RETIRED_KEPT,
        )
        .execute(tx)
        .await?;
    }
    Ok(())
}

/// Returns the lane whose filter covers `filter`, the one that retired last; `None` if there is none,
/// or if the lane of this filter exists.
async fn covering(
    tx: &mut PgConnection,
    upstream: Uuid,
    kind: LaneKind,
    hash: &str,
    filter: &Filter,
) -> Result<Option<Uuid>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select id, filter as "filter!" from lane
           where upstream_id = $1 and lane = $2 and filter is not null and retired_at is not null
             and not exists (select from lane own
                             where own.upstream_id = $1 and own.lane = $2 and own.filter_hash = $3)
           order by retired_at desc"#,
        upstream,
        kind.as_str(),
        hash,
    )
    .fetch_all(tx)
    .await?;
    let covers = |stored: &Value| Filter::parse(stored).is_ok_and(|wider| wider.covers(filter));
    Ok(rows.into_iter().find(|row| covers(&row.filter)).map(|row| row.id))
}

async fn create(
    tx: &mut PgConnection,
    upstream: Uuid,
    kind: LaneKind,
    hash: &str,
    filter: &Filter,
    heir_of: Option<Uuid>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into lane (upstream_id, lane, filter_hash, filter, cursor_at, backfill_started_at,
                           backfill_target, backfill_until, window_seconds, window_refused, status,
                           gap_seconds, gap_ids, gap_spans, gaps_since, gap_retry_at)
         select u.id, $2, $3, $4, o.cursor_at, o.backfill_started_at, o.backfill_target,
                o.backfill_until, o.window_seconds, o.window_refused,
                case when o.status = 'completed' then 'completed' else 'idle' end,
                coalesce(o.gap_seconds, 0), coalesce(o.gap_ids, 0), coalesce(o.gap_spans, 0),
                o.gaps_since, o.gap_retry_at
         from upstream u left join lane o on o.id = $5
         where u.id = $1
         on conflict (upstream_id, filter_hash, lane)
             do update set filter = excluded.filter where lane.filter is null",
        upstream,
        kind.as_str(),
        hash,
        Value::Object(filter.to_json()),
        heir_of,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "insert into lane_gap (lane_id, kind, since, until, event_id, reason, first_seen_at, attempts,
                               retry_at)
         select l.id, g.kind, g.since, g.until, g.event_id, g.reason, g.first_seen_at, g.attempts,
                g.retry_at
         from lane l, lane_gap g
         where l.upstream_id = $1 and l.lane = $2 and l.filter_hash = $3 and g.lane_id = $4",
        upstream,
        kind.as_str(),
        hash,
        heir_of,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Sets the beginning and the target of a backfill. Later calls only move the target further back.
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

/// The lanes of the kind `$2` that are the only ones of their upstream to work. `$condition` selects among them.
macro_rules! working {
    ($stale:expr, $kind:expr, $condition:literal $(, $argument:expr)*) => {
        sqlx::query_as!(
            Lane,
            r#"select id, upstream_id, lane as "kind: LaneKind", filter_hash, status, cursor_at, backfill_started_at,
                      backfill_target, backfill_until, window_seconds, cheap_windows, window_refused,
                      upload_position, walk_since, walk_until, walk_at, walk_cursor, retry_at,
                      coalesce(gap_retry_at <= now(), false) as "has_due_gap!",
                      coalesce(status = 'syncing'
                          and heartbeat_at < now() - make_interval(mins => $1), false) as "is_stale!",
                      coalesce(status = 'error' and retry_at > now(), false) as "is_resting!", last_error
               from lane where lane = $2 and retired_at is null and filter is not null
                 and not exists (select from lane other
                                 where other.upstream_id = lane.upstream_id and other.lane = $2
                                   and other.id <> lane.id and other.retired_at is null)"#
                + $condition,
            i32::try_from($stale).unwrap_or(i32::MAX),
            $kind.as_str(),
            $($argument),*
        )
    };
}

/// Returns the lane of this filter if it is the only one that works.
async fn find(
    db: impl PgExecutor<'_>,
    upstream: Uuid,
    kind: LaneKind,
    hash: &str,
    stale_minutes: u64,
) -> Result<Option<Lane>, sqlx::Error> {
    working!(stale_minutes, kind, " and upstream_id = $3 and filter_hash = $4", upstream, hash)
        .fetch_optional(db)
        .await
}

/// Returns the lanes of a kind of these upstreams, by upstream, as they are: [`ensure`] need not be called for one that
/// [`is_ready`](Lane::is_ready). An upstream with several working lanes of this kind is left out.
pub async fn working(
    db: impl PgExecutor<'_>,
    kind: LaneKind,
    upstreams: &[Uuid],
    stale_minutes: u64,
) -> Result<HashMap<Uuid, Lane>, sqlx::Error> {
    let lanes = working!(stale_minutes, kind, " and upstream_id = any($3)", upstreams);
    let lanes = lanes.fetch_all(db).await?;
    Ok(lanes.into_iter().map(|lane| (lane.upstream_id, lane)).collect())
}

impl Lane {
    /// Returns whether [`ensure`] would change nothing: the lane has the filter of these settings, and its backfill
    /// reaches as far back as they ask.
    pub fn is_ready(&self, settings: &Settings) -> bool {
        let hours = i64::try_from(settings.backfill_since_hours).unwrap_or(i64::MAX);
        let target = |begun: i64| begun.saturating_sub(hours.saturating_mul(3600)).max(0);
        let wanted = self.backfill_started_at.map(target);
        let is_aimed =
            wanted.is_some_and(|wanted| self.backfill_target.is_some_and(|at| at <= wanted));
        self.filter_hash == identity(self.kind, settings)
            && (self.kind != LaneKind::Backfill || is_aimed)
    }
}
