//! What is being fetched: a batch of missing items, a part of a verification, or a poll.

use std::{sync::Arc, time::Duration};

use tender_jobs::{
    grasp::{
        batch::{self, Again, Batch, Fetched},
        coverage,
        family::{Family, Purpose},
        followed,
    },
    mirror::filter::Filter,
    queue::Settled,
};

use uuid::Uuid;

use super::{
    Session,
    history::{self, Account, Request},
};
use crate::mirror::error::StepError;

/// The longest wait for the next message of a subscription.
pub(super) const SILENCE: Duration = Duration::from_secs(30);

/// Items of one family, and the filters by which they are fetched.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) purpose: Purpose,
    pub(super) family: Family,
    pub(super) items: Vec<String>,
    pub(super) filters: Vec<Filter>,
    /// Unix seconds; 0 for the whole history.
    pub(super) since: i64,
    /// The row of a batch of missing items. Other tasks get theirs when they begin.
    pub(super) batch: Option<Batch>,
    /// How often the task has failed in this session.
    pub(super) failures: u32,
    /// The closed subscription for which the task fetches what it may have missed.
    pub(super) repairs: Option<Uuid>,
}

/// A task that has ended.
pub(super) struct Done {
    pub(super) task: Task,
    pub(super) fetched: Fetched,
    pub(super) result: Result<(), StepError>,
    /// For how many seconds the relay gets no further request, if it limits our rate.
    pub(super) pause: Option<i64>,
}

/// Runs a task to its end, and stores the end.
pub(super) async fn run(session: Arc<Session>, task: Task) -> Done {
    let mut account = Account::default();
    let (result, pause) = match try_run(&session, &task, &mut account).await {
        Ok(ended) => ended,
        Err(error) => (Err(error), None),
    };
    Done { task, fetched: account.fetched, result, pause }
}

/// How a task ended, and the pause that the relay asked for.
type Ended = (Result<(), StepError>, Option<i64>);

/// Fails only if the end could not be stored.
async fn try_run(
    session: &Session,
    task: &Task,
    account: &mut Account,
) -> Result<Ended, StepError> {
    let db = &session.context.db;
    let batch = if let Some(batch) = &task.batch {
        batch.clone()
    } else {
        let items = task.items.clone();
        let opened = batch::open(db, session.lease, task.family, task.purpose, items).await?;
        opened.ok_or(StepError::LeaseLost)?
    };
    match fetch(session, task, account).await {
        Ok(()) => {
            let (family, items, gaps) = (task.family, &task.items, &account.gaps);
            if task.since == 0 {
                coverage::note_gaps(db, session.lease, family, items, gaps).await?;
            } else {
                coverage::add_gaps(db, session.lease, family, items, gaps).await?;
            }
            let confirmed = batch::confirm(db, &batch, account.fetched).await?;
            Ok((if_held(confirmed), None))
        }
        Err(StepError::LeaseLost) => Err(StepError::LeaseLost),
        Err(error) => fail(session, &batch, error, account.fetched).await,
    }
}

fn if_held(settled: Settled<()>) -> Result<(), StepError> {
    match settled {
        Settled::Written(()) => Ok(()),
        Settled::LeaseLost => Err(StepError::LeaseLost),
    }
}

async fn fetch(session: &Session, task: &Task, account: &mut Account) -> Result<(), StepError> {
    for filter in &task.filters {
        let purpose = task.purpose;
        let compares = matches!(purpose, Purpose::Fresh | Purpose::Daily);
        let request = Request { filter, since: task.since, purpose, compares };
        history::fetch(session, &request, account).await?;
        if purpose == Purpose::Reconnect {
            history::verify(session, filter, account).await?;
        }
    }
    Ok(())
}

/// Makes the items of the batch missing. Nothing is stored if the session is ending: its end does that.
async fn fail(
    session: &Session,
    batch: &Batch,
    error: StepError,
    fetched: Fetched,
) -> Result<Ended, StepError> {
    if session.ending.is_cancelled() {
        return Ok((Err(StepError::Stopping), None));
    }
    let db = &session.context.db;
    let (mut again, mut pause) = (Again::Later, None);
    if session.connection.lost().is_some() {
        again = Again::Reconnected;
    } else if let StepError::RateLimited(reason) = &error {
        let Settled::Written(seconds) = followed::limit(db, session.lease, reason).await? else {
            return Err(StepError::LeaseLost);
        };
        (again, pause) = (Again::In(seconds), Some(seconds));
    }
    let reason = error.to_string();
    tracing::debug!(url = session.upstream.url, reason, "a batch failed; its items are missing");
    if_held(batch::fail(db, batch, &reason, again, fetched).await?)?;
    Ok((Err(error), pause))
}
