//! Plans: which missing items are fetched together, and when again.

use std::time::Duration;

use sqlx::PgPool;
use tender_jobs::{
    grasp::{
        batch::{self, Again, Fetched},
        coverage,
        family::Family,
        followed::{self, Lease},
    },
    queue::Settled,
};

use super::{claim_one, relay, run, states, text, want};
use crate::support::TestDatabase;

#[tokio::test]
async fn a_plan_takes_100_items_of_the_first_family_that_is_due() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    let id = relay(db, "a").await;
    want(db, id, "deletion", &["ab"]).await;
    want(db, id, "announcements", &["*"]).await;
    let many: Vec<String> = (0..150).map(|number| format!("30617:aa:{number:03}")).collect();
    want(db, id, "address", &many.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let lease = claim_one(db, "one").await.lease;
    let mut plans = Vec::new();
    while let Some(batch) = coverage::plan(db, lease).await.unwrap() {
        plans.push((batch.family, batch.items.len()));
        batch::confirm(db, &batch, Fetched::default()).await.unwrap();
    }
    let (first, address) = (Family::Announcements, Family::Address);
    assert_eq!(plans, [(first, 1), (address, 100), (address, 50), (Family::Deletion, 1)]);
    assert_eq!(coverage::next_due(db, id).await.unwrap(), None);
    let mut confirmed = Vec::new();
    let mut after = None;
    while let Some((family, items)) = coverage::confirmed(db, id, after.as_ref()).await.unwrap() {
        after = items.last().map(|last| (family, last.clone()));
        confirmed.push((family, items.len()));
    }
    assert_eq!(confirmed, plans, "a verification walks through the same items");
}

#[tokio::test]
async fn a_failed_batch_makes_its_items_missing_and_is_halved() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    let id = relay(db, "a").await;
    let many: Vec<String> = (0..100).map(|number| format!("{number:03}")).collect();
    want(db, id, "state", &many.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let lease = claim_one(db, "one").await.lease;
    let mut sizes = Vec::new();
    while let Some(batch) = coverage::plan(db, lease).await.unwrap() {
        sizes.push(batch.items.len());
        // The relay does not bear the item 007.
        if batch.items.iter().any(|item| item == "007") && sizes.len() < 20 {
            batch::fail(db, &batch, "error: 007", Again::Later, Fetched::default()).await.unwrap();
            let delay = coverage::next_due(db, id).await.unwrap().unwrap();
            let attempts = batch_attempts(db).await;
            let wanted = (65 << (attempts - 1)).min(3600);
            assert!(
                (wanted - 5..=wanted).contains(&delay.as_secs()) || delay.is_zero(),
                "{delay:?} {attempts}"
            );
            run(db, "update grasp_coverage set retry_at = now() where state = 'missing'").await;
        } else {
            batch::confirm(db, &batch, Fetched::default()).await.unwrap();
        }
    }
    assert_eq!(sizes[..2], [100, 50]);
    let missing: Vec<_> =
        states(db).await.into_iter().filter(|(_, state)| state == "missing").collect();
    assert!(missing.len() <= 1, "only the bad item is left: {missing:?}");
}

async fn batch_attempts(db: &PgPool) -> u64 {
    let sql = "select max(attempts)::bigint from grasp_coverage where item = '007'";
    u64::try_from(sqlx::query_scalar::<_, i64>(sql).fetch_one(db).await.unwrap()).unwrap()
}

#[tokio::test]
async fn an_item_that_no_filter_can_name_waits_alone() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    let id = relay(db, "a").await;
    want(db, id, "state", &["bad", "good"]).await;
    let lease = claim_one(db, "one").await.lease;
    let batch = coverage::plan(db, lease).await.unwrap().unwrap();
    let bad = ["bad".to_owned()];
    batch::refuse(db, &batch, &bad, "too long", Again::Tomorrow).await.unwrap();
    batch::confirm(db, &batch, Fetched::default()).await.unwrap();
    let (missing, confirmed) = ("missing".to_owned(), "confirmed".to_owned());
    assert_eq!(states(db).await, [("bad".to_owned(), missing), ("good".to_owned(), confirmed)]);
    let due = coverage::next_due(db, id).await.unwrap().unwrap();
    assert!(due > Duration::from_hours(23));
}

#[tokio::test]
async fn a_lost_wake_up_is_repaired() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    let id = relay(db, "a").await;
    let lease = claim_one(db, "one").await.lease;
    followed::connected(db, lease).await.unwrap();
    assert_eq!(followed::wake_due(db).await.unwrap(), 0);
    want(db, id, "state", &["x"]).await;
    run(db, "update grasp_coverage set retry_at = now() - interval '20 s'").await;
    assert_eq!(followed::wake_due(db).await.unwrap(), 1);
    assert_eq!(followed::tick(db, "one", false).await.unwrap().plans, [id]);
    assert!(followed::tick(db, "one", false).await.unwrap().plans.is_empty());
}

#[tokio::test]
async fn what_cannot_be_verified_is_missing_and_waits() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    let id = relay(db, "a").await;
    want(db, id, "state", &["x", "y"]).await;
    let lease = claim_one(db, "one").await.lease;
    let batch = coverage::plan(db, lease).await.unwrap().unwrap();
    batch::confirm(db, &batch, Fetched::default()).await.unwrap();
    let items = ["x".to_owned()];
    let lost = coverage::lose(db, lease, Family::State, &items, ("refused", true)).await.unwrap();
    assert_eq!(lost, Settled::Written(()));
    let found = "select string_agg(concat_ws(' ', item, state, reason, attempts), ',' order by item) from grasp_coverage";
    assert_eq!(text(db, found).await, "x missing refused 1,y confirmed 0");
    assert!(coverage::plan(db, lease).await.unwrap().is_none(), "it waits");
    let old = Lease { epoch: lease.epoch - 1, ..lease };
    let lost = coverage::lose(db, old, Family::State, &items, ("refused", true)).await.unwrap();
    assert_eq!(lost, Settled::LeaseLost);
}

#[tokio::test]
async fn the_size_of_the_batch_that_failed_is_halved_and_grows_after_a_success() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    let id = relay(db, "a").await;
    let many: Vec<String> = (0..40).map(|number| format!("{number:03}")).collect();
    want(db, id, "state", &many.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let lease = claim_one(db, "one").await.lease;
    let mut sizes = Vec::new();
    for _ in 0..3 {
        let batch = coverage::plan(db, lease).await.unwrap().unwrap();
        sizes.push(batch.items.len());
        batch::fail(db, &batch, "error", Again::Later, Fetched::default()).await.unwrap();
        run(db, "update grasp_coverage set retry_at = now() where item < '020'").await;
    }
    assert_eq!(sizes, [40, 20, 10]);
    let batch = coverage::plan(db, lease).await.unwrap().unwrap();
    batch::confirm(db, &batch, Fetched::default()).await.unwrap();
    let size = "select string_agg(distinct batch_size::text, ',') from grasp_coverage where state = 'confirmed'";
    assert_eq!(text(db, size).await, "20");
}

#[tokio::test]
async fn the_walks_of_a_filter_go_on_where_all_of_its_items_have_come() {
    use tender_jobs::{grasp::coverage::Walked, mirror::filter::Filter};
    let world = TestDatabase::new().await;
    let db = &world.pool;
    let id = relay(db, "a").await;
    want(db, id, "address", &["x", "y", "z"]).await;
    let lease = claim_one(db, "one").await.lease;
    let tagged = |tag: char, items: &[&str]| Filter {
        tags: [(tag, items.iter().map(|item| (*item).to_owned()).collect())].into(),
        ..Filter::default()
    };
    let now = tender_jobs::queue::now(db).await.unwrap().timestamp();
    let batch = coverage::plan(db, lease).await.unwrap().unwrap();
    let of_batch = &batch;
    let note = |filter: Filter, at: i64, until: i64| async move {
        let walked = Walked { at, until };
        coverage::note_walked(db, of_batch, &filter, walked).await.unwrap();
    };
    note(tagged('a', &["x"]), now - 60, 500).await;
    note(tagged('a', &["y"]), now - 30, 700).await;
    note(tagged('A', &["x"]), now - 90_000, 500).await;
    let read = |tag: char, items: &[&str]| {
        let filter = tagged(tag, items);
        async move { coverage::walked(db, id, Family::Address, &filter).await.unwrap() }
    };
    assert_eq!(read('a', &["x", "y"]).await, Some(Walked { at: now - 60, until: 700 }));
    assert_eq!(read('a', &["x", "z"]).await, None, "one of them was never walked");
    assert_eq!(read('A', &["x"]).await, None, "too old: what was published since is too much");
    batch::confirm(db, &batch, Fetched::default()).await.unwrap();
    assert_eq!(read('a', &["x", "y"]).await, None, "a confirmed item begins anew");
}

#[tokio::test]
async fn the_walk_of_a_batch_does_not_count_for_items_that_were_asked_for_again() {
    use tender_jobs::{grasp::coverage::Walked, mirror::filter::Filter};
    let world = TestDatabase::new().await;
    let db = &world.pool;
    let id = relay(db, "a").await;
    want(db, id, "state", &["x"]).await;
    let lease = claim_one(db, "one").await.lease;
    let former = coverage::plan(db, lease).await.unwrap().unwrap();
    run(db, "update grasp_coverage set state = 'missing', batch = null, walked = '{}'").await;
    let filter = Filter { tags: [('d', ["x".to_owned()].into())].into(), ..Filter::default() };
    let now = tender_jobs::queue::now(db).await.unwrap().timestamp();
    let walked = Walked { at: now, until: 500 };
    let note = |batch| {
        let filter = &filter;
        async move {
            coverage::note_walked(db, batch, filter, walked).await.unwrap();
            coverage::walked(db, id, Family::State, filter).await.unwrap()
        }
    };
    assert_eq!(note(&former).await, None);
    let latter = coverage::plan(db, lease).await.unwrap().unwrap();
    assert_eq!(note(&former).await, None);
    assert_eq!(note(&latter).await, Some(walked));
    coverage::forget_walked(db, Lease { epoch: lease.epoch - 1, ..lease }).await.unwrap();
    assert_eq!(note(&latter).await, Some(walked));
    coverage::forget_walked(db, lease).await.unwrap();
    assert_eq!(coverage::walked(db, id, Family::State, &filter).await.unwrap(), None);
}
