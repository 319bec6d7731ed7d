//! The ends of tasks and of verifications.

use std::time::{Duration, Instant};

use tender_jobs::grasp::{coverage, family::Purpose, followed};
use tokio::task::JoinError;
use uuid::Uuid;

use super::{End, Following, held};
use crate::{
    grasp::session::{live::Polled, random, work::Done},
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
        self.refusals.note(&done.result);
        if done.result.is_ok() && done.task.purpose == Purpose::Missing {
            self.note_good().await?;
        }
        match done.task.purpose {
            Purpose::Missing => {
                self.missing = self.missing.saturating_sub(1);
                self.plan_at = Some(Instant::now());
            }
            Purpose::Rotation => self.polled(&done),
            _ => match done.task.repairs {
                Some(standing) => self.repaired(standing, &done),
                None => self.verified(&done).await?,
            },
        }
        Ok(())
    }

    /// Notes the end of a part of a verification. Items that it cannot verify are missing.
    async fn verified(&mut self, done: &Done) -> Result<(), End> {
        let Some(pass) = &mut self.pass else { return Ok(()) };
        if let (false, Err(error)) = (pass.ended(done), &done.result) {
            let (db, lease) = (&self.session.context.db, self.session.lease);
            let (family, items, reason) = (done.task.family, &done.task.items, error.to_string());
            held(coverage::lose(db, lease, family, items, &reason).await?)?;
            self.plan_at = Some(Instant::now());
        }
        Ok(())
    }

    /// Notes how far items without a subscription were polled.
    pub(super) fn polled(&mut self, done: &Done) {
        let is_it =
            |one: &&mut Polled| one.family == done.task.family && one.items == done.task.items;
        let Some(one) = self.live.overflow.iter_mut().find(is_it) else { return };
        if done.result.is_ok() {
            (one.since, one.good, one.failures) = (one.asked, one.begun, 0);
        } else if done.pause.is_none() {
            one.failures += 1;
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
        if pass.verified > 0 {
            self.note_good().await?;
        }
        if pass.purpose != Purpose::Reconnect {
            self.served = self.hold.orders.borrow().resync_due_at;
            let drift = (pass.purpose == Purpose::Daily).then_some(pass.drift);
            let next = Duration::from_secs_f64((23.0 + 2.0 * random()) * 3600.0);
            let (db, lease) = (&self.session.context.db, self.session.lease);
            held(followed::resynced(db, lease, drift, next).await?)?;
        }
        Ok(())
    }
}
