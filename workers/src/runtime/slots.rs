//! Slots: how many jobs of a queue a process runs at the same time. A process whose predecessors died
//! young starts with one: if it dies too, it strands one job until the rescue, and not many.

mod place;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

pub use place::Place;
pub(super) use place::Slot;

use super::Station;

/// A process that lives for this long has not died young.
pub(super) const YOUNG: Duration = Duration::from_secs(30);
/// The longest wait for more free slots under load. A fetch of one job costs as much as one of many.
const GATHER: Duration = Duration::from_millis(5);

/// Jobs of one queue that write their outcomes outside of slots, at most, however many slots there are. Until it ends, each
/// counts as a call in flight.
const WRITING: usize = 16;
/// Jobs that end sooner are fetched ahead: the next ones wait for about as long.
const QUICK: Duration = Duration::from_millis(50);
/// Jobs that end within this time, and leave their slots, are fetched many at a time.
const AT_ONCE: Duration = Duration::from_millis(10);
/// What is held ahead goes back when jobs take longer. More than [`QUICK`], so that a queue at the edge does not fetch and
/// put back again and again.
const SLOW: Duration = Duration::from_millis(200);
/// How long a job takes, as long as nothing is known.
const UNKNOWN: Duration = Duration::from_secs(1);
/// The weight of the past in the time that jobs take.
const PAST: u64 = 7;

/// The slots of a station. Workers that follow each other in a process share them.
#[derive(Debug, Clone)]
pub(super) struct Slots {
    free: Arc<Semaphore>,
    /// Places for jobs that have left their slots.
    writing: Arc<Semaphore>,
    size: Arc<AtomicUsize>,
    /// Whether the jobs leave their slots.
    is_leaving: bool,
    /// Slots that are still to be earned.
    withheld: Arc<AtomicUsize>,
    /// Slots that are to be taken away as soon as they are free.
    excess: Arc<AtomicUsize>,
    /// The time that jobs take, in microseconds: an average of the last ones.
    typical: Arc<AtomicU64>,
    /// When a suspect has not died young; at once for the others.
    trusted_from: Instant,
}

impl Slots {
    /// The slots of a station, for a process that may be suspected to die soon.
    pub(super) fn of(station: &Station, is_suspect: bool) -> Self {
        Self { is_leaving: station.is_leaving, ..Self::new(station.concurrency, is_suspect) }
    }

    /// All slots at once; or, for a process that is suspected to die soon, one, and one more with each job
    /// that ends after the first 30 s.
    fn new(size: usize, is_suspect: bool) -> Self {
        let (given, wait) = if is_suspect { (size.min(1), YOUNG) } else { (size, Duration::ZERO) };
        Self {
            free: Arc::new(Semaphore::new(given)),
            writing: Arc::new(Semaphore::new(WRITING)),
            size: Arc::new(AtomicUsize::new(size)),
            is_leaving: false,
            withheld: Arc::new(AtomicUsize::new(size - given)),
            excess: Arc::default(),
            typical: Arc::new(AtomicU64::new(micros(UNKNOWN))),
            trusted_from: Instant::now() + wait,
        }
    }

    /// Waits for a free slot, and returns how many are free. Under load it waits a moment longer for more.
    /// Only one loop takes slots, so they stay free.
    pub(super) async fn free(&self, is_loaded: bool) -> usize {
        drop(self.free.acquire().await);
        if is_loaded {
            let size = self.size.load(Ordering::Relaxed);
            let half = u32::try_from(size.div_ceil(2)).unwrap_or(u32::MAX);
            drop(timeout(GATHER, self.free.acquire_many(half)).await);
        }
        while self.free.available_permits() > 0 && less_one(&self.excess) {
            self.free.forget_permits(1);
        }
        self.free.available_permits()
    }

    /// How many jobs may be held beside those in the slots: as many again if jobs end soon, and four times as many if they
    /// also leave their slots and end at once: the payloads of others may be large. A suspect holds none, which it would
    /// strand.
    pub(super) fn ahead(&self) -> usize {
        let typical = self.typical.load(Ordering::Relaxed);
        let times = match typical {
            _ if !self.is_trusted() => 0,
            typical if self.is_leaving && typical < micros(AT_ONCE) => 4,
            typical if typical < micros(QUICK) => 1,
            _ => 0,
        };
        times * self.size.load(Ordering::Relaxed)
    }

    fn is_trusted(&self) -> bool {
        self.withheld.load(Ordering::Relaxed) == 0 && Instant::now() >= self.trusted_from
    }

    /// Whether jobs take too long for any to be held ahead.
    pub(super) fn is_slow(&self) -> bool {
        self.typical.load(Ordering::Relaxed) > micros(SLOW)
    }

    /// No slot becomes free: the jobs take longer than those before.
    pub(super) fn are_slow(&self) {
        self.typical.store(micros(UNKNOWN), Ordering::Relaxed);
    }

    fn took(&self, time: Duration) {
        let with = |typical: u64| {
            Some((typical.saturating_mul(PAST).saturating_add(micros(time))) / (PAST + 1))
        };
        let _always = self.typical.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with);
    }

    /// Changes the number of slots. Running jobs keep theirs until they end. A suspect is never given more than one
    /// slot by this, even if none is withheld because it had only one: it earns the others. Slots are taken away by the loop that takes them, and by the jobs that end: it never counts one
    /// that is gone when it takes it.
    pub(super) fn resize(&self, size: usize) {
        let before = self.size.swap(size, Ordering::Relaxed);
        for now in before..size {
            let withheld = self.withheld.load(Ordering::Relaxed);
            let is_suspect = withheld > 0 || Instant::now() < self.trusted_from;
            if is_suspect && now > withheld {
                self.withheld.fetch_add(1, Ordering::Relaxed);
            } else if !less_one(&self.excess) {
                self.free.add_permits(1);
            }
        }
        for _ in size..before {
            if !less_one(&self.withheld) {
                self.excess.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Takes a slot for one job; it is free again when the value is dropped.
    pub(super) async fn take(&self) -> Slot {
        let permit = self.free.clone().acquire_owned().await.ok();
        Slot { permit, writing: None, slots: self.clone(), since: Instant::now() }
    }

    /// Takes a place for a job that leaves its slot. There are as many as slots, and at most [`WRITING`].
    fn place_to_write(&self) -> Option<OwnedSemaphorePermit> {
        let place = self.writing.clone().try_acquire_owned().ok()?;
        let taken = WRITING - self.writing.available_permits();
        (taken <= self.size.load(Ordering::Relaxed)).then_some(place)
    }

    fn earn(&self) {
        if Instant::now() >= self.trusted_from && less_one(&self.withheld) {
            self.free.add_permits(1);
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Takes one away; returns false if there is none.
fn less_one(number: &AtomicUsize) -> bool {
    let less = |number: usize| number.checked_sub(1);
    number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_suspect_earns_its_slots_once_it_has_not_died_young() {
        let slots = Slots::new(3, true);
        Place::new(slots.take().await).ended();
        assert_eq!(slots.free(false).await, 1, "too young");
        let slots = Slots { trusted_from: Instant::now(), ..slots };
        for expected in [2, 3, 3] {
            Place::new(slots.take().await).ended();
            assert_eq!(slots.free(true).await, expected);
        }
        assert_eq!(Slots::new(3, false).free(false).await, 3);
    }

    #[test]
    fn jobs_are_held_ahead_while_jobs_end_at_once() {
        let slots = Slots::new(3, false);
        assert_eq!(slots.ahead(), 0, "nothing is known");
        let quick = (1..).take_while(|_| {
            slots.took(Duration::from_millis(1));
            slots.ahead() == 0
        });
        let quick = quick.count();
        assert!((10..40).contains(&quick), "after {quick} quick jobs");
        assert_eq!(slots.ahead(), 3, "as many again");
        slots.resize(5);
        assert_eq!(slots.ahead(), 5);
        (0..40).for_each(|_| slots.took(Duration::from_millis(1)));
        assert_eq!(slots.ahead(), 5, "they end at once, and may be large");
        slots.took(Duration::from_secs(1));
        assert_eq!(slots.ahead(), 0, "after a slow one");
        assert!(!slots.is_slow(), "one is slow, not all");
        slots.took(Duration::from_secs(1));
        assert!(slots.is_slow());
        let suspect = Slots::new(3, true);
        suspect.typical.store(0, Ordering::Relaxed);
        assert_eq!(suspect.ahead(), 0, "it would strand them");
    }

    #[test]
    fn four_times_as_many_jobs_are_held_ahead_if_they_leave_their_slots_and_end_at_once() {
        let plain = Station::new("plain", 3, |_| async {});
        let leaving = Station::leaving("leaving", 3, |_, _| async {});
        for (station, ahead) in [(plain, 3), (leaving, 12)] {
            let slots = Slots::of(&station, false);
            (0..100).for_each(|_| slots.took(Duration::from_millis(1)));
            assert_eq!(slots.ahead(), ahead, "{}", station.queue);
        }
    }

    #[tokio::test]
    async fn slots_are_added_at_once_and_taken_away_when_they_are_free() {
        let slots = Slots::new(2, false);
        let (first, second) = (slots.take().await, slots.take().await);
        slots.resize(3);
        assert_eq!(slots.free(false).await, 1, "one more");
        slots.resize(1);
        drop(first);
        drop(second);
        assert_eq!(slots.free(false).await, 1, "both that were too many are gone");
        slots.resize(4);
        slots.resize(2);
        slots.resize(3);
        assert_eq!(slots.free(false).await, 3);
        let suspect = Slots::new(4, true);
        suspect.resize(2);
        suspect.resize(8);
        assert_eq!(suspect.free(false).await, 1, "a suspect earns its slots");
        let suspect = Slots { trusted_from: Instant::now(), ..suspect };
        Place::new(suspect.take().await).ended();
        assert_eq!(suspect.free(false).await, 2);
    }

    #[tokio::test]
    async fn a_suspect_has_one_slot_whatever_the_sizes_in_between() {
        for (size, sizes) in [
            (1, vec![16]),
            (16, vec![1, 16]),
            (16, vec![0, 16]),
            (4, vec![2, 1, 3, 0, 8]),
            (0, vec![5]),
        ] {
            let suspect = Slots::new(size, true);
            let last = *sizes.last().unwrap_or(&size);
            for size in &sizes {
                suspect.resize(*size);
            }
            assert_eq!(suspect.free(false).await, 1, "{size}, then {sizes:?}");
            let trusted = Slots { trusted_from: Instant::now(), ..suspect };
            for earned in 2..=last {
                Place::new(trusted.take().await).ended();
                assert_eq!(trusted.free(false).await, earned, "{size}, then {sizes:?}");
            }
            Place::new(trusted.take().await).ended();
            assert_eq!(trusted.free(false).await, last, "no more than its size");
        }
    }
}
