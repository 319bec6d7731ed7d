//! Real workers: apalis's loop over our queue.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tender::demo::zooid::{Fault, Gate};
use tender_jobs::{
    provision::relay,
    queue::{self, JobState},
};
use tender_workers::{
    provision::{Context, Settings},
    runtime::Listen,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{World, eventually, patiently, run_workers, settings};

struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn start(world: &World, settings: Settings) -> Running {
    let zooid = Arc::clone(&world.context.zooid);
    let context = Context::new(&world.db, zooid, settings, &Listen::Pool);
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let task = tokio::spawn(async move { run_workers(&context, stopping).await });
    Running { stop, task }
}

impl Running {
    async fn stop(self) {
        self.stop.cancel();
        patiently("the workers stop", self.task).await.unwrap();
    }
}

async fn all_synced(world: &World) -> bool {
    relay::summary(&world.db).await.unwrap().synced
        == sqlx::query_scalar::<_, i64>("select count(*) from relay")
            .fetch_one(&world.db)
            .await
            .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_are_synced_and_each_is_created_once() {
    let world = World::new().await;
    let running = start(&world, settings());
    for number in 0..100 {
        world.relay(&format!("relay-{number}")).await;
    }
    eventually("all are synced", async || all_synced(&world).await).await;
    assert_eq!(world.zooid.calls().iter().filter(|call| call.created).count(), 100);
    assert!(world.zooid.overlaps().is_empty());
    running.stop().await;
}

/// On one thread, so that the workers see the stop before the two calls are answered.
#[tokio::test]
async fn a_stop_lets_running_attempts_end_and_gives_the_rest_back() {
    let world = World::new().await;
    for number in 0..6 {
        world.relay(&format!("relay-{number}")).await;
    }
    let gate = Gate::default();
    world.zooid.plan(None, Fault::Hold(gate.clone()), None);
    let running = start(&world, Settings { concurrency: 2, ..settings() });
    patiently("two run", gate.reached(2)).await;
    running.stop.cancel();
    gate.open();
    running.stop().await;
    let held: i64 = sqlx::query_scalar(
        "select count(*) from apalis.jobs where status in ('Queued', 'Running')",
    )
    .fetch_one(&world.db)
    .await
    .unwrap();
    assert_eq!(held, 0, "nothing is held by nobody");
    let synced = relay::summary(&world.db).await.unwrap().synced;
    assert_eq!(synced, 2, "what ran was finished, what waited was given back");
    let spent: i64 = sqlx::query_scalar(
        "select count(*) from apalis.jobs where status = 'Pending' and attempts > 0",
    )
    .fetch_one(&world.db)
    .await
    .unwrap();
    assert_eq!(spent, 0, "a stop costs no attempt");
    let listed = queue::workers(&world.db).await.unwrap();
    assert_eq!(listed.len(), 1, "only the test's own worker is listed: {listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_come_back_when_their_connections_are_cut_again_and_again() {
    let world = World::new().await;
    let running = start(&world, settings());
    for round in 0..5 {
        world.relay(&format!("relay-{round}")).await;
        // Waits for the end of each connection: the pool then sees that it is gone.
        sqlx::query("select pg_terminate_backend(pid, 60000) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()")
            .execute(&world.db).await.unwrap();
    }
    eventually("all are synced", async || {
        let synced: Result<i64, _> = sqlx::query_scalar("select count(*) from relay where synced")
            .fetch_one(&world.db)
            .await;
        synced.is_ok_and(|synced| synced == 5)
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn back_to_back_changes_lose_no_wake_up() {
    let world = World::new().await;
    let relays = [world.relay("alpha").await, world.relay("beta").await];
    let running = start(&world, settings());
    patiently("all are synced", all_carried(&world)).await;
    let mut slowest = Duration::ZERO;
    for change in 0..100 {
        // Two changes at almost the same time: the first one's fetch is followed by an empty one, and the
        // second one's notification may arrive at any moment of it. As soon as both are carried, the next
        // two follow.
        let name = format!("change {change}");
        let renames = relays.iter().map(|relay| world.rename(relay, &name));
        futures_util::future::join_all(renames).await;
        let began = Instant::now();
        patiently("both changes are carried", all_carried(&world)).await;
        slowest = slowest.max(began.elapsed());
    }
    // A lost wake-up is made up for by the next notification, or by the poll after 30 s.
    assert!(slowest < Duration::from_secs(10), "a change waited for {slowest:?}");
    running.stop().await;
}

/// Counts the jobs that a worker holds.
async fn held(world: &World) -> i64 {
    let held = "select count(*) from apalis.jobs where job_type = 'sync-relay' and status in ('Queued', 'Running')";
    sqlx::query_scalar(held).fetch_one(&world.db).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_fetches_into_free_slots_only_and_beats_while_they_are_busy() {
    let world = World::new().await;
    for number in 0..6 {
        world.relay(&format!("relay-{number}")).await;
    }
    let gate = Gate::default();
    world.zooid.plan(None, Fault::Hold(gate.clone()), None);
    let running = start(&world, Settings { concurrency: 2, ..settings() });
    patiently("both slots are busy", gate.reached(2)).await;
    // Longer than the time after which a worker counts as dead would be a slow test: each of several
    // heartbeats in a row is late enough to be seen, and comes while both slots are busy.
    for _ in 0..3 {
        sqlx::query("update apalis.workers set last_seen = now() - interval '20 s' where worker_type = 'sync-relay' and id <> $1")
            .bind(&world.worker)
            .execute(&world.db)
            .await
            .unwrap();
        eventually("it sends a heartbeat", async || {
            sqlx::query_scalar::<_, bool>("select bool_and(last_seen > now() - interval '10 s') from apalis.workers where worker_type = 'sync-relay' and id <> $1")
                .bind(&world.worker)
                .fetch_one(&world.db)
                .await
                .unwrap()
        })
        .await;
        assert_eq!(held(&world).await, 2, "no job waits beside busy slots");
        assert_eq!(world.rescue().await.requeued, 0);
    }
    gate.open();
    eventually("all are synced", async || all_synced(&world).await).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_counts_as_dead_goes_on_under_a_new_name() {
    let world = World::new().await;
    let running = start(&world, settings());
    let names = async || -> Vec<String> {
        sqlx::query_scalar("select id from apalis.workers where worker_type = 'sync-relay' and id <> $1 and last_seen > now() - interval '30 s'")
            .bind(&world.worker)
            .fetch_all(&world.db)
            .await
            .unwrap()
    };
    eventually("a worker runs", async || names().await.len() == 1).await;
    let first = names().await.remove(0);
    // As after a jump of the database's clock, or a long standstill of the process.
    sqlx::query("update apalis.workers set last_seen = now() - interval '1 hour'")
        .execute(&world.db)
        .await
        .unwrap();
    eventually("another name", async || names().await.first().is_some_and(|name| *name != first))
        .await;
    let relay = world.relay("alpha").await;
    eventually("it works", async || world.reload(&relay).await.synced).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_predecessors_died_young_fetches_one_job_at_a_time() {
    let world = World::new().await;
    for number in 0..6 {
        world.relay(&format!("relay-{number}")).await;
    }
    // The workers of three processes of this host that crashed. Its name is that of the tests' processes.
    sqlx::query(
        "insert into apalis.workers (id, worker_type, storage_name, layers, started_at, last_seen)
         select 'crashed-' || n, 'sync-relay', 'PostgresStorage', 'test:' || n,
                now() - make_interval(secs => 10 + 3 * n), now() - make_interval(secs => 9 + 3 * n)
         from generate_series(1, 3) n",
    )
    .execute(&world.db)
    .await
    .unwrap();
    let gate = Gate::default();
    world.zooid.plan(None, Fault::Hold(gate.clone()), None);
    let running = start(&world, Settings { concurrency: 4, ..settings() });
    patiently("one runs", gate.reached(1)).await;
    assert_eq!(held(&world).await, 1);
    gate.open();
    eventually("all are synced", async || all_synced(&world).await).await;
    running.stop().await;
}

/// Waits without a pause until all relays are synced.
async fn all_carried(world: &World) {
    while !all_synced(world).await {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schedule_runs_each_tick_once_in_several_processes() {
    let world = World::new().await;
    let every_second =
        Settings { reconcile_schedule: "* * * * * *".parse().unwrap(), ..settings() };
    let running: Vec<_> = (0..3).map(|_| start(&world, every_second.clone())).collect();
    let done = "select count(*) from apalis.jobs where job_type = 'reconcile' and status = 'Done' and idempotency_key not like '%start%'";
    eventually("three ticks ran", async || {
        sqlx::query_scalar::<_, i64>(done).fetch_one(&world.db).await.unwrap() >= 3
    })
    .await;
    let doubled: i64 = sqlx::query_scalar("select count(*) - count(distinct idempotency_key) from apalis.jobs where job_type = 'reconcile'")
        .fetch_one(&world.db).await.unwrap();
    assert_eq!(doubled, 0);
    let again: i64 = sqlx::query_scalar(
        "select count(*) from apalis.jobs where job_type = 'reconcile' and attempts > 1",
    )
    .fetch_one(&world.db)
    .await
    .unwrap();
    assert_eq!(again, 0, "each run is attempted once");
    for one in running {
        one.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_relay_without_a_job_is_found_at_the_start_of_a_worker() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    sqlx::query("delete from apalis.jobs").execute(&world.db).await.unwrap();
    let running = start(&world, settings());
    eventually("it is synced", async || world.reload(&relay).await.synced).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_in_the_queue_stops_nobody() {
    let world = World::new().await;
    // Rows as a hand may make them: an id that is no ULID, bytes that are no JSON, odd metadata.
    sqlx::query(
        "insert into apalis.jobs (id, job_type, job, priority, metadata, run_at) values
         ('no-ulid', 'sync-relay', '\\xff00', null, hstore('a', null), now() - interval '1 s'),
         ('', 'sync-relay', '{}', 99, null, now() - interval '1 s')",
    )
    .execute(&world.db)
    .await
    .unwrap();
    let running = start(&world, settings());
    let relay = world.relay("alpha").await;
    eventually("the relay is synced", async || world.reload(&relay).await.synced).await;
    for id in ["no-ulid", ""] {
        eventually("nonsense is killed", async || {
            world.job_by_id(id).await.summary.state == JobState::Killed
        })
        .await;
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_does_not_wait_behind_a_bulk_resync() {
    let world = World::new().await;
    for number in 0..40 {
        world.relay(&format!("bulk-{number}")).await;
    }
    // As a resync requests them, and due for longer than the change.
    sqlx::query("update apalis.jobs set priority = 5, run_at = now() - interval '10 s'")
        .execute(&world.db)
        .await
        .unwrap();
    let urgent = world.relay("urgent").await;
    let running = start(&world, Settings { concurrency: 1, ..settings() });
    eventually("the urgent one is synced", async || world.reload(&urgent).await.synced).await;
    assert_eq!(world.zooid.calls()[0].relay_id, urgent.id.as_str(), "it went first");
    running.stop().await;
}

/// Each write costs the stand-in's one core 3 ms per relay, as on a zooid with many relays: 32 at once would
/// all take longer than the time-out, be given up, and go on running there.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_zooid_gets_no_more_calls_than_it_can_answer() {
    let timeout = Duration::from_secs(3);
    let world = World::with(settings(), |zooid| zooid.timeout = timeout).await;
    world.zooid.tune(|rules| rules.cost_per_relay = Duration::from_millis(3));
    for number in 0..40 {
        world.relay(&format!("relay-{number}")).await;
    }
    let running = start(&world, Settings { concurrency: 32, ..settings() });
    eventually("all are synced", async || all_synced(&world).await).await;
    let calls = world.zooid.calls();
    let unanswered = calls.iter().filter(|call| call.status.is_none()).count();
    assert!(unanswered <= 2, "{unanswered} of {} calls were given up", calls.len());
    running.stop().await;
}

/// What the ledger holds looks as after a jump of the database's clock by this much.
async fn jump(world: &World, by: &str) {
    for statement in [
        "update apalis.jobs set run_at = run_at - $1::interval, lock_at = lock_at - $1::interval",
        "update apalis.workers set last_seen = last_seen - $1::interval, started_at = started_at - $1::interval",
        "update relay set lease_until = lease_until - $1::interval, retry_at = retry_at - $1::interval",
    ] {
        sqlx::query(statement).bind(by).execute(&world.db).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_of_the_databases_clock_loses_nothing_and_creates_nothing_twice() {
    for by in ["1 hour", "-1 hour"] {
        let world = World::new().await;
        let gate = Gate::default();
        world.zooid.plan(None, Fault::Hold(gate.clone()), Some(4));
        for number in 0..4 {
            world.relay(&format!("before-{number}")).await;
        }
        let running = start(&world, Settings { concurrency: 4, ..settings() });
        patiently("four calls are under way", gate.reached(4)).await;
        jump(&world, by).await;
        for number in 0..4 {
            world.relay(&format!("after-{number}")).await;
        }
        gate.open();
        eventually("all are synced", async || all_synced(&world).await).await;
        let created = world.zooid.calls().iter().filter(|call| call.created).count();
        assert_eq!(created, 8, "after a jump by {by}");
        running.stop().await;
    }
}

#[tokio::test]
async fn a_worker_whose_row_is_held_stops_the_heartbeat_of_no_other() {
    let world = World::new().await;
    for name in ["one", "two"] {
        tender_jobs::queue::register(&world.db, name, "sync-relay", "test").await.unwrap();
    }
    let mut other = tender_jobs::database::begin(&world.db).await.unwrap();
    let hold = "select from apalis.workers where id = 'one' for update";
    sqlx::query(hold).execute(&mut *other).await.unwrap();
    let asked = ["one", "two", "gone"].map(str::to_owned);
    let alive = tender_jobs::queue::heartbeat(&world.db, &asked).await.unwrap();
    let mut alive: Vec<_> = alive.into_iter().map(|one| (one.id, one.has_beaten)).collect();
    alive.sort();
    assert_eq!(alive, [("one".to_owned(), false), ("two".to_owned(), true)]);
}
