//! Compares all coverage with all that is wanted, relay by relay, without input.

use std::time::{Duration, Instant};

use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

use super::compare;
use crate::{
    grasp::{admission, work::Work},
    queue,
};

/// The rows that one run compares, apart from those of its last relay.
const MAX_COMPARED: usize = 20_000;
/// After this time a run begins with no further relay: with the last one, a job must end within two minutes.
const WITHIN: Duration = Duration::from_secs(45);
/// The announcements of a service that one run takes up again.
const MAX_WAITING: i64 = 100;
/// The relays that one run compares.
const MAX_RELAYS: usize = 200;

/// The result of a comparison.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Reconciled {
    /// Relays that were compared.
    pub relays: usize,
    /// Items that were missing from the coverage.
    pub added: i64,
    /// Items of the coverage that nothing wanted.
    pub deleted: i64,
    /// Relays that have more items than could be compared in a minute. They are compared again after ten minutes.
    pub cut: usize,
}

/// Compares the relays that were marked, and those that were not compared for an hour: about 20,000 rows
/// in one call. Normally it changes nothing but what a change of a service asks for.
///
/// # Errors
/// The database is unreachable or refused a statement; the other relays are repaired.
pub async fn reconcile(db: &PgPool) -> Result<Reconciled, sqlx::Error> {
    adopt_relays(db).await?;
    fill_rooms(db).await?;
    let due = sqlx::query_scalar!(
        "select id from grasp_relay
         where reconciled_at is null or reconciled_at < now() - interval '1 hour'
         order by reconciled_at nulls first limit $1",
        i64::try_from(MAX_RELAYS).unwrap_or(i64::MAX),
    );
    compare_each(db, &due.fetch_all(db).await?, MAX_COMPARED).await
}

/// Compares every relay, whenever it was compared last.
///
/// # Errors
/// See [`reconcile`].
pub async fn reconcile_all(db: &PgPool) -> Result<Reconciled, sqlx::Error> {
    adopt_relays(db).await?;
    let all = sqlx::query_scalar!("select id from grasp_relay order by id").fetch_all(db).await?;
    compare_each(db, &all, usize::MAX).await
}

async fn compare_each(
    db: &PgPool,
    relays: &[Uuid],
    limit: usize,
) -> Result<Reconciled, sqlx::Error> {
    let begun = Instant::now();
    let (mut reconciled, mut compared, mut failed) = (Reconciled::default(), 0, Ok(()));
    for relay in relays {
        match compare::compare(db, *relay).await {
            Ok(None) => break, // another process compares
            Ok(Some(settled)) => {
                reconciled.relays += 1;
                reconciled.added += settled.added;
                reconciled.deleted += settled.deleted;
                reconciled.cut += usize::from(settled.is_cut);
                compared += settled.compared;
            }
            Err(error) => failed = Err(error), // the relays after it must not wait for it
        }
        if compared >= limit || reconciled.cut > 0 || begun.elapsed() > WITHIN {
            break;
        }
    }
    failed.map(|()| reconciled)
}

/// Adds the rows of relays that are named and have none.
async fn adopt_relays(db: &PgPool) -> Result<(), sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    admission::lock(&mut tx).await?;
    sqlx::query!(
        "insert into grasp_relay (url)
         select b.url from grasp_bootstrap b
         where not exists (select from grasp_relay r where r.url = b.url)
         group by 1 order by 1
         on conflict do nothing"
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await
}

/// Lets announcements be judged again whose relays exceeded the limit of their service, if it has room
/// now.
async fn fill_rooms(db: &PgPool) -> Result<(), sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    admission::lock(&mut tx).await?;
    let services = sqlx::query_scalar!(
        r#"with due as (
               insert into grasp_release (upstream_id, event_id)
               select s.upstream_id, waiting.announcement_id
               from grasp_service s
               cross join lateral (
                   select r.announcement_id from grasp_repo r join event e on e.id = r.announcement_id
                   where r.upstream_id = s.upstream_id and r.relays_over > 0 and r.left_at is null
                     and e.deleted_at is null
                   order by r.updated_at limit $1) waiting
               where s.enabled and s.removing_at is null and s.relays_over_limit > 0
                 and s.max_relays > (select count(distinct w.url) from grasp_repo_relay w
                                     where w.upstream_id = s.upstream_id)
               order by 1, 2
               on conflict do nothing
               returning upstream_id
           )
           select distinct upstream_id as "upstream_id!" from due"#,
        MAX_WAITING,
    );
    let services = services.fetch_all(&mut *tx).await?;
    let jobs: Vec<_> =
        services.into_iter().map(|service| Work::Release { service }.job()).collect();
    if !jobs.is_empty() {
        queue::enqueue(&mut *tx, &jobs).await?;
    }
    tx.commit().await
}
