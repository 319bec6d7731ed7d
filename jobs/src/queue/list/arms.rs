//! The statement of lists of jobs, in both directions, and the count of what it selects.
//!
//! It joins arms of which each reads a bounded number of rows along one index: waiting jobs per queue and
//! priority, retrying jobs per queue, held jobs, done and killed jobs per queue; if jobs about some things are
//! asked for, their waiting jobs by key or by subject, and their ended ones by subject; and failed jobs by their
//! ids, if few have the error that is asked for. The text has only the arms that may hold jobs of the page, so
//! PostgreSQL plans nothing else. It is composed of constants; what an operator typed is a parameter.

use sqlx::{AssertSqlSafe, FromRow, PgPool, Postgres, postgres::PgArguments, query::QueryAs};

use super::{JobFilter, JobSummary, Page};
use crate::{
    database,
    queue::{JobState, PRIORITIES},
};

/// A statement over some queues.
pub(in crate::queue) struct Reading<'a> {
    pub(in crate::queue) queues: &'a [String],
    pub(in crate::queue) filter: &'a JobFilter,
    pub(in crate::queue) page: &'a Page,
    pub(in crate::queue) limit: i64,
    /// The rows of an arm that are looked at for an error or for attention; `None` for all.
    pub(in crate::queue) scanned: Option<i64>,
}

/// Rows that one index serves.
struct Arm {
    /// What the arm reads rows for, one after the other.
    each: &'static str,
    condition: &'static str,
    /// Whether its jobs have ended; such jobs are listed by when they ended, others by when they are due.
    is_ended: bool,
    /// Whether the index begins with the queue and a comparison of rows has to say so; see [`Reading::start`].
    is_by_queue: bool,
}

/// Begins a transaction in which an arm is read along its index. PostgreSQL may read few killed jobs by two bitmaps, one
/// of which is every key of the queue.
const ALONG_INDEXES: &str = "begin read only; set local enable_bitmapscan = off";

const PER_QUEUE: &str = "unnest($1::text[]) queue";
const PER_SUBJECT: &str = "unnest($10::text[]) subject";
const ONCE: &str = "(select) once";

impl Arm {
    const WAITING: Self = Self::unfinished(
        "unnest($1::text[]) queue, unnest($9::int[]) level",
        "job_type = queue and priority = level and status = 'Pending'",
    );
    const RETRYING: Self = Self::unfinished(
        PER_QUEUE,
        "job_type = queue and status = 'Failed' and attempts < max_attempts",
    );
    const HELD: Self = Self::unfinished(
        ONCE,
        "status in ('Queued', 'Running') and status = any($2) and job_type = any($1)
         and ($10::text[] is null or job_subject(job) = any($10))",
    );
    const BY_KEY: Self = Self::unfinished(
        ONCE,
        "idempotency_key = any($11::text[]) and job_type = any($1)
         and status in ('Pending', 'Failed') and status = any($2)",
    );
    /// Jobs that doing twice is harmless have no key.
    const KEYLESS: Self = Self::unfinished(
        PER_SUBJECT,
        "job_subject(job) = subject and idempotency_key is null and job_type = any($1)
         and status in ('Pending', 'Failed') and status = any($2)",
    );
    const RETRYING_OF_ERROR: Self = Self::unfinished(
        ONCE,
        "id = any($15::text[]) and status = 'Failed' and attempts < max_attempts and job_type = any($1)
         and ($10::text[] is null or job_subject(job) = any($10))",
    );
    const KILLED_OF_ERROR: Self = Self {
        is_ended: true,
        ..Self::unfinished(
            ONCE,
            "id = any($15::text[]) and status = 'Killed' and job_type = any($1)
             and ($10::text[] is null or job_subject(job) = any($10))",
        )
    };
    const DONE: Self = Self::ended("status = 'Done'");
    const KILLED: Self = Self::ended("status = 'Killed'");
    const UNSEEN: Self =
        Self::ended("status = 'Killed' and not coalesce(exist(metadata, 'seen'), false)");
    const ENDED_BY_SUBJECT: Self = Self {
        is_ended: true,
        ..Self::unfinished(
            PER_SUBJECT,
            "job_subject(job) = subject and status in ('Done', 'Killed') and status = any($2)
             and job_type = any($1)",
        )
    };

    const fn unfinished(each: &'static str, condition: &'static str) -> Self {
        Self { each, condition, is_ended: false, is_by_queue: false }
    }

    const fn ended(condition: &'static str) -> Self {
        Self { each: PER_QUEUE, condition, is_ended: true, is_by_queue: true }
    }
}

impl Reading<'_> {
    /// Returns the jobs of the page: in the order of the list, or in the reverse order before a place.
    pub(in crate::queue) async fn jobs(&self, db: &PgPool) -> Result<Vec<JobSummary>, sqlx::Error> {
        let Some(arms) = self.arms() else { return Ok(Vec::new()) };
        let order = if self.is_forward() {
            "done_at desc nulls first, case when done_at is null then run_at end,
             case when done_at is null then id end, id desc"
        } else {
            "done_at nulls last, case when done_at is null then run_at end desc,
             case when done_at is null then id end desc, id"
        };
        let sql = format!(
            "select id, job_type as queue, status as state, attempts, max_attempts, run_at, done_at,
                    coalesce(priority, 0) as priority, lock_by, lock_at, left(last_result->>'Err', 1000) as error,
                    job_subject(job) as subject, job_kind(job) as kind
             from ({arms}) job order by {order} limit $8"
        );
        let mut tx = database::begin_with(db, ALONG_INDEXES).await?;
        let jobs = self.bound(sql).fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(jobs)
    }

    /// Counts the jobs of the page, at most its limit.
    pub(in crate::queue) async fn count(&self, db: &PgPool) -> Result<i64, sqlx::Error> {
        let Some(arms) = self.arms() else { return Ok(0) };
        let sql = format!("select count(*) from (select from ({arms}) job limit $8) counted");
        let mut tx = database::begin_with(db, ALONG_INDEXES).await?;
        let (count,): (i64,) = self.bound(sql).fetch_one(&mut *tx).await?;
        tx.commit().await?;
        Ok(count)
    }

    /// Every statement has the same parameters, whether its arms use them or not.
    fn bound<T>(&self, sql: String) -> QueryAs<'_, Postgres, T, PgArguments>
    where
        T: for<'r> FromRow<'r, sqlx::postgres::PgRow>,
    {
        let ((due_at, due_id), (ended_at, ended_id)) =
            (self.page.bound(false), self.page.bound(true));
        let statuses: Vec<&str> = JobState::ALL
            .into_iter()
            .filter(|state| self.walks(*state))
            .map(JobState::status)
            .collect();
        let about = self.filter.about.as_ref();
        let error = self.filter.error.as_ref();
        sqlx::query_as(AssertSqlSafe(sql))
            .bind(self.queues) // $1
            .bind(statuses) // $2
            .bind(error.map(|error| error.text.as_str())) // $3
            .bind(due_at) // $4
            .bind(due_id) // $5
            .bind(ended_at) // $6
            .bind(ended_id) // $7
            .bind(self.limit) // $8
            .bind(PRIORITIES) // $9
            .bind(about.map(|about| about.subjects.as_slice())) // $10
            .bind(about.map(|about| about.keys.as_slice())) // $11
            .bind(self.filter.older.map(|age| age.as_secs_f64())) // $12
            .bind(self.filter.younger.map(|age| age.as_secs_f64())) // $13
            .bind(self.scanned) // $14
            .bind(self.ids()) // $15
    }

    /// The jobs with the error that is asked for, if they are few.
    fn ids(&self) -> Option<&[String]> {
        self.filter.error.as_ref()?.ids.as_deref()
    }

    fn may_hold(&self, state: JobState) -> bool {
        self.page.may_hold(state) && self.filter.may_match(state)
    }

    /// Whether jobs in this state are found along the list, or by what they are about, and not by their ids.
    fn walks(&self, state: JobState) -> bool {
        let is_failed = matches!(state, JobState::Retrying | JobState::Killed);
        self.may_hold(state) && !(is_failed && self.ids().is_some())
    }

    /// The text of the arms; `None` if none may hold a job of the page.
    fn arms(&self) -> Option<String> {
        use JobState::{Done, Killed, Queued, Retrying, Running, Waiting};
        let (is_about, is_open) = (self.filter.about.is_some(), self.filter.is_open);
        let has_ids = self.ids().is_some();
        let walks = |states: &[JobState]| states.iter().any(|state| self.walks(*state));
        let arms = [
            (!is_about && walks(&[Waiting]), Arm::WAITING),
            (!is_about && walks(&[Retrying]), Arm::RETRYING),
            (walks(&[Queued, Running]), Arm::HELD),
            (is_about && walks(&[Waiting, Retrying]), Arm::BY_KEY),
            (is_about && walks(&[Waiting, Retrying]), Arm::KEYLESS),
            (has_ids && self.may_hold(Retrying), Arm::RETRYING_OF_ERROR),
            (has_ids && self.may_hold(Killed), Arm::KILLED_OF_ERROR),
            (!is_about && walks(&[Done]), Arm::DONE),
            (!is_about && walks(&[Killed]), if is_open { Arm::UNSEEN } else { Arm::KILLED }),
            (is_about && walks(&[Done, Killed]), Arm::ENDED_BY_SUBJECT),
        ];
        let texts: Vec<String> =
            arms.iter().filter(|(is_read, _)| *is_read).map(|(_, arm)| self.text(arm)).collect();
        (!texts.is_empty()).then(|| texts.join(" union all "))
    }

    fn is_forward(&self) -> bool {
        !matches!(self.page, Page::Before(_))
    }

    /// Whether the arm is read from late to early: ended jobs are listed so.
    fn is_descending(&self, arm: &Arm) -> bool {
        arm.is_ended == self.is_forward()
    }

    /// An arm: from its start, in its order, to its limit; then what no index serves.
    fn text(&self, arm: &Arm) -> String {
        let Arm { each, condition, .. } = arm;
        let down = if self.is_descending(arm) { " desc" } else { "" };
        let by = if arm.is_by_queue { format!("job_type{down}, ") } else { String::new() };
        let (column, start, rest) = (column(arm), self.start(arm), self.rest(arm));
        let is_searched = self.filter.error.is_some() || self.filter.is_open;
        let scanned = if is_searched { "$14::bigint" } else { "$8::bigint" };
        format!(
            "select job.* from {each}, lateral (
                 select * from (
                     select * from apalis.jobs where {condition} and {start}
                     order by {by}{column}{down}, id{down} limit {scanned}) job
                 where {rest} limit $8) job"
        )
    }

    /// The comparison with the place of the page and the age that the arm begins with. It is one comparison of rows,
    /// because a scan begins at the first of several and reads all rows up to the next.
    ///
    /// Only the indexes by queue serve ended jobs: with plain conditions PostgreSQL may choose the index of all ended
    /// jobs and filter out the other queues.
    fn start(&self, arm: &Arm) -> String {
        let (at, id) = if arm.is_ended { ("$6", "$7") } else { ("$4", "$5") };
        let is_descending = self.is_descending(arm);
        let (than, first, end, other, age) = if is_descending {
            ("<", "least", "infinity", "-infinity", "$12")
        } else {
            (">", "greatest", "-infinity", "infinity", "$13")
        };
        let column = column(arm);
        let age = format!("now() - make_interval(secs => {age}::float8)");
        let from = format!("{first}({at}::timestamptz, {age}, '{end}'::timestamptz)");
        // The place counts among the jobs of its instant if the age begins no later.
        let from_id = format!(
            "coalesce(case when {at} {than}= coalesce({age}, '{end}') then {id}::text end, '')"
        );
        if !arm.is_by_queue {
            return format!("({column}, id) {than} ({from}, {from_id})");
        }
        let opposite = if is_descending { ">" } else { "<" };
        format!(
            "(job_type, {column}) {opposite} (queue, '{other}')
             and (job_type, {column}, id) {than} (queue, {from}, {from_id})"
        )
    }

    /// What is compared after the limit: the age at which a scan could stop, because rows of that age come last, the
    /// error, and attention.
    fn rest(&self, arm: &Arm) -> String {
        let (than, age, stops) = if self.is_descending(arm) {
            (">=", "$13", self.filter.younger.is_some())
        } else {
            ("<=", "$12", self.filter.older.is_some())
        };
        let mut rest = vec!["true".to_owned()];
        if stops {
            rest.push(format!(
                "{} {than} now() - make_interval(secs => {age}::float8)",
                column(arm)
            ));
        }
        if self.filter.error.is_some() {
            rest.push("strpos(last_result->>'Err', $3::text) > 0".to_owned());
        }
        if self.filter.is_open {
            rest.push("exists (select from needs_attention(metadata, done_at))".to_owned());
        }
        rest.join(" and ")
    }
}

/// The time that orders the jobs of an arm.
fn column(arm: &Arm) -> &'static str {
    if arm.is_ended { "done_at" } else { "run_at" }
}
