//! Compares all coverage with all that is wanted, relay by relay, without input.

use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

use super::settle;
use crate::{grasp::admission, mirror::contended};

/// The rows that one run compares, apart from those of its last relay.
const MAX_COMPARED: i64 = 20_000;
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
}

/// Compares the relays that were marked, and those that were not compared for an hour: about 20,000 rows
/// in one call. Normally it changes nothing but what a change of a service asks for.
///
/// # Errors
/// The database is unreachable or refused a statement; the relays before are repaired.
pub async fn reconcile(db: &PgPool) -> Result<Reconciled, sqlx::Error> {
    adopt_relays(db).await?;
    let due = sqlx::query_scalar!(
        "select id from grasp_relay
         where reconciled_at is null or reconciled_at < now() - interval '1 hour'
         order by reconciled_at nulls first limit $1",
        i64::try_from(MAX_RELAYS).unwrap_or(i64::MAX),
    );
    compare(db, &due.fetch_all(db).await?, MAX_COMPARED).await
}

/// Compares every relay, whenever it was compared last.
///
/// # Errors
/// See [`reconcile`].
pub async fn reconcile_all(db: &PgPool) -> Result<Reconciled, sqlx::Error> {
    adopt_relays(db).await?;
    let all = sqlx::query_scalar!("select id from grasp_relay order by id").fetch_all(db).await?;
    compare(db, &all, i64::MAX).await
}

async fn compare(db: &PgPool, relays: &[Uuid], limit: i64) -> Result<Reconciled, sqlx::Error> {
    let (mut reconciled, mut compared) = (Reconciled::default(), 0);
    for relay in relays {
        let settled = contended::retried(|| async {
            let mut tx = db.begin().await?;
            admission::lock(&mut tx).await?;
            let settled = settle(&mut tx, *relay).await?;
            tx.commit().await?;
            Ok(settled)
        });
        let settled = settled.await?;
        reconciled.relays += 1;
        reconciled.added += settled.added;
        reconciled.deleted += settled.deleted;
        compared += settled.compared;
        if compared >= limit {
            break;
        }
    }
    Ok(reconciled)
}

/// Adds the rows of relays that are named and have none.
async fn adopt_relays(db: &PgPool) -> Result<(), sqlx::Error> {
    let mut tx = db.begin().await?;
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
