//! What a service wants, and the coverage that follows from it.

use std::collections::BTreeSet;

use nostr::{event::Event, key::Keys};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tender_jobs::grasp::{
    service::{self, NewService, ServiceChange},
    wanted,
};

use crate::support::{
    grasp_store::{AT, GraspStore, address, announcement, comment, elsewhere, issue, new_service},
    relays::event as make,
};

fn items(url: &str, items: &[(&str, &str)]) -> BTreeSet<(String, String, String)> {
    let item =
        |(family, item): &(&str, &str)| (url.to_owned(), (*family).to_owned(), (*item).to_owned());
    items.iter().map(item).collect()
}

#[tokio::test]
async fn an_announcement_asks_its_relays_for_states_events_roots_and_deletions() {
    let (grasp, keys, other) = (GraspStore::new().await, Keys::generate(), Keys::generate());
    let root = issue(&other, AT, &address(&keys, "x"));
    grasp.deliver(&[announcement(&keys, AT, "x", &["wss://a.test"]), root.clone()]).await;
    let wanted = items(
        "wss://a.test",
        &[
            ("announcements", "*"),
            ("state", "x"),
            ("address", &address(&keys, "x")),
            ("root", &root.id.to_hex()),
            ("deletion", &keys.public_key().to_hex()),
            ("deletion", &other.public_key().to_hex()),
        ],
    );
    assert_eq!(grasp.coverage().await, wanted, "the service's own relay is not followed");
    assert_eq!(grasp.count("select count(*) from grasp_outbox where due_at > now()").await, 1);
    grasp.assert_settled().await;
}

#[tokio::test]
async fn the_history_of_an_item_that_is_asked_for_again_begins_anew() {
    let (grasp, keys, other) = (GraspStore::new().await, Keys::generate(), Keys::generate());
    grasp.deliver(&[announcement(&keys, AT, "x", &["wss://a.test"])]).await;
    let walked = "update grasp_coverage set state = 'missing', attempts = 2, retry_at = now() + interval '1 hour',
                      reason = 'slow', walked = '{\"d\": {\"at\": 1, \"until\": 1}}'";
    let anew = "select count(*) from grasp_coverage where walked = '{}' and attempts = 2
                and retry_at > now() + interval '30 minutes' and reason = 'slow'";
    grasp.run(walked).await;
    grasp.deliver(&[announcement(&other, AT, "x", &["wss://a.test"])]).await;
    assert_eq!(grasp.count(anew).await, 1, "the state of both repositories");
    grasp.run(walked).await;
    let bootstrap = vec!["wss://a.test".to_owned()];
    let second = NewService { bootstrap, ..new_service("wss://second.test") };
    service::create(&grasp.world.db, &second).await.unwrap();
    assert_eq!(grasp.count(anew).await, 1, "the announcements");
    grasp.run(walked).await;
    grasp.run("update grasp_coverage set state = 'confirmed', confirmed_at = now()").await;
    let third = NewService {
        bootstrap: vec!["wss://a.test".to_owned()],
        ..new_service("wss://third.test")
    };
    service::create(&grasp.world.db, &third).await.unwrap();
    let asked = "select count(*) from grasp_coverage where walked = '{}' and attempts = 0 and retry_at <= now()";
    assert_eq!(grasp.count(asked).await, 1, "announcements that were confirmed");
}

#[tokio::test]
async fn a_newer_announcement_replaces_the_relays() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    let root = issue(&keys, AT, &address(&keys, "x"));
    grasp.deliver(&[announcement(&keys, AT, "x", &["wss://a.test", "wss://b.test"]), root]).await;
    let other = announcement(&keys, AT, "y", &["wss://b.test"]);
    grasp
        .deliver(&[announcement(&keys, AT + 1, "x", &["wss://a.test", "wss://c.test"]), other])
        .await;
    let of = |items: &BTreeSet<(String, String, String)>, url: &str| {
        items.iter().filter(|(relay, ..)| relay == url).count()
    };
    let coverage = grasp.coverage().await;
    assert_eq!(of(&coverage, "wss://a.test"), of(&coverage, "wss://c.test"));
    assert_eq!(of(&coverage, "wss://b.test"), 4, "the other repository still names it");
    grasp.deliver(&[announcement(&keys, AT + 1, "y", &[])]).await;
    assert_eq!(of(&grasp.coverage().await, "wss://b.test"), 0);
    let unwanted = "select count(*) from grasp_relay where unwanted_since is not null and url = 'wss://b.test'";
    assert_eq!(grasp.count(unwanted).await, 1);
    grasp.deliver(&[announcement(&keys, AT, "x", &["wss://old.test"])]).await;
    assert!(!grasp.wanted().await.contains("wss://old.test"), "an older version changes nothing");
    grasp.assert_settled().await;
}

#[tokio::test]
async fn a_deleted_root_and_a_deleted_repository_are_not_wanted() {
    let (grasp, keys, other) = (GraspStore::new().await, Keys::generate(), Keys::generate());
    let to = address(&keys, "x");
    let (root, kept) = (issue(&other, AT, &to), issue(&keys, AT + 1, &to));
    let repo = announcement(&keys, AT, "x", &["wss://a.test"]);
    grasp.deliver(&[repo, root.clone(), kept.clone()]).await;
    let foreign = make(&other, 5, AT + 2, "", vec![vec!["e", &kept.id.to_hex()], vec!["a", &to]]);
    grasp
        .deliver(&[make(&other, 5, AT + 2, "", vec![vec!["e", &root.id.to_hex()]]), foreign])
        .await;
    let coverage = grasp.coverage().await;
    let has = |id: &Event| coverage.iter().any(|(_, _, item)| *item == id.id.to_hex());
    assert!(has(&kept) && !has(&root));
    grasp.assert_settled().await;
    grasp.deliver(&[make(&keys, 5, AT + 3, "", vec![vec!["a", &to]])]).await;
    assert_eq!(grasp.coverage().await, BTreeSet::new());
    grasp.assert_settled().await;
}

#[tokio::test]
async fn relays_beyond_the_limits_are_counted_and_not_followed() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    let limits = ServiceChange {
        max_relays: Some(3),
        max_relays_per_announcement: Some(2),
        ..ServiceChange::default()
    };
    service::update(&grasp.world.db, grasp.service.id, &limits).await.unwrap();
    let named = ["wss://a.test", "wss://b.test", "wss://c.test"];
    grasp.deliver(&[announcement(&keys, AT, "x", &named)]).await;
    grasp.deliver(&[announcement(&keys, AT, "y", &["wss://d.test", "wss://e.test"])]).await;
    grasp.deliver(&[announcement(&keys, AT, "z", &["wss://a.test"])]).await;
    let wanted: Vec<String> = grasp.wanted().await.into_iter().collect();
    assert_eq!(wanted, ["wss://a.test", "wss://b.test", "wss://d.test"]);
    assert_eq!(grasp.count("select sum(relays_cut) from grasp_repo").await, 1);
    let over = async || {
        let found = service::find(&grasp.world.db, "git.example.com").await.unwrap();
        found.unwrap().relays_over_limit
    };
    assert_eq!(over().await, 1);
    let raised = ServiceChange {
        max_relays: Some(100),
        max_relays_per_announcement: Some(20),
        ..ServiceChange::default()
    };
    service::update(&grasp.world.db, grasp.service.id, &raised).await.unwrap();
    grasp.scan().await;
    assert_eq!((grasp.wanted().await.len(), over().await), (5, 0));
    grasp.assert_settled().await;
}

#[tokio::test]
async fn a_root_that_was_accepted_before_its_repository_is_wanted_with_it() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    let root = issue(&keys, AT, &address(&keys, "x"));
    grasp.own(std::slice::from_ref(&root)).await;
    assert_eq!(grasp.count("select count(*) from grasp_root").await, 0);
    grasp.deliver(&[announcement(&keys, AT, "x", &["wss://a.test"])]).await;
    let coverage = grasp.coverage().await;
    assert!(coverage.iter().any(|(_, family, item)| family == "root" && *item == root.id.to_hex()));
    grasp.assert_settled().await;
}

#[tokio::test]
async fn a_service_that_is_off_wants_nothing_until_it_is_on_again() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    grasp.deliver(&[announcement(&keys, AT, "x", &["wss://a.test"])]).await;
    let before = grasp.coverage().await;
    let switch = async |enabled| {
        let change = ServiceChange { enabled: Some(enabled), ..ServiceChange::default() };
        service::update(&grasp.world.db, grasp.service.id, &change).await.unwrap();
        wanted::reconcile(&grasp.world.db).await.unwrap();
    };
    switch(false).await;
    assert_eq!(grasp.coverage().await, BTreeSet::new());
    assert_eq!(grasp.wanted().await, BTreeSet::new());
    switch(true).await;
    assert_eq!(grasp.coverage().await, before);
    assert_eq!(wanted::reconcile(&grasp.world.db).await.unwrap().relays, 0, "nothing is due");
}

/// One thing that happens in the property below: who, what, and the relays that it names.
type Step = (usize, usize, Vec<usize>);

fn event_of(step: &Step, keys: &[Keys], roots: &mut Vec<Event>, at: i64) -> Event {
    let (who, what, relays) = step;
    let (keys, name) = (&keys[who % keys.len()], ["x", "y"][what % 2]);
    let urls = ["wss://a.test", "wss://b.test", "wss://c.test"];
    let named: Vec<&str> = relays.iter().map(|relay| urls[relay % 3]).collect();
    match what % 9 {
        0..=3 => announcement(keys, at, name, &named),
        4 => elsewhere(keys, at, name),
        5 => match roots.get(relays.len()) {
            Some(root) => make(keys, 5, at, "", vec![vec!["e", &root.id.to_hex()]]),
            None => make(keys, 5, at, "", vec![vec!["a", &address(keys, name)]]),
        },
        6 => match roots.last() {
            Some(root) => comment(keys, at, root),
            None => issue(keys, at, &address(keys, name)),
        },
        _ => {
            let root = issue(keys, at, &address(keys, name));
            roots.push(root.clone());
            root
        }
    }
}

/// Whatever is announced, withdrawn, added and deleted, the coverage is what a comparison with all
/// wanted makes it.
#[test]
fn any_history_leaves_the_coverage_that_is_wanted() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let grasp = runtime.block_on(GraspStore::new());
    let step = (0_usize..3, 0_usize..18, proptest::collection::vec(0_usize..3, 0..3));
    let case = proptest::collection::vec((step, -3_i64..4), 1..25);
    let config = Config { cases: 32, failure_persistence: None, ..Config::default() };
    let run = TestRunner::new(config).run(&case, |steps| {
        runtime.block_on(async {
            let keys: Vec<Keys> = (0..3).map(|_| Keys::generate()).collect();
            let mut roots = Vec::new();
            for (number, (step, shift)) in steps.iter().enumerate() {
                let at = AT + i64::try_from(number).unwrap() * 2 + shift;
                let event = event_of(step, &keys, &mut roots, at);
                grasp.deliver(&[event]).await;
                grasp.release().await;
            }
            let before = grasp.coverage().await;
            let found = wanted::reconcile_all(&grasp.world.db).await.unwrap();
            prop_assert_eq!((found.added, found.deleted), (0, 0), "{:?}", before);
            Ok(())
        })
    });
    run.unwrap();
}
