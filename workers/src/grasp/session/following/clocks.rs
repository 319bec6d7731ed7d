//! What a session stores about its relay, and what it does when a time has come.

use std::time::{Duration, Instant};

use tender_jobs::{
    grasp::{coverage, family::Purpose, followed},
    queue::Settled,
};

use super::{End, Following, held};
use crate::{
    grasp::session::{live::Ended, passes::Pass},
    mirror::error::StepError,
};

/// A connection that lasts for so long is a success.
const GOOD_AFTER: Duration = Duration::from_mins(5);
/// How often the counts of live events are stored.
const COUNT_EVERY: Duration = Duration::from_secs(10);

impl Following {
    /// Stores whether everything confirmed is verified and followed live, whenever that or the coverage has
    /// changed. It is not while a subscription is closed, unless the relay refuses its filter and it is polled
    /// instead.
    pub(super) async fn tell(&mut self) -> Result<(), End> {
        let is_daily = self.pass.as_ref().is_some_and(|pass| pass.purpose == Purpose::Daily);
        let is_followed = self.pass.is_none() || (self.is_verified && is_daily);
        let is_verified = is_followed && self.live.is_current();
        if is_verified != self.is_verified || (is_verified && self.changes > 0) {
            let (db, lease) = (&self.session.context.db, self.session.lease);
            held(followed::note_verified(db, lease, is_verified).await?)?;
            (self.is_verified, self.changes) = (is_verified, 0);
        }
        Ok(())
    }

    /// Stores the number of subscriptions.
    async fn tell_subscriptions(&mut self) -> Result<(), End> {
        let now = self.live.subscriptions();
        if now != self.told && self.live.flush_at()?.is_none() {
            let (db, lease) = (&self.session.context.db, self.session.lease);
            held(followed::note_subscriptions(db, lease, &now).await?)?;
            self.told = now;
        }
        Ok(())
    }

    /// The relay ended a subscription; the others go on.
    pub(super) async fn closed(&mut self, ended: &Ended) -> Result<(), End> {
        let (url, error) = (&self.session.upstream.url, &ended.error);
        tracing::info!(url, %error, "a followed relay closed a live subscription; opened again later");
        match error {
            StepError::RateLimited(reason) => self.limit(reason.clone()).await?,
            StepError::Auth(_) => self.authenticate(ended).await,
            _ => {}
        }
        Ok(())
    }

    /// Opens a subscription again as soon as we are authenticated, once for each challenge.
    async fn authenticate(&mut self, ended: &Ended) {
        let connection = &self.session.connection;
        if connection.authenticated().await.is_ok()
            && let Some(challenge) = connection.accepted_challenge().await
            && let Some(standing) = self.live.standing(ended.standing)
        {
            standing.authenticated(&challenge);
        }
    }

    pub(super) async fn limit(&mut self, reason: String) -> Result<(), End> {
        let (db, lease) = (&self.session.context.db, self.session.lease);
        match followed::limit(db, lease, &reason).await? {
            Settled::Written(seconds) => self.pause(seconds),
            Settled::LeaseLost => return Err(End::LeaseLost),
        }
        Ok(())
    }

    pub(super) fn is_limited(&self) -> bool {
        self.limited_until.is_some_and(|until| until > Instant::now())
    }

    pub(super) fn pause(&mut self, seconds: i64) {
        let pause = Duration::from_secs(seconds.try_into().unwrap_or(0));
        self.limited_until = Some(Instant::now() + pause);
    }

    pub(super) async fn note_good(&mut self) -> Result<(), End> {
        if !self.is_good {
            let (db, lease) = (&self.session.context.db, self.session.lease);
            held(followed::good(db, lease).await?)?;
            self.is_good = true;
        }
        Ok(())
    }

    /// Looks at the clocks.
    pub(super) async fn tick(&mut self) -> Result<(), End> {
        if self.begun.elapsed() > GOOD_AFTER {
            self.note_good().await?;
        }
        self.live.close_silent(&self.session).await?;
        self.live.settle_packed(&self.session).await?;
        if !self.is_limited() {
            self.live.reopen(&self.session).await?;
        }
        self.drop_hopeless().await?;
        self.tell_subscriptions().await?;
        if self.counted.elapsed() > COUNT_EVERY {
            self.count().await?;
        }
        self.begin_resync();
        Ok(())
    }

    /// What the relay refuses in every way is missing: its history is fetched again, later and later.
    async fn drop_hopeless(&mut self) -> Result<(), End> {
        let (db, lease) = (&self.session.context.db, self.session.lease);
        for dropped in self.live.drop_hopeless() {
            let reason = format!("neither live nor on request: {}", dropped.reason);
            let (family, items) = (dropped.family, &dropped.items);
            held(coverage::lose(db, lease, family, items, (&reason, true)).await?)?;
            (self.plan_at, self.changes) = (Some(Instant::now()), self.changes + 1);
            if dropped.filters > 0 {
                self.live.dropped.push(dropped);
            }
        }
        Ok(())
    }

    /// Begins the verification that is due, unless one is in progress.
    pub(super) fn begin_resync(&mut self) {
        let orders = *self.hold.orders.borrow();
        let was_overdue = orders.resync_due_at == self.hold.claimed.resync_due_at;
        let is_early = was_overdue && Instant::now() < self.resync_from;
        let is_served = self.served.is_some() && self.served == orders.resync_due_at;
        if orders.is_resync_due && !is_served && !is_early && self.pass.is_none() {
            self.pass = Some(Pass::new(Purpose::Daily, 0));
        }
    }

    pub(super) async fn count(&mut self) -> Result<(), End> {
        self.counted = Instant::now();
        let tally = self.live.take_tally();
        if tally.received() > 0 {
            let (db, lease) = (&self.session.context.db, self.session.lease);
            let (received, stored) = (tally.received(), tally.stored);
            held(followed::count(db, lease, received, stored).await?)?;
        }
        Ok(())
    }
}
