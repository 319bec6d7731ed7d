//! Followed relays.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use super::{MOST, RelayState, anywhere, are_texts};
use crate::mirror::upstream::UpstreamUrl;

/// A followed relay with its coverage.
#[derive(Debug, Clone, Serialize)]
pub struct RelayRow {
    /// The id of the row.
    pub id: Uuid,
    /// The address.
    pub url: String,
    /// How it is.
    pub state: RelayState,
    /// `waiting`, `connecting`, `catching_up` or `in_step`, as its last holder left it.
    pub status: String,
    /// Since when it has this status.
    pub status_at: DateTime<Utc>,
    /// Failures in a row.
    pub failures: i32,
    /// When the first of them happened.
    pub failing_since: Option<DateTime<Utc>>,
    /// The last error, also after a later success.
    pub last_error: Option<String>,
    /// When it happened.
    pub last_error_at: Option<DateTime<Utc>>,
    /// The permanent fault: `dns`, `tls`, `protocol` or `private`.
    pub fault: Option<String>,
    /// Since when.
    pub fault_since: Option<DateTime<Utc>>,
    /// When the next attempt is due, if the relay is not connected.
    pub next_attempt_at: DateTime<Utc>,
    /// When it was last connected.
    pub connected_at: Option<DateTime<Utc>>,
    /// Every event up to here was offered to us, as far as the relay's answers prove it.
    pub last_good_at: Option<DateTime<Utc>>,
    /// Nothing new is asked until then.
    pub limited_until: Option<DateTime<Utc>>,
    /// The process that holds the relay; `None` if none does.
    pub holder: Option<String>,
    /// Since when no repository names it.
    pub unwanted_since: Option<DateTime<Utc>>,
    /// When the daily verification is due.
    pub resync_due_at: Option<DateTime<Utc>>,
    /// When it last ended.
    pub resynced_at: Option<DateTime<Utc>>,
    /// Why the last one could verify nothing; `None` if it did.
    pub resync_note: Option<String>,
    /// Events that the last verification found although the live subscriptions had missed them.
    pub drift_last: i64,
    /// Such events of all verifications.
    pub drift_total: i64,
    /// Open subscriptions.
    pub subscriptions: i32,
    /// Subscriptions that the relay closed and that are to be opened again.
    pub subscriptions_closed: i32,
    /// The relay's words when it closed the last of them.
    pub closed_reason: Option<String>,
    /// Filters beyond the limit of subscriptions, polled in turn.
    pub overflow: i32,
    /// Events received.
    pub received: i64,
    /// Received events that were stored.
    pub stored: i64,
    /// Attempts to connect.
    pub attempts: i64,
    /// Attempts that succeeded.
    pub connects: i64,
    /// Items that are missing.
    pub missing: i64,
    /// Items that are being fetched.
    pub in_flight: i64,
    /// Items whose history was delivered.
    pub confirmed: i64,
    /// Since when the oldest item that is not confirmed is wanted.
    pub oldest_missing_at: Option<DateTime<Utc>>,
    /// Open batches.
    pub open_batches: i64,
    /// When the oldest of them began.
    pub oldest_batch_at: Option<DateTime<Utc>>,
    /// Parts of the history that the relay did not show.
    pub gaps: i64,
    /// Accepted live events per minute: the average of the last five whole minutes.
    pub live_per_minute: f64,
    /// Repositories that name it, of all services.
    pub repositories: i64,
    /// Whether a service starts from it.
    pub is_bootstrap: bool,
    /// Whether it supports NIP-77: `unknown`, `supported` or `unsupported`.
    pub nip77: String,
}

impl RelayRow {
    /// Returns the number of items that are wanted from it.
    pub fn items(&self) -> i64 {
        self.missing + self.in_flight + self.confirmed
    }
}

/// Which followed relays are listed, in the order of their addresses.
#[derive(Debug, Clone, Default)]
pub struct RelaySearch {
    /// Only those in this state.
    pub state: Option<RelayState>,
    /// Only those whose address contains this text.
    pub text: Option<String>,
    /// Only those after this address.
    pub after: Option<String>,
}

/// Returns at most `limit` followed relays, in the order of their addresses.
pub async fn relays(
    db: &PgPool,
    search: &RelaySearch,
    limit: i64,
) -> Result<Vec<RelayRow>, sqlx::Error> {
    if !are_texts([search.text.as_deref(), search.after.as_deref()]) {
        return Ok(Vec::new());
    }
    select(db, search, None, limit).await
}

/// Returns the followed relay with this id or address; `None` if it does not exist. The address need not
/// be in its normal form.
pub async fn relay(db: &PgPool, name: &str) -> Result<Option<RelayRow>, sqlx::Error> {
    let id = match (name.parse::<Uuid>(), UpstreamUrl::parse(name)) {
        (Ok(id), _) => Some(id),
        (_, Ok(url)) => id_of(db, url.as_str()).await?,
        _ => None,
    };
    let Some(id) = id else { return Ok(None) };
    Ok(select(db, &RelaySearch::default(), Some(id), 1).await?.pop())
}

async fn id_of(db: impl PgExecutor<'_>, url: &str) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar!("select id from grasp_relay where url = $1", url).fetch_optional(db).await
}

async fn select(
    db: &PgPool,
    search: &RelaySearch,
    id: Option<Uuid>,
    limit: i64,
) -> Result<Vec<RelayRow>, sqlx::Error> {
    sqlx::query_as!(
        RelayRow,
        r#"select r.id as "id!", r.url as "url!", r.state as "state!: RelayState", r.status as "status!",
                  r.status_at as "status_at!", r.failures as "failures!", r.failing_since, r.last_error,
                  r.last_error_at, r.fault, r.fault_since, r.next_attempt_at as "next_attempt_at!",
                  r.connected_at, r.last_good_at, r.limited_until,
                  case when r.lease_until > now() then r.lease_owner end as holder, r.unwanted_since,
                  r.resync_due_at, r.resynced_at, r.resync_note, r.drift_last as "drift_last!", r.drift_total as "drift_total!",
                  r.subscriptions as "subscriptions!", coalesce(r.subscriptions_closed, 0) as "subscriptions_closed!", r.closed_reason,
                  r.overflow as "overflow!", r.received as "received!",
                  r.stored as "stored!", r.attempts as "attempts!", r.connects as "connects!",
                  c.missing as "missing!", c.in_flight as "in_flight!", c.confirmed as "confirmed!",
                  (select min(wanted_at) from grasp_coverage w
                   where w.relay_id = r.id and w.state <> 'confirmed') as oldest_missing_at,
                  b.open_batches as "open_batches!", b.oldest_batch_at,
                  (select count(*) from grasp_gap g where g.relay_id = r.id) as "gaps!",
                  m.live_per_minute as "live_per_minute!",
                  (select count(*) from grasp_repo_relay n where n.url = r.url) as "repositories!",
                  exists (select from grasp_bootstrap s where s.url = r.url) as "is_bootstrap!",
                  coalesce(u.negentropy_verdict, 'unknown') as "nip77!"
           from (select r.*, grasp_relay_state(r) as state from grasp_relay r
                 where ($1::text is null or grasp_relay_state(r) = $1) and ($2::text is null or r.url ilike $2)
                   and ($3::text is null or r.url > $3) and ($4::uuid is null or r.id = $4)
                 order by r.url limit $5) r
           left join upstream u on u.id = r.upstream_id
           cross join lateral (
               select coalesce(sum(items) filter (where state = 'missing'), 0)::bigint as missing,
                      coalesce(sum(items) filter (where state = 'in_flight'), 0)::bigint as in_flight,
                      coalesce(sum(items) filter (where state = 'confirmed'), 0)::bigint as confirmed
               from grasp_coverage_count c where c.relay_id = r.id) c
           cross join lateral (
               select count(*) as open_batches, min(begun_at) as oldest_batch_at
               from grasp_batch b where b.relay_id = r.id and b.status = 'open') b
           cross join lateral (
               select coalesce(sum(live), 0)::float8 / 5 as live_per_minute from grasp_relay_minute m
               where m.relay_id = r.id and m.minute >= date_trunc('minute', now()) - interval '5 minutes'
                 and m.minute < date_trunc('minute', now())) m
           order by r.url"#,
        search.state.map(RelayState::as_str),
        search.text.as_deref().map(anywhere),
        search.after.as_deref(),
        id,
        limit.min(MOST),
    )
    .fetch_all(db)
    .await
}

/// The accepted events that a followed relay delivered in a minute.
#[derive(Debug, Clone, Serialize)]
pub struct Minute {
    /// The start of the minute.
    pub minute: DateTime<Utc>,
    /// Through live subscriptions.
    pub live: i32,
    /// Through batches.
    pub history: i32,
}

/// Returns the minutes of the last hour in which the relay delivered accepted events, oldest first.
pub async fn minutes(db: impl PgExecutor<'_>, relay: Uuid) -> Result<Vec<Minute>, sqlx::Error> {
    sqlx::query_as!(
        Minute,
        "select minute, live, history from grasp_relay_minute
         where relay_id = $1 and minute > now() - interval '1 hour' order by minute",
        relay,
    )
    .fetch_all(db)
    .await
}
