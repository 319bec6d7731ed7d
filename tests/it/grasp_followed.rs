//! Followed relays in the ledger: claims, leases, shares, health, plans and their ends.

mod gaps;
mod health;
mod lease;
mod plan;

use sqlx::PgPool;
use tender_jobs::grasp::followed::{self, Claimed, health::Failure};
use uuid::Uuid;

async fn relay(db: &PgPool, name: &str) -> Uuid {
    let url = format!("wss://{name}.test");
    let add = "insert into grasp_relay (url) values ($1) returning id";
    sqlx::query_scalar(add).bind(url).fetch_one(db).await.unwrap()
}

async fn want(db: &PgPool, relay: Uuid, family: &str, items: &[&str]) {
    for item in items {
        sqlx::query("insert into grasp_coverage (relay_id, family, item) values ($1, $2, $3)")
            .bind(relay)
            .bind(family)
            .bind(item)
            .execute(db)
            .await
            .unwrap();
    }
}

async fn run(db: &PgPool, sql: &'static str) {
    sqlx::query(sql).execute(db).await.unwrap();
}

async fn text(db: &PgPool, sql: &'static str) -> String {
    sqlx::query_scalar(sql).fetch_one(db).await.unwrap()
}

async fn states(db: &PgPool) -> Vec<(String, String)> {
    let sql = "select item, state from grasp_coverage order by family, item";
    sqlx::query_as(sql).fetch_all(db).await.unwrap()
}

async fn claim_one(db: &PgPool, process: &str) -> Claimed {
    let mut claimed = followed::claim(db, process, 1).await.unwrap();
    assert_eq!(claimed.len(), 1);
    claimed.remove(0)
}

fn failure(error: &str) -> Failure<'_> {
    Failure { error, jitter: 0.5, ..Failure::default() }
}

async fn expire(db: &PgPool) {
    run(
        db,
        "update grasp_relay set lease_until = now() - interval '1 s' where lease_until is not null",
    )
    .await;
}

async fn make_due(db: &PgPool) {
    run(db, "update grasp_relay set next_attempt_at = now() - interval '1 s'").await;
}
