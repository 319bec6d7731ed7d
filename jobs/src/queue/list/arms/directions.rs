//! The statement forward, backward, and as a count.

use sqlx::PgPool;

use super::statuses;
use crate::queue::{
    PRIORITIES,
    list::{JobFilter, JobSummary, Page},
};

/// A row of a count.
struct Counted {
    count: i64,
}

/// The columns of a list.
macro_rules! listed {
    ($direction:ident, $order:literal, $($argument:expr),*) => {
        $direction!(
            JobSummary,
            r#"select id as "id!", job_type as "queue!", status as "state!", attempts as "attempts!",
                      max_attempts as "max_attempts!", run_at as "run_at!", done_at,
                      coalesce(priority, 0) as "priority!", lock_by, lock_at,
                      left(last_result->>'Err', 1000) as error, job_subject(job) as subject,
                      job_kind(job) as kind "#,
            $order,
            $($argument),*
        )
    };
}

/// From a place to the end.
macro_rules! forward {
    ($row:ty, $head:literal, $tail:literal, $($argument:expr),*) => {
        statement!(
            $row, $head, $tail,
            unfinished ">" "'-infinity'" "",
            ended "<" "'infinity'" " desc"
            from "(job_type, done_at) > (queue, '-infinity')
                  and (job_type, done_at, id)
                      < (queue, least($6::timestamptz, now() - make_interval(secs => $13), 'infinity'),
                         coalesce(case when $6 <= coalesce(now() - make_interval(secs => $13), 'infinity')
                                       then $7::text end, ''))"
            to "done_at >= coalesce(now() - make_interval(secs => $14), '-infinity')",
            $($argument),*
        )
    };
}

/// From a place to the start.
macro_rules! backward {
    ($row:ty, $head:literal, $tail:literal, $($argument:expr),*) => {
        statement!(
            $row, $head, $tail,
            unfinished "<" "'infinity'" " desc",
            ended ">" "'-infinity'" ""
            from "(job_type, done_at) < (queue, 'infinity')
                  and (job_type, done_at, id)
                      > (queue, greatest($6::timestamptz, now() - make_interval(secs => $14), '-infinity'),
                         coalesce(case when $6 >= coalesce(now() - make_interval(secs => $14), '-infinity')
                                       then $7::text end, ''))"
            to "done_at <= coalesce(now() - make_interval(secs => $13), 'infinity')",
            $($argument),*
        )
    };
}

/// Returns the jobs that follow the place of `page`, at most `limit`, in the order of the list.
pub(in crate::queue) async fn after(
    db: &PgPool,
    queues: &[String],
    filter: &JobFilter,
    page: &Page,
    limit: i64,
    scanned: Option<i64>,
) -> Result<Vec<JobSummary>, sqlx::Error> {
    let order = listed!(
        forward,
        ") job order by done_at desc nulls first, case when done_at is null then run_at end,
                        case when done_at is null then id end, id desc limit $8",
        db,
        queues,
        filter,
        page,
        limit,
        scanned
    );
    order.fetch_all(db).await
}

/// Returns the jobs that precede the place of `page`, at most `limit`, in reverse order.
pub(in crate::queue) async fn before(
    db: &PgPool,
    queues: &[String],
    filter: &JobFilter,
    page: &Page,
    limit: i64,
    scanned: Option<i64>,
) -> Result<Vec<JobSummary>, sqlx::Error> {
    let reversed = listed!(
        backward,
        ") job order by done_at nulls last, case when done_at is null then run_at end desc,
                        case when done_at is null then id end desc, id limit $8",
        db,
        queues,
        filter,
        page,
        limit,
        scanned
    );
    reversed.fetch_all(db).await
}

/// Counts the jobs of a list, at most `limit`.
pub(in crate::queue) async fn count(
    db: &PgPool,
    queues: &[String],
    filter: &JobFilter,
    limit: i64,
    scanned: Option<i64>,
) -> Result<i64, sqlx::Error> {
    let counted = forward!(
        Counted,
        r#"select count(*) as "count!" from (select "#,
        ") job limit $8) counted",
        db,
        queues,
        filter,
        &Page::First,
        limit,
        scanned
    );
    Ok(counted.fetch_one(db).await?.count)
}
