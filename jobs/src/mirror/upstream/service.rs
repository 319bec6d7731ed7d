//! Upstreams that are the relay of a GRASP service: the mirror keeps their own feed and their uploads.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Change, Direction, Upstream, UpstreamError, UpstreamUrl};

/// Refuses a change of the address, the direction or the filter of an upstream that is the relay of a GRASP
/// service: the service decides on them. The caller has locked the upstream's row.
pub(super) async fn refuse_fields(
    tx: &mut PgConnection,
    id: Uuid,
    change: &Change,
    url: Option<&UpstreamUrl>,
    direction: Option<Direction>,
) -> Result<Result<(), UpstreamError>, sqlx::Error> {
    let config = change.config.as_ref();
    let changed = sqlx::query!(
        r#"select u.url, u.url <> coalesce($2, u.url) as "url_changes!",
                  u.direction <> coalesce($3, u.direction) as "direction_changes!",
                  ($4::jsonb is not null and (
                      coalesce(u.config->'filter', '{}') <> coalesce($4->'filter', '{}')
                      or coalesce(u.config->'event_kinds', '[]') <> coalesce($4->'event_kinds', '[]')))
                      as "filter_changes!"
           from upstream u join grasp_service s on s.upstream_id = u.id
           where u.id = $1 and s.removing_at is null"#,
        id,
        url.map(UpstreamUrl::as_str),
        direction.map(Direction::as_str),
        config,
    );
    let Some(changed) = changed.fetch_optional(tx).await? else { return Ok(Ok(())) };
    let fields = [
        (changed.url_changes, "url"),
        (changed.direction_changes, "direction"),
        (changed.filter_changes, "filter"),
    ];
    let field = fields.into_iter().find_map(|(changes, field)| changes.then_some(field));
    let refused = |field| Err(UpstreamError::DecidedByService { field, service: changed.url });
    Ok(field.map_or(Ok(()), refused))
}

/// Returns what a change stops of the service whose relay the upstream is; `None` if it stops nothing. A relay
/// that we host on zooid never has uploads. The direction does not change; see [`refuse_fields`].
pub(super) fn stops(change: &Change, updated: &Upstream) -> Option<&'static str> {
    let direction = updated.direction;
    let is_fed = updated.enabled && (updated.live || updated.backfill) && direction.downloads();
    let is_filled = updated.enabled && (direction.uploads() || updated.relay_id.is_some());
    let asks = [change.enabled, change.live, change.backfill].contains(&Some(false));
    match (is_fed, is_filled) {
        _ if !updated.admission => None,
        (false, _) if asks => Some("its own feed"),
        (_, false) if change.enabled == Some(false) => Some("the uploads to its relay"),
        _ => None,
    }
}
