//! Relays that give only a part of what is there.

use std::collections::HashSet;

use nostr::event::Event;

use super::GraspWorld;
use crate::support::scripted::{Manner, scripted};

async fn all_are_stored(page: usize) {
    let world = GraspWorld::new().await;
    let issues: Vec<Event> = (0..1201)
        .map(|number| world.issue("tool", world.at + number, &format!("issue {number}")))
        .collect();
    let mut events = issues.clone();
    events.push(world.announcement("tool", &[], world.at));
    let a = scripted(&events, Manner { page, ..Manner::default() }).await;
    world.serve(&[&a.url]).await;
    world.own.add(&[world.announcement("tool", &[&a.url], world.at + 1)]).await;
    let _running = world.run();
    world.arrives("every issue", &issues.iter().collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn a_history_of_more_pages_than_one_is_complete_with_500_a_page() {
    all_are_stored(500).await;
}

#[tokio::test]
async fn a_history_of_more_pages_than_one_is_complete_with_50_a_page() {
    all_are_stored(50).await;
}

#[tokio::test]
async fn a_second_with_more_events_than_a_page_is_stored_or_a_gap() {
    let world = GraspWorld::new().await;
    let issues: Vec<Event> =
        (0..600).map(|number| world.issue("tool", world.at, &format!("issue {number}"))).collect();
    let a = scripted(&issues, Manner { page: 500, ..Manner::default() }).await;
    world.serve(&[]).await;
    world.own.add(&[world.announcement("tool", &[&a.url], world.at + 1)]).await;
    let _running = world.run();
    crate::support::eventually("all are stored, or the second is a gap", async || {
        let accepted = world.accepted().await;
        let all: HashSet<String> = issues.iter().map(|event| event.id.to_hex()).collect();
        let gaps: i64 =
            sqlx::query_scalar("select count(*) from grasp_gap where since <= $1 and until >= $1")
                .bind(world.at)
                .fetch_one(&world.db)
                .await
                .unwrap();
        all.iter().all(|id| accepted.contains(id)) || (gaps > 0 && accepted.len() > 500)
    })
    .await;
}
