//! Parked events: refused for now, or for good. Each has the keys of what it waits for. An event that
//! is accepted releases those that wait for one of its keys: they are judged again, by a job.
//!
//! A parked event is kept for 7 days, and a service keeps at most 200,000 of them; the oldest go first.

mod keys;
mod release;
mod upkeep;
mod wake;

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::policy::Reason;
use crate::{
    mirror::event::{Event, EventId, column, rows_of},
    queue::one_line,
};

pub use release::{Page, Released, released, resume_releases};
pub use upkeep::{Expired, expire, expire_beyond};
pub(super) use wake::{Accepted, wake};

/// The largest event that is kept, in bytes as JSON.
const MAX_BODY: usize = 16 * 1024;

/// An event that a service refuses.
#[derive(Debug)]
pub(super) struct Parked<'a> {
    pub(super) service: Uuid,
    pub(super) policy_rev: i64,
    pub(super) event: &'a Event,
    pub(super) reason: Reason,
    pub(super) keys: Vec<String>,
    /// Whether the store has the event, so that its body need not be kept.
    pub(super) is_stored: bool,
}

impl Parked<'_> {
    fn body(&self) -> Option<String> {
        let body = serde_json::to_string(self.event).ok().filter(|_| !self.is_stored)?;
        (body.len() <= MAX_BODY).then_some(body)
    }

    /// What the event waits for, for people.
    fn detail(&self) -> String {
        let keys: Vec<String> = self.keys.iter().take(3).map(|key| describe(key)).collect();
        let text =
            if keys.is_empty() { "it waits for nothing".to_owned() } else { keys.join("; ") };
        one_line(&text).chars().take(500).collect()
    }
}

/// Returns what a key means, for people.
pub fn describe(key: &str) -> String {
    match key.split_once(':') {
        Some(("a", address)) => format!("waits for {address} to be accepted"),
        Some(("e", id)) => format!("waits for the event {id} to be accepted"),
        Some(("m", of)) => {
            let (author, name) = of.split_once(':').unwrap_or_default();
            format!("waits for an announcement of {name:?} that lists {author} as a maintainer")
        }
        Some(("i", target)) => format!("waits for an accepted event that points to {target}"),
        _ => key.to_owned(),
    }
}

/// Parks events. One that is parked already gets the new reason and the new keys.
pub(super) async fn park(
    tx: &mut PgConnection,
    relay: Option<Uuid>,
    parked: &[Parked<'_>],
) -> Result<(), sqlx::Error> {
    if parked.is_empty() {
        return Ok(());
    }
    let before = write(tx, relay, parked).await?;
    if before {
        let events: Vec<(Uuid, EventId)> =
            parked.iter().map(|one| (one.service, one.event.id)).collect();
        forget_keys(tx, &events).await?;
    }
    write_keys(tx, parked).await
}

/// Writes the rows. Returns whether one was there before.
async fn write(
    tx: &mut PgConnection,
    relay: Option<Uuid>,
    parked: &[Parked<'_>],
) -> Result<bool, sqlx::Error> {
    let rows = sqlx::query_scalar!(
        r#"insert into parked as p (upstream_id, event_id, kind, pubkey, created_at, reason, detail, body,
                                    policy_rev, relay_id, expires_at)
           select n.*, $10, now() + interval '7 days'
           from unnest($1::uuid[], $2::bytea[], $3::int[], $4::bytea[], $5::bigint[], $6::text[],
                       $7::text[], $8::text[], $9::bigint[]) n
           order by 1, 2
           on conflict (upstream_id, event_id) do update set
               reason = excluded.reason, detail = excluded.detail, policy_rev = excluded.policy_rev,
               body = coalesce(excluded.body, p.body), expires_at = excluded.expires_at,
               relay_id = coalesce(excluded.relay_id, p.relay_id)
           returning (xmax <> 0) as "was_there!""#,
        &column(parked, |one| one.service),
        &column(parked, |one| one.event.id.0.to_vec()),
        &column(parked, |one| i32::from(one.event.kind)),
        &column(parked, |one| one.event.pubkey.to_vec()),
        &column(parked, |one| one.event.created_at),
        &column(parked, |one| one.reason.as_str().to_owned()),
        &column(parked, Parked::detail),
        &column(parked, Parked::body) as &[Option<String>],
        &column(parked, |one| one.policy_rev),
        relay,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.contains(&true))
}

async fn forget_keys(tx: &mut PgConnection, events: &[(Uuid, EventId)]) -> Result<(), sqlx::Error> {
    for (service, ids) in by_service(events) {
        sqlx::query!(
            "delete from parked_key where upstream_id = $1 and event_id = any($2)",
            service,
            &rows_of(ids.iter()),
        )
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

/// Groups events by their service. One statement for each service looks them up by an index, whatever
/// the planner knows; a join with the events could read the whole table.
fn by_service(events: &[(Uuid, EventId)]) -> BTreeMap<Uuid, Vec<EventId>> {
    let mut by_service: BTreeMap<Uuid, Vec<EventId>> = BTreeMap::new();
    for (service, id) in events {
        by_service.entry(*service).or_default().push(*id);
    }
    by_service
}

async fn write_keys(tx: &mut PgConnection, parked: &[Parked<'_>]) -> Result<(), sqlx::Error> {
    let keys = parked.iter().flat_map(|one| {
        let keys = one.keys.iter().filter(|key| !key.contains('\0'));
        keys.map(|key| (one.service, key.clone(), one.event.id))
    });
    let keys: Vec<(Uuid, String, EventId)> = keys.collect();
    sqlx::query!(
        "insert into parked_key (upstream_id, key, event_id)
         select * from unnest($1::uuid[], $2::text[], $3::bytea[]) order by 1, 2, 3
         on conflict do nothing",
        &column(&keys, |(service, ..)| *service),
        &column(&keys, |(_, key, _)| key.clone()),
        &column(&keys, |(.., id)| id.0.to_vec()),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Forgets that events are parked, because the service has admitted them.
pub(super) async fn forget(
    tx: &mut PgConnection,
    events: &[(Uuid, EventId)],
) -> Result<(), sqlx::Error> {
    for (service, ids) in by_service(events) {
        sqlx::query!(
            "delete from parked where upstream_id = $1 and event_id = any($2)",
            service,
            &rows_of(ids.iter()),
        )
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

/// The parked events of a service with one reason.
#[derive(Debug, Clone, Serialize)]
pub struct Count {
    /// The service.
    pub service: Uuid,
    /// The reason's code; see [`Reason`].
    pub reason: String,
    /// The number of events.
    pub events: i64,
}

/// Counts parked events by service and reason.
pub async fn counts(db: impl PgExecutor<'_>) -> Result<Vec<Count>, sqlx::Error> {
    sqlx::query_as!(
        Count,
        r#"select upstream_id as service, reason, count(*) as "events!" from parked
           group by 1, 2 order by 1, 2"#,
    )
    .fetch_all(db)
    .await
}
