//! The ends of tasks and of verifications.

use std::time::{Duration, Instant};

use tender_jobs::grasp::{coverage, family::Purpose, followed};
use tokio::task::JoinError;
use uuid::Uuid;

use super::{End, Following, held};
use crate::{
    grasp::session::{
        live::Polled,
        random,
        work::{Done, is_refusal},
    },
    mirror::error::StepError,
};

impl Following {
    /// Notes the end of a task.
    pub(super) async fn done(&mut self, done: Result<Done, JoinError>) -> Result<(), End> {
        let done = done.map_err(|error| StepError::Panicked(error.to_string()))?;
        if matches!(done.result, Err(StepError::LeaseLost)) {
            return Err(End::LeaseLost);
        }
        if let Some(seconds) = done.pause {
            self.pause(seconds);
        }
        self.note_refusal(&done).await?;
        match done.task.purpose {
            Purpose::Missing => self.fetched(&done).await?,
            Purpose::Rotation => self.polled(&done),
            _ => match done.task.repairs {
                Some(standing) => self.repaired(standing, &done),
                None => self.verified(&done).await?,
            },
        }
        Ok(())
    }

    async fn note_refusal(&mut self, done: &Done) -> Result<(), End> {
        // The end of the connection is no refusal.
        let is_lost = self.session.connection.lost().is_some();
        if !is_lost && self.refusals.note(done) {
            let (db, lease) = (&self.session.context.db, self.session.lease);
            let (all, first) = self.refusals.kept();
            held(followed::note_refusals(db, lease, all, first).await?)?;
            if done.result.is_ok() {
                // Refused items need not wait any more.
                self.plan_at = Some(Instant::now());
            }
        }
        Ok(())
    }

    /// Notes the end of a batch of missing items. The relay has recovered only if it sent or compared something:
    /// an empty answer costs it nothing.
    async fn fetched(&mut self, done: &Done) -> Result<(), End> {
        self.missing = self.missing.saturating_sub(1);
        (self.plan_at, self.changes) = (Some(Instant::now()), self.changes + 1);
        if done.result.is_ok() {
            let (family, items) = (done.task.family, &done.task.items);
            let begun = done.task.walked.iter().flatten().map(|walked| walked.at).min();
            self.live.confirmed(family, items);
            self.live.follow(&self.session, family, items, begun).await?;
            if done.fetched.is_proof() {
                self.note_good().await?;
            }
        }
        Ok(())
    }

    /// Notes the end of a part of a verification. Items that it cannot verify are missing.
    async fn verified(&mut self, done: &Done) -> Result<(), End> {
        let Some(pass) = &mut self.pass else { return Ok(()) };
        if let (false, Err(error)) = (pass.ended(done), &done.result) {
            let (db, lease) = (&self.session.context.db, self.session.lease);
            let (family, items, reason) = (done.task.family, &done.task.items, error.to_string());
            let why = (reason.as_str(), is_refusal(error));
            held(coverage::lose(db, lease, family, items, why).await?)?;
            (self.plan_at, self.changes) = (Some(Instant::now()), self.changes + 1);
        }
        Ok(())
    }

    /// Notes how far items without a subscription were polled.
    pub(super) fn polled(&mut self, done: &Done) {
        let is_it =
            |one: &&mut Polled| one.family == done.task.family && one.items == done.task.items;
        let Some(one) = self.live.overflow.iter_mut().find(is_it) else { return };
        match &done.result {
            Ok(()) => (one.since, one.good, one.failures) = (one.asked, one.begun, 0),
            Err(error) => {
                one.failures += u32::from(done.pause.is_none());
                one.reason = error.to_string();
            }
        }
    }

    /// A filter that was closed is fetched up to now, or is fetched again.
    pub(super) fn repaired(&mut self, standing: Uuid, done: &Done) {
        if let Some(standing) = self.live.standing(standing) {
            match done.result {
                Ok(()) => standing.repaired(),
                Err(_) => standing.repair_failed(done.pause.is_none()),
            }
        }
    }

    /// Ends the verification if all of it has ended.
    pub(super) async fn end_pass(&mut self) -> Result<(), End> {
        let Some(pass) = self.pass.take_if(|pass| pass.is_over()) else { return Ok(()) };
        if pass.is_progress {
            self.note_good().await?;
        }
        if pass.purpose != Purpose::Reconnect {
            self.served = self.hold.orders.borrow().resync_due_at;
            let unverified = pass.unverified();
            let is_daily = pass.purpose == Purpose::Daily && unverified.is_none();
            let drift = is_daily.then_some(pass.drift);
            let next = Duration::from_secs_f64((23.0 + 2.0 * random()) * 3600.0);
            let (db, lease) = (&self.session.context.db, self.session.lease);
            let why = unverified.as_deref();
            held(followed::resynced(db, lease, drift, why, next).await?)?;
        }
        Ok(())
    }
}
