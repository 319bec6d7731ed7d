//! Waiting for what another task does, and instants of the database's clock. No test sleeps.

use std::{ops::RangeInclusive, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tender_jobs::queue;
use tokio::time::MissedTickBehavior;

/// The longest wait for something that another task does. It bounds a hang; a passing test never waits
/// for it, also on a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// How often a condition is read.
const LOOK: Duration = Duration::from_millis(25);

/// Waits until `reached` says so, within [`PATIENCE`].
pub async fn eventually(what: &str, reached: impl AsyncFnMut() -> bool) {
    within(PATIENCE, what, reached).await;
}

/// As [`eventually`], with another bound.
pub async fn within(bound: Duration, what: &str, mut reached: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(bound, async {
        let mut look = tokio::time::interval(LOOK);
        // After a slow look the next one comes a whole interval later: looks never pile up.
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            if reached().await {
                break;
            }
        }
    });
    assert!(waited.await.is_ok(), "not within {bound:?}: {what}");
}

/// Waits for `event` within [`PATIENCE`], and returns its value.
pub async fn patiently<T>(what: &str, event: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, event).await;
    waited.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

/// The database's clock before and after an act. A time that the act stored as "now plus a delay" lies
/// between both plus the delay, however slow the machine is.
#[derive(Debug, Clone, Copy)]
pub struct Bracket {
    pub before: DateTime<Utc>,
    pub after: DateTime<Utc>,
}

impl Bracket {
    /// Runs `act`, and returns its value with the instants before and after it.
    pub fn of<'a, T: 'a>(
        db: &'a PgPool,
        act: impl Future<Output = T> + 'a,
    ) -> impl Future<Output = (T, Self)> + 'a {
        let act = Box::pin(act); // the future of an attempt is large
        async move {
            let before = queue::now(db).await.unwrap();
            let value = act.await;
            let after = queue::now(db).await.unwrap();
            (value, Self { before, after })
        }
    }

    /// Whether the act may have stored `at` as its own time plus one of these delays.
    pub fn allows(&self, at: DateTime<Utc>, delays: RangeInclusive<Duration>) -> bool {
        self.before + *delays.start() <= at && at <= self.after + *delays.end()
    }

    /// Asserts that the act stored `at` as its own time plus `delay`.
    #[track_caller]
    pub fn assert(&self, at: DateTime<Utc>, delay: Duration) {
        self.assert_within(at, delay..=delay);
    }

    /// Asserts that the act stored `at` as its own time plus one of these delays.
    #[track_caller]
    pub fn assert_within(&self, at: DateTime<Utc>, delays: RangeInclusive<Duration>) {
        assert!(self.allows(at, delays.clone()), "{at} is not {delays:?} after {self:?}");
    }
}
