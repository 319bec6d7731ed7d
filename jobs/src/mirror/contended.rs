//! Transactions that lock much, and may deadlock with others.

/// Attempts of a transaction that PostgreSQL ends as the victim of a deadlock.
const TRIES: u32 = 5;

/// Runs a transaction again while PostgreSQL ends it as the victim of a deadlock (40P01), up to five
/// times. The other transaction has gone on by then.
pub(super) async fn retried<T, F>(transaction: impl Fn() -> F) -> Result<T, sqlx::Error>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    for _ in 1..TRIES {
        match transaction().await {
            Err(error) if is_deadlock(&error) => {}
            ended => return ended,
        }
    }
    transaction().await
}

fn is_deadlock(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|found| found.code()).as_deref() == Some("40P01")
}
