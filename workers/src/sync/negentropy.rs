//! Reconciliation (NIP-77): which events of a window either side lacks.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use negentropy::{Id, Negentropy, NegentropyStorageVector};
use serde_json::{Value, json};
use tender_jobs::{
    event::{EventId, Item},
    filter::Filter,
};
use tokio::sync::mpsc;

use super::{
    connection::{Connection, Heard, Subscription},
    error::StepError,
    frame::{self, FrameError},
};

/// Longest wait for the first answer: a relay that does not speak NIP-77 may say nothing.
const FIRST_ANSWER: Duration = Duration::from_secs(30);
/// Longest silence between two frames.
const SILENCE: Duration = Duration::from_mins(1);
/// Longest that a reconciliation may take.
const ALL_WITHIN: Duration = Duration::from_secs(85);
/// Rounds after which nothing is expected of further ones.
const MAX_ROUNDS: u32 = 200;

/// Why a reconciliation did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum NegError {
    /// The relay does not speak NIP-77, as far as we can tell.
    #[error("{0}")]
    Unsupported(String),
    /// The window holds too much for it; the most records that it would take, if it says so.
    #[error("the relay finds the window too large")]
    TooBig(Option<u64>),
    /// It ended the reconciliation without a reason.
    #[error("the relay ended the reconciliation: {0}")]
    Ended(String),
    /// It asks for patience.
    #[error("the relay is busy: {0}")]
    Busy(String),
    /// It did not answer in time, in the middle.
    #[error("the relay was silent in the middle of a reconciliation")]
    Slow,
    /// It sent what is no frame.
    #[error("the relay sent no frame of negentropy: {0}")]
    Protocol(String),
    /// It goes round in circles.
    #[error("the reconciliation makes no progress")]
    NoProgress,
    /// As any step.
    #[error(transparent)]
    Step(#[from] StepError),
}

/// What a reconciliation came to.
#[derive(Debug, Default)]
pub struct Compared {
    /// Events that we have, or know, and the relay has not.
    pub have: HashSet<EventId>,
    /// How many the relay has and we do not.
    pub needed: usize,
    /// Frames exchanged, both ways.
    pub rounds: u32,
}

/// What is compared.
pub(crate) struct Window<'a> {
    pub(crate) filter: &'a Filter,
    pub(crate) since: i64,
    pub(crate) until: i64,
    /// Largest frame that we send; 0: no limit.
    pub(crate) frame_size: u64,
}

/// Compares; hands on what we need as it is found, once each.
pub(crate) async fn compare(
    connection: &Connection,
    window: &Window<'_>,
    items: Vec<Item>,
    needed: mpsc::Sender<EventId>,
) -> Result<Compared, NegError> {
    let limit = window.frame_size;
    let (mut ours, first) = off_task(move || open(items, limit)).await?;
    let mut subscription = connection.subscribe("neg");
    let mut filter = window.filter.to_json();
    filter.insert("since".to_owned(), json!(window.since));
    filter.insert("until".to_owned(), json!(window.until));
    let opening = json!(["NEG-OPEN", subscription.id(), filter, hex::encode(first)]);
    connection.send(&opening).await?;
    let (mut compared, mut seen) = (Compared::default(), HashSet::new());
    let (begun, mut last_frame) = (Instant::now(), None);
    loop {
        let frame = answer(&mut subscription, compared.rounds == 0).await?;
        compared.rounds += 1;
        if compared.rounds > MAX_ROUNDS || last_frame.as_ref() == Some(&frame) {
            return Err(NegError::NoProgress);
        }
        let bytes = decode(&frame, compared.rounds == 1)?;
        last_frame = Some(frame);
        let round = off_task(move || step(ours, &bytes)).await?;
        compared.have.extend(round.have);
        for id in round.need {
            if seen.insert(id) {
                // Whoever fetches may have failed: that is told there.
                let _gone = needed.send(id).await;
            }
        }
        compared.needed = seen.len();
        let Some((next, reply)) = round.next else { return Ok(compared) };
        ours = next;
        if begun.elapsed() > ALL_WITHIN {
            return Err(NegError::Slow);
        }
        let reply: Value = json!(["NEG-MSG", subscription.id(), hex::encode(reply)]);
        connection.send(&reply).await?;
    }
}

type Ours = Box<Negentropy<'static, NegentropyStorageVector>>;

fn open(items: Vec<Item>, frame_size: u64) -> Result<(Ours, Vec<u8>), negentropy::Error> {
    let mut storage = NegentropyStorageVector::with_capacity(items.len());
    for (time, id) in items {
        storage.insert(time, Id::from_byte_array(id.0))?;
    }
    storage.seal()?;
    let mut ours = Box::new(Negentropy::owned(storage, frame_size)?);
    let first = ours.initiate()?;
    Ok((ours, first))
}

struct Round {
    have: Vec<EventId>,
    need: Vec<EventId>,
    next: Option<(Ours, Vec<u8>)>,
}

fn step(mut ours: Ours, frame: &[u8]) -> Result<Round, negentropy::Error> {
    let (mut have, mut need) = (Vec::new(), Vec::new());
    let reply = ours.reconcile_with_ids(frame, &mut have, &mut need)?;
    let ids = |ids: Vec<Id>| ids.into_iter().map(|id| EventId(id.to_bytes())).collect();
    Ok(Round { have: ids(have), need: ids(need), next: reply.map(|reply| (ours, reply)) })
}

/// Sums over a million ids are no work for a task that others wait for.
async fn off_task<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, negentropy::Error> + Send + 'static,
) -> Result<T, NegError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(NegError::Protocol(error.to_string())),
        Err(_) => Err(NegError::Protocol("the frame could not be worked on".to_owned())),
    }
}

fn decode(frame: &str, is_first: bool) -> Result<Vec<u8>, NegError> {
    let bytes =
        hex::decode(frame).map_err(|error| NegError::Protocol(format!("no hex: {error}")))?;
    match frame::check(&bytes) {
        Ok(_) => Ok(bytes),
        Err(error @ FrameError::Version(_)) if is_first => {
            Err(NegError::Unsupported(error.to_string()))
        }
        Err(error) => Err(NegError::Protocol(error.to_string())),
    }
}

/// The next frame, or what came instead of it.
async fn answer(subscription: &mut Subscription, is_first: bool) -> Result<String, NegError> {
    let silence = if is_first { FIRST_ANSWER } else { SILENCE };
    loop {
        match subscription.next(silence).await {
            Ok(Heard::NegMsg(frame)) => return Ok(frame),
            Ok(Heard::NegErr(why, most)) => return Err(refusal(&why, most)),
            Ok(Heard::Closed(why)) => {
                return Err(match StepError::of_closed(&why) {
                    StepError::RateLimited(why) => NegError::Busy(why),
                    error @ StepError::Auth(_) => error.into(),
                    _ => NegError::Unsupported(format!("it closed the reconciliation: {why}")),
                });
            }
            Ok(Heard::Notice(words)) => {
                if let Some(error) = of_notice(&words, is_first) {
                    return Err(error);
                }
            }
            Ok(_) => {}
            Err(StepError::Silent(_)) if is_first => {
                return Err(NegError::Unsupported(
                    "it did not answer NEG-OPEN within 30 s".to_owned(),
                ));
            }
            Err(StepError::Silent(_)) => return Err(NegError::Slow),
            Err(error) => return Err(error.into()),
        }
    }
}

/// What a NEG-ERR asks for.
fn refusal(why: &str, most: Option<u64>) -> NegError {
    let words = why.to_lowercase();
    let has = |part: &str| words.contains(part);
    if words.starts_with("auth-required") {
        NegError::Step(StepError::Auth(why.to_owned()))
    } else if has("too many concurrent") || words.starts_with("rate-limited") {
        NegError::Busy(why.to_owned())
    } else if words.starts_with("blocked") || has("too many") || has("too big") || has("too large")
    {
        NegError::TooBig(most)
    } else if words.starts_with("closed") {
        NegError::Ended(why.to_owned())
    } else {
        NegError::Unsupported(format!("it refused: {why}"))
    }
}

/// Notices say it in their own words; before the first frame they may mean us.
fn of_notice(words: &str, is_first: bool) -> Option<NegError> {
    const REFUSALS: [&str; 11] = [
        "negentropy",
        "neg-",
        "unknown",
        "unrecognised",
        "unrecognized",
        "unsupported",
        "invalid",
        "disabled",
        "bad msg",
        "could not parse",
        "error",
    ];
    let lower = words.to_lowercase();
    if lower.contains("too many concurrent")
        || lower.contains("rate limit")
        || lower.contains("rate-limit")
    {
        return Some(NegError::Busy(words.to_owned()));
    }
    let is_refusal = is_first && REFUSALS.iter().any(|refusal| lower.contains(refusal));
    is_refusal.then(|| NegError::Unsupported(format!("it answered by a notice: {words}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart() {
        assert!(matches!(refusal("blocked: too many", Some(5)), NegError::TooBig(Some(5))));
        assert!(matches!(refusal("error: result too big", None), NegError::TooBig(None)));
        assert!(matches!(refusal("closed: took too long", None), NegError::Ended(_)));
        assert!(matches!(refusal("auth-required: who", None), NegError::Step(StepError::Auth(_))));
        assert!(matches!(refusal("error: too many concurrent NEGs", None), NegError::Busy(_)));
        assert!(matches!(refusal("error: no", None), NegError::Unsupported(_)));
    }

    #[test]
    fn a_notice_refuses_only_before_the_first_frame() {
        let notice = "ERROR: bad msg: negentropy disabled";
        assert!(matches!(of_notice(notice, true), Some(NegError::Unsupported(_))));
        assert!(of_notice(notice, false).is_none());
        assert!(of_notice("welcome", true).is_none());
        assert!(matches!(of_notice("too many concurrent REQs", false), Some(NegError::Busy(_))));
    }
}
