//! Batches: attempts that claim or settle at the same time share one statement and one commit. A
//! batch does not wait to fill. Items that arrive while a statement runs form the next batch.

use std::{future::Future, sync::Arc};

use sqlx::PgPool;
use tender_jobs::{
    database::{self, Path, answered},
    provision::{self, Claim, ClaimRequest, Completed, Completion, instance::Instances},
};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::runtime::{Listen, failpoint, outcome::catch_panic};

/// Concurrent claims. Each locks the rows of the instances, so that a second one would wait for the first, and both
/// would be small.
const CLAIMING: usize = 1;
/// Concurrent settlements. A second one made both smaller, and cost more than the wait for a commit.
const SETTLING: usize = 1;
/// The maximum number of items in one statement.
const LARGEST: usize = 64;

/// A batch failed. All items of the batch share the error.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum BatchError {
    #[error(transparent)]
    Database(Arc<sqlx::Error>),
    #[error("the process is stopping")]
    Stopping,
}

impl From<sqlx::Error> for BatchError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

type Asked<Item, Answer> = (Item, oneshot::Sender<Result<Answer, BatchError>>);

/// Collects single items into batches.
#[derive(Debug)]
pub(super) struct Batcher<Item, Answer> {
    sender: mpsc::Sender<Asked<Item, Answer>>,
}

impl<Item: Clone + Send + 'static, Answer: Send + 'static> Batcher<Item, Answer> {
    /// Starts the tasks that run the batches, `at_once` of them, as `runners`. `run` returns one answer per item, in the
    /// order of the items.
    fn start<Run, Running>(runners: &mut JoinSet<()>, at_once: usize, run: Run) -> Self
    where
        Run: Fn(Vec<Item>) -> Running + Clone + Send + Sync + 'static,
        Running: Future<Output = Result<Vec<Answer>, sqlx::Error>> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(LARGEST);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..at_once {
            let run = run.clone();
            runners.spawn(serve(receiver.clone(), move |items| caught(run(items))));
        }
        Self { sender }
    }

    /// Adds an item to the next batch and returns its answer.
    pub(super) async fn ask(&self, item: Item) -> Result<Answer, BatchError> {
        let (answer, answered) = oneshot::channel();
        self.sender.send((item, answer)).await.map_err(|_| BatchError::Stopping)?;
        answered.await.map_err(|_| BatchError::Stopping)?
    }
}

/// Runs batches until every sender is dropped.
async fn serve<Item, Answer, Run, Running>(
    receiver: Arc<Mutex<mpsc::Receiver<Asked<Item, Answer>>>>,
    run: Run,
) where
    Item: Clone,
    Run: Fn(Vec<Item>) -> Running,
    Running: Future<Output = Result<Vec<Answer>, sqlx::Error>>,
{
    loop {
        let asked = next(&mut *receiver.lock().await).await;
        if asked.is_empty() {
            return;
        }
        failpoint!("part-batches");
        let items: Vec<Item> = asked.iter().map(|(item, _)| item.clone()).collect();
        match run(items).await {
            Ok(answers) => {
                for ((_, answer), value) in asked.into_iter().zip(answers) {
                    let _gone_already = answer.send(Ok(value));
                }
            }
            // PostgreSQL refused the statement, or a row cannot be read; one bad row must not fail the
            // others.
            Err(sqlx::Error::Database(_) | sqlx::Error::Decode(_)) if asked.len() > 1 => {
                one_by_one(asked, &run).await;
            }
            Err(error) => {
                let error = Arc::new(error);
                for (_, answer) in asked {
                    let _gone_already = answer.send(Err(BatchError::Database(error.clone())));
                }
            }
        }
    }
}

/// Waits for the next batch; it is empty if every sender is dropped. Attempts that are ready to ask do so first: a
/// statement for several costs little more than a statement for one.
async fn next<T>(receiver: &mut mpsc::Receiver<T>) -> Vec<T> {
    let mut asked = Vec::with_capacity(LARGEST);
    receiver.recv_many(&mut asked, LARGEST).await;
    tokio::task::yield_now().await;
    while asked.len() < LARGEST
        && let Ok(more) = receiver.try_recv()
    {
        asked.push(more);
    }
    asked
}

/// Turns a panic into an error: a row may hold an instant that our types cannot.
async fn caught<T>(
    running: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let unreadable =
        |panic: String| sqlx::Error::Decode(format!("a row is unreadable: {panic}").into());
    catch_panic(running).await.unwrap_or_else(|panic| Err(unreadable(panic)))
}

async fn one_by_one<Item, Answer, Run, Running>(asked: Vec<Asked<Item, Answer>>, run: &Run)
where
    Run: Fn(Vec<Item>) -> Running,
    Running: Future<Output = Result<Vec<Answer>, sqlx::Error>>,
{
    for (item, answer) in asked {
        let result = run(vec![item]).await;
        let value = result
            .map_err(BatchError::from)
            .and_then(|mut answers| answers.pop().ok_or(BatchError::Stopping));
        let _gone_already = answer.send(value);
    }
}

/// The batches that the attempts of a process share.
#[derive(Debug)]
pub(super) struct Batches {
    pub(super) claims: Batcher<ClaimRequest, Claim>,
    pub(super) completions: Batcher<Completion, Completed>,
    runners: Mutex<JoinSet<()>>,
}

impl Batches {
    /// Must be called within a Tokio runtime, because the batches run as tasks.
    pub(super) fn start(db: &PgPool, instances: Arc<Instances>, listen: &Listen) -> Self {
        let db = connections(db, listen);
        let (claims, completions, for_claims) = (db.clone(), db, instances.clone());
        let mut runners = JoinSet::new();
        Self {
            claims: Batcher::start(&mut runners, CLAIMING, move |requests: Vec<ClaimRequest>| {
                let (db, instances) = (claims.clone(), for_claims.clone());
                async move { answered(&db, provision::claim(&db, &requests, &instances)).await }
            }),
            completions: Batcher::start(&mut runners, SETTLING, move |items: Vec<Completion>| {
                let (db, instances) = (completions.clone(), instances.clone());
                async move { answered(&db, provision::complete(&db, &items, &instances)).await }
            }),
            runners: Mutex::new(runners),
        }
    }
}

/// Returns when `shutdown` is cancelled, and sooner if a task that runs batches has ended: attempts would
/// then wait for batches that nothing runs.
pub(super) async fn watch(batches: Arc<Batches>, shutdown: CancellationToken) {
    let mut runners = batches.runners.lock().await;
    if let Some(Some(Err(error))) = shutdown.run_until_cancelled(runners.join_next()).await
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

/// A separate pool for the batches, with plans of their own.
///
/// Behind a pooler the settings are not made, because they would leak into the sessions of other clients.
fn connections(db: &PgPool, listen: &Listen) -> PgPool {
    let path = if matches!(listen, Listen::Pool) { Path::Direct } else { Path::Pooled };
    let options = db.connect_options();
    database::pool(&options, path, provision::PLANS)
        .max_connections(u32::try_from(CLAIMING + SETTLING).unwrap_or(u32::MAX))
        .connect_lazy_with((*options).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_gets_its_own_answer() {
        let mut runners = JoinSet::new();
        let batcher = Arc::new(Batcher::start(&mut runners, 2, |items: Vec<u32>| async move {
            Ok(items.into_iter().map(|item| item * 2).collect())
        }));
        let asked = (0..500).map(|item| {
            let batcher = batcher.clone();
            tokio::spawn(async move { (item, batcher.ask(item).await.expect("an answer")) })
        });
        for asked in asked.collect::<Vec<_>>() {
            let (item, answer) = asked.await.expect("no panic");
            assert_eq!(answer, item * 2);
        }
    }

    #[tokio::test]
    async fn an_error_reaches_everybody_in_the_batch() {
        let mut runners = JoinSet::new();
        let batcher = Batcher::start(&mut runners, 2, |_: Vec<u32>| async {
            Err::<Vec<u32>, _>(sqlx::Error::PoolTimedOut)
        });
        assert!(matches!(batcher.ask(1).await, Err(BatchError::Database(_))));
    }
}
