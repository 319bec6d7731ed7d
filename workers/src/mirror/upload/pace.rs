//! The pace of uploads: the pause between two batches. It begins as configured, and becomes shorter while the upstream
//! answers fast. A limit or slow answers make it longer, and after a limit it stays longer for ten minutes.
//!
//! ```text
//! fast answers   ▶ half of the pause; none below 5 ms; never below the floor
//! slow answers   ▶ twice the pause, at least as configured
//! rate-limited   ▶ twice the pause, at least as configured: the floor for ten minutes
//! ```

use std::time::{Duration, Instant};

/// A batch that is answered within this time was answered fast.
const FAST: Duration = Duration::from_secs(1);
/// A batch that takes longer was answered slowly.
const SLOW: Duration = Duration::from_secs(3);
/// A shorter pause is none.
const SHORTEST: Duration = Duration::from_millis(5);
/// The shortest pause after a limit.
const POLITE: Duration = Duration::from_millis(100);
/// The longest pause that adapts; one that is configured may be longer.
const LONGEST: Duration = Duration::from_secs(10);
/// How long the pause stays long after a limit.
const FLOOR_FOR: Duration = Duration::from_mins(10);

/// The pace towards one upstream.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::mirror) struct Pace {
    /// The pause that is configured, and the one that it has become; `None` before the first batch.
    pause: Option<(Duration, Duration)>,
    /// The shortest pause, until an instant.
    floor: Option<(Duration, Instant)>,
}

impl Pace {
    /// Returns the pause before the next batch. Another configured pause begins anew.
    pub(in crate::mirror) fn pause(&mut self, configured: Duration) -> Duration {
        match self.pause {
            Some((same, pause)) if same == configured => pause,
            _ => {
                self.pause = Some((configured, configured));
                configured
            }
        }
    }

    /// Notes a batch that the upstream answered within `took`.
    pub(in crate::mirror) fn answered(
        &mut self,
        configured: Duration,
        took: Duration,
        now: Instant,
    ) {
        let pause = self.pause(configured);
        let next = if took <= FAST {
            let half = pause / 2;
            if half < SHORTEST { Duration::ZERO } else { half }
        } else if took > SLOW {
            longer(pause, configured)
        } else {
            pause
        };
        let floor =
            self.floor.filter(|(_, until)| now < *until).map_or(Duration::ZERO, |(floor, _)| floor);
        self.pause = Some((configured, next.max(floor)));
    }

    /// Notes that the upstream limits our rate.
    pub(in crate::mirror) fn limited(&mut self, configured: Duration, now: Instant) {
        let pause = longer(self.pause(configured), configured.max(POLITE));
        self.pause = Some((configured, pause));
        self.floor = Some((pause, now + FLOOR_FOR));
    }
}

/// Twice the pause, at least `least`, and at most the longer of it and the longest.
fn longer(pause: Duration, least: Duration) -> Duration {
    (pause * 2).clamp(least, least.max(LONGEST))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Duration = Duration::from_millis(100);
    const QUICK: Duration = Duration::from_millis(20);

    #[test]
    fn fast_answers_end_the_pause_and_a_limit_brings_it_back_for_ten_minutes() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..6 {
            pauses.push(pace.pause(START).as_millis());
            pace.answered(START, QUICK, now);
        }
        assert_eq!(pauses, [100, 50, 25, 12, 6, 0]);
        pace.limited(START, now);
        pace.answered(START, QUICK, now + FLOOR_FOR / 2);
        assert_eq!(pace.pause(START), START);
        pace.limited(START, now);
        assert_eq!(pace.pause(START), 2 * START);
        pace.answered(START, QUICK, now + FLOOR_FOR);
        assert_eq!(pace.pause(START), START);
    }

    #[test]
    fn slow_answers_make_it_longer_and_another_setting_begins_anew() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        for _ in 0..20 {
            pace.answered(START, 2 * SLOW, now);
        }
        assert_eq!(pace.pause(START), LONGEST);
        assert_eq!(pace.pause(2 * START), 2 * START);
    }

    proptest! {
        #[test]
        fn the_pause_is_bounded_and_never_below_the_floor(
            steps in proptest::collection::vec((0..4_u8, 0..900_u64), 1..60),
            configured in prop_oneof![Just(0_u64), 1..20_000_u64],
        ) {
            let (mut pace, configured) = (Pace::default(), Duration::from_millis(configured));
            let (mut now, mut limited_at) = (Instant::now(), None);
            for (step, seconds) in steps {
                now += Duration::from_secs(seconds);
                match step {
                    0 => { pace.limited(configured, now); limited_at = Some(now); }
                    1 => pace.answered(configured, 2 * SLOW, now),
                    _ => pace.answered(configured, QUICK, now),
                }
                let pause = pace.pause(configured);
                prop_assert!(pause <= configured.max(LONGEST));
                if limited_at.is_some_and(|at| now < at + FLOOR_FOR) {
                    prop_assert!(pause >= POLITE.max(configured));
                }
            }
        }
    }
}
