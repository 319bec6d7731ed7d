//! What operators ask of this process: to run more or fewer jobs of a queue at the same time, or to take no other
//! job. The process reports itself with the heartbeats of its workers, and reads the orders with that.

use std::{collections::BTreeMap, time::Duration};

use sqlx::PgPool;
use tender_jobs::{
    database::answered,
    queue::{
        self, Alive,
        process::{self, Orders, Report, Served},
    },
};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{HEARTBEAT, Station};

/// The longest wait for the ledger when the process leaves; its row is pruned otherwise.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// The process as it reports itself.
pub(super) struct Reporter {
    db: PgPool,
    report: Report,
    orders: watch::Sender<Orders>,
    is_listed: bool,
    has_left: bool,
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
        (Self { db: db.clone(), report, orders, is_listed: false, has_left: false }, following)
    }

    /// Reports for the first time, before the stations fetch, so that a limit of the fleet holds from the first job. A
    /// database that does not answer in time delays the orders, not the start.
    pub(super) async fn first(&mut self, shutdown: &CancellationToken) {
        let reported = timeout(HEARTBEAT, self.enlist());
        shutdown.run_until_cancelled(reported).await;
    }

    /// Sends the heartbeats of workers, and reports the process with that. What the database refuses of the report
    /// does not stop the heartbeats. While it does not answer, the orders stay as they are.
    pub(super) async fn beat(&mut self, workers: &[String]) -> Result<Vec<Alive>, sqlx::Error> {
        if self.has_left {
            return queue::heartbeat(&self.db, workers).await;
        }
        self.report.memory_bytes = resident_bytes();
        match timeout(HEARTBEAT, process::pulse(&self.db, &self.report, workers)).await {
            Ok(Ok(pulse)) => {
                self.is_listed = pulse.orders.is_some();
                if let Some(orders) = &pulse.orders {
                    self.follow(orders);
                }
                Ok(pulse.alive)
            }
            Ok(Err(error @ (sqlx::Error::Database(_) | sqlx::Error::ColumnDecode { .. }))) => {
                tracing::debug!(%error, "could not report the process");
                queue::heartbeat(&self.db, workers).await
            }
            Ok(Err(error)) => Err(error),
            // Somebody holds the table, and behind a pooler a wait for a lock has no other end.
            Err(_) => queue::heartbeat(&self.db, workers).await,
        }
    }

    /// Puts the process on the list, unless it is there.
    pub(super) async fn enlist(&mut self) {
        if self.is_listed || self.has_left {
            return;
        }
        self.report.memory_bytes = resident_bytes();
        match answered(&self.db, process::report(&self.db, &self.report)).await {
            Ok(orders) => {
                self.is_listed = true;
                self.follow(&orders);
            }
            Err(error) => tracing::debug!(%error, "could not report the process"),
        }
    }

    pub(super) fn has_left(&self) -> bool {
        self.has_left
    }

    /// Removes the process from the list.
    pub(super) async fn leave(&mut self) {
        self.has_left = true;
        let leaving = process::leave(&self.db, self.report.id);
        if let Ok(Err(error)) = timeout(LEAVE_WITHIN, leaving).await {
            tracing::debug!(%error, "could not remove the process from the list");
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
