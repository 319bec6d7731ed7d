//! Limits that are lowered and raised, and lists that must not grow.

use std::collections::BTreeSet;

use nostr::key::Keys;
use tender_jobs::grasp::{
    batch,
    service::{self, ServiceChange},
    wanted,
};

use crate::support::grasp_store::{AT, GraspStore, announcement};

async fn limit(grasp: &GraspStore, max_relays: i32) -> i32 {
    let change = ServiceChange { max_relays: Some(max_relays), ..ServiceChange::default() };
    service::update(&grasp.world.db, grasp.service.id, &change).await.unwrap();
    wanted::reconcile(&grasp.world.db).await.unwrap();
    grasp.release().await;
    wanted::reconcile(&grasp.world.db).await.unwrap();
    service::find(&grasp.world.db, "git.example.com").await.unwrap().unwrap().relays_over_limit
}

fn set(urls: &[&str]) -> BTreeSet<String> {
    urls.iter().map(|&url| url.to_owned()).collect()
}

#[tokio::test]
async fn a_lower_limit_lets_the_newest_relays_go_and_a_higher_one_takes_them_again() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    for (n, relays) in
        [["wss://d.test", "wss://c.test"], ["wss://c.test", "wss://b.test"]].iter().enumerate()
    {
        let at = AT + i64::try_from(n).unwrap();
        grasp.deliver(&[announcement(&keys, at, &format!("x{n}"), relays)]).await;
    }
    grasp.deliver(&[announcement(&keys, AT, "y", &["wss://a.test", "wss://d.test"])]).await;
    assert_eq!(grasp.wanted().await.len(), 4);
    // Found in this order: c and d in one transaction, then b, then a.
    assert_eq!(limit(&grasp, 3).await, 1);
    assert_eq!(grasp.wanted().await, set(&["wss://b.test", "wss://c.test", "wss://d.test"]));
    assert_eq!(limit(&grasp, 1).await, 4);
    assert_eq!(grasp.wanted().await, set(&["wss://c.test"]));
    let coverage = grasp.coverage().await;
    assert!(coverage.iter().all(|(url, ..)| url == "wss://c.test"), "{coverage:?}");
    grasp.assert_settled().await;
    assert_eq!(limit(&grasp, 100).await, 0);
    assert_eq!(grasp.wanted().await.len(), 4);
    grasp.assert_settled().await;
}

#[tokio::test]
async fn a_relay_keeps_its_latest_batches_and_those_that_are_open() {
    let grasp = GraspStore::new().await;
    grasp
        .run("insert into grasp_batch (relay_id, epoch, family, purpose, items, status, begun_at, ended_at)
              select id, 1, 'root', 'missing', n, case when n % 100 = 0 then 'open' else 'done' end,
                     now() - make_interval(secs => n), case when n % 100 = 0 then null else now() end
              from grasp_relay, generate_series(1, 1000) n")
        .await;
    assert_eq!(batch::prune(&grasp.world.db).await.unwrap(), 790);
    assert_eq!(grasp.count("select count(*) from grasp_batch where status = 'open'").await, 10);
    assert_eq!(grasp.count("select count(*) from grasp_batch where status = 'done'").await, 200);
    assert_eq!(
        grasp.count("select max(items)::bigint from grasp_batch where status = 'done'").await,
        202
    );
    assert_eq!(batch::prune(&grasp.world.db).await.unwrap(), 0);
}
