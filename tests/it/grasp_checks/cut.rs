//! A line that is cut, and a restart.

use serde_json::Value;

use super::GraspWorld;
use crate::support::{line::Line, relays::RealRelay};

/// The events that were requested as history: requests that are not live.
fn histories(heard: &[Value]) -> Vec<&Value> {
    heard.iter().filter(|message| message[0] == "REQ" && message[2]["limit"] != 0).collect()
}

#[tokio::test]
async fn what_was_published_while_the_line_was_cut_is_fetched_without_the_history() {
    let (world, a) = (GraspWorld::new().await, RealRelay::start().await);
    let line = Line::to(&a.url).await;
    let history: Vec<_> = (0..200)
        .map(|number| world.issue("tool", world.at - 86_400 + number, &format!("old {number}")))
        .collect();
    a.add(&history).await;
    world.serve(&[]).await;
    world.own.add(&[world.announcement("tool", &[&line.url], world.at)]).await;
    let running = world.run();
    world.arrives("the history", &history.iter().collect::<Vec<_>>()).await;
    world.is_covered().await;
    world.is_in_step(&line.url).await;
    line.cut();
    crate::support::eventually("the loss is noticed", async || {
        world.status(&line.url).await.as_deref() == Some("waiting")
    })
    .await;
    let now = world.mirror.db_now().await;
    let missed = [
        world.issue("tool", now, "now"),
        world.issue("tool", now - 1, "a second ago"),
        world.issue("tool", now - 7200, "signed two hours ago"),
    ];
    a.add(&missed).await;
    line.forget();
    line.mend();
    world.make_attempts_due().await;
    world.arrives("the three events", &missed.iter().collect::<Vec<_>>()).await;
    world.is_in_step(&line.url).await;
    let received: i64 = sqlx::query_scalar(
        "select coalesce(sum(received), 0)::bigint from grasp_batch where purpose <> 'missing'",
    )
    .fetch_one(&world.db)
    .await
    .unwrap();
    assert!(received < 100, "{received} events came again: {:?}", histories(&line.heard()));
    running.stop().await;
}

#[tokio::test]
async fn a_restart_fetches_no_confirmed_history() {
    let (world, a) = (GraspWorld::new().await, RealRelay::start().await);
    let line = Line::to(&a.url).await;
    let history: Vec<_> = (0..300)
        .map(|number| world.issue("tool", world.at - number, &format!("{number}")))
        .collect();
    a.add(&history).await;
    world.serve(&[]).await;
    world.own.add(&[world.announcement("tool", &[&line.url], world.at)]).await;
    let first = world.run_as("first");
    world.arrives("the history", &history.iter().collect::<Vec<_>>()).await;
    world.is_covered().await;
    world.is_in_step(&line.url).await;
    first.stop().await;
    let batches: i64 =
        sqlx::query_scalar("select count(*) from grasp_batch where purpose = 'missing'")
            .fetch_one(&world.db)
            .await
            .unwrap();
    line.forget();
    let _second = world.run_as("second");
    world.is_in_step(&line.url).await;
    let again: i64 =
        sqlx::query_scalar("select count(*) from grasp_batch where purpose = 'missing'")
            .fetch_one(&world.db)
            .await
            .unwrap();
    assert_eq!(again, batches, "confirmed items were fetched again");
    let later = world.issue("tool", world.at + 3600, "after the restart");
    a.add(std::slice::from_ref(&later)).await;
    world.arrives("an event after the restart", &[&later]).await;
}
