//! Re-assertion: relays in step are sent to zooid again, slowly, each once per round. zooid's documents
//! change behind our back (its own management calls, a restored backup, an edited file), and its API does not
//! show them.

use std::time::Duration;

use sqlx::{PgConnection, PgPool};

use super::{Cause, SYNC_RELAY, job::enqueue_many, relay::RelayId};

/// The most relays of one step. After a standstill the round catches up at this rate, or ends later.
const MOST: i64 = 1000;

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reasserted {
    /// The relays that are sent again.
    pub relays: u64,
    /// Whether the step ended a round.
    pub ended_round: bool,
}

/// Enqueues the relays that are due for re-assertion: as many as keep a round through all relays evenly
/// spread over `round`. Relays go in the order of their ids, which are random. A relay that is not in
/// step, or whose last call is unanswered, is passed by: it is sent anyway. Nothing is enqueued while 1,000
/// earlier ones still wait: for more urgent jobs, for a slow zooid, or for a breaker to close.
///
/// # Errors
/// See [`provision`](super); then the step did nothing.
pub async fn reassert(db: &PgPool, round: Duration) -> Result<Reasserted, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    let Some(step) = plan(&mut tx, round).await? else {
        tx.commit().await?; // the row of the first step
        return Ok(Reasserted { relays: 0, ended_round: false });
    };
    let passed = page(&mut tx, &step).await?;
    let ended_round = passed.len() < usize::try_from(step.limit).unwrap_or(usize::MAX);
    let ids: Vec<RelayId> = mark(&mut tx, &passed).await?;
    enqueue_many(&mut *tx, &ids, Cause::Reassert).await?;
    let after = passed.last().filter(|_| !ended_round).map_or("", RelayId::as_str);
    advance(&mut tx, after, passed.len(), ended_round).await?;
    tx.commit().await?;
    Ok(Reasserted { relays: u64::try_from(ids.len()).unwrap_or(u64::MAX), ended_round })
}

struct Step {
    after: String,
    limit: i64,
}

/// Returns where this step starts and how many relays it passes; `None` if it has nothing to do. The
/// row is locked until the step commits.
async fn plan(tx: &mut PgConnection, round: Duration) -> Result<Option<Step>, sqlx::Error> {
    sqlx::query!("insert into reassertion default values on conflict do nothing")
        .execute(&mut *tx)
        .await?;
    let row = sqlx::query!(
        r#"select after, done,
                  least(date_part('epoch', now() - round_started_at) / $1::float8, 1) as "elapsed!",
                  (select coalesce(sum(relays), 0)::bigint from relay_count) as "total!",
                  (select count(*) >= $2 from (
                       select from apalis.jobs
                       where job_type = $3 and priority = $4
                         and (status = 'Pending' or (status = 'Failed' and attempts < max_attempts))
                       limit $2) waiting) as "is_backed_up!"
           from reassertion for update"#,
        round.as_secs_f64(),
        MOST,
        SYNC_RELAY,
        Cause::Reassert.priority(),
    )
    .fetch_one(tx)
    .await?;
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a share of a count"
    )]
    let due = (row.total as f64 * row.elapsed).floor() as i64;
    let is_over = row.elapsed >= 1.0;
    let limit = if is_over { MOST } else { (due - row.done).min(MOST) };
    Ok((limit > 0 && !row.is_backed_up).then_some(Step { after: row.after, limit }))
}

async fn page(tx: &mut PgConnection, step: &Step) -> Result<Vec<RelayId>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select id as "id: RelayId" from relay where id > $1 order by id limit $2"#,
        step.after,
        step.limit,
    )
    .fetch_all(tx)
    .await
}

/// Marks the relays of a page that are in step, and returns them. A relay that a transaction holds is
/// passed by; the next round sends it.
async fn mark(tx: &mut PgConnection, ids: &[RelayId]) -> Result<Vec<RelayId>, sqlx::Error> {
    let texts: Vec<String> = ids.iter().map(|id| id.as_str().to_owned()).collect();
    sqlx::query_scalar!(
        r#"with due as (
               select id from relay
               where id = any($1) and synced and confirm_at is null and lease_job is null
               order by id for update skip locked
           )
           update relay set confirm_at = now() from due where relay.id = due.id
           returning relay.id as "id: RelayId""#,
        &texts,
    )
    .fetch_all(tx)
    .await
}

async fn advance(
    tx: &mut PgConnection,
    after: &str,
    passed: usize,
    ended_round: bool,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update reassertion
         set after = $1, updated_at = now(),
             done = case when $3 then 0 else done + $2 end,
             round_started_at = case when $3 then now() else round_started_at end",
        after,
        i64::try_from(passed).unwrap_or(i64::MAX),
        ended_round,
    )
    .execute(tx)
    .await?;
    Ok(())
}
