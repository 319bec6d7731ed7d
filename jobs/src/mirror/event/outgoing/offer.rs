//! Events that an upstream with admission should get although its upload lane may have passed them.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::super::{EventId, store::rows_of};
use crate::mirror::{lane, work};

/// Lets events wait for the upload lanes of their upstreams. They were stored before, and admitted by
/// this transaction: the lanes may have passed their positions. An event that the upstream holds, or on
/// which it gave a verdict, is left out.
pub(crate) async fn offer(
    tx: &mut PgConnection,
    events: &[(Uuid, EventId)],
) -> Result<(), sqlx::Error> {
    let mut by_upstream: BTreeMap<Uuid, Vec<EventId>> = BTreeMap::new();
    for (upstream, id) in events {
        by_upstream.entry(*upstream).or_default().push(*id);
    }
    for (upstream, ids) in by_upstream {
        // They wait also while nothing is uploaded; the lane begins with them once it works.
        let waiting = wait(tx, upstream, &ids).await?;
        if waiting > 0
            && let Some(lane) = lane::ensure_upload(tx, upstream).await?
        {
            work::push_upload(tx, lane).await?;
        }
    }
    Ok(())
}

async fn wait(tx: &mut PgConnection, upstream: Uuid, ids: &[EventId]) -> Result<u64, sqlx::Error> {
    let written = sqlx::query!(
        r#"insert into upload_verdict (upstream_id, event_id, verdict, message, next_try)
           select $1, e.id, 'pending', 'admitted after it was stored', now()
           from unnest($2::bytea[]) asked (id)
           cross join lateral (select * from event where event.id = asked.id limit 1) e
           where e.deleted_at is null and (e.expires_at is null or e.expires_at > extract(epoch from now()))
             and e.kind not between 20000 and 29999 and e.kind <> 22242
             and not exists (select from jsonb_array_elements(e.tags) tag where tag = '["-"]')
             and e.source is distinct from (select number from upstream where id = $1)
             and not exists (select from event_source s where s.event_id = e.id and s.upstream_id = $1)
           order by e.id
           on conflict do nothing"#,
        upstream,
        &rows_of(ids.iter()),
    )
    .execute(tx)
    .await?;
    Ok(written.rows_affected())
}
