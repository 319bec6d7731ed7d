//! A gate: calls wait at it until a test lets them pass.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

/// Holds callers until they are let through. Clones share the gate.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    permits: Semaphore,
    reached: watch::Sender<usize>,
}

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(Inner { permits: Semaphore::new(0), reached: watch::Sender::new(0) }))
    }
}

impl Gate {
    /// Counts the caller, and waits until it is let through.
    pub async fn pass(&self) {
        self.0.reached.send_modify(|count| *count += 1);
        // An error means that the gate is open.
        if let Ok(permit) = self.0.permits.acquire().await {
            permit.forget();
        }
    }

    /// Waits until `count` callers have reached the gate since it was made.
    pub async fn reached(&self, count: usize) {
        let mut reached = self.0.reached.subscribe();
        // The sender lives as long as this gate.
        let _the_sender_lives = reached.wait_for(|reached| *reached >= count).await;
    }

    /// Returns how many callers have reached the gate since it was made.
    pub fn count(&self) -> usize {
        *self.0.reached.borrow()
    }

    /// Lets `count` callers through: waiting ones, or the next.
    pub fn let_through(&self, count: usize) {
        self.0.permits.add_permits(count);
    }

    /// Lets everyone through from now on.
    pub fn open(&self) {
        self.0.permits.close();
    }
}
