//! The statement of lists of jobs, in both directions, and the count of what it selects.
//!
//! It joins arms of which each reads a bounded number of rows along one index: waiting jobs per queue and
//! priority, retrying jobs per queue, held jobs, done and killed jobs per queue; and, if jobs about some things
//! are asked for, their waiting jobs by key and their ended ones by subject. An arm that the filter excludes is
//! not run.

use super::{JobFilter, Page};
use crate::queue::JobState;

/// The names of the statuses that match.
fn statuses(filter: &JobFilter, page: &Page) -> Vec<String> {
    let states = JobState::ALL.into_iter().filter(|state| {
        page.may_hold(*state) && filter.state.is_none_or(|wanted| wanted == *state)
    });
    states.map(|state| state.status().to_owned()).collect()
}

/// The statement. Its parameters: $1 queues, $2 statuses, $3 text in the error, $4 and $5 the place among
/// unfinished jobs, $6 and $7 the place among ended jobs, $8 the size of the page, $9 priorities, $10 whether
/// only those killed jobs match that need attention, $11 subjects, $12 their keys, $13 and $14 the least and the
/// greatest age in seconds, $15 the rows of an arm that are looked at for an error or attention, null for all.
///
/// Arms of ended jobs compare rows, because only the indexes by queue serve that. With plain conditions PostgreSQL
/// may choose the index of all ended jobs and filter out the other queues. They have one lower and one upper
/// comparison, because a scan begins at the first of several and reads all rows up to the next. The age at which a
/// scan could stop is compared after the limit for the same reason: rows of that age come last.
macro_rules! statement {
    (
        $row:ty, $head:literal, $tail:literal,
        unfinished $ahead:literal $low:literal $up:literal,
        ended $behind:literal $high:literal $down:literal from $start:literal to $stop:literal,
        $db:expr, $queues:expr, $filter:expr, $page:expr, $limit:expr, $scanned:expr
    ) => {{
        let ((due_at, due_id), (ended_at, ended_id)) = ($page.bound(false), $page.bound(true));
        let about = $filter.about.as_ref();
        sqlx::query_as!(
            $row,
            $head
                + "
from (
    select job.*
    from unnest($1::text[]) queue, unnest($9::int[]) level, lateral (
        select * from (
            select * from apalis.jobs
            where 'Pending' = any($2::text[]) and $11::text[] is null
              and job_type = queue and priority = level and status = 'Pending'
              and run_at between coalesce(now() - make_interval(secs => $14::float8), '-infinity')
                         and coalesce(now() - make_interval(secs => $13::float8), 'infinity')
              and (run_at, id) "
                + $ahead
                + " (coalesce($4::timestamptz, "
                + $low
                + "), coalesce($5::text, ''))
            order by run_at"
                + $up
                + ", id"
                + $up
                + "
            limit case when $3::text is null then $8::bigint else $15::bigint end) job
        where $3 is null or strpos(last_result->>'Err', $3) > 0
        limit $8) job
    union all
    select job.*
    from unnest($1) queue, lateral (
        select * from (
            select * from apalis.jobs
            where 'Failed' = any($2) and $11 is null
              and job_type = queue and status = 'Failed' and attempts < max_attempts
              and run_at between coalesce(now() - make_interval(secs => $14), '-infinity')
                         and coalesce(now() - make_interval(secs => $13), 'infinity')
              and (run_at, id) "
                + $ahead
                + " (coalesce($4, "
                + $low
                + "), coalesce($5, ''))
            order by run_at"
                + $up
                + ", id"
                + $up
                + "
            limit case when $3 is null then $8 else $15 end) job
        where $3 is null or strpos(last_result->>'Err', $3) > 0
        limit $8) job
    union all
    (select * from apalis.jobs
     where $11 is not null and job_type = any($1) and idempotency_key = any($12::text[])
       and status in ('Pending', 'Failed') and status = any($2)
       and run_at between coalesce(now() - make_interval(secs => $14), '-infinity')
                  and coalesce(now() - make_interval(secs => $13), 'infinity')
       and ($3 is null or strpos(last_result->>'Err', $3) > 0)
       and (run_at, id) "
                + $ahead
                + " (coalesce($4, "
                + $low
                + "), coalesce($5, ''))
     order by run_at"
                + $up
                + ", id"
                + $up
                + "
     limit $8)
    union all
    (select * from apalis.jobs
     where status in ('Queued', 'Running') and status = any($2) and job_type = any($1)
       and ($11 is null or job_subject(job) = any($11))
       and run_at between coalesce(now() - make_interval(secs => $14), '-infinity')
                  and coalesce(now() - make_interval(secs => $13), 'infinity')
       and ($3 is null or strpos(last_result->>'Err', $3) > 0)
       and (run_at, id) "
                + $ahead
                + " (coalesce($4, "
                + $low
                + "), coalesce($5, ''))
     order by run_at"
                + $up
                + ", id"
                + $up
                + "
     limit $8)
    union all
    select job.*
    from unnest($1) queue, lateral (
        select * from (
            select * from apalis.jobs
            where 'Done' = any($2) and $11 is null and status = 'Done' and "
                + $start
                + "
            order by job_type"
                + $down
                + ", done_at"
                + $down
                + ", id"
                + $down
                + "
            limit case when $3 is null then $8 else $15 end) job
        where ($3 is null or strpos(last_result->>'Err', $3) > 0) and "
                + $stop
                + "
        limit $8) job
    union all
    select job.*
    from unnest($1) queue, lateral (
        select * from (
            select * from apalis.jobs
            where 'Killed' = any($2) and $11 is null and status = 'Killed' and "
                + $start
                + "
            order by job_type"
                + $down
                + ", done_at"
                + $down
                + ", id"
                + $down
                + "
            limit case when $3 is null and not $10::bool then $8 else $15 end) job
        where ($3 is null or strpos(last_result->>'Err', $3) > 0) and "
                + $stop
                + "
          and (not $10 or killed_is_open(metadata, done_at))
        limit $8) job
    union all
    select job.*
    from unnest($11) subject, lateral (
        select * from (
            select * from apalis.jobs
            where status in ('Done', 'Killed') and job_subject(job) = subject
              and status = any($2) and job_type = any($1)
              and done_at between coalesce(now() - make_interval(secs => $14), '-infinity')
                          and coalesce(now() - make_interval(secs => $13), 'infinity')
              and (done_at, id) "
                + $behind
                + " (coalesce($6, "
                + $high
                + "), coalesce($7, ''))
            order by done_at"
                + $down
                + ", id"
                + $down
                + "
            limit case when $3 is null and not $10 then $8 else $15 end) job
        where ($3 is null or strpos(last_result->>'Err', $3) > 0)
          and (status = 'Done' or not $10 or killed_is_open(metadata, done_at))
        limit $8) job
" + $tail,
            $queues,
            &statuses($filter, $page),
            $filter.error,
            due_at,
            due_id,
            ended_at,
            ended_id,
            $limit,
            &PRIORITIES,
            $filter.is_open,
            about.map(|about| about.subjects.as_slice()),
            about.map(|about| about.keys.as_slice()),
            $filter.older.map(|age| age.as_secs_f64()),
            $filter.younger.map(|age| age.as_secs_f64()),
            $scanned,
        )
    }};
}

mod directions;

pub(in crate::queue) use directions::{after, before, count};
