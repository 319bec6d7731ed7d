//! Queues that have work, and nobody who does it.

use chrono::TimeDelta;
use tender_jobs::{mirror::MIRROR, provision::SYNC_RELAY, queue::QueueStatus};

use super::{Fleet, item::Item};

/// A queue without a worker whose job has been due for longer than this needs attention.
const LONG_DUE: TimeDelta = TimeDelta::minutes(2);
impl Fleet {
    /// Whether a living worker takes jobs of this queue.
    pub(super) fn is_served(&self, queue: &str) -> bool {
        self.workers.iter().any(|worker| worker.queue == queue && worker.serves())
    }

    /// The queues that have work to do, and no worker. They are one item if there is no worker at all.
    pub(super) fn unserved(&self) -> Vec<Item> {
        let is_due = |queue: &QueueStatus| {
            let due = queue.oldest_due_at.filter(|_| queue.paused_at.is_none());
            due.is_some_and(|due| self.now - due > LONG_DUE)
        };
        let has_work = move |queue: &&QueueStatus| match queue.queue.as_str() {
            SYNC_RELAY => self.summary.total > 0,
            MIRROR => self.has_upstreams,
            _ => is_due(queue),
        };
        let unserved = self.queues.iter().filter(|queue| !self.is_served(&queue.queue));
        let unserved: Vec<&QueueStatus> = unserved.filter(has_work).collect();
        if self.workers.is_empty() && unserved.len() > 1 {
            return vec![no_worker_at_all(&unserved)];
        }
        let (drained, missing): (Vec<_>, Vec<_>) = unserved
            .into_iter()
            .partition(|queue| self.workers.iter().any(|worker| worker.queue == queue.queue));
        drained_queues(&drained).into_iter().chain(missing.into_iter().map(no_worker)).collect()
    }
}

fn no_worker(queue: &QueueStatus) -> Item {
    let consequence = match queue.queue.as_str() {
        SYNC_RELAY => ": changes of relays do not reach zooid",
        MIRROR => ": no events are mirrored",
        _ => "",
    };
    let headline = format!("No worker serves {}{consequence}", queue.queue);
    Item::new(format!("no_worker:{}", queue.queue), headline)
        .grave()
        .since(queue.oldest_due_at)
        .advice("Start `tender work` or `tender serve`.")
        .page("/workers", &[("queue", &queue.queue)])
        .command("tender work".to_owned())
}

/// The queues that only draining processes serve.
fn drained_queues(queues: &[&QueueStatus]) -> Option<Item> {
    let names: Vec<&str> = queues.iter().map(|queue| queue.queue.as_str()).collect();
    (!names.is_empty()).then(|| {
        let headline = format!("Every process that serves {} is draining", names.join(", "));
        Item::new("draining".to_owned(), headline)
            .size(i64::try_from(queues.len()).unwrap_or(i64::MAX))
            .grave()
            .advice("Let one take jobs again, or start another.")
            .page("/processes", &[])
            .command("tender process list".to_owned())
    })
}

fn no_worker_at_all(queues: &[&QueueStatus]) -> Item {
    let names: Vec<&str> = queues.iter().map(|queue| queue.queue.as_str()).collect();
    let headline = format!("No worker is running; there is work for {}", names.join(", "));
    Item::new("no_worker".to_owned(), headline)
        .size(i64::try_from(queues.len()).unwrap_or(i64::MAX))
        .grave()
        .since(queues.iter().filter_map(|queue| queue.oldest_due_at).min())
        .advice("Start `tender work` or `tender serve`.")
        .page("/workers", &[])
        .command("tender work".to_owned())
}
