//! Which followed relays this process holds. Once a second it looks for relays to claim and for plans, every ten
//! seconds while there is no service; with that, every ten seconds, it tells the others that it lives. Every ten
//! seconds it renews the leases that it has. It also tells the schedule whether the wing is used. Each held relay has a
//! task of its own, whose end, also by a panic, is a matter of this relay only.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tender_jobs::grasp::followed::{self, Claimed, Kept, LEASE, Lease, Tick};
use tokio::{
    sync::{Notify, Semaphore, watch},
    task::{Id, JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Context,
    session::{self, Hold, Orders},
};

/// How often this process looks for relays and plans.
const TICK: Duration = Duration::from_secs(1);
/// How often it looks while there is no service. With one, the first announcement brings relays at any time.
const IDLE: Duration = Duration::from_secs(10);
/// How often this process renews its leases, and tells the others that it lives.
const RENEW: Duration = Duration::from_secs(10);
/// How long a lease holds for us: less than for the database, so that we end first.
const HOLDS: Duration = LEASE.saturating_sub(Duration::from_secs(5));
/// The connects at the same time.
const CONNECTS: usize = 8;
/// The pause before this process claims relays again, after there was no room for one.
const FULL_FOR: Duration = Duration::from_secs(30);
/// The time in which the sessions of a stopping process end.
const STOP_WITHIN: Duration = Duration::from_secs(7);

/// A relay that this process holds.
struct Held {
    lease: Lease,
    plan: Arc<Notify>,
    orders: watch::Sender<Orders>,
    stop: CancellationToken,
    /// Cancelled when the session has ended.
    ended: CancellationToken,
}

/// The relays of this process.
struct Manager {
    context: Context,
    process: String,
    held: HashMap<Uuid, Held>,
    /// The sessions. Each returns whether there was no room for its relay.
    sessions: JoinSet<bool>,
    /// The relay of each session.
    relays: HashMap<Id, Uuid>,
    connects: Arc<Semaphore>,
    renewed: Option<Instant>,
    full: Full,
}

/// Holds followed relays until the process stops.
pub(super) async fn run(context: Context) {
    let process = format!("{} {}", context.process, Uuid::new_v4().simple());
    let mut manager = Manager {
        context,
        process,
        held: HashMap::new(),
        sessions: JoinSet::new(),
        relays: HashMap::new(),
        connects: Arc::new(Semaphore::new(CONNECTS)),
        renewed: None,
        full: Full::default(),
    };
    let stopping = manager.context.stopping.clone();
    let mut next = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = stopping.cancelled() => break,
            Some(ended) = manager.sessions.join_next_with_id() => manager.ended(ended),
            () = tokio::time::sleep_until(next) => {
                let pause = manager.look().await.unwrap_or_else(|error| {
                    tracing::warn!(%error, "could not look after the followed relays; trying again in 1 s");
                    TICK
                });
                next = tokio::time::Instant::now() + pause;
            }
        }
    }
    manager.stop().await;
}

impl Manager {
    /// Returns when to look next.
    async fn look(&mut self) -> Result<Duration, sqlx::Error> {
        let begun = Instant::now();
        let renews = self.renewed.is_none_or(|at| at.elapsed() >= RENEW);
        if renews && !self.held.is_empty() {
            self.renew(begun).await?;
        }
        let tick = followed::tick(&self.context.db, &self.process, renews).await?;
        if renews {
            self.renewed = Some(begun);
        }
        self.context
            .used
            .send_if_modified(|used| std::mem::replace(used, tick.is_used) != tick.is_used);
        for relay in &tick.plans {
            if let Some(held) = self.held.get(relay) {
                held.plan.notify_one();
            }
        }
        self.share(&tick).await?;
        Ok(if tick.is_used { TICK } else { IDLE })
    }

    /// Claims relays up to this process's share, or releases one of the surplus.
    async fn share(&mut self, tick: &Tick) -> Result<(), sqlx::Error> {
        let held = self.held.values().filter(|held| !held.stop.is_cancelled()).count();
        let held = i64::try_from(held).unwrap_or(i64::MAX);
        let share = tick.share();
        if held > share {
            self.release_one();
            return Ok(());
        }
        let connects = i64::try_from(self.connects.available_permits()).unwrap_or(0);
        let most = connects.min(share - held);
        if !tick.is_claimable || most <= 0 || self.full.lasts(Instant::now()) {
            return Ok(());
        }
        let begun = Instant::now();
        for claimed in followed::claim(&self.context.db, &self.process, most).await? {
            self.begin(claimed, begun);
        }
        Ok(())
    }

    /// Lets another process have a relay. One that is not in the middle of its history would be better,
    /// but any will do: nothing that was confirmed is lost.
    fn release_one(&mut self) {
        let is_free = |held: &&Held| !held.stop.is_cancelled();
        if let Some(held) = self.held.values().find(is_free) {
            held.stop.cancel();
        }
    }

    /// Renews the leases. `begun` is an instant before that.
    async fn renew(&mut self, begun: Instant) -> Result<(), sqlx::Error> {
        let kept = followed::renew(&self.context.db, &self.process).await?;
        let mut kept: HashMap<Uuid, Kept> =
            kept.into_iter().map(|one| (one.lease.relay, one)).collect();
        for (relay, held) in &self.held {
            let busy = match kept.remove(relay) {
                Some(one) => Some(one),
                None => followed::renew_busy(&self.context.db, held.lease).await?,
            };
            match busy.filter(|one| one.lease == held.lease) {
                Some(one) => held.keep(&one, begun),
                None => held.lose(),
            }
        }
        Ok(())
    }

    /// Begins to follow a relay. `begun` is an instant before the claim.
    fn begin(&mut self, claimed: Claimed, begun: Instant) {
        let lease = claimed.lease;
        let orders = Orders {
            until: end(begun),
            resync_due_at: claimed.resync_due_at,
            is_resync_due: claimed.is_resync_due,
        };
        let (orders, of_session) = watch::channel(orders);
        let (plan, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let connecting = self.connects.clone().try_acquire_owned().ok();
        let (ended, before) = (CancellationToken::new(), self.held.get(&lease.relay));
        before.inspect(|before| before.lose());
        let hold = Hold {
            claimed,
            plan: plan.clone(),
            orders: of_session,
            stop: stop.clone(),
            connecting,
            after: before.map(|before| before.ended.clone()),
            ended: Some(ended.clone().drop_guard()),
        };
        let id = self.sessions.spawn(session::hold(self.context.clone(), hold)).id();
        self.relays.insert(id, lease.relay);
        self.held.insert(lease.relay, Held { lease, plan, orders, stop, ended });
    }

    /// Forgets a relay whose session has ended. The session has stored how.
    fn ended(&mut self, ended: Result<(Id, bool), JoinError>) {
        let (id, was_full) = ended.unwrap_or_else(|error| (error.id(), false));
        if was_full {
            self.full.begin(Instant::now(), session::random());
        }
        if let Some(relay) = self.relays.remove(&id)
            && !self.relays.values().any(|other| *other == relay)
        {
            self.held.remove(&relay);
        }
    }

    /// Ends all sessions, and releases what they held.
    async fn stop(mut self) {
        for held in self.held.values() {
            held.stop.cancel();
        }
        let ended = async { while self.sessions.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_WITHIN, ended).await.is_err() {
            tracing::warn!("followed relays were not released in time; their sessions are aborted");
        }
        self.sessions.abort_all();
        let (db, process) = (&self.context.db, &self.process);
        if let Err(error) = followed::release_all(db, process).await {
            tracing::warn!(%error, "could not release the followed relays; they are free after 30 s");
        }
        if let Err(error) = followed::forget_process(db, process).await {
            tracing::debug!(%error, "could not remove the heartbeat of this process");
        }
    }
}

/// The pause in claims after there was no room for a relay. Else it would be claimed and given back each second.
#[derive(Debug, Default)]
struct Full(Option<Instant>);

impl Full {
    /// `random` from 0 to 1 spreads the pause by ±20 %.
    fn begin(&mut self, now: Instant, random: f64) {
        self.0 = Some(now + FULL_FOR.mul_f64(0.4f64.mul_add(random, 0.8)));
    }

    fn lasts(&self, now: Instant) -> bool {
        self.0.is_some_and(|until| until > now)
    }
}

impl Held {
    fn keep(&self, kept: &Kept, begun: Instant) {
        self.orders.send_replace(Orders {
            until: end(begun),
            resync_due_at: kept.resync_due_at,
            is_resync_due: kept.is_resync_due,
        });
        if kept.is_unwanted {
            self.stop.cancel();
        }
    }

    /// The lease is lost: the session ends, and writes nothing.
    fn lose(&self) {
        self.orders.send_modify(|orders| orders.until = Instant::now());
    }
}

/// Returns when a lease ends for us that was taken or renewed after `begun`.
fn end(begun: Instant) -> Instant {
    begun + HOLDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_room_claims_nothing_for_about_30_seconds() {
        let (mut full, now) = (Full::default(), Instant::now());
        assert!(!full.lasts(now));
        full.begin(now, 0.0);
        assert!(
            full.lasts(now + Duration::from_secs(23)) && !full.lasts(now + Duration::from_secs(24))
        );
        full.begin(now, 1.0);
        assert!(
            full.lasts(now + Duration::from_secs(35)) && !full.lasts(now + Duration::from_secs(37))
        );
    }
}
