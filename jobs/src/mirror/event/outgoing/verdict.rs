//! Verdicts: the answers of an upstream to events that were sent to it.

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::{
    mirror::{
        event::{
            EventId,
            store::{column, rows_of},
        },
        lane::{self, Lease},
    },
    queue::{Settled, one_line},
};

/// The attempts after which an event that stays pending is rejected.
const MAX_ATTEMPTS: i32 = 5;

/// The answer of an upstream to an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The upstream stored the event.
    Accepted,
    /// The upstream had the event before.
    Duplicate,
    /// The upstream will never take the event; its reason.
    Rejected(String),
    /// The upstream may take the event later; its reason, or ours if it gave none.
    Pending(String),
}

/// Uploaded events by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UploadTally {
    /// Events that the upstream stored.
    pub accepted: i64,
    /// Events that the upstream had before.
    pub duplicate: i64,
    /// Events that are not sent again, because the upstream rejected them or their attempts are
    /// spent.
    pub rejected: i64,
    /// Events that wait for a retry.
    pub pending: i64,
}

impl UploadTally {
    /// Adds the counts of another tally.
    pub fn add(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.duplicate += other.duplicate;
        self.rejected += other.rejected;
        self.pending += other.pending;
    }
}

/// Stores verdicts, counts them on the upstream's upload lane, and returns the counts. With a
/// lease, both happen only under this lease; [`Settled::LeaseLost`] means that nothing was stored,
/// and the caller must stop.
pub async fn judge(
    db: &PgPool,
    upstream: Uuid,
    lease: Option<&Lease>,
    verdicts: &[(EventId, Verdict)],
) -> Result<Settled<UploadTally>, sqlx::Error> {
    let mut tx = db.begin().await?;
    let mut tally = count_held(verdicts);
    write_held(&mut tx, upstream, verdicts).await?;
    for is_rejected in write_open(&mut tx, upstream, verdicts).await? {
        let count = if is_rejected { &mut tally.rejected } else { &mut tally.pending };
        *count += 1;
    }
    let last = verdicts.iter().rfind(|(_, verdict)| *verdict == Verdict::Accepted);
    let last = last.map(|(id, _)| *id);
    if lane::count_uploads(&mut *tx, upstream, lease, tally, last).await? == Settled::LeaseLost {
        return Ok(Settled::LeaseLost); // rolls back the verdicts too
    }
    tx.commit().await?;
    Ok(Settled::Written(tally))
}

fn count_held(verdicts: &[(EventId, Verdict)]) -> UploadTally {
    let mut tally = UploadTally::default();
    for (_, verdict) in verdicts {
        match verdict {
            Verdict::Accepted => tally.accepted += 1,
            Verdict::Duplicate => tally.duplicate += 1,
            Verdict::Rejected(_) | Verdict::Pending(_) => {} // counted as they are written
        }
    }
    tally
}

/// Stores that the upstream holds the events that it accepted or had before.
async fn write_held(
    tx: &mut PgConnection,
    upstream: Uuid,
    verdicts: &[(EventId, Verdict)],
) -> Result<(), sqlx::Error> {
    let is_held = |verdict: &Verdict| matches!(verdict, Verdict::Accepted | Verdict::Duplicate);
    let held = verdicts.iter().filter(|(_, verdict)| is_held(verdict));
    sqlx::query!(
        "with settled as (
             delete from upload_verdict where upstream_id = $2 and event_id = any($1)
         )
         insert into event_source (event_id, upstream_id)
         select n.id, upstream.id from unnest($1::bytea[]) as n (id), upstream where upstream.id = $2
         order by n.id
         on conflict do nothing",
        &rows_of(held.map(|(id, _)| id)),
        upstream,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Stores the other verdicts, and returns for each row that it wrote whether the event is rejected
/// now. An event that was rejected before keeps its row and is not counted again.
async fn write_open(
    tx: &mut PgConnection,
    upstream: Uuid,
    verdicts: &[(EventId, Verdict)],
) -> Result<Vec<bool>, sqlx::Error> {
    let mut open: Vec<(EventId, bool, String)> = verdicts.iter().filter_map(open).collect();
    open.sort_unstable();
    open.dedup_by_key(|(id, _, _)| *id);
    sqlx::query_scalar!(
        r#"insert into upload_verdict as v
               (upstream_id, event_id, verdict, message, attempts, next_try)
           select upstream.id, n.id, case when n.is_final then 'rejected' else 'pending' end,
                  n.message, 1, case when not n.is_final then now() + interval '1 minute' end
           from unnest($1::bytea[], $2::bool[], $3::text[]) as n (id, is_final, message), upstream
           where upstream.id = $4
           on conflict (upstream_id, event_id) do update set
               attempts = v.attempts + 1, message = excluded.message, updated_at = now(),
               verdict = case when v.attempts + 1 >= $5 then 'rejected' else excluded.verdict end,
               next_try = case when v.attempts + 1 >= $5 then null
                               when excluded.verdict = 'pending'
                               then now() + interval '1 minute' * 4 ^ v.attempts end
               where v.verdict = 'pending'
           returning verdict = 'rejected' as "is_rejected!""#,
        &column(&open, |(id, _, _)| id.0.to_vec()),
        &column(&open, |(_, is_final, _)| *is_final),
        &column(&open, |(_, _, message)| message.clone()),
        upstream,
        MAX_ATTEMPTS,
    )
    .fetch_all(tx)
    .await
}

/// The row of a verdict that leaves the event without a copy on the upstream: whether it is final,
/// and the reason.
fn open((id, verdict): &(EventId, Verdict)) -> Option<(EventId, bool, String)> {
    match verdict {
        Verdict::Accepted | Verdict::Duplicate => None,
        Verdict::Rejected(reason) => Some((*id, true, one_line(reason))),
        Verdict::Pending(reason) => Some((*id, false, one_line(reason))),
    }
}
