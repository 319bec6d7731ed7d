//! The ends of tasks and of verifications.

use std::time::{Duration, Instant};

use tender_jobs::grasp::{family::Purpose, followed};
use tokio::task::JoinError;

use super::{End, Following, held};
use crate::{
    grasp::session::{live::Polled, random, work::Done},
    mirror::error::StepError,
};

/// The pause before the gap of a closed subscription is fetched again.
const AGAIN: Duration = Duration::from_secs(65);

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
        if done.result.is_ok() {
            self.note_good().await?;
        }
        match done.task.purpose {
            Purpose::Missing => {
                self.missing = self.missing.saturating_sub(1);
                self.plan_at = Some(Instant::now());
            }
            Purpose::Rotation => self.polled(&done),
            _ if done.task.repairs => self.repaired(done),
            _ => {
                if let Some(pass) = &mut self.pass {
                    pass.ended(&done);
                }
            }
        }
        Ok(())
    }

    /// Notes how far items without a subscription were polled.
    pub(super) fn polled(&mut self, done: &Done) {
        let is_it =
            |one: &&mut Polled| one.family == done.task.family && one.items == done.task.items;
        if let (Ok(()), Some(one)) = (&done.result, self.live.overflow.iter_mut().find(is_it)) {
            one.since = one.asked;
        }
    }

    /// A filter that was closed is fetched up to now, or is fetched again.
    pub(super) fn repaired(&mut self, done: Done) {
        self.repairs = self.repairs.saturating_sub(1);
        if done.result.is_err() {
            let again = Instant::now() + AGAIN;
            self.polls
                .push((self.limited_until.map_or(again, |until| until.max(again)), done.task));
        }
    }

    /// Ends the verification if all of it has succeeded.
    pub(super) async fn end_pass(&mut self) -> Result<(), End> {
        let Some(pass) = self.pass.take_if(|pass| pass.is_over()) else { return Ok(()) };
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
