//! The rate limits. Every request counts against its address, at a rate that a proxy's clients need
//! together; this is checked before any signature. An authenticated caller then counts by its key, and
//! any other caller by its address, so that nobody can use up the rate of a key that is not theirs.

use std::num::NonZeroU32;

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    state::keyed::HashMapStateStore,
};

/// How many callers an address may stand for, such as the clients of a proxy.
const CALLERS: u32 = 20;
/// The number of callers above which idle callers are removed.
const MANY: usize = 10_000;

/// The limits of requests with a signature, and of all others.
pub(super) struct Limits {
    address: Limiter,
    caller: Limiter,
}

impl Limits {
    /// Returns limits of `per_second` requests per caller, and 20 times as many per address.
    pub(super) fn new(per_second: u32) -> Self {
        let address = Limiter::new(per_second.saturating_mul(CALLERS));
        Self { address, caller: Limiter::new(per_second) }
    }

    /// Counts a request of an address, before its signature is checked. Returns the wait in seconds if
    /// the address exceeds its rate.
    pub(super) fn check_address(&self, address: &str) -> Result<(), u64> {
        self.address.check(address)
    }

    /// Counts a request of a caller: a key, or the address of a caller without one. Returns the wait in
    /// seconds if the caller exceeds its rate.
    pub(super) fn check_caller(&self, caller: &str) -> Result<(), u64> {
        self.caller.check(caller)
    }
}

struct Limiter {
    limiter: RateLimiter<String, HashMapStateStore<String>, DefaultClock>,
}

impl Limiter {
    /// Returns a limiter of `per_second` requests per caller, with bursts of twice as many.
    fn new(per_second: u32) -> Self {
        let rate = NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN);
        let burst = rate.saturating_mul(NonZeroU32::MIN.saturating_add(1));
        Self { limiter: RateLimiter::hashmap(Quota::per_second(rate).allow_burst(burst)) }
    }

    /// Counts a request. Returns the wait in seconds if the caller exceeds its rate.
    fn check(&self, caller: &str) -> Result<(), u64> {
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
