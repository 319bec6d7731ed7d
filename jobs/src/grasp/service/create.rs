//! Adding a service.

use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{NewService, Service, ServiceError, check::Check, conflicts, find, start::bootstrap};
use crate::{
    console::operator,
    grasp::{address::host_of, admission, wanted, work::Work},
    mirror::{self, contended, lane::LaneKind, upstream::Direction},
    queue,
};

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
    let id = contended::retried(|| try_create(db, new, &valid)).await??;
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
) -> Result<Result<Option<Uuid>, ServiceError>, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    let former = former(&mut tx, &valid.url).await?;
    let Some(id) = adopt(&mut tx, new, valid).await? else { return Ok(Ok(None)) };
    admission::lock(&mut tx).await?;
    let written = sqlx::query!(
        "insert into grasp_service (upstream_id, names, policy, max_relays_per_announcement, max_relays, enabled,
                                    former)
         values ($1, $2, coalesce($3, '{}'::jsonb), coalesce($4, 20), coalesce($5, 1000), coalesce($6, true), $7)
         on conflict do nothing",
        id,
        &valid.names,
        new.policy,
        new.max_relays_per_announcement,
        new.max_relays,
        new.enabled,
        former,
    );
    if written.execute(&mut *tx).await?.rows_affected() == 0 {
        return Ok(Ok(None));
    }
    bootstrap(&mut tx, id, &valid.bootstrap).await?;
    if let Err(error) = conflicts::refuse(&mut tx, id).await? {
        return Ok(Err(error));
    }
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
    Ok(Ok(Some(id)))
}

/// The settings of the upstream that a service adopts; `None` if the mirror has none.
async fn former(tx: &mut PgConnection, url: &str) -> Result<Option<Value>, sqlx::Error> {
    let former = sqlx::query_scalar!(
        r#"select jsonb_build_object('enabled', enabled, 'live', live, 'backfill', backfill,
                  'negentropy', negentropy, 'direction', direction, 'allow_private', allow_private) as "former!"
           from upstream where url = $1 and mirrored for update"#,
        url,
    );
    former.fetch_optional(tx).await
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
