//! The fleet at a glance and its table: counts from counters or capped, pages by key, so that a
//! million relays cost what a thousand do.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, PgExecutor, Postgres, QueryBuilder};

use super::{Relay, RelayId, Status, SyncState, relay_query};

/// Counts stop here; what is more is "at least".
pub const COUNT_CAP: i64 = 10_000;

/// Counts over all relays.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// All of them.
    pub total: i64,
    /// Wanted is on zooid.
    pub synced: i64,
    /// Not tried yet.
    pub pending: i64,
    /// Waiting for a next attempt.
    pub retrying: i64,
    /// Gave up.
    pub gave_up: i64,
    /// Switched off, by tenant or operator; in step or not.
    pub inactive: i64,
    /// A count reached its cap of 10,000: what is not in step is at least that, `synced` at most.
    pub is_capped: bool,
    /// When the longest-waiting pending relay last changed.
    pub oldest_pending_at: Option<DateTime<Utc>>,
}

/// Counts by state: two counters and three capped walks of small indexes.
///
/// # Errors
/// The database did not answer.
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

/// Relays that gave up, the last first.
///
/// # Errors
/// The database did not answer.
pub async fn gave_up(db: impl PgExecutor<'_>, limit: i64) -> Result<Vec<Relay>, sqlx::Error> {
    let rows = relay_query!(
        "",
        "from relay where exhausted_at is not null order by exhausted_at desc, id desc limit $1",
        limit,
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(Relay::from).collect())
}

/// The order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// The newest first.
    #[default]
    Newest,
    /// By host.
    Host,
    /// Only what is not in step, the longest-waiting first.
    Waiting,
}

/// What the table shows.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// The start of a host, or a whole id or tenant's key.
    pub text: Option<String>,
    /// Only in this state of sync.
    pub sync: Option<SyncState>,
    /// Only with this status.
    pub status: Option<Status>,
    /// Only those that are switched off, by whom ever.
    pub is_off: bool,
    /// In this order.
    pub order: Order,
    /// Only what comes after this relay in that order.
    pub after: Option<RelayId>,
}

/// A row of the table.
#[derive(Debug, Clone, FromRow, Serialize)]
pub struct Row {
    /// The relay.
    pub id: String,
    /// Its host.
    pub host: String,
    /// Its tenant's key.
    pub tenant_pubkey: String,
    /// Whether it is switched on.
    pub status: Status,
    /// Whether it is in step.
    pub synced: bool,
    /// Failed attempts in a row.
    pub attempts: i32,
    /// When the next one is due.
    pub retry_at: Option<DateTime<Utc>>,
    /// When we gave up.
    pub exhausted_at: Option<DateTime<Utc>>,
    /// The last failure.
    pub sync_error: String,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

impl Row {
    /// How far zooid has followed.
    pub fn sync_state(&self) -> SyncState {
        SyncState::of(self.synced, self.exhausted_at.is_some(), self.attempts)
    }
}

/// One page of at most `limit` relays. Built for the filters at hand, so that each combination has a
/// plan of its own over an index that fits.
///
/// # Errors
/// The database did not answer.
pub async fn search(
    db: impl PgExecutor<'_>,
    search: &Search,
    limit: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new(
        "select id::text as id, subdomain || '.' || zooid_domain as host,
                tenant_pubkey::text as tenant_pubkey, status::text as status, synced, attempts,
                retry_at, exhausted_at, sync_error::text as sync_error, updated_at
         from relay where true",
    );
    push_text(&mut query, search.text.as_deref());
    push_state(&mut query, search.sync);
    if let Some(status) = search.status {
        query.push(" and status = ").push_bind(status.as_str());
        if status != Status::Active {
            query.push(" and status <> 'active'"); // the index of those
        }
    }
    if search.is_off {
        query.push(" and status <> 'active'");
    }
    push_order(&mut query, search.order, search.after.as_ref());
    query.push(" limit ").push_bind(limit);
    query.build_query_as().fetch_all(db).await
}

fn push_text(query: &mut QueryBuilder<Postgres>, text: Option<&str>) {
    let Some(text) = text.map(str::to_lowercase).filter(|text| !text.contains('\0')) else {
        return;
    };
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        query.push(" and tenant_pubkey = ").push_bind(text);
    } else if let Ok(id) = text.parse::<RelayId>() {
        query.push(" and id = ").push_bind(id.as_str().to_owned());
    } else {
        let (subdomain, domain) = match text.split_once('.') {
            Some((subdomain, domain)) => (subdomain.to_owned(), Some(domain.to_owned())),
            None => (text, None),
        };
        query.push(" and subdomain collate \"C\" >= ").push_bind(subdomain.clone());
        if let Some(domain) = domain {
            query.push(" and subdomain = ").push_bind(subdomain);
            query.push(" and starts_with(zooid_domain, ").push_bind(domain).push(")");
        } else {
            query.push(" and subdomain collate \"C\" < ").push_bind(format!("{subdomain}\u{7f}"));
        }
    }
}

fn push_state(query: &mut QueryBuilder<Postgres>, state: Option<SyncState>) {
    query.push(match state {
        None => "",
        Some(SyncState::Synced) => " and synced",
        Some(SyncState::Pending) => " and not synced and exhausted_at is null and attempts = 0",
        Some(SyncState::Retrying) => " and not synced and attempts > 0 and exhausted_at is null",
        Some(SyncState::GaveUp) => " and exhausted_at is not null",
    });
}

fn push_order(query: &mut QueryBuilder<Postgres>, order: Order, after: Option<&RelayId>) {
    let (columns, than, direction, only) = match order {
        Order::Newest => ("created_at, id", "<", "created_at desc, id desc", ""),
        Order::Host => ("subdomain collate \"C\", id", ">", "subdomain collate \"C\", id", ""),
        Order::Waiting => {
            ("updated_at, id", ">", "updated_at, id", " and not synced and exhausted_at is null")
        }
    };
    query.push(only);
    if let Some(after) = after {
        query.push(format!(" and ({columns}) {than} (select {columns} from relay where id = "));
        query.push_bind(after.as_str().to_owned()).push(")");
    }
    query.push(format!(" order by {direction}"));
}
