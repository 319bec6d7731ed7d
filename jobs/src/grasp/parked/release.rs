//! Releasing: a job judges events again whose reason to wait has gone, page by page.

use std::collections::HashSet;

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::keys::wake_page;
use crate::{
    grasp::{
        admission::{self, Rejudged},
        wanted::{self, Lost},
        work::Work,
    },
    mirror::event::{self, Batch, Event, EventId, Limits, Reason, Stored, outgoing, rows_of},
    queue::{self, Settled},
};

/// The events of one page.
const PAGE: i64 = 200;

/// What one page of a service's released events came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Released {
    /// The events that were judged.
    pub judged: usize,
    /// The events that are not at hand any more; they are fetched again.
    pub gone: usize,
}

/// A page of released events.
pub type Page = Option<Released>;

/// Judges the next 200 released events of a service, or releases a page of those that wait for a key;
/// `None` if there are none, or if the service is disabled: then they wait until it is enabled.
///
/// # Errors
/// The database is unreachable or refused a statement; the page is judged again then.
pub async fn released(db: &PgPool, service: Uuid) -> Result<Page, sqlx::Error> {
    let ids = sqlx::query_scalar!(
        "select r.event_id from grasp_service s join grasp_release r using (upstream_id)
         where s.upstream_id = $1 and s.enabled and s.removing_at is null
         order by r.event_id limit $2",
        service,
        PAGE,
    );
    let ids = ids.fetch_all(db).await?;
    if ids.is_empty() {
        let more = wake_page(db, service).await?;
        return Ok(more.then_some(Released { judged: 0, gone: 0 }));
    }
    let ids: Vec<EventId> = ids.iter().map(|id| EventId::of_row(id)).collect();
    let events = at_hand(db, service, &ids).await?;
    let gone = forget_gone(db, service, &ids, &events).await?;
    let gate = Rejudged { service };
    let batch = Batch { gate: Some(&gate), ..Batch::new(Uuid::nil(), &events) };
    let Settled::Written(outcomes) = event::store(db, batch).await? else { return Ok(None) };
    forget_refused(db, service, &events, &outcomes).await?;
    Ok(Some(Released { judged: events.len(), gone }))
}

/// Forgets events that the database refuses, so that they are not judged again for ever. Their ids stay
/// known as refused by the store.
async fn forget_refused(
    db: &PgPool,
    service: Uuid,
    events: &[Event],
    outcomes: &[Stored],
) -> Result<(), sqlx::Error> {
    let is_refused =
        |(_, outcome): &(&Event, &Stored)| **outcome == Stored::Refused(Reason::RefusedByStore);
    let refused = events.iter().zip(outcomes).filter(is_refused).map(|(event, _)| &event.id);
    let refused = rows_of(refused);
    if refused.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "with forgotten as (delete from parked where upstream_id = $1 and event_id = any($2))
         delete from grasp_release where upstream_id = $1 and event_id = any($2)",
        service,
        &refused,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Returns those of the events that the store has, or whose body is parked.
async fn at_hand(db: &PgPool, service: Uuid, ids: &[EventId]) -> Result<Vec<Event>, sqlx::Error> {
    let mut events = outgoing::live_by_ids(db, ids).await?;
    let stored: HashSet<EventId> = events.iter().map(|event| event.id).collect();
    let bodies = sqlx::query_scalar!(
        r#"select body as "body!" from parked
           where upstream_id = $1 and event_id = any($2) and body is not null"#,
        service,
        &rows_of(ids.iter().filter(|id| !stored.contains(id))),
    );
    let limits = Limits { bytes: usize::MAX, tags: usize::MAX };
    let bodies = bodies.fetch_all(db).await?;
    events.extend(bodies.iter().filter_map(|body| event::parse(body, limits).ok()));
    Ok(events)
}

/// Forgets released events that are not at hand, so that they are fetched again.
async fn forget_gone(
    db: &PgPool,
    service: Uuid,
    ids: &[EventId],
    events: &[Event],
) -> Result<usize, sqlx::Error> {
    let there: HashSet<EventId> = events.iter().map(|event| event.id).collect();
    let gone = rows_of(ids.iter().filter(|id| !there.contains(id)));
    if gone.is_empty() {
        return Ok(0);
    }
    let mut tx = crate::database::begin(db).await?;
    admission::lock(&mut tx).await?;
    fetch_again(&mut tx, service, &gone).await?;
    sqlx::query!(
        "with forgotten as (
             delete from parked where upstream_id = $1 and event_id = any($2) and body is null
         )
         delete from grasp_release where upstream_id = $1 and event_id = any($2)",
        service,
        &gone,
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(gone.len())
}

/// Makes the items missing through which relays delivered events: what they point to, the states of their
/// identifier, and the announcements of their relay.
async fn fetch_again(
    tx: &mut PgConnection,
    service: Uuid,
    ids: &[Vec<u8>],
) -> Result<(), sqlx::Error> {
    let rows = sqlx::query!(
        r#"select distinct case when left(k.key, 2) = 'a:' then 'address' when left(k.key, 2) = 'e:' then 'root'
                                when p.kind = 30618 then 'state' else 'announcements' end as "family!",
                  case when left(k.key, 2) in ('a:', 'e:') then substr(k.key, 3)
                       when p.kind = 30618 then substr(k.key, 68) else '*' end as "item!",
                  case when p.kind = 30617 then p.relay_id end as relay
           from parked p join parked_key k using (upstream_id, event_id)
           where p.upstream_id = $1 and p.event_id = any($2) and p.body is null
             and (left(k.key, 2) in ('a:', 'e:') or p.kind in (30617, 30618) and left(k.key, 2) = 'm:')"#,
        service,
        ids,
    );
    let rows = rows.fetch_all(&mut *tx).await?;
    let items: Vec<Lost> = rows
        .into_iter()
        .map(|row| Lost { relay: row.relay, family: row.family, item: row.item })
        .collect();
    wanted::lose(tx, &items).await
}

/// Enqueues the jobs of services with released events. Returns how many were enqueued.
pub async fn resume_releases(db: &PgPool) -> Result<usize, sqlx::Error> {
    let services = sqlx::query_scalar!(
        "select upstream_id from grasp_service s
         where enabled and removing_at is null
           and (exists (select from grasp_release r where r.upstream_id = s.upstream_id)
                or exists (select from grasp_wake w where w.upstream_id = s.upstream_id))"
    );
    let services = services.fetch_all(db).await?;
    let jobs: Vec<_> =
        services.into_iter().map(|service| Work::Release { service }.job()).collect();
    if jobs.is_empty() { Ok(0) } else { Ok(queue::enqueue(db, &jobs).await?.len()) }
}
