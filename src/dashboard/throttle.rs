//! The limits of login attempts by password: per client, so that one client cannot lock out the others, and per site,
//! because a site has many addresses.

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::HashMapStateStore,
};

use crate::config::{network, site};

/// A client has 5 attempts at once, then one per 6 s.
const CLIENT: (u32, Duration) = (5, Duration::from_secs(6));
/// A site has 25 attempts at once, then one per 2 s: as much as a few clients that share an address range.
const SITE: (u32, Duration) = (25, Duration::from_secs(2));
/// The number of addresses above which idle ones are forgotten.
const MANY: usize = 10_000;

/// Counts the attempts of each client and of each site.
pub(super) struct Throttle<C: Clock = DefaultClock> {
    clients: Limiter<C>,
    sites: Limiter<C>,
}

impl Default for Throttle {
    fn default() -> Self {
        Self::at(&DefaultClock::default())
    }
}

impl<C: Clock + Clone> Throttle<C> {
    fn at(clock: &C) -> Self {
        Self { clients: Limiter::new(CLIENT, clock), sites: Limiter::new(SITE, clock) }
    }

    /// Counts an attempt from an address. Returns how many more its client may make at once, or the wait in seconds
    /// if it or its site has made too many. An attempt that its client may not make does not count for the site, so
    /// that one client cannot use up the site's.
    pub(super) fn check(&self, address: IpAddr) -> Result<u32, u64> {
        let left = self.clients.check(network(address))?;
        self.sites.check(site(address)).map(|of_site| left.min(of_site))
    }
}

struct Limiter<C: Clock> {
    limiter: RateLimiter<IpAddr, HashMapStateStore<IpAddr>, C, StateInformationMiddleware>,
    clock: C,
}

impl<C: Clock + Clone> Limiter<C> {
    fn new((burst, pause): (u32, Duration), clock: &C) -> Self {
        let quota = Quota::with_period(pause).unwrap_or(Quota::per_minute(NonZeroU32::MIN));
        let quota = quota.allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN));
        let limiter = RateLimiter::new(quota, HashMapStateStore::default(), clock.clone());
        Self { limiter, clock: clock.clone() }
    }

    fn check(&self, address: IpAddr) -> Result<u32, u64> {
        if self.limiter.len() > MANY {
            self.limiter.retain_recent();
        }
        match self.limiter.check_key(&address) {
            Ok(left) => Ok(left.remaining_burst_capacity()),
            Err(not_until) => Err(not_until.wait_time_from(self.clock.now()).as_secs() + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use governor::clock::FakeRelativeClock;
    use proptest::prelude::*;

    use super::*;

    fn throttle() -> (Throttle<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Throttle::at(&clock), clock)
    }

    #[test]
    fn a_client_has_five_attempts_and_the_others_keep_theirs() {
        let (throttle, clock) = throttle();
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let left: Vec<_> = (0..5).map(|_| throttle.check(one)).collect();
        assert_eq!(left, [Ok(4), Ok(3), Ok(2), Ok(1), Ok(0)]);
        assert!(throttle.check(one).is_err_and(|wait| (1..=7).contains(&wait)));
        assert_eq!(throttle.check(other), Ok(4));
        clock.advance(Duration::from_secs(6));
        assert_eq!(throttle.check(one), Ok(0));
    }

    proptest! {
        /// Whatever addresses of a site attempt, the site gets no more than its burst and its rate.
        #[test]
        fn a_site_cannot_exceed_its_rate_by_many_addresses(
            hosts in prop::collection::vec((any::<u16>(), any::<u64>(), 0..3_u64), 1..300),
            is_v4 in any::<bool>(),
        ) {
            let (throttle, clock) = throttle();
            let (mut allowed, mut elapsed) = (0, 0);
            for (subnet, host, pause) in hosts {
                clock.advance(Duration::from_secs(pause));
                elapsed += pause;
                let v6 = 0x2001_0db8_0001_u128 << 80 | u128::from(subnet) << 64 | u128::from(host);
                let v4 = 0xcb00_7100 | u32::from(subnet) & 0xff;
                let address: IpAddr =
                    if is_v4 { Ipv4Addr::from_bits(v4).into() } else { Ipv6Addr::from_bits(v6).into() };
                allowed += u64::from(throttle.check(address).is_ok());
            }
            prop_assert!(allowed <= 25 + elapsed / 2, "{allowed} in {elapsed} s");
        }

        /// A client that attempts again and again leaves its site's other clients their attempts.
        #[test]
        fn one_client_leaves_its_site_alone(attempts in 6..500_u32, other in 2..=255_u8) {
            let (throttle, _clock) = throttle();
            for _ in 0..attempts {
                let _counted = throttle.check([192, 0, 2, 1].into());
            }
            prop_assert_eq!(throttle.check([192, 0, 2, other].into()), Ok(4));
        }

        /// What one site does, another does not notice.
        #[test]
        fn sites_are_apart(clients in prop::collection::vec(any::<u16>(), 0..300), other in 2..=0xffff_u16) {
            let (throttle, _clock) = throttle();
            for subnet in clients {
                let _counted = throttle.check(Ipv6Addr::new(0x2001, 0xdb8, 1, subnet, 0, 0, 0, 1).into());
            }
            let stranger = Ipv6Addr::new(0x2001, 0xdb8, other, 0, 0, 0, 0, 1);
            prop_assert_eq!(throttle.check(stranger.into()), Ok(4));
        }
    }
}
