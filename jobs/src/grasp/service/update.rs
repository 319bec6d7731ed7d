//! Changing a service.

use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{
    Service, ServiceChange, ServiceError,
    check::Check,
    conflicts, find,
    start::{bootstrap, mark_relays},
};
use crate::{
    console::operator::Entry,
    grasp::{admission, wanted, work::Work},
    mirror::contended,
    queue,
};

/// Changes a service. After a change of names or policy, all events of the store and all parked ones are
/// judged again; accepted events stay accepted. A service that is disabled wants nothing and judges
/// nothing; its relay stays an upstream. A lower limit of relays lets the relays go that were found last.
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
    let updated = contended::retried(|| try_update(db, id, change, names, bootstrap)).await??;
    let found = if updated { find(db, &id.to_string()).await? } else { None };
    found.ok_or(ServiceError::NotFound)
}

/// Returns the row as the record of operators has it.
async fn fields(tx: &mut PgConnection, id: Uuid) -> Result<Value, sqlx::Error> {
    let row = sqlx::query_scalar!(
        r#"select to_jsonb(s) - 'upstream_id' - 'created_at' - 'updated_at' as "fields!"
           from grasp_service s where upstream_id = $1"#,
        id,
    );
    Ok(row.fetch_optional(tx).await?.unwrap_or_default())
}

async fn try_update(
    db: &PgPool,
    id: Uuid,
    change: &ServiceChange,
    names: Option<&[String]>,
    urls: Option<&[String]>,
) -> Result<Result<bool, ServiceError>, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    admission::lock(&mut tx).await?;
    let before = fields(&mut tx, id).await?;
    let Some(written) = write(&mut tx, id, change, names).await? else { return Ok(Ok(false)) };
    if let Some(urls) = urls {
        bootstrap(&mut tx, id, urls).await?;
    }
    if (names.is_some() || urls.is_some())
        && let Err(error) = conflicts::refuse(&mut tx, id).await?
    {
        return Ok(Err(error));
    }
    if change.max_relays.is_some() {
        wanted::shrink(&mut tx, id).await?;
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
        let words = change.describe();
        let entry = Entry::new(who, "update_service", &url, &words);
        entry.changed(&before, &fields(&mut tx, id).await?).record(&mut *tx).await?;
    }
    let (scan, release) = (Work::Scan { service: id }, Work::Release { service: id });
    queue::enqueue(&mut *tx, &[scan.job(), release.job(), Work::Reconcile.job()]).await?;
    tx.commit().await?;
    Ok(Ok(true))
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
