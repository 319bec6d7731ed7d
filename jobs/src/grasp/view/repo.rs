//! Repositories with their coverage.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use super::{MOST, RelayState, anywhere, are_texts};

/// A repository of a service with its coverage over the relays that its announcement names.
#[derive(Debug, Clone, Serialize)]
pub struct RepoRow {
    /// The id of the service.
    pub service_id: Uuid,
    /// The address of the service's relay.
    pub service: String,
    /// `30617:<pubkey>:<identifier>`.
    pub address: String,
    /// The public key of the author, hex.
    pub pubkey: String,
    /// The identifier.
    pub identifier: String,
    /// The name in the announcement.
    pub name: Option<String>,
    /// The id of the newest announcement, hex.
    pub announcement_id: String,
    /// When it was signed, in Unix seconds.
    pub announced_at: i64,
    /// Relays that it names and that are followed for it.
    pub relays: i64,
    /// Relays that it names beyond the limit per announcement.
    pub relays_cut: i32,
    /// Relays that it names beyond the limit of the service.
    pub relays_over: i32,
    /// Issues, patches and pull requests.
    pub roots: i64,
    /// Authors whose deletions are asked for.
    pub authors: i64,
    /// Since when the announcement does not name the service any more.
    pub left_at: Option<DateTime<Utc>>,
    /// Items of all relays that are missing.
    pub missing: i64,
    /// Items that are being fetched.
    pub in_flight: i64,
    /// Items that were delivered.
    pub confirmed: i64,
    /// Since when the oldest item that is not confirmed is wanted.
    pub oldest_missing_at: Option<DateTime<Utc>>,
    /// When the repository was first seen.
    pub created_at: DateTime<Utc>,
}

impl RepoRow {
    /// Returns the number of items that are wanted for it, over all of its relays.
    pub fn items(&self) -> i64 {
        self.missing + self.in_flight + self.confirmed
    }

    /// Returns the mark of the page that ends with this repository; see [`RepoSearch::after`].
    pub fn mark(&self) -> String {
        format!("{}/{}", self.service_id, self.address)
    }
}

/// Which repositories are listed, in the order of services and addresses.
#[derive(Debug, Clone, Default)]
pub struct RepoSearch {
    /// Only those of this service.
    pub service: Option<Uuid>,
    /// Only those whose address or name contains this text.
    pub text: Option<String>,
    /// Only those with an item that is not confirmed.
    pub is_missing: bool,
    /// Only those after this service and address.
    pub after: Option<(Uuid, String)>,
}

impl RepoSearch {
    /// Returns the service and address in a mark; `None` if it is malformed.
    pub fn parse_mark(text: &str) -> Option<(Uuid, String)> {
        let (id, address) = text.split_once('/')?;
        Some((id.parse().ok()?, address.to_owned()))
    }
}

/// Returns at most `limit` repositories.
pub async fn repos(
    db: &PgPool,
    search: &RepoSearch,
    limit: i64,
) -> Result<Vec<RepoRow>, sqlx::Error> {
    select(db, search, None, limit).await
}

/// Returns the repository with this address, in each service that has it.
pub async fn repo(db: &PgPool, address: &str) -> Result<Vec<RepoRow>, sqlx::Error> {
    select(db, &RepoSearch::default(), Some(address), MOST).await
}

async fn select(
    db: &PgPool,
    search: &RepoSearch,
    address: Option<&str>,
    limit: i64,
) -> Result<Vec<RepoRow>, sqlx::Error> {
    let (after_service, after_address) = search.after.clone().unzip();
    if !are_texts([search.text.as_deref(), after_address.as_deref(), address]) {
        return Ok(Vec::new());
    }
    sqlx::query_as!(
        RepoRow,
        r#"with behind as materialized (
               select r.id, r.url from grasp_relay r where exists (
                   select from grasp_coverage_count k
                   where k.relay_id = r.id and k.state <> 'confirmed' and k.items > 0))
           select g.upstream_id as "service_id!", u.url as service, g.address as "address!",
                  encode(g.pubkey, 'hex') as "pubkey!", g.identifier as "identifier!", g.name,
                  encode(g.announcement_id, 'hex') as "announcement_id!", g.announced_at as "announced_at!",
                  (select count(*) from grasp_repo_relay n
                   where (n.upstream_id, n.address) = (g.upstream_id, g.address)) as "relays!",
                  g.relays_cut as "relays_cut!", g.relays_over as "relays_over!",
                  (select count(*) from grasp_root t
                   where (t.upstream_id, t.address) = (g.upstream_id, g.address)) as "roots!",
                  (select count(*) from grasp_author a
                   where (a.upstream_id, a.address) = (g.upstream_id, g.address)) as "authors!",
                  g.left_at, c.missing as "missing!", c.in_flight as "in_flight!", c.confirmed as "confirmed!",
                  c.oldest_missing_at, g.created_at as "created_at!"
           from (select g.* from grasp_service s join grasp_repo g on g.upstream_id = s.upstream_id
                 where s.removing_at is null and ($1::uuid is null or g.upstream_id = $1)
                   and ($2::text is null or g.address ilike $2 or g.name ilike $2)
                   and ($3::uuid is null or (g.upstream_id, g.address) > ($3, $4))
                   and ($5::text is null or g.address = $5)
                   -- An aggregate, because a search for what is not confirmed would begin with all of it.
                   and (not $6 or exists (
                       select from grasp_repo_relay n join behind b on b.url = n.url
                       where (n.upstream_id, n.address) = (g.upstream_id, g.address) and (
                           select bool_or(c.state <> 'confirmed') from grasp_repo_item i
                           join grasp_coverage c on (c.relay_id, c.family, c.item) = (b.id, i.family, i.item)
                           where (i.upstream_id, i.address) = (n.upstream_id, n.address))))
                 order by g.upstream_id, g.address limit $7) g
           join upstream u on u.id = g.upstream_id
           cross join lateral (
               select count(*) filter (where c.state = 'missing') as missing,
                      count(*) filter (where c.state = 'in_flight') as in_flight,
                      count(*) filter (where c.state = 'confirmed') as confirmed,
                      min(c.wanted_at) filter (where c.state <> 'confirmed') as oldest_missing_at
               from grasp_repo_relay n join grasp_relay r on r.url = n.url
               join grasp_repo_item i on (i.upstream_id, i.address) = (n.upstream_id, n.address)
               join grasp_coverage c on (c.relay_id, c.family, c.item) = (r.id, i.family, i.item)
               where (n.upstream_id, n.address) = (g.upstream_id, g.address)) c
           order by g.upstream_id, g.address"#,
        search.service,
        search.text.as_deref().map(anywhere),
        after_service,
        after_address,
        address,
        search.is_missing,
        limit.min(MOST),
    )
    .fetch_all(db)
    .await
}

/// A relay that a repository's announcement names, with its share of the repository's coverage.
#[derive(Debug, Clone, Serialize)]
pub struct RepoRelay {
    /// The id of the followed relay.
    pub relay_id: Uuid,
    /// Its address.
    pub url: String,
    /// How it is.
    pub state: RelayState,
    /// The last error of the relay, if it fails now.
    pub error: Option<String>,
    /// When its next attempt to connect is due, if it is not connected.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// Items of the repository that are missing.
    pub missing: i64,
    /// Items that are being fetched.
    pub in_flight: i64,
    /// Items that it has delivered.
    pub confirmed: i64,
    /// Since when the oldest item that is not confirmed is wanted.
    pub oldest_missing_at: Option<DateTime<Utc>>,
}

/// Returns the relays of a repository, in the order of their addresses; at most 100 follow from the limits.
pub async fn repo_relays(
    db: impl PgExecutor<'_>,
    service: Uuid,
    address: &str,
) -> Result<Vec<RepoRelay>, sqlx::Error> {
    sqlx::query_as!(
        RepoRelay,
        r#"select r.id as relay_id, r.url, grasp_relay_state(r) as "state!: RelayState",
                  case when r.failures > 0 then r.last_error end as error,
                  case when r.lease_until > now() then null else r.next_attempt_at end as next_attempt_at,
                  count(*) filter (where c.state = 'missing') as "missing!",
                  count(*) filter (where c.state = 'in_flight') as "in_flight!",
                  count(*) filter (where c.state = 'confirmed') as "confirmed!",
                  min(c.wanted_at) filter (where c.state <> 'confirmed') as oldest_missing_at
           from grasp_repo_relay n join grasp_relay r on r.url = n.url
           left join grasp_repo_item i on (i.upstream_id, i.address) = (n.upstream_id, n.address)
           left join grasp_coverage c on (c.relay_id, c.family, c.item) = (r.id, i.family, i.item)
           where n.upstream_id = $1 and n.address = $2
           group by r.id order by r.url limit 100"#,
        service,
        address,
    )
    .fetch_all(db)
    .await
}

/// An issue, patch or pull request of a repository.
#[derive(Debug, Clone, Serialize)]
pub struct RootRow {
    /// The id of the event, hex.
    pub event_id: String,
    /// Its kind.
    pub kind: i32,
    /// Its title: the tag `subject`; `None` if it has none.
    pub subject: Option<String>,
    /// When it was signed, in Unix seconds; `None` if it is not in the store.
    pub created_at: Option<i64>,
    /// Relays that have delivered what refers to it.
    pub confirmed: i64,
    /// Relays that have not.
    pub missing: i64,
}

/// Returns at most `limit` roots of a repository, the newest first.
pub async fn roots(
    db: impl PgExecutor<'_>,
    service: Uuid,
    address: &str,
    limit: i64,
) -> Result<Vec<RootRow>, sqlx::Error> {
    sqlx::query_as!(
        RootRow,
        r#"select encode(t.event_id, 'hex') as "event_id!", t.kind as "kind!", t.subject, t.created_at as "created_at?",
                  count(c.item) filter (where c.state = 'confirmed') as "confirmed!",
                  count(c.item) filter (where c.state <> 'confirmed') as "missing!"
           from (select t.event_id, t.kind, e.created_at, left((
                        select tag->>1 from jsonb_array_elements(e.tags) tag where tag->>0 = 'subject' limit 1), 200) as subject
                 from grasp_root t left join event e on e.id = t.event_id
                 where t.upstream_id = $1 and t.address = $2
                 order by e.created_at desc nulls last, t.event_id limit $3) t
           left join (grasp_repo_relay n join grasp_relay r on r.url = n.url)
               on n.upstream_id = $1 and n.address = $2
           left join grasp_coverage c
               on c.relay_id = r.id and c.family = 'root' and c.item = encode(t.event_id, 'hex')
           group by t.event_id, t.kind, t.subject, t.created_at
           order by t.created_at desc nulls last, t.event_id"#,
        service,
        address,
        limit,
    )
    .fetch_all(db)
    .await
}
