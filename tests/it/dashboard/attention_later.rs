//! What must not be overlooked: a fleet that takes no jobs, and failures that begin after a snooze.

use tender::fleet::Fleet;
use tender_jobs::queue;

use super::Site;

async fn headlines(site: &Site) -> Vec<String> {
    let fleet = Fleet::read(&site.api.world.db).await.unwrap();
    fleet.attention().into_iter().map(|item| item.headline).collect()
}

async fn run(site: &Site, statements: &'static str) {
    sqlx::raw_sql(statements).execute(&site.api.world.db).await.unwrap();
}

/// A process with the name of the site's worker, which an operator drains.
const DRAINING: &str = "
    update upstream set enabled = false;
    insert into process (id, name, wings, stations, drain_at, drain_by)
    values ('00000000-0000-0000-0000-000000000001', 'test', '{}', '{}', now(), 'somebody')";

#[tokio::test]
async fn a_queue_that_only_draining_processes_serve_needs_attention() {
    let site = Site::new().await;
    run(&site, DRAINING).await;
    let (cookie, _) = site.log_in(&site.api.admin).await;
    assert_eq!(headlines(&site).await, ["Every process that serves sync-relay is draining"]);
    let page = site.get(&format!("/relays/{}", site.relay_id), &cookie).await.text().await.unwrap();
    assert!(page.contains("no process takes syncs"), "{page}");
    // One that takes jobs under the same name is enough.
    run(
        &site,
        "insert into process (id, name, wings, stations)
         values ('00000000-0000-0000-0000-000000000002', 'test', '{}', '{}')",
    )
    .await;
    assert_eq!(headlines(&site).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_snooze_hides_no_failure_that_began_after_it() {
    let site = Site::new().await;
    let db = &site.api.world.db;
    run(&site, "update upstream set enabled = false").await;
    queue::pause(db, "prune", "somebody", None).await.unwrap();
    run(
        &site,
        "insert into attention_snooze (key, reason, who, size, ends_at)
         values ('paused:prune', 'a move', 'somebody', 1, now() + interval '1 h')",
    )
    .await;
    assert_eq!(headlines(&site).await, Vec::<String>::new());
    queue::resume(db, "prune").await.unwrap();
    queue::pause(db, "prune", "somebody", None).await.unwrap();
    assert_eq!(headlines(&site).await, ["prune is paused"]);
}

#[tokio::test]
async fn nothing_is_not_said_while_relays_have_given_up() {
    let site = Site::new().await;
    run(
        &site,
        "update upstream set enabled = false;
         update relay set sync_error = 'x', failure_kind = 'permanent', exhausted_at = now(), attempts = 1;
         delete from apalis.jobs;
         insert into attention_snooze (key, reason, who, size, ends_at)
         values ('gave_up:x', 'known', 'somebody', 1, now() + interval '1 h')",
    )
    .await;
    let (cookie, _) = site.log_in(&site.api.admin).await;
    let page = site.get("", &cookie).await.text().await.unwrap();
    assert!(page.contains("Nothing else.") && !page.contains("Every relay is in step"), "{page}");
}

#[tokio::test]
async fn killed_jobs_behind_a_thousand_that_were_seen_need_attention() {
    let site = Site::new().await;
    run(
        &site,
        "update upstream set enabled = false;
         insert into apalis.jobs (id, job_type, job, status, done_at, metadata)
         select 'job-' || i, 'prune', '{}', 'Killed', now() - i * interval '1 s',
                case when i <= 1000 then hstore('seen', 'yes') else '' end
         from generate_series(1, 1005) i",
    )
    .await;
    assert_eq!(headlines(&site).await, ["5 jobs were killed in prune"]);
}
