//! The comparison of a relay's coverage with all that is wanted from it.

use nostr::key::Keys;
use tender_jobs::grasp::wanted;

use crate::support::{
    eventually,
    grasp_store::{AT, GraspStore, announcement},
};

const OF_MANY: &str =
    "select count(*) from grasp_coverage c join grasp_relay g on g.id = c.relay_id
                       where g.url = 'wss://a.test' and c.family in ('state', 'address')";

/// A relay of 1,200 repositories without coverage, which has an item that nothing wants.
async fn many_repositories() -> GraspStore {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    grasp.deliver(&[announcement(&keys, AT, "x", &["wss://a.test"])]).await;
    for fill in [
        "insert into grasp_repo (upstream_id, address, pubkey, identifier, announcement_id, announced_at)
         select upstream_id, '30617:' || n, pubkey, 'many-' || n, announcement_id, announced_at
         from grasp_repo, generate_series(1, 1200) n",
        "insert into grasp_repo_relay (upstream_id, address, url)
         select upstream_id, address, 'wss://a.test' from grasp_repo on conflict do nothing",
        "insert into grasp_coverage (relay_id, family, item)
         select id, 'address', 'surplus' from grasp_relay where url = 'wss://a.test'",
        "update grasp_relay set reconciled_at = null where url = 'wss://a.test'",
    ] {
        grasp.run(fill).await;
    }
    grasp
}

/// All admissions wait for the lock under which coverage is repaired, so a relay of many repositories must not hold it for
/// long.
#[tokio::test]
async fn a_large_relay_is_compared_page_by_page_and_again_if_it_was_marked_meanwhile() {
    let grasp = many_repositories().await;
    let mut holder = tender_jobs::database::begin(&grasp.world.db).await.unwrap();
    let locked = "select true from grasp_coverage where item = 'surplus' for update";
    sqlx::query(locked).execute(&mut *holder).await.unwrap();
    let db = grasp.world.db.clone();
    let comparison = tokio::spawn(async move { wanted::reconcile(&db).await.unwrap() });
    eventually("what is missing was added", async || grasp.count(OF_MANY).await == 2 * 1201 + 1)
        .await;
    grasp.run("update grasp_relay set reconciled_at = null, comparing_since = null where url = 'wss://a.test'").await;
    holder.rollback().await.unwrap();
    let found = comparison.await.unwrap();
    assert_eq!((found.added, found.deleted), (2 * 1200, 1));
    let again = wanted::reconcile(&grasp.world.db).await.unwrap();
    assert_eq!((again.relays, again.added, again.deleted), (1, 0, 0));
    assert_eq!(wanted::reconcile(&grasp.world.db).await.unwrap().relays, 0);
}

#[tokio::test]
async fn a_relay_that_is_being_compared_is_left_to_that_comparison_for_five_minutes() {
    let grasp = many_repositories().await;
    let since = async |ago: &'static str| {
        grasp.run(ago).await;
        wanted::reconcile(&grasp.world.db).await.unwrap().added
    };
    assert_eq!(
        since("update grasp_relay set comparing_since = now() - interval '4 minutes'").await,
        0
    );
    assert_eq!(
        since("update grasp_relay set comparing_since = now() - interval '6 minutes'").await,
        2400
    );
}

#[tokio::test]
async fn a_relay_that_cannot_be_compared_holds_up_no_other() {
    let (grasp, keys) = (GraspStore::new().await, Keys::generate());
    grasp.deliver(&[announcement(&keys, AT, "x", &["wss://a.test", "wss://b.test"])]).await;
    for damage in [
        "insert into grasp_coverage (relay_id, family, item)
         select id, 'root', 'no id' from grasp_relay where url = 'wss://a.test'",
        "delete from grasp_coverage c using grasp_relay g
         where g.id = c.relay_id and g.url = 'wss://b.test' and c.family = 'state'",
        "update grasp_relay set reconciled_at = null",
    ] {
        grasp.run(damage).await;
    }
    wanted::reconcile(&grasp.world.db).await.unwrap_err();
    let mended = "select count(*) from grasp_coverage c join grasp_relay g on g.id = c.relay_id
                  where g.url = 'wss://b.test' and c.family = 'state'";
    assert_eq!(grasp.count(mended).await, 1);
    assert_eq!(
        grasp.count("select count(*) from grasp_relay where comparing_since is not null").await,
        0
    );
}
