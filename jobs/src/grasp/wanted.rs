//! Wanted: the repositories of each service with their relays, roots and authors, and the coverage that
//! they ask of the followed relays. Changes are written in the transaction that stores the event, under
//! the lock of admission; relays with new coverage get a row in the outbox.
//!
//! - `announce`: the newest announcement of a repository decides on its relays. `rooms`: the limits of relays.
//! - `find`: what a new repository has among the accepted events.
//! - `leave`: repositories that leave. `delete`: what deletions take back. `ask`: the coverage that follows from a change.
//! - `lose`: items that are fetched again. `relays`: the rows of followed relays. `reconcile`: compares all coverage with all wanted.
//!   `compare`: one relay's.

mod announce;
mod ask;
mod compare;
mod delete;
mod find;
mod leave;
mod lose;
mod reconcile;
mod relays;
mod rooms;

use sqlx::PgConnection;
use uuid::Uuid;

use super::family::Family;
use crate::mirror::event::{EventId, column};

pub(super) use announce::Announced;
pub(super) use ask::Touched;
pub(super) use compare::ask_announcements;
pub(super) use delete::{Deletion, delete};
pub(super) use leave::left;
pub(super) use lose::{Lost, lose, lose_announcements, lose_of};
pub use reconcile::{Reconciled, reconcile, reconcile_all};
pub(super) use relays::ensure;
pub(super) use rooms::shrink;

/// What changes with some accepted events.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Accepted announcements.
    pub(super) announced: Vec<Announced>,
    /// Repositories whose newest announcement is refused: service, address, time and id.
    pub(super) leaving: Vec<(Uuid, String, i64, EventId)>,
    /// Roots: service, address of the repository, id and kind.
    pub(super) roots: Vec<(Uuid, String, EventId, u16)>,
    /// Authors of accepted events: service, address of the repository, and public key.
    pub(super) authors: Vec<(Uuid, String, [u8; 32])>,
}

/// Applies changes, and the coverage that follows from them.
pub(super) async fn apply(tx: &mut PgConnection, changes: Changes) -> Result<(), sqlx::Error> {
    let (mut came, mut gone) = (Touched::default(), Touched::default());
    leave::leave(tx, &changes.leaving, &mut gone).await?;
    let left = changes.leaving.iter().map(|(service, address, ..)| (*service, address.clone()));
    let touched: Vec<(Uuid, String)> =
        left.chain(changes.announced.iter().map(Announced::key)).collect();
    announce::announce(tx, changes.announced, &mut came, &mut gone).await?;
    leave::leave_unreached(tx, touched.into_iter(), &mut gone).await?;
    add_roots(tx, &changes.roots, &mut came).await?;
    add_authors(tx, &changes.authors, &mut came).await?;
    ask::ask(tx, &came).await?;
    ask::take_back(tx, &gone).await
}

async fn add_roots(
    tx: &mut PgConnection,
    roots: &[(Uuid, String, EventId, u16)],
    came: &mut Touched,
) -> Result<(), sqlx::Error> {
    if roots.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query!(
        "insert into grasp_root (upstream_id, address, event_id, kind)
         select distinct n.* from unnest($1::uuid[], $2::text[], $3::bytea[], $4::int[])
             n (upstream_id, address, event_id, kind)
         where (select true from grasp_repo r where r.upstream_id = n.upstream_id and r.address = n.address)
         order by 1, 2, 3
         on conflict do nothing
         returning upstream_id, address, event_id",
        &column(roots, |root| root.0),
        &column(roots, |root| root.1.clone()),
        &column(roots, |root| root.2.0.to_vec()),
        &column(roots, |root| i32::from(root.3)),
    )
    .fetch_all(tx)
    .await?;
    let items = rows
        .into_iter()
        .map(|row| (row.upstream_id, row.address, Family::Root, hex::encode(row.event_id)));
    came.items.extend(items);
    Ok(())
}

async fn add_authors(
    tx: &mut PgConnection,
    authors: &[(Uuid, String, [u8; 32])],
    came: &mut Touched,
) -> Result<(), sqlx::Error> {
    if authors.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query!(
        "insert into grasp_author (upstream_id, address, pubkey)
         select distinct n.* from unnest($1::uuid[], $2::text[], $3::bytea[]) n (upstream_id, address, pubkey)
         where (select true from grasp_repo r where r.upstream_id = n.upstream_id and r.address = n.address)
         order by 1, 2, 3
         on conflict do nothing
         returning upstream_id, address, pubkey",
        &column(authors, |author| author.0),
        &column(authors, |author| author.1.clone()),
        &column(authors, |author| author.2.to_vec()),
    )
    .fetch_all(tx)
    .await?;
    let items = rows
        .into_iter()
        .map(|row| (row.upstream_id, row.address, Family::Deletion, hex::encode(row.pubkey)));
    came.items.extend(items);
    Ok(())
}
