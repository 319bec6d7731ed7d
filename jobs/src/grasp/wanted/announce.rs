//! Announcements: the newest one of a repository decides on its relays.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, hash_map::Entry};

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Touched, relays};
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

/// An announcement, and the relays that are followed for it.
struct Chosen {
    announced: Announced,
    urls: Vec<String>,
    /// Relays beyond the limit per announcement.
    cut: i32,
    /// Relays beyond the limit of the service.
    over: i32,
}

/// Chooses the relays of each announcement within the limits: the first ones that it names. A relay that
/// the service follows already is within its limit.
async fn chosen(
    tx: &mut PgConnection,
    announced: Vec<Announced>,
) -> Result<Vec<Chosen>, sqlx::Error> {
    let mut rooms = Rooms { followed: followed(tx, &announced).await?, free: HashMap::new() };
    let mut chosen = Vec::new();
    for one in announced {
        let limit = one.max_relays_per_announcement.min(one.targets.len());
        let cut = i32::try_from(one.targets.len() - limit).unwrap_or(i32::MAX);
        let (mut urls, mut over) = (Vec::new(), 0);
        for url in &one.targets[..limit] {
            if rooms.take(tx, &one, url).await? {
                urls.push(url.clone());
            } else {
                over += 1;
            }
        }
        chosen.push(Chosen { announced: one, urls, cut, over });
    }
    Ok(chosen)
}

/// The relays that the services follow, and how many more they may.
struct Rooms {
    followed: HashSet<(Uuid, String)>,
    free: HashMap<Uuid, i64>,
}

impl Rooms {
    /// Returns whether the service of an announcement may follow a relay.
    async fn take(
        &mut self,
        tx: &mut PgConnection,
        of: &Announced,
        url: &str,
    ) -> Result<bool, sqlx::Error> {
        let key = (of.service, url.to_owned());
        if self.followed.contains(&key) {
            return Ok(true);
        }
        let free = match self.free.entry(of.service) {
            Entry::Occupied(free) => free.into_mut(),
            Entry::Vacant(free) => free.insert(of.max_relays - count(tx, of.service).await?),
        };
        if *free <= 0 {
            return Ok(false);
        }
        *free -= 1;
        self.followed.insert(key);
        Ok(true)
    }
}

/// Returns which of the announced relays the services follow already.
async fn followed(
    tx: &mut PgConnection,
    announced: &[Announced],
) -> Result<HashSet<(Uuid, String)>, sqlx::Error> {
    let named = announced.iter().flat_map(|one| one.targets.iter().map(|url| (one.service, url)));
    let named: BTreeSet<(Uuid, &String)> = named.collect();
    let named: Vec<(Uuid, &String)> = named.into_iter().collect();
    let rows = sqlx::query!(
        r#"select n.service as "service!", n.url as "url!"
           from unnest($1::uuid[], $2::text[]) n (service, url)
           where exists (select from grasp_repo_relay w where w.upstream_id = n.service and w.url = n.url)"#,
        &column(&named, |(service, _)| *service),
        &column(&named, |(_, url)| (*url).clone()),
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.service, row.url)).collect())
}

/// Counts the relays that a service follows, with one index lookup for each.
async fn count(tx: &mut PgConnection, service: Uuid) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"with recursive followed (url) as (
               (select url from grasp_repo_relay where upstream_id = $1 order by url limit 1)
               union all
               select (select w.url from grasp_repo_relay w
                       where w.upstream_id = $1 and w.url > followed.url order by w.url limit 1)
               from followed where followed.url is not null
           )
           select count(url) as "count!" from followed"#,
        service,
    )
    .fetch_one(tx)
    .await
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
               from given n join grasp_repo r on r.upstream_id = n.upstream_id and r.address = n.address
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
           select w.upstream_id, w.address, before.address is null or before.left_at is not null as "is_new!"
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

/// Finds the roots of repositories that a service wants from now on, among its accepted events.
async fn find_roots(tx: &mut PgConnection, repos: &[(Uuid, String)]) -> Result<(), sqlx::Error> {
    if repos.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into grasp_root (upstream_id, address, event_id, kind)
         select distinct n.upstream_id, n.address, e.id, e.kind
         from unnest($1::uuid[], $2::text[]) n (upstream_id, address)
         join event_tag t on t.name in ('a', 'A', 'q') and t.value = n.address
         join event e on e.position = t.position and e.kind in (1617, 1618, 1621) and e.deleted_at is null
         join admission a on a.upstream_id = n.upstream_id and a.event_id = e.id
         on conflict do nothing",
        &column(repos, |repo| repo.0),
        &column(repos, |repo| repo.1.clone()),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Finds the authors of repositories that a service wants from now on, among its accepted events.
async fn find_authors(tx: &mut PgConnection, repos: &[(Uuid, String)]) -> Result<(), sqlx::Error> {
    if repos.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into grasp_author (upstream_id, address, pubkey)
         select distinct n.upstream_id, n.address, e.pubkey
         from unnest($1::uuid[], $2::text[]) n (upstream_id, address)
         join admission a on a.upstream_id = n.upstream_id and a.address = n.address
         join event e on e.id = a.event_id
         union
         select n.upstream_id, n.address, e.pubkey
         from unnest($1::uuid[], $2::text[]) n (upstream_id, address)
         join grasp_root o on o.upstream_id = n.upstream_id and o.address = n.address
         join event_tag t on t.name in ('e', 'E', 'q') and t.value = encode(o.event_id, 'hex')
         join event e on e.position = t.position and e.deleted_at is null
         join admission a on a.upstream_id = n.upstream_id and a.event_id = e.id
             and a.rule not in ('deletion', 'grasp-list')
         on conflict do nothing",
        &column(repos, |repo| repo.0),
        &column(repos, |repo| repo.1.clone()),
    )
    .execute(tx)
    .await?;
    Ok(())
}
