//! Uploads: events are sent to an upstream in batches, oldest arrival first. Every event gets a
//! verdict: accepted, duplicate, rejected with the upstream's reason, or pending for a later run.

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};
use serde_json::Value;
use sqlx::PgPool;
use tender_jobs::mirror::{
    event::{
        Event, EventId,
        outgoing::{self, UploadTally, Verdict},
    },
    lane::Lease,
    upstream::settings::Settings,
};
use uuid::Uuid;

use super::{connection::Connection, error::StepError, lane::under_lease};
use crate::runtime::pause;

/// The longest wait for an `OK`.
const OK_WITHIN: Duration = Duration::from_secs(10);
/// The number of refusals in a row after which the upload ends with an error.
const MAX_REFUSALS: u32 = 20;
/// How often a batch is sent again to an upstream that limits our rate.
const MAX_PAUSES: u32 = 6;

/// The answer to an event, by the reaction that it needs. Source: NIP-01, NIP-42.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Final(Verdict),
    /// The reason concerns us and not the event, so further events are likely to be rejected too.
    Refusal(Verdict),
    RateLimited(String),
    Auth(String),
}

fn answer(is_taken: bool, reason: &str) -> Answer {
    let prefix = reason.split_once(':').map_or("", |(prefix, _)| prefix);
    match (is_taken, prefix) {
        (_, "duplicate") => Answer::Final(Verdict::Duplicate),
        (true, _) => Answer::Final(Verdict::Accepted),
        (false, "rate-limited") => Answer::RateLimited(reason.to_owned()),
        (false, "auth-required") => Answer::Auth(reason.to_owned()),
        (false, "blocked" | "restricted") => Answer::Refusal(Verdict::Rejected(reason.to_owned())),
        (false, "invalid" | "pow" | "mute") => Answer::Final(Verdict::Rejected(reason.to_owned())),
        (false, _) => Answer::Final(Verdict::Pending(reason.to_owned())),
    }
}

/// Sends events in batches, and stores the verdicts batch by batch.
pub(crate) struct Uploader<'a> {
    db: &'a PgPool,
    upstream: Uuid,
    /// The lease of the upload lane, if the job holds one: verdicts are stored and counted under
    /// it.
    lease: Option<&'a Lease>,
    connection: &'a Connection,
    settings: &'a Settings,
    refusals: u32,
    is_authenticated: bool,
}

impl<'a> Uploader<'a> {
    pub(crate) fn new(
        db: &'a PgPool,
        upstream: Uuid,
        lease: Option<&'a Lease>,
        connection: &'a Connection,
        settings: &'a Settings,
    ) -> Self {
        Self { db, upstream, lease, connection, settings, refusals: 0, is_authenticated: false }
    }

    /// Uploads events, and adds the verdicts to `sent` as they are stored.
    pub(crate) async fn upload(
        &mut self,
        events: &[Event],
        sent: &mut UploadTally,
    ) -> Result<(), StepError> {
        let size = usize::try_from(self.settings.upload_batch_size).unwrap_or(usize::MAX);
        let delay = Duration::from_millis(self.settings.upload_delay_ms);
        for (index, batch) in events.chunks(size).enumerate() {
            if index > 0 && !delay.is_zero() {
                pause(delay).await;
            }
            self.batch(batch, sent).await?;
        }
        Ok(())
    }

    async fn batch(&mut self, batch: &[Event], sent: &mut UploadTally) -> Result<(), StepError> {
        let mut open: Vec<&Event> = batch.iter().collect();
        for pauses in 0.. {
            let (verdicts, again) = self.send(&open).await?;
            self.write(&verdicts, sent).await?;
            match again.limited {
                None if again.events.is_empty() => return Ok(()),
                None => self.authenticate().await?,
                Some(reason) if pauses >= MAX_PAUSES => {
                    let pending = |event: &&Event| (event.id, Verdict::Pending(reason.clone()));
                    let verdicts: Vec<_> = again.events.iter().map(pending).collect();
                    self.write(&verdicts, sent).await?;
                    return Err(StepError::RateLimited(reason));
                }
                Some(_) => pause(Duration::from_millis(500) * 2_u32.pow(pauses)).await,
            }
            open = again.events;
        }
        Ok(())
    }

    async fn authenticate(&mut self) -> Result<(), StepError> {
        self.connection.authenticated().await?;
        self.is_authenticated = true;
        Ok(())
    }

    /// Sends all events and waits for their answers. Returns the verdicts, and the events to be
    /// sent again.
    async fn send<'e>(
        &mut self,
        events: &[&'e Event],
    ) -> Result<(Vec<(EventId, Verdict)>, Again<'e>), StepError> {
        let mut waiting = FuturesUnordered::new();
        for event in events {
            let value: Value = serde_json::to_value(event).map_err(|error| {
                StepError::Protocol(format!("event {} is not valid JSON: {error}", event.id))
            })?;
            let answer = self.connection.publish(&event.id.to_string(), &value).await?;
            waiting.push(async move { (*event, tokio::time::timeout(OK_WITHIN, answer).await) });
        }
        let (mut verdicts, mut again) = (Vec::new(), Again::default());
        while let Some((event, heard)) = waiting.next().await {
            let heard = match heard {
                Ok(Ok((is_taken, reason))) => answer(is_taken, &reason),
                Ok(Err(_)) => return Err(self.connection.lost_error()),
                Err(_) => {
                    self.connection.forget(&event.id.to_string());
                    Answer::Final(Verdict::Pending("no answer within 10 s".to_owned()))
                }
            };
            self.sort(event, heard, &mut verdicts, &mut again)?;
        }
        Ok((verdicts, again))
    }

    fn sort<'e>(
        &mut self,
        event: &'e Event,
        heard: Answer,
        verdicts: &mut Vec<(EventId, Verdict)>,
        again: &mut Again<'e>,
    ) -> Result<(), StepError> {
        match heard {
            Answer::Final(verdict) => {
                self.refusals = 0;
                verdicts.push((event.id, verdict));
            }
            Answer::Refusal(verdict) => {
                self.refuse(&verdict)?;
                verdicts.push((event.id, verdict));
            }
            Answer::Auth(reason) if self.is_authenticated => {
                verdicts.push((event.id, Verdict::Pending(reason)));
            }
            Answer::Auth(_) => again.events.push(event),
            Answer::RateLimited(reason) => {
                again.limited = Some(reason);
                again.events.push(event);
            }
        }
        Ok(())
    }

    /// Counts a refusal; too many in a row are an error.
    fn refuse(&mut self, verdict: &Verdict) -> Result<(), StepError> {
        self.refusals += 1;
        match verdict {
            Verdict::Rejected(reason) if self.refusals >= MAX_REFUSALS => Err(StepError::Refused(
                format!("{MAX_REFUSALS} uploads in a row; the last reason: {reason}"),
            )),
            _ => Ok(()),
        }
    }

    /// Stores the verdicts with their counts.
    async fn write(
        &self,
        verdicts: &[(EventId, Verdict)],
        sent: &mut UploadTally,
    ) -> Result<(), StepError> {
        let judged = outgoing::judge(self.db, self.upstream, self.lease, verdicts).await?;
        let tally = under_lease(judged)?;
        sent.add(tally);
        measure(tally);
        Ok(())
    }
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

/// The events of a batch that are sent once more.
#[derive(Debug, Default)]
struct Again<'e> {
    events: Vec<&'e Event>,
    /// The reason of the upstream, if it limits our rate.
    limited: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_prefix_has_its_verdict() {
        let rejected = |words: &str| Verdict::Rejected(words.to_owned());
        for (is_taken, words, wanted) in [
            (true, "", Answer::Final(Verdict::Accepted)),
            (true, "duplicate: have it", Answer::Final(Verdict::Duplicate)),
            (false, "duplicate: have it", Answer::Final(Verdict::Duplicate)),
            (false, "invalid: id", Answer::Final(rejected("invalid: id"))),
            (false, "pow: 20", Answer::Final(rejected("pow: 20"))),
            (false, "blocked: you", Answer::Refusal(rejected("blocked: you"))),
            (false, "restricted: members", Answer::Refusal(rejected("restricted: members"))),
            (false, "error: disk", Answer::Final(Verdict::Pending("error: disk".to_owned()))),
            (false, "hm", Answer::Final(Verdict::Pending("hm".to_owned()))),
            (false, "rate-limited: slow", Answer::RateLimited("rate-limited: slow".to_owned())),
            (false, "auth-required: who", Answer::Auth("auth-required: who".to_owned())),
        ] {
            assert_eq!(answer(is_taken, words), wanted, "{words}");
        }
    }
}
