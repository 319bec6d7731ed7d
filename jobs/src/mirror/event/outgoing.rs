//! Outgoing events: those that an upstream does not have yet, and its verdicts on events that were
//! sent. Everything that an upstream gets is sent by its upload lane.
//!
//! - `candidates`: the events that the lane has not reached yet, in the order of their arrival.
//! - `waiting`: events that are sent again, those that a reconciliation found missing (`lost`), and
//!   those that were admitted after they had been stored (`offer`).
//! - `verdict`: the answers. `begin`: what a run of the lane finds. `rest`: when the lane may rest.

mod begin;
mod candidates;
mod lost;
mod offer;
mod rest;
mod verdict;
mod waiting;

use serde_json::Value;
use sqlx::PgExecutor;

use super::{Event, EventId, exact, store::rows_of};

pub use begin::{Begun, begin, mark_sending};
pub use candidates::{Candidate, Candidates, candidates};
pub(crate) use candidates::{first_after, horizon};
pub use lost::lost;
pub(crate) use offer::offer;
pub(in crate::mirror) use rest::has_work;
pub(in crate::mirror) use verdict::Told;
pub use verdict::{NOT_SENT, Reached, UploadTally, Verdict, judge};
pub use waiting::{Waiting, mark_sent, waiting};

/// The row of an event.
struct Row {
    id: Vec<u8>,
    pubkey: Vec<u8>,
    created_at: i64,
    kind: i32,
    tags: Value,
    content: String,
    sig: Vec<u8>,
}

impl From<Row> for Event {
    fn from(row: Row) -> Self {
        let (mut pubkey, mut sig) = ([0; 32], [0; 64]);
        pubkey.copy_from_slice(&row.pubkey[..32]); // the table checks the lengths
        sig.copy_from_slice(&row.sig[..64]);
        let (tags, content) = exact::read(row.tags, row.content);
        Self {
            id: EventId::of_row(&row.id),
            pubkey,
            created_at: row.created_at,
            kind: u16::try_from(row.kind).unwrap_or_default(),
            tags,
            content,
            sig,
        }
    }
}

/// Finds stored events by their ids, deleted ones included, in no particular order.
pub async fn by_ids(db: impl PgExecutor<'_>, ids: &[EventId]) -> Result<Vec<Event>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        "select id, pubkey, created_at, kind, tags, content, sig from event where id = any($1)",
        &rows_of(ids.iter()),
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Event::from).collect())
}

/// Finds stored events by their ids, without deleted ones, in no particular order.
pub(crate) async fn live_by_ids(
    db: impl PgExecutor<'_>,
    ids: &[EventId],
) -> Result<Vec<Event>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        "select id, pubkey, created_at, kind, tags, content, sig from event
         where id = any($1) and deleted_at is null",
        &rows_of(ids.iter()),
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Event::from).collect())
}
