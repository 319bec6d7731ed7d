//! Adding, changing and removing upstreams.

use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{
    Direction, Upstream, UpstreamError, UpstreamUrl, find,
    forget::forget,
    remove,
    service::{refuse_fields, stops},
    settings::{Settings, SettingsError},
};
use crate::{console::operator::Entry, mirror::contended};

/// The fields of a new upstream, or a change of some fields. `None` means the default of a new
/// upstream, and keeps the value of an existing one.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Change {
    /// The address; it is normalised on write.
    pub url: Option<String>,
    /// See [`Upstream::enabled`].
    pub enabled: Option<bool>,
    /// See [`Upstream::backfill`].
    pub backfill: Option<bool>,
    /// See [`Upstream::negentropy`].
    pub negentropy: Option<bool>,
    /// See [`Upstream::live`].
    pub live: Option<bool>,
    /// The name of a [`Direction`].
    pub direction: Option<String>,
    /// The operator's notes, at most 2,000 characters.
    pub notes: Option<String>,
    /// Overrides of the deployment's settings. They replace all overrides of the upstream.
    pub config: Option<Value>,
    /// See [`Upstream::relay_id`]. Only [`create`] reads it.
    #[serde(skip)]
    pub relay_id: Option<String>,
    /// Whether a URL is refused if its host is certain not to be public. The API sets this, unless the
    /// deployment allows such addresses; other names are checked at each connect.
    #[serde(skip)]
    pub must_be_public: bool,
    /// See [`Upstream::allow_private`]. Only the command line sets it; bodies of the API do not.
    #[serde(skip)]
    pub allow_private: Option<bool>,
    /// Who makes the change: it is written to the operators' record, in the same transaction. `None`
    /// records nothing.
    #[serde(skip)]
    pub by: Option<String>,
}

impl Change {
    async fn record(
        &self,
        tx: &mut PgConnection,
        action: &str,
        before: Option<&Upstream>,
        changed: Option<&Upstream>,
    ) -> Result<(), sqlx::Error> {
        let (Some(who), Some(changed)) = (&self.by, changed) else { return Ok(()) };
        let entry = Entry::new(who, action, &changed.url, "");
        entry.changed(&settable(before), &settable(Some(changed))).record(tx).await
    }
}

/// Returns the fields of an upstream that operators set, for their record.
pub(super) fn settable(upstream: Option<&Upstream>) -> Value {
    upstream.map_or(Value::Null, |one| {
        json!({
            "url": one.url, "enabled": one.enabled, "backfill": one.backfill,
            "negentropy": one.negentropy, "live": one.live, "direction": one.direction,
            "notes": one.notes, "config": one.config, "allow_private": one.allow_private,
        })
    })
}

/// Why a relay that we host gets no uploads.
const HOSTED: &str = "Direction of a relay that we host must be down: zooid takes an event from its \
                      author only, so the mirror cannot upload the events of others";

/// The parsed fields of a change that violates no rule.
struct Valid {
    url: Option<UpstreamUrl>,
    direction: Option<Direction>,
}

fn check(change: &Change, is_new: bool) -> Result<Valid, UpstreamError> {
    let mut problems = Vec::new();
    let url = match &change.url {
        Some(url) => UpstreamUrl::parse(url).map(Some),
        None if is_new => Err("can't be blank"),
        None => Ok(None),
    };
    let url = url.and_then(|url| match url {
        Some(url) if change.must_be_public && url.is_private() => {
            Err("must have a public address; an operator can add it with `--private`")
        }
        url => Ok(url),
    });
    let url = url.map_err(|problem| problems.push(format!("Url {problem}"))).unwrap_or_default();
    let direction = change.direction.as_deref().map(Direction::parse);
    if direction == Some(None) {
        problems.push("Direction is not in the list: down, up, both".to_owned());
    }
    if change.relay_id.is_some() && direction.flatten().is_some_and(Direction::uploads) {
        problems.push(HOSTED.to_owned());
    }
    if change.notes.as_ref().is_some_and(|notes| notes.chars().count() > 2000) {
        problems.push("Notes are longer than 2,000 characters".to_owned());
    }
    if change.notes.as_ref().is_some_and(|notes| notes.contains('\0')) {
        problems.push("Notes must not contain U+0000".to_owned());
    }
    if let Some(config) = &change.config
        && let Err(SettingsError(found)) = Settings::default().overlaid(config)
    {
        problems.extend(found.into_iter().map(|problem| format!("Config {problem}")));
    }
    if problems.is_empty() {
        Ok(Valid { url, direction: direction.flatten() })
    } else {
        Err(UpstreamError::Invalid(problems))
    }
}

/// Creates an upstream.
///
/// A relay that another wing follows already becomes an upstream of the mirror too.
///
/// # Errors
/// [`UpstreamError::Invalid`], [`UpstreamError::Taken`] or [`UpstreamError::BeingRemoved`].
pub async fn create(db: &PgPool, change: &Change) -> Result<Upstream, UpstreamError> {
    let valid = check(change, true)?;
    let created = try_create(db, change, &valid).await;
    match created.map_err(taken)? {
        Some(created) => Ok(created),
        None => Err(remove::taken(db, valid.url.as_ref().map_or("", UpstreamUrl::as_str)).await),
    }
}

async fn try_create(
    db: &PgPool,
    change: &Change,
    valid: &Valid,
) -> Result<Option<Upstream>, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    let created = sqlx::query_as!(
        Upstream,
        r#"insert into upstream (url, enabled, backfill, negentropy, live, direction, notes, config, relay_id,
                                 allow_private)
           values ($1, coalesce($2, true), coalesce($3, true), coalesce($4, false), coalesce($5, false),
                   $6, $7, coalesce($8, '{}'::jsonb), $9, coalesce($10, false))
           on conflict (url) do update set
               mirrored = true, enabled = excluded.enabled, backfill = excluded.backfill,
               negentropy = excluded.negentropy, live = excluded.live, direction = excluded.direction,
               notes = excluded.notes, config = excluded.config, updated_at = now(),
               allow_private = upstream.allow_private or excluded.allow_private
               where not upstream.mirrored and upstream.removing_at is null
           returning id, url, enabled, backfill, negentropy, live, direction as "direction: Direction",
                     notes, config, relay_id, allow_private, mirrored, admission, negentropy_verdict, negentropy_verdict_until,
                     negentropy_reason, information, information_at, authors_only_at,
                     authors_only_reason, created_at, updated_at"#,
        valid.url.as_ref().map(UpstreamUrl::as_str),
        change.enabled,
        change.backfill,
        change.negentropy,
        change.live,
        valid.direction.unwrap_or_default().as_str(),
        change.notes,
        change.config,
        change.relay_id,
        change.allow_private,
    )
    .fetch_optional(&mut *tx)
    .await?;
    change.record(&mut tx, "add_upstream", None, created.as_ref()).await?;
    tx.commit().await?;
    Ok(created)
}

/// Changes an upstream. After a change of the filter, [`ensure`](crate::mirror::lane::ensure) retires
/// its lanes. Another address is another relay: everything believed of the upstream is forgotten. It
/// loses the permission of private addresses, which was given for the former host.
///
/// # Errors
/// [`UpstreamError::Invalid`], [`UpstreamError::Taken`], [`UpstreamError::DecidedByService`],
/// [`UpstreamError::StopsService`] or [`UpstreamError::NotFound`].
pub async fn update(db: &PgPool, id: Uuid, change: &Change) -> Result<Upstream, UpstreamError> {
    let valid = check(change, false)?;
    if valid.direction.is_some_and(Direction::uploads) && is_hosted(db, id).await? {
        return Err(UpstreamError::Invalid(vec![HOSTED.to_owned()]));
    }
    let updated = contended::retried(|| try_update(db, id, change, &valid)).await;
    updated.map_err(taken)??.ok_or(UpstreamError::NotFound)
}

async fn try_update(
    db: &PgPool,
    id: Uuid,
    change: &Change,
    valid: &Valid,
) -> Result<Result<Option<Upstream>, UpstreamError>, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    let moves = moves(&mut tx, id, valid.url.as_ref()).await?;
    let refused = refuse_fields(&mut tx, id, change, valid.url.as_ref(), valid.direction).await?;
    if let Err(error) = refused {
        return Ok(Err(error));
    }
    let before = find(&mut *tx, id).await?;
    if moves {
        forget(&mut tx, id).await?;
    }
    let updated = write(&mut tx, id, change, valid).await?;
    if let Some(what) = updated.as_ref().and_then(|updated| stops(change, updated)) {
        return Ok(Err(UpstreamError::StopsService(what)));
    }
    change.record(&mut tx, "update_upstream", before.as_ref(), updated.as_ref()).await?;
    tx.commit().await?;
    Ok(Ok(updated))
}

/// Locks the upstream's row. Returns whether `url` differs from its address.
async fn moves(
    tx: &mut PgConnection,
    id: Uuid,
    url: Option<&UpstreamUrl>,
) -> Result<bool, sqlx::Error> {
    let old = sqlx::query_scalar!("select url from upstream where id = $1 for update", id);
    let old = old.fetch_optional(tx).await?;
    Ok(url.is_some_and(|url| old.as_deref().is_some_and(|old| old != url.as_str())))
}

async fn write(
    tx: &mut PgConnection,
    id: Uuid,
    change: &Change,
    valid: &Valid,
) -> Result<Option<Upstream>, sqlx::Error> {
    sqlx::query_as!(
        Upstream,
        r#"update upstream set
               url = coalesce($2, url), enabled = coalesce($3, enabled),
               backfill = coalesce($4, backfill), negentropy = coalesce($5, negentropy),
               live = coalesce($6, live), direction = coalesce($7, direction),
               relay_id = case when url <> $2 then null else relay_id end,
               notes = coalesce($8, notes), config = coalesce($9, config),
               allow_private = coalesce($10, allow_private and ($2::text is null or $2 = url)),
               updated_at = now()
           where id = $1 and removing_at is null and mirrored
           returning id, url, enabled, backfill, negentropy, live, direction as "direction: Direction",
                     notes, config, relay_id, allow_private, mirrored, admission, negentropy_verdict, negentropy_verdict_until,
                     negentropy_reason, information, information_at, authors_only_at,
                     authors_only_reason, created_at, updated_at"#,
        id,
        valid.url.as_ref().map(UpstreamUrl::as_str),
        change.enabled,
        change.backfill,
        change.negentropy,
        change.live,
        valid.direction.map(Direction::as_str),
        change.notes,
        change.config,
        change.allow_private,
    )
    .fetch_optional(tx)
    .await
}

async fn is_hosted(db: &PgPool, id: Uuid) -> Result<bool, sqlx::Error> {
    let is_hosted = sqlx::query_scalar!(
        r#"select relay_id is not null as "is_hosted!" from upstream where id = $1"#,
        id,
    );
    Ok(is_hosted.fetch_optional(db).await?.unwrap_or(false))
}

fn taken(error: sqlx::Error) -> UpstreamError {
    let is_unique = |error: &dyn sqlx::error::DatabaseError| error.is_unique_violation();
    match &error {
        sqlx::Error::Database(found) if is_unique(&**found) => UpstreamError::Taken,
        _ => error.into(),
    }
}
