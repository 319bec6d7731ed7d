//! Values that all open pages of a process share, so that reading them does not cost more with more
//! pages.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Mutex;

/// A value, read again when it is older than a given age.
pub(super) struct Shared<T>(Mutex<Option<(Instant, Arc<T>)>>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Shared<T> {
    /// Returns the value if it is younger than `age`, else reads it. Callers at the same time wait for
    /// one read.
    pub(super) async fn get<E>(
        &self,
        age: Duration,
        read: impl Future<Output = Result<T, E>>,
    ) -> Result<Arc<T>, E> {
        let mut last = self.0.lock().await;
        if let Some((at, value)) = last.as_ref()
            && at.elapsed() < age
        {
            return Ok(value.clone());
        }
        let value = Arc::new(read.await?);
        *last = Some((Instant::now(), value.clone()));
        Ok(value)
    }

    /// Forgets the value, because an action has changed what it says.
    pub(super) async fn forget(&self) {
        *self.0.lock().await = None;
    }
}
