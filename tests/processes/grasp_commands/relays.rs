//! Followed relays: state, coverage, what is missing, the plan.

use serde_json::{Value, json};

use super::Desk;
use crate::support::grasp_rows::ALPHA;

#[tokio::test]
async fn followed_relays_are_listed_each_with_the_word_for_its_state() {
    let desk = Desk::new().await;
    let words = [
        "in step",
        "catching up",
        "connecting",
        "waiting",
        "rate-limited",
        "dead",
        "fault: DNS",
        "no room",
        "unwanted",
        "8/8",
        "supported",
        "host:1",
    ];
    desk.says(&["relays"], &words).await;
    let found = desk.json(&["relays", "--state", "dead"]).await;
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert_eq!(
        (&found[0]["url"], &found[0]["state"], &found[0]["missing"], &found[0]["repositories"]),
        (&json!("wss://dead.example.com"), &json!("dead"), &json!(3), &json!(1))
    );
    let (_, page, note) = desk.types(&["relays", "--limit", "2"]).await;
    assert_eq!(note.trim(), "2 of 9; --all, or --after wss://b.example.com");
    assert!(!page.contains("wss://c.example.com"), "{page}");
    let next = desk.json(&["relays", "--limit", "1", "--after", "wss://b.example.com"]).await;
    assert_eq!(next[0]["url"], "wss://c.example.com");
    assert_eq!(desk.json(&["relays", "--q", "%"]).await, json!([]));
    desk.says(&["relays", "--q", "%"], &["no followed relay matches"]).await;
}

#[tokio::test]
async fn a_followed_relay_says_what_is_missing_and_why() {
    let desk = Desk::new().await;
    let words = [
        "catching up",
        "0 of 4 items delivered, 1 in flight",
        "events of 30617:",
        "2 attempts failed: CLOSED: error: try later",
        "the second holds more events than the relay gives",
        "1 repository",
    ];
    desk.says(&["relay", "wss://b.example.com"], &words).await;
    desk.says(&["relay", "wss://dead.example.com"], &["dead since", "no answer within 5 s"]).await;
    desk.says(&["relay", "wss://limited.example.com"], &["rate-limited until", "UTC (in "]).await;
    let found = desk.json(&["relay", "wss://a.example.com/"]).await;
    assert_eq!(
        (&found["relay"]["drift_total"], &found["batches"][0]["status"], &found["missing"]),
        (&json!(7), &json!("done"), &json!([]))
    );
    desk.refuses(&["relay", "wss://x.test"], "no relay wss://x.test is followed").await;
}

#[tokio::test]
async fn a_resync_is_due_at_once_and_is_recorded() {
    let desk = Desk::new().await;
    desk.says(&["resync", "wss://a.example.com"], &["1 relay is verified again"]).await;
    let due: bool = sqlx::query_scalar(
        "select resync_due_at <= now() from grasp_relay where url = 'wss://a.example.com'",
    )
    .fetch_one(&desk.0.db)
    .await
    .unwrap();
    assert!(due);
    desk.says(&["resync", "--all"], &["9 relays"]).await;
    desk.refuses(&["resync", "wss://x.test"], "no relay wss://x.test is followed").await;
    assert_eq!(desk.types(&["resync"]).await.0, 2);
    let actions = tender_jobs::console::operator::last(&desk.0.db, 10).await.unwrap();
    let told: Vec<_> =
        actions.iter().map(|one| (one.action.as_str(), one.target.as_str())).collect();
    let expected = [
        ("resync_grasp", "wss://x.test"), // refused
        ("resync_grasp", "all"),
        ("resync_grasp", "wss://a.example.com"),
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_plan_prints_the_filters_without_taking_items_in_flight() {
    let desk = Desk::new().await;
    let b = ["plan", "wss://b.example.com"];
    desk.says(&b, &["nothing is due: 0 of 4 items delivered, 1 in flight, 3 missing"]).await;
    sqlx::query("update grasp_coverage set retry_at = now()").execute(&desk.0.db).await.unwrap();
    let words = ["state: 1 item, after 2 attempts that failed", "\"#A\"", ALPHA, "\"authors\""];
    desk.says(&b, &words).await;
    let plan = desk.json(&b).await;
    assert_eq!(
        (&plan["batches"][0]["filters"][0], &plan["batches"][1]["filters"][0]),
        (&json!({"kinds": [30618], "#d": ["alpha"]}), &json!({"#a": [ALPHA]}))
    );
    let in_flight = "select count(*) from grasp_coverage where state = 'in_flight'";
    let in_flight: i64 = sqlx::query_scalar(in_flight).fetch_one(&desk.0.db).await.unwrap();
    assert_eq!(in_flight, 1);
}

#[tokio::test]
async fn an_item_that_no_filter_can_name_has_no_next_try_and_says_why() {
    let desk = Desk::new().await;
    let long = "x".repeat(256);
    sqlx::query(
        "update grasp_coverage c set item = $1, reason = null from grasp_relay r
                 where r.id = c.relay_id and r.url = 'wss://b.example.com' and family = 'state'",
    )
    .bind(&long)
    .execute(&desk.0.db)
    .await
    .unwrap();
    let b = ["relay", "wss://b.example.com"];
    let out = desk.says(&b, &["longer than 255 characters", "no next try"]).await;
    let why = out.lines().skip_while(|line| !line.contains(&long)).nth(1).unwrap();
    assert!(why.ends_with("; no next try"), "{why}");
    let found = desk.json(&b).await;
    let rows = found["missing"].as_array().unwrap();
    let (hopeless, others): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row["item"] == long);
    assert_eq!((hopeless.len(), &hopeless[0]["retry_at"]), (1, &Value::Null));
    assert!(others.iter().any(|row| row["retry_at"].is_string()));
}

#[tokio::test]
async fn an_item_is_not_asked_for_before_its_relay_is_tried_again() {
    let desk = Desk::new().await;
    let found = desk.json(&["relay", "wss://dead.example.com"]).await;
    let next = &found["relay"]["next_attempt_at"];
    for row in found["missing"].as_array().unwrap() {
        assert_eq!(&row["retry_at"], next, "{row}");
    }
}

#[tokio::test]
async fn subscriptions_that_the_relay_closed_are_shown_with_its_words() {
    let desk = Desk::new().await;
    let a = ["relay", "wss://a.example.com"];
    desk.says(&a, &["12 open\n"]).await;
    sqlx::query(
        "update grasp_relay set subscriptions_closed = 3, closed_reason = 'too many subscriptions',
                resync_note = 'nothing is confirmed'
         where url = 'wss://a.example.com'",
    )
    .execute(&desk.0.db)
    .await
    .unwrap();
    desk.says(&a, &["12 open, 3 closed by the relay: \u{201c}too many subscriptions\u{201d}"])
        .await;
    desk.says(&a, &["; nothing is confirmed"]).await;
    desk.says(&["relays"], &["12, 3 closed"]).await;
    let found = desk.json(&a).await;
    assert_eq!(found["relay"]["subscriptions_closed"], 3);
}
