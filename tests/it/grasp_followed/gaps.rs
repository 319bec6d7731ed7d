//! Gaps: parts of a history that a relay did not show.

use tender_jobs::{
    grasp::{coverage, family::Family, followed::Lease},
    mirror::lane::gap::Gap,
};

use super::{claim_one, relay, run, text};
use crate::support::TestDatabase;

#[tokio::test]
async fn a_gap_is_forgotten_by_a_later_pass_that_does_not_find_it() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    relay(db, "a").await;
    let lease: Lease = claim_one(db, "one").await.lease;
    let items = ["x".to_owned(), "y".to_owned()];
    let note = |gaps: Vec<Gap>| async move {
        let items = ["x".to_owned(), "y".to_owned()];
        coverage::note_gaps(db, lease, Family::State, &items, &gaps, None).await.unwrap();
    };
    note(vec![Gap::second(7, "full"), Gap::second(9, "full")]).await;
    note(vec![Gap::second(9, "full")]).await;
    let found = "select string_agg(concat_ws(' ', item, items, since), ',') from grasp_gap";
    assert_eq!(text(db, found).await, "x 2 9");
    coverage::note_gaps(db, lease, Family::State, &items, &[], None).await.unwrap();
    assert_eq!(text(db, "select count(*)::text from grasp_gap").await, "0");
}

#[tokio::test]
async fn a_gap_of_recent_events_is_added_to_those_of_the_history() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    relay(db, "a").await;
    let lease: Lease = claim_one(db, "one").await.lease;
    let items = ["x".to_owned()];
    let (old, new) = ([Gap::second(7, "full")], [Gap::second(9, "full")]);
    coverage::note_gaps(db, lease, Family::State, &items, &old, None).await.unwrap();
    coverage::add_gaps(db, lease, Family::State, &items, &new).await.unwrap();
    let found = "select string_agg(since::text, ',' order by since) from grasp_gap";
    assert_eq!(text(db, found).await, "7,9");
}

#[tokio::test]
async fn the_end_of_a_pass_in_parts_keeps_the_gaps_of_its_parts_only() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    relay(db, "a").await;
    let lease: Lease = claim_one(db, "one").await.lease;
    let items = ["x".to_owned()];
    let gap = |second| [Gap::second(second, "full")];
    coverage::add_gaps(db, lease, Family::State, &items, &gap(5)).await.unwrap();
    run(db, "update grasp_gap set seen_at = now() - interval '2 hours'").await;
    coverage::add_gaps(db, lease, Family::State, &items, &gap(7)).await.unwrap();
    let begun = tender_jobs::queue::now(db).await.unwrap().timestamp() - 3600;
    let last = gap(9);
    coverage::note_gaps(db, lease, Family::State, &items, &last, Some(begun)).await.unwrap();
    let found = "select string_agg(since::text, ',' order by since) from grasp_gap";
    assert_eq!(text(db, found).await, "7,9");
}
