//! The events of a filter that need not be fetched from a followed relay: every enabled service has
//! decided on them, or the store refuses them.

use futures_util::TryStreamExt;
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use crate::mirror::{
    event::{EventId, Item},
    filter::Filter,
};

/// The most events that are compared.
const MOST: usize = 1_000_000;

/// Returns the time and id of each event of the filter that is stored or parked and that every enabled
/// service has decided on, and of those that were refused before; `None` if they are more than a
/// million. An item may occur twice.
///
/// An orphan that is parked is left out unless the filter names its kind: it is then fetched again, and
/// parked again.
pub async fn held(
    db: &PgPool,
    upstream: Uuid,
    filter: &Filter,
) -> Result<Option<Vec<Item>>, sqlx::Error> {
    let (tag, values) = tag_of(filter);
    let kinds: Option<Vec<i32>> = (!filter.kinds.is_empty())
        .then(|| filter.kinds.iter().map(|kind| i32::from(*kind)).collect());
    let authors: Option<Vec<Vec<u8>>> = (!filter.authors.is_empty())
        .then(|| filter.authors.iter().filter_map(|author| hex::decode(author).ok()).collect());
    let mut rows = sqlx::query!(
        r#"with matching as materialized (
               (select e.id, e.created_at from events_tagged(array[$1], $2) e
                where $3::int[] is null or e.kind = any($3)
                limit $6)
               union all
               (select e.id, e.created_at from event e
                where $1::text is null and e.kind = any($3) and ($4::bytea[] is null or e.pubkey = any($4))
                limit $6))
           select created_at as "created_at!", id as "id!" from matching m
           where exists (select from grasp_service s where s.enabled and s.removing_at is null)
             and not exists (
               select from grasp_service s
               where s.enabled and s.removing_at is null
                 and not exists (select from admission a where (a.upstream_id, a.event_id) = (s.upstream_id, m.id))
                 and not exists (select from parked p where (p.upstream_id, p.event_id) = (s.upstream_id, m.id)
                                                        and p.policy_rev = s.policy_rev))
           union all
           (select p.created_at, p.event_id from parked p
            where $3::int[] is not null and p.kind = any($3) and ($4::bytea[] is null or p.pubkey = any($4))
              and ($1::text is null or p.body like any(select '%' || replace(replace(replace(
                       to_json(value)::text, '\', '\\'), '%', '\%'), '_', '\_') || '%' from unnest($2) as v (value)))
              and not exists (
                  select from grasp_service s
                  where s.enabled and s.removing_at is null
                    and not exists (select from parked o where (o.upstream_id, o.event_id) = (s.upstream_id, p.event_id)
                                                           and o.policy_rev = s.policy_rev))
            limit $6)
           union all
           (select k.created_at, k.event_id from known_id k
            where (k.upstream_id is null or k.upstream_id = $5)
              and (k.retry_after is null or k.retry_after > now())
              and k.reason not in ('too-large', 'too-many-tags')
              and $3::int[] is not null and (k.kind is null or k.kind = any($3))
              and ($4::bytea[] is null or k.pubkey is null or k.pubkey = any($4))
            limit $6)"#,
        tag,
        &values,
        kinds.as_deref(),
        authors.as_deref(),
        upstream,
        i64::try_from(MOST).unwrap_or(i64::MAX) + 1,
    )
    .fetch(db);
    let mut items = Vec::new();
    while let Some(row) = rows.try_next().await? {
        let at = u64::try_from(row.created_at).unwrap_or(0);
        items.extend(id_of(&row.id).map(|id| (at, id)));
        if items.len() > MOST {
            return Ok(None);
        }
    }
    Ok(Some(items))
}

/// Returns whether the store has at least `count` events of the filter.
pub async fn holds_at_least(
    db: impl PgExecutor<'_>,
    filter: &Filter,
    count: i64,
) -> Result<bool, sqlx::Error> {
    let (tag, values) = tag_of(filter);
    let kinds: Option<Vec<i32>> = (!filter.kinds.is_empty())
        .then(|| filter.kinds.iter().map(|kind| i32::from(*kind)).collect());
    let authors: Option<Vec<Vec<u8>>> = (!filter.authors.is_empty())
        .then(|| filter.authors.iter().filter_map(|author| hex::decode(author).ok()).collect());
    let found = sqlx::query_scalar!(
        r#"select count(*) as "count!" from (
               (select from events_tagged(array[$1], $2) e
                where $3::int[] is null or e.kind = any($3)
                limit $5)
               union all
               (select from event e
                where $1::text is null and e.kind = any($3) and ($4::bytea[] is null or e.pubkey = any($4))
                limit $5)) as few"#,
        tag,
        &values,
        kinds.as_deref(),
        authors.as_deref(),
        count,
    );
    Ok(found.fetch_one(db).await? >= count)
}

/// The one tag that a filter of items names, and its values.
fn tag_of(filter: &Filter) -> (Option<String>, Vec<String>) {
    let tag = filter.tags.iter().next();
    let values = tag.map(|(_, values)| values.iter().cloned().collect());
    (tag.map(|(name, _)| name.to_string()), values.unwrap_or_default())
}

fn id_of(bytes: &[u8]) -> Option<EventId> {
    bytes.try_into().ok().map(EventId)
}
