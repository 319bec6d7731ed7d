//! The overview and the table of all relays. Counts come from counters or are capped, and pages
//! start at a key. The cost therefore does not grow with the number of relays.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, PgExecutor, PgPool, Postgres, QueryBuilder};

use super::{RelayId, Status, SyncState, held::held, named::named};

/// Counts stop here. A larger count is shown as "at least" this number.
pub const COUNT_CAP: i64 = 10_000;

/// Counts of relays by state.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// All relays.
    pub total: i64,
    /// Relays whose wanted state zooid has.
    pub synced: i64,
    /// Relays without an attempt at their current generation.
    pub pending: i64,
    /// Failing relays: the last attempt failed, and a retry is scheduled.
    pub retrying: i64,
    /// Relays that gave up.
    pub gave_up: i64,
    /// Relays that the tenant or the operator deactivated, synced or not.
    pub inactive: i64,
    /// A count exceeded [`COUNT_CAP`]: the relays that are not synced are at least the count, and
    /// `synced` is an upper bound.
    pub is_capped: bool,
    /// When the relay that has waited longest for zooid last changed.
    pub oldest_pending_at: Option<DateTime<Utc>>,
}

/// Returns the counts of relays. Reads two counters and three capped ranges of small indexes.
pub async fn summary(db: impl PgExecutor<'_>) -> Result<Summary, sqlx::Error> {
    let row = sqlx::query!(
        r#"select
               (select coalesce(sum(relays), 0)::bigint from relay_count) as "total!",
               (select coalesce(sum(relays), 0)::bigint from relay_count where status <> 'active') as "inactive!",
               (select count(*) from (select from relay
                where not synced and exhausted_at is null limit $1) waiting) as "waiting!",
               (select count(*) from (select from relay
                where not synced and attempts > 0 and exhausted_at is null limit $1) r) as "retrying!",
               (select count(*) from (select from relay
                where exhausted_at is not null limit $1) g) as "gave_up!",
               (select min(updated_at) from relay
                where not synced and exhausted_at is null) as oldest_pending_at"#,
        COUNT_CAP + 1,
    )
    .fetch_one(db)
    .await?;
    let is_capped = row.waiting > COUNT_CAP || row.gave_up > COUNT_CAP;
    let (waiting, retrying) = (row.waiting.min(COUNT_CAP), row.retrying.min(COUNT_CAP));
    let gave_up = row.gave_up.min(COUNT_CAP);
    Ok(Summary {
        total: row.total,
        synced: (row.total - waiting - gave_up).max(0),
        pending: (waiting - retrying).max(0),
        retrying,
        gave_up,
        inactive: row.inactive,
        is_capped,
        oldest_pending_at: row.oldest_pending_at,
    })
}

/// The order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// By creation, newest first.
    #[default]
    Newest,
    /// By host, in byte order.
    Host,
    /// Only relays that are pending or failing, the longest-waiting first.
    Waiting,
    /// Only relays that gave up, the last ones first.
    GaveUp,
}

/// The filters, the order and the position of a page of the table.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// A tenant's public key or a relay's id, or at least 8 first digits of it, or a part of the host or the
    /// name; of two characters, the start of the host.
    pub text: Option<String>,
    /// Only relays in this state.
    pub sync: Option<SyncState>,
    /// Only relays with this status.
    pub status: Option<Status>,
    /// Only relays that the tenant or the operator deactivated.
    pub is_off: bool,
    /// Only relays that gave up for this cause; see [`Cause`](super::Cause).
    pub cause: Option<String>,
    /// Only relays whose jobs wait for this zooid instance.
    pub held_by: Option<String>,
    /// Only relays that have waited longer than this for zooid.
    pub late: Option<Duration>,
    /// The order of the rows.
    pub order: Order,
    /// Only relays that follow this one in that order.
    pub after: Option<RelayId>,
}

/// A row of the table.
#[derive(Debug, Clone, FromRow, Serialize)]
pub struct Row {
    /// The relay's id.
    pub id: String,
    /// The relay's host, `subdomain.zooid_domain`.
    pub host: String,
    /// The public key of the tenant, 64 hex digits.
    pub tenant_pubkey: String,
    /// Whether the relay serves its members.
    pub status: Status,
    /// Whether zooid has the wanted state.
    pub synced: bool,
    /// Failed attempts in a row at this generation.
    pub attempts: i32,
    /// When the next retry is due; `None` if none is scheduled.
    pub retry_at: Option<DateTime<Utc>>,
    /// When the relay gave up; `None` while attempts are left.
    pub exhausted_at: Option<DateTime<Utc>>,
    /// The last failure at this generation; empty without a failure.
    pub sync_error: String,
    /// When the generation last changed.
    pub updated_at: DateTime<Utc>,
}

impl Row {
    /// Returns the progress of the current generation.
    pub fn sync_state(&self) -> SyncState {
        SyncState::of(self.synced, self.exhausted_at.is_some(), self.attempts)
    }
}

/// Returns one page of at most `limit` relays. The statement contains only the filters in use, so
/// PostgreSQL plans each combination over the index that fits it.
pub async fn search(db: &PgPool, search: &Search, limit: i64) -> Result<Vec<Row>, sqlx::Error> {
    let named = match &search.text {
        Some(text) => Some(named(db, text).await?),
        None => None,
    };
    let held_by = match &search.held_by {
        Some(instance) => Some(held(db, instance).await?),
        None => None,
    };
    let mut query = QueryBuilder::<Postgres>::new(
        "select id::text as id, subdomain || '.' || zooid_domain as host,
                tenant_pubkey::text as tenant_pubkey, status::text as status, synced, attempts,
                retry_at, exhausted_at, sync_error::text as sync_error, updated_at
         from relay where true",
    );
    if let Some(named) = named {
        named.push(&mut query);
    }
    push_state(&mut query, search.sync);
    if let Some(status) = search.status {
        query.push(" and status = ").push_bind(status.as_str());
        if status != Status::Active {
            // The condition of the partial index on deactivated relays.
            query.push(" and status <> 'active'");
        }
    }
    if search.is_off {
        query.push(" and status <> 'active'");
    }
    if let Some(cause) = &search.cause {
        query.push(" and exhausted_at is not null and cause = ").push_bind(cause.clone());
    }
    if let Some(held) = held_by {
        held.push(&mut query);
    }
    if let Some(age) = search.late {
        query.push(" and not synced and exhausted_at is null");
        query.push(" and updated_at < now() - make_interval(secs => ");
        query.push_bind(age.as_secs_f64()).push(")");
    }
    push_order(&mut query, search.order, search.after.as_ref());
    query.push(" limit ").push_bind(limit);
    query.build_query_as().fetch_all(db).await
}

fn push_state(query: &mut QueryBuilder<Postgres>, state: Option<SyncState>) {
    if let Some(state) = state {
        query.push(" and ").push(state.condition());
    }
}

fn push_order(query: &mut QueryBuilder<Postgres>, order: Order, after: Option<&RelayId>) {
    let (columns, than, direction, only) = match order {
        Order::Newest => ("created_at, id", "<", "created_at desc, id desc", ""),
        Order::Host => ("subdomain collate \"C\", id", ">", "subdomain collate \"C\", id", ""),
        Order::Waiting => {
            ("updated_at, id", ">", "updated_at, id", " and not synced and exhausted_at is null")
        }
        Order::GaveUp => {
            ("exhausted_at, id", "<", "exhausted_at desc, id desc", " and exhausted_at is not null")
        }
    };
    query.push(only);
    if let Some(after) = after {
        query.push(format!(" and ({columns}) {than} (select {columns} from relay where id = "));
        query.push_bind(after.as_str().to_owned()).push(")");
    }
    query.push(format!(" order by {direction}"));
}
