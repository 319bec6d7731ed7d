//! Actions of several transactions.

use sqlx::PgPool;
use tender_jobs::console::operator::Begun;

use super::{Answer, Doing};

impl Doing<'_> {
    /// Does an action of several transactions, whose record begins before the first of them, and redirects as
    /// [`Doing::commit`] does. It runs in a task of its own: an operator who leaves the page does not end it.
    pub(in crate::dashboard) async fn in_steps<F>(
        self,
        work: impl FnOnce(PgPool, Begun) -> F,
    ) -> Answer
    where
        F: Future<Output = Result<String, sqlx::Error>> + Send + 'static,
    {
        let (db, fleet) = (self.asked.dashboard.db.clone(), self.asked.dashboard.fleet.clone());
        let (who, action) = (&self.asked.viewer.who, &self.action);
        let record = Begun::new(&db, who, &action.name, &action.target).await?;
        let work = work(db.clone(), record);
        let task = tokio::spawn(async move {
            let words = work.await;
            fleet.forget().await;
            let words = words?;
            record.end(&db, &words).await?;
            Ok::<_, sqlx::Error>(words)
        });
        let words = task.await.map_err(|_| sqlx::Error::WorkerCrashed)??;
        Ok(self.recorded(&words))
    }
}
