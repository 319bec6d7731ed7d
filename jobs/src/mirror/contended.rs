//! Transactions that lock much, and may meet others.

use sqlx::error::DatabaseError;

/// Attempts of a transaction that other transactions keep from its end.
const TRIES: u32 = 5;

/// Runs a transaction again while PostgreSQL ends it because of another one, up to five times: as the
/// victim of a deadlock, or because they cannot be serialised (SQLSTATE class 40). The other
/// transaction has gone on by then.
pub(crate) async fn retried<T, F>(transaction: impl Fn() -> F) -> Result<T, sqlx::Error>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    for _ in 1..TRIES {
        match transaction().await {
            Err(error) if is_contended(&error) => {}
            ended => return ended,
        }
    }
    transaction().await
}

fn is_contended(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.is_some_and(|code| code.starts_with("40"))
}
