//! Actions on all jobs that match: what is asked is what is done, and what was done is recorded.

use std::time::Duration;

use tender_jobs::{
    console::operator::{self, Outcome},
    queue::{self, COUNT_CAP, JobFilter, JobState, Page, Retention, WithError},
    steer::{self, Bounds, Verb},
};

use crate::support::{World, begun, by};

async fn execute(world: &World, sql: &'static str) {
    sqlx::raw_sql(sql).execute(&world.db).await.unwrap();
}

async fn with_error(world: &World, error: &str) -> JobFilter {
    let error = WithError::find(&world.db, error).await.unwrap();
    JobFilter { error: Some(error), ..JobFilter::default() }
}

/// Asks, acts, and returns both numbers.
async fn asked_and_done(world: &World, verb: Verb, filter: &JobFilter) -> (i64, usize) {
    let asked = steer::count_matching(&world.db, verb, filter, COUNT_CAP).await.unwrap();
    let record = begun(world).await;
    let done = steer::matching(&world.db, verb, filter, Bounds::NONE, &by(), record).await.unwrap();
    (asked, done.done)
}

#[tokio::test]
async fn a_question_counts_the_jobs_that_the_action_reaches() {
    let world = World::new().await;
    // Of the newest thousand killed jobs three have the error, all older ones have it.
    execute(
        &world,
        "insert into apalis.jobs (id, job_type, job, status, done_at, last_result)
         select 'killed' || n, 'odd', '{}', 'Killed', now() - make_interval(secs => n),
                jsonb_build_object('Err', case when n > 1000 or n <= 3 then 'no disk' else 'other' end)
         from generate_series(1, 3000) n",
    )
    .await;
    let filter = with_error(&world, "no disk").await;
    assert_eq!(asked_and_done(&world, Verb::Delete, &filter).await, (2003, 2003));
    // Waiting jobs keep the error of an attempt before.
    execute(
        &world,
        "insert into apalis.jobs (id, job_type, job, status, run_at, last_result)
         select 'waiting' || n, 'odd', '{}', 'Pending', now() + make_interval(secs => n),
                jsonb_build_object('Err', case when n > 1000 then 'no disk' else 'other' end)
         from generate_series(1, 1500) n",
    )
    .await;
    let filter = with_error(&world, "no disk").await;
    assert_eq!(asked_and_done(&world, Verb::Cancel, &filter).await, (500, 500));
}

#[tokio::test]
async fn an_action_that_ends_early_leaves_a_record_of_what_it_did() {
    let world = World::new().await;
    execute(
        &world,
        "insert into apalis.jobs (id, job_type, job, status, done_at)
         select 'killed' || n, 'odd', '{}', 'Killed', now() - make_interval(secs => n)
         from generate_series(1, 1200) n;
         create function refuse() returns trigger language plpgsql as $$ begin raise 'disk full'; end $$;
         create trigger refuse before update or delete on apalis.jobs
             for each row when (old.id = 'killed1100') execute function refuse();",
    )
    .await;
    let filter = JobFilter { queue: Some("odd".to_owned()), ..JobFilter::default() };
    let last = async || operator::last(&world.db, 1).await.unwrap().remove(0);
    let act = async |verb| {
        let record = begun(&world).await;
        let began = last().await;
        assert_eq!((began.outcome, &*began.result), (Outcome::Failed, "began; nothing done yet"));
        steer::matching(&world.db, verb, &filter, Bounds::NONE, &by(), record).await
    };
    // The third page has the job that the database refuses.
    for verb in [Verb::Retry, Verb::Delete] {
        act(verb).await.unwrap_err();
        let action = last().await;
        assert_eq!(
            (action.outcome, &*action.result),
            (Outcome::Failed, "began; 1000 done so far"),
            "{verb:?}"
        );
        execute(
            &world,
            "update apalis.jobs set status = 'Killed', done_at = now()
                         where status = 'Pending' and job_type = 'odd'",
        )
        .await;
    }
    execute(&world, "drop trigger refuse on apalis.jobs").await;
    assert_eq!(act(Verb::Delete).await.unwrap().done, 200);
}

#[tokio::test]
async fn a_burst_of_settled_failures_hides_no_older_one_that_is_open() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    sqlx::query(
        "insert into apalis.jobs (id, job_type, job, status, done_at, metadata)
         select 'settled' || n, 'odd', '{}'::bytea, 'Killed', now() - interval '25 h' - make_interval(secs => n),
                hstore('key', 'relay:' || $1)
         from generate_series(1, 1500) n
         union all
         select 'open', 'odd', '{}'::bytea, 'Killed', now() - interval '30 h', null::hstore",
    )
    .bind(relay.id.as_str())
    .execute(&world.db)
    .await
    .unwrap();
    let open = JobFilter { state: Some(JobState::Killed), is_open: true, ..JobFilter::default() };
    let listed = queue::jobs(&world.db, &open, &Page::First, 10).await.unwrap();
    assert_eq!(listed.iter().map(|job| &*job.id).collect::<Vec<_>>(), ["open"]);
    let day = Duration::from_hours(24);
    let keep = Retention { done: day, killed: day };
    assert_eq!(queue::kept(&world.db, keep).await.unwrap(), ["open"]);
    assert_eq!(queue::prune(&world.db, keep, 20).await.unwrap().jobs, 1500);
    assert!(queue::job(&world.db, "open").await.unwrap().is_some());
}

/// As when an outage begins: workers fetch due jobs and put them back to a later time, behind the walk.
#[tokio::test]
async fn jobs_that_are_put_off_while_others_are_cancelled_are_cancelled_too() {
    let world = World::new().await;
    execute(
        &world,
        "insert into apalis.jobs (id, job_type, job, run_at)
         select 'waiting' || n, 'odd', '{}', now() + make_interval(secs => n) from generate_series(1, 1200) n;
         create function put_off() returns trigger language plpgsql as $$ begin
             update apalis.jobs set run_at = now() + interval '1 day' where id in ('waiting1', 'waiting2');
             return null;
         end $$;
         create trigger put_off after update on apalis.jobs
             for each row when (new.id = 'waiting1200' and new.status = 'Killed') execute function put_off();",
    )
    .await;
    let filter = JobFilter { queue: Some("odd".to_owned()), ..JobFilter::default() };
    assert_eq!(asked_and_done(&world, Verb::Cancel, &filter).await, (1200, 1200));
}
