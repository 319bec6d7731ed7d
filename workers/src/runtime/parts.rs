//! The parts of a process: tasks that run until the process stops. A part that ends sooner stops the
//! process.

use std::{collections::HashMap, future::Future};

use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// A part ended before the process was told to stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{part} {how}; the process stops, because nothing would do its work")]
pub struct PartEnded {
    /// The name of the part.
    part: String,
    /// `ended`, or `panicked: …`.
    how: String,
}

/// The running parts, by name.
#[derive(Debug, Default)]
pub(super) struct Parts {
    tasks: JoinSet<()>,
    names: HashMap<Id, String>,
}

impl Parts {
    pub(super) fn spawn(
        &mut self,
        name: impl Into<String>,
        part: impl Future<Output = ()> + Send + 'static,
    ) {
        let id = self.tasks.spawn(part).id();
        self.names.insert(id, name.into());
    }

    /// Waits until every part has ended. Cancels `shutdown` when the first one ends before it.
    ///
    /// # Errors
    /// That part.
    pub(super) async fn join(mut self, shutdown: &CancellationToken) -> Result<(), PartEnded> {
        let mut result = Ok(());
        while let Some(ended) = self.tasks.join_next_with_id().await {
            let is_expected = shutdown.is_cancelled() && ended.is_ok();
            if is_expected {
                continue;
            }
            let ended = self.describe(ended);
            tracing::error!(error = %ended, "a part of the process ended");
            shutdown.cancel();
            result = result.and(Err(ended));
        }
        result
    }

    fn describe(&self, ended: Result<(Id, ()), JoinError>) -> PartEnded {
        let (id, how) = match ended {
            Ok((id, ())) => (id, "ended".to_owned()),
            Err(error) => (error.id(), panic_of(error)),
        };
        let part = self.names.get(&id).cloned().unwrap_or_else(|| "a part".to_owned());
        PartEnded { part, how }
    }
}

fn panic_of(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => format!("panicked: {}", super::outcome::message(&*panic)),
        Err(_) => "was cancelled".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn joined(part: impl Future<Output = ()> + Send + 'static) -> (String, bool) {
        let stop = CancellationToken::new();
        let mut parts = Parts::default();
        let others = stop.clone();
        parts.spawn("the other", async move { others.cancelled().await });
        parts.spawn("the part", part);
        let error = parts.join(&stop).await.expect_err("a part ended").to_string();
        (error, stop.is_cancelled())
    }

    #[tokio::test]
    async fn a_part_that_ends_or_panics_stops_the_others_and_is_named() {
        let (ended, stopped) = joined(async {}).await;
        assert!(ended.starts_with("the part ended;") && stopped, "{ended}");
        let (ended, stopped) = joined(async { panic!("no more") }).await;
        assert!(ended.starts_with("the part panicked: no more;") && stopped, "{ended}");
    }

    #[tokio::test]
    async fn parts_that_end_after_the_stop_are_expected() {
        let stop = CancellationToken::new();
        let mut parts = Parts::default();
        let stopped = stop.clone();
        parts.spawn("the part", async move { stopped.cancelled().await });
        stop.cancel();
        assert_eq!(parts.join(&stop).await, Ok(()));
    }
}
