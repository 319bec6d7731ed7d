//! Sessions: what a restart, a loss and a day leave to verify.

use super::{Process, World, history, live, now};
use crate::support::{
    eventually,
    line::Line,
    relays::{RealRelay, ids},
};

#[tokio::test]
async fn a_restart_does_not_fetch_confirmed_history_again() {
    let world = World::new().await;
    let real = RealRelay::start().await;
    let line = Line::to(&real.url).await;
    real.add(&world.issues(20)).await;
    world.relay(&line.url, &world.items()).await;
    let process = Process::start(&world.db);
    world.in_step().await;
    process.stop().await;
    line.forget();
    let received = world.number("select received from grasp_relay").await;
    world.run("update upstream set negentropy_verdict = 'unsupported', negentropy_verdict_until = now() + interval '1 day'").await;
    let process = Process::start(&world.db);
    world.in_step().await;
    let heard = line.heard();
    let far =
        history(&heard).iter().filter(|m| m[2]["since"].as_i64() < Some(now() - 2400)).count();
    assert_eq!(far, 0, "{heard:#?}");
    assert_eq!(world.number("select received from grasp_relay").await, received);
    assert_eq!(live(&heard).len(), 5, "L1, state, a, A and q: {heard:#?}");
    process.stop().await;
}

#[tokio::test]
async fn what_was_published_during_a_cut_is_found_whenever_it_was_signed() {
    let world = World::new().await;
    let real = RealRelay::start().await;
    let line = Line::to(&real.url).await;
    real.add(&world.issues(20)).await;
    world.relay(&line.url, &world.items()).await;
    let process = Process::start(&world.db);
    world.in_step().await;
    line.cut();
    world.reads("select status from grasp_relay", "waiting").await;
    let missed = [
        world.issue(now(), "during the cut"),
        world.issue(now() - 30, "as well"),
        world.issue(now() - 7200, "signed two hours before"),
    ];
    real.add(&missed).await;
    line.forget();
    line.mend();
    world.run("update grasp_relay set next_attempt_at = now()").await;
    for event in &missed {
        world.has(event).await;
    }
    world.in_step().await;
    let most =
        "select sum(received)::bigint from grasp_batch where purpose in ('fresh', 'reconnect')";
    assert!(world.number(most).await < 20, "not the whole history");
    process.stop().await;
}

#[tokio::test]
async fn the_daily_verification_counts_what_live_following_missed() {
    let world = World::new().await;
    let real = RealRelay::start().await;
    let (line, seen) = (Line::to(&real.url).await, world.issues(5));
    let lost = seen[0].id.to_hex();
    real.add(&seen).await;
    world.relay(&line.url, &world.items()).await;
    let process = Process::start(&world.db);
    world.in_step().await;
    // An event that the relay got without telling its subscribers, and that we therefore lack.
    let id = hex::decode(&lost).unwrap();
    for sql in ["delete from admission where event_id = $1", "delete from event where id = $1"] {
        sqlx::query(sql).bind(&id).execute(&world.db).await.unwrap();
    }
    assert_eq!(world.fetched().await.len(), 4);
    world.run("update grasp_relay set resync_due_at = now() - interval '1 s'").await;
    eventually("the drift is counted", async || {
        world.number("select drift_last from grasp_relay").await == 1
    })
    .await;
    assert_eq!(world.fetched().await, ids(&seen));
    world
        .reads(
            "select (resync_due_at > now() + interval '22 hours')::text from grasp_relay",
            "true",
        )
        .await;
    assert_eq!(line.attempts(), 1, "on the same connection");
    world.all_confirmed().await;
    process.stop().await;
}

#[tokio::test]
async fn each_relay_has_one_socket_of_two_processes() {
    let world = World::new().await;
    let (mut lines, mut reals) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let real = RealRelay::start().await;
        let line = Line::to(&real.url).await;
        world.relay(&line.url, &world.items()).await;
        lines.push(line);
        reals.push(real);
    }
    let (one, two) = (Process::start(&world.db), Process::start(&world.db));
    world.in_step().await;
    world.reads("select string_agg(n::text, ',') from (select count(*) as n from grasp_relay group by lease_owner) s", "2,2").await;
    world.in_step().await;
    for line in &lines {
        assert_eq!(line.open(), (1, 1), "one socket at any time");
    }
    one.stop().await;
    world.reads("select count(distinct lease_owner)::text from grasp_relay", "1").await;
    world.in_step().await;
    two.stop().await;
}

#[tokio::test]
async fn a_process_that_claims_its_relay_again_opens_no_second_socket() {
    let world = World::new().await;
    let real = RealRelay::start().await;
    let line = Line::to(&real.url).await;
    world.relay(&line.url, &world.items()).await;
    let (status, in_step) = ("select status from grasp_relay where url like 'ws:%'", "in_step");
    let process = Process::start(&world.db);
    world.reads(status, in_step).await;
    // The process has room for another relay, which is not due.
    world
        .run(
            "insert into grasp_relay (url, next_attempt_at) values ('wss://other.test', now() + interval '1 hour')",
        )
        .await;
    // The lease ends without the session's knowledge, as after a long pause of the process.
    world
        .run(
            "update grasp_relay set status = 'waiting', verified = false, lease_owner = null, lease_until = null,
                 next_attempt_at = now() where url like 'ws:%'",
        )
        .await;
    world
        .reads("select (lease_epoch = 2)::text from grasp_relay where url like 'ws:%'", "true")
        .await;
    world.reads(status, in_step).await;
    // The earlier session closed its socket before the later one opened another.
    assert_eq!((line.open().0, line.attempts()), (1, 2));
    let failures = "select failures::text from grasp_relay where url like 'ws:%'";
    assert_eq!(world.text(failures).await, "0", "the earlier session took no connection away");
    process.stop().await;
}
