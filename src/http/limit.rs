//! The rate limit per caller. An authenticated caller is counted by its key, any other caller by
//! its address.

use std::num::NonZeroU32;

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    state::keyed::HashMapStateStore,
};

/// The number of callers above which idle callers are removed.
const MANY: usize = 10_000;

pub(super) struct Limiter {
    limiter: RateLimiter<String, HashMapStateStore<String>, DefaultClock>,
}

impl Limiter {
    /// Returns a limiter of `per_second` requests per caller, with bursts of twice as many.
    pub(super) fn new(per_second: u32) -> Self {
        let rate = NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN);
        let burst = rate.saturating_mul(NonZeroU32::MIN.saturating_add(1));
        Self { limiter: RateLimiter::hashmap(Quota::per_second(rate).allow_burst(burst)) }
    }

    /// Counts a request. Returns the wait in seconds if the caller exceeds its rate.
    pub(super) fn check(&self, caller: &str) -> Result<(), u64> {
        if self.limiter.len() > MANY {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(&caller.to_owned()).map_err(|not_until| {
            let wait = not_until.wait_time_from(DefaultClock::default().now());
            wait.as_secs() + 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_a_burst_and_others_are_not_touched() {
        let limiter = Limiter::new(1);
        assert_eq!(limiter.check("a"), Ok(()));
        assert_eq!(limiter.check("a"), Ok(()));
        assert!(limiter.check("a").is_err_and(|wait| wait >= 1));
        assert_eq!(limiter.check("b"), Ok(()));
    }
}
