//! What is followed: the history and the new events of the relays that announcements name.

use super::GraspWorld;
use crate::support::{
    grasp::{ANNOUNCEMENT, COMMENT, ISSUE, PATCH, PULL_REQUEST, announcement},
    relays::{RealRelay, note},
};
use nostr::key::Keys;

const STATUS: u16 = 1630;

#[tokio::test]
async fn everything_that_belongs_to_a_repository_is_fetched_and_nothing_else() {
    let (world, a) = (GraspWorld::new().await, RealRelay::start().await);
    let at = world.at;
    let repository = world.announcement("tool", &[&a.url], at);
    let address = world.address("tool");
    let issue = world.issue("tool", at + 1, "it breaks");
    let patch = world.other(PATCH, at + 2, "a patch", &[&["a", &address]]);
    let pull = world.other(PULL_REQUEST, at + 3, "a pull request", &[&["a", &address]]);
    let root = issue.id.to_hex();
    let comment = world.other(COMMENT, at + 4, "me too", &[&["E", &root], &["e", &root]]);
    let status = world.other(STATUS, at + 5, "", &[&["e", &root, "", "root"]]);
    let quote = world.other(1, at + 6, "look", &[&["q", &root]]);
    let unrelated = note(&Keys::generate(), at + 7, "good morning");
    let wanted = [&repository, &issue, &patch, &pull, &comment, &status, &quote];
    a.add(&wanted.map(Clone::clone)).await;
    a.add(std::slice::from_ref(&unrelated)).await;
    world.serve(&[&a.url]).await;
    let _running = world.run();
    world.arrives("the repository and all that belongs to it", &wanted).await;
    world.is_covered().await;
    assert!(!world.own.ids().await.contains(&unrelated.id.to_hex()));
    assert_eq!(world.accepted().await.len(), wanted.len());
}

#[tokio::test]
async fn each_way_to_refer_to_a_repository_or_root_is_followed_also_live() {
    let (world, a) = (GraspWorld::new().await, RealRelay::start().await);
    let at = world.at;
    let repository = world.announcement("tool", &[&a.url], at);
    let issue = world.issue("tool", at + 1, "it breaks");
    let (address, root) = (world.address("tool"), issue.id.to_hex());
    let references = |at: i64| {
        let tags = [("a", &address), ("A", &address), ("q", &address)];
        let tags = tags.into_iter().chain([("e", &root), ("E", &root), ("q", &root)]);
        let event = |(tag, value): (&str, &String)| world.other(COMMENT, at, tag, &[&[tag, value]]);
        tags.map(event).collect::<Vec<_>>()
    };
    let history = references(at + 2);
    a.add(&[repository, issue]).await;
    a.add(&history).await;
    world.serve(&[&a.url]).await;
    let _running = world.run();
    world.arrives("six references of the history", &history.iter().collect::<Vec<_>>()).await;
    world.is_in_step(&a.url).await;
    let live = references(at + 3600);
    a.add(&live).await;
    world.arrives("six references as they are published", &live.iter().collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn a_relay_that_a_found_announcement_names_is_followed_at_once() {
    let world = GraspWorld::new().await;
    let (a, b, c) = (RealRelay::start().await, RealRelay::start().await, RealRelay::start().await);
    let at = world.at;
    a.add(&[world.announcement("first", &[&b.url], at)]).await;
    let second = world.announcement("second", &[&c.url], at + 1);
    b.add(&[second]).await;
    let issue = world.issue("second", at + 2, "far away");
    c.add(std::slice::from_ref(&issue)).await;
    world.serve(&[&a.url]).await;
    let _running = world.run();
    world.arrives("the issue at the end of the chain", &[&issue]).await;
}

#[tokio::test]
async fn an_announcement_on_the_own_relay_starts_following() {
    let (world, a) = (GraspWorld::new().await, RealRelay::start().await);
    let issue = world.issue("tool", world.at + 1, "elsewhere");
    a.add(std::slice::from_ref(&issue)).await;
    world.serve(&[]).await;
    let _running = world.run();
    world.own.add(&[world.announcement("tool", &[&a.url], world.at)]).await;
    world.arrives("the issue of the relay that the announcement names", &[&issue]).await;
}

#[tokio::test]
async fn a_newer_announcement_without_a_relay_ends_following_it() {
    let world = GraspWorld::new().await;
    let (a, b) = (RealRelay::start().await, RealRelay::start().await);
    world.serve(&[&a.url]).await;
    let _running = world.run();
    world.own.add(&[world.announcement("tool", &[&a.url, &b.url], world.at)]).await;
    world.is_in_step(&b.url).await;
    world.own.add(&[world.announcement("tool", &[&a.url], world.at + 1)]).await;
    crate::support::eventually("nothing names the relay any more", async || {
        let row: Option<(bool,)> =
            sqlx::query_as("select unwanted_since is not null from grasp_relay where url = $1")
                .bind(&b.url)
                .fetch_optional(&world.db)
                .await
                .unwrap();
        row == Some((true,))
    })
    .await;
    world.sql("update grasp_relay set unwanted_since = now() - interval '61 s' where unwanted_since is not null").await;
    crate::support::eventually("the relay is not followed any more", async || {
        world.status(&b.url).await.is_none()
    })
    .await;
    assert!(world.status(&a.url).await.is_some(), "a bootstrap relay stays");
}

#[tokio::test]
async fn a_name_that_only_resembles_ours_is_not_ours() {
    let (world, a) = (GraspWorld::new().await, RealRelay::start().await);
    let host = world.host().to_owned();
    let evil = [format!("ws://evil-{host}"), format!("ws://{host}.evil.test")];
    let events: Vec<_> = evil
        .iter()
        .enumerate()
        .map(|(number, url)| {
            let identifier = format!("evil{number}");
            announcement(&Keys::generate(), &identifier, &[url], &[&a.url], world.at)
        })
        .collect();
    let good = world.announcement("good", &[&a.url], world.at);
    a.add(&events).await;
    a.add(std::slice::from_ref(&good)).await;
    world.serve(&[&a.url]).await;
    let _running = world.run();
    world.arrives("the honest announcement", &[&good]).await;
    world.is_covered().await;
    assert_eq!(world.accepted().await, [good.id.to_hex()].into());
    let parked: i64 = sqlx::query_scalar("select count(*) from parked where kind = $1")
        .bind(i32::from(ANNOUNCEMENT))
        .fetch_one(&world.db)
        .await
        .unwrap();
    assert_eq!(parked, 2);
}

#[tokio::test]
async fn a_reply_that_comes_before_its_root_is_released_by_it() {
    let world = GraspWorld::new().await;
    let (a, b) = (RealRelay::start().await, RealRelay::start().await);
    let repository = world.announcement("tool", &[&a.url, &b.url], world.at);
    let issue = world.issue("tool", world.at + 1, "late");
    let comment = world.other(COMMENT, world.at + 2, "first", &[&["E", &issue.id.to_hex()]]);
    let reply = world.other(
        COMMENT,
        world.at + 3,
        "second",
        &[&["e", &comment.id.to_hex()], &["a", &world.address("tool")]],
    );
    a.add(&[repository, reply.clone(), comment.clone()]).await;
    world.serve(&[&a.url]).await;
    let _running = world.run();
    world.arrives("the reply that names the repository", &[&reply]).await;
    b.add(std::slice::from_ref(&issue)).await;
    world.arrives("the issue, and the comment on it", &[&issue, &comment]).await;
    let kinds: i64 = sqlx::query_scalar("select count(*) from grasp_root where kind = $1")
        .bind(i32::from(ISSUE))
        .fetch_one(&world.db)
        .await
        .unwrap();
    assert_eq!(kinds, 1);
}
