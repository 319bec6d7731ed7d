//! Processes that run workers: what each reports of itself, and what operators ask of it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{PgExecutor, types::Json};
use uuid::Uuid;

use super::{Alive, DEAD_AFTER};

/// A queue as a process serves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// The jobs that it runs at the same time.
    pub jobs: usize,
    /// The number that it is configured with.
    pub configured: usize,
}

/// What a process reports of itself.
#[derive(Debug, Clone)]
pub struct Report {
    /// The id, new at every start.
    pub id: Uuid,
    /// Version, host and process id, as its workers name it.
    pub name: String,
    /// The wings of which it serves a queue.
    pub wings: Vec<String>,
    /// The queues that it serves.
    pub stations: BTreeMap<String, Served>,
    /// Resident memory.
    pub memory_bytes: Option<i64>,
}

/// What operators ask of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Orders {
    /// It finishes what it runs, and takes no other job.
    pub is_draining: bool,
    /// The jobs that it runs at the same time, by queue, instead of the configured number.
    pub at_once: BTreeMap<String, usize>,
}

/// Stores what a process reports, and returns what operators ask of it.
///
/// # Errors
/// See [`queue`](super).
pub async fn report(db: impl PgExecutor<'_>, report: &Report) -> Result<Orders, sqlx::Error> {
    let orders = sqlx::query!(
        r#"insert into process as p (id, name, wings, stations, memory_bytes)
           values ($1, left($2, 300), $3, $4, $5)
           on conflict (id) do update
           set last_seen_at = now(), stations = excluded.stations, memory_bytes = excluded.memory_bytes
           returning drain_at is not null as "is_draining!",
                     (select jsonb_object_agg(queue, jobs) from queue_concurrency)
                         as "at_once: Json<BTreeMap<String, usize>>""#,
        report.id,
        report.name,
        &report.wings,
        Json(&report.stations) as _,
        report.memory_bytes,
    )
    .fetch_one(db)
    .await?;
    let at_once = orders.at_once.map(|Json(at_once)| at_once).unwrap_or_default();
    Ok(Orders { is_draining: orders.is_draining, at_once })
}

/// What a process learns with its heartbeats.
#[derive(Debug)]
pub struct Pulse {
    /// The workers that live; see [`heartbeat`](super::heartbeat).
    pub alive: Vec<Alive>,
    /// What operators ask of the process; `None` if it is not on the list of processes.
    pub orders: Option<Orders>,
}

/// Sends the heartbeats of a process's workers, as [`heartbeat`](super::heartbeat), and stores what the process
/// reports, unless it is not on the list yet or someone holds its row. One statement.
///
/// # Errors
/// See [`queue`](super); then neither was stored.
pub async fn pulse(
    db: impl PgExecutor<'_>,
    report: &Report,
    workers: &[String],
) -> Result<Pulse, sqlx::Error> {
    let row = sqlx::query!(
        r#"with free as (
               select id from apalis.workers
               where id = any($1) and last_seen > now() - make_interval(secs => $2)
               for no key update skip locked
           ), beaten as (
               update apalis.workers worker set last_seen = now()
               from free where worker.id = free.id returning worker.id
           ), mine as (
               select id from process where id = $3 for no key update skip locked
           ), told as (
               update process p set last_seen_at = now(), stations = $4, memory_bytes = $5
               from mine where p.id = mine.id
           )
           select array(select id from apalis.workers
                        where id = any($1) and last_seen > now() - make_interval(secs => $2)) as "alive!",
                  array(select id from beaten) as "beaten!",
                  (select drain_at is not null from process where id = $3) as is_draining,
                  (select jsonb_object_agg(queue, jobs) from queue_concurrency)
                      as "at_once: Json<BTreeMap<String, usize>>""#,
        workers,
        DEAD_AFTER.as_secs_f64(),
        report.id,
        Json(&report.stations) as _,
        report.memory_bytes,
    )
    .fetch_one(db)
    .await?;
    let at_once = row.at_once.map(|Json(at_once)| at_once).unwrap_or_default();
    let orders = row.is_draining.map(|is_draining| Orders { is_draining, at_once });
    let alive = |id: String| Alive { has_beaten: row.beaten.contains(&id), id };
    Ok(Pulse { alive: row.alive.into_iter().map(alive).collect(), orders })
}

/// Removes a process that has stopped from the list.
///
/// # Errors
/// See [`queue`](super); then pruning removes it.
pub async fn leave(db: impl PgExecutor<'_>, id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from process where id = $1", id).execute(db).await?;
    Ok(())
}

/// Asks a process to take no other job until [`undrain`]; it follows within 5 s. A process that starts anew is not
/// concerned. Returns false if it drained already or does not exist.
///
/// # Errors
/// See [`queue`](super).
pub async fn drain(
    db: impl PgExecutor<'_>,
    id: Uuid,
    by: &str,
    reason: Option<&str>,
) -> Result<bool, sqlx::Error> {
    let drained = sqlx::query!(
        "update process set drain_at = now(), drain_by = $2, drain_reason = $3
         where id = $1 and drain_at is null",
        id,
        by,
        reason,
    );
    Ok(drained.execute(db).await?.rows_affected() == 1)
}

/// Lets a process take jobs again. Returns false if it did not drain.
///
/// # Errors
/// See [`queue`](super).
pub async fn undrain(db: impl PgExecutor<'_>, id: Uuid) -> Result<bool, sqlx::Error> {
    let undrained = sqlx::query!(
        "update process set drain_at = null, drain_by = null, drain_reason = null
         where id = $1 and drain_at is not null",
        id,
    );
    Ok(undrained.execute(db).await?.rows_affected() == 1)
}

/// A process that was seen in the last day.
#[derive(Debug, Clone, Serialize)]
pub struct Process {
    /// The id, new at every start.
    pub id: Uuid,
    /// Version, host and process id.
    pub name: String,
    /// The wings of which it serves a queue.
    pub wings: Vec<String>,
    /// The queues that it serves.
    pub stations: BTreeMap<String, Served>,
    /// Resident memory.
    pub memory_bytes: Option<i64>,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// When it reported last.
    pub last_seen_at: DateTime<Utc>,
    /// Whether that is less than [`DEAD_AFTER`] ago.
    pub is_alive: bool,
    /// Since when it takes no other job, if an operator asked for that.
    pub drain_at: Option<DateTime<Utc>>,
    /// The operator that asked.
    pub drain_by: Option<String>,
    /// Why.
    pub drain_reason: Option<String>,
}

impl Process {
    /// Returns host and process id: the name without the version.
    pub fn place(&self) -> &str {
        self.name.split_once(' ').map_or(self.name.as_str(), |(_, place)| place)
    }
}

/// Returns the processes seen in the last day, living ones first, then by name; at most 1,000.
///
/// # Errors
/// See [`queue`](super).
pub async fn processes(db: impl PgExecutor<'_>) -> Result<Vec<Process>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select id, name, wings, stations as "stations: Json<BTreeMap<String, Served>>", memory_bytes, started_at,
                  last_seen_at, last_seen_at > now() - make_interval(secs => $1) as "is_alive!",
                  drain_at, drain_by, drain_reason
           from process
           where last_seen_at > now() - interval '1 day'
           order by last_seen_at > now() - make_interval(secs => $1) desc, name, started_at
           limit 1000"#,
        DEAD_AFTER.as_secs_f64(),
    )
    .fetch_all(db)
    .await?;
    let process = rows.into_iter().map(|row| Process {
        id: row.id,
        name: row.name,
        wings: row.wings,
        stations: row.stations.0,
        memory_bytes: row.memory_bytes,
        started_at: row.started_at,
        last_seen_at: row.last_seen_at,
        is_alive: row.is_alive,
        drain_at: row.drain_at,
        drain_by: row.drain_by,
        drain_reason: row.drain_reason,
    });
    Ok(process.collect())
}
