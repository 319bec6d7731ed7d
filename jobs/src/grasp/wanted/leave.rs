//! Repositories that leave: their newest announcement does not name the service any more, or no
//! announcement lists their author any more that leads to the service.

use std::collections::{BTreeSet, HashSet};

use sqlx::PgConnection;
use uuid::Uuid;

use super::Touched;
use crate::{
    grasp::address::RepoAddress,
    mirror::event::{EventId, column},
};

/// Marks repositories whose newest announcement does not name the service any more. Their relays are
/// not followed for them; what else is known of them is kept.
pub(super) async fn leave(
    tx: &mut PgConnection,
    leaving: &[(Uuid, String, i64, EventId)],
    gone: &mut Touched,
) -> Result<(), sqlx::Error> {
    if leaving.is_empty() {
        return Ok(());
    }
    let left = sqlx::query!(
        "update grasp_repo r
         set left_at = now(), announced_at = n.at, announcement_id = n.id, relays_cut = 0, relays_over = 0,
             updated_at = now()
         from unnest($1::uuid[], $2::text[], $3::bigint[], $4::bytea[]) n (upstream_id, address, at, id)
         where r.upstream_id = n.upstream_id and r.address = n.address and r.left_at is null
           and (n.at > r.announced_at or (n.at = r.announced_at and n.id <= r.announcement_id))
         returning r.upstream_id, r.address",
        &column(leaving, |one| one.0),
        &column(leaving, |one| one.1.clone()),
        &column(leaving, |one| one.2),
        &column(leaving, |one| one.3.0.to_vec()),
    )
    .fetch_all(&mut *tx)
    .await?;
    let left: Vec<(Uuid, String)> =
        left.into_iter().map(|row| (row.upstream_id, row.address)).collect();
    forget_relays(tx, &left, gone).await
}

/// Returns those of some repositories that have left.
pub(in crate::grasp) async fn left(
    tx: &mut PgConnection,
    repos: &[(Uuid, String)],
) -> Result<HashSet<(Uuid, String)>, sqlx::Error> {
    if repos.is_empty() {
        return Ok(HashSet::new());
    }
    let left = sqlx::query!(
        "select n.service as \"service!\", n.address as \"address!\"
         from unnest($1::uuid[], $2::text[]) n (service, address)
         cross join lateral (
             select left_at from grasp_repo
             where upstream_id = n.service and address = n.address offset 0) r
         where r.left_at is not null",
        &column(repos, |repo| repo.0),
        &column(repos, |repo| repo.1.clone()),
    )
    .fetch_all(tx)
    .await?;
    Ok(left.into_iter().map(|row| (row.service, row.address)).collect())
}

/// Deletes all relays of some repositories.
pub(super) async fn forget_relays(
    tx: &mut PgConnection,
    repos: &[(Uuid, String)],
    gone: &mut Touched,
) -> Result<(), sqlx::Error> {
    if repos.is_empty() {
        return Ok(());
    }
    let deleted = sqlx::query!(
        "delete from grasp_repo_relay w using unnest($1::uuid[], $2::text[]) n (upstream_id, address)
         where w.upstream_id = n.upstream_id and w.address = n.address
         returning w.upstream_id, w.address, w.url",
        &column(repos, |repo| repo.0),
        &column(repos, |repo| repo.1.clone()),
    )
    .fetch_all(tx)
    .await?;
    gone.relays.extend(deleted.into_iter().map(|row| (row.upstream_id, row.address, row.url)));
    Ok(())
}

/// Lets repositories leave that were accepted because of a maintainer's list, and whose author no
/// announcement lists any more that leads to the service. `changed` are the services and addresses of
/// announcements that came or went.
pub(super) async fn leave_unreached(
    tx: &mut PgConnection,
    changed: impl Iterator<Item = (Uuid, String)>,
    gone: &mut Touched,
) -> Result<(), sqlx::Error> {
    let identifier = |(service, address): (Uuid, String)| {
        Some((service, RepoAddress::parse(&address)?.identifier().to_owned()))
    };
    let changed: BTreeSet<(Uuid, String)> = changed.filter_map(identifier).collect();
    let changed: Vec<(Uuid, String)> = changed.into_iter().collect();
    if changed.is_empty() {
        return Ok(());
    }
    let left = mark_unreached(tx, &changed).await?;
    forget_relays(tx, &left, gone).await
}

async fn mark_unreached(
    tx: &mut PgConnection,
    changed: &[(Uuid, String)],
) -> Result<Vec<(Uuid, String)>, sqlx::Error> {
    let left = sqlx::query!(
        "with recursive asked as materialized (
             select n.* from unnest($1::uuid[], $2::text[]) n (service, identifier)
             where (select true
                    from (select * from grasp_repo where identifier = n.identifier offset 0) r
                    where r.upstream_id = n.service and r.by_maintainer and r.left_at is null limit 1)
         ), reached (service, identifier, pubkey) as (
             select n.service, n.identifier, key
             from asked n
             cross join lateral (
                 select * from grasp_repo where identifier = n.identifier offset 0) r
             cross join unnest(r.maintainers || r.pubkey) key
             where r.upstream_id = n.service and r.left_at is null and not r.by_maintainer
             union
             select f.service, f.identifier, key
             from reached f
             cross join lateral (
                 select * from grasp_repo
                 where upstream_id = f.service
                   and address = '30617:' || encode(f.pubkey, 'hex') || ':' || f.identifier offset 0) r
             cross join unnest(r.maintainers) key
             where r.left_at is null
         ), unreached as materialized (
             select n.service, r.address
             from asked n
             cross join lateral (
                 select * from grasp_repo where identifier = n.identifier offset 0) r
             where r.upstream_id = n.service and r.by_maintainer and r.left_at is null
               and not exists (select from reached f where f.service = n.service
                               and f.identifier = n.identifier and f.pubkey = r.pubkey)
         )
         update grasp_repo r
         set left_at = now(), relays_cut = 0, relays_over = 0, updated_at = now()
         from unreached n
         where r.upstream_id = n.service and r.address = n.address
         returning r.upstream_id, r.address",
        &column(changed, |(service, _)| *service),
        &column(changed, |(_, identifier)| identifier.clone()),
    )
    .fetch_all(tx)
    .await?;
    Ok(left.into_iter().map(|row| (row.upstream_id, row.address)).collect())
}
