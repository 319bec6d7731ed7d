//! The limit of login attempts by password: per address, so that one client cannot lock out the others.

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::HashMapStateStore,
};

/// 5 attempts at once, then one per 6 s.
const PAUSE: Duration = Duration::from_secs(6);
const BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(4);
/// The number of addresses above which idle ones are forgotten.
const MANY: usize = 10_000;

/// Counts the attempts of each address.
pub(super) struct Throttle(
    RateLimiter<IpAddr, HashMapStateStore<IpAddr>, DefaultClock, StateInformationMiddleware>,
);

impl Default for Throttle {
    fn default() -> Self {
        let quota = Quota::with_period(PAUSE).unwrap_or(Quota::per_minute(NonZeroU32::MIN));
        let limiter = RateLimiter::hashmap(quota.allow_burst(BURST));
        Self(limiter.with_middleware::<StateInformationMiddleware>())
    }
}

impl Throttle {
    /// Counts an attempt of an address. Returns how many more it may make at once, or the wait in seconds
    /// if it has made too many.
    pub(super) fn check(&self, address: IpAddr) -> Result<u32, u64> {
        if self.0.len() > MANY {
            self.0.retain_recent();
        }
        match self.0.check_key(&address) {
            Ok(left) => Ok(left.remaining_burst_capacity()),
            Err(not_until) => {
                Err(not_until.wait_time_from(DefaultClock::default().now()).as_secs() + 1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_five_attempts_and_the_others_keep_theirs() {
        let throttle = Throttle::default();
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let left: Vec<_> = (0..5).map(|_| throttle.check(one)).collect();
        assert_eq!(left, [Ok(4), Ok(3), Ok(2), Ok(1), Ok(0)]);
        assert!(throttle.check(one).is_err_and(|wait| (1..=7).contains(&wait)));
        assert_eq!(throttle.check(other), Ok(4));
    }
}
