//! The order of arrival: within a batch, and over batches.

use nostr::{event::Event, key::Keys};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tender_jobs::mirror::event::{Reason, Stored};

use crate::support::{
    grasp_store::{AT, GraspStore, address, announcement, comment, elsewhere, issue},
    relays::{event as make, note},
};

/// A deletion takes the right to write with it, although the batch has the state before it.
#[tokio::test]
async fn a_deletion_counts_before_the_other_events_of_its_batch() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    let repo = announcement(&keys, AT, "x", &["wss://a.test"]);
    grasp.deliver(std::slice::from_ref(&repo)).await;
    let state = make(&keys, 30618, AT + 1, "", vec![vec!["d", "x"]]);
    let root = issue(&Keys::generate(), AT + 1, &address(&keys, "x"));
    let deletion = make(&keys, 5, AT + 2, "", vec![vec!["e", &repo.id.to_hex()]]);
    let stored = grasp.deliver(&[state.clone(), root.clone(), deletion]).await;
    let refused = Stored::Refused(Reason::NotAdmitted);
    assert_eq!(stored, [refused, refused, Stored::New]);
    assert_eq!(grasp.reason(&state).await.as_deref(), Some("not-a-maintainer"));
    assert_eq!(grasp.reason(&root).await.as_deref(), Some("orphan"));
    assert!(!grasp.wanted().await.contains("wss://a.test"));
    grasp.assert_settled().await;
}

/// The announcement itself comes with its deletion.
#[tokio::test]
async fn an_announcement_that_comes_with_its_deletion_admits_nothing() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    let repo = announcement(&keys, AT, "x", &["wss://a.test"]);
    let state = make(&keys, 30618, AT + 1, "", vec![vec!["d", "x"]]);
    let deletion = make(&keys, 5, AT + 2, "", vec![vec!["a", &address(&keys, "x")]]);
    grasp.deliver(&[repo.clone(), state.clone(), deletion]).await;
    assert_eq!((grasp.rule(&repo).await, grasp.rule(&state).await), (None, None));
    assert_eq!(grasp.count("select count(*) from grasp_repo where left_at is null").await, 0);
    grasp.assert_settled().await;
}

/// A world in small: repositories, replies to replies, maintainers, quotes and strangers.
fn events_of_a_small_world() -> Vec<Event> {
    let keys: Vec<Keys> = (0..4).map(|_| Keys::generate()).collect();
    let repo = announcement(&keys[0], AT, "x", &["wss://a.test"]);
    let other = announcement(&keys[1], AT, "x", &["wss://b.test"]);
    let root = issue(&keys[2], AT + 1, &address(&keys[0], "x"));
    let reply = comment(&keys[3], AT + 2, &root);
    let answer = comment(&keys[2], AT + 3, &reply);
    let quoted = note(&keys[3], AT, "quoted");
    let quote = make(
        &keys[1],
        1111,
        AT + 4,
        "",
        vec![vec!["E", &root.id.to_hex()], vec!["q", &quoted.id.to_hex()]],
    );
    let on_quoted = comment(&keys[0], AT + 5, &quoted);
    let state = make(&keys[1], 30618, AT + 5, "", vec![vec!["d", "x"]]);
    let stray = note(&keys[2], AT, "stray");
    let foreign = elsewhere(&keys[3], AT, "x");
    let left = announcement(&keys[3], AT, "y", &["wss://c.test"]);
    let gone = elsewhere(&keys[3], AT + 1, "y");
    vec![
        repo, other, root, reply, answer, quoted, quote, on_quoted, state, stray, foreign, left,
        gone,
    ]
}

/// Whatever the order of arrival and the batches, the same events are accepted.
#[test]
fn any_order_of_arrival_ends_with_the_same_accepted_events() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let events = events_of_a_small_world();
    let clean = runtime.block_on(async {
        let grasp = GraspStore::new().await;
        grasp.deliver(&events).await;
        grasp.release().await;
        (grasp.admitted().await.into_keys().collect::<Vec<_>>(), grasp.coverage().await)
    });
    let grasp = runtime.block_on(GraspStore::new());
    let order = Just((0..events.len()).collect::<Vec<_>>()).prop_shuffle();
    let case = (order, proptest::collection::vec(1_usize..6, 13));
    let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
    let run = TestRunner::new(config).run(&case, |(order, sizes)| {
        runtime.block_on(async {
            grasp
                .run("truncate event, event_head, event_source, known_id, admission, parked,
                      parked_key, grasp_release, grasp_wake, grasp_repo, grasp_repo_relay, grasp_root, grasp_author,
                      grasp_coverage, grasp_outbox, upload_verdict, apalis.jobs cascade")
                .await;
            grasp.run("delete from grasp_relay where url <> 'wss://followed.test'").await;
            let mut rest: Vec<Event> = order.iter().map(|place| events[*place].clone()).collect();
            for size in sizes {
                let batch: Vec<Event> = rest.drain(..size.min(rest.len())).collect();
                grasp.deliver(&batch).await;
            }
            grasp.deliver(&rest).await;
            grasp.release().await;
            let admitted: Vec<String> = grasp.admitted().await.into_keys().collect();
            // An old version of what left is accepted if it comes first; the wanted is the same.
            let old = events[11].id.to_hex();
            let without = |ids: &[String]| -> Vec<String> {
                ids.iter().filter(|id| **id != old).cloned().collect()
            };
            prop_assert_eq!(without(&admitted), without(&clean.0));
            prop_assert_eq!(grasp.coverage().await, clean.1.clone());
            Ok(())
        })
    });
    run.unwrap();
}
