//! Faults that Tender survives: workers that die, come and go; PostgreSQL and zooid away; disks full;
//! poolers in between.

mod churn;
mod crashes;
mod database;
mod mirror;
mod outage;
mod pause;
mod pooler;
mod silence;

use std::time::Duration;

use tender::demo::zooid::{Gate, ZooidStandIn};

use crate::support::{World, patiently};

/// Long enough for leases and heartbeats (30 s) to run out twice over.
const RECOVERY: Duration = Duration::from_mins(3);

async fn synced(world: &World) -> i64 {
    let counted =
        sqlx::query_scalar("select count(*) from relay where synced").fetch_one(&world.db);
    counted.await.unwrap_or(-1)
}

/// Creates relays named `<prefix>-<number>`.
async fn create_relays(world: &World, prefix: &str, count: usize) {
    for number in 0..count {
        world.relay(&format!("{prefix}-{number}")).await;
    }
}

/// Waits until this many calls have reached the gate.
async fn reached(gate: &Gate, calls: usize) {
    patiently("the calls reach the gate", gate.reached(calls)).await;
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
