//! An overview of the fleet, and the items that need an operator's attention. The first page of the
//! dashboard and `tender top` show them.

mod attention;
mod grasp;
mod holds;
mod item;
mod serving;

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;
use tender_jobs::{
    console::{
        snooze::{self, Snooze},
        stats::{self, Minute},
    },
    database,
    mirror::{
        lane::{self, Trouble},
        upstream,
    },
    provision::{
        instance::{self, Instance},
        relay::{self, Causes, Summary},
    },
    queue::{
        self, Paused, QueueStatus, Worker,
        schedule::{self, Recurring},
    },
};

pub use grasp::Grasp;
pub use item::{Item, Remedy};

/// A relay that waits for zooid longer than this needs attention.
pub const LONG_PENDING: Duration = Duration::from_mins(5);
/// The most causes that the overview names, of relays and of lanes.
const NAMED: i64 = 10;
/// The minutes that the chart covers.
const MINUTES: i32 = 60;

/// The overview. The cost of reading it does not grow with the number of relays.
#[derive(Debug, Serialize)]
pub struct Fleet {
    /// When the overview was read, by the database's clock.
    pub now: DateTime<Utc>,
    /// Counts of relays by state.
    pub summary: Summary,
    /// The relays that gave up, by cause.
    pub causes: Causes,
    /// The relays that have waited longer than [`LONG_PENDING`] for zooid.
    pub late: i64,
    /// The status of every queue.
    pub queues: Vec<QueueStatus>,
    /// The paused queues, with who paused them and why.
    pub paused: Vec<Paused>,
    /// The workers that are alive.
    pub workers: Vec<Worker>,
    /// The zooid instances with their breakers.
    pub instances: Vec<Instance>,
    /// The recurring jobs.
    pub recurring: Vec<Recurring>,
    /// Outcomes of SyncRelay attempts in the last hour, by minute.
    pub minutes: Vec<Minute>,
    /// The lanes of the mirror that do not work, by cause.
    pub lanes: Vec<Trouble>,
    /// Whether an upstream is enabled.
    pub has_upstreams: bool,
    /// The age of the oldest transaction that keeps PostgreSQL from removing dead rows, in seconds.
    pub oldest_transaction_secs: f64,
    /// The items that operators have put aside.
    pub snoozes: Vec<Snooze>,
    /// The GRASP wing.
    pub grasp: Grasp,
}

impl Fleet {
    /// Reads the overview; the cost does not grow with the number of relays.
    pub async fn read(db: &PgPool) -> Result<Self, sqlx::Error> {
        Ok(Self {
            now: queue::now(db).await?,
            summary: relay::summary(db).await?,
            causes: relay::causes(db, NAMED).await?,
            late: relay::late(db, LONG_PENDING).await?,
            queues: queue::status(db, &tender_jobs::queues()).await?,
            paused: queue::paused(db).await?,
            workers: queue::workers(db).await?.into_iter().filter(|w| w.is_alive).collect(),
            instances: instance::list(db).await?,
            recurring: schedule::list(db).await?,
            minutes: stats::last(db, MINUTES).await?,
            lanes: lane::troubles(db, NAMED).await?,
            has_upstreams: upstream::any(db).await?,
            oldest_transaction_secs: database::oldest_transaction_secs(db).await?,
            snoozes: snooze::list(db).await?,
            grasp: Grasp::read(db).await?,
        })
    }

    /// Returns the numbers of successful and of failed SyncRelay attempts in the last hour.
    pub fn hour(&self) -> (i64, i64) {
        self.minutes
            .iter()
            .fold((0, 0), |sums, minute| (sums.0 + minute.synced, sums.1 + minute.failed))
    }
}
