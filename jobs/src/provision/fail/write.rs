//! The rows of a failed attempt: its job and its relay.

use sqlx::PgConnection;

use super::{Failure, Plan, RelayId, Rules, Verdict, hold};
use crate::queue::{self, Job, Requeue, Requeued, Settled};

/// Writes the job's row under its guard; `None` if the job belongs to another worker now.
pub(super) async fn job(
    tx: &mut PgConnection,
    job: &Job,
    failure: &Failure,
    rules: Rules<'_>,
    plan: Plan,
    instance: &str,
) -> Result<Option<Verdict>, sqlx::Error> {
    let error = failure.message.as_str();
    let ended = |settled: Settled<()>, verdict| match settled {
        Settled::Written(()) => Ok(Some(verdict)),
        Settled::LeaseLost => Ok(None),
    };
    let awaited = failure.conflict.as_ref().filter(|conflict| conflict.is_awaited);
    let host = awaited.map(|conflict| format!("{}{}", hold::HOST, conflict.host));
    let how = match plan {
        Plan::GiveUp { .. } => {
            return ended(queue::kill(tx, job, error).await?, Verdict::GaveUp);
        }
        Plan::Supersede { .. } => {
            return ended(queue::supersede(tx, job, error).await?, Verdict::Superseded);
        }
        Plan::Retry { delay, .. } => Requeue::retry(delay, error).jitter(rules.backoff.jitter()),
        Plan::StartOver => Requeue::start_over().error(error),
        Plan::Hold { wait, is_current: true } => hold::held(instance, wait).error(error),
        Plan::Hold { wait, is_current: false } => hold::held(instance, wait).error(error).reset(),
    };
    let how = match (plan, &host) {
        (Plan::Retry { .. }, Some(host)) => how.held_by(host),
        _ => how,
    };
    let most = i32::try_from(rules.backoff.max_attempts()).unwrap_or(i32::MAX);
    Ok(match (queue::requeue(tx, job, &how.max_attempts(most)).await?, plan) {
        (Settled::LeaseLost, _) => None,
        (Settled::Written(Requeued::Superseded), _) => Some(Verdict::Superseded),
        (Settled::Written(Requeued::Waits(at)), Plan::Hold { .. }) => Some(Verdict::Held(at)),
        (Settled::Written(Requeued::Waits(at)), _) => Some(Verdict::RetryAt(at)),
    })
}

/// Writes the relay's row. If `attempts` is `None` the attempt only gives back its lease: it was for an
/// older generation, or it was held, and its failure proves nothing about the current one.
///
/// A relay that was in step and could not be confirmed is in step no longer. A call that may still land is
/// noted in any case, and so are the hosts that a move to a temporary host has freed.
pub(super) async fn relay(
    tx: &mut PgConnection,
    job: &Job,
    relay_id: &RelayId,
    failure: &Failure,
    attempts: Option<i32>,
    verdict: Verdict,
    outage: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update relay
         set sync_error = case when $3 then $4 else sync_error end,
             failure_kind = case when $3 then $5 else failure_kind end,
             attempts = case when $3 then $6 else attempts end,
             retry_at = case when $3 then $7 else retry_at end,
             exhausted_at = case when $3 and $8 then now() when $3 then null else exhausted_at end,
             outage_instance = case when $3 then $9 else outage_instance end,
             synced_generation = case when $3 then least(synced_generation, generation - 1)
                                      else synced_generation end,
             confirm_at = case when $10 then greatest(confirm_at, now() + late_by()) else confirm_at end,
             old_hosts = case when $11 and confirm_at is null then '{}' else old_hosts end,
             lease_owner = case when lease_job = $2 then null else lease_owner end,
             lease_until = case when lease_job = $2 then null else lease_until end,
             lease_job = case when lease_job = $2 then null else lease_job end
         where id = $1",
        relay_id.as_str(),
        job.id,
        attempts.is_some(),
        failure.message,
        failure.kind.as_str(),
        attempts.unwrap_or_default(),
        verdict.retry_at(),
        verdict == Verdict::GaveUp,
        outage,
        failure.reached.may_land(),
        failure.conflict.as_ref().is_some_and(|conflict| conflict.has_moved_away),
    )
    .execute(tx)
    .await?;
    Ok(())
}
