//! What is judged, asked for and followed again after a change.

use nostr::{event::Event, key::Keys};
use serde_json::json;
use tender_jobs::{
    grasp::{
        admission::Rejudged,
        parked,
        service::{self, NewService, ServiceChange, ServiceError},
        wanted,
    },
    mirror::event::{Gate, Reason, Stored},
    queue::Settled,
};

use crate::support::{
    grasp_store::{
        AT, GraspStore, SERVICE, address, announcement, comment, elsewhere, id_of, issue,
        new_service,
    },
    mirror::MirrorWorld,
    relays::{event as make, note},
};

async fn switch(grasp: &GraspStore, enabled: bool) {
    let change = ServiceChange { enabled: Some(enabled), ..ServiceChange::default() };
    service::update(&grasp.world.db, grasp.service.id, &change).await.unwrap();
}

async fn confirm(grasp: &GraspStore) {
    grasp.run("update grasp_coverage set state = 'confirmed', confirmed_at = now()").await;
    grasp.run("delete from grasp_outbox").await;
}

/// The families that are missing from a relay.
async fn missing(grasp: &GraspStore, url: &str) -> Vec<String> {
    sqlx::query_scalar(
        "select distinct family from grasp_coverage c join grasp_relay r on r.id = c.relay_id
         where r.url = $1 and c.state = 'missing' order by 1",
    )
    .bind(url)
    .fetch_all(&grasp.world.db)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_release_waits_while_its_service_is_disabled() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    let root = issue(&keys, AT, &address(&keys, "x"));
    let reply = comment(&keys, AT + 1, &root);
    grasp.deliver(std::slice::from_ref(&reply)).await;
    grasp.deliver(&[announcement(&keys, AT, "x", &[]), root]).await;
    switch(&grasp, false).await;
    let service = grasp.service.id;
    assert_eq!(parked::released(&grasp.world.db, service).await.unwrap(), None);
    // A page that was read before the service was disabled.
    let late = grasp.through(&Rejudged { service }, service, std::slice::from_ref(&reply)).await;
    assert_eq!(late, Settled::LeaseLost);
    assert_eq!(grasp.count("select count(*) from grasp_release").await, 1);
    assert_eq!(parked::resume_releases(&grasp.world.db).await.unwrap(), 0);
    switch(&grasp, true).await;
    grasp.release().await;
    assert_eq!(grasp.rule(&reply).await.as_deref(), Some("event"));
}

#[tokio::test]
async fn a_new_service_asks_its_relays_for_announcements_although_another_one_has_them() {
    let world = MirrorWorld::new().await;
    let start = |url| NewService { bootstrap: vec!["wss://r.test".into()], ..new_service(url) };
    let service = service::create(&world.db, &start(SERVICE)).await.unwrap();
    let grasp = GraspStore::over(world, service).await;
    confirm(&grasp).await;
    service::create(&grasp.world.db, &start("wss://second.example.com")).await.unwrap();
    assert_eq!(missing(&grasp, "wss://r.test").await, ["announcements"]);
    assert_eq!(grasp.count("select count(*) from grasp_outbox").await, 1);
    confirm(&grasp).await;
    let names = Some(vec!["other.example.com".to_owned()]);
    let change = ServiceChange { names, ..ServiceChange::default() };
    service::update(&grasp.world.db, grasp.service.id, &change).await.unwrap();
    assert_eq!(missing(&grasp, "wss://r.test").await, ["announcements"]);
}

#[tokio::test]
async fn a_shared_item_is_fetched_again_for_another_repository() {
    let (grasp, one, two) = (GraspStore::new().await, Keys::generate(), Keys::generate());
    grasp.deliver(&[announcement(&one, AT, "x", &["wss://a.test"])]).await;
    confirm(&grasp).await;
    grasp.deliver(&[announcement(&two, AT, "x", &["wss://a.test"])]).await;
    let state = "select count(*) from grasp_coverage where family = 'state' and state = 'missing'";
    assert_eq!(grasp.count(state).await, 1);
    let known = "select count(*) from grasp_coverage where family = 'announcements' and state = 'confirmed'";
    assert_eq!(grasp.count(known).await, 1);
    confirm(&grasp).await;
    grasp.deliver(&[announcement(&two, AT + 1, "x", &["wss://a.test"])]).await;
    assert_eq!(grasp.count(state).await, 0, "the same relay of the same repository");
}

#[tokio::test]
async fn nothing_is_decided_while_no_service_is_enabled() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    let repo = announcement(&keys, AT, "x", &["wss://a.test"]);
    grasp.deliver(std::slice::from_ref(&repo)).await;
    confirm(&grasp).await;
    switch(&grasp, false).await;
    let ids = [id_of(&note(&keys, AT, "unseen"))];
    let known = grasp.followed().known(&grasp.world.db, grasp.service.id, &ids).await.unwrap();
    assert!(known.is_empty());
    // It is enabled again before its coverage was deleted.
    switch(&grasp, true).await;
    let confirmed = "select count(*) from grasp_coverage where state = 'confirmed'";
    assert_eq!(grasp.count(confirmed).await, 0);
}

fn tagged(keys: &Keys, kind: u16, at: i64, tags: &[Vec<String>]) -> Event {
    let tags = tags.iter().map(|tag| tag.iter().map(String::as_str).collect()).collect();
    make(keys, kind, at, "", tags)
}

/// An announcement that lists a maintainer; `names_us` says that it names the service.
fn listing(keys: &Keys, at: i64, relay: &str, maintainer: Option<&Keys>, names_us: bool) -> Event {
    let mut tags = vec![vec!["d".to_owned(), "x".to_owned()]];
    tags.push(vec!["relays".into(), if names_us { SERVICE } else { relay }.into(), relay.into()]);
    tags.push(vec![
        "clone".into(),
        if names_us { "https://git.example.com/x" } else { "https://other.test/x" }.into(),
    ]);
    tags.extend(maintainer.map(|one| vec!["maintainers".into(), one.public_key().to_hex()]));
    tagged(keys, 30617, at, &tags)
}

#[tokio::test]
async fn a_former_maintainer_loses_the_repository_and_the_right_to_write() {
    for way in ["unlisted", "left", "deleted"] {
        let (grasp, a, b) = (GraspStore::new().await, Keys::generate(), Keys::generate());
        let c = Keys::generate();
        let of_b = listing(&b, AT, "wss://b.test", Some(&c), false);
        grasp.deliver(&[listing(&a, AT, "wss://a.test", Some(&b), true), of_b.clone()]).await;
        assert_eq!(grasp.rule(&of_b).await.as_deref(), Some("maintainer"));
        assert!(grasp.wanted().await.contains("wss://b.test"));
        let end = match way {
            "unlisted" => listing(&a, AT + 1, "wss://a.test", None, true),
            "left" => elsewhere(&a, AT + 1, "x"),
            _ => make(&a, 5, AT + 1, "", vec![vec!["a", &address(&a, "x")]]),
        };
        let state = |keys: &Keys, at| make(keys, 30618, at, "", vec![vec!["d", "x"]]);
        grasp.deliver(&[end, state(&c, AT + 1)]).await;
        assert!(!grasp.wanted().await.contains("wss://b.test"), "{way}");
        for (keys, at) in [(&b, AT + 2), (&c, AT + 3)] {
            let late = state(keys, at);
            grasp.deliver(std::slice::from_ref(&late)).await;
            assert_eq!(grasp.reason(&late).await.as_deref(), Some("not-a-maintainer"), "{way}");
        }
        grasp.assert_settled().await;
        grasp.deliver(&[listing(&a, AT + 9, "wss://a.test", Some(&b), true)]).await;
        grasp.release().await;
        assert!(grasp.wanted().await.contains("wss://b.test"), "{way}: listed again");
        grasp.assert_settled().await;
    }
}

#[tokio::test]
async fn a_repository_that_no_maintainer_lists_any_more_is_judged_again_once() {
    let (grasp, a, b) = (GraspStore::new().await, Keys::generate(), Keys::generate());
    let of_b = listing(&b, AT, "wss://b.test", Some(&a), false);
    grasp.deliver(&[listing(&a, AT, "wss://a.test", Some(&b), true), of_b]).await;
    grasp.deliver(&[listing(&a, AT + 1, "wss://a.test", None, true)]).await;
    let (of_a, of_b) = (address(&a, "x"), address(&b, "x"));
    grasp.deliver(&[make(&a, 1621, AT + 2, "", vec![vec!["a", &of_a], vec!["a", &of_b]])]).await;
    let mut rounds = 0;
    while parked::released(&grasp.world.db, grasp.service.id).await.unwrap().is_some() {
        rounds += 1;
        assert!(rounds < 4, "woken for ever");
    }
    assert!(!grasp.wanted().await.contains("wss://b.test"));
}

#[tokio::test]
async fn a_large_state_that_was_parked_is_asked_for_again() {
    let (grasp, a, b) = (GraspStore::new().await, Keys::generate(), Keys::generate());
    grasp.deliver(&[listing(&a, AT, "wss://a.test", None, true)]).await;
    let mut tags = vec![vec!["d".to_owned(), "x".to_owned()]];
    tags.extend((0..300).map(|n| vec![format!("refs/heads/{n}"), "ab".repeat(32)]));
    let large = tagged(&b, 30618, AT, &tags);
    grasp.deliver(std::slice::from_ref(&large)).await;
    assert_eq!(grasp.count("select count(*) from parked where body is null").await, 1);
    grasp.deliver(&[listing(&a, AT + 1, "wss://a.test", Some(&b), true)]).await;
    confirm(&grasp).await;
    grasp.release().await;
    assert_eq!(missing(&grasp, "wss://a.test").await, ["state"]);
    assert_eq!(grasp.count("select count(*) from parked").await, 0);
    assert_eq!(grasp.deliver(&[large]).await, [Stored::New]);
}

#[tokio::test]
async fn other_tags_do_not_count_among_references_and_every_reference_is_a_key() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    let to = address(&keys, "x");
    let mut tags: Vec<Vec<String>> = vec![vec!["p".into(), "ab".repeat(32)]; 200];
    tags.push(vec!["a".into(), to.clone()]);
    let crowded = tagged(&keys, 1621, AT, &tags);
    let root = issue(&keys, AT, &to);
    let strangers = (0..150).map(|n| vec!["e".to_owned(), format!("{n:064x}")]);
    let mut tags: Vec<Vec<String>> = strangers.collect();
    tags.push(vec!["e".into(), root.id.to_hex()]);
    let late = tagged(&keys, 1111, AT, &tags);
    grasp.deliver(std::slice::from_ref(&late)).await;
    grasp.deliver(&[announcement(&keys, AT, "x", &[]), root, crowded.clone()]).await;
    grasp.release().await;
    assert_eq!(grasp.rule(&crowded).await.as_deref(), Some("repository"));
    assert_eq!(grasp.rule(&late).await.as_deref(), Some("event"));
}

#[tokio::test]
async fn a_relay_beyond_the_limit_is_followed_when_there_is_room() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    let limit = ServiceChange { max_relays: Some(1), ..ServiceChange::default() };
    service::update(&grasp.world.db, grasp.service.id, &limit).await.unwrap();
    grasp.deliver(&[announcement(&keys, AT, "x", &["wss://a.test"])]).await;
    grasp.deliver(&[announcement(&keys, AT, "y", &["wss://b.test"])]).await;
    grasp.deliver(&[announcement(&keys, AT, "z", &["wss://c.test"])]).await;
    let over = "select relays_over_limit::bigint from grasp_service";
    assert_eq!(grasp.count(over).await, 2);
    grasp.deliver(&[elsewhere(&keys, AT + 1, "z")]).await;
    assert_eq!(grasp.count(over).await, 1);
    wanted::reconcile(&grasp.world.db).await.unwrap();
    assert_eq!(grasp.count("select count(*) from grasp_release").await, 0, "there is no room");
    grasp.deliver(&[elsewhere(&keys, AT + 1, "x")]).await;
    wanted::reconcile(&grasp.world.db).await.unwrap();
    grasp.release().await;
    assert!(grasp.wanted().await.contains("wss://b.test"));
    assert_eq!(grasp.count(over).await, 0);
    grasp.assert_settled().await;
}

#[tokio::test]
async fn an_event_that_is_admitted_while_nothing_is_uploaded_waits_for_the_upload() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    let repo = announcement(&keys, AT, "x", &[]);
    grasp.world.put(std::slice::from_ref(&repo)).await;
    grasp.run("update upstream set enabled = false where admission").await;
    grasp.deliver(&[repo]).await;
    let pending = "select count(*) from upload_verdict where verdict = 'pending'";
    assert_eq!(grasp.count(pending).await, 1);
}

#[tokio::test]
async fn an_upstream_with_a_filter_does_not_become_a_service() {
    let world = MirrorWorld::new().await;
    world.upstream(SERVICE, json!({"config": {"filter": {"kinds": [1]}}})).await;
    let refused = service::create(&world.db, &new_service(SERVICE)).await;
    assert!(matches!(refused, Err(ServiceError::Invalid(_))), "{refused:?}");
    let plain = world.upstream("wss://plain.test", json!({"config": {"filter": {}}})).await;
    let service = service::create(&world.db, &new_service("wss://plain.test")).await.unwrap();
    assert_eq!(service.id, plain.id);
}

#[tokio::test]
async fn the_author_of_a_reply_is_an_author_of_every_repository_of_its_root() {
    let (grasp, keys, other) = (GraspStore::new().await, Keys::generate(), Keys::generate());
    let (x, y, z) = (address(&keys, "x"), address(&keys, "y"), address(&keys, "z"));
    let tags = vec![vec!["a", x.as_str()], vec!["a", &y], vec!["a", &z]];
    let root = make(&keys, 1621, AT, "", tags);
    let of = |name, relay| announcement(&keys, AT, name, &[relay]);
    grasp.deliver(&[of("x", "wss://a.test"), of("y", "wss://b.test"), root.clone()]).await;
    grasp.deliver(&[comment(&other, AT, &root)]).await;
    let authors = async || {
        let found =
            sqlx::query_scalar::<_, i64>("select count(*) from grasp_author where pubkey = $1")
                .bind(other.public_key().to_bytes().to_vec())
                .fetch_one(&grasp.world.db);
        found.await.unwrap()
    };
    assert_eq!(authors().await, 2);
    grasp.deliver(&[of("z", "wss://c.test")]).await;
    assert_eq!(authors().await, 3, "the repository came later");
    grasp.assert_settled().await;
}

/// It is forgotten instead of judged for ever.
#[tokio::test]
async fn a_released_event_that_the_database_refuses_is_forgotten() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    let root = issue(&keys, AT, &address(&keys, "x"));
    let reply = make(&keys, 1111, AT, "a reply", vec![vec!["E", &root.id.to_hex()]]);
    grasp
        .run(
            "create function refuse() returns trigger language plpgsql as
               $$ begin raise exception 'no' using errcode = '22000'; end $$",
        )
        .await;
    grasp.deliver(std::slice::from_ref(&reply)).await;
    grasp.deliver(&[announcement(&keys, AT, "x", &[]), root]).await;
    grasp
        .run("create trigger refuse before insert on event for each row execute function refuse()")
        .await;
    grasp.release().await;
    assert_eq!(grasp.rule(&reply).await, None);
    assert_eq!(grasp.count("select count(*) from grasp_release").await, 0);
    let again = grasp.deliver(&[reply]).await;
    assert_eq!(again, [Stored::Refused(Reason::RefusedByStore)]);
}
