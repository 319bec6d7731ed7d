//! The bytes of received messages that wait for their consumers, and of batches that are stored.
//!
//! Invariant: whoever holds bytes waits only for a bounded time or for the database, never for other
//! bytes of the same budget. A queued message waits for its consumer; a consumer gives back the bytes
//! of a message when it takes it over, and waits only for bytes of storing; a batch that is stored
//! waits only for its turn and a place at the gate, if it is history, and for the database. Live events have bytes of
//! storing of their own, so that they wait for no history. A connection without queued messages needs no share of the
//! process, so that the slow consumers of other connections cannot stop it.

use std::sync::Arc;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// The most bytes that wait on one connection.
const PER_CONNECTION: usize = 16 * 1024 * 1024;
/// The most bytes that wait in this process, apart from one message per connection.
const PER_PROCESS: usize = 24 * 1024 * 1024;
/// The most bytes of history that is verified and stored at the same time in this process.
const STORING: usize = 6 * 1024 * 1024;
/// The same of other events.
const STORING_LIVE: usize = 2 * 1024 * 1024;
/// What a waiting message costs beside its text.
const OVERHEAD: usize = 256;

static PROCESS: Semaphore = Semaphore::const_new(PER_PROCESS);
static IN_STORE: Semaphore = Semaphore::const_new(STORING);
static LIVE_IN_STORE: Semaphore = Semaphore::const_new(STORING_LIVE);

/// The budget of one connection.
#[derive(Debug)]
pub(super) struct Budget(Arc<Semaphore>);

/// The bytes of a waiting message; dropping it gives them back.
#[derive(Debug, Default)]
pub(crate) struct Held {
    _of_connection: Option<OwnedSemaphorePermit>,
    _of_process: Option<SemaphorePermit<'static>>,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(PER_CONNECTION)))
    }

    /// Waits for the bytes of a message.
    pub(super) async fn take(&self, bytes: usize) -> Result<Held, AcquireError> {
        let bytes = permits(bytes.saturating_add(OVERHEAD), PER_CONNECTION);
        let is_first = self.0.available_permits() == PER_CONNECTION;
        let of_connection = self.0.clone().acquire_many_owned(bytes).await?;
        let of_process = match PROCESS.try_acquire_many(bytes) {
            Ok(permit) => Some(permit),
            Err(_) if is_first => None,
            Err(_) => Some(PROCESS.acquire_many(bytes).await?),
        };
        Ok(Held { _of_connection: Some(of_connection), _of_process: of_process })
    }
}

/// Waits for the bytes of a batch that is to be verified and stored.
pub(crate) async fn storing(bytes: usize, is_history: bool) -> Option<SemaphorePermit<'static>> {
    let (budget, most) =
        if is_history { (&IN_STORE, STORING) } else { (&LIVE_IN_STORE, STORING_LIVE) };
    budget.acquire_many(permits(bytes, most)).await.ok() // it is never closed
}

/// Returns the permits for `bytes`. A single item may take the whole budget.
fn permits(bytes: usize, most: usize) -> u32 {
    u32::try_from(bytes.min(most)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_waits_for_its_bytes_and_another_one_does_not() {
        let (full, other) = (Budget::new(), Budget::new());
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(full.take(PER_CONNECTION / 4).await);
        }
        let mut waiting = std::pin::pin!(full.take(PER_CONNECTION / 2));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert!(other.take(1000).await.is_ok());
        held.clear();
        assert!(waiting.await.is_ok());
    }

    #[tokio::test]
    async fn live_events_wait_for_no_history() {
        let _history = storing(STORING, true).await;
        assert!(futures_util::poll!(std::pin::pin!(storing(1, true))).is_pending());
        assert!(futures_util::poll!(std::pin::pin!(storing(STORING, false))).is_ready());
    }

    #[tokio::test]
    async fn a_connection_without_messages_passes_a_full_process() {
        let (one, two) = (Budget::new(), Budget::new());
        let rest = PER_PROCESS - PER_CONNECTION - OVERHEAD;
        let mut held = vec![one.take(PER_CONNECTION).await, two.take(rest).await];
        let fresh = Budget::new();
        let first = fresh.take(PER_CONNECTION / 8).await;
        assert!(first.is_ok());
        let mut second = std::pin::pin!(fresh.take(PER_CONNECTION / 8));
        assert!(futures_util::poll!(&mut second).is_pending(), "only one message is free");
        held.clear();
        assert!(second.await.is_ok());
    }
}
