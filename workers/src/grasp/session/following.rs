//! The loop of a session: live events first, then the end of work, then new work.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tender_jobs::{
    grasp::{
        batch::{self, Again},
        coverage::{self, filters},
        family::Purpose,
        followed::{self, Status},
    },
    queue::Settled,
};
use tokio::{
    task::{JoinError, JoinSet},
    time::MissedTickBehavior,
};

use super::{
    End, Hold, Never, Session,
    covers::ROTATE,
    live::{Live, Reopened},
    over,
    passes::{OVERLAP, Pass},
    random,
    work::{self, Done, Task},
};
use crate::mirror::error::StepError;

/// How often the loop looks at its clocks.
const TICK: Duration = Duration::from_secs(1);
/// A connection that lasts for so long is a success.
const GOOD_AFTER: Duration = Duration::from_mins(5);
/// How often the counts of live events are stored.
const COUNT_EVERY: Duration = Duration::from_secs(10);
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
    /// Filters that were closed: what they may have missed is fetched.
    polls: Vec<Task>,
    /// How many tasks of `work` close such a gap.
    repairs: usize,
    status: Status,
    /// When the next missing items are due; `None` if none is missing.
    plan_at: Option<Instant>,
    limited_until: Option<Instant>,
    begun: Instant,
    is_good: bool,
    counted: Instant,
    told: (usize, usize),
    /// Not before this, if a verification was overdue at the claim.
    resync_from: Instant,
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
        let spread = if hold.claimed.is_resync_due { random() * SPREAD } else { 0.0 };
        Self {
            live: Live::new(&session),
            session,
            hold,
            work: JoinSet::new(),
            missing: 0,
            pass: None,
            polls: Vec::new(),
            repairs: 0,
            status: Status::CatchingUp,
            plan_at: Some(now),
            limited_until: None,
            begun: now,
            is_good: false,
            counted: now,
            told: (0, 0),
            resync_from: now + Duration::from_secs_f64(spread),
        }
    }

    async fn follow(&mut self) -> Result<Never, End> {
        let mut notices = self.session.connection.limits();
        self.live.fill(&self.session).await?;
        self.pass = Some(self.first_pass());
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
                    if let Some(error) = self.live.take(&self.session, message).await? {
                        self.closed(&error).await?;
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

    /// The verification with which a connection begins: of what was published since the relay was known
    /// good, or of everything if that was long ago.
    fn first_pass(&self) -> Pass {
        let Some(good) = self.hold.claimed.good_until else { return Pass::new(Purpose::Fresh, 0) };
        // Polled items were last asked for up to 15 minutes earlier.
        let polled = if self.live.overflow.is_empty() { 0 } else { ROTATE.as_secs() };
        let since = good.timestamp() - OVERLAP - i64::try_from(polled).unwrap_or(0);
        Pass::new(Purpose::Reconnect, since.max(1))
    }

    /// Begins as much work as the relay bears.
    async fn pump(&mut self) -> Result<(), End> {
        let is_limited = self.limited_until.is_some_and(|until| until > Instant::now());
        while !is_limited && self.work.len() < self.live.bounds.batches {
            let Some(task) = self.next_task().await? else { break };
            self.work.spawn(work::run(self.session.clone(), task));
        }
        self.tell().await
    }

    /// Missing items come first, but leave a place for a verification.
    async fn next_task(&mut self) -> Result<Option<Task>, End> {
        let places = self.live.bounds.batches;
        let reserved = usize::from(self.pass.is_some() && places > 1);
        if self.missing < places - reserved
            && let Some(task) = self.next_missing().await?
        {
            self.missing += 1;
            return Ok(Some(task));
        }
        if let Some(task) = self.polls.pop() {
            self.repairs += 1;
            return Ok(Some(task));
        }
        if let Some(pass) = &mut self.pass
            && let Some(task) = pass.next(&self.session, self.live.bounds).await?
        {
            return Ok(Some(task));
        }
        self.end_pass().await?;
        Ok(self.rotation())
    }

    /// Takes missing items in flight. They are followed live before their history is fetched.
    async fn next_missing(&mut self) -> Result<Option<Task>, End> {
        let (db, lease) = (&self.session.context.db, self.session.lease);
        while self.plan_at.is_some_and(|at| at <= Instant::now()) {
            let Some(batch) = coverage::plan(db, lease).await? else {
                let due = coverage::next_due(db, lease.relay).await?;
                self.plan_at = due.map(|due| Instant::now() + due.clamp(TICK, ROTATE));
                return Ok(None);
            };
            let found = filters::of(batch.family, &batch.items, self.live.bounds);
            for (item, reason) in &found.unusable {
                let item = std::slice::from_ref(item);
                let refused = batch::refuse(db, &batch, item, reason, Again::Tomorrow).await?;
                held(refused)?;
            }
            let mut items = batch.items.clone();
            items.retain(|item| !found.unusable.iter().any(|(unusable, _)| unusable == item));
            if items.is_empty() {
                held(batch::confirm(db, &batch, batch::Fetched::default()).await?)?;
                continue;
            }
            self.live.cover(&self.session, batch.family, items.clone()).await?;
            let (family, filters) = (batch.family, found.filters);
            let (purpose, batch) = (Purpose::Missing, Some(batch));
            return Ok(Some(Task {
                purpose,
                family,
                items,
                filters,
                since: 0,
                batch,
                failures: 0,
            }));
        }
        Ok(None)
    }

    /// Returns the poll of items that have no subscription, if one is due.
    fn rotation(&mut self) -> Option<Task> {
        let mut polled = self.live.overflow.pop_front_if(|one| one.due <= Instant::now())?;
        let (family, items) = (polled.family, polled.items.clone());
        let since = (polled.since - OVERLAP).max(1);
        polled.due = Instant::now() + ROTATE;
        self.live.overflow.push_back(polled);
        let filters = filters::of(family, &items, self.live.bounds).filters;
        let purpose = Purpose::Rotation;
        Some(Task { purpose, family, items, filters, since, batch: None, failures: 0 })
    }

    /// Notes the end of a task.
    async fn done(&mut self, done: Result<Done, JoinError>) -> Result<(), End> {
        let done = done.map_err(|error| StepError::Panicked(error.to_string()))?;
        if matches!(done.result, Err(StepError::LeaseLost)) {
            return Err(End::LeaseLost);
        }
        if let Some(seconds) = done.pause {
            self.pause(seconds);
        }
        if done.result.is_ok() {
            self.note_good().await?;
        }
        match done.task.purpose {
            Purpose::Missing => {
                self.missing = self.missing.saturating_sub(1);
                self.plan_at = Some(Instant::now());
            }
            Purpose::Rotation => self.polled(&done),
            Purpose::Reconnect if done.task.failures == REPAIR => self.repaired(done),
            _ => {
                if let Some(pass) = &mut self.pass {
                    pass.ended(&done);
                }
            }
        }
        Ok(())
    }

    /// Notes how far items without a subscription were polled.
    fn polled(&mut self, done: &Done) {
        let is_it = |one: &&mut super::live::Polled| {
            one.family == done.task.family && one.items == done.task.items
        };
        if let (Ok(()), Some(one)) = (&done.result, self.live.overflow.iter_mut().find(is_it)) {
            let late = one.due.saturating_duration_since(Instant::now());
            let age = i64::try_from(ROTATE.saturating_sub(late).as_secs()).unwrap_or(0);
            one.since = chrono::Utc::now().timestamp() - age;
        }
    }

    /// A filter that was closed is fetched up to now, or is fetched again.
    fn repaired(&mut self, done: Done) {
        self.repairs = self.repairs.saturating_sub(1);
        if done.result.is_err() {
            self.polls.push(done.task);
        }
    }

    /// Ends the verification if all of it has succeeded.
    async fn end_pass(&mut self) -> Result<(), End> {
        let Some(pass) = self.pass.take_if(|pass| pass.is_over()) else { return Ok(()) };
        if pass.purpose != Purpose::Reconnect {
            let drift = (pass.purpose == Purpose::Daily).then_some(pass.drift);
            let next = Duration::from_secs_f64((23.0 + 2.0 * random()) * 3600.0);
            let (db, lease) = (&self.session.context.db, self.session.lease);
            held(followed::resynced(db, lease, drift, next).await?)?;
        }
        Ok(())
    }

    /// Stores whether the relay is in step: verified, followed live, and nothing is due. It is not while a
    /// subscription is closed.
    async fn tell(&mut self) -> Result<(), End> {
        let now = Instant::now();
        let is_caught_up = self.pass.is_none()
            && self.polls.is_empty()
            && self.repairs == 0
            && self.live.is_open()
            && (self.status == Status::InStep
                || (self.missing == 0 && self.plan_at.is_none_or(|at| at > now)));
        let is_daily = self.pass.as_ref().is_some_and(|pass| pass.purpose == Purpose::Daily);
        let stays = self.status == Status::InStep && is_daily && self.live.is_open();
        let status = if is_caught_up || stays { Status::InStep } else { Status::CatchingUp };
        let (db, lease) = (&self.session.context.db, self.session.lease);
        if status != self.status {
            held(followed::note_status(db, lease, status).await?)?;
            self.status = status;
        }
        let counts = (self.live.count(), self.live.overflow.len());
        if counts != self.told && self.live.flush_at()?.is_none() {
            held(followed::note_subscriptions(db, lease, counts.0, counts.1).await?)?;
            self.told = counts;
        }
        Ok(())
    }

    /// The relay ended a subscription; the others go on.
    async fn closed(&mut self, error: &StepError) -> Result<(), End> {
        let url = &self.session.upstream.url;
        tracing::info!(url, %error, "a followed relay closed a live subscription; opened again later");
        match error {
            StepError::RateLimited(reason) => self.limit(reason.clone()).await,
            StepError::Auth(_) => {
                if self.session.connection.authenticated().await.is_ok() {
                    self.live.reopen_now();
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn limit(&mut self, reason: String) -> Result<(), End> {
        let (db, lease) = (&self.session.context.db, self.session.lease);
        match followed::limit(db, lease, &reason).await? {
            Settled::Written(seconds) => self.pause(seconds),
            Settled::LeaseLost => return Err(End::LeaseLost),
        }
        Ok(())
    }

    fn pause(&mut self, seconds: i64) {
        let pause = Duration::from_secs(seconds.try_into().unwrap_or(0));
        self.limited_until = Some(Instant::now() + pause);
    }

    async fn note_good(&mut self) -> Result<(), End> {
        if !self.is_good {
            let (db, lease) = (&self.session.context.db, self.session.lease);
            held(followed::good(db, lease).await?)?;
            self.is_good = true;
        }
        Ok(())
    }

    /// Looks at the clocks.
    async fn tick(&mut self) -> Result<(), End> {
        if self.begun.elapsed() > GOOD_AFTER {
            self.note_good().await?;
        }
        self.live.close_silent(&self.session).await?;
        let is_limited = self.limited_until.is_some_and(|until| until > Instant::now());
        if !is_limited && let Some(reopened) = self.live.reopen(&self.session).await? {
            self.polls.push(repair(reopened));
        }
        if self.counted.elapsed() > COUNT_EVERY {
            self.count().await?;
        }
        self.begin_resync();
        Ok(())
    }

    /// Begins the verification that is due, unless one is in progress.
    fn begin_resync(&mut self) {
        let orders = *self.hold.orders.borrow();
        let was_overdue = orders.resync_due_at == self.hold.claimed.resync_due_at;
        let is_early = was_overdue && Instant::now() < self.resync_from;
        if orders.is_resync_due && !is_early && self.pass.is_none() {
            self.pass = Some(Pass::new(Purpose::Daily, 0));
        }
    }

    async fn count(&mut self) -> Result<(), End> {
        self.counted = Instant::now();
        let tally = self.live.take_tally();
        if tally.received() > 0 {
            let (db, lease) = (&self.session.context.db, self.session.lease);
            let (received, stored) = (tally.received(), tally.stored);
            held(followed::count(db, lease, received, stored).await?)?;
        }
        Ok(())
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
            Ok(Ok(_)) => ended,
            Ok(Err(error)) => ended.or(Err(error.into())),
            Err(_) => ended,
        }
    }
}

/// Marks a task that closes the gap of a closed subscription.
const REPAIR: u32 = u32::MAX;

/// What a closed subscription may have missed.
fn repair(reopened: Reopened) -> Task {
    let Reopened { family, items, filter, since } = reopened;
    let (purpose, filters) = (Purpose::Reconnect, vec![filter]);
    let since = (since - OVERLAP).max(1);
    Task { purpose, family, items, filters, since, batch: None, failures: REPAIR }
}

fn held(settled: Settled<()>) -> Result<(), End> {
    match settled {
        Settled::Written(()) => Ok(()),
        Settled::LeaseLost => Err(End::LeaseLost),
    }
}

/// Waits until an instant; without one, for ever.
async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}
