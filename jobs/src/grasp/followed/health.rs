//! When a relay is tried again. Pure: the clock and the random part are passed in.
//!
//! Failures back off: 5 s, 10 s, 20 s … up to an hour. A relay that has failed for a day is dead, and is
//! tried once a day. A permanent fault is probed every 6 hours, and forgotten 12 hours after it was
//! first seen. A pause that the relay asked for is never shortened.

use chrono::{DateTime, TimeDelta, Utc};

/// The delay after the first failure, in seconds. It doubles with each further one.
const BASE: i64 = 5;
/// The longest delay, in seconds.
const CAP: i64 = 3600;
/// After this time without a success a relay is dead, in seconds. It is then tried this often.
const DEAD: i64 = 86_400;
/// How often a permanent fault is probed, in seconds.
const PROBE: i64 = 21_600;
/// How often a permanent fault of a relay is probed from which a service starts, in seconds.
const PROBE_BOOTSTRAP: i64 = 3600;
/// A fault is forgotten after this time, in seconds.
const FAULT_FOR: i64 = 43_200;
/// The first pause of a relay that limits our rate, in seconds. It doubles with each further one.
const PAUSE: i64 = 65;
/// The longest pause, in seconds. A pause that follows the end of the last one by more than this is the
/// first one again.
const PAUSE_CAP: i64 = 900;

/// A fault that does not pass by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The name does not exist.
    Dns,
    /// The certificate or the handshake is not valid.
    Tls,
    /// The host does not speak WebSocket.
    Protocol,
    /// The host has no public address.
    Private,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 4] = [Self::Dns, Self::Tls, Self::Protocol, Self::Private];

    /// The name in rows, metrics and pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Tls => "tls",
            Self::Protocol => "protocol",
            Self::Private => "private",
        }
    }

    /// Returns the fault with this name; `None` if there is none.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.as_str() == text)
    }
}

/// The health of a relay, as its row has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Consecutive failures.
    pub failures: i32,
    /// When the first of them happened.
    pub failing_since: Option<DateTime<Utc>>,
    /// The permanent fault, and when it was first seen.
    pub fault: Option<(Fault, DateTime<Utc>)>,
    /// No attempt before this.
    pub next_attempt_at: DateTime<Utc>,
    /// No new subscription before this.
    pub limited_until: Option<DateTime<Utc>>,
    /// Consecutive pauses.
    pub limits: i32,
}

/// A failure of a relay.
#[derive(Debug, Clone, Copy, Default)]
pub struct Failure<'a> {
    /// The message, for people.
    pub error: &'a str,
    /// The fault, if it is permanent.
    pub fault: Option<Fault>,
    /// The wait that the relay asked for.
    pub retry_after: Option<TimeDelta>,
    /// A random number from 0 to 1, which spreads the delays by ±20 %.
    pub jitter: f64,
}

impl Health {
    /// The health of a relay that was never tried.
    pub fn new(now: DateTime<Utc>) -> Self {
        Self {
            failures: 0,
            failing_since: None,
            fault: None,
            next_attempt_at: now,
            limited_until: None,
            limits: 0,
        }
    }

    /// After a failure. `starts_here` says that a service starts from the relay.
    #[must_use]
    pub fn failed(self, now: DateTime<Utc>, failure: Failure<'_>, starts_here: bool) -> Self {
        let failures = self.failures.saturating_add(1);
        let since = self.failing_since.unwrap_or(now);
        let fault = fault_after(self.fault, failure.fault, now);
        let delay = match (fault, (now - since).num_seconds() >= DEAD) {
            (Some(_), _) if starts_here => PROBE_BOOTSTRAP,
            (_, true) => DEAD,
            (Some(_), false) => PROBE,
            (None, false) => backoff(failures),
        };
        let asked = failure.retry_after.unwrap_or_default();
        let next = now + spread(delay, failure.jitter).max(asked);
        Self {
            failures,
            failing_since: Some(since),
            fault,
            next_attempt_at: self.limited_until.map_or(next, |until| next.max(until)),
            ..self
        }
    }

    /// After a connection that lasted, or a completed batch.
    #[must_use]
    pub fn recovered(self) -> Self {
        Self { failures: 0, failing_since: None, fault: None, ..self }
    }

    /// After the relay limited our rate.
    #[must_use]
    pub fn limited(self, now: DateTime<Utc>) -> Self {
        let is_over = |until: DateTime<Utc>| (now - until).num_seconds() > PAUSE_CAP;
        let before = if self.limited_until.is_none_or(is_over) { 0 } else { self.limits };
        let until = now + TimeDelta::seconds(doubled(PAUSE, before, PAUSE_CAP));
        let until = self.limited_until.map_or(until, |earlier| earlier.max(until));
        Self { limits: before.saturating_add(1), limited_until: Some(until), ..self }
    }
}

/// Returns the delay after the `failures`-th consecutive failure, in seconds.
fn backoff(failures: i32) -> i64 {
    doubled(BASE, failures - 1, CAP)
}

/// Doubles `first` so many times, up to `cap`.
fn doubled(first: i64, times: i32, cap: i64) -> i64 {
    first.saturating_mul(1 << times.clamp(0, 40)).min(cap)
}

/// A permanent fault counts from when it was first seen, and is forgotten 12 hours later.
fn fault_after(
    before: Option<(Fault, DateTime<Utc>)>,
    found: Option<Fault>,
    now: DateTime<Utc>,
) -> Option<(Fault, DateTime<Utc>)> {
    let fault = found?;
    match before {
        Some((known, since)) if known == fault => {
            ((now - since).num_seconds() < FAULT_FOR).then_some((fault, since))
        }
        _ => Some((fault, now)),
    }
}

fn spread(seconds: i64, jitter: f64) -> TimeDelta {
    #[expect(clippy::cast_precision_loss, reason = "at most a day")]
    let seconds = seconds as f64 * 0.4f64.mul_add(jitter.clamp(0.0, 1.0), 0.8);
    #[expect(clippy::cast_possible_truncation, reason = "at most a day")]
    TimeDelta::milliseconds((seconds * 1000.0) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(1_000_000 + seconds)
    }

    fn failure(fault: Option<Fault>) -> Failure<'static> {
        Failure { error: "refused", fault, retry_after: None, jitter: 0.5 }
    }

    #[test]
    fn attempts_come_after_5_10_and_20_s_up_to_an_hour_and_then_once_a_day() {
        let (mut health, mut now, mut delays) = (Health::new(at(0)), at(0), Vec::new());
        while delays.len() < 40 {
            health = health.failed(now, failure(None), false);
            delays.push((health.next_attempt_at - now).num_seconds());
            now = health.next_attempt_at;
        }
        assert_eq!(delays[..11], [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600]);
        assert_eq!(delays[39], 86_400, "dead");
    }

    #[test]
    fn a_permanent_fault_is_probed_every_6_hours_and_forgotten_after_12() {
        let mut health = Health::new(at(0));
        for hour in [0, 6] {
            health = health.failed(at(hour * 3600), failure(Some(Fault::Dns)), false);
            assert_eq!(health.next_attempt_at, at((hour + 6) * 3600));
            assert_eq!(health.fault, Some((Fault::Dns, at(0))));
        }
        let forgotten = health.failed(at(12 * 3600), failure(Some(Fault::Dns)), false);
        assert_eq!((forgotten.fault, forgotten.failures), (None, 3));
        assert_eq!(forgotten.next_attempt_at, at(12 * 3600 + 20));
        let bootstrap = Health::new(at(0)).failed(at(0), failure(Some(Fault::Tls)), true);
        assert_eq!(bootstrap.next_attempt_at, at(3600));
    }

    #[test]
    fn pauses_double_from_65_s_to_15_min_and_begin_anew_after_a_calm() {
        let (mut health, mut now, mut pauses) = (Health::new(at(0)), at(0), Vec::new());
        for _ in 0..6 {
            health = health.limited(now);
            let until = health.limited_until.expect("a pause");
            pauses.push((until - now).num_seconds());
            now = until;
        }
        assert_eq!(pauses, [65, 130, 260, 520, 900, 900]);
        let calm = now + TimeDelta::seconds(901);
        assert_eq!(health.limited(calm).limited_until, Some(calm + TimeDelta::seconds(65)));
    }

    #[test]
    fn a_failure_never_shortens_a_pause() {
        let health = Health::new(at(0)).limited(at(0)).failed(at(1), failure(None), false);
        assert_eq!(health.next_attempt_at, at(65));
    }

    proptest! {
        #[test]
        fn delays_stay_within_their_bounds(
            failures in 0..100_000i32, jitter in 0.0..=1.0f64, failing in 0..200_000i64, starts in any::<bool>(),
            fault in prop::option::of(prop::sample::select(Fault::ALL.to_vec())), asked in 0..100_000i64,
        ) {
            let since = (failures > 0).then(|| at(-failing));
            let before = Health { failures, failing_since: since, ..Health::new(at(0)) };
            let retry_after = Some(TimeDelta::seconds(asked));
            let failed = Failure { error: "x", fault, retry_after, jitter };
            let after = before.clone().failed(at(0), failed, starts);
            let delay = (after.next_attempt_at - at(0)).num_milliseconds();
            prop_assert!(delay >= 4000 && delay >= asked * 1000);
            prop_assert!(delay <= 103_680_000.max(asked * 1000));
            prop_assert_eq!(after.failures, failures + 1);
            prop_assert!(after.failing_since.is_some());
            let recovered = after.recovered();
            prop_assert!(recovered.failures == 0 && recovered.failing_since.is_none() && recovered.fault.is_none());
        }

        #[test]
        fn more_failures_never_shorten_the_delay(failures in 1..200i32) {
            prop_assert!(backoff(failures) <= backoff(failures + 1));
        }

        #[test]
        fn a_pause_never_ends_earlier_than_the_one_before(steps in prop::collection::vec(0..2000i64, 1..30)) {
            let (mut health, mut now) = (Health::new(at(0)), 0);
            for step in steps {
                now += step;
                let before = health.limited_until;
                health = health.limited(at(now));
                prop_assert!(health.limited_until >= before);
                prop_assert!(health.limited_until <= Some(at(now + 900)).max(before));
            }
        }
    }
}
