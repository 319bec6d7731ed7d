//! How far walks through a history have come that took too long. The next one goes on there.

use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    grasp::{batch::Batch, family::Family, followed::Lease},
    mirror::{contended, filter::Filter},
};

/// A part of a history, from now back to a second, that a walk has proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walked {
    /// When the first walk began, in Unix seconds: what was published since is not part of it.
    pub at: i64,
    /// Everything after this second was offered to us.
    pub until: i64,
}

/// Returns the items of a filter, and the name under which its walk is kept.
fn named(filter: &Filter) -> (Vec<String>, String) {
    match filter.tags.iter().next() {
        Some((tag, values)) => (values.iter().cloned().collect(), tag.to_string()),
        None if filter.authors.is_empty() => (vec!["*".to_owned()], "kinds".to_owned()),
        None => (filter.authors.iter().cloned().collect(), "authors".to_owned()),
    }
}

/// Returns how far the walks of all items of the filter have come; `None` if one of them was not walked, or not
/// within a day.
pub async fn walked(
    db: &PgPool,
    relay: Uuid,
    family: Family,
    filter: &Filter,
) -> Result<Option<Walked>, sqlx::Error> {
    let (items, name) = named(filter);
    let row = sqlx::query!(
        "select min((walked -> $4 ->> 'at')::bigint) as at, max((walked -> $4 ->> 'until')::bigint) as until
         from grasp_coverage where relay_id = $1 and family = $2 and item = any($3)
         having bool_and(walked ? $4)
            and min((walked -> $4 ->> 'at')::bigint) > extract(epoch from now()) - 86400",
        relay,
        family.as_str(),
        &items,
        name,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.and_then(|row| Some(Walked { at: row.at?, until: row.until? })))
}

/// Stores how far the walk of a filter has come, for the items that are still in flight with the batch: the proof of
/// a batch does not count for an item that was asked for again meanwhile.
pub async fn note_walked(
    db: &PgPool,
    batch: &Batch,
    filter: &Filter,
    walked: Walked,
) -> Result<(), sqlx::Error> {
    let (items, name) = named(filter);
    let walked: Value = json!({ name: { "at": walked.at, "until": walked.until } });
    contended::retried(|| {
        sqlx::query!(
            "update grasp_coverage c set walked = c.walked || $5
             from grasp_relay r
             where r.id = $1 and r.lease_epoch = $2 and r.lease_until > now() and c.relay_id = r.id
               and c.family = $3 and c.item = any($4) and c.batch = $6",
            batch.lease.relay,
            batch.lease.epoch,
            batch.family.as_str(),
            &items,
            walked,
            batch.id,
        )
        .execute(db)
    })
    .await?;
    Ok(())
}

/// Forgets how far the walks of a relay have come, because events of an earlier time may have been published since the
/// relay was followed.
pub async fn forget_walked(db: &PgPool, lease: Lease) -> Result<(), sqlx::Error> {
    contended::retried(|| {
        sqlx::query!(
            "update grasp_coverage c set walked = '{}'
             from grasp_relay r
             where r.id = $1 and r.lease_epoch = $2 and r.lease_until > now() and c.relay_id = r.id
               and c.walked <> '{}'",
            lease.relay,
            lease.epoch,
        )
        .execute(db)
    })
    .await?;
    Ok(())
}
