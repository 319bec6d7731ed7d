//! The loop of a session: live events first, then the end of work, then new work.
//!
//! - `refusals`: whether the relay refuses everything. `next`: what is fetched next. `ended`: the ends of tasks. `clocks`: what is due by time.

mod clocks;
mod ended;
mod next;
mod refusals;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use refusals::Refusals;
use tender_jobs::{
    grasp::{coverage, family::Purpose, followed::Subscriptions},
    queue::Settled,
};
use tokio::{task::JoinSet, time::MissedTickBehavior};

use super::{
    End, Hold, Never, Session,
    covers::CURRENT_FOR,
    live::Live,
    over,
    passes::{OVERLAP, Pass},
    random,
    work::Done,
};

/// How often the loop looks at its clocks.
const TICK: Duration = Duration::from_secs(1);
/// The time in which the work of an ending session stores what came.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);
/// An overdue verification begins within this time after a connection, in seconds.
const SPREAD: f64 = 600.0;

/// The state of a session.
struct Following {
    session: Arc<Session>,
    hold: Hold,
    live: Live,
    work: JoinSet<Done>,
    /// How many tasks of `work` fetch missing items.
    missing: usize,
    pass: Option<Pass>,
    /// The kind of work that has the next turn.
    turn: usize,
    /// Whether the last work that began fetches missing items.
    was_missing: bool,
    /// Whether everything confirmed is verified and followed live, as it was stored.
    is_verified: bool,
    /// How often items were planned, confirmed or lost since that was stored.
    changes: usize,
    /// When the next missing items are due; `None` if none is missing.
    plan_at: Option<Instant>,
    limited_until: Option<Instant>,
    refusals: Refusals,
    begun: Instant,
    is_good: bool,
    counted: Instant,
    told: Subscriptions,
    /// Not before this, if a verification was overdue at the claim.
    resync_from: Instant,
    /// The due time that the last verification has served. The manager tells a new one a little later.
    served: Option<DateTime<Utc>>,
}

/// Follows a relay until an end.
pub(super) async fn run(session: Arc<Session>, hold: Hold) -> Result<Never, End> {
    let mut following = Following::new(session, hold);
    let ended = following.follow().await;
    following.end(ended).await
}

impl Following {
    fn new(session: Arc<Session>, hold: Hold) -> Self {
        let now = Instant::now();
        let refusals = Refusals::new(hold.claimed.refusals, hold.claimed.first_refusals);
        let spread = if hold.claimed.is_resync_due { random() * SPREAD } else { 0.0 };
        Self {
            live: Live::new(&session),
            session,
            hold,
            work: JoinSet::new(),
            missing: 0,
            pass: None,
            turn: 0,
            was_missing: false,
            is_verified: false,
            changes: 0,
            plan_at: Some(now),
            limited_until: None,
            refusals,
            begun: now,
            is_good: false,
            counted: now,
            told: Subscriptions::default(),
            resync_from: now + Duration::from_secs_f64(spread),
            served: None,
        }
    }

    async fn follow(&mut self) -> Result<Never, End> {
        let mut notices = self.session.connection.limits();
        self.live.fill(&self.session).await?;
        self.pass = Some(self.begin_pass().await?);
        self.hold.connecting = None;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (connection, stop) = (self.session.clone(), self.hold.stop.clone());
        let (plan, mut orders) = (self.hold.plan.clone(), self.hold.orders.clone());
        loop {
            self.pump().await?;
            let flush_at = self.live.flush_at()?;
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(End::Released),
                () = over(&mut orders) => return Err(End::LeaseLost),
                () = connection.connection.until_lost() => {
                    return Err(connection.connection.lost_error().into());
                }
                message = self.live.next() => {
                    if let Some(ended) = self.live.take(&self.session, message).await? {
                        self.closed(&ended).await?;
                    }
                }
                () = at(flush_at) => self.live.flush().await?,
                Some(done) = self.work.join_next() => self.done(done).await?,
                () = plan.notified() => self.plan_at = Some(Instant::now()),
                Ok(()) = notices.changed() => {
                    let notice = notices.borrow_and_update().clone();
                    self.limit(notice.unwrap_or_default()).await?;
                }
                _ = ticks.tick() => self.tick().await?,
            }
        }
    }

    /// Begins the first verification. If it is one of everything, long walks begin anew too.
    async fn begin_pass(&self) -> Result<Pass, sqlx::Error> {
        let pass = self.first_pass();
        if pass.purpose == Purpose::Fresh {
            coverage::forget_walked(&self.session.context.db, self.session.lease).await?;
        }
        Ok(pass)
    }

    /// The verification with which a connection begins: of what was published since the relay was known
    /// good, or of everything if that was long ago.
    fn first_pass(&self) -> Pass {
        let Some(good) = self.hold.claimed.good_until else { return Pass::new(Purpose::Fresh, 0) };
        // Items that were polled were last asked for up to this time earlier.
        let polled = i64::try_from(CURRENT_FOR.as_secs()).unwrap_or(0);
        let since = good.timestamp() - OVERLAP - polled;
        Pass::new(Purpose::Reconnect, since.max(1))
    }

    /// Ends the session: what came is stored, within a bound. Nothing is written after a lost lease.
    async fn end(mut self, ended: Result<Never, End>) -> Result<Never, End> {
        if matches!(ended, Err(End::LeaseLost)) {
            return ended;
        }
        if matches!(ended, Err(End::Released)) {
            self.session.ending.cancel();
        }
        if !self.session.upstream.mirrored {
            self.session.connection.close("closed by us: the session ended");
        }
        let drained = tokio::time::timeout(DRAIN_WITHIN, async {
            let stored = self.live.settle().await;
            while !self.session.upstream.mirrored && self.work.join_next().await.is_some() {}
            stored
        });
        match drained.await {
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(_)) | Err(_) => ended,
        }
    }
}

/// Waits until an instant; without one, for ever.
async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

fn held(settled: Settled<()>) -> Result<(), End> {
    match settled {
        Settled::Written(()) => Ok(()),
        Settled::LeaseLost => Err(End::LeaseLost),
    }
}
