//! The delay of a retry, computed from the number of the attempt: arithmetic only, without a clock,
//! randomness or I/O.

use std::time::Duration;

/// The schedule of retries after failed attempts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    retries: u32,
    jitter: f64,
}

/// Why a schedule is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBackoff {
    /// The base is below 1 s or above the cap.
    #[error("the base must be at least 1 s and at most the cap")]
    Base,
    /// The number of retries is not within 1 … 100.
    #[error("the number of retries must be between 1 and 100")]
    Retries,
    /// The jitter is not within 0 … 0.5.
    #[error("the jitter must be between 0 and 0.5")]
    Jitter,
}

impl Backoff {
    /// Returns a schedule of `retries` retries after the first attempt: a job has `retries + 1`
    /// attempts. `jitter` is the fraction by which the database varies each delay in both
    /// directions.
    ///
    /// # Errors
    /// [`InvalidBackoff`] names the invalid parameter.
    pub fn new(
        base: Duration,
        cap: Duration,
        retries: u32,
        jitter: f64,
    ) -> Result<Self, InvalidBackoff> {
        if base < Duration::from_secs(1) || base > cap {
            return Err(InvalidBackoff::Base);
        }
        if !(1..=100).contains(&retries) {
            return Err(InvalidBackoff::Retries);
        }
        if !(0.0..=0.5).contains(&jitter) {
            return Err(InvalidBackoff::Jitter);
        }
        Ok(Self { base, cap, retries, jitter })
    }

    /// Returns the number of attempts that a job may make: the first one and its retries.
    pub fn max_attempts(&self) -> u32 {
        self.retries + 1
    }

    /// Returns the fraction (0 … 0.5) by which the database varies a stored delay.
    pub fn jitter(&self) -> f64 {
        self.jitter
    }

    /// Returns the delay before attempt `attempt + 1`, without jitter; `None` if `attempt` was the
    /// last. `attempt` counts from 1. The defaults give 30, 60, 120, 240, 480 and 900 s. A
    /// `retry_after` of the remote server raises the delay, at most to the cap. Source:
    /// `docs/adr/0005-six-retries-are-seven-attempts.md`.
    pub fn delay(&self, attempt: u32, retry_after: Option<Duration>) -> Option<Duration> {
        if attempt >= self.max_attempts() {
            return None;
        }
        let doublings = attempt.saturating_sub(1).min(31);
        let delay = self.base.saturating_mul(1 << doublings);
        Some(delay.max(retry_after.unwrap_or_default()).min(self.cap))
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base: Duration::from_secs(30),
            cap: Duration::from_mins(15),
            retries: 6,
            jitter: 0.1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_default_schedule_is_the_one_in_the_specification() {
        let backoff = Backoff::default();
        let delays: Vec<_> =
            (1..=8).map(|attempt| backoff.delay(attempt, None).map(|d| d.as_secs())).collect();
        let expected = [Some(30), Some(60), Some(120), Some(240), Some(480), Some(900), None, None];
        assert_eq!(delays, expected);
    }

    #[test]
    fn a_schedule_that_cannot_be_kept_is_refused() {
        let seconds = Duration::from_secs;
        assert_eq!(Backoff::new(seconds(0), seconds(9), 6, 0.1), Err(InvalidBackoff::Base));
        assert_eq!(Backoff::new(seconds(10), seconds(9), 6, 0.1), Err(InvalidBackoff::Base));
        assert_eq!(Backoff::new(seconds(1), seconds(9), 0, 0.1), Err(InvalidBackoff::Retries));
        assert_eq!(Backoff::new(seconds(1), seconds(9), 6, f64::NAN), Err(InvalidBackoff::Jitter));
    }

    proptest! {
        #[test]
        fn delays_grow_to_the_cap_and_end_with_the_retries(
            base in 1..1000_u64, span in 0..100_000_u64, retries in 1..100_u32, attempt in 1..500_u32,
        ) {
            let cap = Duration::from_secs(base + span);
            let backoff = Backoff::new(Duration::from_secs(base), cap, retries, 0.0).expect("valid");
            let delay = backoff.delay(attempt, None);
            prop_assert_eq!(delay.is_none(), attempt > retries);
            if let Some(delay) = delay {
                prop_assert!(delay >= Duration::from_secs(base) && delay <= cap);
                prop_assert!(backoff.delay(attempt + 1, None).is_none_or(|next| next >= delay));
            }
        }

        #[test]
        fn retry_after_only_raises_and_never_beyond_the_cap(
            attempt in 1..=6_u32, retry_after in 0..100_000_u64,
        ) {
            let backoff = Backoff::default();
            let plain = backoff.delay(attempt, None).expect("a retry is left");
            let asked = backoff.delay(attempt, Some(Duration::from_secs(retry_after)));
            let asked = asked.expect("a retry is left");
            prop_assert!(asked >= plain && asked <= Duration::from_mins(15));
        }
    }
}
