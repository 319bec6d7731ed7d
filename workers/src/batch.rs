//! Batches: attempts that claim or settle at the same time share one statement and one commit.
//! Nothing waits for a batch to fill: whoever comes while a statement runs goes with the next one.

use std::{future::Future, sync::Arc, time::Duration};

use sqlx::{Executor, PgPool, postgres::PgPoolOptions};
use tender_jobs::queue::{self, Claim, ClaimRequest, Completed, Completion, instance::Instances};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::{Listen, sync_relay::LEASE};

/// Statements at the same time; the second keeps PostgreSQL busy while the first commits.
const RUNNERS: usize = 2;
/// The most that goes into one statement.
const LARGEST: usize = 64;

/// Why a batch was not done; shared by all that were in it.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum BatchError {
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

/// Hands single items to a function of many.
#[derive(Debug)]
pub(crate) struct Batcher<Item, Answer> {
    sender: mpsc::Sender<Asked<Item, Answer>>,
}

impl<Item: Clone + Send + 'static, Answer: Send + 'static> Batcher<Item, Answer> {
    /// `run` answers for each of its items, in their order.
    fn start<Run, Running>(run: Run) -> Self
    where
        Run: Fn(Vec<Item>) -> Running + Clone + Send + Sync + 'static,
        Running: Future<Output = Result<Vec<Answer>, sqlx::Error>> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(LARGEST);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..RUNNERS {
            tokio::spawn(serve(receiver.clone(), run.clone()));
        }
        Self { sender }
    }

    pub(crate) async fn ask(&self, item: Item) -> Result<Answer, BatchError> {
        let (answer, answered) = oneshot::channel();
        self.sender.send((item, answer)).await.map_err(|_| BatchError::Stopping)?;
        answered.await.map_err(|_| BatchError::Stopping)?
    }
}

/// Runs batches until nobody can ask any more.
async fn serve<Item, Answer, Run, Running>(
    receiver: Arc<Mutex<mpsc::Receiver<Asked<Item, Answer>>>>,
    run: Run,
) where
    Item: Clone,
    Run: Fn(Vec<Item>) -> Running,
    Running: Future<Output = Result<Vec<Answer>, sqlx::Error>>,
{
    loop {
        let mut asked = Vec::with_capacity(LARGEST);
        if receiver.lock().await.recv_many(&mut asked, LARGEST).await == 0 {
            return;
        }
        let items: Vec<Item> = asked.iter().map(|(item, _)| item.clone()).collect();
        match run(items).await {
            Ok(answers) => {
                for ((_, answer), value) in asked.into_iter().zip(answers) {
                    let _gone_already = answer.send(Ok(value));
                }
            }
            // The statement was refused: one bad row must not take the others with it.
            Err(sqlx::Error::Database(_)) if asked.len() > 1 => one_by_one(asked, &run).await,
            Err(error) => {
                let error = Arc::new(error);
                for (_, answer) in asked {
                    let _gone_already = answer.send(Err(BatchError::Database(error.clone())));
                }
            }
        }
    }
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

/// What a process's attempts share.
#[derive(Debug)]
pub(crate) struct Batches {
    pub(crate) claims: Batcher<ClaimRequest, Claim>,
    pub(crate) completions: Batcher<Completion, Completed>,
}

impl Batches {
    /// Must be called within a runtime.
    pub(crate) fn start(db: &PgPool, instances: Arc<Instances>, listen: &Listen) -> Self {
        let db = connections(db, listen);
        let (claims, completions) = (db.clone(), db);
        Self {
            claims: Batcher::start(move |requests: Vec<ClaimRequest>| {
                let (db, instances) = (claims.clone(), instances.clone());
                async move { queue::claim(&db, &requests, LEASE, &instances).await }
            }),
            completions: Batcher::start(move |items: Vec<Completion>| {
                let db = completions.clone();
                async move { queue::complete(&db, &items).await }
            }),
        }
    }
}

/// Connections of the batches' own, whose statements are planned once: PostgreSQL would plan them
/// anew each time for the sake of their arrays' lengths, at a fifth of a sync's cost.
///
/// Behind a pooler a connection's settings would be somebody else's a moment later: none are made.
fn connections(db: &PgPool, listen: &Listen) -> PgPool {
    let is_pooled = !matches!(listen, Listen::Pool);
    PgPoolOptions::new()
        .max_connections(u32::try_from(2 * RUNNERS).unwrap_or(u32::MAX))
        .acquire_timeout(Duration::from_secs(5))
        .after_connect(move |connection, _| {
            Box::pin(async move {
                if is_pooled {
                    return Ok(());
                }
                connection.execute("set plan_cache_mode = force_generic_plan").await?;
                Ok(())
            })
        })
        .connect_lazy_with((*db.connect_options()).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_gets_its_own_answer() {
        let batcher = Arc::new(Batcher::start(|items: Vec<u32>| async move {
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
        let batcher =
            Batcher::start(|_: Vec<u32>| async { Err::<Vec<u32>, _>(sqlx::Error::PoolTimedOut) });
        assert!(matches!(batcher.ask(1).await, Err(BatchError::Database(_))));
    }
}
