//! Mutations: each is whole or not there.

use serde_json::json;
use tender_jobs::{
    provision::relay::{self, Change, MutationError, NewRelay, RelayId, Status},
    queue::JobState,
};

use crate::support::{DOMAIN, World, by, change};

async fn rows(world: &World) -> (i64, i64, i64) {
    sqlx::query_as(
        "select (select count(*) from relay), (select count(*) from activity),
                (select count(*) from apalis.jobs)",
    )
    .fetch_one(&world.db)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_creation_is_relay_activity_and_job() {
    let world = World::new().await;
    let relay = world.relay("4-alpha").await;
    assert_eq!(rows(&world).await, (1, 1, 1));
    assert_eq!(relay.schema, format!("_4_alpha_{}", &relay.id.as_str()[..8]));
    let payload: serde_json::Value = serde_json::from_str(&world.job().await.payload).unwrap();
    let expected = json!({ "v": 1, "relay_id": relay.id, "cause": "create", "trace": "trace-1" });
    assert_eq!(payload, expected);
    let record = &world.records(&relay).await[0];
    assert_eq!(
        (&record.detail["by"], &record.tenant_pubkey),
        (&json!("test"), &relay.tenant_pubkey)
    );
}

#[tokio::test]
async fn a_taken_host_leaves_no_trace() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    let change = Change { subdomain: Some("alpha".into()), ..change() };
    let new = NewRelay::parse(relay.tenant_pubkey, &change, DOMAIN, &[DOMAIN.to_owned()]).unwrap();
    let refused = relay::create(&world.db, &new, &by()).await;
    assert!(matches!(refused, Err(MutationError::HostTaken(host)) if host == "alpha.zooid.test"));
    assert_eq!(rows(&world).await, (1, 1, 1));
}

#[tokio::test]
async fn a_change_to_a_taken_host_leaves_no_trace() {
    let world = World::new().await;
    world.relay("alpha").await;
    let beta = world.relay("beta").await;
    let change = Change { subdomain: Some("alpha".into()), ..change() };
    let refused = relay::update(&world.db, &beta.id, &change, &by()).await;
    assert!(matches!(refused, Err(MutationError::HostTaken(_))));
    assert_eq!(rows(&world).await, (2, 2, 2));
    assert_eq!(world.reload(&beta).await.generation, 1);
}

#[tokio::test]
async fn a_change_is_recorded_with_what_it_changed_and_keeps_the_schema() {
    let world = World::new().await;
    let relay = world.synced_relay("alpha").await;
    let change = Change {
        subdomain: Some("beta".into()),
        info_name: Some(String::new()),
        flags: vec![("push_enabled", false)],
        ..change()
    };
    let changed = relay::update(&world.db, &relay.id, &change, &by()).await.unwrap();
    assert!(changed.changed);
    assert_eq!((changed.relay.generation, changed.relay.synced), (2, false));
    assert_eq!(changed.relay.schema, relay.schema);
    let detail = world.records(&relay).await.pop().unwrap().detail;
    assert_eq!(detail["changed"], json!({ "subdomain": "beta", "push_enabled": false }));
}

#[tokio::test]
async fn a_change_that_changes_nothing_writes_nothing() {
    let world = World::new().await;
    let relay = world.synced_relay("alpha").await;
    let before = rows(&world).await;
    let same =
        Change { info_name: Some(String::new()), flags: vec![("push_enabled", true)], ..change() };
    assert!(!relay::update(&world.db, &relay.id, &same, &by()).await.unwrap().changed);
    assert!(!relay::set_status(&world.db, &relay.id, Status::Active, &by()).await.unwrap().changed);
    assert_eq!(rows(&world).await, before);
    assert!(world.reload(&relay).await.synced);
}

#[tokio::test]
async fn statuses_are_recorded_by_their_own_types() {
    let world = World::new().await;
    let relay = world.synced_relay("alpha").await;
    for status in [Status::Inactive, Status::Active, Status::Delinquent] {
        relay::set_status(&world.db, &relay.id, status, &by()).await.unwrap();
    }
    let history = world.history(&relay).await;
    assert_eq!(history[2..], ["deactivate_relay", "activate_relay", "deactivate_relay"]);
}

#[tokio::test]
async fn asking_again_makes_a_synced_relay_pending() {
    let world = World::new().await;
    let relay = world.synced_relay("alpha").await;
    let asked = relay::request_sync(&world.db, &relay.id, &by()).await.unwrap();
    assert!(!asked.synced);
    let waiting = world.jobs().await.into_iter().find(|job| job.summary.state == JobState::Waiting);
    assert_eq!(waiting.unwrap().summary.priority, 5);
}

#[tokio::test]
async fn what_is_not_there_is_not_changed() {
    let world = World::new().await;
    let id = RelayId::random();
    let missing = relay::update(&world.db, &id, &change(), &by()).await;
    assert!(matches!(missing, Err(MutationError::NotFound(_))));
    let missing = relay::set_status(&world.db, &id, Status::Inactive, &by()).await;
    assert!(matches!(missing, Err(MutationError::NotFound(_))));
    assert_eq!(rows(&world).await, (0, 0, 0));
}

#[tokio::test]
async fn a_changed_custom_domain_is_no_longer_verified() {
    let world = World::new().await;
    let custom = |text: &str| Change { custom_domain: Some(text.into()), ..change() };
    let relay = world.relay_with("alpha", custom("chat.example.com")).await;
    sqlx::query("update relay set custom_domain_verified = true").execute(&world.db).await.unwrap();
    let renamed = world.rename(&relay, "x").await;
    assert!(renamed.custom_domain_verified);
    let moved =
        relay::update(&world.db, &relay.id, &custom("other.example.com"), &by()).await.unwrap();
    assert!(!moved.relay.custom_domain_verified);
}

#[tokio::test]
async fn lists_filter_and_page() {
    let world = World::new().await;
    for name in ["alpha", "beta", "gamma"] {
        world.relay(name).await;
    }
    let hosts = async |filter: relay::Search, limit| -> Vec<String> {
        let relays = relay::list(&world.db, &filter, limit).await.unwrap();
        relays.iter().map(|relay| relay.subdomain.clone()).collect()
    };
    let all = relay::Search::default();
    assert_eq!(hosts(all.clone(), 10).await, ["gamma", "beta", "alpha"]);
    let first = relay::list(&world.db, &all, 2).await.unwrap();
    let after = relay::Search { after: Some(first[1].id.clone()), ..all.clone() };
    assert_eq!(hosts(after, 10).await, ["alpha"]);
    let query = relay::Search { text: Some("BETA".into()), ..all.clone() };
    assert_eq!(hosts(query, 10).await, ["beta"]);
    let synced = relay::Search { sync: Some(relay::SyncState::Synced), ..all.clone() };
    assert!(hosts(synced, 10).await.is_empty());
    let pending = relay::Search { sync: Some(relay::SyncState::Pending), ..all };
    assert_eq!(hosts(pending, 10).await.len(), 3);
    let summary = relay::summary(&world.db).await.unwrap();
    assert_eq!((summary.pending, summary.synced), (3, 0));
}
