//! Uploads: what is here goes to the upstreams that take it, oldest arrival first, and every event gets
//! a verdict: accepted, duplicate, rejected with the relay's words, or pending for another run.

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};
use serde_json::Value;
use sqlx::PgPool;
use tender_jobs::{
    event::{
        Event, EventId,
        outgoing::{self, Verdict},
    },
    lane::Progress,
    upstream::settings::Settings,
};
use uuid::Uuid;

use super::{connection::Connection, error::StepError};

/// Longest wait for an OK.
const OK_WITHIN: Duration = Duration::from_secs(10);
/// Refusals in a row after which the relay is taken at its word.
const MAX_REFUSALS: u32 = 20;
/// Times that a batch is sent again to a relay that limits our rate.
const MAX_PAUSES: u32 = 6;

/// A relay's answer, by what it asks for. Source: NIP-01, NIP-42.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Final(Verdict),
    /// It will not take this event or any other of ours.
    Refusal(Verdict),
    RateLimited(String),
    Auth(String),
}

fn answer(is_taken: bool, words: &str) -> Answer {
    let prefix = words.split_once(':').map_or("", |(prefix, _)| prefix);
    match (is_taken, prefix) {
        (_, "duplicate") => Answer::Final(Verdict::Duplicate),
        (true, _) => Answer::Final(Verdict::Accepted),
        (false, "rate-limited") => Answer::RateLimited(words.to_owned()),
        (false, "auth-required") => Answer::Auth(words.to_owned()),
        (false, "blocked" | "restricted") => Answer::Refusal(Verdict::Rejected(words.to_owned())),
        (false, "invalid" | "pow" | "mute") => Answer::Final(Verdict::Rejected(words.to_owned())),
        (false, _) => Answer::Final(Verdict::Pending(words.to_owned())),
    }
}

/// Sends events in batches, and writes what became of them batch by batch.
pub(crate) struct Uploader<'a> {
    pub(crate) db: &'a PgPool,
    pub(crate) upstream: Uuid,
    pub(crate) connection: &'a Connection,
    pub(crate) settings: &'a Settings,
    refusals: u32,
    is_authenticated: bool,
}

impl<'a> Uploader<'a> {
    pub(crate) fn new(
        db: &'a PgPool,
        upstream: Uuid,
        connection: &'a Connection,
        settings: &'a Settings,
    ) -> Self {
        Self { db, upstream, connection, settings, refusals: 0, is_authenticated: false }
    }

    /// Uploads; adds to the progress as verdicts are written.
    pub(crate) async fn upload(
        &mut self,
        events: &[Event],
        progress: &mut Progress,
    ) -> Result<(), StepError> {
        let size = usize::try_from(self.settings.upload_batch_size).unwrap_or(usize::MAX);
        let pause = Duration::from_millis(self.settings.upload_delay_ms);
        for (index, batch) in events.chunks(size).enumerate() {
            if index > 0 && !pause.is_zero() {
                wait(pause).await;
            }
            self.batch(batch, progress).await?;
        }
        Ok(())
    }

    async fn batch(&mut self, batch: &[Event], progress: &mut Progress) -> Result<(), StepError> {
        let mut open: Vec<&Event> = batch.iter().collect();
        for pauses in 0.. {
            let (verdicts, again) = self.send(&open).await?;
            self.write(&verdicts, progress).await?;
            let Some(limited) = again.limited else {
                if again.events.is_empty() {
                    return Ok(());
                }
                self.connection.authenticated().await?;
                self.is_authenticated = true;
                open = again.events;
                continue;
            };
            if pauses >= MAX_PAUSES {
                let pending = |event: &&Event| (event.id, Verdict::Pending(limited.clone()));
                let verdicts: Vec<_> = again.events.iter().map(pending).collect();
                self.write(&verdicts, progress).await?;
                return Err(StepError::RateLimited(limited));
            }
            wait(Duration::from_millis(500) * 2_u32.pow(pauses)).await;
            open = again.events;
        }
        Ok(())
    }

    /// Sends all at once and waits for each; verdicts, and what is to be sent again.
    async fn send<'e>(
        &mut self,
        events: &[&'e Event],
    ) -> Result<(Vec<(EventId, Verdict)>, Again<'e>), StepError> {
        let mut waiting = FuturesUnordered::new();
        for event in events {
            let value: Value = serde_json::to_value(event)
                .map_err(|error| StepError::Protocol(format!("an event is no JSON: {error}")))?;
            let answer = self.connection.publish(&event.id.to_string(), &value).await?;
            waiting.push(async move { (*event, tokio::time::timeout(OK_WITHIN, answer).await) });
        }
        let (mut verdicts, mut again) = (Vec::new(), Again::default());
        while let Some((event, heard)) = waiting.next().await {
            let heard = match heard {
                Ok(Ok((is_taken, words))) => answer(is_taken, &words),
                Ok(Err(_)) => {
                    let why = self.connection.lost();
                    return Err(StepError::Connection(
                        why.unwrap_or_else(|| "the connection broke".to_owned()),
                    ));
                }
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
                self.refusals += 1;
                if self.refusals >= MAX_REFUSALS
                    && let Verdict::Rejected(words) = verdict
                {
                    return Err(StepError::Refused(format!(
                        "{MAX_REFUSALS} uploads in a row, the last with: {words}"
                    )));
                }
                verdicts.push((event.id, verdict));
            }
            Answer::Auth(words) if self.is_authenticated => {
                verdicts.push((event.id, Verdict::Pending(words)));
            }
            Answer::Auth(_) => again.events.push(event),
            Answer::RateLimited(words) => {
                again.limited = Some(words);
                again.events.push(event);
            }
        }
        Ok(())
    }

    async fn write(
        &self,
        verdicts: &[(EventId, Verdict)],
        progress: &mut Progress,
    ) -> Result<(), StepError> {
        let gave_up = outgoing::judge(self.db, self.upstream, verdicts).await?;
        progress.upload_rejected += i64::try_from(gave_up).unwrap_or(i64::MAX);
        for (id, verdict) in verdicts {
            let outcome = match verdict {
                Verdict::Accepted => {
                    progress.uploaded += 1;
                    progress.last_upload = Some(*id);
                    "accepted"
                }
                Verdict::Duplicate => {
                    progress.upload_duplicate += 1;
                    "duplicate"
                }
                Verdict::Rejected(_) => {
                    progress.upload_rejected += 1;
                    "rejected"
                }
                Verdict::Pending(_) => "pending",
            };
            metrics::counter!("tender_uploads_total", "outcome" => outcome).increment(1);
        }
        Ok(())
    }
}

/// What a batch has to send once more.
#[derive(Debug, Default)]
struct Again<'e> {
    events: Vec<&'e Event>,
    /// The relay asks for patience, in these words.
    limited: Option<String>,
}

/// A pause within a job, bounded by the job's own time.
async fn wait(pause: Duration) {
    let _time = tokio::time::timeout(pause, std::future::pending::<()>()).await;
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
