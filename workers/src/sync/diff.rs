//! A dry run: what either side lacks, by negentropy, without a change on any side.

use tender_jobs::{
    event::{self, EventId, Set},
    upstream::{Upstream, settings::Settings},
};
use tokio::sync::mpsc;

use super::{
    connections::Connections,
    error::StepError,
    negentropy::{self, NegError, Window},
};

/// What either side lacks.
#[derive(Debug, Default)]
pub struct Diff {
    /// Here, or known, and not on the relay.
    pub have: Vec<EventId>,
    /// On the relay and not here.
    pub need: Vec<EventId>,
    /// Events compared, of ours.
    pub ours: usize,
}

/// Compares `[since, until]`, in Unix seconds.
///
/// # Errors
/// [`NegError`]: also where the window holds more than a million events; ask for a shorter one.
pub async fn diff(
    db: &sqlx::PgPool,
    connections: &Connections,
    upstream: &Upstream,
    settings: &Settings,
    (since, until): (i64, i64),
) -> Result<Diff, NegError> {
    let filter = settings.download_filter();
    let set = event::set(db, upstream.id, &filter, since, until).await.map_err(StepError::from)?;
    let Set::Items(items) = set else { return Err(NegError::TooBig(None)) };
    let ours = items.len();
    let connection = connections.get(upstream).await?;
    let frame_size = settings.negentropy_frame_size;
    let window = Window { filter: &filter, since, until, frame_size };
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
    connection.close().await;
    let mut diff = Diff { have: compared?.have.into_iter().collect(), need, ours };
    diff.have.sort_unstable();
    diff.need.sort_unstable();
    Ok(diff)
}
