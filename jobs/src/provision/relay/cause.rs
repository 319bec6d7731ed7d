//! Relays that gave up, grouped by cause, and relays that wait for too long.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgExecutor, PgPool};

use super::{By, COUNT_CAP, RelayId};
use crate::{console::operator::Begun, provision::steer, queue};

/// The most causes that are counted, in the order of their text and again of the relays that gave up last.
const KNOWN: i32 = 200;
/// The relays that are counted per cause to find the largest groups.
const COMPARED: i64 = 1000;
/// Relays that one transaction requests.
const PAGE: i64 = 1000;
/// How long the request for all relays of a cause takes at most before it says how far it came: a request over HTTP
/// is cut after 15 s.
const LONGEST: Duration = Duration::from_secs(8);

/// Relays that gave up for the same cause.
#[derive(Debug, Clone, Serialize)]
pub struct Cause {
    /// What their errors have in common (`cause_of` in the schema).
    pub cause: String,
    /// How many relays, counted up to [`COUNT_CAP`].
    pub relays: i64,
    /// When the first of them gave up.
    pub since: DateTime<Utc>,
    /// The relay that gave up last.
    pub latest_id: RelayId,
    /// Its host.
    pub latest_host: String,
    /// Its error.
    pub latest_error: String,
}

/// Why relays gave up.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Causes {
    /// The largest groups, the largest first.
    pub largest: Vec<Cause>,
    /// The relays of the other causes: at least this many, because a cause is counted up to 1,000 and 400 causes
    /// are counted.
    pub others: i64,
}

/// Groups all relays that gave up by cause. Returns at most `limit` groups. The cost does not grow with the number
/// of relays.
pub async fn causes(db: impl PgExecutor<'_>, limit: i64) -> Result<Causes, sqlx::Error> {
    let rows =
        sqlx::query_file!("src/provision/relay/causes.sql", limit, KNOWN, COMPARED, COUNT_CAP);
    let rows = rows.fetch_all(db).await?;
    let others = rows.first().map_or(0, |row| row.others);
    let largest = rows.into_iter().map(|row| Cause {
        cause: row.cause,
        relays: row.relays,
        since: row.since,
        latest_id: row.latest_id,
        latest_host: row.latest_host,
        latest_error: row.latest_error,
    });
    Ok(Causes { largest: largest.collect(), others })
}

/// How far a request for all relays of a cause came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CauseRequested {
    /// The relays that were requested.
    pub relays: usize,
    /// The relays that had given up before the request and are left, counted up to [`COUNT_CAP`].
    pub left: i64,
}

/// Requests a sync of all relays that gave up for this cause, page by page, until all are requested or 8 s have
/// passed. A relay that gives up again meanwhile is not requested twice. Each page commits with its count in `record`.
///
/// # Errors
/// The database is unreachable or refuses a statement; the pages before stay requested.
pub async fn request_cause(
    db: &PgPool,
    cause: &str,
    by: &By,
    record: Begun,
) -> Result<CauseRequested, sqlx::Error> {
    request_within(db, cause, by, record, LONGEST).await
}

/// As [`request_cause`], within another time. At least one page is requested.
///
/// # Errors
/// As [`request_cause`].
pub async fn request_within(
    db: &PgPool,
    cause: &str,
    by: &By,
    record: Begun,
    within: Duration,
) -> Result<CauseRequested, sqlx::Error> {
    let started = Instant::now();
    let mut place = (queue::now(db).await?, String::new());
    let mut relays = 0;
    loop {
        let page = before(db, cause, &place).await?;
        let Some(last) = page.last() else { return Ok(CauseRequested { relays, left: 0 }) };
        place = (last.exhausted_at, last.id.as_str().to_owned());
        let mut ids: Vec<RelayId> = page.into_iter().map(|relay| relay.id).collect();
        ids.sort();
        let mut tx = crate::database::begin(db).await?;
        relays += steer::request_page(&mut tx, &ids, by).await?;
        record.progress(&mut *tx, relays).await?;
        tx.commit().await?;
        if started.elapsed() >= within {
            let left = count_before(db, cause, &place).await?;
            return Ok(CauseRequested { relays, left });
        }
    }
}

/// A relay that gave up.
struct GivenUp {
    id: RelayId,
    exhausted_at: DateTime<Utc>,
}

/// The next page of relays that gave up for this cause before a place, the last ones first.
async fn before(
    db: &PgPool,
    cause: &str,
    (at, id): &(DateTime<Utc>, String),
) -> Result<Vec<GivenUp>, sqlx::Error> {
    sqlx::query_as!(
        GivenUp,
        r#"select id as "id: RelayId", exhausted_at as "exhausted_at!" from relay
           where exhausted_at is not null and cause = $1 and (exhausted_at, id) < ($2, $3)
           order by exhausted_at desc, id desc limit $4"#,
        cause,
        at,
        id,
        PAGE,
    )
    .fetch_all(db)
    .await
}

async fn count_before(
    db: &PgPool,
    cause: &str,
    (at, id): &(DateTime<Utc>, String),
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select count(*) as "left!" from (
               select from relay
               where exhausted_at is not null and cause = $1 and (exhausted_at, id) < ($2, $3)
               limit $4) relays"#,
        cause,
        at,
        id,
        COUNT_CAP,
    )
    .fetch_one(db)
    .await
}

/// Counts the relays that have waited longer than `age` for zooid, up to [`COUNT_CAP`].
pub async fn late(db: impl PgExecutor<'_>, age: Duration) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select count(*) as "late!" from (
               select from relay where not synced and exhausted_at is null
                 and updated_at < now() - make_interval(secs => $1) limit $2) late"#,
        age.as_secs_f64(),
        COUNT_CAP,
    )
    .fetch_one(db)
    .await
}
