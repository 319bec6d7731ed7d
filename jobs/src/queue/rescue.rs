//! Rescue: jobs of dead workers go back to the queue. apalis's own takeover is switched off, because
//! it does not count a started attempt and does not know about keys that were freed at the start.

use std::time::Duration;

use sqlx::PgPool;

use super::{Guard, Requeue, Requeued, Settled, requeue};

/// The most jobs that one call rescues; the next call takes the rest.
const BATCH: i64 = 1000;

/// What a rescue did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rescued {
    /// Jobs that wait again. A job that had been started has spent an attempt.
    pub requeued: u64,
    /// Started jobs that ended, because a newer job has their key.
    pub superseded: u64,
    /// Jobs that the database refused to change. The others are rescued all the same.
    pub refused: u64,
}

/// What a look found.
struct Look {
    orphans: Vec<Guard>,
    is_upkeep_due: bool,
}

/// Requeues jobs whose worker sent no heartbeat for `dead_after`, and jobs held for longer than
/// `stuck_after`. The latter have a living worker that lost them, since every attempt ends sooner. Also returns
/// whether the upkeep of a wing has something to do (`upkeep_is_due` in the schema).
///
/// # Errors
/// See the module. Jobs that were rescued before the error stay so.
pub async fn rescue(
    db: &PgPool,
    dead_after: Duration,
    stuck_after: Duration,
) -> Result<(Rescued, bool), sqlx::Error> {
    let mut rescued = Rescued::default();
    let Look { orphans, is_upkeep_due } = match look(db, dead_after, stuck_after, true).await {
        // A wing's table may be locked, which must not stop the rescue of other wings' jobs.
        Err(sqlx::Error::Database(_)) => look(db, dead_after, stuck_after, false).await?,
        look => look?,
    };
    for orphan in orphans {
        match rescue_one(db, orphan).await {
            Ok(Settled::Written(Requeued::Waits(_))) => rescued.requeued += 1,
            Ok(Settled::Written(Requeued::Superseded)) => rescued.superseded += 1,
            Ok(Settled::LeaseLost) => {} // another process was faster, or the next round does it
            Err(sqlx::Error::Database(_)) => rescued.refused += 1,
            Err(error) => return Err(error),
        }
    }
    Ok((rescued, is_upkeep_due))
}

/// Rescues one job in a transaction of its own. An open transaction elsewhere that holds the row or
/// has inserted a job with the same key must not hold up the others: the wait is short, and the next
/// round tries again.
async fn rescue_one(db: &PgPool, orphan: Guard) -> Result<Settled<Requeued>, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    sqlx::query!("set local lock_timeout = '100ms'").execute(&mut *tx).await?;
    match requeue(&mut *tx, orphan, &Requeue::rescued()).await {
        Ok(rescued) => tx.commit().await.map(|()| rescued),
        Err(error) if is_contended(&error) => Ok(Settled::LeaseLost),
        Err(error) => Err(error),
    }
}

/// 55P03: the lock timeout; 23505: another job has just taken the key.
fn is_contended(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some("55P03" | "23505"))
}

/// One statement for both: while nothing happens, it is all that a round costs. If the wings are not asked, their upkeep
/// is due.
async fn look(
    db: &PgPool,
    dead_after: Duration,
    stuck_after: Duration,
    asks_wings: bool,
) -> Result<Look, sqlx::Error> {
    let rows = sqlx::query!(
        r#"with upkeep as materialized (
               select case when $4 then upkeep_is_due() else true end as is_due)
           select upkeep.is_due as "is_upkeep_due!", job.id as "id?", job.attempts as "attempts?", job.lock_by as "lock_by?",
                  coalesce(job.status = 'Queued', false) as "is_unstarted!"
           from upkeep left join lateral (
               select job.id, job.attempts, job.lock_by, job.status
               from apalis.jobs job left join apalis.workers worker on worker.id = job.lock_by
               where job.status in ('Queued', 'Running')
                 and (worker.id is null
                      or worker.last_seen < now() - make_interval(secs => $1)
                      or job.lock_at is null
                      or job.lock_at < now() - make_interval(secs => $2))
               order by job.lock_at
               limit $3) job on true"#,
        dead_after.as_secs_f64(),
        stuck_after.as_secs_f64(),
        BATCH,
        asks_wings,
    )
    .fetch_all(db)
    .await?;
    let is_upkeep_due = rows.first().is_some_and(|row| row.is_upkeep_due);
    let status = |is_unstarted| Some(if is_unstarted { "Queued" } else { "Running" });
    let orphans = rows.into_iter().filter_map(|row| {
        let (id, attempts) = (row.id?, row.attempts?);
        Some(Guard { id, worker: row.lock_by, attempts, status: status(row.is_unstarted) })
    });
    Ok(Look { orphans: orphans.collect(), is_upkeep_due })
}
