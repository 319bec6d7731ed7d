//! The record of operators: what was done, refused and failed on pages, with what it changed.

use reqwest::StatusCode;
use serde_json::json;
use tender_jobs::console::operator::{self, Action, Outcome};

use super::Site;

async fn last(site: &Site) -> Action {
    operator::last(&site.api.world.db, 1).await.unwrap().remove(0)
}

async fn rename(site: &Site, from: &str, to: &str) {
    let statement = format!("alter table {from} rename to {to}");
    let db = &site.api.world.db;
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(db).await.unwrap();
}

#[tokio::test]
async fn what_a_page_changed_is_recorded_with_its_values_before_and_after() {
    let site = Site::new().await;
    let (cookie, token) = site.log_in(&site.api.admin).await;
    let form = [("form_token", token.as_str()), ("confirmed", "yes")];
    let who = site.api.admin.public_key().to_hex();
    site.post(&format!("/relays/{}/deactivate", site.relay_id), &cookie, &form).await;
    let action = last(&site).await;
    assert_eq!((action.who.as_str(), action.via.as_str()), (who.as_str(), "page"));
    assert_eq!((action.action.as_str(), action.outcome), ("relay_deactivate", Outcome::Done));
    assert_eq!(action.before, Some(json!({"status": "active"})));
    assert_eq!(action.after, Some(json!({"status": "inactive"})));

    let form = [form[0], form[1], ("reason", "a test")];
    site.post("/queues/prune/pause", &cookie, &form).await;
    let action = last(&site).await;
    assert_eq!(action.before, Some(json!({"paused": false})));
    assert_eq!(action.after, Some(json!({"paused": true, "reason": "a test"})));
    let page =
        site.get("/actions?action=pause+queue&via=page", &cookie).await.text().await.unwrap();
    assert!(page.contains("paused: <code>false</code> → <code>true</code>"), "{page}");
    assert!(page.contains("/dashboard/jobs?queue=prune"), "the target is a link: {page}");
    assert!(!page.contains("relay deactivate"), "the filter holds: {page}");
}

#[tokio::test]
async fn a_change_of_an_upstream_commits_with_its_record_or_not_at_all() {
    let site = Site::new().await;
    let (cookie, token) = site.log_in(&site.api.admin).await;
    let form = [("form_token", token.as_str()), ("confirmed", "yes")];
    let disable = format!("/upstreams/{}/disable", site.upstream_id);
    site.post(&disable, &cookie, &form).await;
    let action = last(&site).await;
    assert_eq!(
        (action.action.as_str(), action.target.as_str()),
        ("update_upstream", "ws://alpha.test")
    );
    assert_eq!(action.before, Some(json!({"enabled": true})));
    assert_eq!(action.after, Some(json!({"enabled": false})));

    rename(&site, "operator_action", "elsewhere").await;
    let enable = format!("/upstreams/{}/enable", site.upstream_id);
    let refused = site.post(&enable, &cookie, &form).await.status();
    let reset = site.post(&format!("/upstreams/{}/reset", site.upstream_id), &cookie, &form).await;
    assert_eq!((refused, reset.status()), (StatusCode::SERVICE_UNAVAILABLE, refused));
    rename(&site, "elsewhere", "operator_action").await;
    let id = site.upstream_id.parse().unwrap();
    let db = &site.api.world.db;
    let upstream = tender_jobs::mirror::upstream::find(db, id).await.unwrap().unwrap();
    assert!(!upstream.enabled, "what cannot be recorded is not changed");

    let reset = site.post(&format!("/upstreams/{}/reset", site.upstream_id), &cookie, &form).await;
    assert_eq!(reset.status(), StatusCode::SEE_OTHER);
    let action = last(&site).await;
    assert_eq!(action.action, "reset_upstream");
    assert!(action.result.contains("start from the beginning"), "{action:?}");
}

#[tokio::test]
async fn refused_and_failed_actions_are_recorded() {
    let site = Site::new().await;
    let (cookie, token) = site.log_in(&site.viewer).await;
    let form = [("form_token", token.as_str()), ("confirmed", "yes")];
    site.post("/queues/prune/pause", &cookie, &form).await;
    let action = last(&site).await;
    assert_eq!((action.outcome, action.action.as_str()), (Outcome::Refused, "pause_queue"));
    assert_eq!(action.who, site.viewer.public_key().to_hex());
    assert!(action.result.contains("viewer"), "{action:?}");

    let (cookie, token) = site.log_in(&site.api.admin).await;
    let stale = [("form_token", "of another session"), ("confirmed", "yes")];
    site.post("/queues/prune/pause", &cookie, &stale).await;
    let action = last(&site).await;
    assert_eq!((action.outcome, action.target.as_str()), (Outcome::Refused, "prune"));

    let form = [("form_token", token.as_str()), ("confirmed", "yes"), ("reason", "a test")];
    rename(&site, "paused_queue", "elsewhere").await;
    let failed = site.post("/queues/prune/pause", &cookie, &form).await.status();
    rename(&site, "elsewhere", "paused_queue").await;
    assert_eq!(failed, StatusCode::SERVICE_UNAVAILABLE);
    let action = last(&site).await;
    assert_eq!((action.outcome, action.action.as_str()), (Outcome::Failed, "pause_queue"));

    let job = [("form_token", token.as_str()), ("confirmed", "yes")];
    site.post("/jobs/no-such-job/retry", &cookie, &job).await;
    assert_eq!(last(&site).await.outcome, Outcome::Refused);
    let page = site.get("/actions?outcome=failed", &cookie).await.text().await.unwrap();
    assert_eq!(page.matches("<tr id=\"action-").count(), 1, "{page}");
}

#[tokio::test]
async fn the_record_is_read_page_by_page_and_only_by_what_matches() {
    let site = Site::new().await;
    let db = &site.api.world.db;
    for number in 0..60 {
        let target = format!("job-{number}");
        operator::record(db, "key deploy", "cancel_job", &target, "done").await.unwrap();
    }
    let (cookie, _) = site.log_in(&site.viewer).await;
    let page = site.get("/actions?who=DEPLOY&via=api", &cookie).await.text().await.unwrap();
    assert_eq!(page.matches("<tr id=\"action-").count(), 50);
    let next = page.split("rel=\"next\" href=\"/dashboard").nth(1).unwrap();
    let next = next.split('"').next().unwrap().replace("&amp;", "&");
    let page = site.get(&next, &cookie).await.text().await.unwrap();
    assert_eq!(page.matches("<tr id=\"action-").count(), 10);
    assert!(page.contains("job-0<") && !page.contains("rel=\"next\""), "{page}");
    let none = site.get("/actions?target=nothing", &cookie).await.text().await.unwrap();
    assert!(none.contains("No action of an operator matches."), "{none}");
}

#[tokio::test]
async fn what_a_page_does_is_undone_if_its_record_cannot_be_written() {
    let site = Site::new().await;
    let (cookie, token) = site.log_in(&site.api.admin).await;
    let db = &site.api.world.db;
    let process = uuid::Uuid::new_v4();
    sqlx::query("insert into process (id, name, wings, stations) values ($1, 'v h:1', '{}', '{}')")
        .bind(process)
        .execute(db)
        .await
        .unwrap();
    let form = [
        ("form_token", token.as_str()),
        ("confirmed", "yes"),
        ("reason", "a test"),
        ("jobs", "5"),
        ("key", "late"),
        ("hours", "2"),
        ("size", "1"),
    ];
    // The rows that the actions write, as one text.
    let rows = async || -> String {
        let rows = "select concat((select json_agg(p) from paused_queue p), (select json_agg(q) from queue_concurrency q),
                           (select json_agg(s) from attention_snooze s), (select json_agg((status, generation)) from relay),
                           (select json_agg(drain_at) from process), (select count(*) from apalis.jobs),
                           (select count(*) from activity))";
        sqlx::query_scalar(rows).fetch_one(db).await.unwrap()
    };
    let (relay, drain) = (&site.relay_id, format!("/processes/{process}/drain"));
    let actions = [
        "/queues/prune/pause".to_owned(),
        "/queues/prune/scale".to_owned(),
        "/attention/snooze".to_owned(),
        drain,
        format!("/relays/{relay}/sync"),
        format!("/relays/{relay}/deactivate"),
        "/reconcile".to_owned(),
    ];
    let before = rows().await;
    rename(&site, "operator_action", "elsewhere").await;
    for action in &actions {
        let answer = site.post(action, &cookie, &form).await;
        assert!(answer.status().is_server_error(), "{action}: {}", answer.status());
        assert_eq!(rows().await, before, "{action}");
    }
    rename(&site, "elsewhere", "operator_action").await;
    for action in &actions {
        let now = rows().await;
        let answer = site.post(action, &cookie, &form).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{action}");
        assert_ne!(rows().await, now, "{action}");
        assert_eq!(last(&site).await.outcome, Outcome::Done, "{action}");
    }
}
