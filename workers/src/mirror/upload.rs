//! Uploads: events are sent to an upstream in batches. Every event gets a verdict: accepted,
//! duplicate, rejected with the upstream's reason or ours, or pending for a later run. Verdicts are
//! stored batch by batch, under the lease of the upload lane.

mod accepts;
mod answer;
mod pace;
mod round;

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::PgPool;
use tender_jobs::mirror::{
    event::{
        Event, EventId,
        outgoing::{self, Reached, UploadTally, Verdict},
    },
    lane::Lease,
    upstream::{self, settings::Settings},
};

use super::{connection::Connection, error::StepError, lane::under_lease};
use crate::runtime::pause;
pub(super) use accepts::Accepts;
pub(super) use pace::Pace;
use round::Round;

/// The number of refusals in a row after which a run ends.
const MAX_REFUSALS: u32 = 20;
/// How often a batch is sent again to an upstream that limits our rate.
const MAX_PAUSES: u32 = 6;

/// An event to be sent.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) event: Event,
    /// Whether an earlier run sent it without an answer: a duplicate is then our own copy.
    pub(super) was_sent: bool,
}

/// Events that are sent together.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) items: Vec<Item>,
    /// Every event up to this position has a verdict after this batch; `None` for waiting events.
    pub(super) up_to: Option<i64>,
}

/// Why an uploader ended.
#[derive(Debug)]
pub(super) enum Stop {
    /// Every event has a verdict.
    Done,
    /// The rest is left to the next job, because this one has run for long.
    Late,
    /// The upstream refused many events in a row.
    Refused,
    /// The upstream takes events from their authors only.
    AuthorsOnly,
    /// The upstream limits our rate, cannot be reached any more, or took none of the events.
    Failed(StepError),
}

/// Sends batches of events, and stores their verdicts.
pub(super) struct Uploader<'a> {
    pub(super) db: &'a PgPool,
    pub(super) lease: &'a Lease,
    pub(super) connection: &'a Connection,
    pub(super) settings: &'a Settings,
    pub(super) accepts: &'a Accepts,
    /// The pace towards the upstream, as earlier runs have found it.
    pub(super) pace: &'a Mutex<Pace>,
    pub(super) state: State,
}

/// What an uploader learned while it sent.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The events that the upstream took or judged: it works.
    pub(super) judged: u64,
    /// Whether an event spent an attempt, because the upstream works for others.
    has_spent: bool,
    /// Why the last event waits that the upstream neither took nor judged.
    put_off: Option<String>,
    refusals: u32,
    is_authenticated: bool,
    /// The reason to send nothing more.
    stop: Option<Stop>,
}

impl State {
    /// Returns the error of a run in which the upstream neither took nor judged an event: that says
    /// something of the upstream, and nothing of the events.
    fn took_none(&mut self) -> Option<StepError> {
        let why = self.put_off.take().filter(|_| self.judged == 0 && !self.has_spent)?;
        Some(StepError::TookNone(why))
    }
}

impl Uploader<'_> {
    /// Uploads batches, and adds the verdicts to `sent` as they are stored. `is_late` says whether
    /// the next batch is left to another job.
    pub(super) async fn upload(
        &mut self,
        batches: &[Batch],
        is_late: impl Fn() -> bool,
        sent: &mut UploadTally,
    ) -> Result<Stop, StepError> {
        if let Some(position) = next_of(batches) {
            under_lease(outgoing::mark_sending(self.db, self.lease, position).await?)?;
        }
        for (index, batch) in batches.iter().enumerate() {
            if index > 0 && is_late() {
                return Ok(self.state.took_none().map_or(Stop::Late, Stop::Failed));
            }
            let wait = if index > 0 { self.wait() } else { Duration::ZERO };
            if !wait.is_zero() {
                pause(wait).await;
            }
            self.batch(batch, next_of(&batches[index + 1..]), sent).await?;
            if let Some(stop) = self.state.stop.take() {
                return Ok(stop);
            }
        }
        Ok(self.state.took_none().map_or(Stop::Done, Stop::Failed))
    }

    /// Sends a batch until each of its events has a verdict, or until there is a reason to stop.
    async fn batch(
        &mut self,
        batch: &Batch,
        next: Option<i64>,
        sent: &mut UploadTally,
    ) -> Result<(), StepError> {
        if batch.up_to.is_none() {
            let ids: Vec<EventId> = batch.items.iter().map(|item| item.event.id).collect();
            outgoing::mark_sent(self.db, self.lease.lane.upstream_id, &ids).await?;
        }
        let (mut open, mut verdicts) = self.sift(batch);
        for pauses in 0.. {
            let begun = Instant::now();
            let mut round = self.send(&open).await;
            self.learn_pace(&round, begun);
            verdicts.append(&mut round.verdicts);
            let is_judged = round.again.is_empty();
            let reached = Reached {
                position: batch.up_to.filter(|_| is_judged),
                sending: next.filter(|_| is_judged),
                is_answered: round.judged > 0,
            };
            self.write(&std::mem::take(&mut verdicts), reached, sent).await?;
            self.learn(&round).await?;
            if is_judged || self.state.stop.is_some() {
                return Ok(());
            }
            open = std::mem::take(&mut round.again);
            self.before_again(round, pauses).await?;
            if self.state.stop.is_some() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn configured_wait(&self) -> Duration {
        Duration::from_millis(self.settings.upload_delay_ms)
    }

    /// Returns the pause before the next batch.
    fn wait(&self) -> Duration {
        let configured = self.configured_wait();
        if self.settings.upload_adaptive == 0 {
            return configured;
        }
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).pause(configured)
    }

    fn learn_pace(&self, round: &Round<'_>, begun: Instant) {
        let (configured, now) = (self.configured_wait(), Instant::now());
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        if round.limited.is_some() {
            pace.limited(configured, now);
        } else if round.judged > 0 {
            pace.answered(configured, now - begun, now);
        }
    }

    /// Splits a batch into the events that are sent, and the verdicts on the others.
    fn sift<'b>(&self, batch: &'b Batch) -> (Vec<&'b Item>, Vec<(EventId, Verdict)>) {
        let (mut open, mut verdicts) = (Vec::new(), Vec::new());
        for item in &batch.items {
            match self.accepts.problem(&item.event) {
                Some(why) => verdicts.push((item.event.id, Verdict::Rejected(why))),
                None => open.push(item),
            }
        }
        (open, verdicts)
    }

    /// Waits, or authenticates, before events are sent again.
    async fn before_again(&mut self, round: Round<'_>, pauses: u32) -> Result<(), StepError> {
        match round.limited {
            None => {
                self.connection.authenticated().await?;
                self.state.is_authenticated = true;
            }
            Some(reason) if pauses >= MAX_PAUSES => {
                self.state.stop = Some(Stop::Failed(StepError::RateLimited(reason)));
            }
            Some(_) => pause(Duration::from_millis(500) * 2_u32.pow(pauses)).await,
        }
        Ok(())
    }

    /// Decides whether the answers of a round are a reason to stop.
    async fn learn(&mut self, round: &Round<'_>) -> Result<(), StepError> {
        self.state.judged += round.judged;
        self.state.put_off = round.put_off.clone().or_else(|| self.state.put_off.take());
        if let Some(reason) = &round.authors_only {
            upstream::note_authors_only(self.db, self.lease.lane.upstream_id, reason).await?;
            self.state.stop = Some(Stop::AuthorsOnly);
        } else if let Some(error) = &round.failed {
            self.state.stop = Some(Stop::Failed(error.error()));
        } else if round.is_refused && self.state.refusals >= MAX_REFUSALS {
            self.state.stop = Some(Stop::Refused);
        }
        Ok(())
    }

    /// Stores the verdicts with their counts.
    async fn write(
        &mut self,
        verdicts: &[(EventId, Verdict)],
        reached: Reached,
        sent: &mut UploadTally,
    ) -> Result<(), StepError> {
        let judged = outgoing::judge(self.db, self.lease, verdicts, reached).await?;
        let tally = under_lease(judged)?;
        sent.add(tally);
        self.state.has_spent |= tally.pending > tally.kept;
        measure(tally);
        Ok(())
    }
}

/// Returns the position up to which the first of these batches sends events; `None` if there is
/// none, or if its events wait.
fn next_of(batches: &[Batch]) -> Option<i64> {
    batches.first().and_then(|batch| batch.up_to)
}

/// Adds the stored verdicts to the metrics of this process.
fn measure(tally: UploadTally) {
    let count = |outcome: &'static str, events: i64| {
        metrics::counter!("tender_uploads_total", "outcome" => outcome)
            .increment(u64::try_from(events).unwrap_or(0));
    };
    count("accepted", tally.accepted);
    count("duplicate", tally.duplicate);
    count("rejected", tally.rejected);
    count("pending", tally.pending);
}
