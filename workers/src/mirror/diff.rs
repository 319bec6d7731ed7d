//! Dry runs: compares our store with an upstream by negentropy and changes neither.

use std::sync::Arc;

use tender_jobs::{
    mirror::{
        event::{self, EventId, Set},
        upstream::{self, Upstream, settings::Settings},
    },
    queue,
};
use tokio::sync::mpsc;

use super::{
    backfill::{SHORTEST, request},
    connection::Connection,
    connections::Connections,
    error::StepError,
    fetch::{self, Wanted},
    negentropy::{self, Compared, NegError, Window},
    proof::{self, Edges, Proof, Revealed},
};

/// The most events whose times are requested to prove a comparison.
const MOST_FETCHED: usize = 5000;

/// The difference between our store and an upstream.
#[derive(Debug, Default)]
pub struct Diff {
    /// Events that we store or know and the upstream lacks, by id.
    pub have: Vec<EventId>,
    /// Events that the upstream has and we lack, by id.
    pub need: Vec<EventId>,
    /// The number of our events in the comparison.
    pub ours: usize,
    /// Windows of the comparison, in Unix seconds, of which the upstream did not show its whole set.
    /// Events may be missing there on either side.
    pub unproven: Vec<(i64, i64)>,
}

/// Compares the window `[since, until]`, in Unix seconds, and returns the difference. A window of
/// which the upstream shows only a part is halved, down to a minute.
///
/// # Errors
/// See [`NegError`]. [`NegError::TooBig`] is also returned if we store more than a million events
/// of the window; a shorter window then succeeds.
pub async fn diff(
    db: &sqlx::PgPool,
    connections: &Connections,
    upstream: &Upstream,
    settings: &Settings,
    (since, until): (i64, i64),
) -> Result<Diff, NegError> {
    let connection = connections.get(upstream).await?;
    let compared = Comparison { db, connection: &connection, upstream, settings };
    let (mut diff, mut left) = (Diff::default(), vec![(since, until)]);
    while let Some((since, until)) = left.pop() {
        let (part, is_proven) = compared.part((since, until)).await?;
        if !is_proven && until - since > SHORTEST {
            let middle = since + (until - since) / 2;
            left.extend([(since, middle), (middle + 1, until)]);
            continue;
        }
        diff.ours += part.ours;
        diff.have.extend(part.have);
        diff.need.extend(part.need);
        diff.unproven.extend((!is_proven).then_some((since, until)));
    }
    connection.close("closed by us: the comparison is done");
    diff.have.sort_unstable();
    diff.need.sort_unstable();
    Ok(diff)
}

/// What every part of a comparison shares.
struct Comparison<'a> {
    db: &'a sqlx::PgPool,
    connection: &'a Connection,
    upstream: &'a Upstream,
    settings: &'a Settings,
}

impl Comparison<'_> {
    /// Compares a window. Returns whether the upstream has shown its whole set.
    async fn part(&self, (since, until): (i64, i64)) -> Result<(Diff, bool), NegError> {
        let Self { db, connection, upstream, settings } = *self;
        let filter = settings.download_filter();
        let set = event::set(db, upstream.id, &filter, settings.limits(), since, until).await;
        let Set::Items(items) = set.map_err(StepError::from)? else {
            return Err(NegError::TooBig(None));
        };
        let items = Arc::new(items);
        let learned = upstream::learned(db, upstream.id).await.map_err(StepError::from)?;
        let now = queue::now(db).await.map_err(StepError::from)?.timestamp();
        let (frame_size, first_answer) =
            (settings.negentropy_frame_size, settings.negentropy_timeout());
        let silence = negentropy::SILENCE;
        let window = Window { filter: &filter, since, until, frame_size, first_answer, silence };
        let (sender, receiver) = mpsc::channel(1000);
        let compared = negentropy::compare(connection, &window, items.clone(), sender);
        let (compared, ()) = tokio::join!(compared, drain(receiver));
        let compared = compared?;
        let fetched = self.edges(&compared).await?;
        let asked = request(upstream, settings, &learned, &filter, (since, Some(until)), now);
        let revealed = Revealed { items: &items, compared: &compared, fetched };
        let proof = proof::prove(connection, asked, until, &revealed).await?;
        let is_proven = proof == Proof::Whole && compared.need.len() <= MOST_FETCHED;
        let (have, need) =
            (compared.have.into_iter().collect(), compared.need.into_iter().collect());
        Ok((Diff { have, need, ours: items.len(), unproven: Vec::new() }, is_proven))
    }

    /// Requests the events that we lack, and returns the edges of their times.
    async fn edges(&self, compared: &Compared) -> Result<Edges, NegError> {
        let size = usize::try_from(self.settings.batch_size).unwrap_or(usize::MAX);
        let ids: Vec<EventId> = compared.need.iter().copied().take(MOST_FETCHED).collect();
        let filter = self.settings.download_filter();
        let wanted = Wanted { filter: &filter, limits: self.settings.limits() };
        let mut edges = Edges::default();
        for ids in ids.chunks(size) {
            edges.extend(fetch::times(self.connection, ids, wanted).await?);
        }
        Ok(edges)
    }
}

async fn drain(mut ids: mpsc::Receiver<EventId>) {
    while ids.recv().await.is_some() {}
}
