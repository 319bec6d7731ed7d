//! Parts of an item's history that a relay did not show.

use sqlx::{PgConnection, PgPool};

use crate::{
    grasp::{family::Family, followed::Lease},
    mirror::{contended, lane::gap::Gap},
};

/// Stores the gaps that the end of a complete pass through the history of items has found. Gaps that earlier
/// passes found are forgotten, because this pass went through their seconds again. A pass that was fetched in parts
/// began in the second `begun`: gaps that were found since then are kept.
pub async fn note_gaps(
    db: &PgPool,
    lease: Lease,
    family: Family,
    items: &[String],
    found: &[Gap],
    begun: Option<i64>,
) -> Result<(), sqlx::Error> {
    contended::retried(|| try_note(db, lease, family, items, found, begun)).await
}

/// Stores the gaps that a request of recent events has found. Others stay: the request went through a part of
/// the history only.
pub async fn add_gaps(
    db: &PgPool,
    lease: Lease,
    family: Family,
    items: &[String],
    found: &[Gap],
) -> Result<(), sqlx::Error> {
    if found.is_empty() {
        return Ok(());
    }
    contended::retried(|| async {
        let mut tx = crate::database::begin(db).await?;
        insert(&mut tx, lease, family, items, found).await?;
        tx.commit().await
    })
    .await
}

async fn try_note(
    db: &PgPool,
    lease: Lease,
    family: Family,
    items: &[String],
    found: &[Gap],
    begun: Option<i64>,
) -> Result<(), sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    sqlx::query!(
        "delete from grasp_gap g using grasp_relay r
         where r.id = $1 and r.lease_epoch = $2 and r.lease_until > now() and g.relay_id = r.id
           and g.family = $3 and g.item = any($4)
           and ($7::bigint is null or g.seen_at < to_timestamp($7::bigint))
           and not exists (select from unnest($5::bigint[], $6::bigint[]) as f (since, until)
                           where (g.since, g.until) = (f.since, f.until))",
        lease.relay,
        lease.epoch,
        family.as_str(),
        items,
        &column(found, |gap| gap.since),
        &column(found, |gap| gap.until),
        begun,
    )
    .execute(&mut *tx)
    .await?;
    insert(&mut tx, lease, family, items, found).await?;
    tx.commit().await
}

fn column(found: &[Gap], of: fn(&Gap) -> i64) -> Vec<i64> {
    found.iter().map(of).collect()
}

async fn insert(
    tx: &mut PgConnection,
    lease: Lease,
    family: Family,
    items: &[String],
    found: &[Gap],
) -> Result<(), sqlx::Error> {
    let Some(first) = items.first() else { return Ok(()) };
    let reasons: Vec<String> = found.iter().map(|gap| gap.reason.clone()).collect();
    sqlx::query!(
        "insert into grasp_gap (relay_id, family, item, items, since, until, reason)
         select r.id, $3, $4, $5, f.since, f.until, left(max(f.reason), 1000)
         from grasp_relay r, unnest($6::bigint[], $7::bigint[], $8::text[]) as f (since, until, reason)
         where r.id = $1 and r.lease_epoch = $2 and r.lease_until > now()
         group by r.id, f.since, f.until order by f.since, f.until
         on conflict (relay_id, family, item, since, until)
         do update set items = excluded.items, reason = excluded.reason, seen_at = now()",
        lease.relay,
        lease.epoch,
        family.as_str(),
        first,
        i32::try_from(items.len()).unwrap_or(i32::MAX),
        &column(found, |gap| gap.since),
        &column(found, |gap| gap.until),
        &reasons,
    )
    .execute(tx)
    .await?;
    Ok(())
}
