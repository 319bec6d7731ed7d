//! Services: adding, changing and removing them, and the scan of the store.

use std::time::Duration;

use nostr::{event::Event, key::Keys};
use serde_json::json;
use tender_jobs::{
    console::operator,
    grasp::{
        service::{self, NewService, ServiceChange, ServiceError},
        wanted,
    },
    mirror::upstream::{self, Change, Direction, UpstreamError},
};

use crate::support::{
    grasp_store::{AT, GraspStore, SERVICE, address, announcement, comment, issue, new_service},
    mirror::MirrorWorld,
    relays::{event as make, note},
};

#[tokio::test]
async fn a_service_adopts_its_upstream_and_starts_from_its_bootstrap_relays() {
    let world = MirrorWorld::new().await;
    let before = world.upstream(SERVICE, json!({"direction": "down", "live": false})).await;
    let bootstrap = vec!["wss://Start.test/".to_owned(), "wss://start.test".to_owned()];
    let new = NewService { bootstrap, by: Some("tester".to_owned()), ..new_service(SERVICE) };
    let service = service::create(&world.db, &new).await.unwrap();
    assert_eq!(service.id, before.id);
    assert_eq!(service.names, ["git.example.com"]);
    assert_eq!(service.bootstrap, ["wss://start.test"]);
    let relay = upstream::find(&world.db, service.id).await.unwrap().unwrap();
    assert!(relay.admission && relay.live && relay.enabled && relay.direction == Direction::Both);
    let covered: i64 = sqlx::query_scalar("select count(*) from grasp_coverage where item = '*'")
        .fetch_one(&world.db)
        .await
        .unwrap();
    assert_eq!(covered, 1);
    let told = operator::last(&world.db, 1).await.unwrap().remove(0);
    assert_eq!((told.who.as_str(), told.action.as_str()), ("tester", "add_service"));
    let again = service::create(&world.db, &new_service(SERVICE)).await;
    assert!(matches!(again, Err(ServiceError::Taken)), "{again:?}");
}

#[tokio::test]
async fn every_mistake_of_a_new_service_is_named() {
    let world = MirrorWorld::new().await;
    let new = NewService {
        url: "https://git.example.com".to_owned(),
        names: vec!["a/b".to_owned()],
        bootstrap: vec!["wss://127.0.0.1".to_owned()],
        policy: Some(json!({"accept_all": 1})),
        max_relays: Some(0),
        direction: Some("sideways".to_owned()),
        ..NewService::default()
    };
    let error = service::create(&world.db, &new).await.unwrap_err().to_string();
    for field in ["Url", "Name", "Bootstrap", "Policy accept_all", "Max relays", "Direction"] {
        assert!(error.contains(field), "{field}: {error}");
    }
    let nothing = ServiceChange::default();
    let missing = service::update(&world.db, uuid::Uuid::new_v4(), &nothing).await;
    assert!(matches!(missing, Err(ServiceError::NotFound)));
}

#[tokio::test]
async fn the_relay_of_a_service_is_removed_with_the_service_only() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    let id = grasp.service.id;
    let refused = upstream::delete(&grasp.world.db, id, None).await;
    assert!(matches!(refused, Err(UpstreamError::OfService)), "{refused:?}");
    let root = issue(&keys, AT, &address(&keys, "x"));
    let orphan = note(&keys, AT, "orphan");
    grasp.deliver(&[announcement(&keys, AT, "x", &["wss://a.test"]), root, orphan]).await;
    assert!(service::delete(&grasp.world.db, id, Some("tester")).await.unwrap());
    assert!(!service::delete(&grasp.world.db, id, None).await.unwrap());
    wanted::reconcile(&grasp.world.db).await.unwrap();
    assert!(grasp.coverage().await.is_empty());
    while service::remove_page(&grasp.world.db, id).await.unwrap() {}
    assert_eq!(grasp.count("select count(*) from admission").await, 0);
    assert_eq!(grasp.count("select count(*) from parked").await, 0);
    assert_eq!(grasp.count("select count(*) from grasp_repo").await, 0);
    assert!(service::find(&grasp.world.db, SERVICE).await.unwrap().is_none());
    let relay = upstream::find(&grasp.world.db, id).await.unwrap().unwrap();
    assert!(!relay.admission && relay.direction == Direction::Down);
    assert!(!relay.mirrored && !relay.enabled, "`add` created it: the mirror does not download it");
    assert!(upstream::delete(&grasp.world.db, id, None).await.unwrap());
}

#[tokio::test]
async fn an_upstream_that_became_a_service_is_an_upstream_again() {
    let world = MirrorWorld::new().await;
    let change = Change { url: Some(SERVICE.to_owned()), ..Change::default() };
    let before = upstream::create(&world.db, &change).await.unwrap();
    let service = service::create(&world.db, &new_service(SERVICE)).await.unwrap();
    assert!(service::delete(&world.db, service.id, None).await.unwrap());
    let after = upstream::find(&world.db, before.id).await.unwrap().unwrap();
    assert!(after.mirrored && after.enabled && after.direction == Direction::Down);
}

#[tokio::test]
async fn a_relay_that_refuses_the_events_of_others_is_known_with_its_reason() {
    let grasp = GraspStore::new().await;
    assert_eq!(grasp.service.authors_only_reason, None);
    let reason = "restricted: only the author may publish";
    upstream::note_authors_only(&grasp.world.db, grasp.service.id, reason).await.unwrap();
    let service = service::find(&grasp.world.db, "git.example.com").await.unwrap().unwrap();
    assert_eq!(service.authors_only_reason.as_deref(), Some(reason));
}

/// The store of a mirror, in the order that is worst for the scan: what depends comes first.
fn history(keys: &[Keys]) -> (Vec<Event>, Vec<Event>) {
    let repo = announcement(&keys[0], AT, "x", &["wss://a.test"]);
    let root = issue(&keys[1], AT, &address(&keys[0], "x"));
    let reply = comment(&keys[2], AT, &root);
    let answer = comment(&keys[1], AT + 1, &reply);
    let quoted = note(&keys[3], AT, "quoted");
    let id = quoted.id.to_hex();
    let quote = make(&keys[1], 1111, AT, "", vec![vec!["E", &root.id.to_hex()], vec!["q", &id]]);
    let on_quoted = comment(&keys[2], AT + 2, &quoted);
    let state = make(&keys[0], 30618, AT, "", vec![vec!["d", "x"]]);
    let list = make(&keys[3], 10317, AT, "", vec![vec!["g", SERVICE]]);
    let belongs = vec![on_quoted, quoted, answer, quote, reply, root, state, list, repo];
    let strays = (0..30).map(|n| note(&keys[3], AT, &format!("stray {n}"))).collect();
    (belongs, strays)
}

#[tokio::test]
async fn a_new_service_finds_what_the_store_has_whatever_came_first() {
    let world = MirrorWorld::new().await;
    let keys: Vec<Keys> = (0..4).map(|_| Keys::generate()).collect();
    let (belongs, strays) = history(&keys);
    for (event, stray) in belongs.iter().zip(&strays) {
        world.put(&[event.clone(), stray.clone()]).await;
    }
    let service = service::create(&world.db, &new_service(SERVICE)).await.unwrap();
    let grasp = GraspStore::over(world, service).await;
    grasp.scan().await;
    for event in &belongs {
        assert!(grasp.rule(event).await.is_some(), "{}: {}", event.kind, event.content);
    }
    assert_eq!(grasp.admitted().await.len(), belongs.len());
    assert!(grasp.wanted().await.contains("wss://a.test"));
    grasp.assert_settled().await;
    // What comes later is found by the next scan, from where the last one ended.
    let late = issue(&keys[3], AT + 9, &address(&keys[0], "x"));
    grasp.world.put(std::slice::from_ref(&late)).await;
    assert!(service::resume(&grasp.world.db).await.unwrap() <= 1);
    let page = service::scan_page(&grasp.world.db, grasp.service.id).await.unwrap();
    assert_eq!((page.judged, page.more), (1, false));
    assert!(grasp.rule(&late).await.is_some());
}

/// To look for parked events that the policy would release reads all of them.
#[tokio::test]
async fn a_scan_reads_the_parked_events_at_its_start_and_its_end_alone() {
    let world = MirrorWorld::new().await;
    let keys = Keys::generate();
    for apart in [
        "alter table event alter position restart with 10000",
        "alter table event alter position restart with 20000",
        "alter table event alter position restart with 30000",
    ] {
        sqlx::query(apart).execute(&world.db).await.unwrap();
        world.put(&[note(&keys, AT, apart)]).await;
    }
    let service = service::create(&world.db, &new_service(SERVICE)).await.unwrap().id;
    assert!(service::scan_page(&world.db, service).await.unwrap().more);
    let mut locked = tender_jobs::database::begin(&world.db).await.unwrap();
    sqlx::query("lock table parked in access exclusive mode").execute(&mut *locked).await.unwrap();
    let page = service::scan_page(&world.db, service);
    assert!(tokio::time::timeout(Duration::from_secs(10), page).await.unwrap().unwrap().more);
    locked.rollback().await.unwrap();
    assert!(!service::scan_page(&world.db, service).await.unwrap().more);
}
