//! The rules that an event must pass before it is stored.

use std::{borrow::Cow, collections::HashSet};

use sqlx::PgConnection;

use super::{Outcomes, Refused, Stored, column, rows_of};
use crate::mirror::event::{Event, EventId, Reason, Rule};

/// The most seconds that an event may be ahead of our clock.
pub(super) const FUTURE: i64 = 900;

/// Events on their way into the store: those that passed so far, and those that were refused.
pub(super) struct Sieve<'a> {
    now: i64,
    kept: Vec<&'a Event>,
    refused: Vec<Refused>,
}

impl<'a> Sieve<'a> {
    /// Takes one copy of each event, and refuses those that no upstream may send at this time.
    pub(super) async fn new(
        tx: &mut PgConnection,
        events: &[&'a Event],
    ) -> Result<Self, sqlx::Error> {
        let now = unix_now(tx).await?;
        let mut sieve = Self { now, kept: unique(events), refused: Vec::new() };
        sieve.refuse(|event| refusal(event, now));
        Ok(sieve)
    }

    /// Refuses the events for which there is a reason.
    pub(super) fn refuse(&mut self, reason: impl Fn(&Event) -> Option<Reason>) {
        let refused = &mut self.refused;
        self.kept.retain(|event| {
            let reason = reason(event);
            refused.extend(reason.map(|reason| Refused::of(event, reason)));
            reason.is_none()
        });
    }

    /// Returns the events that passed, ordered by time and id.
    pub(super) fn kept(&self) -> &[&'a Event] {
        &self.kept
    }

    pub(super) fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// Returns the instant at which the rules were applied, in Unix seconds.
    pub(super) fn now(&self) -> i64 {
        self.now
    }

    /// Returns the outcomes, given the ids that were inserted.
    pub(super) fn outcomes(self, new: Vec<EventId>) -> Outcomes {
        let refused = self.refused.into_iter();
        let refused = refused.map(|one| (one.id, Stored::Refused(one.reason)));
        new.into_iter().map(|id| (id, Stored::New)).chain(refused).collect()
    }
}

/// Returns one copy of each event, in the order in which all transactions lock them.
fn unique<'a>(events: &[&'a Event]) -> Vec<&'a Event> {
    let mut events = events.to_vec();
    events.sort_by_key(|event| (event.created_at, event.id));
    events.dedup_by_key(|event| event.id);
    events
}

/// Reads the clock as it is now, and not as it was when the transaction began, because the
/// transaction may have waited for a lock.
async fn unix_now(tx: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(r#"select extract(epoch from clock_timestamp())::bigint as "now!""#)
        .fetch_one(tx)
        .await
}

/// Why an event is refused at this time, whichever upstream sends it; `None` if it is not.
fn refusal(event: &Event, now: i64) -> Option<Reason> {
    if event.rule() == Rule::Ephemeral {
        return Some(Reason::Ephemeral);
    }
    if event.created_at > now + FUTURE {
        return Some(Reason::Future);
    }
    if event.expires_at().is_some_and(|at| at <= now) {
        return Some(Reason::Expired);
    }
    event.is_protected().then_some(Reason::Protected)
}

/// Returns the ids of the events that a stored deletion covers.
pub(crate) async fn deleted(
    tx: &mut PgConnection,
    events: &[&Event],
) -> Result<HashSet<EventId>, sqlx::Error> {
    let rows = sqlx::query_scalar!(
        r#"select n.id as "id!"
           from unnest($1::bytea[], $2::bytea[], $3::int[], $4::text[], $5::bigint[])
               as n (id, pubkey, kind, d_tag, created_at)
           where (select true from deletion_mark m where m.target = n.id and m.author = n.pubkey limit 1)
              or (select true from deletion_address a
                  where a.author = n.pubkey and a.kind = n.kind and a.d_tag = n.d_tag
                    and a.up_to >= n.created_at limit 1)"#,
        &rows_of(events.iter().map(|event| &event.id)),
        &column(events, |event| event.pubkey.to_vec()),
        &column(events, |event| i32::from(event.kind)),
        &column(events, |event| event.key_tag().map(Cow::into_owned)) as &[Option<String>],
        &column(events, |event| event.created_at),
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.iter().map(|id| EventId::of_row(id)).collect())
}
