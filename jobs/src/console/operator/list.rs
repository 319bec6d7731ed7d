//! Reads the audit log, page by page.

use sqlx::PgExecutor;

use super::{Action, Outcome};

/// The most rows that one page looks at. A filter that matches few of them ends there.
const DEPTH: i64 = 100_000;

/// Selects actions; `None` matches every action.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// Text in the name of those who acted. Case does not matter.
    pub who: Option<String>,
    /// Text in the kind of action.
    pub action: Option<String>,
    /// Text in the target. Case does not matter.
    pub target: Option<String>,
    /// The outcome.
    pub outcome: Option<Outcome>,
    /// The way: `page`, `command` or `api`.
    pub via: Option<String>,
    /// Only actions of the last so many seconds.
    pub within_secs: Option<f64>,
    /// Only actions before this id.
    pub before: Option<i64>,
}

/// Returns at most `limit` actions that match, newest first. Looks at 100,000 at most.
pub async fn list(
    db: impl PgExecutor<'_>,
    search: &Search,
    limit: i64,
) -> Result<Vec<Action>, sqlx::Error> {
    sqlx::query_as!(
        Action,
        r#"select id, created_at, who, audit_via(who) as "via!", action, target,
                  outcome as "outcome: Outcome", result, before, after
           from (select * from operator_action where id < coalesce($1, 9223372036854775807)
                 order by id desc limit $2) recent
           where ($3::text is null or strpos(lower(who), lower($3)) > 0)
             and ($4::text is null or strpos(action, $4) > 0)
             and ($5::text is null or strpos(lower(target), lower($5)) > 0)
             and ($6::text is null or outcome = $6)
             and ($7::text is null or audit_via(who) = $7)
             and ($8::float8 is null or created_at > now() - make_interval(secs => $8))
           order by id desc limit $9"#,
        search.before,
        DEPTH,
        search.who,
        search.action,
        search.target,
        search.outcome.map(Outcome::as_str),
        search.via,
        search.within_secs,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Returns the last `limit` actions, newest first.
pub async fn last(db: impl PgExecutor<'_>, limit: i64) -> Result<Vec<Action>, sqlx::Error> {
    list(db, &Search::default(), limit).await
}
