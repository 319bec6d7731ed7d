//! Dry runs: compares our store with an upstream by negentropy and changes neither.

use tender_jobs::mirror::{
    event::{self, EventId, Set},
    upstream::{Upstream, settings::Settings},
};
use tokio::sync::mpsc;

use super::{
    connections::Connections,
    error::StepError,
    negentropy::{self, NegError, Window},
};

/// The difference between our store and an upstream.
#[derive(Debug, Default)]
pub struct Diff {
    /// Events that we store or know and the upstream lacks, by id.
    pub have: Vec<EventId>,
    /// Events that the upstream has and we lack, by id.
    pub need: Vec<EventId>,
    /// The number of our events in the comparison.
    pub ours: usize,
}

/// Compares the window `[since, until]`, in Unix seconds, and returns the difference.
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
    let filter = settings.download_filter();
    let limits = settings.limits();
    let set = event::set(db, upstream.id, &filter, limits, since, until).await;
    let set = set.map_err(StepError::from)?;
    let Set::Items(items) = set else { return Err(NegError::TooBig(None)) };
    let ours = items.len();
    let connection = connections.get(upstream).await?;
    let (frame_size, first_answer) =
        (settings.negentropy_frame_size, settings.negentropy_timeout());
    let window = Window { filter: &filter, since, until, frame_size, first_answer };
    let (sender, mut receiver) = mpsc::channel(1000);
    let collected = async {
        let mut need = Vec::new();
        while let Some(id) = receiver.recv().await {
            need.push(id);
        }
        need
    };
    let compared = negentropy::compare(&connection, &window, items, sender);
    let (compared, need) = tokio::join!(compared, collected);
    connection.close("closed by us: the comparison is done");
    let mut diff = Diff { have: compared?.have.into_iter().collect(), need, ours };
    diff.have.sort_unstable();
    diff.need.sort_unstable();
    Ok(diff)
}
