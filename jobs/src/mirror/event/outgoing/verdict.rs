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

/// The beginning of our own reason for not sending an event.
pub const NOT_SENT: &str = "not sent: ";

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
    /// Whether the upstream took or judged any event of the batch. An `error:` judges none.
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
    /// Those of `pending` that have spent no attempt.
    pub kept: i64,
}

impl UploadTally {
    /// Adds the counts of another tally.
    pub fn add(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.duplicate += other.duplicate;
        self.rejected += other.rejected;
        self.pending += other.pending;
        self.kept += other.kept;
    }

    /// Whether anything was learned of an event: a verdict, or a spent attempt.
    pub fn shows_progress(self) -> bool {
        self.accepted + self.duplicate + self.rejected > 0 || self.pending > self.kept
    }
}

/// Stores verdicts, counts them on the upload lane, and returns the counts, all under the lane's
/// lease; [`Settled::LeaseLost`] means that nothing was stored, and the caller must stop.
///
/// An event that the upstream may take later, or did not answer, spends an attempt only if the
/// upstream judged others in the same batch or since; after five it is rejected. One with which the
/// connection was lost spends an attempt, and is rejected if it was sent alone and the upstream judged
/// others at most an hour before: a relay that does not work at all rejects nothing.
pub async fn judge(
    db: &PgPool,
    lease: &Lease,
    verdicts: &[(EventId, Verdict)],
    reached: Reached,
) -> Result<Settled<UploadTally>, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    let mut tally = count_held(verdicts);
    let upstream = lease.lane.upstream_id;
    write_held(&mut tx, upstream, verdicts).await?;
    for written in write_open(&mut tx, upstream, verdicts, reached.is_answered).await? {
        tally.rejected += i64::from(written.is_over);
        tally.pending += i64::from(!written.is_over);
        tally.kept += i64::from(written.is_kept);
    }
    let last = verdicts.iter().rfind(|(_, verdict)| *verdict == Verdict::Accepted);
    let last = last.map(|(id, _)| *id);
    let told = Told { last, refusal: refusal(verdicts) };
    if lane::count_uploads(&mut *tx, lease, tally, &told, reached).await? == Settled::LeaseLost {
        return Ok(Settled::LeaseLost); // rolls back the verdicts too
    }
    tx.commit().await?;
    Ok(Settled::Written(tally))
}

/// What the upstream told last.
pub(in crate::mirror) struct Told {
    /// The last event that it accepted.
    pub(in crate::mirror) last: Option<EventId>,
    /// Its words for the last event that it refused.
    pub(in crate::mirror) refusal: Option<String>,
}

/// Returns the last words of the upstream for an event that it did not take.
fn refusal(verdicts: &[(EventId, Verdict)]) -> Option<String> {
    verdicts.iter().rev().find_map(|(_, verdict)| match verdict {
        Verdict::Rejected(words) if words.starts_with(NOT_SENT) => None,
        Verdict::Rejected(words) | Verdict::Pending(words) => Some(one_line(words)),
        _ => None,
    })
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

/// The row of an event that the upstream did not take.
struct Written {
    /// Whether the event is rejected now.
    is_over: bool,
    /// Whether it waits, and has spent no attempt.
    is_kept: bool,
}

/// Stores the other verdicts, and returns the rows that it wrote. An event that was rejected before
/// keeps its row. One that spends no attempt is due at once, because the run fails or goes on.
async fn write_open(
    tx: &mut PgConnection,
    upstream: Uuid,
    verdicts: &[(EventId, Verdict)],
    is_answered: bool,
) -> Result<Vec<Written>, sqlx::Error> {
    let mut open: Vec<Open> = verdicts.iter().filter_map(open).collect();
    open.sort_unstable();
    open.dedup_by_key(|row| row.id);
    if open.is_empty() {
        return Ok(Vec::new());
    }
    sqlx::query_as!(
        Written,
        r#"with given as (
               select n.*, lane.upload_answered_at, is_lost or is_final or $9 as spends
               from unnest($1::bytea[], $2::bool[], $3::bool[], $4::bool[], $5::bool[], $6::text[])
                   as n (id, is_final, is_sent, is_lost, is_alone, message)
               join lane on lane.upstream_id = $7 and lane.lane = 'upload'
           ), again as (
               select given.*, v.attempts as before,
                      v.attempts + (spends or coalesce(upload_answered_at >= v.created_at, false))::int as attempts,
                      coalesce(upload_answered_at > v.created_at - interval '1 hour', false) as was_well
               from given join upload_verdict v
                   on v.upstream_id = $7 and v.event_id = given.id and v.verdict = 'pending'
           ), judged as (
               select *, is_final or (attempts >= $8 and (not is_lost or (is_alone and was_well))) as is_over
               from again
           ), updated as (
               update upload_verdict v set
                   verdict = case when is_over then 'rejected' else 'pending' end,
                   attempts = case when is_over then judged.attempts else least(judged.attempts, $8 - 1) end,
                   next_try = case when is_over then null
                                   when judged.attempts = before then now()
                                   else now() + interval '1 minute' * 4 ^ least(before, 5) end,
                   message = judged.message, is_suspect = is_lost, is_sent = judged.is_sent,
                   updated_at = now()
               from judged where v.upstream_id = $7 and v.event_id = judged.id
               returning is_over, not is_over and v.attempts = before as is_kept
           ), inserted as (
               insert into upload_verdict
                   (upstream_id, event_id, verdict, message, attempts, next_try, is_suspect, is_sent)
               select $7, id, case when is_final then 'rejected' else 'pending' end, message, spends::int,
                      case when not is_final then now() + interval '1 minute' * spends::int end, is_lost, is_sent
               from given where not exists (
                   select from upload_verdict v where v.upstream_id = $7 and v.event_id = given.id)
               order by id
               on conflict do nothing
               returning verdict = 'rejected' as is_over, attempts = 0 as is_kept
           )
           select is_over as "is_over!", is_kept as "is_kept!" from updated
           union all select is_over, is_kept from inserted"#,
        &column(&open, |row| row.id.0.to_vec()),
        &column(&open, |row| row.is_final),
        &column(&open, |row| row.is_sent),
        &column(&open, |row| row.is_lost),
        &column(&open, |row| row.is_alone),
        &column(&open, |row| row.message.clone()),
        upstream,
        MAX_ATTEMPTS,
        is_answered,
    )
    .fetch_all(tx)
    .await
}

/// The row of a verdict that leaves the event without a copy on the upstream, as far as is known.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::struct_excessive_bools, reason = "columns of a row")]
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
