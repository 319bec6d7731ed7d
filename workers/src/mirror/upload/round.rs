//! One round of an upload: events are sent together, and their answers awaited.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream::FuturesUnordered};
use serde_json::Value;
use tender_jobs::mirror::event::{EventId, outgoing::Verdict};

use super::{
    Item, Uploader,
    answer::{Answer, answer},
};
use crate::mirror::error::StepError;

/// The longest wait for an `OK`.
const OK_WITHIN: Duration = Duration::from_secs(10);

const UNANSWERED: &str = "no answer within 10 s";

/// The outcome of a round.
#[derive(Debug, Default)]
pub(super) struct Round<'b> {
    pub(super) verdicts: Vec<(EventId, Verdict)>,
    /// The events without a verdict.
    pub(super) again: Vec<&'b Item>,
    pub(super) answers: u64,
    /// The events that the upstream took or judged.
    pub(super) judged: u64,
    /// Why the last event waits that the upstream neither took nor judged.
    pub(super) put_off: Option<String>,
    /// The reason of the upstream, if it limits our rate.
    pub(super) limited: Option<String>,
    /// Whether it refused an event for a reason that concerns us.
    pub(super) is_refused: bool,
    /// The words of an upstream that takes events from their authors only.
    pub(super) authors_only: Option<String>,
    /// Why no further event can be sent.
    pub(super) failed: Option<Failure>,
}

impl Round<'_> {
    fn put_off(&mut self, id: EventId, reason: String) {
        self.put_off = Some(reason.clone());
        self.verdicts.push((id, Verdict::Pending(reason)));
    }
}

/// Why a round ended the run.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection was lost.
    Lost(String),
    /// The upstream answered none of several events.
    Silent,
}

impl Failure {
    pub(super) fn error(&self) -> StepError {
        match self {
            Self::Lost(why) => StepError::Connection(why.clone()),
            Self::Silent => {
                StepError::Silent("the upstream answered no event within 10 s".to_owned())
            }
        }
    }
}

impl Uploader<'_> {
    /// Sends all events, waits for their answers, and learns the upstream's pace. Events that could not be sent have
    /// no verdict.
    pub(super) async fn send<'b>(&mut self, items: &[&'b Item]) -> Round<'b> {
        let begun = Instant::now();
        let round = self.exchange(items).await;
        self.learn_pace(items, &round, begun.elapsed());
        round
    }

    async fn exchange<'b>(&mut self, items: &[&'b Item]) -> Round<'b> {
        let (mut round, mut waiting) = (Round::default(), FuturesUnordered::new());
        for item in items {
            let value: Value = serde_json::to_value(&item.event).unwrap_or_default();
            let id = item.event.id.to_string();
            match self.connection.publish(&id, &value).await {
                Ok(answer) => waiting
                    .push(async move { (*item, tokio::time::timeout(OK_WITHIN, answer).await) }),
                Err(error) => {
                    round.failed = Some(Failure::Lost(error.to_string()));
                    round.again.push(item);
                }
            }
        }
        let is_alone = waiting.len() == 1;
        while let Some((item, heard)) = waiting.next().await {
            match heard {
                Ok(Ok((is_taken, reason))) => {
                    round.answers += 1;
                    self.sort(item, answer(is_taken, &reason), &mut round);
                }
                Ok(Err(_)) => {
                    let reason = self.connection.lost_error().to_string();
                    let verdict = Verdict::Lost { reason: reason.clone(), is_alone };
                    round.verdicts.push((item.event.id, verdict));
                    round.failed = Some(Failure::Lost(reason));
                }
                Err(_) => {
                    self.connection.forget(&item.event.id.to_string());
                    let verdict = Verdict::Unanswered(UNANSWERED.to_owned());
                    round.put_off = Some(UNANSWERED.to_owned());
                    round.verdicts.push((item.event.id, verdict));
                }
            }
        }
        if round.answers == 0 && round.verdicts.len() > 1 && round.failed.is_none() {
            round.failed = Some(Failure::Silent);
        }
        round
    }

    fn sort<'b>(&mut self, item: &'b Item, heard: Answer, round: &mut Round<'b>) {
        let id = item.event.id;
        match heard {
            Answer::Final(Verdict::Pending(reason)) => round.put_off(id, reason),
            Answer::Final(verdict) => {
                round.judged += 1;
                self.state.refusals = 0;
                let is_ours = item.was_sent && verdict == Verdict::Duplicate;
                round.verdicts.push((id, if is_ours { Verdict::Accepted } else { verdict }));
            }
            Answer::Refusal(reason) => {
                round.judged += 1;
                self.state.refusals += 1;
                round.verdicts.push((id, Verdict::Rejected(reason.clone())));
                round.is_refused = true;
            }
            Answer::AuthorsOnly(reason) => {
                round.judged += 1;
                round.verdicts.push((id, Verdict::Rejected(reason.clone())));
                round.authors_only = Some(reason);
            }
            Answer::Auth(reason) if self.state.is_authenticated => round.put_off(id, reason),
            Answer::Auth(_) => round.again.push(item),
            Answer::RateLimited(reason) => {
                round.limited = Some(reason);
                round.again.push(item);
            }
        }
    }
}
