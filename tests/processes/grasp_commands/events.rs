//! Parked and explained events.

use nostr::{event::Kind, key::Keys};
use serde_json::{Value, json};

use super::Desk;
use crate::support::api::{event, tag};

#[tokio::test]
async fn parked_events_are_counted_by_reason_and_listed() {
    let desk = Desk::new().await;
    desk.says(&["parked"], &["orphan", "names-another-service", "2"]).await;
    let (_, out, note) = desk.types(&["parked", "--reason", "orphan", "--limit", "1"]).await;
    assert!(out.contains("waits for the event ffff"), "{out}");
    let (_, mark) = note.split_once("--after ").unwrap();
    let next = desk.json(&["parked", "--reason", "orphan", "--after", mark.trim()]).await;
    assert_eq!(
        (&next["events"][0]["event_id"], &next["after"]),
        (&json!("d2".repeat(32)), &Value::Null)
    );
}

#[tokio::test]
async fn an_event_is_explained_by_rule_or_reason() {
    let desk = Desk::empty().await;
    desk.says(&["add", "wss://git.example.com"], &["added"]).await;
    let keys = Keys::generate();
    let urls = vec![
        tag("d", "alpha"),
        tag("clone", "https://git.example.com/alpha.git"),
        tag("relays", "wss://git.example.com"),
    ];
    let announcement = event(&keys, Kind::from(30617), urls, 0);
    let text = serde_json::to_string(&announcement).unwrap();
    let words = ["wss://git.example.com: would be accepted (names-service)", "clone URL"];
    desk.says(&["explain", &text], &words).await;
    let orphan = event(&keys, Kind::from(1111), vec![tag("e", &"ab".repeat(32))], 0);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), serde_json::to_string(&orphan).unwrap()).unwrap();
    let explain = ["explain", file.path().to_str().unwrap()];
    desk.says(&explain, &["refused (orphan)", "waits for"]).await;
    assert_eq!(desk.json(&explain).await[0]["verdict"], "refused");
    desk.refuses(&["explain", &text.replace("alpha", "beta")], "the event is forged").await;
    desk.refuses(&["explain", &"ab".repeat(32)], "is neither stored nor parked").await;
    desk.refuses(&["explain", "/nothing"], "is neither an event as JSON").await;
    desk.refuses(&["explain", "{}"], "is not a Nostr event").await;
}
