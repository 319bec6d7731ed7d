//! The audit log: every action of an operator, on a page, by a command or with an API key, with its result,
//! also if it was refused or failed. Tenants' own changes of a relay are in the relay's activity instead.
//!
//! Functions return [`sqlx::Error`] when the database is unreachable or refuses the statement.

mod begun;
mod list;
mod mask;

use std::{fmt, time::Duration};

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgExecutor;

use crate::queue::one_line;
pub use begun::Begun;
pub use list::{Search, last, list};
pub use mask::difference;

/// The most rows that are kept, whatever their age.
const MOST: i64 = 1_000_000;

/// How an action ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum Outcome {
    /// It was done, or there was nothing to do.
    Done,
    /// The rules did not allow it; nothing was changed.
    Refused,
    /// An error prevented it or ended it early, or it has not ended; see [`Begun`].
    Failed,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Done, Self::Refused, Self::Failed];

    /// Returns the name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }

    /// Returns the outcome with this name; `None` if there is none.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One recorded action.
#[derive(Debug, Clone, Serialize)]
pub struct Action {
    /// The id of the row; later actions have larger ids.
    pub id: i64,
    /// Time of the action, by the database's clock.
    pub created_at: DateTime<Utc>,
    /// Who acted: a public key in hex, `password`, `link`, `key` with the name of an API key, or user@host for
    /// the command line.
    pub who: String,
    /// The way: `page`, `command` or `api`.
    pub via: String,
    /// The kind of action, such as `pause_queue`.
    pub action: String,
    /// The target of the action: host, queue or job id.
    pub target: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The result, on one line.
    pub result: String,
    /// The changed fields with their values before the action; `None` if none is recorded.
    pub before: Option<Value>,
    /// The changed fields with their values after it.
    pub after: Option<Value>,
}

/// An action to record.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    who: &'a str,
    action: &'a str,
    target: &'a str,
    outcome: Outcome,
    result: &'a str,
    changed: (Value, Value),
}

impl<'a> Entry<'a> {
    /// Returns the entry of an action that was done; see [`Action`].
    pub fn new(who: &'a str, action: &'a str, target: &'a str, result: &'a str) -> Self {
        let changed = (Value::Null, Value::Null);
        Self { who, action, target, outcome: Outcome::Done, result, changed }
    }

    /// Says how the action ended.
    #[must_use]
    pub fn ended(self, outcome: Outcome) -> Self {
        Self { outcome, ..self }
    }

    /// Says what the action changed. Only the fields that differ are stored. Values of fields that may hold
    /// a secret are masked, and a value of more than 4 KiB is replaced by its size.
    #[must_use]
    pub fn changed(self, before: &Value, after: &Value) -> Self {
        Self { changed: difference(before, after), ..self }
    }

    /// Stores the entry. The result is stored on one line; see [`one_line`].
    pub async fn record(self, db: impl PgExecutor<'_>) -> Result<(), sqlx::Error> {
        self.insert(db).await.map(|_| ())
    }

    /// Returns the id of the row.
    async fn insert(self, db: impl PgExecutor<'_>) -> Result<i64, sqlx::Error> {
        let (before, after) = self.changed;
        sqlx::query_scalar!(
            "insert into operator_action (who, action, target, outcome, result, before, after)
             values ($1, $2, $3, $4, $5, $6, $7) returning id",
            self.who,
            self.action,
            one_line(self.target),
            self.outcome.as_str(),
            one_line(self.result),
            (!before.is_null()).then_some(before),
            (!after.is_null()).then_some(after),
        )
        .fetch_one(db)
        .await
    }
}

/// Records an action that was done and has no fields to compare.
pub async fn record(
    db: impl PgExecutor<'_>,
    who: &str,
    action: &str,
    target: &str,
    result: &str,
) -> Result<(), sqlx::Error> {
    Entry::new(who, action, target, result).record(db).await
}

/// Deletes at most 5,000 of the oldest actions, if they are older than `keep` or there are more than a
/// million. Returns their number.
pub async fn prune(db: impl PgExecutor<'_>, keep: Duration) -> Result<u64, sqlx::Error> {
    let pruned = sqlx::query!(
        "delete from operator_action
         where id in (select id from operator_action order by id limit 5000)
           and (created_at < now() - make_interval(secs => $1)
                or id <= (select max(id) from operator_action) - $2)",
        keep.as_secs_f64(),
        MOST,
    );
    Ok(pruned.execute(db).await?.rows_affected())
}
