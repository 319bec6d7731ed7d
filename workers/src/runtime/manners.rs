//! Manners between wings that share a process: while tenants wait for changes, work in bulk leaves them room.
//!
//! Somebody waits if [`somebody_waits`] was called within the last second. Meanwhile work in bulk takes turns: one
//! turn for every two cores, and each is followed by a rest as long as itself. Nothing is refused and nothing waits for
//! ever: a turn that does not come within five seconds is taken without leave.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, SemaphorePermit};

/// How long work in bulk takes turns after that: the next change may follow.
const AFTER: Duration = Duration::from_secs(1);
/// The longest wait for a turn: one turn that waits for a locked row must not stop all others, and what waits must not look
/// like the silence of a relay.
const TURN_WITHIN: Duration = Duration::from_secs(5);
/// The longest rest: a turn that waited for a lock has used no core.
const LONGEST_REST: Duration = Duration::from_millis(200);

static MANNERS: LazyLock<Manners> = LazyLock::new(|| Manners::new(cores(), TURN_WITHIN));

/// Notes that work starts which somebody waits for.
pub(crate) fn somebody_waits() {
    MANNERS.somebody_waits();
}

/// Does work in bulk on so many cores: at once and on all of them while nobody waits, otherwise on one of them, in its turn,
/// and with a rest after it.
pub(crate) async fn in_turn<T>(work: impl AsyncFnOnce(usize) -> T) -> T {
    MANNERS.in_turn(work).await
}

/// Does work in bulk for which nothing else waits: without a turn, and with a rest after it while somebody waits.
pub(crate) async fn with_rest<T>(work: impl AsyncFnOnce() -> T) -> T {
    MANNERS.with_rest(work).await
}

struct Manners {
    started: Instant,
    /// Until when somebody waits, in milliseconds since the start.
    until: AtomicU64,
    turns: Semaphore,
    turn_within: Duration,
    cores: usize,
}

impl Manners {
    fn new(cores: usize, turn_within: Duration) -> Self {
        let turns = Semaphore::new((cores / 2).max(1));
        Self { started: Instant::now(), until: AtomicU64::new(0), turns, turn_within, cores }
    }

    fn somebody_waits(&self) {
        self.until.fetch_max(millis(self.started.elapsed() + AFTER), Relaxed);
    }

    fn does_somebody_wait(&self) -> bool {
        millis(self.started.elapsed()) < self.until.load(Relaxed)
    }

    async fn in_turn<T>(&self, work: impl AsyncFnOnce(usize) -> T) -> T {
        if !self.does_somebody_wait() {
            return work(self.cores).await;
        }
        let _turn = self.turn().await;
        self.with_rest(async || work(1).await).await
    }

    async fn with_rest<T>(&self, work: impl AsyncFnOnce() -> T) -> T {
        let began = Instant::now();
        let done = work().await;
        if self.does_somebody_wait() {
            super::pause(began.elapsed().min(LONGEST_REST)).await;
        }
        done
    }

    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        tokio::time::timeout(self.turn_within, self.turns.acquire()).await.ok()?.ok()
    }
}

/// How many cores the process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::poll;

    use super::*;

    const FOR_EVER: u64 = u64::MAX;

    /// Does work that lasts until the semaphore has a permit, and returns on how many cores.
    async fn work(manners: &Manners, end: &Semaphore) -> usize {
        let work = async |cores| {
            end.acquire().await.unwrap().forget();
            cores
        };
        manners.in_turn(work).await
    }

    #[tokio::test]
    async fn work_in_bulk_begins_at_once_while_nobody_waits() {
        let (manners, end) = (Manners::new(4, TURN_WITHIN), Semaphore::new(3));
        for _ in 0..3 {
            assert_eq!(poll!(&mut pin!(work(&manners, &end))), std::task::Poll::Ready(4));
        }
        manners.somebody_waits();
        assert!(poll!(&mut pin!(work(&manners, &end))).is_pending());
    }

    #[tokio::test]
    async fn work_in_bulk_takes_turns_on_one_core_while_somebody_waits() {
        let (manners, end) = (Manners::new(4, TURN_WITHIN), Semaphore::new(0));
        manners.until.store(FOR_EVER, Relaxed);
        let mut first = [pin!(work(&manners, &end)), pin!(work(&manners, &end))];
        for work in &mut first {
            assert!(poll!(work).is_pending());
        }
        let mut third = pin!(work(&manners, &end));
        assert!(poll!(&mut third).is_pending());
        assert_eq!(manners.turns.available_permits(), 0);
        end.add_permits(3);
        for work in first {
            assert_eq!(work.await, 1);
        }
        assert_eq!(third.await, 1);
        assert_eq!(manners.turns.available_permits(), 2);
    }

    #[tokio::test]
    async fn work_in_bulk_waits_for_no_turn_for_ever() {
        let manners = Manners::new(1, Duration::from_millis(10));
        manners.until.store(FOR_EVER, Relaxed);
        let _stuck = manners.turns.acquire().await.unwrap();
        assert_eq!(work(&manners, &Semaphore::new(1)).await, 1);
    }
}
