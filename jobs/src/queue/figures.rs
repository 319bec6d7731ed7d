//! Figures of a queue over the last day, from the rows that pruning has left.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;

use super::{COUNT_CAP, DEAD_AFTER};

/// The hours that [`QueueFigures::done_per_hour`] covers.
const HOURS: i64 = 24;

/// What a queue did lately. Deleted jobs are not counted: done jobs are pruned after a day, unless the
/// retention is set differently.
#[derive(Debug, Clone, Serialize)]
pub struct QueueFigures {
    /// The name of the queue.
    pub queue: String,
    /// Jobs done in each of the past 24 hours; the first number is the past hour. The last
    /// 24 × [`COUNT_CAP`] done jobs are counted.
    pub done_per_hour: Vec<i64>,
    /// Jobs killed in the past hour, at most [`COUNT_CAP`].
    pub killed_hour: i64,
    /// Jobs killed in the past 24 hours, at most [`COUNT_CAP`].
    pub killed_day: i64,
    /// Jobs killed in the past 7 days, at most [`COUNT_CAP`].
    pub killed_week: i64,
    /// Mean time from due to done of the last 1,000 done jobs, in seconds.
    pub mean_seconds: Option<f64>,
    /// The running job that was started first.
    pub longest_job: Option<String>,
    /// When that job was started.
    pub longest_since: Option<DateTime<Utc>>,
    /// Workers whose last heartbeat is younger than [`DEAD_AFTER`].
    pub workers: i64,
}

impl QueueFigures {
    /// The most done jobs that are counted, all hours together.
    const MOST_DONE: i64 = HOURS * COUNT_CAP;

    /// Returns how many jobs ended in the past hour, and whether there may be more.
    pub fn ended_hour(&self) -> (i64, bool) {
        let done = self.done_per_hour.first().copied().unwrap_or_default();
        (done + self.killed_hour, done >= Self::MOST_DONE || self.killed_hour >= COUNT_CAP)
    }

    /// Returns how many jobs ended in the past 24 hours, and whether there may be more.
    pub fn ended_day(&self) -> (i64, bool) {
        let done = self.done_per_hour.iter().sum::<i64>();
        (done + self.killed_day, done >= Self::MOST_DONE || self.killed_day >= COUNT_CAP)
    }

    /// Returns the killed jobs per ended job of the past 24 hours, from 0 to 1, and whether it may be
    /// lower because there may be more done jobs than were counted. `None` if no job ended, or if
    /// there may be more killed jobs than were counted.
    pub fn kill_rate(&self) -> Option<(f64, bool)> {
        let (ended, is_capped) = self.ended_day();
        if ended == 0 || self.killed_day >= COUNT_CAP {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "both are at most 250,000")]
        let rate = self.killed_day as f64 / ended as f64;
        Some((rate, is_capped))
    }
}

/// Returns the figures of a queue. Reads at most 27 × [`COUNT_CAP`] rows of its indexes.
///
/// # Errors
/// See [`queue`](super).
pub async fn figures(db: impl PgExecutor<'_>, queue: &str) -> Result<QueueFigures, sqlx::Error> {
    sqlx::query_as!(
        QueueFigures,
        r#"with ended as (
               select ago, count(*) as done
               from (select floor(date_part('epoch', now() - done_at) / 3600)::int as ago
                     from apalis.jobs
                     where job_type = $1 and status = 'Done' and done_at > now() - interval '1 day'
                     order by done_at desc
                     limit $2::bigint * $4::bigint) done
               group by ago
           )
           select $1 as "queue!",
                  array(select coalesce(done, 0)
                        from generate_series(0, $4::int - 1) hour (ago) left join ended using (ago)
                        order by ago) as "done_per_hour!",
                  (select count(*) from (select from apalis.jobs
                   where job_type = $1 and status = 'Killed' and done_at > now() - interval '1 hour'
                   limit $2) killed) as "killed_hour!",
                  (select count(*) from (select from apalis.jobs
                   where job_type = $1 and status = 'Killed' and done_at > now() - interval '1 day'
                   limit $2) killed) as "killed_day!",
                  (select count(*) from (select from apalis.jobs
                   where job_type = $1 and status = 'Killed' and done_at > now() - interval '7 days'
                   limit $2) killed) as "killed_week!",
                  (select avg(greatest(date_part('epoch', done_at - run_at), 0))
                   from (select done_at, run_at from apalis.jobs
                         where status = 'Done' and (job_type, done_at) > ($1, '-infinity')
                           and (job_type, done_at) < ($1, 'infinity')
                         order by job_type desc, done_at desc
                         limit 1000) done) as mean_seconds,
                  longest.id as "longest_job?", longest.lock_at as longest_since,
                  (select count(*) from apalis.workers
                   where worker_type = $1 and last_seen > now() - make_interval(secs => $3)
                  ) as "workers!"
           from (values (1)) one left join lateral (
               select id, lock_at from apalis.jobs
               where job_type = $1 and status = 'Running'
               order by lock_at
               limit 1) longest on true"#,
        queue,
        COUNT_CAP,
        DEAD_AFTER.as_secs_f64(),
        HOURS,
    )
    .fetch_one(db)
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(done: i64, killed: i64) -> QueueFigures {
        QueueFigures {
            queue: "greet".to_owned(),
            done_per_hour: vec![done],
            killed_hour: killed,
            killed_day: killed,
            killed_week: killed,
            mean_seconds: None,
            longest_job: None,
            longest_since: None,
            workers: 0,
        }
    }

    #[test]
    fn counts_and_rates_say_when_they_are_capped() {
        assert_eq!(figures(0, 0).kill_rate(), None);
        assert_eq!(figures(3, 1).kill_rate(), Some((0.25, false)));
        assert_eq!(figures(HOURS * COUNT_CAP, 0).kill_rate(), Some((0.0, true)));
        assert_eq!(figures(0, COUNT_CAP).kill_rate(), None);
        assert_eq!(figures(3, 1).ended_hour(), (4, false));
        assert_eq!(figures(COUNT_CAP, 1).ended_hour(), (COUNT_CAP + 1, false));
        assert_eq!(figures(HOURS * COUNT_CAP, 1).ended_day(), (HOURS * COUNT_CAP + 1, true));
        assert_eq!(figures(0, COUNT_CAP).ended_day(), (COUNT_CAP, true));
    }
}
