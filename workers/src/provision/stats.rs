//! Counts the syncs of this process, and adds them to the ledger's minute every second.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tender_jobs::console::stats::{self, Counts};
use tokio_util::sync::CancellationToken;

use super::Context;
use crate::runtime::pause_or_stop;

/// How often the counts are stored.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Counts that are not stored yet.
#[derive(Debug, Default)]
pub(super) struct Stats(Mutex<Counts>);

impl Stats {
    pub(super) fn count(&self, add: impl FnOnce(&mut Counts)) {
        add(&mut self.lock());
    }

    fn take(&self) -> Counts {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stores the counts until `shutdown`, and once more then. Attempts that end later are not in the
/// charts.
pub(super) async fn run(context: Context, shutdown: CancellationToken) {
    while !pause_or_stop(TELL_EVERY, &shutdown).await {
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
        tracing::debug!(%error, "could not store the counts for charts; trying again");
        context.stats.count(|kept| {
            kept.synced += counts.synced;
            kept.failed += counts.failed;
            kept.gave_up += counts.gave_up;
            kept.latencies.add(&counts.latencies);
        });
    }
}
