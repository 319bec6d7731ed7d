//! The rate limits. Failed and authenticated requests are counted apart, so that a flood of wrong
//! tokens or signatures cannot use up the rate of a valid caller, not even from the same address:
//!
//! - A failed request counts against its address.
//! - An authenticated request counts against its key, and against its address at a rate that a
//!   proxy's clients need together, because anyone can make new keys.
//!
//! A signature is verified before it is counted: this takes about as long as reading the request,
//! and a limit before it would be one that strangers can use up. A token that is not that of an
//! active key is counted before the database is asked; see [`Tokens`](super::tokens::Tokens).

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

/// The limits of failed and of authenticated requests.
pub(super) struct Limits {
    failed: Limiter,
    address: Limiter,
    caller: Limiter,
}

impl Limits {
    /// Returns limits of `per_second` requests per caller, of as many failed requests per address, and
    /// of 20 times as many authenticated requests per address.
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            failed: Limiter::new(per_second),
            address: Limiter::new(per_second.saturating_mul(CALLERS)),
            caller: Limiter::new(per_second),
        }
    }

    /// Counts a request of an address that is not authenticated. Returns the wait in seconds if the
    /// address exceeds its rate of them.
    pub(super) fn check_failed(&self, address: &str) -> Result<(), u64> {
        self.failed.check(address)
    }

    /// Counts an authenticated request. Returns the wait in seconds if the caller or the address
    /// exceeds its rate.
    pub(super) fn check_authenticated(&self, caller: &str, address: &str) -> Result<(), u64> {
        self.caller.check(caller)?;
        self.address.check(address)
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

    #[test]
    fn failed_requests_leave_the_authenticated_ones_alone() {
        let limits = Limits::new(1);
        let failed = (0..100).filter(|_| limits.check_failed("a").is_err()).count();
        assert!(failed >= 97);
        assert_eq!(limits.check_authenticated("key", "a"), Ok(()));
    }
}
