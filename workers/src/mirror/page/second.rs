//! A second that may hold more events than a page. It is requested with a larger limit, and then in
//! parts: by the first digits of the ids, which proves completeness if the upstream takes prefixes,
//! and by the kinds and authors that were seen. A second that is not proven to be complete is a gap.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tender_jobs::mirror::{filter::Filter, lane::gap::Gap};

use super::{Asked, Page, Seen, Taker, Walk, page};
use crate::mirror::{
    connection::{Asked as Refused, Connection},
    error::StepError,
    intake::Intake,
};

/// The most requests for one second.
const MOST_PARTS: usize = 300;
/// The most digits of a prefix.
const DIGITS: usize = 3;
/// The longest wait for a part. An upstream that does not take prefixes may not answer at all.
const SILENCE: Duration = Duration::from_secs(5);
/// The longest time for one second; then it is a gap.
const WITHIN: Duration = Duration::from_secs(20);
/// The authors of one request.
const AUTHORS: usize = 10;
/// Why a second is a gap.
const REASON: &str = "the second may hold more events than the upstream gives";

/// Requests the other events of the second `at`. `is_oldest` says that the window holds nothing
/// older. If the upstream ends the connection or limits us for that, the next attempt stores a gap: it would come to the
/// same second, and never pass it.
pub(super) async fn complete(
    walk: &mut Walk<'_>,
    connection: &Connection,
    intake: &mut Intake,
    at: i64,
    is_oldest: bool,
) -> Result<(), StepError> {
    if connection.refusals().has(Refused::Parts) {
        return gap(walk, at);
    }
    let had_prefixes = connection.refusals().has(Refused::Prefixes);
    let completed = in_parts(walk, connection, intake, at, is_oldest).await;
    let was_prefix = !had_prefixes && connection.refusals().has(Refused::Prefixes);
    if is_refusal(connection, &completed) && !was_prefix {
        connection.refusals().add(Refused::Parts, connection.was_ended());
    }
    completed
}

/// Whether the upstream ended the connection, or limits us.
fn is_refusal<T>(connection: &Connection, answer: &Result<T, StepError>) -> bool {
    matches!(answer, Err(StepError::Connection(_))) && connection.was_ended()
        || matches!(answer, Err(StepError::RateLimited(_)))
}

async fn in_parts(
    walk: &mut Walk<'_>,
    connection: &Connection,
    intake: &mut Intake,
    at: i64,
    is_oldest: bool,
) -> Result<(), StepError> {
    // Older events in the answer prove that it holds the whole second.
    let since = if is_oldest { 0 } else { walk.asked.since };
    let limit = walk.asked.most.max(walk.asked.limit);
    let larger = Asked { since, limit, lane: None, ..walk.asked };
    let Some(found) = part(walk, connection, intake, larger, at).await? else {
        return gap(walk, at);
    };
    let (is_proven, size) = (found.claims().any(|(_, older)| older < at), found.size());
    let parts = Parts::of(&found, at);
    let is_full = u64::try_from(size).is_ok_and(|size| size >= larger.limit);
    let may_be_whole = is_oldest && !is_full && walk.is_small(size);
    if is_proven || (may_be_whole && !walk.has_older(connection, at).await?) {
        return Ok(());
    }
    if !is_full && (!is_oldest || may_be_whole) {
        walk.learn_cap(size); // older events exist, and were not shown
    }
    if parts.by_prefix(walk, connection, intake, at, size).await? {
        return Ok(());
    }
    parts.by_kind_and_author(walk, connection, intake, at, size).await?;
    gap(walk, at)
}

#[expect(clippy::unnecessary_wraps, reason = "ends its callers")]
fn gap(walk: &mut Walk<'_>, at: i64) -> Result<(), StepError> {
    tracing::warn!(second = at, "gap: {REASON}");
    walk.gaps.push(Gap::second(at, REASON));
    Ok(())
}

/// Requests a part of the second `at`, and passes its events of this second to the intake. `None` if
/// the upstream does not answer such a request.
pub(super) async fn part(
    walk: &mut Walk<'_>,
    connection: &Connection,
    intake: &mut Intake,
    asked: Asked<'_>,
    at: i64,
) -> Result<Option<Page>, StepError> {
    let mut taker = Taker {
        seen: &mut walk.seen,
        intake,
        only: Some(at),
        unusable: std::collections::HashSet::default(),
        is_new: false,
    };
    match page(connection, asked, at, Some(&mut taker)).await {
        Ok(page) => Ok(Some(page)),
        Err(
            StepError::Refused(_)
            | StepError::Closed(_)
            | StepError::Silent(_)
            | StepError::Protocol(_),
        ) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The kinds and authors of the events that were seen in a second.
struct Parts {
    kinds: BTreeSet<u16>,
    authors: Vec<String>,
    begun: Instant,
}

impl Parts {
    fn of(page: &Page, at: i64) -> Self {
        let events: Vec<&Seen> = page.events.iter().filter(|e| e.created_at == at).collect();
        let authors: BTreeSet<[u8; 32]> = events.iter().map(|event| event.pubkey).collect();
        Self {
            kinds: events.iter().map(|event| event.kind).collect(),
            authors: authors.iter().map(hex::encode).collect(),
            begun: Instant::now(),
        }
    }

    /// Requests the events whose ids begin with each prefix. Returns whether the answers prove
    /// that the second is complete: each is smaller than a cut page, and together they hold every
    /// event that is known.
    async fn by_prefix(
        &self,
        walk: &mut Walk<'_>,
        connection: &Connection,
        intake: &mut Intake,
        at: i64,
        cut: usize,
    ) -> Result<bool, StepError> {
        if !walk.asked.filter.ids.is_empty() || connection.refusals().has(Refused::Prefixes) {
            return Ok(false);
        }
        let (mut left, mut requests) = (digits(""), 0);
        while let Some(prefix) = left.pop() {
            requests += 1;
            let found = page_of(walk, connection, intake, (None, Some(&prefix)), at).await;
            if matches!(found, Ok(None)) || is_refusal(connection, &found) {
                connection.refusals().add(Refused::Prefixes, connection.was_ended());
            }
            let found = match found? {
                Some(found) if requests <= MOST_PARTS && self.begun.elapsed() < WITHIN => found,
                _ => return Ok(false),
            };
            let shown: BTreeSet<_> = found.claims().map(|(id, _)| id).collect();
            let mut known = walk.seen.iter().filter(|(_, time)| **time == at);
            let is_whole =
                known.all(|(id, _)| !id.to_string().starts_with(&prefix) || shown.contains(id));
            let (size, is_cut) = (found.size(), found.size() >= cut);
            match (is_cut, is_whole) {
                (true, _) if size > 0 && prefix.len() < DIGITS => left.extend(digits(&prefix)),
                (false, true) => {}
                (_, true) => return Ok(false),
                (_, false) => {
                    connection.refusals().add(Refused::Prefixes, false);
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Requests the events of each kind, and of each author if a kind is cut too.
    async fn by_kind_and_author(
        &self,
        walk: &mut Walk<'_>,
        connection: &Connection,
        intake: &mut Intake,
        at: i64,
        cut: usize,
    ) -> Result<(), StepError> {
        let all = || walk.asked.filter.clone();
        let kinds = self.kinds.iter().map(|kind| Filter { kinds: [*kind].into(), ..all() });
        let authors = self.authors.chunks(AUTHORS);
        let authors =
            authors.map(|some| Filter { authors: some.iter().cloned().collect(), ..all() });
        let filters: Vec<Filter> = kinds.chain(authors).take(MOST_PARTS).collect();
        let mut is_cut = false;
        for (number, filter) in filters.iter().enumerate() {
            if (number == self.kinds.len() && !is_cut) || self.begun.elapsed() > WITHIN {
                break;
            }
            let found = page_of(walk, connection, intake, (Some(filter), None), at).await?;
            is_cut |= found.is_some_and(|found| found.size() >= cut);
        }
        Ok(())
    }
}

fn digits(prefix: &str) -> Vec<String> {
    "0123456789abcdef".chars().map(|digit| format!("{prefix}{digit}")).collect()
}

/// Requests the events of a second that match a narrower filter, or whose ids begin with a prefix.
async fn page_of(
    walk: &mut Walk<'_>,
    connection: &Connection,
    intake: &mut Intake,
    (filter, prefix): (Option<&Filter>, Option<&str>),
    at: i64,
) -> Result<Option<Page>, StepError> {
    let Asked { limit, most, silence, .. } = walk.asked;
    let asked = Asked {
        filter: filter.unwrap_or(walk.asked.filter),
        prefix,
        lane: None,
        since: at,
        silence: SILENCE.min(silence),
        limit: most.max(limit),
        ..walk.asked
    };
    part(walk, connection, intake, asked, at).await
}
