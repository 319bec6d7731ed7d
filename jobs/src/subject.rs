//! What jobs are about: the relay, upstream or service that a job names in its payload, and the jobs about those
//! that an operator searches for. The names of subjects are those of `job_subject` in the schema.

use std::collections::HashMap;

use serde::Serialize;
use sqlx::{PgExecutor, PgPool};

use crate::{provision::relay, queue::About};

/// The most relays, and the most upstreams, that one search finds.
pub const MOST: i64 = 200;

/// A thing that jobs are about, as it is now.
#[derive(Debug, Clone, Serialize)]
pub struct Subject {
    /// The name that jobs give it, such as `relay:<id>`.
    pub subject: String,
    /// The host of a relay, or the address of an upstream.
    pub name: String,
    /// The relay that we host.
    pub relay: Option<String>,
    /// The upstream: for a lane its own, for a service that of its relay.
    pub upstream: Option<String>,
    /// The mode of a lane.
    pub lane: Option<String>,
    /// The public key of a relay's tenant, in hex.
    pub tenant: Option<String>,
}

/// Returns the things that exist among these subjects, by the name that jobs give them.
///
/// # Errors
/// The database is unreachable or refuses the statement.
pub async fn named(
    db: impl PgExecutor<'_>,
    subjects: impl IntoIterator<Item = &str>,
) -> Result<HashMap<String, Subject>, sqlx::Error> {
    let subjects: Vec<String> = subjects.into_iter().map(str::to_owned).collect();
    let found = sqlx::query_as!(
        Subject,
        r#"with asked as materialized (
               select distinct split_part(subject, ':', 1) as type, split_part(subject, ':', 2) as id
               from unnest($1::text[]) subject
               where split_part(subject, ':', 2) ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
           )
           select 'relay:' || r.id as "subject!", subdomain || '.' || zooid_domain as "name!",
                  r.id::text as relay, null::text as upstream, null::text as lane, tenant_pubkey::text as tenant
           from asked join relay r on r.id = asked.id where type = 'relay'
           union all
           select 'lane:' || l.id, u.url, u.relay_id, u.id::text, l.lane, null
           from asked join lane l on l.id = asked.id::uuid join upstream u on u.id = l.upstream_id
           where type = 'lane'
           union all
           select type || ':' || u.id, u.url, u.relay_id, u.id::text, null, null
           from asked join upstream u on u.id = asked.id::uuid
           where type in ('upstream', 'service')"#,
        &subjects,
    )
    .fetch_all(db)
    .await?;
    Ok(found.into_iter().map(|subject| (subject.subject.clone(), subject)).collect())
}

/// The jobs about what a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Selects the jobs.
    pub about: About,
    /// Whether more than [`MOST`] relays or upstreams match, of which the first are searched.
    pub is_cut: bool,
}

/// Finds what jobs are about: relays whose host begins with `host`, and upstreams whose address contains it; with
/// a tenant, a public key in hex, only relays of this tenant whose host contains it. An empty text matches all.
///
/// # Errors
/// The database is unreachable or refuses a statement.
pub async fn find(db: &PgPool, host: &str, tenant: &str) -> Result<Found, sqlx::Error> {
    let (host, tenant) = (host.to_lowercase(), tenant.to_lowercase());
    let relays = if tenant.is_empty() {
        relay::starting_with(db, &host, MOST + 1).await?
    } else {
        relays_of_tenant(db, &tenant, &host).await?
    };
    let upstreams = if tenant.is_empty() { upstreams(db, &host).await? } else { Vec::new() };
    let most = usize::try_from(MOST).unwrap_or(usize::MAX);
    let is_cut = relays.len() > most || upstreams.len() > most;
    let mut about = About::default();
    for relay in relays.into_iter().take(most) {
        about.add(format!("relay:{relay}"), [format!("relay:{relay}")]);
    }
    let upstreams: Vec<String> = upstreams.into_iter().take(most).collect();
    for lane in lanes(db, &upstreams).await? {
        about.add(format!("lane:{lane}"), [format!("lane:{lane}")]);
    }
    for id in upstreams {
        let keys = ["release", "scan", "remove"].map(|work| format!("grasp-{work}:{id}"));
        about.add(format!("service:{id}"), keys);
        about.add(format!("upstream:{id}"), [format!("remove:{id}")]);
    }
    Ok(Found { about, is_cut })
}

impl About {
    fn add(&mut self, subject: String, keys: impl IntoIterator<Item = String>) {
        self.subjects.push(subject);
        self.keys.extend(keys);
    }
}

async fn relays_of_tenant(
    db: &PgPool,
    tenant: &str,
    host: &str,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select id as "id!: String" from relay
           where tenant_pubkey::text = $1 and strpos(subdomain || '.' || zooid_domain, $2) > 0
           order by created_at desc, id desc limit $3"#,
        tenant,
        host,
        MOST + 1,
    )
    .fetch_all(db)
    .await
}

async fn upstreams(db: &PgPool, host: &str) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select id::text as "id!" from upstream where strpos(url, $1) > 0 order by url limit $2"#,
        host,
        MOST + 1,
    )
    .fetch_all(db)
    .await
}

async fn lanes(db: &PgPool, upstreams: &[String]) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select id::text as "id!" from lane where upstream_id = any($1::text[]::uuid[]) order by id"#,
        upstreams,
    )
    .fetch_all(db)
    .await
}
