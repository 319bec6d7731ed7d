//! An overview of the fleet, and the items that need an operator's attention. The first page of the
//! dashboard and `tender top` show them.

mod grasp;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sqlx::PgPool;
use tender_jobs::{
    console::stats::{self, Minute},
    grasp::{service::Service, view::Trouble},
    mirror::{
        MIRROR,
        lane::{self, LaneState},
        upstream,
    },
    provision::{
        SYNC_RELAY,
        instance::{self, Instance},
        relay::{self, Order, Relay, Row, Search, Summary},
    },
    queue::{
        self, QueueStatus, Worker,
        schedule::{self, Recurring},
    },
};

pub use grasp::Grasp;

/// A relay that waits for zooid longer than this needs attention.
const LONG_PENDING: TimeDelta = TimeDelta::minutes(5);
/// The most relays that gave up and that the overview names.
const NAMED: i64 = 5;
/// The most failed or stale lanes that the overview names.
const NAMED_LANES: usize = 5;
/// The minutes that the chart covers.
const MINUTES: i32 = 60;

/// The overview. The cost of reading it does not grow with the number of relays.
#[derive(Debug, Serialize)]
pub struct Fleet {
    /// When the overview was read, by the database's clock.
    pub now: DateTime<Utc>,
    /// Counts of relays by state.
    pub summary: Summary,
    /// Some relays that gave up, the latest first.
    pub gave_up: Vec<Relay>,
    /// The relay that has waited longest for zooid; `None` if no relay waits.
    pub longest_waiting: Option<Row>,
    /// The status of every queue.
    pub queues: Vec<QueueStatus>,
    /// The workers that are alive.
    pub workers: Vec<Worker>,
    /// The zooid instances with their breakers.
    pub instances: Vec<Instance>,
    /// The recurring jobs.
    pub recurring: Vec<Recurring>,
    /// Outcomes of SyncRelay attempts in the last hour, by minute.
    pub minutes: Vec<Minute>,
    /// Some lanes of the mirror that are in error or stale, the latest failure first.
    pub lanes: Vec<LaneState>,
    /// Whether an upstream is enabled.
    pub has_upstreams: bool,
    /// The GRASP wing.
    pub grasp: Grasp,
}

/// An item that needs an operator's attention.
#[derive(Debug)]
pub enum Attention<'a> {
    /// A relay gave up.
    GaveUp(&'a Relay),
    /// This many other relays gave up.
    MoreGaveUp(i64),
    /// The breaker of an instance is not closed.
    BreakerOpen(&'a Instance),
    /// A relay has waited for zooid for too long.
    LongPending(&'a Row),
    /// There are relays, and no worker serves `sync-relay`.
    NoWorker,
    /// A queue has killed jobs that no operator has seen.
    Killed(&'a QueueStatus),
    /// A queue is paused, since this time.
    Paused(&'a QueueStatus, DateTime<Utc>),
    /// A lane of the mirror is in error or stale.
    Lane(&'a LaneState),
    /// There are enabled upstreams, and no worker serves `mirror`.
    NoMirrorWorker,
    /// There are enabled GRASP services, and no process follows relays.
    NoGraspProcess,
    /// The mirror does not fetch from the relay of a service, or does not upload to it.
    StoppedService(&'a Service),
    /// The relay of a service refuses events that others signed.
    RefusesOthers(&'a Service),
    /// Announcements name more relays than a service may follow.
    OverLimit(&'a Service),
    /// Followed relays need attention for the same cause.
    Followed(&'a Trouble),
}

impl Fleet {
    /// Reads the overview; the cost does not grow with the number of relays.
    pub async fn read(db: &PgPool) -> Result<Self, sqlx::Error> {
        let waiting = Search { order: Order::Waiting, ..Search::default() };
        Ok(Self {
            now: queue::now(db).await?,
            summary: relay::summary(db).await?,
            gave_up: relay::gave_up(db, NAMED).await?,
            longest_waiting: relay::search(db, &waiting, 1).await?.pop(),
            queues: queue::status(db, &tender_jobs::queues()).await?,
            workers: queue::workers(db).await?.into_iter().filter(|w| w.is_alive).collect(),
            instances: instance::list(db).await?,
            recurring: schedule::list(db).await?,
            minutes: stats::last(db, MINUTES).await?,
            lanes: lane::troubled(db, NAMED_LANES).await?,
            has_upstreams: upstream::any(db).await?,
            grasp: Grasp::read(db).await?,
        })
    }

    /// Returns the items that need attention, the most urgent first.
    pub fn attention(&self) -> Vec<Attention<'_>> {
        let more = self.summary.gave_up - i64::try_from(self.gave_up.len()).unwrap_or_default();
        let out = self.instances.iter().filter(|instance| instance.is_out());
        let late = |row: &&Row| self.now - row.updated_at >= LONG_PENDING;
        let is_served = self.workers.iter().any(|worker| worker.queue == SYNC_RELAY);
        let killed = self.queues.iter().filter(|queue| queue.killed_open > 0);
        let paused = self.queues.iter().filter_map(|queue| Some((queue, queue.paused_at?)));
        let mut items: Vec<Attention<'_>> = self.gave_up.iter().map(Attention::GaveUp).collect();
        items.extend((more > 0).then_some(Attention::MoreGaveUp(more)));
        items.extend(out.map(Attention::BreakerOpen));
        let has_relays = self.summary.total > 0;
        items.extend((has_relays && !is_served).then_some(Attention::NoWorker));
        items.extend(self.longest_waiting.as_ref().filter(late).map(Attention::LongPending));
        items.extend(killed.map(Attention::Killed));
        items.extend(self.lanes.iter().map(Attention::Lane));
        let is_synced = self.workers.iter().any(|worker| worker.queue == MIRROR);
        items.extend((self.has_upstreams && !is_synced).then_some(Attention::NoMirrorWorker));
        items.extend(self.grasp.attention());
        items.extend(paused.map(|(queue, since)| Attention::Paused(queue, since)));
        items
    }

    /// Returns the numbers of successful and of failed SyncRelay attempts in the last hour.
    pub fn hour(&self) -> (i64, i64) {
        self.minutes
            .iter()
            .fold((0, 0), |sums, minute| (sums.0 + minute.synced, sums.1 + minute.failed))
    }
}
