//! What is being fetched: a batch of missing items, a part of a verification, or a poll.

use std::{sync::Arc, time::Duration};

use tender_jobs::{
    grasp::{
        batch::{self, Again, Batch, Fetched},
        coverage::{self, Walked},
        family::{Family, Purpose},
        followed,
    },
    mirror::filter::Filter,
    queue::{self, Settled},
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
    /// What earlier fetches of each filter have proven; empty if there were none.
    pub(super) walked: Vec<Option<Walked>>,
    /// Whether the relay is known to refuse the items: one more refusal says nothing about other items.
    pub(super) is_refused: bool,
}

/// A task that has ended.
pub(super) struct Done {
    pub(super) task: Task,
    pub(super) fetched: Fetched,
    pub(super) result: Result<(), StepError>,
    /// For how many seconds the relay gets no further request, if it limits our rate.
    pub(super) pause: Option<i64>,
    /// Whether the task took too long, and has proven more of the history than before.
    pub(super) is_further: bool,
}

/// Whether the relay itself refused a request.
pub(super) fn is_refusal(error: &StepError) -> bool {
    use StepError::{Auth, Closed, Connection, Refused};
    matches!(error, Auth(_) | Refused(_) | Closed(_) | Connection(_))
}

/// Returns what earlier fetches of filters of missing items have proven.
pub(super) async fn walked(
    session: &Session,
    family: Family,
    filters: &[Filter],
) -> Result<Vec<Option<Walked>>, sqlx::Error> {
    let (db, relay, mut all) = (&session.context.db, session.lease.relay, Vec::new());
    for filter in filters {
        all.push(coverage::walked(db, relay, family, filter).await?);
    }
    Ok(all)
}

/// Runs a task to its end, and stores the end.
pub(super) async fn run(session: Arc<Session>, mut task: Task) -> Done {
    let mut account = Account::default();
    let (result, pause) = match try_run(&session, &mut task, &mut account).await {
        Ok(ended) => ended,
        Err(error) => (Err(error), None),
    };
    let is_further = account.is_over && account.walked.is_some();
    Done { task, fetched: account.fetched, result, pause, is_further }
}

/// How a task ended, and the pause that the relay asked for.
type Ended = (Result<(), StepError>, Option<i64>);

/// Fails only if the end could not be stored.
async fn try_run(
    session: &Session,
    task: &mut Task,
    account: &mut Account,
) -> Result<Ended, StepError> {
    let begun = task.walked.iter().flatten().map(|walked| walked.at).min();
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
                coverage::note_gaps(db, session.lease, family, items, gaps, begun).await?;
            } else {
                coverage::add_gaps(db, session.lease, family, items, gaps).await?;
            }
            let confirmed = batch::confirm(db, &batch, account.fetched).await?;
            Ok((if_held(confirmed), None))
        }
        Err(StepError::LeaseLost) => Err(StepError::LeaseLost),
        Err(error) => {
            keep(session, task, &batch, account).await?;
            fail(session, &batch, error, account).await
        }
    }
}

fn if_held(settled: Settled<()>) -> Result<(), StepError> {
    match settled {
        Settled::Written(()) => Ok(()),
        Settled::LeaseLost => Err(StepError::LeaseLost),
    }
}

async fn fetch(session: &Session, task: &mut Task, account: &mut Account) -> Result<(), StepError> {
    task.walked.resize(task.filters.len(), None);
    for (filter, walked) in task.filters.iter().zip(&mut task.walked) {
        let purpose = task.purpose;
        let compares = matches!(purpose, Purpose::Fresh | Purpose::Daily);
        let at = queue::now(&session.context.db).await?.timestamp();
        let request = Request { filter, since: task.since, purpose, compares, walked: *walked };
        if let Err(error) = history::fetch(session, &request, account).await {
            *walked = account.walked.or(*walked);
            return Err(error);
        }
        // Of use only if a later filter takes too long.
        *walked = Some(Walked { at: walked.map_or(at, |walked| walked.at), until: 0 });
        if purpose == Purpose::Reconnect {
            history::verify(session, filter, account).await?;
        }
    }
    Ok(())
}

/// Keeps what a task that took too long has proven. A verification keeps it in memory.
async fn keep(
    session: &Session,
    task: &mut Task,
    batch: &Batch,
    account: &Account,
) -> Result<(), sqlx::Error> {
    if !account.is_over {
        task.walked.clear();
        return Ok(());
    }
    let (db, lease, family) = (&session.context.db, session.lease, task.family);
    coverage::add_gaps(db, lease, family, &task.items, &account.gaps).await?;
    if task.purpose == Purpose::Missing {
        for (filter, walked) in task.filters.iter().zip(&task.walked) {
            if let Some(walked) = walked {
                coverage::note_walked(db, batch, filter, *walked).await?;
            }
        }
    }
    Ok(())
}

/// Makes the items of the batch missing. Nothing is stored if the session is ending: its end does that.
async fn fail(
    session: &Session,
    batch: &Batch,
    error: StepError,
    account: &Account,
) -> Result<Ended, StepError> {
    if session.ending.is_cancelled() {
        return Ok((Err(StepError::Stopping), None));
    }
    let db = &session.context.db;
    let (mut again, mut pause) = (Again::Later, None);
    if account.is_over && account.walked.is_some() {
        again = Again::Further;
    } else if is_refusal(&error) {
        again = Again::Refused;
    }
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
    if_held(batch::fail(db, batch, &reason, again, account.fetched).await?)?;
    Ok((Err(error), pause))
}
