//! Deletions (NIP-09). A kind-5 event deletes events of its author: by id (`e`), and every version
//! of a key up to its own time (`a`). Both also apply to events that arrive later. Deletions cannot
//! be deleted.

use std::borrow::Cow;

use sqlx::{PgConnection, PgPool};

use super::{
    Event, EventId, MAX_D_TAG, exact, outgoing,
    store::{LOCK, column},
};

/// Stores the marks of deletions and deletes the events that they cover. The caller holds the
/// store's lock exclusively.
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
    let mut keys: Vec<(&[u8; 32], u16, Cow<'_, str>, i64)> = deletions
        .iter()
        .flat_map(|event| {
            let (author, at) = (&event.pubkey, event.created_at);
            addresses(event).map(move |(kind, d_tag)| (author, kind, exact::key(d_tag), at))
        })
        .collect();
    // One statement cannot update a row twice, so only the latest deletion of each key is kept.
    keys.sort_unstable_by(|a, b| (a.0, a.1, &a.2, b.3).cmp(&(b.0, b.1, &b.2, a.3)));
    keys.dedup_by(|a, b| (a.0, a.1, &a.2) == (b.0, b.1, &b.2));
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
        &column(&keys, |key| key.2.clone().into_owned()),
        &column(&keys, |key| key.3),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Applies a stored deletion again, which is harmless and repairs rows that were changed by hand.
/// Returns false if no deletion with this id is stored.
pub async fn reapply(db: &PgPool, id: EventId) -> Result<bool, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    sqlx::query!("select pg_advisory_xact_lock($1)", LOCK).execute(&mut *tx).await?;
    let found = outgoing::by_ids(&mut *tx, &[id]).await?;
    let Some(event) = found.first().filter(|event| event.is_deletion()) else { return Ok(false) };
    apply(&mut tx, &[event]).await?;
    tx.commit().await?;
    Ok(true)
}

/// Returns the ids that a deletion names; malformed ones are skipped.
fn targets(event: &Event) -> impl Iterator<Item = EventId> + '_ {
    let values = event.tags.iter().filter(|tag| tag[0] == "e").filter_map(|tag| tag.get(1));
    values.filter_map(|value| EventId::parse(value))
}

/// Returns the kinds and `d` tags of the keys, `kind:author:d`, that a deletion names. Malformed
/// keys, keys of other authors, and `d` tags that are too long for any stored event are skipped.
fn addresses(event: &Event) -> impl Iterator<Item = (u16, &str)> {
    let author = hex::encode(event.pubkey);
    let values = event.tags.iter().filter(|tag| tag[0] == "a").filter_map(|tag| tag.get(1));
    values.filter_map(move |value| {
        let mut parts = value.splitn(3, ':');
        let kind: u16 = parts.next()?.parse().ok()?;
        let is_own = parts.next()? == author;
        let d_tag = parts.next()?;
        (is_own && kind != 5 && d_tag.len() <= MAX_D_TAG).then_some((kind, d_tag))
    })
}
