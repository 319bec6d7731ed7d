//! A walk over the killed and retrying jobs of a queue, page by page.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::Matching;

/// The jobs of one page. A page is steered in one transaction.
const PAGE: i64 = 500;

/// A walk over the matching jobs of one queue. The newest come first, so a job that is retried and fails
/// again during the walk lies behind it, and the walk ends.
pub(crate) struct Walk<'a> {
    queue: &'a str,
    error: Option<&'a str>,
    is_open: bool,
    /// The statuses that are still to be walked, the next one last.
    statuses: Vec<String>,
    /// The last job of the page before.
    at: Option<(DateTime<Utc>, String)>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(queue: &'a str, matching: &'a Matching) -> Self {
        let mut statuses = matching.statuses();
        statuses.reverse();
        let (error, is_open) = (matching.error.as_deref(), matching.is_open);
        Self { queue, error, is_open, statuses, at: None }
    }

    /// Returns the ids of the next page; `None` at the end.
    pub(crate) async fn next(&mut self, db: &PgPool) -> Result<Option<Vec<String>>, sqlx::Error> {
        while let Some(status) = self.statuses.last() {
            let page = match status.as_str() {
                "Killed" => self.killed(db).await?,
                _ => self.retrying(db).await?,
            };
            self.at = page.last().cloned();
            if self.at.is_some() {
                return Ok(Some(page.into_iter().map(|(_, id)| id).collect()));
            }
            self.statuses.pop();
        }
        Ok(None)
    }

    /// Along the index of killed jobs.
    async fn killed(&self, db: &PgPool) -> Result<Vec<(DateTime<Utc>, String)>, sqlx::Error> {
        let (at, id) = self.at.clone().unzip();
        let rows = sqlx::query!(
            r#"select done_at as "at!", id from apalis.jobs
               where status = 'Killed' and (job_type, done_at) > ($1, '-infinity')
                 and (job_type, done_at, id)
                     < ($1, coalesce($2::timestamptz, 'infinity'), coalesce($3::text, ''))
                 and ($4::text is null or strpos(last_result->>'Err', $4) > 0)
                 and (not $6::bool or killed_is_open(metadata, done_at))
               order by job_type desc, done_at desc, id desc
               limit $5"#,
            self.queue,
            at,
            id,
            self.error,
            PAGE,
            self.is_open,
        )
        .fetch_all(db)
        .await?;
        Ok(rows.into_iter().map(|row| (row.at, row.id)).collect())
    }

    async fn retrying(&self, db: &PgPool) -> Result<Vec<(DateTime<Utc>, String)>, sqlx::Error> {
        let (at, id) = self.at.clone().unzip();
        let rows = sqlx::query!(
            "select run_at as at, id from apalis.jobs
             where status = 'Failed' and attempts < max_attempts and job_type = $1
               and (run_at, id) < (coalesce($2::timestamptz, 'infinity'), coalesce($3::text, ''))
               and ($4::text is null or strpos(last_result->>'Err', $4) > 0)
             order by run_at desc, id desc
             limit $5",
            self.queue,
            at,
            id,
            self.error,
            PAGE,
        )
        .fetch_all(db)
        .await?;
        Ok(rows.into_iter().map(|row| (row.at, row.id)).collect())
    }
}
