//! The cost of the gate follows the events of a batch. It depends neither on the size of the tables nor on
//! what the planner knows about them.

use std::collections::HashSet;

use nostr::key::Keys;
use sqlx::{Acquire, PgConnection};
use tender_jobs::{
    mirror::event::{self, Batch, Gate},
    queue::Settled,
};
use uuid::Uuid;

use crate::support::{
    grasp_store::{AT, GraspStore, address, announcement, comment, issue, parsed},
    relays::{event as make, note},
};

/// Everything that the gate reads, 30,000 rows of it. All events point to the repository `x`.
const GROW: &str = "
    insert into event (id, pubkey, created_at, kind, tags, content, sig)
    select sha256(('e' || g)::bytea), sha256(('k' || g)::bytea), 1600000000 + g, 1621,
           jsonb_build_array(jsonb_build_array('E', encode(sha256(sha256(('e' || g)::bytea)), 'hex')),
                             jsonb_build_array('a', (select address from grasp_repo where identifier = 'x'))),
           '', sha256('a'::bytea) || sha256('b'::bytea)
    from generate_series(1, 30000) g;
    insert into grasp_repo (upstream_id, address, pubkey, identifier, announcement_id, announced_at,
                            by_maintainer, left_at)
    select upstream_id, '30617:' || encode(sha256(('k' || g)::bytea), 'hex') || ':r' || g,
           sha256(('k' || g)::bytea), 'r' || g, sha256(('n' || g)::bytea), 1600000000, true, now()
    from grasp_service, generate_series(1, 30000) g;
    insert into grasp_relay (url) select 'wss://r' || g || '.test' from generate_series(1, 900) g;
    insert into grasp_repo_relay select upstream_id, address, 'wss://r' || (1 + announced_at % 900) || '.test'
    from grasp_repo where identifier like 'r%';
    insert into grasp_root select upstream_id, address, sha256(('e' || substr(identifier, 2))::bytea), 1621
    from grasp_repo where identifier like 'r%';
    insert into grasp_author select upstream_id, address, pubkey from grasp_repo where identifier like 'r%';
    insert into grasp_coverage (relay_id, family, item)
    select (select id from grasp_relay where url = 'wss://r1.test'), 'address', address
    from grasp_repo where identifier like 'r%';
    insert into admission (upstream_id, event_id, rule, address, source)
    select r.upstream_id, sha256(('e' || substr(identifier, 2))::bytea), 'repository', address, 'store'
    from grasp_repo r where identifier like 'r%';
    insert into parked (upstream_id, event_id, kind, pubkey, created_at, reason, detail, policy_rev, expires_at)
    select upstream_id, sha256(('p' || g)::bytea), case when g % 2 = 0 then 1111 else 30617 end,
           sha256(('k' || g)::bytea), 1600000000, 'orphan', '', 1, now() + interval '1 day'
    from grasp_service, generate_series(1, 30000) g;
    insert into parked_key select upstream_id, 'e:' || encode(sha256(event_id), 'hex'), event_id from parked;
    insert into deletion_mark (target, author)
    select sha256(('d' || g)::bytea), sha256(('k' || g)::bytea) from generate_series(1, 30000) g;";

/// Without statistics for as long as the test wants.
const UNANALYSED: &str = "
    do $$ declare name text; begin
        for name in select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace loop
            execute format('alter table %I set (autovacuum_enabled = false)', name);
        end loop;
    end $$";

/// Events of each sort that the gate judges: comments, roots, orphans, announcements, states and a deletion.
async fn batch(grasp: &GraspStore) -> Vec<event::Event> {
    let keys = Keys::generate();
    let to = address(&keys, "x");
    let root = issue(&keys, AT, &to);
    grasp
        .deliver(&[announcement(&keys, AT, "x", &["wss://a.test", "wss://b.test"]), root.clone()])
        .await;
    let mut events: Vec<_> = (0..60).map(|n| comment(&Keys::generate(), AT + n, &root)).collect();
    events.extend((0..20).map(|n| issue(&keys, AT + 100 + n, &to)));
    events.extend((0..20).map(|n| note(&keys, AT + n, "unrelated")));
    let state = |n: i64| make(&keys, 30618, AT + n, "", vec![vec!["d", "x"], vec!["n", "v"]]);
    events.push(state(1));
    for n in 0..10 {
        let name = format!("new{n}");
        events.push(announcement(&Keys::generate(), AT, &name, &["wss://a.test", "wss://c.test"]));
    }
    events.push(announcement(&keys, AT + 1, "x", &["wss://b.test", "wss://c.test"]));
    events.push(make(&keys, 5, AT, "", vec![vec!["e", &root.id.to_hex()]]));
    let events: Vec<event::Event> = events.iter().map(parsed).collect();
    event::store(&grasp.world.db, Batch::new(Uuid::nil(), &events)).await.unwrap();
    events
}

/// The buffers that the gate touches for some events, which are in the store. Nothing stays written.
async fn cost(grasp: &GraspStore, db: &mut PgConnection, events: &[event::Event]) -> i64 {
    let touched = "select sum(pg_stat_get_xact_blocks_fetched(oid))::bigint from pg_class
                   where relkind in ('r', 'i', 't') and relnamespace = 'public'::regnamespace";
    let mut tx = db.begin().await.unwrap();
    let before: i64 = sqlx::query_scalar(touched).fetch_one(&mut *tx).await.unwrap();
    let events: Vec<&event::Event> = events.iter().collect();
    let gate = grasp.followed();
    let judged = gate.judge(&mut tx, Uuid::nil(), &events).await.unwrap();
    let Settled::Written(judged) = judged else { panic!("the lease is lost") };
    let there = events.iter().copied().filter(|event| judged.admitted().contains(&event.id));
    let there: Vec<&event::Event> = there.collect();
    assert!(there.len() > 80, "{} events are admitted", there.len());
    let new: HashSet<_> = there.iter().map(|event| event.id).collect();
    judged.stored(&mut tx, &there, &new).await.unwrap();
    let after: i64 = sqlx::query_scalar(touched).fetch_one(&mut *tx).await.unwrap();
    tx.rollback().await.unwrap();
    after - before
}

#[tokio::test]
async fn a_batch_costs_the_same_over_small_and_large_tables_whatever_the_planner_knows() {
    let grasp = GraspStore::new().await;
    grasp.run(UNANALYSED).await;
    let events = batch(&grasp).await;
    let mut old = grasp.world.db.acquire().await.unwrap();
    let mut small = 0;
    for _ in 0..8 {
        small = cost(&grasp, &mut old, &events).await; // then the session keeps its plans
    }
    sqlx::raw_sql(GROW).execute(&grasp.world.db).await.unwrap();
    let with_old_plans = cost(&grasp, &mut old, &events).await;
    let mut young = grasp.world.db.acquire().await.unwrap();
    let unanalysed = cost(&grasp, &mut young, &events).await;
    grasp.run("analyze").await;
    let analysed = cost(&grasp, &mut young, &events).await;
    // A lookup in a deeper index touches up to three times as many buffers.
    for (name, large) in
        [("old plans", with_old_plans), ("unanalysed", unanalysed), ("analysed", analysed)]
    {
        assert!(large < 3 * small, "{name}: {small} buffers grew to {large}");
    }
}
