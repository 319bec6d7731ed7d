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
    /// The live processes.
    pub processes: i64,
    /// Whether a relay is due that no process holds.
    pub is_claimable: bool,
}

impl Tick {
    /// Returns the number of relays that this process may hold.
    pub fn share(&self) -> i64 {
        let processes = self.processes.max(1);
        (self.relays + processes - 1) / processes
    }
}

/// Takes the due outbox rows of the relays that a process holds, and returns what else it has to do.
pub async fn tick(db: impl PgExecutor<'_>, process: &str) -> Result<Tick, sqlx::Error> {
    let row = sqlx::query!(
        r#"with due as (
               select o.relay_id from grasp_outbox o join grasp_relay r on r.id = o.relay_id
               where o.due_at <= now() and r.lease_owner = $1 and r.status <> 'connecting'
               order by o.relay_id for update of o skip locked),
           taken as (
               delete from grasp_outbox o using due where o.relay_id = due.relay_id returning o.relay_id)
           select array(select relay_id from taken) as "plans!",
                  (select count(*) from grasp_relay where unwanted_since is null or lease_until > now())
                      as "relays!",
                  (select count(*) from grasp_process where seen_at > now() - interval '30 seconds')
                      as "processes!",
                  exists (
                      select from grasp_relay
                      where next_attempt_at <= now() and coalesce(lease_until < now(), true)
                        and coalesce(limited_until <= now(), true) and unwanted_since is null)
                      as "is_claimable!""#,
        process,
    )
    .fetch_one(db)
    .await?;
    Ok(Tick {
        plans: row.plans,
        relays: row.relays,
        processes: row.processes,
        is_claimable: row.is_claimable,
    })
}

/// Stores that a process lives.
pub async fn heartbeat(db: impl PgExecutor<'_>, process: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into grasp_process (process) values ($1) on conflict (process) do update set seen_at = now()",
        process,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets a process that stops.
pub async fn forget_process(db: impl PgExecutor<'_>, process: &str) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from grasp_process where process = $1", process).execute(db).await?;
    Ok(())
}
