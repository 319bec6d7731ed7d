//! Requests per second of each caller: its key once it is authenticated, its address before.

use std::num::NonZeroU32;

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    state::keyed::HashMapStateStore,
};

/// Callers remembered before those that are quiet are forgotten.
const MANY: usize = 10_000;

pub(super) struct Limiter {
    limiter: RateLimiter<String, HashMapStateStore<String>, DefaultClock>,
}

impl Limiter {
    /// `per_second` requests, with bursts of twice as many.
    pub(super) fn new(per_second: u32) -> Self {
        let rate = NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN);
        let burst = rate.saturating_mul(NonZeroU32::MIN.saturating_add(1));
        Self { limiter: RateLimiter::hashmap(Quota::per_second(rate).allow_burst(burst)) }
    }

    /// Counts a request; when it is one too many, the seconds to wait.
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
