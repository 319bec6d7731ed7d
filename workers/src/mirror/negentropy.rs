//! Reconciliation by negentropy: finds the events of a window that either side lacks. Source:
//! NIP-77.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use negentropy::{Id, Negentropy, NegentropyStorageVector};
use serde_json::{Value, json};
use tender_jobs::mirror::{
    event::{EventId, Item},
    filter::Filter,
};
use tokio::sync::mpsc;

use super::{
    connection::{Asked, Connection, Heard, Subscription},
    error::StepError,
    frame::{self, FrameError},
};

/// The longest wait between two frames.
pub(crate) const SILENCE: Duration = Duration::from_mins(1);
/// The longest duration of a reconciliation.
const ALL_WITHIN: Duration = Duration::from_secs(85);
/// The maximum number of rounds; a reconciliation that needs more makes no progress.
const MAX_ROUNDS: u32 = 200;
/// Why an upstream is not asked.
const HANGS_UP: &str = "the upstream ends the connection at each comparison";

/// A reconciliation failed.
#[derive(Debug, thiserror::Error)]
pub enum NegError {
    /// The upstream does not appear to support NIP-77.
    #[error("{0}")]
    Unsupported(String),
    /// The upstream did not answer NEG-OPEN within so many seconds: it does not support NIP-77, or needs longer for
    /// such a window.
    #[error("the upstream did not answer NEG-OPEN within {0} s")]
    Unanswered(u64),
    /// The window holds too many events for the upstream, or for us. Holds the largest number of
    /// records that the upstream accepts, if it gave one.
    #[error("the window is too large for a reconciliation")]
    TooBig(Option<u64>),
    /// The upstream ended the reconciliation without a usable reason.
    #[error("the upstream ended the reconciliation: {0}")]
    Ended(String),
    /// The upstream limits the rate or number of reconciliations.
    #[error("the upstream is busy: {0}")]
    Busy(String),
    /// The upstream did not answer a later frame in time, or the reconciliation took too long.
    #[error("the reconciliation took too long")]
    Slow,
    /// The upstream sent an invalid frame.
    #[error("the upstream sent an invalid negentropy frame: {0}")]
    Protocol(String),
    /// The upstream repeated a frame, or the number of rounds reached its limit.
    #[error("the reconciliation makes no progress")]
    NoProgress,
    /// An error that reconciliations share with other requests.
    #[error(transparent)]
    Step(#[from] StepError),
}

/// The result of a reconciliation.
#[derive(Debug, Default)]
pub struct Compared {
    /// The events that we store or know and the upstream lacks.
    pub have: HashSet<EventId>,
    /// The events that the upstream has and we lack.
    pub need: HashSet<EventId>,
    /// The number of frames that the upstream sent.
    pub rounds: u32,
}

/// The window and the filter of a reconciliation.
pub(crate) struct Window<'a> {
    pub(crate) filter: &'a Filter,
    /// Unix seconds, inclusive.
    pub(crate) since: i64,
    /// Unix seconds, inclusive.
    pub(crate) until: i64,
    /// The largest frame that we send, in bytes; 0 for no limit.
    pub(crate) frame_size: u64,
    /// The longest wait for the first answer. An upstream without NIP-77 may not answer at all.
    pub(crate) first_answer: Duration,
    /// The longest wait for a later answer.
    pub(crate) silence: Duration,
}

/// Compares `items` with the upstream's events of the window. Sends the id of each event that we
/// lack to `needed` once, as soon as it is found.
pub(crate) async fn compare(
    connection: &Connection,
    window: &Window<'_>,
    items: Arc<Vec<Item>>,
    needed: mpsc::Sender<EventId>,
) -> Result<Compared, NegError> {
    if connection.refusals().has(Asked::Comparison) {
        return Err(NegError::Unsupported(HANGS_UP.to_owned()));
    }
    let limit = window.frame_size;
    let (mut ours, first) = off_task(move || open(&items, limit)).await?;
    let mut subscription = connection.subscribe("neg");
    let mut filter = window.filter.to_json();
    filter.insert("since".to_owned(), json!(window.since));
    filter.insert("until".to_owned(), json!(window.until));
    let opening = json!(["NEG-OPEN", subscription.id(), filter, hex::encode(first)]);
    connection.send(&opening).await?;
    let mut compared = Compared::default();
    let (begun, mut last_frame) = (Instant::now(), None);
    loop {
        let first_answer = (compared.rounds == 0).then_some(window.first_answer);
        let frame = answer(&mut subscription, first_answer, window.silence).await;
        if let Err(NegError::Step(StepError::Connection(_))) = frame {
            connection.suspect_comparisons(); // it would end each retry in the same way
        }
        let frame = frame?;
        compared.rounds += 1;
        if compared.rounds > MAX_ROUNDS || last_frame.as_ref() == Some(&frame) {
            return Err(NegError::NoProgress);
        }
        let bytes = decode(&frame, compared.rounds == 1)?;
        last_frame = Some(frame);
        let round = off_task(move || step(ours, &bytes)).await?;
        compared.have.extend(round.have);
        for id in round.need {
            if compared.need.insert(id) {
                // The fetch may have failed; it reports its own error.
                let _gone = needed.send(id).await;
            }
        }
        let Some((next, reply)) = round.next else {
            connection.refusals().trust_comparisons();
            return Ok(compared);
        };
        ours = next;
        if begun.elapsed() > ALL_WITHIN {
            return Err(NegError::Slow);
        }
        let reply: Value = json!(["NEG-MSG", subscription.id(), hex::encode(reply)]);
        connection.send(&reply).await?;
    }
}

type Ours = Box<Negentropy<'static, NegentropyStorageVector>>;

fn open(items: &[Item], frame_size: u64) -> Result<(Ours, Vec<u8>), negentropy::Error> {
    let mut storage = NegentropyStorageVector::with_capacity(items.len());
    for (time, id) in items {
        storage.insert(*time, Id::from_byte_array(id.0))?;
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

/// Runs `work` on a thread for blocking work, because a sum over a million ids would hold up the
/// async tasks.
async fn off_task<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, negentropy::Error> + Send + 'static,
) -> Result<T, NegError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(NegError::Protocol(error.to_string())),
        Err(_) => Err(NegError::Protocol("the frame could not be processed".to_owned())),
    }
}

fn decode(frame: &str, is_first: bool) -> Result<Vec<u8>, NegError> {
    let bytes = hex::decode(frame)
        .map_err(|error| NegError::Protocol(format!("the frame is not valid hex: {error}")))?;
    match frame::check(&bytes) {
        Ok(_) => Ok(bytes),
        Err(error @ FrameError::Version(_)) if is_first => {
            Err(NegError::Unsupported(error.to_string()))
        }
        Err(error) => Err(NegError::Protocol(error.to_string())),
    }
}

/// Returns the next frame, in hex, or the error that took its place. `first_answer` is the longest wait
/// for the first frame; `None` for a later frame, which is waited for as long as `later`.
async fn answer(
    subscription: &mut Subscription,
    first_answer: Option<Duration>,
    later: Duration,
) -> Result<String, NegError> {
    let (is_first, silence) = (first_answer.is_some(), first_answer.unwrap_or(later));
    loop {
        match subscription.next(silence).await {
            Ok(Heard::NegMsg(frame)) => return Ok(frame),
            Ok(Heard::NegErr(why, most)) => return Err(refusal(&why, most)),
            Ok(Heard::Closed(why)) => {
                return Err(match StepError::of_closed(&why) {
                    StepError::RateLimited(why) => NegError::Busy(why),
                    error @ StepError::Auth(_) => error.into(),
                    _ => NegError::Unsupported(format!(
                        "the upstream closed the reconciliation: {why}"
                    )),
                });
            }
            Ok(Heard::Notice(words)) => {
                if let Some(error) = of_notice(&words, is_first) {
                    return Err(error);
                }
            }
            Ok(_) => {}
            Err(StepError::Silent(_)) if is_first => {
                return Err(NegError::Unanswered(silence.as_secs()));
            }
            Err(StepError::Silent(_)) => return Err(NegError::Slow),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Returns the error for a NEG-ERR. Relays differ in their wording, so common phrases are
/// recognized.
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
        NegError::Unsupported(format!("the upstream refused the reconciliation: {why}"))
    }
}

/// Returns the error for a NOTICE that refuses a reconciliation. Only before the first frame is a
/// notice about unsupported messages taken as the answer to NEG-OPEN.
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
    is_refusal
        .then(|| NegError::Unsupported(format!("the upstream answered with a notice: {words}")))
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
