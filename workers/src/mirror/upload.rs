//! Uploads: events are sent to an upstream in batches. Every event gets a verdict: accepted,
//! duplicate, rejected with the upstream's reason or ours, or pending for a later run. Verdicts are
//! stored batch by batch, under the lease of the upload lane.
//!
//! The next batch is cut when the one before it is judged, because its size follows from the answers. The transaction
//! that stores these verdicts also stores how far the next batch will send.

mod accepts;
mod answer;
mod batches;
mod pace;
mod round;

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::PgPool;
use tender_jobs::mirror::{
    event::{
        EventId,
        outgoing::{self, Reached, UploadTally, Verdict},
    },
    lane::Lease,
    upstream::{self, settings::Settings},
};

use super::{connection::Connection, error::StepError, lane::under_lease};
use crate::runtime::pause;
pub(super) use accepts::Accepts;
pub(super) use batches::Unsent;
use batches::{Batch, Item, Room};
pub(super) use pace::Pace;
use pace::Start;
use round::Round;

/// The number of refusals in a row after which a run ends.
const MAX_REFUSALS: u32 = 20;
/// How often a batch is sent again to an upstream that limits our rate.
const MAX_PAUSES: u32 = 6;

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
    /// Uploads events, and adds the verdicts to `sent` as they are stored. `is_late` says whether
    /// the next batch is left to another job.
    pub(super) async fn upload(
        &mut self,
        mut unsent: Unsent,
        is_late: impl Fn() -> bool,
        sent: &mut UploadTally,
    ) -> Result<Stop, StepError> {
        let mut next = unsent.next(self.room());
        if let Some(position) = up_to(next.as_ref()) {
            under_lease(outgoing::mark_sending(self.db, self.lease, position).await?)?;
        }
        while let Some(batch) = next {
            next = self.batch(&batch, &mut unsent, &is_late, sent).await?;
            if next.is_some() && self.state.stop.is_none() {
                self.before_next(&is_late).await;
            }
            if let Some(stop) = self.state.stop.take() {
                return Ok(stop);
            }
        }
        Ok(self.state.took_none().map_or(Stop::Done, Stop::Failed))
    }

    /// Sends a batch until each of its events has a verdict, or until there is a reason to stop. If the upstream does
    /// not take so many events at once, they are sent in parts. Returns the next batch.
    async fn batch(
        &mut self,
        batch: &Batch,
        unsent: &mut Unsent,
        is_late: &impl Fn() -> bool,
        sent: &mut UploadTally,
    ) -> Result<Option<Batch>, StepError> {
        if batch.up_to.is_none() {
            let ids: Vec<EventId> = batch.items.iter().map(|item| item.event.id).collect();
            outgoing::mark_sent(self.db, self.lease.lane.upstream_id, &ids).await?;
        }
        let (mut open, mut verdicts) = self.sift(batch);
        let mut pauses = 0;
        loop {
            let rest = open.split_off(open.len().min(self.pace().size));
            let mut round = self.send(&open).await;
            verdicts.append(&mut round.verdicts);
            let is_judged = round.again.is_empty() && rest.is_empty();
            let next = is_judged.then(|| unsent.next(self.room())).flatten();
            let reached = Reached {
                position: batch.up_to.filter(|_| is_judged),
                sending: up_to(next.as_ref()),
                is_answered: round.judged > 0,
            };
            self.write(&std::mem::take(&mut verdicts), reached, sent).await?;
            self.learn(&round).await?;
            if is_judged || self.state.stop.is_some() {
                return Ok(next);
            }
            open = std::mem::take(&mut round.again);
            if open.is_empty() {
                self.before_next(is_late).await;
            } else {
                self.before_again(round, pauses).await?;
                pauses += 1;
            }
            if self.state.stop.is_some() {
                return Ok(None);
            }
            open.extend(rest);
        }
    }

    /// Waits before further events are sent, or stops if they are left to another job.
    async fn before_next(&mut self, is_late: &impl Fn() -> bool) {
        if is_late() {
            self.state.stop = Some(self.state.took_none().map_or(Stop::Late, Stop::Failed));
            return;
        }
        let wait = self.pace().pause;
        if !wait.is_zero() {
            pause(wait).await;
        }
    }

    /// The pace at which uploads begin.
    fn start(&self) -> Start {
        Start {
            pause: Duration::from_millis(self.settings.upload_delay_ms),
            size: usize::try_from(self.settings.upload_batch_size).unwrap_or(usize::MAX),
        }
    }

    fn pace(&self) -> Start {
        if self.settings.upload_adaptive == 0 {
            return self.start();
        }
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).get(self.start())
    }

    /// Returns the room of the next batch.
    fn room(&self) -> Room {
        let grown = self.pace().size;
        let bytes = self.pace.lock().unwrap_or_else(PoisonError::into_inner).bytes();
        Room { configured: self.start().size, grown, bytes }
    }

    /// Notes how the upstream answered a round of these events, which took `took`. One that refuses events gets no larger
    /// batches.
    fn learn_pace(&self, items: &[&Item], round: &Round<'_>, took: Duration) {
        let (start, now) = (self.start(), Instant::now());
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        if round.limited.is_some() {
            pace.limited(start, now);
        } else if round.failed.is_some() || (round.judged == 0 && round.put_off.is_some()) {
            pace.failed(start, now);
        } else if round.judged > 0 {
            let judged = if round.is_refused { 0 } else { round.judged };
            let judged = usize::try_from(judged).unwrap_or(usize::MAX);
            pace.answered(start, (took, judged), now);
            if judged == items.len() {
                pace.carried(took, items.iter().map(|item| item.bytes()).sum());
            }
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

/// Returns the position up to which a batch sends events; `None` if there is no batch, or if its events wait.
fn up_to(batch: Option<&Batch>) -> Option<i64> {
    batch.and_then(|batch| batch.up_to)
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
