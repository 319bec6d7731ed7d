//! The items that wait for a batch, and how long it waits for more of them.
//!
//! A statement for many costs little more than one for a single item. While items arrive one after the other, a batch of
//! those that are there runs at once. Where many arrive, it waits for [`GATHER`] at most, so that PostgreSQL does not spend
//! its time on statements for two or three: then more jobs end, although each ends a little later.

use tokio::{
    sync::mpsc,
    time::{Duration, Instant, timeout_at},
};

/// The maximum number of items in one statement.
pub(super) const LARGEST: usize = 64;
/// A batch of this size does not wait for more.
const FULL: usize = 24;
/// The longest wait for more items.
const GATHER: Duration = Duration::from_millis(3);
/// The arrivals of this time, or of a longer one until the next batch, tell the load.
const WINDOW: Duration = Duration::from_millis(20);
/// So many arrivals within it are many: 1,000 per second.
const MANY: u32 = 20;
/// Arrivals that are older than this tell nothing.
const RECENT: Duration = Duration::from_millis(100);

/// The items that wait for a batch.
pub(super) struct Asks<T> {
    receiver: mpsc::Receiver<T>,
    load: Load,
}

impl<T> Asks<T> {
    pub(super) fn new(receiver: mpsc::Receiver<T>) -> Self {
        Self { receiver, load: Load::new(Instant::now()) }
    }

    /// Waits for the next batch; it is empty if every sender is dropped. Attempts that are ready to ask do so first.
    pub(super) async fn next(&mut self) -> Vec<T> {
        let mut asked = Vec::with_capacity(LARGEST);
        self.receiver.recv_many(&mut asked, LARGEST).await;
        tokio::task::yield_now().await;
        let until = Instant::now() + self.load.gather(Instant::now());
        while asked.len() < FULL {
            let room = LARGEST - asked.len();
            let more = self.receiver.recv_many(&mut asked, room);
            if !timeout_at(until, more).await.is_ok_and(|more| more > 0) {
                break;
            }
        }
        self.load.note(asked.len(), Instant::now());
        asked
    }
}

/// How many items arrive.
#[derive(Debug)]
struct Load {
    since: Instant,
    items: usize,
    is_high: bool,
}

impl Load {
    fn new(since: Instant) -> Self {
        Self { since, items: 0, is_high: false }
    }

    /// How long a batch waits for more items.
    fn gather(&self, now: Instant) -> Duration {
        if self.is_high && now - self.since < RECENT { GATHER } else { Duration::ZERO }
    }

    fn note(&mut self, items: usize, now: Instant) {
        self.items += items;
        let elapsed = now - self.since;
        if elapsed >= WINDOW {
            let items = u32::try_from(self.items).unwrap_or(u32::MAX);
            let is_many = WINDOW.saturating_mul(items) >= elapsed.saturating_mul(MANY);
            let is_high = is_many && elapsed < RECENT;
            *self = Self { is_high, ..Self::new(now) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_waits_for_more_only_while_many_arrive() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let mut load = Load::new(start);
        assert_eq!(load.gather(start), Duration::ZERO);
        (1..=25).for_each(|n| load.note(1, start + ms(n)));
        assert_eq!(load.gather(start + ms(26)), GATHER, "1,000 per second");
        assert_eq!(load.gather(start + ms(200)), Duration::ZERO, "a pause");
        load.note(1, start + ms(200));
        assert_eq!(load.gather(start + ms(201)), Duration::ZERO, "one after a pause");
        (1..=10).for_each(|n| load.note(1, start + ms(200 + 5 * n)));
        assert_eq!(load.gather(start + ms(251)), Duration::ZERO, "200 per second");
        let mut load = Load::new(start);
        load.note(24, start + ms(90));
        assert_eq!(load.gather(start + ms(91)), Duration::ZERO, "270 per second");
        load.note(24, start + ms(113));
        assert_eq!(load.gather(start + ms(114)), GATHER, "1,040 per second");
    }

    #[tokio::test]
    async fn a_batch_takes_what_is_there_and_is_empty_at_the_end() {
        let (sender, receiver) = mpsc::channel(2 * LARGEST);
        let mut asks = Asks::new(receiver);
        (0..LARGEST + 3).for_each(|n| sender.try_send(n).expect("room"));
        drop(sender);
        assert_eq!(asks.next().await.len(), LARGEST);
        assert_eq!(asks.next().await, [LARGEST, LARGEST + 1, LARGEST + 2]);
        assert!(asks.next().await.is_empty());
    }
}
