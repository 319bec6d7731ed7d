//! The limits of relays: those of one announcement, and those of a service in total. A service has room for
//! the relays that it found first.

use std::collections::{BTreeSet, HashMap, HashSet, hash_map::Entry};

use sqlx::PgConnection;
use uuid::Uuid;

use super::Announced;
use crate::mirror::event::column;

/// An announcement, and the relays that are followed for it.
pub(super) struct Chosen {
    pub(super) announced: Announced,
    pub(super) urls: Vec<String>,
    /// Relays beyond the limit per announcement.
    pub(super) cut: i32,
    /// Relays beyond the limit of the service.
    pub(super) over: i32,
}

/// Chooses the relays of each announcement within the limits: the first ones that it names. A relay that
/// the service follows already is within its limit.
pub(super) async fn chosen(
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
           where (select true from grasp_repo_relay w
                  where w.upstream_id = n.service and w.url = n.url limit 1)"#,
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

/// Drops the relays of a service beyond its limit, those that were found last first. They count as relays
/// over the limit, and are taken again when there is room. Their coverage is compared by the next
/// reconciliation.
pub(in crate::grasp) async fn shrink(
    tx: &mut PgConnection,
    service: Uuid,
) -> Result<(), sqlx::Error> {
    let dropped = sqlx::query_scalar!(
        r#"with over as materialized (
               select g.url from grasp_relay g
               where g.url in (select url from grasp_repo_relay where upstream_id = $1)
               order by g.created_at, g.url
               offset (select max_relays from grasp_service where upstream_id = $1)
           ), dropped as (
               delete from grasp_repo_relay w using over
               where w.upstream_id = $1 and w.url = over.url returning w.address
           ), counted as (
               update grasp_repo r set relays_over = r.relays_over + n.relays, updated_at = now()
               from (select address, count(*)::int as relays from dropped group by 1) n
               where r.upstream_id = $1 and r.address = n.address
           )
           select url from over"#,
        service,
    );
    let dropped = dropped.fetch_all(&mut *tx).await?;
    sqlx::query!(
        "with dropped as (select id from grasp_relay where url = any($1) order by id for no key update)
         update grasp_relay r set reconciled_at = null, comparing_since = null from dropped where r.id = dropped.id",
        &dropped,
    )
    .execute(tx)
    .await?;
    Ok(())
}
