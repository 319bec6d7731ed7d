//! How gaps are written: a finished window replaces the gaps in it.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Finished, Gap, GapKind, MOST_IDS, MOST_WINDOWS};
use crate::{mirror::event::EventId, queue::one_line};

/// The reason of the span that stands for the gaps beyond a bound.
const TOO_MANY: &str = "the lane has more gaps than it keeps one by one";

/// A gap with its account of retries.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) gap: Gap,
    /// `None` for now.
    first_seen_at: Option<DateTime<Utc>>,
    attempts: i32,
    /// `None` for the wait that follows from the attempts.
    retry_at: Option<DateTime<Utc>>,
    /// Whether its retry was due. One that a job has taken is not: its attempt is counted already.
    is_due: bool,
}

/// A stored gap, as it is taken from the table.
pub(super) struct Row {
    pub(super) kind: GapKind,
    pub(super) since: i64,
    pub(super) until: i64,
    pub(super) event_id: Option<Vec<u8>>,
    pub(super) reason: String,
    pub(super) first_seen_at: DateTime<Utc>,
    pub(super) attempts: i32,
    pub(super) retry_at: DateTime<Utc>,
    pub(super) is_due: bool,
}

impl From<Gap> for Kept {
    fn from(gap: Gap) -> Self {
        Self { gap, first_seen_at: None, attempts: 0, retry_at: None, is_due: false }
    }
}

impl From<Row> for Kept {
    fn from(row: Row) -> Self {
        let event_id = row.event_id.map(|id| EventId::of_row(&id));
        let (kind, since, until, reason) = (row.kind, row.since, row.until, row.reason);
        Self {
            gap: Gap { kind, since, until, event_id, reason },
            first_seen_at: Some(row.first_seen_at),
            attempts: row.attempts,
            retry_at: Some(row.retry_at),
            is_due: row.is_due,
        }
    }
}

impl Kept {
    /// Takes over the account of the old gaps that this one continues: the same event, or windows
    /// that overlap. Each of them that was due counts an attempt.
    fn continuing(mut self, old: &[Kept]) -> Self {
        for old in old.iter().filter(|old| old.gap.continues_as(&self.gap)) {
            self.attempts = self.attempts.max(old.attempts + i32::from(old.is_due));
            self.first_seen_at = match (self.first_seen_at, old.first_seen_at) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
        self
    }

    /// Returns the parts of a window that lie outside of the finished one. They stay as they are.
    fn rest(&self, finished: &Finished) -> Vec<Self> {
        let (since, until) = (self.gap.since, self.gap.until);
        let parts =
            [(since, until.min(finished.since - 1)), (since.max(finished.until + 1), until)];
        let is_window = self.gap.event_id.is_none();
        let parts = parts.into_iter().filter(|_| is_window);
        parts.filter_map(|(since, until)| self.part(since, until)).collect()
    }

    /// Returns the part of a window from `since` to `until`; `None` if there is none.
    pub(super) fn part(&self, since: i64, until: i64) -> Option<Self> {
        let (since, until) = (since.max(self.gap.since), until.min(self.gap.until));
        let part = || Self { gap: Gap { since, until, ..self.gap.clone() }, ..self.clone() };
        (since <= until).then(part)
    }

    /// Counts an attempt. The gap waits for its next retry from now on.
    pub(super) fn tried(self) -> Self {
        Self { attempts: self.attempts.saturating_add(1), retry_at: None, ..self }
    }

    pub(super) fn waiting_until(self, at: DateTime<Utc>) -> Self {
        Self { retry_at: Some(at), ..self }
    }

    /// Takes an attempt back that was counted. The gap is due at `now`.
    pub(super) fn due_again(self, now: DateTime<Utc>) -> Self {
        Self { attempts: (self.attempts - 1).max(0), ..self }.waiting_until(now)
    }
}

impl Gap {
    fn continues_as(&self, new: &Self) -> bool {
        let is_near = self.since <= new.until && new.since <= self.until;
        self.event_id == new.event_id && (is_near || self.event_id.is_some())
    }
}

/// Adds gaps to a lane, outside of any finished window. A gap that exists stays as it is.
pub async fn add(tx: &mut PgConnection, lane: Uuid, gaps: &[Gap]) -> Result<(), sqlx::Error> {
    let gaps: Vec<Kept> = gaps.iter().cloned().map(Kept::from).collect();
    insert(tx, lane, &gaps).await?;
    bound(tx, lane).await?;
    sum(tx, lane).await
}

/// Replaces the gaps in a finished window by those that were found this time. A gap that was due and
/// is found again counts an attempt and waits twice as long: from one hour up to a day. The part of an old
/// gap outside of the window stays as it is.
pub(in crate::mirror::lane) async fn replace(
    tx: &mut PgConnection,
    lane: Uuid,
    finished: &Finished,
) -> Result<(), sqlx::Error> {
    let old = take(tx, lane, finished).await?;
    if old.is_empty() && finished.gaps.is_empty() {
        return Ok(());
    }
    let new = finished.gaps.iter().cloned().map(|gap| Kept::from(gap).continuing(&old));
    let rest = old.iter().flat_map(|old| old.rest(finished));
    insert(tx, lane, &rest.chain(new).collect::<Vec<_>>()).await?;
    bound(tx, lane).await?;
    sum(tx, lane).await
}

/// Deletes and returns the gaps in a window: windows that overlap it, and ids that were found again,
/// that the upstream no longer lists in this window, or that are stored by now.
async fn take(
    tx: &mut PgConnection,
    lane: Uuid,
    finished: &Finished,
) -> Result<Vec<Kept>, sqlx::Error> {
    let found = finished.gaps.iter().filter_map(|gap| gap.event_id);
    let found = found.chain(finished.retried.iter().copied());
    let taken = sqlx::query_as!(
        Row,
        r#"delete from lane_gap g
           where lane_id = $1 and case
               when event_id is null then since <= $3 and until >= $2
               when event_id = any ($4) then true
               when exists (select from event e where e.id = g.event_id) then true
               else since >= $2 and until <= $3 and event_id <> all ($5) end
           returning kind as "kind: GapKind", since, until, event_id, reason, first_seen_at, attempts,
                     retry_at, retry_at <= now() as "is_due!""#,
        lane,
        finished.since,
        finished.until,
        &bytes(found),
        &bytes(finished.skipped.iter().copied()),
    )
    .fetch_all(tx)
    .await?;
    Ok(taken.into_iter().map(Kept::from).collect())
}

fn bytes(ids: impl Iterator<Item = EventId>) -> Vec<Vec<u8>> {
    ids.map(|id| id.0.to_vec()).collect()
}

pub(super) async fn insert(
    tx: &mut PgConnection,
    lane: Uuid,
    gaps: &[Kept],
) -> Result<(), sqlx::Error> {
    fn column<'a, T>(gaps: &'a [Kept], of: impl Fn(&'a Kept) -> T) -> Vec<T> {
        gaps.iter().map(of).collect()
    }
    sqlx::query!(
        r#"insert into lane_gap (lane_id, kind, since, until, event_id, reason, first_seen_at, attempts,
                                 retry_at)
           select $1, kind, since, until, event_id, reason, coalesce(first_seen_at, now()), attempts,
                  coalesce(retry_at,
                      now() + make_interval(secs => least(3600 * 2::float8 ^ least(attempts, 5), 86400)))
           from unnest($2::text[], $3::bigint[], $4::bigint[], $5::bytea[], $6::text[],
                       $7::timestamptz[], $8::int[], $9::timestamptz[])
                as new (kind, since, until, event_id, reason, first_seen_at, attempts, retry_at)
           on conflict do nothing"#,
        lane,
        &column(gaps, |kept| kept.gap.kind.as_str().to_owned()),
        &column(gaps, |kept| kept.gap.since),
        &column(gaps, |kept| kept.gap.until),
        &column(gaps, |kept| kept.gap.event_id.map(|id| id.0.to_vec())) as &[Option<Vec<u8>>],
        &column(gaps, |kept| one_line(&kept.gap.reason)),
        &column(gaps, |kept| kept.first_seen_at) as &[Option<DateTime<Utc>>],
        &column(gaps, |kept| kept.attempts),
        &column(gaps, |kept| kept.retry_at) as &[Option<DateTime<Utc>>],
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Joins the newest ids, and then the newest windows, to one span, if the lane has more of them than
/// it may keep.
async fn bound(tx: &mut PgConnection, lane: Uuid) -> Result<(), sqlx::Error> {
    for (is_id, most) in [(true, MOST_IDS), (false, MOST_WINDOWS)] {
        let joined = sqlx::query!(
            r#"with numbered as (
                   select id, row_number() over (order by first_seen_at, id) as number,
                          count(*) over () as all_of_them
                   from lane_gap where lane_id = $1 and (event_id is not null) = $2),
               gone as (
                   delete from lane_gap using numbered n
                   where lane_gap.id = n.id and n.all_of_them > $3 and n.number >= $3
                   returning since, until)
               select min(since) as since, max(until) as until from gone"#,
            lane,
            is_id,
            i64::try_from(most).unwrap_or(i64::MAX),
        )
        .fetch_one(&mut *tx)
        .await?;
        if let (Some(since), Some(until)) = (joined.since, joined.until) {
            insert(tx, lane, &[Gap::span(since, until, TOO_MANY).into()]).await?;
        }
    }
    Ok(())
}

/// Counts the gaps of a lane anew.
pub(super) async fn sum(tx: &mut PgConnection, lane: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update lane set gap_seconds = sums.seconds, gap_ids = sums.ids, gap_spans = sums.spans,
                gaps_since = sums.since, gap_retry_at = sums.retry_at
         from (select count(*) filter (where kind = 'second')::int as seconds,
                      count(*) filter (where kind = 'id')::int as ids,
                      count(*) filter (where kind = 'span')::int as spans,
                      min(first_seen_at) as since, min(retry_at) as retry_at
               from lane_gap where lane_id = $1) sums
         where lane.id = $1",
        lane,
    )
    .execute(tx)
    .await?;
    Ok(())
}
