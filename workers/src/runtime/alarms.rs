//! Alarms: when the next job of each queue is due, as far as this process knows.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tokio::{sync::Notify, time::Instant};

/// An instant per queue.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    due: Mutex<HashMap<String, Instant>>,
    pub(super) changed: Notify,
}

impl Alarms {
    /// Sets the alarm of a queue, unless an earlier one is set.
    pub(super) fn set(&self, queue: &str, at: Instant) {
        let mut due = self.locked();
        if due.get(queue).is_none_or(|set| at < *set) {
            due.insert(queue.to_owned(), at);
            self.changed.notify_one();
        }
    }

    /// Returns the first alarm.
    pub(super) fn first(&self) -> Option<Instant> {
        self.locked().values().min().copied()
    }

    /// Removes the alarms that are due, and returns their queues.
    pub(super) fn take(&self, now: Instant) -> Vec<String> {
        let mut due = self.locked();
        due.extract_if(|_, at| *at <= now).map(|(queue, _)| queue).collect()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<String, Instant>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_earlier_alarm_of_a_queue_holds_and_rings_once() {
        let (alarms, now) = (Alarms::default(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        for (queue, seconds) in [("a", 5), ("a", 3), ("a", 4), ("b", 9)] {
            alarms.set(queue, after(seconds));
        }
        assert_eq!(alarms.first(), Some(after(3)));
        assert!(alarms.take(after(2)).is_empty());
        assert_eq!(alarms.take(after(3)), ["a"]);
        assert_eq!((alarms.take(after(8)).len(), alarms.first()), (0, Some(after(9))));
    }
}
