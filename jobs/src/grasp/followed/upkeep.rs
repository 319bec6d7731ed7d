//! Relays that nothing names any more, and relays whose holder died.

use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use crate::{
    grasp::batch,
    mirror::{
        contended,
        upstream::{self, UpstreamError},
    },
};

/// The relays that one statement ends or drops.
const PAGE: i64 = 100;

/// A relay that was dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Its address.
    pub url: String,
    /// The row of its connection.
    pub upstream: Option<Uuid>,
}

/// Ends the leases whose time is over: their relays are due at once, and what was being fetched is
/// missing again. Returns the number of relays.
pub async fn reap(db: &PgPool) -> Result<usize, sqlx::Error> {
    let mut reaped = 0;
    loop {
        let page = contended::retried(|| reap_page(db)).await?;
        reaped += page;
        if i64::try_from(page).unwrap_or(PAGE) < PAGE {
            return Ok(reaped);
        }
    }
}

async fn reap_page(db: &PgPool) -> Result<usize, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    let relays: Vec<Uuid> = sqlx::query_scalar!(
        "with dead as (
             select id from grasp_relay where lease_until < now() order by id limit $1 for update skip locked)
         update grasp_relay r
         set status = 'waiting', status_at = now(), lease_owner = null, lease_until = null, connected_at = null,
             subscriptions = 0, overflow = 0, subscriptions_closed = 0, closed_reason = null
         from dead where r.id = dead.id returning r.id",
        PAGE,
    )
    .fetch_all(&mut *tx)
    .await?;
    if !relays.is_empty() {
        batch::abandon(&mut tx, &relays, "the process that fetched it died").await?;
    }
    tx.commit().await?;
    Ok(relays.len())
}

/// Drops relays that nothing has named for a minute and that no process holds. The rows of their
/// connections are removed, unless the mirror uses them.
pub async fn drop_unwanted(db: &PgPool) -> Result<Vec<Dropped>, sqlx::Error> {
    let dropped = contended::retried(|| {
        sqlx::query_as!(
            Dropped,
            "with gone as (
                 select id from grasp_relay r
                 where unwanted_since < now() - interval '60 seconds' and coalesce(lease_until < now(), true)
                   and not exists (select from grasp_repo_relay n where n.url = r.url)
                   and not exists (select from grasp_bootstrap b where b.url = r.url)
                 order by id limit $1 for update skip locked)
             delete from grasp_relay r using gone where r.id = gone.id
             returning r.url, r.upstream_id as upstream",
            PAGE,
        )
        .fetch_all(db)
    })
    .await?;
    for one in &dropped {
        if let Some(upstream) = one.upstream {
            remove_upstream(db, upstream).await?;
        }
    }
    Ok(dropped)
}

async fn remove_upstream(db: &PgPool, id: Uuid) -> Result<(), sqlx::Error> {
    let is_unused = sqlx::query_scalar!(
        r#"select not mirrored and not admission
                  and not exists (select from grasp_relay r where r.url = upstream.url) as "is_unused!"
           from upstream where id = $1 and removing_at is null"#,
        id,
    );
    if is_unused.fetch_optional(db).await? == Some(true) {
        // Other errors: it became the relay of a service meanwhile.
        if let Err(UpstreamError::Database(error)) = upstream::delete(db, id, None).await {
            return Err(error);
        }
    }
    Ok(())
}

/// Lets the relays be planned that have items to fetch and no row in the outbox. Their wake-up was lost
/// between two transactions. Returns the number of relays.
pub async fn wake_due(db: impl PgExecutor<'_>) -> Result<u64, sqlx::Error> {
    let woken = sqlx::query!(
        "insert into grasp_outbox (relay_id, due_at)
         select r.id, now() from grasp_relay r
         where r.status in ('catching_up', 'in_step') and coalesce(r.limited_until <= now(), true)
           and exists (select from grasp_coverage c
                       where c.relay_id = r.id and c.state = 'missing'
                         and c.retry_at <= now() - interval '15 seconds')
         order by r.id on conflict do nothing",
    );
    Ok(woken.execute(db).await?.rows_affected())
}
