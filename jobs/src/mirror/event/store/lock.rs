//! The store's transactions and their locks.

use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use uuid::Uuid;

/// The advisory lock of the store; the number has no meaning, and no other lock uses it.
pub(in crate::mirror::event) const LOCK: i64 = 0x54_45_4e_44_45_52;

/// Begins a transaction whose commit does not wait for the disk. A crash of the server may lose it,
/// but not after a later commit that did wait: PostgreSQL's log keeps the order of commits. A
/// window is marked as done by such a commit, so a window that is done has its events.
///
/// The upstream's row is locked first. A deletion of the upstream locks this row before it deletes
/// the lanes, so that both wait here and not for each other.
pub(in crate::mirror::event) async fn begin(
    db: &PgPool,
    upstream: Uuid,
) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    sqlx::query!("set local synchronous_commit = off").execute(&mut *tx).await?;
    sqlx::query!("select id from upstream where id = $1 for key share", upstream)
        .fetch_optional(&mut *tx)
        .await?;
    Ok(tx)
}

/// Takes the store's lock until the end of the transaction, together with others that store.
pub(in crate::mirror::event) async fn shared(tx: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("select pg_advisory_xact_lock_shared($1)", LOCK).execute(tx).await?;
    Ok(())
}

/// Takes the store's lock until the end of the transaction, alone.
pub(in crate::mirror::event) async fn alone(tx: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("select pg_advisory_xact_lock($1)", LOCK).execute(tx).await?;
    Ok(())
}
