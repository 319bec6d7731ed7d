//! The time that zooid spends on a write: it parses the file of every relay, on one core.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// How long a task keeps the core while others wait, as in Go's scheduler.
const SLICE: Duration = Duration::from_millis(10);

/// One core, which the writes share in turns: 32 at once each take about 32 times as long as one alone.
#[derive(Debug, Default)]
pub(super) struct Core(Mutex<()>);

impl Core {
    /// Spends this much time of the core.
    pub(super) async fn spend(&self, cost: Duration) {
        let mut rest = cost;
        while !rest.is_zero() {
            // The lock goes to the task that has waited longest.
            let core = self.0.lock().await;
            let started = Instant::now();
            let pause = std::future::pending::<()>();
            let _time = tokio::time::timeout(rest.min(SLICE), pause).await;
            drop(core);
            rest = rest.saturating_sub(started.elapsed());
        }
    }
}
