//! Announcements: the newest one of a repository decides on its relays.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Touched,
    find::{find_authors, find_roots},
    relays,
    rooms::{Chosen, chosen},
};
use crate::{
    grasp::address::RepoAddress,
    mirror::event::{EventId, column, rows_of},
};

/// An accepted announcement.
#[derive(Debug, Clone)]
pub(in crate::grasp) struct Announced {
    pub(in crate::grasp) service: Uuid,
    pub(in crate::grasp) address: RepoAddress,
    pub(in crate::grasp) id: EventId,
    pub(in crate::grasp) at: i64,
    pub(in crate::grasp) name: Option<String>,
    pub(in crate::grasp) maintainers: Vec<[u8; 32]>,
    pub(in crate::grasp) by_maintainer: bool,
    /// The relays that it names, without the service's own.
    pub(in crate::grasp) targets: Vec<String>,
    pub(in crate::grasp) max_relays_per_announcement: usize,
    pub(in crate::grasp) max_relays: i64,
}

impl Announced {
    pub(super) fn key(&self) -> (Uuid, String) {
        (self.service, self.address.to_string())
    }

    /// Whether it is newer than another one of the same repository.
    fn beats(&self, other: &Self) -> bool {
        (self.at, other.id) > (other.at, self.id)
    }
}

/// Writes the repositories of announcements, unless a newer one is known, and replaces their relays.
pub(super) async fn announce(
    tx: &mut PgConnection,
    announced: Vec<Announced>,
    came: &mut Touched,
    gone: &mut Touched,
) -> Result<(), sqlx::Error> {
    let announced = newest(announced);
    if announced.is_empty() {
        return Ok(());
    }
    let mut repos = chosen(tx, announced).await?;
    let written = write(tx, &repos).await?;
    repos.retain(|repo| written.contains_key(&repo.announced.key()));
    replace_relays(tx, &repos, came, gone).await?;
    let is_new = |repo: &&Chosen| written.get(&repo.announced.key()) == Some(&true);
    let new: Vec<(Uuid, String)> =
        repos.iter().filter(is_new).map(|repo| repo.announced.key()).collect();
    find_roots(tx, &new).await?;
    find_authors(tx, &new).await
}

/// Returns the newest announcement of each repository.
fn newest(announced: Vec<Announced>) -> Vec<Announced> {
    let mut newest: BTreeMap<(Uuid, String), Announced> = BTreeMap::new();
    for one in announced {
        match newest.get(&one.key()) {
            Some(other) if !one.beats(other) => {}
            _ => {
                newest.insert(one.key(), one);
            }
        }
    }
    newest.into_values().collect()
}

/// Writes the repositories, except for those of which a newer announcement is known. Returns those that
/// were written, and whether the service did not have them before.
async fn write(
    tx: &mut PgConnection,
    repos: &[Chosen],
) -> Result<HashMap<(Uuid, String), bool>, sqlx::Error> {
    let of = |repo: &Chosen| repo.announced.address.clone();
    let rows = sqlx::query!(
        r#"with given as (
               select * from unnest($1::uuid[], $2::text[], $3::bytea[], $4::text[], $5::bytea[],
                                    $6::bigint[], $7::text[], $8::jsonb[], $9::bool[], $10::int[], $11::int[])
                   as n (upstream_id, address, pubkey, identifier, announcement_id, announced_at, name,
                         maintainers, by_maintainer, relays_cut, relays_over)
           ), before as (
               select r.upstream_id, r.address, r.left_at
               from given n
               cross join lateral (
                   select * from grasp_repo r
                   where r.upstream_id = n.upstream_id and r.address = n.address offset 0) r
           ), written as (
               insert into grasp_repo as r (upstream_id, address, pubkey, identifier, announcement_id, announced_at,
                                            name, maintainers, by_maintainer, relays_cut, relays_over)
               select upstream_id, address, pubkey, identifier, announcement_id, announced_at, name,
                      array(select decode(key, 'hex') from jsonb_array_elements_text(maintainers) key),
                      by_maintainer, relays_cut, relays_over
               from given order by 1, 2
               on conflict (upstream_id, address) do update set
                   announcement_id = excluded.announcement_id, announced_at = excluded.announced_at,
                   name = excluded.name, maintainers = excluded.maintainers,
                   by_maintainer = excluded.by_maintainer, relays_cut = excluded.relays_cut,
                   relays_over = excluded.relays_over, left_at = null, updated_at = now()
                   where excluded.announced_at > r.announced_at
                      or (excluded.announced_at = r.announced_at and excluded.announcement_id <= r.announcement_id)
               returning upstream_id, address
           )
           select w.upstream_id as "upstream_id!", w.address as "address!",
                  before.address is null or before.left_at is not null as "is_new!"
           from written w left join before
               on before.upstream_id = w.upstream_id and before.address = w.address"#,
        &column(repos, |repo| repo.announced.service),
        &column(repos, |repo| of(repo).to_string()),
        &column(repos, |repo| of(repo).pubkey().to_vec()),
        &column(repos, |repo| of(repo).identifier().to_owned()),
        &rows_of(repos.iter().map(|repo| &repo.announced.id)),
        &column(repos, |repo| repo.announced.at),
        &column(repos, |repo| repo.announced.name.clone()) as &[Option<String>],
        &column(repos, |repo| {
            repo.announced.maintainers.iter().map(hex::encode).collect::<serde_json::Value>()
        }),
        &column(repos, |repo| repo.announced.by_maintainer),
        &column(repos, |repo| repo.cut),
        &column(repos, |repo| repo.over),
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| ((row.upstream_id, row.address), row.is_new)).collect())
}

/// Makes the relays of the repositories those of their announcements.
async fn replace_relays(
    tx: &mut PgConnection,
    repos: &[Chosen],
    came: &mut Touched,
    gone: &mut Touched,
) -> Result<(), sqlx::Error> {
    let keys: Vec<(Uuid, String)> = repos.iter().map(|repo| repo.announced.key()).collect();
    let named = repos.iter().zip(&keys).flat_map(|(repo, (service, address))| {
        repo.urls.iter().map(|url| (*service, address.clone(), url.clone()))
    });
    let named: Vec<(Uuid, String, String)> = named.collect();
    let urls: BTreeSet<String> = named.iter().map(|(.., url)| url.clone()).collect();
    relays::ensure(tx, &urls.into_iter().collect::<Vec<_>>()).await?;
    let deleted = sqlx::query!(
        "delete from grasp_repo_relay w using unnest($1::uuid[], $2::text[]) n (upstream_id, address)
         where w.upstream_id = n.upstream_id and w.address = n.address
           and not exists (
               select from unnest($3::uuid[], $4::text[], $5::text[]) k (upstream_id, address, url)
               where k.upstream_id = w.upstream_id and k.address = w.address and k.url = w.url)
         returning w.upstream_id, w.address, w.url",
        &column(&keys, |key| key.0),
        &column(&keys, |key| key.1.clone()),
        &column(&named, |named| named.0),
        &column(&named, |named| named.1.clone()),
        &column(&named, |named| named.2.clone()),
    )
    .fetch_all(&mut *tx)
    .await?;
    gone.relays.extend(deleted.into_iter().map(|row| (row.upstream_id, row.address, row.url)));
    let added = sqlx::query!(
        "insert into grasp_repo_relay (upstream_id, address, url)
         select * from unnest($1::uuid[], $2::text[], $3::text[]) order by 1, 2, 3
         on conflict do nothing
         returning upstream_id, address, url",
        &column(&named, |named| named.0),
        &column(&named, |named| named.1.clone()),
        &column(&named, |named| named.2.clone()),
    )
    .fetch_all(tx)
    .await?;
    came.relays.extend(added.into_iter().map(|row| (row.upstream_id, row.address, row.url)));
    Ok(())
}
