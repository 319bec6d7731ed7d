//! The proof that a reconciliation compared the whole set of the upstream. Some relays answer
//! NEG-OPEN from a query that is cut, without a sign. So the lane requests the events at both ends
//! of what was revealed: an event that the reconciliation did not reveal shows that the set was cut.

use std::collections::HashSet;

use tender_jobs::mirror::event::{EventId, Item};

use super::{
    connection::Connection,
    error::StepError,
    negentropy::Compared,
    page::{Asked, Page, page},
};

/// The events of a probe beyond those that are known to be there.
const MARGIN: usize = 10;
/// An event that is younger than this, in seconds, may have been published after the reconciliation.
const YOUNG: i64 = 60;
/// A page may lack a part of a second that holds this many events or more.
const DENSE: usize = 50;

/// The oldest and the newest of some events, each with the number of events in its second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Edges {
    oldest: Option<(i64, usize)>,
    newest: Option<(i64, usize)>,
}

impl Extend<i64> for Edges {
    fn extend<T: IntoIterator<Item = i64>>(&mut self, times: T) {
        for at in times {
            self.oldest = Some(edge(self.oldest, at, |at, edge| at < edge));
            self.newest = Some(edge(self.newest, at, |at, edge| at > edge));
        }
    }
}

fn edge(
    edge: Option<(i64, usize)>,
    at: i64,
    is_further: impl Fn(i64, i64) -> bool,
) -> (i64, usize) {
    match edge {
        Some((edge, count)) if edge == at => (edge, count + 1),
        Some((edge, count)) if !is_further(at, edge) => (edge, count),
        _ => (at, 1),
    }
}

/// What the probes have shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The reconciliation compared the whole set.
    Whole,
    /// The set was cut at its old end: it is whole from this second on, but not in it.
    CutBelow(i64),
    /// The upstream did not answer for the whole oldest second: the set is proven from the next one
    /// on.
    UnclearBelow(i64),
    /// The set was cut elsewhere, or that is unclear.
    Cut,
}

/// The events that a reconciliation revealed to be at the upstream.
pub(crate) struct Revealed<'a> {
    /// Our events of the window.
    pub(crate) items: &'a [Item],
    pub(crate) compared: &'a Compared,
    /// The edges of the events that were fetched.
    pub(crate) fetched: Edges,
}

impl Revealed<'_> {
    /// The number of events.
    pub(crate) fn count(&self) -> usize {
        Self::count_of(self.items, self.compared)
    }

    /// The number of events that a reconciliation of `items` revealed.
    pub(crate) fn count_of(items: &[Item], compared: &Compared) -> usize {
        (items.len() + compared.need.len()).saturating_sub(compared.have.len())
    }

    fn edges(&self) -> Edges {
        let there = self.items.iter().filter(|(_, id)| !self.compared.have.contains(id));
        let mut edges = self.fetched;
        edges.extend(there.map(|(at, _)| i64::try_from(*at).unwrap_or(i64::MAX)));
        edges
    }

    /// Returns whether a page shows an event that was not revealed and that was created before
    /// `before`.
    fn lacks_one_of(&self, page: &Page, before: i64) -> bool {
        let mut shown: HashSet<EventId> =
            page.claims().filter(|(_, at)| *at < before).map(|(id, _)| id).collect();
        shown.retain(|id| !self.compared.need.contains(id));
        if shown.is_empty() {
            return false;
        }
        for (_, id) in self.items.iter().filter(|(_, id)| !self.compared.have.contains(id)) {
            shown.remove(id);
        }
        !shown.is_empty()
    }
}

/// Probes both ends of what was revealed, at the same time. The clock of `asked` is from before the
/// reconciliation.
pub(crate) async fn prove(
    connection: &Connection,
    asked: Asked<'_>,
    until: i64,
    revealed: &Revealed<'_>,
) -> Result<Proof, StepError> {
    let before = asked.now - YOUNG;
    let Edges { oldest, newest } = revealed.edges();
    let probe = |until: i64, count: usize| {
        let limit = u64::try_from(count + MARGIN).unwrap_or(u64::MAX).min(asked.most);
        page(connection, Asked { limit, ..asked }, until, None)
    };
    let (Some((oldest, at_oldest)), Some((_, at_newest))) = (oldest, newest) else {
        let any = probe(until, 0).await?;
        return Ok(if revealed.lacks_one_of(&any, before) { Proof::Cut } else { Proof::Whole });
    };
    let (below, above) = tokio::try_join!(probe(oldest, at_oldest), probe(until, at_newest))?;
    let is_unclear =
        |page: &Page, count: usize| count >= DENSE && (page.size() < count || page.beyond > 0);
    Ok(if revealed.lacks_one_of(&above, before) || is_unclear(&above, at_newest) {
        Proof::Cut
    } else if revealed.lacks_one_of(&below, before) {
        Proof::CutBelow(oldest)
    } else if is_unclear(&below, at_oldest) {
        Proof::UnclearBelow(oldest)
    } else {
        Proof::Whole
    })
}
