//! What this process's syncs came to, added to the ledger's minute every second.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tender_jobs::stats::{self, Counts};
use tokio_util::sync::CancellationToken;

use crate::Context;

/// How often the counts are told.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Counts that were not told yet.
#[derive(Debug, Default)]
pub(crate) struct Stats(Mutex<Counts>);

impl Stats {
    pub(crate) fn count(&self, add: impl FnOnce(&mut Counts)) {
        add(&mut self.lock());
    }

    fn take(&self) -> Counts {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the ledger until `shutdown`, and once then; attempts that end later are not in the charts.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) {
    while tokio::time::timeout(TELL_EVERY, shutdown.cancelled()).await.is_err() {
        tell(&context).await;
    }
    tell(&context).await;
}

async fn tell(context: &Context) {
    let counts = context.stats.take();
    if counts == Counts::default() {
        return;
    }
    if let Err(error) = stats::add(&context.db, &counts).await {
        tracing::debug!(%error, "could not add to the charts; trying again");
        context.stats.count(|kept| {
            kept.synced += counts.synced;
            kept.failed += counts.failed;
            kept.gave_up += counts.gave_up;
            for (kept, count) in kept.latency.iter_mut().zip(counts.latency) {
                *kept += count;
            }
        });
    }
}
