//! What flows through queues now: jobs in and out, how long they wait and how long they take.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;
use ulid::Ulid;

use super::{COUNT_CAP, now};

/// The span that rates cover, in seconds, unless more jobs than are counted came sooner.
const SPAN: i64 = 300;
/// The most added jobs that are counted, of all queues together.
const MOST_ADDED: i64 = 20_000;

/// The flow of a queue.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Flow {
    /// Jobs added per minute.
    pub added: f64,
    /// Jobs ended per minute, with or without success.
    pub ended: f64,
    /// How long the last 1,000 done jobs were due before they started, in seconds: the median, and what 95 % of
    /// them did not exceed. `None` without done jobs.
    pub waited: Option<[f64; 2]>,
    /// How long they then took, likewise.
    pub took: Option<[f64; 2]>,
}

/// Returns the flow of these queues, by name. Rates are means of the last five minutes; with more than 20,000 added
/// jobs, or 10,000 ended ones of a queue, of the time in which the last of these came.
///
/// # Errors
/// See [`queue`](super).
pub async fn flow(db: &PgPool, queues: &[&str]) -> Result<HashMap<String, Flow>, sqlx::Error> {
    let mut added = added(db).await?;
    let queues: Vec<String> = queues.iter().map(|queue| (*queue).to_owned()).collect();
    let rows = sqlx::query!(
        r#"select queue as "queue!", ended.jobs * 60 / ended.span as "ended!",
                  timed.waited, timed.took
           from unnest($1::text[]) queue,
                lateral (
                    select count(*)::float8 as jobs,
                           case when count(*) < $2 then $3
                                else greatest(date_part('epoch', now() - min(done_at)), 0.001) end as span
                    from (select done_at from (
                              (select done_at from apalis.jobs
                               where status = 'Done' and job_type = queue
                                 and done_at > now() - make_interval(secs => $3)
                               order by done_at desc limit $2)
                              union all
                              (select done_at from apalis.jobs
                               where status = 'Killed' and job_type = queue
                                 and done_at > now() - make_interval(secs => $3)
                               order by done_at desc limit $2)) both_states
                          order by done_at desc limit $2) last) ended,
                lateral (
                    select percentile_cont(array[0.5, 0.95]) within group (
                               order by greatest(date_part('epoch', lock_at - run_at), 0)) as waited,
                           percentile_cont(array[0.5, 0.95]) within group (
                               order by greatest(date_part('epoch', done_at - lock_at), 0)) as took
                    from (select run_at, lock_at, done_at from apalis.jobs
                          where status = 'Done' and (job_type, done_at) > (queue, '-infinity')
                            and (job_type, done_at) < (queue, 'infinity')
                          order by job_type desc, done_at desc limit 1000) done
                    where lock_at is not null) timed"#,
        &queues,
        COUNT_CAP,
        f64::from(i32::try_from(SPAN).unwrap_or(i32::MAX)),
    )
    .fetch_all(db)
    .await?;
    let pair = |times: Option<Vec<f64>>| times.and_then(|times| <[f64; 2]>::try_from(times).ok());
    let flow = rows.into_iter().map(|row| {
        let added = added.remove(&row.queue).unwrap_or_default();
        let (ended, waited, took) = (row.ended, pair(row.waited), pair(row.took));
        (row.queue, Flow { added, ended, waited, took })
    });
    Ok(flow.collect())
}

/// Returns the jobs added per minute, by queue. The id of a job begins with the time at which it was added.
async fn added(db: &PgPool) -> Result<HashMap<String, f64>, sqlx::Error> {
    let now = now(db).await?;
    let since = u64::try_from(now.timestamp_millis() - SPAN * 1000).unwrap_or_default();
    let rows = sqlx::query!(
        r#"select job_type as queue, count(*) as "jobs!", min(id) as "first!"
           from (select job_type, id from apalis.jobs
                 where id > $1 and id < '8' order by id desc limit $2) added
           group by job_type"#,
        Ulid::from_parts(since, 0).to_string(),
        MOST_ADDED,
    )
    .fetch_all(db)
    .await?;
    let all: i64 = rows.iter().map(|row| row.jobs).sum();
    let first = rows.iter().filter_map(|row| Ulid::from_string(&row.first).ok()).min();
    let first = first.filter(|_| all >= MOST_ADDED).map(|id| id.timestamp_ms());
    let minutes = minutes_since(first.unwrap_or(since), now);
    #[expect(clippy::cast_precision_loss, reason = "at most 20,000")]
    let rate = |jobs: i64| jobs as f64 / minutes;
    Ok(rows.into_iter().map(|row| (row.queue, rate(row.jobs))).collect())
}

#[expect(clippy::cast_precision_loss, reason = "a few minutes in milliseconds")]
fn minutes_since(ms: u64, now: DateTime<Utc>) -> f64 {
    let now = u64::try_from(now.timestamp_millis()).unwrap_or_default();
    now.saturating_sub(ms).max(1) as f64 / 60_000.0
}
