//! The record of an action that is done in several transactions.

use sqlx::PgExecutor;

use super::{Entry, Outcome};
use crate::queue::one_line;

/// The record of an action in steps. It is stored before the first step, and each step commits with its count, so a
/// process that dies between two steps leaves a record of what it did. Until [`Begun::end`] its outcome is
/// [`Outcome::Failed`].
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    id: i64,
}

impl Begun {
    /// Stores the record of an action that begins; see [`Action`](super::Action).
    pub async fn new(
        db: impl PgExecutor<'_>,
        who: &str,
        action: &str,
        target: &str,
    ) -> Result<Self, sqlx::Error> {
        let entry = Entry::new(who, action, target, "began; nothing done yet");
        Ok(Self { id: entry.ended(Outcome::Failed).insert(db).await? })
    }

    /// Stores how many things the action was done to so far.
    pub(crate) async fn progress(
        self,
        db: impl PgExecutor<'_>,
        done: usize,
    ) -> Result<(), sqlx::Error> {
        self.update(db, Outcome::Failed, &format!("began; {done} done so far")).await
    }

    /// Stores the result of an action that came to its end.
    pub async fn end(self, db: impl PgExecutor<'_>, result: &str) -> Result<(), sqlx::Error> {
        self.update(db, Outcome::Done, result).await
    }

    async fn update(
        self,
        db: impl PgExecutor<'_>,
        outcome: Outcome,
        result: &str,
    ) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "update operator_action set outcome = $2, result = $3 where id = $1",
            self.id,
            outcome.as_str(),
            one_line(result),
        )
        .execute(db)
        .await?;
        Ok(())
    }
}
