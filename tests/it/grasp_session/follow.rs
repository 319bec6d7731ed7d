//! Sessions: history, and then live.

use nostr::event::Event;

use super::{Process, World, now};
use crate::support::relays::{RealRelay, event, ids};

#[tokio::test]
async fn history_is_fetched_and_confirmed_and_then_followed_live() {
    let world = World::new().await;
    let real = RealRelay::start().await;
    let events = world.issues(30);
    real.add(&events).await;
    real.add(&[event(&world.keys, 1, now() - 60, "unrelated", Vec::new())]).await;
    world.relay(&real.url, &world.items()).await;
    let process = Process::start(&world.db);
    world.all_confirmed().await;
    world.in_step().await;
    assert_eq!(world.fetched().await, ids(&events), "and nothing that is not wanted");
    let fresh = world.issue(now(), "live");
    let early = world.issue(now() - 7200, "signed two hours ago");
    real.add(&[fresh.clone(), early.clone()]).await;
    world.has(&fresh).await;
    world.has(&early).await;
    process.stop().await;
    let left =
        "select count(*) from grasp_relay where lease_owner is not null or status <> 'waiting'";
    assert_eq!(world.number(left).await, 0);
    assert_eq!(world.number("select count(*) from grasp_process").await, 0);
}

#[tokio::test]
async fn every_tag_that_names_a_repository_or_a_root_is_asked_for() {
    let world = World::new().await;
    let real = RealRelay::start().await;
    let issue = world.issue(now() - 8000, "the root");
    world.accept(&issue).await;
    let root = issue.id.to_hex();
    let named = |tag: &str, value: &str| {
        event(&world.keys, 1111, now() - 100, &format!("{tag} {value}"), vec![vec![tag, value]])
    };
    let wanted: Vec<Event> = ["a", "A", "q"]
        .iter()
        .map(|tag| named(tag, &world.address))
        .chain(["e", "E", "q"].iter().map(|tag| named(tag, &root)))
        .collect();
    real.add(&wanted).await;
    let deletion = event(&world.keys, 5, now() - 50, "", vec![vec!["e", &"cd".repeat(32)]]);
    real.add(std::slice::from_ref(&deletion)).await;
    let author = world.keys.public_key().to_hex();
    world
        .relay(&real.url, &[("address", &world.address), ("root", &root), ("deletion", &author)])
        .await;
    let process = Process::start(&world.db);
    world.all_confirmed().await;
    let mut all = wanted;
    all.extend([deletion, issue]);
    assert_eq!(world.fetched().await, ids(&all));
    process.stop().await;
}

#[tokio::test]
async fn a_new_relay_and_a_new_item_are_followed_without_a_restart() {
    let world = World::new().await;
    let process = Process::start(&world.db);
    let real = RealRelay::start().await;
    let id = world.relay(&real.url, &[("announcements", "*")]).await;
    world.in_step().await;
    let old = world.issue(now() - 5000, "old");
    real.add(std::slice::from_ref(&old)).await;
    world.want(id, &[("address", &world.address)]).await;
    world.has(&old).await;
    world.all_confirmed().await;
    process.stop().await;
}
