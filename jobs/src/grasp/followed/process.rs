//! The processes that share the followed relays.

use sqlx::PgExecutor;
use uuid::Uuid;

/// What a process has to do now.
#[derive(Debug, Clone, Default)]
pub struct Tick {
    /// Relays of this process whose coverage gained missing items.
    pub plans: Vec<Uuid>,
    /// The relays that are followed, by any process.
    pub relays: i64,
    /// The live processes, this one included.
    pub processes: i64,
    /// Whether a relay is due that no process holds.
    pub is_claimable: bool,
    /// Whether the wing has anything to look after: a service, a relay, or a parked event.
    pub is_used: bool,
}

impl Tick {
    /// Returns the number of relays that this process may hold.
    pub fn share(&self) -> i64 {
        let processes = self.processes.max(1);
        (self.relays + processes - 1) / processes
    }
}

/// Takes the due outbox rows of the relays that a process holds, and returns what else it has to do. If it `beats`, it
/// also stores that the process lives, and forgets processes that have been silent for an hour.
pub async fn tick(
    db: impl PgExecutor<'_>,
    process: &str,
    beats: bool,
) -> Result<Tick, sqlx::Error> {
    let row = sqlx::query!(
        r#"with beaten as (
               insert into grasp_process (process) select $1 where $2
               on conflict (process) do update set seen_at = now()),
           silent as (
               select process from grasp_process
               where $2 and process <> $1 and seen_at < now() - interval '1 hour'
               for update skip locked),
           gone as (
               delete from grasp_process p using silent where p.process = silent.process),
           due as (
               select o.relay_id from grasp_outbox o join grasp_relay r on r.id = o.relay_id
               where o.due_at <= now() and r.lease_owner = $1 and r.status <> 'connecting'
               order by o.relay_id for update of o skip locked),
           taken as (
               delete from grasp_outbox o using due where o.relay_id = due.relay_id returning o.relay_id)
           select array(select relay_id from taken) as "plans!",
                  (select count(*) from grasp_relay where unwanted_since is null or lease_until > now())
                      as "relays!",
                  (select count(*) + 1 from grasp_process
                   where process <> $1 and seen_at > now() - interval '30 seconds')
                      as "processes!",
                  exists (select from grasp_service) or exists (select from grasp_relay)
                      or exists (select from parked)
                      as "is_used!",
                  exists (
                      select from grasp_relay
                      where next_attempt_at <= now() and coalesce(lease_until < now(), true)
                        and coalesce(limited_until <= now(), true) and unwanted_since is null)
                      as "is_claimable!""#,
        process,
        beats,
    )
    .fetch_one(db)
    .await?;
    Ok(Tick {
        plans: row.plans,
        relays: row.relays,
        processes: row.processes,
        is_claimable: row.is_claimable,
        is_used: row.is_used,
    })
}

/// Forgets a process that stops.
pub async fn forget_process(db: impl PgExecutor<'_>, process: &str) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from grasp_process where process = $1", process).execute(db).await?;
    Ok(())
}
