//! The relays that wait for a zooid instance: their list, few and many, and their release.

use std::{collections::HashSet, sync::Arc};

use tender_jobs::{
    provision::{
        SYNC_RELAY,
        relay::{self, RelayId, Search},
    },
    queue,
};
use tender_workers::{provision::Context, runtime::Listen};
use tokio_util::sync::CancellationToken;

use crate::support::{World, eventually, run_workers, settings};

/// Inserts relays of which those with an even number wait for `http://out`, and the others for `http://other`.
async fn wait(world: &World, relays: i32) {
    sqlx::query(
        "with relays as (
             insert into relay (id, tenant_pubkey, subdomain, zooid_domain, schema, policy_public_read,
                 policy_public_write, policy_public_join, policy_strip_signatures, groups_enabled,
                 management_enabled, members_can_invite, blossom_enabled, livekit_enabled, push_enabled)
             select gen_random_uuid()::text, repeat('ab', 32), 'w' || n, 'zooid.test', 'w' || n, false, false,
                    false, false, false, false, false, false, false, false
             from generate_series(1, $1) n
             returning id, substr(subdomain, 2)::int as n
         )
         insert into apalis.jobs (id, job_type, job, status, max_attempts, run_at, idempotency_key, metadata)
         select 'job-' || n, 'sync-relay', '{}', 'Pending', 7, now() + interval '1 hour', 'relay:' || id,
                hstore('held_by', case when n % 2 = 0 then 'http://out' else 'http://other' end)
         from relays",
    )
    .bind(relays)
    .execute(&world.db)
    .await
    .unwrap();
}

/// Reads all pages of the list of those that wait for `http://out`.
async fn listed(world: &World) -> HashSet<String> {
    let held_by = Some("http://out".to_owned());
    let mut search = Search { held_by, ..Search::default() };
    let mut hosts = HashSet::new();
    loop {
        let page = relay::search(&world.db, &search, 1000).await.unwrap();
        let Some(last) = page.last() else { return hosts };
        search.after = Some(last.id.parse::<RelayId>().unwrap());
        for row in page {
            assert!(hosts.insert(row.host.clone()), "{} is listed twice", row.host);
        }
    }
}

fn even(most: i32) -> HashSet<String> {
    (1..=most).filter(|n| n % 2 == 0).map(|n| format!("w{n}.zooid.test")).collect()
}

#[tokio::test]
async fn the_list_has_exactly_the_relays_that_wait_for_the_instance() {
    let world = World::new().await;
    wait(&world, 20).await;
    world.relay("no-one").await;
    assert_eq!(listed(&world).await, even(20));
    let filter = Search { held_by: Some("http://out".to_owned()), ..Search::default() };
    assert_eq!(relay::list(&world.db, &filter, 100).await.unwrap().len(), 10);
}

#[tokio::test]
async fn more_relays_than_can_be_named_are_listed_too() {
    let world = World::new().await;
    wait(&world, 10_100).await;
    assert_eq!(listed(&world).await, even(10_100));
}

/// A process that runs already finds what another one left.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_held_for_an_instance_without_an_outage_is_released() {
    let world = World::new().await;
    let zooid = Arc::clone(&world.context.zooid);
    let context = Context::new(&world.db, zooid, settings(), &Listen::Pool);
    let (stop, name) = (CancellationToken::new(), context.instances.default.clone());
    let stopping = stop.clone();
    let running = tokio::spawn(async move { run_workers(&context, stopping).await });
    eventually("the process works", async || {
        let workers = queue::workers(&world.db).await.unwrap();
        workers.iter().filter(|one| one.process == "test" && one.is_alive).count() > 4
    })
    .await;
    queue::pause(&world.db, SYNC_RELAY, "test", None).await.unwrap();
    let relay = world.relay("held").await;
    sqlx::query(
        "update apalis.jobs set run_at = now() + interval '1 hour', metadata = hstore('held_by', $1)
         where idempotency_key = 'relay:' || $2",
    )
    .bind(name)
    .bind(relay.id.as_str())
    .execute(&world.db)
    .await
    .unwrap();
    queue::resume(&world.db, SYNC_RELAY).await.unwrap();
    eventually("it is synced", async || world.reload(&relay).await.synced).await;
    stop.cancel();
    running.await.unwrap();
}
