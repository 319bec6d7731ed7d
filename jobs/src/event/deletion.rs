//! Deletions (NIP-09): a kind-5 event deletes its author's events by id (`e`) and every version of its
//! author's keys up to its own time (`a`), whether they are here yet or not. Deletions themselves
//! cannot be deleted.

use sqlx::{PgConnection, PgPool};

use super::{
    Event, EventId, outgoing,
    store::{LOCK, column},
};

/// Writes the marks of deletions and deletes what is here. The caller holds the store's lock alone.
pub(super) async fn apply(tx: &mut PgConnection, deletions: &[&Event]) -> Result<(), sqlx::Error> {
    let mut ids: Vec<(EventId, [u8; 32])> =
        deletions.iter().flat_map(|event| targets(event).map(|id| (id, event.pubkey))).collect();
    ids.sort_unstable();
    ids.dedup();
    sqlx::query!(
        "with marks as (
             insert into deletion_mark (target, author)
             select * from unnest($1::bytea[], $2::bytea[]) on conflict do nothing
         )
         update event set deleted_at = now(), delete_reason = 'deleted'
         from unnest($1::bytea[], $2::bytea[]) as mark (target, author)
         where event.id = mark.target and event.pubkey = mark.author
           and event.kind <> 5 and event.deleted_at is null",
        &column(&ids, |(id, _)| id.0.to_vec()),
        &column(&ids, |(_, author)| author.to_vec()),
    )
    .execute(&mut *tx)
    .await?;
    apply_addresses(tx, deletions).await
}

async fn apply_addresses(tx: &mut PgConnection, deletions: &[&Event]) -> Result<(), sqlx::Error> {
    let mut keys: Vec<(&[u8; 32], u16, &str, i64)> = deletions
        .iter()
        .flat_map(|event| {
            addresses(event).map(|(kind, d_tag)| (&event.pubkey, kind, d_tag, event.created_at))
        })
        .collect();
    // The latest of each key, since one statement cannot touch a row twice.
    keys.sort_unstable_by_key(|(author, kind, d_tag, at)| (*author, *kind, *d_tag, -at));
    keys.dedup_by_key(|(author, kind, d_tag, _)| (*author, *kind, *d_tag));
    sqlx::query!(
        "with marks as (
             insert into deletion_address as mark (author, kind, d_tag, up_to)
             select * from unnest($1::bytea[], $2::int[], $3::text[], $4::bigint[])
             on conflict (author, kind, d_tag)
             do update set up_to = greatest(mark.up_to, excluded.up_to)
         )
         update event set deleted_at = now(), delete_reason = 'deleted'
         from unnest($1::bytea[], $2::int[], $3::text[], $4::bigint[])
             as mark (author, kind, d_tag, up_to)
         where event.pubkey = mark.author and event.kind = mark.kind and event.d_tag = mark.d_tag
           and event.created_at <= mark.up_to and event.deleted_at is null",
        &column(&keys, |key| key.0.to_vec()),
        &column(&keys, |key| i32::from(key.1)),
        &column(&keys, |key| key.2.to_owned()),
        &column(&keys, |key| key.3),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Applies a stored deletion once more: harmless, and a cure where somebody touched rows by hand. False
/// when there is no such deletion.
///
/// # Errors
/// The database did not answer.
pub async fn reapply(db: &PgPool, id: EventId) -> Result<bool, sqlx::Error> {
    let mut tx = db.begin().await?;
    sqlx::query!("select pg_advisory_xact_lock($1)", LOCK).execute(&mut *tx).await?;
    let found = outgoing::by_ids(&mut *tx, &[id]).await?;
    let Some(event) = found.first().filter(|event| event.is_deletion()) else { return Ok(false) };
    apply(&mut tx, &[event]).await?;
    tx.commit().await?;
    Ok(true)
}

/// The ids that it deletes; malformed ones are passed over.
fn targets(event: &Event) -> impl Iterator<Item = EventId> + '_ {
    let values = event.tags.iter().filter(|tag| tag[0] == "e").filter_map(|tag| tag.get(1));
    values.filter_map(|value| EventId::parse(value))
}

/// The keys that it deletes, `kind:author:d` with its own author; malformed ones are passed over.
fn addresses(event: &Event) -> impl Iterator<Item = (u16, &str)> {
    let author = hex::encode(event.pubkey);
    let values = event.tags.iter().filter(|tag| tag[0] == "a").filter_map(|tag| tag.get(1));
    values.filter_map(move |value| {
        let mut parts = value.splitn(3, ':');
        let kind: u16 = parts.next()?.parse().ok()?;
        let is_own = parts.next()? == author;
        let d_tag = parts.next()?;
        (is_own && kind != 5 && !d_tag.contains('\0')).then_some((kind, d_tag))
    })
}
