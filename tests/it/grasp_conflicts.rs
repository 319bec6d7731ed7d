//! What services cannot share, and what a service and the mirror decide on together.

use nostr::key::Keys;
use serde_json::json;
use tender_jobs::{
    grasp::service::{self, NewService, ServiceChange, ServiceError},
    mirror::upstream::{self, Change, Direction, Upstream, UpstreamError},
};

use crate::support::{
    grasp_store::{AT, GraspStore, SERVICE, announcement, new_service},
    mirror::MirrorWorld,
};

fn told<T: std::fmt::Debug>(result: Result<T, ServiceError>) -> String {
    match result {
        Err(ServiceError::Invalid(problems)) => problems.join("; "),
        other => panic!("{other:?}"),
    }
}

fn named(url: &str, names: &[&str]) -> NewService {
    NewService { names: names.iter().map(|&name| name.to_owned()).collect(), ..new_service(url) }
}

#[tokio::test]
async fn a_name_belongs_to_one_service() {
    let grasp = GraspStore::new().await;
    let db = &grasp.world.db;
    let other = "wss://other.example.com";
    let error = told(service::create(db, &named(other, &["GIT.example.com"])).await);
    assert!(error.contains("git.example.com") && error.contains(SERVICE), "{error}");
    assert!(service::find(db, other).await.unwrap().is_none());
    assert!(upstream::list(db).await.unwrap().iter().all(|one| one.url != other));
    let second = service::create(db, &named(other, &["other.example.com"])).await.unwrap();
    let names = Some(vec!["other.example.com".to_owned(), "git.example.com".to_owned()]);
    let change = ServiceChange { names, ..ServiceChange::default() };
    let error = told(service::update(db, second.id, &change).await);
    assert!(error.contains(SERVICE), "{error}");
    let unchanged = service::find(db, other).await.unwrap().unwrap();
    assert_eq!((unchanged.names, unchanged.policy_rev), (second.names, second.policy_rev));
    // A name is free once its service is being removed.
    service::delete(db, grasp.service.id, None).await.unwrap();
    service::update(db, second.id, &change).await.unwrap();
}

#[tokio::test]
async fn two_services_that_come_at_once_do_not_get_one_name() {
    let world = MirrorWorld::new().await;
    for round in 0..5 {
        let name = format!("shared{round}.example.com");
        let urls = [0, 1].map(|n| format!("wss://relay{n}-{round}.example.com"));
        let new = urls.each_ref().map(|url| named(url, &[&name]));
        let (one, two) =
            tokio::join!(service::create(&world.db, &new[0]), service::create(&world.db, &new[1]));
        assert_eq!([one.is_ok(), two.is_ok()].iter().filter(|ok| **ok).count(), 1);
        let error = told(if one.is_ok() { two } else { one });
        assert!(error.contains(&name), "{error}");
    }
}

#[tokio::test]
async fn a_service_does_not_start_from_itself() {
    let grasp = GraspStore::new().await;
    let db = &grasp.world.db;
    let itself = |url: &str| ServiceChange {
        bootstrap: Some(vec![url.to_owned()]),
        ..ServiceChange::default()
    };
    for own in [SERVICE, "wss://git.example.com:443/", "ws://git.example.com/other"] {
        let error = told(service::update(db, grasp.service.id, &itself(own)).await);
        assert!(error.contains("own relay"), "{own}: {error}");
    }
    let new = NewService {
        bootstrap: vec!["wss://second.example.com".to_owned()],
        ..new_service("wss://second.example.com")
    };
    let error = told(service::create(db, &new).await);
    assert!(error.contains("own relay"), "{error}");
    assert_eq!(grasp.count("select count(*) from grasp_bootstrap").await, 0);
    service::update(db, grasp.service.id, &itself("wss://start.test")).await.unwrap();
}

/// The settings that a service changes.
fn settings(of: &Upstream) -> (bool, bool, bool, bool, Direction) {
    (of.enabled, of.live, of.backfill, of.negentropy, of.direction)
}

#[tokio::test]
async fn an_upstream_has_its_former_settings_again_when_its_service_is_removed() {
    let world = MirrorWorld::new().await;
    let all = [
        json!({"direction": "up", "live": false, "backfill": false, "negentropy": false}),
        json!({"direction": "both", "enabled": false}),
        json!({"direction": "down", "live": true, "backfill": false, "negentropy": true}),
    ];
    for (n, fields) in all.into_iter().enumerate() {
        let url = format!("wss://git{n}.example.com");
        let before = world.upstream(&url, fields).await;
        let service = service::create(&world.db, &new_service(&url)).await.unwrap();
        let during = upstream::find(&world.db, before.id).await.unwrap().unwrap();
        assert!(during.admission && during.live && during.direction == Direction::Both);
        assert!(service::delete(&world.db, service.id, None).await.unwrap());
        let after = upstream::find(&world.db, before.id).await.unwrap().unwrap();
        assert_eq!(settings(&after), settings(&before));
        assert!(after.mirrored && !after.admission);
    }
}

#[tokio::test]
async fn the_mirror_does_not_change_what_a_service_decides() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    grasp.deliver(&[announcement(&keys, AT, "x", &[])]).await;
    let (db, id) = (&grasp.world.db, grasp.service.id);
    let before = upstream::find(db, id).await.unwrap().unwrap();
    let changes = [
        ("url", Change { url: Some("wss://new.example.com".to_owned()), ..Change::default() }),
        ("direction", Change { direction: Some("down".to_owned()), ..Change::default() }),
        ("filter", Change { config: Some(json!({"filter": {"kinds": [1]}})), ..Change::default() }),
    ];
    for (field, change) in changes {
        let error = upstream::update(db, id, &change).await.unwrap_err();
        assert!(matches!(error, UpstreamError::DecidedByService { .. }), "{field}: {error:?}");
        let error = error.to_string();
        assert!(error.contains(field) && error.contains(SERVICE), "{error}");
        assert!(error.contains("tender grasp remove"), "{error}");
        let after = upstream::find(db, id).await.unwrap().unwrap();
        assert_eq!(
            (&after.url, after.direction, &after.config),
            (&before.url, before.direction, &before.config)
        );
    }
    let harmless = Change {
        url: Some(before.url.clone()),
        direction: Some("both".to_owned()),
        notes: Some("ours".to_owned()),
        ..Change::default()
    };
    upstream::update(db, id, &harmless).await.unwrap();
}
