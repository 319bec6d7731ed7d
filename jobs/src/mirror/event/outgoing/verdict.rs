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
    /// The upstream may take the event later; its reason.
    Pending(String),
    /// The upstream gave no answer in time.
    Unanswered(String),
    /// The connection was lost before the answer.
    Lost {
        /// Why the connection was lost.
        reason: String,
        /// Whether no other event was on its way, so that this event may be the cause.
        is_alone: bool,
    },
}

/// What a run of an upload lane has reached with a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reached {
    /// Every event up to this position has a verdict. The lane's value never falls.
    pub position: Option<i64>,
    /// The events up to this position are sent next; see [`mark_sending`](super::mark_sending).
    pub sending: Option<i64>,
    /// Whether the upstream answered any event of the batch.
    pub is_answered: bool,
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

/// Stores verdicts, counts them on the upload lane, and returns the counts, all under the lane's
/// lease; [`Settled::LeaseLost`] means that nothing was stored, and the caller must stop.
///
/// An event that the upstream may take later has an attempt spent, and is rejected after five. One
/// without an answer is rejected only if the upstream has answered others since, and one with which
/// the connection was lost, if it was sent alone and the upstream answered others at most an hour
/// before: a relay that does not work at all rejects nothing.
pub async fn judge(
    db: &PgPool,
    lease: &Lease,
    verdicts: &[(EventId, Verdict)],
    reached: Reached,
) -> Result<Settled<UploadTally>, sqlx::Error> {
    let mut tx = db.begin().await?;
    let mut tally = count_held(verdicts);
    let upstream = lease.lane.upstream_id;
    write_held(&mut tx, upstream, verdicts).await?;
    for is_rejected in write_open(&mut tx, upstream, verdicts).await? {
        let count = if is_rejected { &mut tally.rejected } else { &mut tally.pending };
        *count += 1;
    }
    let last = verdicts.iter().rfind(|(_, verdict)| *verdict == Verdict::Accepted);
    let last = last.map(|(id, _)| *id);
    if lane::count_uploads(&mut *tx, lease, tally, last, reached).await? == Settled::LeaseLost {
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
            _ => {} // counted as they are written
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
    let mut open: Vec<Open> = verdicts.iter().filter_map(open).collect();
    open.sort_unstable();
    open.dedup_by_key(|row| row.id);
    if open.is_empty() {
        return Ok(Vec::new());
    }
    sqlx::query_scalar!(
        r#"with given as (
               select n.*, lane.upload_answered_at
               from unnest($1::bytea[], $2::bool[], $3::bool[], $4::bool[], $5::bool[], $6::text[])
                   as n (id, is_final, is_sent, is_lost, is_alone, message)
               join lane on lane.upstream_id = $7 and lane.lane = 'upload'
           ), again as (
               select given.*, v.attempts + 1 as attempts,
                      is_final or (v.attempts + 1 >= $8 and case
                          when is_lost then is_alone
                              and coalesce(upload_answered_at > v.created_at - interval '1 hour', false)
                          when given.is_sent then coalesce(upload_answered_at > v.created_at, false)
                          else true end) as is_over
               from given join upload_verdict v
                   on v.upstream_id = $7 and v.event_id = given.id and v.verdict = 'pending'
           ), updated as (
               update upload_verdict v set
                   verdict = case when is_over then 'rejected' else 'pending' end,
                   attempts = case when is_over then again.attempts else least(again.attempts, $8 - 1) end,
                   next_try = case when not is_over
                                   then now() + interval '1 minute' * 4 ^ least(v.attempts, 5) end,
                   message = again.message, is_suspect = is_lost, is_sent = again.is_sent,
                   updated_at = now()
               from again where v.upstream_id = $7 and v.event_id = again.id
               returning is_over
           ), inserted as (
               insert into upload_verdict
                   (upstream_id, event_id, verdict, message, attempts, next_try, is_suspect, is_sent)
               select $7, id, case when is_final then 'rejected' else 'pending' end, message, 1,
                      case when not is_final then now() + interval '1 minute' end, is_lost, is_sent
               from given where not exists (
                   select from upload_verdict v where v.upstream_id = $7 and v.event_id = given.id)
               order by id
               on conflict do nothing
               returning verdict = 'rejected' as is_over
           )
           select is_over as "is_over!" from updated union all select is_over from inserted"#,
        &column(&open, |row| row.id.0.to_vec()),
        &column(&open, |row| row.is_final),
        &column(&open, |row| row.is_sent),
        &column(&open, |row| row.is_lost),
        &column(&open, |row| row.is_alone),
        &column(&open, |row| row.message.clone()),
        upstream,
        MAX_ATTEMPTS,
    )
    .fetch_all(tx)
    .await
}

/// The row of a verdict that leaves the event without a copy on the upstream, as far as is known.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Open {
    id: EventId,
    is_final: bool,
    /// Whether the upstream may have the event although it did not say so.
    is_sent: bool,
    is_lost: bool,
    is_alone: bool,
    message: String,
}

fn open((id, verdict): &(EventId, Verdict)) -> Option<Open> {
    let (message, is_final, is_sent) = match verdict {
        Verdict::Accepted | Verdict::Duplicate => return None,
        Verdict::Rejected(reason) => (reason, true, false),
        Verdict::Pending(reason) => (reason, false, false),
        Verdict::Unanswered(reason) | Verdict::Lost { reason, .. } => (reason, false, true),
    };
    let is_lost = matches!(verdict, Verdict::Lost { .. });
    let is_alone = matches!(verdict, Verdict::Lost { is_alone: true, .. });
    Some(Open { id: *id, is_final, is_sent, is_lost, is_alone, message: one_line(message) })
}
