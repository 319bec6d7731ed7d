//! Verifications of everything confirmed: after a connection, and once a day. Coverage stays confirmed
//! meanwhile. A part that fails is repeated, at most three times: then its items are missing, and the
//! verification goes on without them.

use std::time::{Duration, Instant};

use tender_jobs::grasp::{
    coverage::{self, filters},
    family::{Family, Purpose},
};

use super::{
    Session,
    work::{Done, Task},
};

/// The pause before a failed part is repeated. It doubles with each failure.
const AGAIN: Duration = Duration::from_secs(65);
/// A part that has failed so often is given up.
const GIVE_UP: u32 = 3;
/// How far a verification overlaps what was known good: authors choose the time of an event.
pub(super) const OVERLAP: i64 = 900;

/// A verification in progress.
pub(super) struct Pass {
    pub(super) purpose: Purpose,
    /// The events since this second are fetched; 0 for the whole history.
    since: i64,
    /// The last item that was taken.
    after: Option<(Family, String)>,
    is_read: bool,
    running: usize,
    /// The parts that have succeeded.
    pub(super) verified: usize,
    /// Whether something was proven that an earlier connection need not have proven.
    pub(super) is_progress: bool,
    /// Why the last part failed.
    error: Option<String>,
    again: Vec<(Instant, Task)>,
    /// Events that only the verification has found.
    pub(super) drift: i64,
}

impl Pass {
    pub(super) fn new(purpose: Purpose, since: i64) -> Self {
        let (after, again) = (None, Vec::new());
        Self {
            purpose,
            since,
            after,
            is_read: false,
            running: 0,
            verified: 0,
            is_progress: false,
            error: None,
            again,
            drift: 0,
        }
    }

    /// Whether every part has succeeded or was given up.
    pub(super) fn is_over(&self) -> bool {
        self.is_read && self.running == 0 && self.again.is_empty()
    }

    /// Returns why nothing could be verified; `None` if something was.
    pub(super) fn unverified(&self) -> Option<String> {
        let why = self.error.as_deref().unwrap_or("nothing was confirmed when it began");
        (self.verified == 0).then(|| format!("nothing could be verified: {why}"))
    }

    /// Whether a part can begin.
    pub(super) fn is_ready(&self) -> bool {
        !self.is_read || self.again.iter().any(|(at, _)| *at <= Instant::now())
    }

    /// Returns the next part that can begin.
    pub(super) async fn next(
        &mut self,
        session: &Session,
        bounds: filters::Bounds,
    ) -> Result<Option<Task>, sqlx::Error> {
        let now = Instant::now();
        if let Some(due) = self.again.iter().position(|(at, _)| *at <= now) {
            self.running += 1;
            return Ok(Some(self.again.swap_remove(due).1));
        }
        if self.is_read {
            return Ok(None);
        }
        let (db, relay) = (&session.context.db, session.lease.relay);
        let Some((family, items)) = coverage::confirmed(db, relay, self.after.as_ref()).await?
        else {
            self.is_read = true;
            return Ok(None);
        };
        self.after = items.last().map(|last| (family, last.clone()));
        self.running += 1;
        let filters = filters::of(family, &items, bounds).filters;
        let (purpose, since) = (self.purpose, self.since);
        Ok(Some(Task {
            purpose,
            family,
            items,
            filters,
            since,
            batch: None,
            failures: 0,
            repairs: None,
            walked: Vec::new(),
            is_refused: false,
        }))
    }

    /// Notes the end of a part. Returns false if it is given up.
    pub(super) fn ended(&mut self, done: &Done) -> bool {
        self.running = self.running.saturating_sub(1);
        self.drift += done.fetched.stored;
        let Err(error) = &done.result else {
            self.verified += 1;
            // After a short loss, the same recent events come again and again.
            let is_whole = self.purpose != Purpose::Reconnect && done.fetched.is_proof();
            self.is_progress |= is_whole || done.fetched.stored > 0;
            return true;
        };
        self.error = Some(error.to_string());
        self.repeat(done)
    }

    /// Repeats a part that failed, later. Returns false if it is given up. A part that ran out of time and has
    /// proven something goes on, however often.
    fn repeat(&mut self, done: &Done) -> bool {
        let mut task = done.task.clone();
        let pause = AGAIN.saturating_mul(1 << task.failures.min(6));
        let asked = Duration::from_secs(done.pause.and_then(|s| s.try_into().ok()).unwrap_or(0));
        task.failures += u32::from(done.pause.is_none() && !done.is_further);
        if task.failures >= GIVE_UP {
            return false;
        }
        self.again.push((Instant::now() + pause.max(asked), task));
        true
    }
}
