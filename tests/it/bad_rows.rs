//! Rows of the queue that a hand wrote. One bad row is one killed job with a reason, and no reader
//! notices it otherwise.

use std::time::Duration;

use sqlx::AssertSqlSafe;
use tender_jobs::{
    queue::{self, COUNT_CAP, JobFilter, JobState, NewJob, Page, Settled},
    steer::{self, Verb},
};
use tender_workers::runtime::STUCK_AFTER;

use crate::support::{World, begun, by, retention};

const QUEUE: &str = "odd";

/// Columns with values that no statement of ours writes.
const WAITING: [(&str, &[&str]); 9] = [
    (
        "run_at",
        &[
            "'infinity'",
            "'-infinity'",
            "'294000-01-01'",
            "'0044-03-15 BC'",
            "'10000-01-01'",
            "'1969-12-31'",
        ],
    ),
    ("status", &["'Paused'", "''", "repeat('x', 100000)"]),
    ("attempts", &["2147483647", "-2147483648", "-1"]),
    ("max_attempts", &["2147483647", "-2147483648", "0"]),
    ("priority", &["null", "99", "-7", "2147483647", "-2147483648"]),
    (
        "job",
        &[
            "''",
            "'\\x00ff'",
            "convert_to('{\"job\":', 'UTF8')",
            "convert_to(repeat('x', 16777217), 'UTF8')",
        ],
    ),
    (
        "metadata",
        &[
            "null",
            "''",
            "hstore('crashes', '-1')",
            "hstore('crashes', repeat('9', 99))",
            "hstore('key', null)",
        ],
    ),
    (
        "last_result",
        &[
            "null",
            "'1e400'",
            "'[]'",
            "'\"text\"'",
            "'{\"Err\": null}'",
            "'{\"Err\": {\"a\": 1}}'",
            "(repeat('[', 500) || repeat(']', 500))::jsonb",
        ],
    ),
    ("done_at", &["now()", "'infinity'", "'-infinity'"]),
];
const DONE: [(&str, &[&str]); 3] = [
    ("done_at", &["null", "'infinity'", "'-infinity'", "'294000-01-01'", "'0044-03-15 BC'"]),
    ("run_at", &["'infinity'", "'-infinity'", "'294000-01-01'"]),
    ("lock_at", &["'infinity'", "'-infinity'", "'294000-01-01'"]),
];

/// Writes the row `bad`: by an insertion, and as a change of a good row.
async fn write(world: &World, status: &str, column: &str, value: &str) {
    sqlx::query("delete from apalis.jobs where id = 'bad'").execute(&world.db).await.unwrap();
    let done_at = if status == "Done" { "now()" } else { "null" };
    let good = format!(
        "insert into apalis.jobs (id, job_type, job, status, run_at, done_at)
         values ('bad', '{QUEUE}', '{{\"job\": \"odd\"}}', '{status}', now() - interval '1 s', {done_at})"
    );
    let change = format!("update apalis.jobs set {column} = {value} where id = 'bad'");
    for statement in [good, change] {
        sqlx::query(AssertSqlSafe(statement)).execute(&world.db).await.unwrap();
    }
}

/// Everything that reads the queue.
async fn read(world: &World, what: &str) {
    let db = &world.db;
    let status = queue::status(db, &[QUEUE]).await.expect(what);
    let known = &status[0];
    let counted = known.waiting + known.retrying + known.queued + known.done + known.killed;
    assert!((1..=COUNT_CAP).contains(&counted), "{what}: {known:?}");
    queue::figures(db, QUEUE).await.expect(what);
    assert!(queue::names(db).await.expect(what).contains(&QUEUE.to_owned()), "{what}");
    queue::waiting_kinds(db, &[QUEUE]).await.expect(what);
    queue::workers(db).await.expect(what);
    let detail = queue::job(db, "bad").await.expect(what).expect(what);
    assert!(detail.payload.len() <= 1_100_000, "{what}: a page shows a part of a large payload");
    for state in JobState::ALL.into_iter().map(Some).chain([None]) {
        let filter = JobFilter { state, ..JobFilter::default() };
        let listed = queue::jobs(db, &filter, &Page::First, 10).await.expect(what);
        let is_shown = state.is_none_or(|state| state == detail.summary.state);
        assert_eq!(listed.iter().any(|job| job.id == "bad"), is_shown, "{what}: {state:?}");
        for job in listed {
            for page in [Page::After(job.cursor()), Page::Before(job.cursor())] {
                queue::jobs(db, &filter, &page, 10).await.expect(what);
            }
            serde_json::to_string(&job).expect(what);
        }
    }
}

/// Fetches until nothing is due: the good job, and the bad one if it waits. Each can be ended.
async fn drain(world: &World, what: &str) {
    let good = NewJob::new(QUEUE, &serde_json::json!({ "v": 1 }));
    let good = queue::enqueue(&world.db, &[good]).await.unwrap();
    let fetched = queue::fetch(&world.db, &world.worker, QUEUE, 10).await.expect(what);
    assert!(fetched.iter().any(|job| job.id == good[0]), "{what}: the good job is fetched");
    for job in fetched {
        assert_eq!(
            queue::start(&world.db, &job).await.expect(what),
            Settled::Written(()),
            "{what}"
        );
        let ended = queue::finish(&world.db, &job, &serde_json::json!(null)).await;
        assert_eq!(ended.expect(what), Settled::Written(()), "{what}");
    }
}

async fn steer(world: &World, what: &str) {
    let matching = JobFilter { queue: Some(QUEUE.to_owned()), ..JobFilter::default() };
    for verb in [Verb::Cancel, Verb::Retry] {
        steer::matching(&world.db, verb, &matching, steer::Bounds::NONE, &by(), begun(world).await)
            .await
            .expect(what);
    }
    queue::retry(&world.db, "bad").await.expect(what);
}

async fn upkeep(world: &World, what: &str) {
    let (rescued, _) = queue::rescue(&world.db, queue::DEAD_AFTER, STUCK_AFTER).await.expect(what);
    assert_eq!(rescued.refused, 0, "{what}");
    queue::prune(&world.db, retention(), 2).await.expect(what);
}

#[tokio::test]
async fn every_value_of_every_column_of_a_waiting_job_is_one_killed_job_at_most() {
    let world = World::new().await;
    for (column, values) in WAITING {
        for value in values {
            let what = format!("{column} = {value}");
            write(&world, "Pending", column, value).await;
            let job = world.job_by_id("bad").await;
            if job.summary.state == JobState::Killed {
                let reason = job.summary.error.expect("a reason");
                assert!(reason.starts_with("malformed row: "), "{what}: {reason}");
            }
            read(&world, &what).await;
            upkeep(&world, &what).await;
            drain(&world, &what).await;
            steer(&world, &what).await;
        }
    }
}

#[tokio::test]
async fn every_value_of_every_column_of_an_ended_or_running_job_is_read() {
    let world = World::new().await;
    for status in ["Done", "Running", "Failed"] {
        for (column, values) in DONE {
            for value in values {
                let what = format!("{status}, {column} = {value}");
                write(&world, status, column, value).await;
                read(&world, &what).await;
                upkeep(&world, &what).await;
                drain(&world, &what).await;
                steer(&world, &what).await;
            }
        }
    }
}

#[tokio::test]
async fn a_worker_with_odd_instants_is_listed() {
    let world = World::new().await;
    for instant in ["infinity", "294000-01-01"] {
        sqlx::query("update apalis.workers set last_seen = $1::text::timestamptz, started_at = $1::text::timestamptz")
            .bind(instant)
            .execute(&world.db)
            .await
            .unwrap();
        assert_eq!(queue::workers(&world.db).await.unwrap().len(), 1, "{instant}");
    }
    assert!(queue::rescue(&world.db, Duration::from_secs(30), STUCK_AFTER).await.is_ok());
}
