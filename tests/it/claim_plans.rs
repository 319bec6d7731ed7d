//! What claims and settlements read with plans that were made while the tables were empty.

use sqlx::{Executor, PgPool};
use tender_jobs::{
    provision::{self, Attempt, Claim, ClaimRequest, Completed, Completion},
    queue::Job,
};

use crate::support::{
    World,
    database::{in_a_session, read},
};

/// Fetches the one due job.
async fn fetched(world: &World) -> ClaimRequest {
    let job = world.fetch().await;
    let relay_id = serde_json::from_slice::<provision::SyncPayload>(&job.payload).unwrap().relay_id;
    ClaimRequest { job, relay_id }
}

/// Claims and settles a job in this session.
async fn carried(world: &World, db: &PgPool, request: &ClaimRequest) {
    let instances = &world.context.instances;
    let claims = provision::claim(db, std::slice::from_ref(request), instances).await.unwrap();
    let [Claim::Ready(lease)] = &claims[..] else { panic!("not claimed") };
    let job: Job = request.job.clone();
    let sent = serde_json::json!({ "host": lease.relay.host() });
    let completion = Completion { job, lease: *lease.clone(), attempt: Attempt::default(), sent };
    let done = provision::complete(db, &[completion], instances).await.unwrap();
    assert!(matches!(done[..], [Completed::Written { in_step: true, .. }]), "{done:?}");
}

/// Three thousand relays in step, each with an ended job, and none analysed.
async fn crowd(db: &PgPool) {
    let jobs = "insert into apalis.jobs (id, job_type, job, status, done_at)
                select 'job ' || n, 'sync-relay', '{}', 'Done', now() from generate_series(1, 3000) n";
    let relays = "insert into relay (id, tenant_pubkey, subdomain, zooid_domain, schema, policy_public_read,
                      policy_public_write, policy_public_join, policy_strip_signatures, groups_enabled,
                      management_enabled, members_can_invite, blossom_enabled, livekit_enabled, push_enabled,
                      synced_generation, provisioned_at)
                  select gen_random_uuid()::text, repeat('a', 64), 'r' || n, 'others.example', 's' || n, true, true,
                         true, true, true, true, true, true, true, true, 1, now()
                  from generate_series(1, 3000) n";
    for statement in [jobs, relays] {
        db.execute(statement).await.unwrap();
    }
}

#[tokio::test]
async fn plans_of_empty_tables_find_rows_by_their_keys() {
    let world = World::new().await;
    for table in ["apalis.jobs", "relay"] {
        let never = format!("alter table {table} set (autovacuum_enabled = off)");
        world.db.execute(sqlx::AssertSqlSafe(never)).await.unwrap();
    }
    in_a_session(&world.db, async |db| {
        db.execute(provision::PLANS).await.unwrap();
        world.relay("first").await;
        carried(&world, db, &fetched(&world).await).await;
        crowd(db).await;
        world.relay("second").await;
        let request = fetched(&world).await;
        let before = read(db).await;
        carried(&world, db, &request).await;
        let rows = read(db).await - before;
        assert!(rows < 200, "{rows} rows read for one");
    })
    .await;
}
