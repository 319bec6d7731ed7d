//! What deletions (kind 5) take back: roots, and repositories whose announcement is deleted.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Touched, ask, leave};
use crate::{
    grasp::{address::RepoAddress, family::Family},
    mirror::event::{EventId, column},
};

/// An accepted deletion.
#[derive(Debug)]
pub(in crate::grasp) struct Deletion {
    pub(in crate::grasp) service: Uuid,
    pub(in crate::grasp) author: [u8; 32],
    pub(in crate::grasp) at: i64,
    /// The events that it names.
    pub(in crate::grasp) ids: Vec<EventId>,
    /// The addresses that it names.
    pub(in crate::grasp) addresses: Vec<String>,
}

/// Applies deletions that the store has applied to its events.
pub(in crate::grasp) async fn delete(
    tx: &mut PgConnection,
    deletions: &[Deletion],
) -> Result<(), sqlx::Error> {
    if deletions.is_empty() {
        return Ok(());
    }
    let ids = deletions.iter().flat_map(|one| one.ids.iter().map(|id| (one.service, *id)));
    let ids: Vec<(Uuid, EventId)> = ids.collect();
    let mut gone = Touched::default();
    // First the items: their relays are those that the repositories still have.
    delete_roots(tx, &ids, &mut gone).await?;
    ask::take_back(tx, &gone).await?;
    let mut gone = Touched::default();
    let mut left = announced_by(tx, &ids).await?;
    left.extend(named_by(tx, deletions).await?);
    leave::forget_relays(tx, &left, &mut gone).await?;
    leave::leave_unreached(tx, left.into_iter(), &mut gone).await?;
    ask::take_back(tx, &gone).await
}

async fn delete_roots(
    tx: &mut PgConnection,
    ids: &[(Uuid, EventId)],
    gone: &mut Touched,
) -> Result<(), sqlx::Error> {
    let deleted = sqlx::query!(
        "delete from grasp_root o using unnest($1::uuid[], $2::bytea[]) n (service, id), event e
         where o.event_id = n.id and o.upstream_id = n.service and e.id = n.id and e.deleted_at is not null
         returning o.upstream_id, o.address, o.event_id",
        &column(ids, |(service, _)| *service),
        &column(ids, |(_, id)| id.0.to_vec()),
    )
    .fetch_all(tx)
    .await?;
    let items = deleted
        .into_iter()
        .map(|row| (row.upstream_id, row.address, Family::Root, hex::encode(row.event_id)));
    gone.items.extend(items);
    Ok(())
}

/// Lets the repositories leave whose newest announcement is one of the events, and is deleted.
async fn announced_by(
    tx: &mut PgConnection,
    ids: &[(Uuid, EventId)],
) -> Result<Vec<(Uuid, String)>, sqlx::Error> {
    let left = sqlx::query!(
        "update grasp_repo r set left_at = now(), relays_cut = 0, relays_over = 0, updated_at = now()
         from unnest($1::uuid[], $2::bytea[]) n (service, id), event e
         where e.id = n.id and e.kind = 30617 and e.deleted_at is not null and e.delete_reason = 'deleted'
           and r.upstream_id = n.service and r.left_at is null
           and r.address = '30617:' || encode(e.pubkey, 'hex') || ':' || e.d_tag
           and r.announcement_id = e.id
         returning r.upstream_id, r.address",
        &column(ids, |(service, _)| *service),
        &column(ids, |(_, id)| id.0.to_vec()),
    )
    .fetch_all(tx)
    .await?;
    Ok(left.into_iter().map(|row| (row.upstream_id, row.address)).collect())
}

/// Lets the repositories leave that a deletion of their author names by address.
async fn named_by(
    tx: &mut PgConnection,
    deletions: &[Deletion],
) -> Result<Vec<(Uuid, String)>, sqlx::Error> {
    let named = deletions.iter().flat_map(|one| {
        let of_author = |address: &&String| {
            RepoAddress::parse(address).is_some_and(|address| address.pubkey() == one.author)
        };
        one.addresses.iter().filter(of_author).map(|address| (one.service, address.clone(), one.at))
    });
    let named: Vec<(Uuid, String, i64)> = named.collect();
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let left = sqlx::query!(
        "update grasp_repo r set left_at = now(), relays_cut = 0, relays_over = 0, updated_at = now()
         from unnest($1::uuid[], $2::text[], $3::bigint[]) n (service, address, at)
         where r.upstream_id = n.service and r.address = n.address and r.left_at is null
           and r.announced_at <= n.at
         returning r.upstream_id, r.address",
        &column(&named, |named| named.0),
        &column(&named, |named| named.1.clone()),
        &column(&named, |named| named.2),
    )
    .fetch_all(tx)
    .await?;
    Ok(left.into_iter().map(|row| (row.upstream_id, row.address)).collect())
}
