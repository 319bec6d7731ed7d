//! Behind PgBouncer in transaction mode, from 1.21: everything works; what needs a session has its own
//! address, or is polled for. Before 1.21 it is refused.

use super::{RECOVERY, assert_in_step, create_relays, synced};
use crate::{
    stand_in,
    support::{
        World,
        database::server,
        eventually,
        process::{ROBOT_SECRET, Tender, run},
        server::Pooler,
        within,
    },
};

/// An old pooler mixes up the prepared statements of its clients: one sentence says what to do. The first
/// commands may succeed, on connections that nobody has used.
async fn is_refused(url: &str) {
    let mut said = Vec::new();
    for _ in 0..20 {
        let output = run(&["queue", "status"], &[("DATABASE_URL", url)]).await;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() && words.contains("max_prepared_statements") {
            return;
        }
        said.push(words);
    }
    panic!("no command was refused: {said:?}");
}

async fn works_with(listen: Option<&str>) {
    let (world, zooid) = (World::new().await, stand_in().await);
    let direct = server();
    let pooler = Pooler::start(direct.get_host(), direct.get_port(), &world.database.name).await;
    let url = format!("postgres://tender@127.0.0.1:{}/{}", pooler.port, world.database.name);
    if !Pooler::keeps_statements() {
        return is_refused(&url).await;
    }
    let (zooid_url, own) = (zooid.url(), world.database.url());
    let listen = listen.unwrap_or(&own);
    let environment = [
        ("DATABASE_URL", url.as_str()),
        ("DATABASE_LISTEN_URL", listen),
        ("ZOOID_API_URL", zooid_url.as_str()),
        ("RELAY_DOMAIN", "zooid.test"),
        ("ROBOT_SECRET", ROBOT_SECRET),
    ];
    let workers =
        [Tender::start_with(&["work"], &environment), Tender::start_with(&["work"], &environment)];
    create_relays(&world, "relay", 200).await;
    within(RECOVERY, "all are synced", async || synced(&world).await == 200).await;
    assert_in_step(&world, &zooid).await;
    let status = run(&["queue", "status"], &environment).await;
    assert!(status.status.success(), "{status:?}");
    eventually("the workers beat", async || {
        let alive: i64 = sqlx::query_scalar(
            "select count(*) from apalis.workers where last_seen > started_at and worker_type = 'sync-relay'",
        )
        .fetch_one(&world.db)
        .await
        .unwrap();
        alive >= 2
    })
    .await;
    for worker in &workers {
        let log = worker.log();
        assert!(!log.contains("ERROR") && !log.contains("prepared statement"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_an_address_of_its_own_to_listen_at() {
    works_with(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_polling_alone() {
    works_with(Some("off")).await;
}
