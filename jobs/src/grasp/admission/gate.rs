//! The gates of the sources.

use std::collections::HashSet;

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{
    bench::{Bench, How},
    lock,
};
use crate::{
    grasp::family::Source,
    mirror::event::{Event, EventId, Gate, Gated, Judged, rows_of},
    queue::Settled,
};

/// What a gate of this module returns for a batch.
type Judgement<'e> = Result<Settled<Box<dyn Judged + 'e>>, sqlx::Error>;

/// The gate for events of a followed relay. Every enabled service judges them.
#[derive(Debug, Clone, Copy)]
pub struct Followed {
    /// The followed relay.
    pub relay: Uuid,
    /// The epoch of the lease under which the events are stored.
    pub epoch: i64,
    /// How the events came.
    pub source: Source,
}

impl Followed {
    async fn judged<'e>(self, tx: &mut PgConnection, events: &[&'e Event]) -> Judgement<'e> {
        if !events.is_empty() {
            lock(tx).await?;
        }
        if !holds_lease(tx, self.relay, self.epoch).await? {
            return Ok(Settled::LeaseLost);
        }
        let how = How { relay: Some(self.relay), parks: true, ..How::new(self.source) };
        judged(tx, how, events).await
    }
}

impl Gate for Followed {
    fn known<'a>(
        &'a self,
        db: &'a PgPool,
        _upstream: Uuid,
        ids: &'a [EventId],
    ) -> Gated<'a, HashSet<EventId>> {
        Box::pin(decided(db, ids))
    }

    fn judge<'a, 'e: 'a>(
        &'a self,
        tx: &'a mut PgConnection,
        _upstream: Uuid,
        events: &'a [&'e Event],
    ) -> Gated<'a, Settled<Box<dyn Judged + 'e>>> {
        Box::pin(self.judged(tx, events))
    }
}

/// The gate for events of a service's own relay, which has accepted them already. The other services
/// judge them.
#[derive(Debug, Clone, Copy)]
pub struct OwnFeed;

impl Gate for OwnFeed {
    fn known<'a>(
        &'a self,
        db: &'a PgPool,
        upstream: Uuid,
        ids: &'a [EventId],
    ) -> Gated<'a, HashSet<EventId>> {
        Box::pin(admitted(db, upstream, ids))
    }

    fn judge<'a, 'e: 'a>(
        &'a self,
        tx: &'a mut PgConnection,
        upstream: Uuid,
        events: &'a [&'e Event],
    ) -> Gated<'a, Settled<Box<dyn Judged + 'e>>> {
        Box::pin(async move {
            if !events.is_empty() {
                lock(tx).await?;
            }
            let how = How { own: Some(upstream), ..How::new(Source::Own) };
            judged(tx, how, events).await
        })
    }
}

/// The gate for events whose reason to wait has gone, for one service.
#[derive(Debug, Clone, Copy)]
pub struct Rejudged {
    /// The service that judges them again.
    pub service: Uuid,
}

impl Gate for Rejudged {
    fn judge<'a, 'e: 'a>(
        &'a self,
        tx: &'a mut PgConnection,
        _upstream: Uuid,
        events: &'a [&'e Event],
    ) -> Gated<'a, Settled<Box<dyn Judged + 'e>>> {
        Box::pin(async move {
            lock(tx).await?;
            if !judges(tx, self.service).await? {
                return Ok(Settled::LeaseLost);
            }
            forget_release(tx, self.service, events).await?;
            let only = Some(self.service);
            judged(tx, How { only, parks: true, ..How::new(Source::Released) }, events).await
        })
    }
}

/// The gate for events of the store, for one service. It parks nothing: the store has the events.
#[derive(Debug, Clone, Copy)]
pub struct Scanned {
    /// The service that judges them.
    pub service: Uuid,
}

impl Gate for Scanned {
    fn judge<'a, 'e: 'a>(
        &'a self,
        tx: &'a mut PgConnection,
        _upstream: Uuid,
        events: &'a [&'e Event],
    ) -> Gated<'a, Settled<Box<dyn Judged + 'e>>> {
        Box::pin(async move {
            lock(tx).await?;
            judged(tx, How { only: Some(self.service), ..How::new(Source::Store) }, events).await
        })
    }
}

async fn judged<'e>(tx: &mut PgConnection, how: How, events: &[&'e Event]) -> Judgement<'e> {
    let bench: Box<dyn Judged + 'e> = Box::new(Bench::judge(tx, how, events).await?);
    Ok(Settled::Written(bench))
}

/// Whether the lease of a followed relay is not over. The lease keeps its epoch until the end of the
/// transaction.
async fn holds_lease(tx: &mut PgConnection, relay: Uuid, epoch: i64) -> Result<bool, sqlx::Error> {
    let held = sqlx::query_scalar!(
        "select id from grasp_relay
         where id = $1 and lease_epoch = $2 and lease_until > clock_timestamp() for share",
        relay,
        epoch,
    );
    Ok(held.fetch_optional(tx).await?.is_some())
}

/// Whether a service is enabled. It stays so until the end of the transaction, which holds the lock.
async fn judges(tx: &mut PgConnection, service: Uuid) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select exists (select from grasp_service
                         where upstream_id = $1 and enabled and removing_at is null) as "judges!""#,
        service,
    )
    .fetch_one(tx)
    .await
}

async fn forget_release(
    tx: &mut PgConnection,
    service: Uuid,
    events: &[&Event],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "delete from grasp_release where upstream_id = $1 and event_id = any($2)",
        service,
        &rows_of(events.iter().map(|event| &event.id)),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Returns the ids on which every enabled service has decided, and those that the store's own rules
/// have refused. If no service is enabled, nothing is decided.
async fn decided(db: &PgPool, ids: &[EventId]) -> Result<HashSet<EventId>, sqlx::Error> {
    let rows = sqlx::query_scalar!(
        r#"select asked.id as "id!"
           from (select distinct id from unnest($1::bytea[]) n (id)) asked
           where (select true from known_id k where k.event_id = asked.id and k.upstream_id is null
                  and (k.retry_after is null or k.retry_after > now()) limit 1)
              or exists (select from grasp_service s where s.enabled and s.removing_at is null)
                 and not exists (
                  select from grasp_service s
                  where s.enabled and s.removing_at is null
                    and not exists (select from admission a
                                    where a.upstream_id = s.upstream_id and a.event_id = asked.id)
                    and not exists (select from parked p
                                    where p.upstream_id = s.upstream_id and p.event_id = asked.id
                                      and p.policy_rev = s.policy_rev and p.expires_at > now()))"#,
        &rows_of(ids.iter()),
    )
    .fetch_all(db)
    .await?;
    Ok(rows.iter().map(|id| EventId::of_row(id)).collect())
}

/// Returns the ids that a service has admitted.
async fn admitted(
    db: &PgPool,
    service: Uuid,
    ids: &[EventId],
) -> Result<HashSet<EventId>, sqlx::Error> {
    let rows = sqlx::query_scalar!(
        "select event_id from admission where upstream_id = $1 and event_id = any($2)",
        service,
        &rows_of(ids.iter()),
    )
    .fetch_all(db)
    .await?;
    Ok(rows.iter().map(|id| EventId::of_row(id)).collect())
}
