//! Parked events: what judges them again, what forgets them, and what is told of them.

use nostr::{event::Event, key::Keys};
use tender_jobs::{
    grasp::{
        admission, parked,
        service::{self, ServiceChange},
    },
    mirror::event::Stored,
};

use crate::support::{
    grasp_store::{AT, GraspStore, address, announcement, elsewhere, id_of, issue, parsed},
    relays::{event as make, note},
};

#[tokio::test]
async fn a_change_of_the_policy_judges_parked_events_again_and_keeps_accepted_ones() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    let (ours, theirs) = (announcement(&keys, AT, "x", &[]), elsewhere(&keys, AT, "y"));
    grasp.deliver(&[ours.clone(), theirs.clone()]).await;
    let author = keys.public_key().to_hex();
    let policy = |policy| ServiceChange { policy: Some(policy), ..ServiceChange::default() };
    let archive = policy(serde_json::json!({ "accept_all": true }));
    service::update(&grasp.world.db, grasp.service.id, &archive).await.unwrap();
    grasp.scan().await;
    assert_eq!(grasp.rule(&theirs).await.as_deref(), Some("archive"));
    let block = policy(serde_json::json!({ "blocked_authors": [author] }));
    service::update(&grasp.world.db, grasp.service.id, &block).await.unwrap();
    grasp.scan().await;
    assert!(grasp.rule(&ours).await.is_some());
    let late = issue(&keys, AT, &address(&keys, "x"));
    grasp.deliver(std::slice::from_ref(&late)).await;
    assert_eq!(grasp.reason(&late).await.as_deref(), Some("blocked-author"));
}

#[tokio::test]
async fn parked_events_age_out_and_the_oldest_go_first() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    let orphans: Vec<Event> = (0..6).map(|n| note(&keys, AT, &format!("orphan {n}"))).collect();
    for orphan in &orphans {
        grasp.deliver(std::slice::from_ref(orphan)).await;
    }
    let first = "update parked set expires_at = now() where event_id = $1";
    sqlx::query(first).bind(orphans[5].id.to_bytes()).execute(&grasp.world.db).await.unwrap();
    let expired = parked::expire_beyond(&grasp.world.db, 3).await.unwrap();
    assert_eq!((expired.expired, expired.evicted), (1, 2));
    let left = grasp.parked().await;
    let is_left = |orphan: &Event| left.contains_key(&orphan.id.to_hex());
    let are_left: Vec<bool> = orphans.iter().map(is_left).collect();
    assert_eq!(are_left, [false, false, true, true, true, false]);
    assert_eq!(grasp.count("select count(distinct event_id) from parked_key").await, 3);
}

#[tokio::test]
async fn a_large_event_is_fetched_again_when_it_is_released() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    let to = address(&keys, "x");
    let large = make(&keys, 1621, AT, &"x".repeat(20_000), vec![vec!["a", &to]]);
    grasp.deliver(std::slice::from_ref(&large)).await;
    assert_eq!(grasp.count("select count(*) from parked where body is null").await, 1);
    grasp.deliver(&[announcement(&keys, AT, "x", &[])]).await;
    grasp.release().await;
    assert_eq!(grasp.parked().await.len(), 0, "nothing keeps it from being fetched");
    assert_eq!(grasp.deliver(&[large]).await, [Stored::New]);
}

#[tokio::test]
async fn an_explanation_names_the_rule_or_what_the_event_waits_for() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    let (repo, root) = (announcement(&keys, AT, "x", &[]), issue(&keys, AT, &address(&keys, "x")));
    let explain = async |event: &Event| {
        admission::explain(&grasp.world.db, &parsed(event)).await.unwrap().remove(0)
    };
    let told = explain(&root).await;
    assert_eq!((told.verdict, told.code), ("refused", "orphan"));
    assert!(told.waits_for[0].contains(&address(&keys, "x")), "{told:?}");
    assert_eq!(explain(&repo).await.code, "names-service");
    assert_eq!(grasp.count("select count(*) from admission").await, 0, "nothing is written");
    grasp.deliver(std::slice::from_ref(&repo)).await;
    assert_eq!(explain(&repo).await.verdict, "accepted");
    let told = explain(&root).await;
    assert_eq!((told.verdict, told.code), ("would-be-accepted", "repository"));
    assert_eq!(told.through, [address(&keys, "x")]);
    let found = admission::find_event(&grasp.world.db, id_of(&repo)).await.unwrap();
    assert_eq!(found, Some(parsed(&repo)));
}

/// Puts events that wait for `key` among the parked ones.
async fn park(grasp: &GraspStore, events: i32, key: &str) {
    for sql in [
        "insert into parked (upstream_id, event_id, kind, pubkey, created_at, reason, detail, policy_rev, expires_at)
         select upstream_id, sha256(n::text::bytea), 1111, sha256('a'), 0, 'orphan', $2, 1, now() + interval '1 day'
         from grasp_service, generate_series(1, $1) n",
        "insert into parked_key (upstream_id, key, event_id)
         select upstream_id, $2, event_id from parked where $1 > 0",
    ] {
        sqlx::query(sql).bind(events).bind(key).execute(&grasp.world.db).await.unwrap();
    }
}

/// One acceptance releases some of the events that wait for it, and a job the rest, page by page.
#[tokio::test]
async fn what_waits_for_one_key_is_released_in_pages_each_event_once() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    let root = issue(&keys, AT, &address(&keys, "x"));
    park(&grasp, 7000, &format!("e:{}", root.id.to_hex())).await;
    grasp.deliver(&[announcement(&keys, AT, "x", &[]), root]).await;
    let at_once = grasp.count("select count(*) from grasp_release").await;
    assert!((1..=5000).contains(&at_once), "{at_once} in the transaction that accepts");
    let mut gone = 0;
    for _ in 0..100 {
        let Some(page) = parked::released(&grasp.world.db, grasp.service.id).await.unwrap() else {
            break;
        };
        assert!(page.judged + page.gone <= 200);
        gone += page.gone; // they have no body
        assert!(grasp.count("select count(*) from grasp_release").await <= 5000);
    }
    assert_eq!(gone, 7000, "each once");
    assert_eq!(grasp.count("select count(*) from parked").await, 0);
    assert_eq!(grasp.count("select count(*) from grasp_release").await, 0);
}

/// The process dies between two pages: recovery enqueues the job for what is left.
#[tokio::test]
async fn the_rest_of_a_key_is_released_after_a_crash() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    let root = issue(&keys, AT, &address(&keys, "x"));
    park(&grasp, 7000, &format!("e:{}", root.id.to_hex())).await;
    grasp.deliver(&[announcement(&keys, AT, "x", &[]), root]).await;
    while grasp.count("select count(*) from grasp_release").await > 0 {
        parked::released(&grasp.world.db, grasp.service.id).await.unwrap();
    }
    grasp.run("delete from apalis.jobs").await;
    assert_eq!(parked::resume_releases(&grasp.world.db).await.unwrap(), 1);
    grasp.release().await;
    assert_eq!(grasp.count("select count(*) from parked").await, 0);
}
