//! Adding and changing services.

use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{Service, ServiceError, check::Check, find};
use crate::{
    console::operator,
    grasp::{address::host_of, admission, wanted, work::Work},
    mirror::{self, contended, lane::LaneKind, upstream::Direction},
    queue,
};

/// The fields of a new service. `None` means the default.
#[derive(Debug, Clone, Default)]
pub struct NewService {
    /// The address of its relay; it is normalised on write.
    pub url: String,
    /// The hosts by which announcements mean it. Empty: the host of the relay.
    pub names: Vec<String>,
    /// The relays that it starts from.
    pub bootstrap: Vec<String>,
    /// The operator's rules; see [`Policy`](crate::grasp::policy::Policy).
    pub policy: Option<Value>,
    /// The relays that are followed for one announcement, from 1 to 100; 20 by default.
    pub max_relays_per_announcement: Option<i32>,
    /// The relays that are followed in total, from 1 to 10,000; 1,000 by default.
    pub max_relays: Option<i32>,
    /// Whether its relay and its bootstrap relays may have an address that is not public.
    pub private: bool,
    /// Whether it judges events and wants relays to be followed; true by default.
    pub enabled: Option<bool>,
    /// Whether the mirror keeps a subscription to its relay open; true by default.
    pub live: Option<bool>,
    /// Whether the mirror fetches what its relay had before; true by default.
    pub backfill: Option<bool>,
    /// Whether the mirror uses NIP-77 with its relay; true by default.
    pub negentropy: Option<bool>,
    /// The name of a [`Direction`]: `both` by default, `down` for a relay that we host on zooid.
    pub direction: Option<String>,
    /// Who adds it: it is written to the operators' record.
    pub by: Option<String>,
}

/// A change of a service. `None` keeps the value.
#[derive(Debug, Clone, Default)]
pub struct ServiceChange {
    /// See [`NewService::names`].
    pub names: Option<Vec<String>>,
    /// See [`NewService::bootstrap`]. The list replaces the former one.
    pub bootstrap: Option<Vec<String>>,
    /// See [`NewService::policy`]. The policy replaces the former one.
    pub policy: Option<Value>,
    /// See [`NewService::max_relays_per_announcement`].
    pub max_relays_per_announcement: Option<i32>,
    /// See [`NewService::max_relays`].
    pub max_relays: Option<i32>,
    /// See [`NewService::private`].
    pub private: bool,
    /// See [`NewService::enabled`].
    pub enabled: Option<bool>,
    /// Who changes it: it is written to the operators' record.
    pub by: Option<String>,
}

/// The parsed fields of a new service.
struct Valid {
    url: String,
    names: Vec<String>,
    bootstrap: Vec<String>,
    direction: Option<Direction>,
}

fn check(new: &NewService) -> Result<Valid, ServiceError> {
    let mut check = Check::default();
    let url = check.url("Url", &new.url, new.private);
    let url = url.map(|url| url.as_str().to_owned()).unwrap_or_default();
    let mut names = check.names(&new.names);
    if new.names.is_empty() {
        names.extend(host_of(&url));
    }
    let bootstrap = check.bootstrap(&new.bootstrap, new.private);
    check.policy(new.policy.as_ref());
    check.limit("Max relays per announcement", new.max_relays_per_announcement, 100);
    check.limit("Max relays", new.max_relays, 10_000);
    let direction = new.direction.as_deref().map(Direction::parse);
    if direction == Some(None) {
        check.refuse("Direction is not in the list: down, up, both");
    }
    check.end()?;
    Ok(Valid { url, names, bootstrap, direction: direction.flatten() })
}

/// Adds a service. Its relay becomes an upstream of the mirror, unless it is one: then the upstream is
/// adopted, with the service's settings. The events of the store are judged by a job.
///
/// # Errors
/// [`ServiceError::Invalid`], [`ServiceError::Taken`] or [`ServiceError::BeingRemoved`].
pub async fn create(db: &PgPool, new: &NewService) -> Result<Service, ServiceError> {
    let valid = check(new)?;
    refuse_filtered(db, &valid.url).await?;
    let id = contended::retried(|| try_create(db, new, &valid)).await?;
    let Some(id) = id else { return Err(taken(db, &valid.url).await?) };
    find(db, &id.to_string()).await?.ok_or(ServiceError::NotFound)
}

/// Refuses a relay whose upstream has a filter: the own feed and the uploads would lack events.
async fn refuse_filtered(db: &PgPool, url: &str) -> Result<(), ServiceError> {
    let is_filtered = sqlx::query_scalar!(
        r#"select exists (
               select from upstream where url = $1
                 and (coalesce(config->'filter', '{}') not in ('{}', 'null')
                      or coalesce(config->'event_kinds', '[]') not in ('[]', 'null'))) as "is_filtered!""#,
        url,
    );
    if !is_filtered.fetch_one(db).await? {
        return Ok(());
    }
    let problem = "Url is an upstream with a filter or event_kinds in its configuration, which would hold \
                   back events of the service; clear them first";
    Err(ServiceError::Invalid(vec![problem.to_owned()]))
}

/// Why a relay cannot become a service.
async fn taken(db: &PgPool, url: &str) -> Result<ServiceError, sqlx::Error> {
    let service = find(db, url).await?;
    let is_service = service.is_some_and(|service| service.removing_at.is_none());
    Ok(if is_service { ServiceError::Taken } else { ServiceError::BeingRemoved })
}

async fn try_create(
    db: &PgPool,
    new: &NewService,
    valid: &Valid,
) -> Result<Option<Uuid>, sqlx::Error> {
    let mut tx = db.begin().await?;
    let Some(id) = adopt(&mut tx, new, valid).await? else { return Ok(None) };
    admission::lock(&mut tx).await?;
    let written = sqlx::query!(
        "insert into grasp_service (upstream_id, names, policy, max_relays_per_announcement, max_relays, enabled)
         values ($1, $2, coalesce($3, '{}'::jsonb), coalesce($4, 20), coalesce($5, 1000), coalesce($6, true))
         on conflict do nothing",
        id,
        &valid.names,
        new.policy,
        new.max_relays_per_announcement,
        new.max_relays,
        new.enabled,
    );
    if written.execute(&mut *tx).await?.rows_affected() == 0 {
        return Ok(None);
    }
    bootstrap(&mut tx, id, &valid.bootstrap).await?;
    wanted::lose_announcements(&mut tx, id).await?;
    if let Some(who) = &new.by {
        operator::record(&mut *tx, who, "add_service", &valid.url, "").await?;
    }
    let backfill = mirror::work::Work::Orchestrate {
        mode: LaneKind::Backfill,
        upstream: Some(id),
        manual: true,
    };
    queue::enqueue(&mut *tx, &[Work::Scan { service: id }.job(), backfill.job()]).await?;
    tx.commit().await?;
    Ok(Some(id))
}

/// Creates the service's upstream, or changes the one that exists; `None` if it is being removed. A relay
/// that we host takes an event from its author only, so that nothing is uploaded to it.
async fn adopt(
    tx: &mut PgConnection,
    new: &NewService,
    valid: &Valid,
) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "insert into upstream as u (url, enabled, mirrored, admission, live, backfill, negentropy, direction,
                                    allow_private)
         values ($1, true, true, true, coalesce($2, true), coalesce($3, true), coalesce($4, true),
                 coalesce($5, 'both'), $6)
         on conflict (url) do update set
             -- an upstream that the mirror did not have is new: `remove` tells by this time
             created_at = case when u.mirrored then u.created_at else now() end,
             enabled = true, mirrored = true, admission = true, live = excluded.live,
             backfill = excluded.backfill, negentropy = excluded.negentropy, updated_at = now(),
             direction = case when u.relay_id is not null then 'down' else excluded.direction end,
             allow_private = u.allow_private or excluded.allow_private
             where u.removing_at is null
                   and not exists (select from grasp_service s where s.upstream_id = u.id)
         returning id",
        &valid.url,
        new.live,
        new.backfill,
        new.negentropy,
        valid.direction.map(Direction::as_str),
        new.private,
    )
    .fetch_optional(tx)
    .await
}

/// Replaces the relays that a service starts from, and the coverage that follows.
async fn bootstrap(tx: &mut PgConnection, id: Uuid, urls: &[String]) -> Result<(), sqlx::Error> {
    let former = sqlx::query_scalar!(
        "delete from grasp_bootstrap where upstream_id = $1 and url <> all($2) returning url",
        id,
        urls,
    );
    let former = former.fetch_all(&mut *tx).await?;
    sqlx::query!(
        "insert into grasp_bootstrap (upstream_id, url) select $1, url from unnest($2::text[]) n (url) order by 2
         on conflict do nothing",
        id,
        urls,
    )
    .execute(&mut *tx)
    .await?;
    wanted::ensure(tx, urls).await?;
    let touched = [urls, &former].concat();
    let relays = sqlx::query_scalar!(
        "select id from grasp_relay where url = any($1) order by id for no key update",
        &touched,
    );
    for relay in relays.fetch_all(&mut *tx).await? {
        wanted::settle(tx, relay).await?;
    }
    Ok(())
}

/// Changes a service. After a change of names or policy, all events of the store and all parked ones are
/// judged again; accepted events stay accepted. A service that is disabled wants nothing and judges
/// nothing; its relay stays an upstream.
///
/// # Errors
/// [`ServiceError::Invalid`] or [`ServiceError::NotFound`].
pub async fn update(
    db: &PgPool,
    id: Uuid,
    change: &ServiceChange,
) -> Result<Service, ServiceError> {
    let mut check = Check::default();
    let names = change.names.as_ref().map(|names| check.names(names));
    if names.as_ref().is_some_and(Vec::is_empty) {
        check.refuse("Names are empty; a service has at least one");
    }
    let bootstrap = change.bootstrap.as_ref().map(|urls| check.bootstrap(urls, change.private));
    check.policy(change.policy.as_ref());
    check.limit("Max relays per announcement", change.max_relays_per_announcement, 100);
    check.limit("Max relays", change.max_relays, 10_000);
    check.end()?;
    let (names, bootstrap) = (names.as_deref(), bootstrap.as_deref());
    let updated = contended::retried(|| try_update(db, id, change, names, bootstrap)).await?;
    let found = if updated { find(db, &id.to_string()).await? } else { None };
    found.ok_or(ServiceError::NotFound)
}

async fn try_update(
    db: &PgPool,
    id: Uuid,
    change: &ServiceChange,
    names: Option<&[String]>,
    urls: Option<&[String]>,
) -> Result<bool, sqlx::Error> {
    let mut tx = db.begin().await?;
    admission::lock(&mut tx).await?;
    let Some(written) = write(&mut tx, id, change, names).await? else { return Ok(false) };
    if let Some(urls) = urls {
        bootstrap(&mut tx, id, urls).await?;
    }
    if written.switches {
        mark_relays(&mut tx, id).await?;
    }
    if written.switches && written.enabled {
        wanted::lose_of(&mut tx, id).await?;
    } else if written.enabled && (written.is_other || urls.is_some()) {
        wanted::lose_announcements(&mut tx, id).await?;
    }
    if let Some(who) = &change.by {
        let url = sqlx::query_scalar!("select url from upstream where id = $1", id);
        let url = url.fetch_one(&mut *tx).await?;
        operator::record(&mut *tx, who, "update_service", &url, &describe(change)).await?;
    }
    let (scan, release) = (Work::Scan { service: id }, Work::Release { service: id });
    queue::enqueue(&mut *tx, &[scan.job(), release.job(), Work::Reconcile.job()]).await?;
    tx.commit().await?;
    Ok(true)
}

/// Names the fields that change, for the operators' record.
fn describe(change: &ServiceChange) -> String {
    let fields = json!({
        "names": change.names, "bootstrap": change.bootstrap, "enabled": change.enabled,
        "max_relays": change.max_relays, "policy": change.policy.as_ref().map(|_| "changed"),
        "max_relays_per_announcement": change.max_relays_per_announcement,
    });
    let fields = fields.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    fields.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

/// What a change of a service's row came to.
struct Written {
    /// Whether it was switched on or off.
    switches: bool,
    enabled: bool,
    /// Whether it has other names, or another policy.
    is_other: bool,
}

/// Writes the row; `None` if the service does not exist, or is being removed. The store is judged from its beginning after every change that can admit more.
async fn write(
    tx: &mut PgConnection,
    id: Uuid,
    change: &ServiceChange,
    names: Option<&[String]>,
) -> Result<Option<Written>, sqlx::Error> {
    sqlx::query_as!(
        Written,
        r#"with before as (
               select *, coalesce($2, names) <> names or coalesce($3, policy) <> policy as is_other,
                      coalesce($6, enabled) <> enabled as switches
               from grasp_service where upstream_id = $1 and removing_at is null for no key update
           )
           update grasp_service s set
               names = coalesce($2, s.names), policy = coalesce($3, s.policy),
               max_relays_per_announcement = coalesce($4, s.max_relays_per_announcement),
               max_relays = coalesce($5, s.max_relays), enabled = coalesce($6, s.enabled),
               policy_rev = s.policy_rev + before.is_other::int, scan_position = 0, updated_at = now()
           from before where s.upstream_id = before.upstream_id
           returning before.switches as "switches!", s.enabled, before.is_other as "is_other!""#,
        id,
        names,
        change.policy,
        change.max_relays_per_announcement,
        change.max_relays,
        change.enabled,
    )
    .fetch_optional(tx)
    .await
}

/// Marks the relays of a service, so that their coverage is compared with what is wanted now.
pub(super) async fn mark_relays(tx: &mut PgConnection, id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "with named as (
             select id from grasp_relay
             where url in (select url from grasp_repo_relay where upstream_id = $1
                           union select url from grasp_bootstrap where upstream_id = $1)
             order by id for no key update
         )
         update grasp_relay r set reconciled_at = null from named where r.id = named.id",
        id,
    )
    .execute(tx)
    .await?;
    Ok(())
}
