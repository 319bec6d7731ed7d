//! Relays that refuse one filter, stall, or accept and drop connections.

use serde_json::json;

use super::GraspWorld;
use crate::support::{
    eventually,
    line::Line,
    relays::{Client, RealRelay},
    scripted::{Manner, scripted},
};

/// Refuses every history of states, and answers the rest.
async fn refuse_states(client: Client, message: serde_json::Value, why: &str) -> bool {
    let is_state =
        message[0] == "REQ" && message[2]["kinds"] == json!([30618]) && message[2]["limit"] != 0;
    if is_state {
        client.send(json!(["CLOSED", message[1], why])).await;
    }
    is_state
}

async fn one_refused_filter(manner: Manner) {
    let world = GraspWorld::new().await;
    let issue = world.issue("tool", world.at, "fine");
    let a = scripted(std::slice::from_ref(&issue), manner).await;
    world.serve(&[]).await;
    world.own.add(&[world.announcement("tool", &[&a.url], world.at)]).await;
    let _running = world.run();
    world.arrives("what the other filters hold", &[&issue]).await;
    eventually("the refused item is missing, with a reason and a later attempt", async || {
        let row: Option<(String, bool)> = sqlx::query_as(
            "select coalesce(reason, ''), retry_at > now() + interval '20 s' from grasp_coverage
             where family = 'state' and state = 'missing' and attempts > 0",
        )
        .fetch_optional(&world.db)
        .await
        .unwrap();
        row.is_some_and(|(reason, is_later)| is_later && !reason.is_empty())
    })
    .await;
    let missing: Vec<String> = sqlx::query_scalar(
        "select distinct family from grasp_coverage where state <> 'confirmed' and attempts > 0",
    )
    .fetch_all(&world.db)
    .await
    .unwrap();
    assert_eq!(missing, ["state"]);
    let connections = a.connections.load(std::sync::atomic::Ordering::SeqCst);
    let asked = |a: &crate::support::relays::FakeRelay| {
        let requests = a.verbs("REQ");
        requests.iter().filter(|m| m[2]["kinds"] == json!([30618]) && m[2]["limit"] != 0).count()
    };
    let before = asked(&a);
    world.sql("update grasp_relay set limited_until = null").await;
    world.make_items_due().await;
    eventually("the item is requested again", async || asked(&a) > before).await;
    assert_eq!(
        a.connections.load(std::sync::atomic::Ordering::SeqCst),
        connections,
        "without a new connection"
    );
}

#[tokio::test]
async fn a_filter_that_is_refused_with_an_error_is_retried_alone() {
    let before = |client, message| -> futures_util::future::BoxFuture<'static, bool> {
        Box::pin(refuse_states(client, message, "error: no"))
    };
    one_refused_filter(Manner { before: Some(before), ..Manner::default() }).await;
}

#[tokio::test]
async fn a_filter_that_is_refused_as_rate_limited_pauses_the_relay_and_costs_no_attempt() {
    let before = |client, message| -> futures_util::future::BoxFuture<'static, bool> {
        Box::pin(refuse_states(client, message, "rate-limited: slow down"))
    };
    let world = GraspWorld::new().await;
    let a = scripted(&[], Manner { before: Some(before), ..Manner::default() }).await;
    world.serve(&[]).await;
    world.own.add(&[world.announcement("tool", &[&a.url], world.at)]).await;
    let _running = world.run();
    eventually("the relay is paused for about 65 s, and the item is missing", async || {
        let row: Option<(bool, i32)> = sqlx::query_as(
            "select r.limited_until between now() + interval '40 s' and now() + interval '66 s', c.attempts
             from grasp_coverage c join grasp_relay r on r.id = c.relay_id
             where c.family = 'state' and c.state = 'missing' and c.reason like '%slow down%'",
        )
        .fetch_optional(&world.db)
        .await
        .unwrap();
        row == Some((true, 0))
    })
    .await;
    assert_eq!(
        a.connections.load(std::sync::atomic::Ordering::SeqCst),
        1,
        "without a new connection"
    );
}

#[tokio::test]
async fn a_relay_that_stalls_slows_nobody() {
    let world = GraspWorld::new().await;
    let (a, b) = (RealRelay::start().await, RealRelay::start().await);
    let line = Line::to(&b.url).await;
    line.stall();
    let issue = world.issue("tool", world.at, "fine");
    a.add(std::slice::from_ref(&issue)).await;
    world.serve(&[]).await;
    world.own.add(&[world.announcement("tool", &[&line.url, &a.url], world.at)]).await;
    let _running = world.run();
    world.arrives("the event of the relay that answers", &[&issue]).await;
    world.is_in_step(&a.url).await;
    assert_ne!(world.status(&line.url).await.as_deref(), Some("in_step"));
}
