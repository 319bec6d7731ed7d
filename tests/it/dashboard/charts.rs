//! The charts count what the rows of the minutes count, in slots of their range, with marks of what happened.

use std::time::Duration;

use tender_jobs::console::{
    charts::{self, Charts, Range},
    stats::{self, Counts},
};

use super::Site;

/// Counts in three places of the week: now, five hours ago, three days ago.
async fn fill(site: &Site) {
    let db = &site.api.world.db;
    for age in ["3 days", "5 hours", "0 s"] {
        let mut counts = Counts { failed: 1, gave_up: 1, ..Counts::default() };
        counts.add_synced(Duration::from_millis(100));
        counts.add_synced(Duration::from_secs(2));
        stats::add(db, &counts).await.unwrap();
        sqlx::query(
            "insert into ingest_minute (minute, stored, rejected) values (date_trunc('minute', now()), 7, 3)",
        )
        .execute(db)
        .await
        .unwrap();
        for table in ["sync_minute", "ingest_minute"] {
            let moved = format!(
                "update {table} set minute = minute - interval '{age}' where minute = (select max(minute) from {table})"
            );
            sqlx::query(sqlx::AssertSqlSafe(moved)).execute(db).await.unwrap();
        }
    }
}

fn sums(charts: &Charts) -> (i64, i64, i64, i64) {
    charts.slots.iter().fold((0, 0, 0, 0), |sums, slot| {
        (sums.0 + slot.synced, sums.1 + slot.failed, sums.2 + slot.stored, sums.3 + slot.rejected)
    })
}

#[tokio::test]
async fn each_range_counts_its_time_once() {
    let site = Site::new().await;
    let db = &site.api.world.db;
    fill(&site).await;
    for (range, times, slots) in [(Range::Hour, 1, 60), (Range::Day, 2, 144), (Range::Week, 3, 168)]
    {
        let charts = charts::read(db, range).await.unwrap();
        assert_eq!(sums(&charts), (2 * times, 2 * times, 7 * times, 3 * times), "{range:?}");
        assert_eq!(charts.slots.len(), slots, "{range:?}");
        let busy: Vec<_> = charts.slots.iter().filter(|slot| slot.synced > 0).collect();
        for slot in &busy {
            let near = |time: Option<Duration>, secs: f64| {
                (time.unwrap().as_secs_f64() / secs - 1.0).abs() < 0.03
            };
            assert!(near(slot.p50, 0.1) && near(slot.p95, 2.0), "{slot:?}");
        }
        assert!(charts.slots.iter().all(|slot| slot.synced > 0 || slot.p50.is_none()));
    }
    let (cookie, _) = site.log_in(&site.api.admin).await;
    for path in ["/charts", "/charts?range=24h", "/charts?range=7d"] {
        let page = site.get(path, &cookie).await.text().await.unwrap();
        assert!(page.contains("data-points") && page.contains("tender-chart"), "{path}");
    }
    assert_eq!(site.get("/charts?range=99y", &cookie).await.status(), 400);
}

#[tokio::test]
async fn pauses_breakers_and_starts_are_marked() {
    let site = Site::new().await;
    let db = &site.api.world.db;
    sqlx::raw_sql(
        "insert into process (id, name, wings, stations)
         values (gen_random_uuid(), 'tender 1 on a-host:7', '{}', '{}')",
    )
    .execute(db)
    .await
    .unwrap();
    tender_jobs::queue::pause(db, "sync-relay", "somebody", None).await.unwrap();
    tender_jobs::queue::resume(db, "sync-relay").await.unwrap();
    let statements = "
        insert into zooid_instance (name) values ('http://zooid.test') on conflict do nothing;
        update zooid_instance set opened_at = now(), retry_at = now();
        update zooid_instance set retry_at = now() + interval '1 s';
        update zooid_instance set opened_at = null, retry_at = null";
    sqlx::raw_sql(statements).execute(db).await.unwrap();
    let marks = charts::read(db, Range::Hour).await.unwrap().marks;
    let kinds: Vec<_> = marks.iter().map(|mark| mark.kind.as_str()).collect();
    assert_eq!(kinds, ["started", "paused", "resumed", "breaker_opened", "breaker_closed"]);
    let (cookie, _) = site.log_in(&site.api.admin).await;
    let page = site.get("/charts", &cookie).await.text().await.unwrap();
    for words in
        ["a-host:7", "was paused", "was resumed", "its breaker opened", "its breaker closed"]
    {
        assert!(page.contains(words), "{words}: {page}");
    }
}

#[tokio::test]
async fn old_marks_and_too_many_are_deleted() {
    let site = Site::new().await;
    let db = &site.api.world.db;
    let statements = "
        insert into chart_mark (kind, subject, at) values ('started', 'old', now() - interval '8 days');
        insert into chart_mark (kind, subject) select 'started', 'p' || i from generate_series(1, 10005) i";
    sqlx::raw_sql(statements).execute(db).await.unwrap();
    assert_eq!(charts::prune(db).await.unwrap(), 6);
    let left: i64 =
        sqlx::query_scalar("select count(*) from chart_mark").fetch_one(db).await.unwrap();
    assert_eq!(left, 10_000);
    assert_eq!(charts::read(db, Range::Hour).await.unwrap().marks.len(), 200);
}
