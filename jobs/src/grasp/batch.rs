//! Batches: items of one family that are fetched together from one relay. A batch belongs to one lease:
//! its end changes nothing once the lease is over.
//!
//! - `again`: when the items of a failed batch are fetched again.
//!
//! Functions return [`sqlx::Error`] when the database is unreachable or refuses the statement.

mod again;

use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::{
    family::{Family, Purpose},
    followed::Lease,
};
use crate::{
    mirror::contended,
    queue::{Settled, one_line},
};

pub use again::Again;

/// Items that are being fetched.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The id of the row.
    pub id: i64,
    /// The lease under which it was opened.
    pub lease: Lease,
    /// The family of the items.
    pub family: Family,
    /// Why it is fetched.
    pub purpose: Purpose,
    /// The items.
    pub items: Vec<String>,
    /// Whether the relay's own refusal was recorded for all of its missing items.
    pub is_refused: bool,
}

/// What a batch has fetched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fetched {
    /// The pages that were requested.
    pub pages: i32,
    /// The events that came.
    pub received: i64,
    /// The events that were new.
    pub stored: i64,
    /// Whether a part was compared by negentropy.
    pub is_compared: bool,
}

impl Fetched {
    /// Whether an answer was proven to be more than an empty one.
    pub fn is_proof(self) -> bool {
        self.received > 0 || self.is_compared
    }

    fn method(self) -> &'static str {
        if self.is_compared { "negentropy" } else { "pages" }
    }
}

impl std::ops::AddAssign for Fetched {
    fn add_assign(&mut self, other: Self) {
        self.pages += other.pages;
        self.received += other.received;
        self.stored += other.stored;
        self.is_compared |= other.is_compared;
    }
}

/// Opens a batch that verifies or polls confirmed items. Returns `None` if the lease is over.
pub async fn open(
    db: impl PgExecutor<'_>,
    lease: Lease,
    family: Family,
    purpose: Purpose,
    items: Vec<String>,
) -> Result<Option<Batch>, sqlx::Error> {
    let id = sqlx::query_scalar!(
        "insert into grasp_batch (relay_id, epoch, family, purpose, items)
         select id, lease_epoch, $3, $4, $5 from grasp_relay
         where id = $1 and lease_epoch = $2 and lease_until > now() for share
         returning id",
        lease.relay,
        lease.epoch,
        family.as_str(),
        purpose.as_str(),
        i32::try_from(items.len()).unwrap_or(i32::MAX),
    )
    .fetch_optional(db)
    .await?;
    Ok(id.map(|id| Batch { id, lease, family, purpose, items, is_refused: false }))
}

/// Ends a batch whose every event before EOSE is stored, refused for good or parked. Its items are
/// confirmed.
pub async fn confirm(
    db: &PgPool,
    batch: &Batch,
    fetched: Fetched,
) -> Result<Settled<()>, sqlx::Error> {
    contended::retried(|| async {
        let mut tx = crate::database::begin(db).await?;
        if !end(&mut tx, batch, "done", None, fetched).await? {
            return Ok(Settled::LeaseLost);
        }
        sqlx::query!(
            "update grasp_coverage
             set state = 'confirmed', batch = null, attempts = 0, reason = null, refused = false, walked = '{}',
                 batch_size = least(100, 2 * batch_size), retry_at = now(), confirmed_at = now()
             where batch = $1 and relay_id = $2 and state = 'in_flight'",
            batch.id,
            batch.lease.relay,
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Settled::Written(()))
    })
    .await
}

/// Ends a batch that failed. Its items are missing, for this reason.
pub async fn fail(
    db: &PgPool,
    batch: &Batch,
    reason: &str,
    again: Again,
    fetched: Fetched,
) -> Result<Settled<()>, sqlx::Error> {
    contended::retried(|| async {
        let mut tx = crate::database::begin(db).await?;
        if !end(&mut tx, batch, "failed", Some(reason), fetched).await? {
            return Ok(Settled::LeaseLost);
        }
        make_missing(&mut tx, batch, None, reason, again).await?;
        tx.commit().await?;
        Ok(Settled::Written(()))
    })
    .await
}

/// Makes single items of an open batch missing; the others go on.
pub async fn refuse(
    db: &PgPool,
    batch: &Batch,
    items: &[String],
    reason: &str,
    again: Again,
) -> Result<Settled<()>, sqlx::Error> {
    contended::retried(|| async {
        let mut tx = crate::database::begin(db).await?;
        let holder = sqlx::query!(
            "select id from grasp_relay where id = $1 and lease_epoch = $2 and lease_until > now() for share",
            batch.lease.relay,
            batch.lease.epoch,
        );
        if holder.fetch_optional(&mut *tx).await?.is_none() {
            return Ok(Settled::LeaseLost);
        }
        make_missing(&mut tx, batch, Some(items), reason, again).await?;
        tx.commit().await?;
        Ok(Settled::Written(()))
    })
    .await
}

/// Ends the row of an open batch, under its lease, and adds to the counters of the relay. Returns false
/// if the lease is over or the batch has ended.
async fn end(
    tx: &mut PgConnection,
    batch: &Batch,
    status: &str,
    reason: Option<&str>,
    fetched: Fetched,
) -> Result<bool, sqlx::Error> {
    let counted = sqlx::query!(
        "update grasp_relay set received = received + $3, stored = stored + $4
         where id = $1 and lease_epoch = $2 and lease_until > now()",
        batch.lease.relay,
        batch.lease.epoch,
        fetched.received,
        fetched.stored,
    );
    if counted.execute(&mut *tx).await?.rows_affected() == 0 {
        return Ok(false);
    }
    let ended = sqlx::query!(
        "update grasp_batch
         set status = $3, reason = $4, ended_at = now(), method = $5, pages = $6, received = $7, stored = $8
         where id = $1 and epoch = $2 and status = 'open'",
        batch.id,
        batch.lease.epoch,
        status,
        reason.map(one_line),
        fetched.method(),
        fetched.pages,
        fetched.received,
        fetched.stored,
    );
    Ok(ended.execute(tx).await?.rows_affected() > 0)
}

async fn make_missing(
    tx: &mut PgConnection,
    batch: &Batch,
    only: Option<&[String]>,
    reason: &str,
    again: Again,
) -> Result<(), sqlx::Error> {
    let (counts, delay) = again.delay();
    let half = i32::try_from(batch.items.len() / 2).unwrap_or(i32::MAX).max(1);
    sqlx::query!(
        "update grasp_coverage
         set state = 'missing', batch = null, reason = $4, attempts = attempts + $5,
             refused = coalesce($7, refused), batch_size = coalesce($8, batch_size),
             retry_at = case when $9 then null else now() + make_interval(
                 secs => coalesce($6::bigint::float8, least(3600, 65 * 2 ^ least(attempts, 6)))) end
         where batch = $1 and relay_id = $2 and state = 'in_flight' and ($3::text[] is null or item = any($3))",
        batch.id,
        batch.lease.relay,
        only,
        one_line(reason),
        i32::from(counts),
        delay,
        again.is_refused(),
        counts.then_some(half),
        again == Again::Never,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Ends the open batches of relays that have no holder any more. Their items are missing, and due at
/// once. The caller holds the rows of the relays.
pub(super) async fn abandon(
    tx: &mut PgConnection,
    relays: &[Uuid],
    reason: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update grasp_batch set status = 'failed', reason = $2, ended_at = now()
         where relay_id = any($1) and status = 'open'",
        relays,
        one_line(reason),
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "update grasp_coverage
         set state = 'missing', batch = null, reason = case when refused then reason else $2 end, retry_at = now()
         where relay_id = any($1) and batch is not null",
        relays,
        one_line(reason),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The ended batches of a relay that are kept.
const MAX_ENDED: i64 = 200;

/// Forgets batches that ended long ago: verifications and polls after a day, others after a week; and
/// those of a relay beyond its latest 200 ended ones. Returns how many.
pub async fn prune(db: &PgPool) -> Result<u64, sqlx::Error> {
    Ok(prune_old(db).await? + prune_beyond(db).await?)
}

/// Looks only at relays of which a batch ended a short time ago: the others have no new rows.
async fn prune_beyond(db: &PgPool) -> Result<u64, sqlx::Error> {
    let gone = sqlx::query!(
        "delete from grasp_batch where id = any(array(
             select old.id
             from (select distinct relay_id from grasp_batch where ended_at > now() - interval '5 minutes') r
             cross join lateral (
                 select b.id from grasp_batch b where b.relay_id = r.relay_id and b.status <> 'open'
                 order by b.begun_at desc, b.id desc limit 5000 offset $1) old
             limit 5000))",
        MAX_ENDED,
    );
    Ok(gone.execute(db).await?.rows_affected())
}

async fn prune_old(db: &PgPool) -> Result<u64, sqlx::Error> {
    let gone = sqlx::query!(
        "delete from grasp_batch where id in (
             (select id from grasp_batch where ended_at < now() - interval '7 days' order by ended_at limit 5000)
             union all
             (select id from grasp_batch
              where ended_at < now() - interval '1 day' and purpose <> 'missing' and status = 'done'
              order by ended_at limit 5000))",
    );
    Ok(gone.execute(db).await?.rows_affected())
}
