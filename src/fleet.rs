//! The fleet at one look, and what of it needs somebody's attention: what the dashboard's first page
//! and `tender top` show.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sqlx::PgPool;
use tender_jobs::{
    lane::{self, LaneState},
    queue::{
        self, QueueStatus, Worker,
        instance::{self, BreakerState, Instance},
    },
    recurring::{self, Recurring},
    relay::{self, Order, Relay, Row, Search, Summary},
    stats::{self, Minute},
    upstream,
};

/// A relay that waits for longer than this needs attention.
const LONG_PENDING: TimeDelta = TimeDelta::minutes(5);
/// Given-up relays that are named.
const NAMED: i64 = 5;
/// Lanes in trouble that are named.
const NAMED_LANES: usize = 5;
/// Minutes of the chart.
const MINUTES: i32 = 60;

/// Everything that is shown, as of one look. Reading it costs the same with a thousand relays and
/// with a million.
#[derive(Debug, Serialize)]
pub struct Fleet {
    /// The database's time of the look.
    pub now: DateTime<Utc>,
    /// Counts of relays.
    pub summary: Summary,
    /// Some that gave up, the last first.
    pub gave_up: Vec<Relay>,
    /// The one that waits longest.
    pub longest_waiting: Option<Row>,
    /// Every queue.
    pub queues: Vec<QueueStatus>,
    /// Those alive.
    pub workers: Vec<Worker>,
    /// Every zooid instance.
    pub instances: Vec<Instance>,
    /// The schedule.
    pub recurring: Vec<Recurring>,
    /// The last hour.
    pub minutes: Vec<Minute>,
    /// Lanes of event sync that are in error, or held without a sign of life.
    pub lanes: Vec<LaneState>,
    /// Whether there is an upstream to work on.
    pub has_upstreams: bool,
}

/// Something that an operator should look after.
#[derive(Debug)]
pub enum Attention<'a> {
    /// A relay that gave up.
    GaveUp(&'a Relay),
    /// So many more did.
    MoreGaveUp(i64),
    /// An instance is out.
    BreakerOpen(&'a Instance),
    /// A relay waits for longer than 5 min.
    LongPending(&'a Row),
    /// Nobody serves `sync-relay`.
    NoWorker,
    /// Jobs were killed in a queue, and nobody has looked after them.
    Killed(&'a QueueStatus),
    /// A queue is paused, since when.
    Paused(&'a QueueStatus, DateTime<Utc>),
    /// A lane of event sync is in error or stuck.
    Lane(&'a LaneState),
    /// There are upstreams, and nobody serves `sync`.
    NoSyncWorker,
}

impl Fleet {
    /// Looks.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn read(db: &PgPool) -> Result<Self, sqlx::Error> {
        let waiting = Search { order: Order::Waiting, ..Search::default() };
        Ok(Self {
            now: queue::now(db).await?,
            summary: relay::summary(db).await?,
            gave_up: relay::gave_up(db, NAMED).await?,
            longest_waiting: relay::search(db, &waiting, 1).await?.pop(),
            queues: queue::status(db).await?,
            workers: queue::workers(db).await?.into_iter().filter(|w| w.is_alive).collect(),
            instances: instance::list(db).await?,
            recurring: recurring::list(db).await?,
            minutes: stats::last(db, MINUTES).await?,
            lanes: lane::troubled(db, NAMED_LANES).await?,
            has_upstreams: upstream::any(db).await?,
        })
    }

    /// What needs attention, the worst first; nothing when all is well.
    pub fn attention(&self) -> Vec<Attention<'_>> {
        let more = self.summary.gave_up - i64::try_from(self.gave_up.len()).unwrap_or_default();
        let out = self.instances.iter().filter(|i| i.breaker != BreakerState::Closed);
        let late = |row: &&Row| self.now - row.updated_at >= LONG_PENDING;
        let is_served = self.workers.iter().any(|worker| worker.queue == queue::SYNC_RELAY);
        let killed = self.queues.iter().filter(|queue| queue.killed_open > 0);
        let paused = self.queues.iter().filter_map(|queue| Some((queue, queue.paused_at?)));
        let mut items: Vec<Attention<'_>> = self.gave_up.iter().map(Attention::GaveUp).collect();
        items.extend((more > 0).then_some(Attention::MoreGaveUp(more)));
        items.extend(out.map(Attention::BreakerOpen));
        items.extend((!is_served).then_some(Attention::NoWorker));
        items.extend(self.longest_waiting.as_ref().filter(late).map(Attention::LongPending));
        items.extend(killed.map(Attention::Killed));
        items.extend(self.lanes.iter().map(Attention::Lane));
        let is_synced = self.workers.iter().any(|worker| worker.queue == queue::SYNC);
        items.extend((self.has_upstreams && !is_synced).then_some(Attention::NoSyncWorker));
        items.extend(paused.map(|(queue, since)| Attention::Paused(queue, since)));
        items
    }

    /// Syncs and failures of the last hour.
    pub fn hour(&self) -> (i64, i64) {
        self.minutes
            .iter()
            .fold((0, 0), |sums, minute| (sums.0 + minute.synced, sums.1 + minute.failed))
    }
}
