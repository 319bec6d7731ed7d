//! Scanning: judges the events that the store has for another reason, in the order of their arrival. A
//! page holds those that a rule can admit: announcements, grasp lists, and events that are connected
//! with accepted ones. What becomes connected later is released by the acceptance.

use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    grasp::{admission::Scanned, work::Work},
    mirror::event::{self, Batch, EventId, outgoing},
    queue,
};

/// The positions of one page, so that a statement stays short however few of the events are judged: 0.1 ms each.
const POSITIONS: i64 = 2000;
/// The most events of one page.
const PAGE: i64 = 500;
/// The parked events that one statement releases.
const PARKED: i64 = 5000;

/// What one page of a scan came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanPage {
    /// The events that were judged.
    pub judged: usize,
    /// Whether there is more to do.
    pub more: bool,
}

/// The state of a scan.
struct Scan {
    rev: i64,
    position: i64,
}

/// Judges the next page of the store for a service. After a change of names or policy, it begins anew, and
/// first lets all parked events be judged again.
///
/// # Errors
/// The database is unreachable or refused a statement; the page is judged again then.
pub async fn scan_page(db: &PgPool, service: Uuid) -> Result<ScanPage, sqlx::Error> {
    let Some(scan) = begin(db, service).await? else {
        return Ok(ScanPage { judged: 0, more: false });
    };
    if scan.position == 0 && release_parked(db, service, scan.rev).await? > 0 {
        return Ok(ScanPage { judged: 0, more: true });
    }
    let horizon = outgoing::horizon(db).await?;
    let end =
        horizon.min(outgoing::first_after(db, scan.position).await?.saturating_add(POSITIONS));
    let (ids, up_to) = page(db, service, scan.position, end).await?;
    let events = outgoing::live_by_ids(db, &ids).await?;
    if !events.is_empty() {
        let gate = Scanned { service };
        event::store(db, Batch { gate: Some(&gate), ..Batch::new(Uuid::nil(), &events) }).await?;
    }
    let is_current = advance(db, service, &scan, up_to).await?;
    // Events may have been parked under the former policy meanwhile. To look for them reads all that are parked.
    let more = !is_current || up_to < horizon || release_parked(db, service, scan.rev).await? > 0;
    Ok(ScanPage { judged: events.len(), more })
}

/// Returns where the scan goes on; `None` if the service is disabled or being removed.
async fn begin(db: &PgPool, service: Uuid) -> Result<Option<Scan>, sqlx::Error> {
    sqlx::query_as!(
        Scan,
        "update grasp_service set
             scan_position = case when scan_rev = policy_rev then scan_position else 0 end,
             scan_rev = policy_rev
         where upstream_id = $1 and enabled and removing_at is null
         returning scan_rev as rev, scan_position as position",
        service,
    )
    .fetch_optional(db)
    .await
}

/// Releases parked events that were refused under another policy. Returns their number.
async fn release_parked(db: &PgPool, service: Uuid, rev: i64) -> Result<u64, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    let released = sqlx::query!(
        "insert into grasp_release (upstream_id, event_id)
         select upstream_id, event_id from parked p
         where upstream_id = $1 and policy_rev <> $2
           and not exists (select from grasp_release r
                           where r.upstream_id = p.upstream_id and r.event_id = p.event_id)
         order by 1, 2 limit $3
         on conflict do nothing",
        service,
        rev,
        PARKED,
    );
    let released = released.execute(&mut *tx).await?.rows_affected();
    if released > 0 {
        queue::enqueue(&mut *tx, &[Work::Release { service }.job()]).await?;
    }
    tx.commit().await?;
    Ok(released)
}

/// Returns the events of a range of positions that are judged, and the position up to which they reach.
/// Announcements that are admitted already are judged too, because the service's limits may have
/// changed.
async fn page(
    db: &PgPool,
    service: Uuid,
    after: i64,
    end: i64,
) -> Result<(Vec<EventId>, i64), sqlx::Error> {
    let rows = sqlx::query!(
        r#"select e.position, e.id
           from event e
           where e.position > $2 and e.position <= $3 and e.deleted_at is null
             and (e.kind = 30617
                  or not exists (select from admission a where a.upstream_id = $1 and a.event_id = e.id))
             and case
                 when e.kind in (30617, 10317) then true
                 when e.kind = 5 then exists (select from grasp_author a
                                              where a.upstream_id = $1 and a.pubkey = e.pubkey)
                 when e.kind = 30618 then exists (select from grasp_repo r
                                                  where r.upstream_id = $1 and r.identifier = e.d_tag)
                 else exists (
                     select from indexed_tags(e.tags) t
                     where t.name in ('a', 'A', 'q')
                       and exists (select from grasp_repo r
                                   where r.upstream_id = $1 and r.address = t.value and r.left_at is null))
                   or exists (
                     select from indexed_tags(e.tags) t join admission a
                         on a.upstream_id = $1 and a.event_id = decode(t.value, 'hex')
                            and a.rule not in ('deletion', 'grasp-list')
                     where t.name in ('e', 'E', 'q') and t.value ~ '^[0-9a-f]{64}$')
                   or exists (
                     select from events_tagged(array['e', 'E', 'q'], array[encode(e.id, 'hex')]) p
                         join admission a on a.upstream_id = $1 and a.event_id = p.id
                            and a.rule not in ('deletion', 'grasp-list'))
                 end
           order by e.position limit $4"#,
        service,
        after,
        end,
        PAGE,
    )
    .fetch_all(db)
    .await?;
    let is_cut = i64::try_from(rows.len()).is_ok_and(|rows| rows == PAGE);
    let last = rows.last().map(|row| row.position).filter(|_| is_cut);
    let ids = rows.iter().map(|row| EventId::of_row(&row.id)).collect();
    Ok((ids, last.unwrap_or(end).max(after)))
}

/// Stores how far the scan came. Returns false if it begins anew, because the service was changed.
async fn advance(db: &PgPool, service: Uuid, scan: &Scan, up_to: i64) -> Result<bool, sqlx::Error> {
    let advanced = sqlx::query!(
        "update grasp_service set scan_position = $4
         where upstream_id = $1 and scan_rev = $2 and policy_rev = $2 and scan_position = $3",
        service,
        scan.rev,
        scan.position,
        up_to,
    );
    Ok(advanced.execute(db).await?.rows_affected() == 1)
}
