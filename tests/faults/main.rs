//! What must be survived, with the real executable: workers that die, come and go; PostgreSQL and
//! zooid away; disks full; poolers in between.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::doc_markdown,
    clippy::large_stack_arrays,
    reason = "tests, which print their figures"
)]

#[path = "../support/mod.rs"]
mod support;

mod churn;
mod crashes;
mod database;
mod outage;
mod pause;
mod pooler;
mod sync;

use std::time::Duration;

use nostr::key::Keys;
use support::{World, process::ROBOT_SECRET};
use tender::demo::zooid::ZooidStandIn;

/// Long enough for leases and heartbeats (30 s) to run out twice over.
pub(crate) const RECOVERY: Duration = Duration::from_mins(3);

/// A stand-in that knows the key of real processes.
async fn stand_in() -> ZooidStandIn {
    support::install_tls();
    ZooidStandIn::start(vec![Keys::parse(ROBOT_SECRET).unwrap().public_key()]).await.unwrap()
}

async fn synced(world: &World) -> i64 {
    let counted =
        sqlx::query_scalar("select count(*) from relay where synced").fetch_one(&world.db);
    counted.await.unwrap_or(-1)
}

/// Every relay's document is what is wanted, made once, and no relay had two calls at once.
async fn assert_in_step(world: &World, zooid: &ZooidStandIn) {
    let relays: Vec<(String, String, String)> =
        sqlx::query_as("select id, subdomain, info_name from relay")
            .fetch_all(&world.db)
            .await
            .unwrap();
    let documents = zooid.documents();
    assert_eq!(documents.len(), relays.len());
    for (id, subdomain, name) in &relays {
        assert_eq!(documents[id]["host"], format!("{subdomain}.zooid.test"));
        assert_eq!(documents[id]["info"]["name"], name.as_str());
    }
    assert_eq!(zooid.calls().iter().filter(|call| call.created).count(), relays.len());
    assert_eq!(zooid.overlaps(), Vec::<String>::new());
}
