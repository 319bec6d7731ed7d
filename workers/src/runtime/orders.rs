//! What operators ask of this process: to run more or fewer jobs of a queue at the same time, or to take no other
//! job. The process reports itself every 5 s, and reads the orders with that.

use std::{collections::BTreeMap, time::Duration};

use sqlx::PgPool;
use tender_jobs::{
    database::answered,
    queue::process::{self, Orders, Report, Served},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Station, pause_or_stop};

/// How often a process reports itself and reads its orders.
const EVERY: Duration = Duration::from_secs(5);
/// The longest wait for the ledger when the process leaves; its row is pruned otherwise.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// The process as it reports itself.
pub(super) struct Reporter {
    db: PgPool,
    report: Report,
    orders: watch::Sender<Orders>,
}

impl Reporter {
    /// Returns the reporter and the orders that the stations follow.
    pub(super) fn new(
        db: &PgPool,
        name: &str,
        wings: Vec<String>,
        stations: &[Station],
    ) -> (Self, watch::Receiver<Orders>) {
        let served = |station: &Station| {
            let jobs = station.concurrency;
            (station.queue.to_owned(), Served { jobs, configured: jobs })
        };
        let stations: BTreeMap<_, _> = stations.iter().map(served).collect();
        let (id, name) = (Uuid::new_v4(), name.to_owned());
        let report = Report { id, name, wings, stations, memory_bytes: None };
        let (orders, following) = watch::channel(Orders::default());
        (Self { db: db.clone(), report, orders }, following)
    }

    /// Reports for the first time, before the stations fetch, so that a limit of the fleet holds from the first job. A
    /// database that does not answer in time delays the orders, not the start.
    pub(super) async fn first(&mut self, shutdown: &CancellationToken) {
        let reported = tokio::time::timeout(EVERY, self.report());
        shutdown.run_until_cancelled(reported).await;
    }

    /// Reports until `shutdown`, then removes the process from the list. While the database does not answer, the
    /// orders stay as they are.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        while !pause_or_stop(EVERY, &shutdown).await {
            shutdown.run_until_cancelled(self.report()).await;
        }
        let leaving = process::leave(&self.db, self.report.id);
        if let Ok(Err(error)) = tokio::time::timeout(LEAVE_WITHIN, leaving).await {
            tracing::debug!(%error, "could not remove the process from the list");
        }
    }

    async fn report(&mut self) {
        self.report.memory_bytes = resident_bytes();
        match answered(&self.db, process::report(&self.db, &self.report)).await {
            Ok(orders) => self.follow(&orders),
            Err(error) => tracing::debug!(%error, "could not report the process"),
        }
    }

    fn follow(&mut self, orders: &Orders) {
        let changed = self.orders.send_if_modified(|now| {
            let differs = now != orders;
            now.clone_from(orders);
            differs
        });
        if !changed {
            return;
        }
        let is_draining = orders.is_draining;
        tracing::info!(is_draining, at_once = ?orders.at_once, "the orders of operators have changed");
        for (queue, served) in &mut self.report.stations {
            served.jobs = at_once(orders, queue, served.configured);
        }
    }
}

/// Returns the jobs of a queue that run at the same time.
pub(super) fn at_once(orders: &Orders, queue: &str, configured: usize) -> usize {
    orders.at_once.get(queue).copied().unwrap_or(configured)
}

/// Returns the resident memory of this process from `/proc`; `None` where there is none.
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
