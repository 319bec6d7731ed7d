//! Shares: how many slots of a queue the jobs of one upstream occupy in this process. While jobs of
//! others wait, an upstream has half of the slots at most, so that one upstream never delays all others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tender_jobs::queue::{self, Job, Requeue};
use uuid::Uuid;

use super::Context;
use crate::runtime::outcome;

/// The delay of a job that gives way to those of other upstreams.
const GIVE_WAY: Duration = Duration::from_secs(1);

/// The running jobs by queue and upstream.
type Running = HashMap<(String, Uuid), usize>;

/// The shares of all upstreams.
#[derive(Debug, Clone)]
pub(super) struct Shares {
    slots: Arc<HashMap<String, usize>>,
    running: Arc<Mutex<Running>>,
}

/// The slot of one job; it counts until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    key: (String, Uuid),
    running: Arc<Mutex<Running>>,
    /// Whether the upstream had half of the slots already.
    is_excess: bool,
}

impl Context {
    /// Counts a job of an upstream until the share is dropped. Requeues the job, without an attempt spent,
    /// if the upstream has half of the queue's slots and other jobs wait; then returns `None`.
    pub(super) async fn share(&self, job: &Job, upstream: Uuid) -> Option<Share> {
        let share = self.shares.take(&job.queue, upstream);
        // If the database does not answer, the work finds out.
        if !share.is_excess || !queue::has_due(&self.db, &job.queue).await.unwrap_or(false) {
            return Some(share);
        }
        let later = Requeue::wait(GIVE_WAY);
        outcome::persist(job, || queue::requeue(&self.db, job, &later)).await;
        None
    }
}

impl Shares {
    /// No running jobs yet. `slots` is the number of jobs that each queue runs at the same time.
    pub(super) fn new(slots: HashMap<String, usize>) -> Self {
        Self { slots: Arc::new(slots), running: Arc::default() }
    }

    /// Counts a job that starts.
    pub(super) fn take(&self, queue: &str, upstream: Uuid) -> Share {
        let key = (queue.to_owned(), upstream);
        let most = self.slots.get(queue).map_or(1, |slots| (slots / 2).max(1));
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let count = running.entry(key.clone()).or_default();
        *count += 1;
        Share { is_excess: *count > most, key, running: self.running.clone() }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_has_half_of_the_slots_and_ended_jobs_give_theirs_back() {
        let shares = Shares::new(HashMap::from([("mirror".to_owned(), 5), ("one".to_owned(), 1)]));
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let first = [shares.take("mirror", a), shares.take("mirror", a)];
        assert!(first.iter().all(|share| !share.is_excess));
        assert!(shares.take("mirror", a).is_excess);
        assert!(!shares.take("mirror", b).is_excess);
        drop(first);
        assert!(!shares.take("mirror", a).is_excess);
        assert!(!shares.take("one", a).is_excess, "a queue with one slot runs every upstream");
    }
}
