//! What a service wants of a repository that is new to it, among the events that it has accepted.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::mirror::event::column;

/// Finds the roots of repositories that a service wants from now on, among its accepted events.
pub(super) async fn find_roots(
    tx: &mut PgConnection,
    repos: &[(Uuid, String)],
) -> Result<(), sqlx::Error> {
    if repos.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into grasp_root (upstream_id, address, event_id, kind)
         select distinct n.upstream_id, n.address, e.id, e.kind
         from unnest($1::uuid[], $2::text[]) n (upstream_id, address)
         cross join lateral events_tagged(array['a', 'A', 'q'], array[n.address]) e
         where e.kind in (1617, 1618, 1621) and e.deleted_at is null
           and (select true from admission a
                where a.upstream_id = n.upstream_id and a.event_id = e.id limit 1)
         on conflict do nothing",
        &column(repos, |repo| repo.0),
        &column(repos, |repo| repo.1.clone()),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Finds the authors of repositories that a service wants from now on, among its accepted events.
pub(super) async fn find_authors(
    tx: &mut PgConnection,
    repos: &[(Uuid, String)],
) -> Result<(), sqlx::Error> {
    if repos.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into grasp_author (upstream_id, address, pubkey)
         select distinct n.upstream_id, n.address, e.pubkey
         from unnest($1::uuid[], $2::text[]) n (upstream_id, address)
         cross join lateral (
             select a.event_id from admission a
             where a.upstream_id = n.upstream_id and a.address = n.address offset 0) a
         cross join lateral (select e.pubkey from event e where e.id = a.event_id offset 0) e
         union
         select n.upstream_id, n.address, e.pubkey
         from unnest($1::uuid[], $2::text[]) n (upstream_id, address)
         cross join lateral (
             select o.event_id from grasp_root o
             where o.upstream_id = n.upstream_id and o.address = n.address offset 0) o
         cross join lateral events_tagged(array['e', 'E', 'q'], array[encode(o.event_id, 'hex')]) e
         where e.deleted_at is null
           and (select true from admission a
                where a.upstream_id = n.upstream_id and a.event_id = e.id
                  and a.rule not in ('deletion', 'grasp-list') limit 1)
         on conflict do nothing",
        &column(repos, |repo| repo.0),
        &column(repos, |repo| repo.1.clone()),
    )
    .execute(tx)
    .await?;
    Ok(())
}
