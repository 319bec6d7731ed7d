//! Jobs are found by what they are about, and many are steered at once.

use reqwest::StatusCode;
use tender::demo::zooid::Fault;
use tender_jobs::{
    console::operator,
    mirror::{lane::LaneKind, work::Work},
    provision::relay::SyncState,
    queue,
};

use super::{
    Site,
    job_pages::listed,
    queue_pages::{execute, row, shows},
};

/// Killed and done jobs of two relays, one of which is gone, of a lane, and of a subscription.
async fn fill(site: &Site) {
    let world = &site.api.world;
    sqlx::query("delete from apalis.jobs").execute(&world.db).await.unwrap();
    let upstream = uuid::Uuid::parse_str(&site.upstream_id).unwrap();
    let lane =
        "insert into lane (upstream_id, lane, filter_hash) select id, 'realtime', 'x' from upstream
                on conflict do nothing";
    sqlx::query(lane).execute(&world.db).await.unwrap();
    sqlx::query(
        r#"insert into apalis.jobs (id, job_type, job, status, done_at, last_result) values
           ('sync-alpha', 'sync-relay', convert_to('{"v":1,"relay_id":"' || $1 || '","cause":"update"}', 'UTF8'),
            'Killed', now() - interval '2 min', '{"Err": "refused by zooid"}'),
           ('sync-gone', 'sync-relay', '{"v":1,"relay_id":"00000000-0000-4000-8000-000000000000","cause":"delete"}',
            'Done', now() - interval '2 hours', '{"Ok": null}'),
           ('lane', 'mirror', (select convert_to('{"v":1,"job":"lane","lane":"' || id || '","kind":"realtime"}', 'UTF8')
                               from lane where upstream_id = $2 order by lane = 'realtime' desc limit 1),
            'Killed', now() - interval '3 min', '{"Err": "no route"}'),
           ('events', 'mirror-events',
            convert_to('{"v":1,"job":"process_events","upstream":"' || $2 || '","events":["{}"]}', 'UTF8'),
            'Killed', now() - interval '4 min', '{"Err": "no disk"}')"#,
    )
    .bind(&site.relay_id)
    .bind(upstream)
    .execute(&world.db)
    .await
    .unwrap();
}

async fn ids(site: &Site) -> Vec<String> {
    let ids = sqlx::query_scalar("select id from apalis.jobs order by id");
    ids.fetch_all(&site.api.world.db).await.unwrap()
}

#[tokio::test]
async fn jobs_name_what_they_are_about_and_are_found_by_it() {
    let site = Site::new().await;
    let lane =
        "insert into lane (upstream_id, lane, filter_hash) select id, 'realtime', 'x' from upstream
                on conflict do nothing";
    sqlx::query(lane).execute(&site.api.world.db).await.unwrap();
    fill(&site).await;
    let (cookie, _) = site.log_in(&site.api.admin).await;
    let page = site.text("/jobs", &cookie).await;
    let (relay, upstream) = (&site.relay_id, &site.upstream_id);
    let relay_link = format!(r#"href="/dashboard/relays/{relay}">alpha.zooid.test</a>"#);
    shows(row(&page, r#"id="job-sync-alpha""#), &[&relay_link, "sync-relay · update"]);
    let upstream_link = format!(r#"href="/dashboard/upstreams/{upstream}">ws"#);
    shows(row(&page, r#"id="job-lane""#), &[&upstream_link, "realtime", "mirror · lane"]);
    shows(row(&page, r#"id="job-events""#), &[&upstream_link, "process events"]);
    shows(row(&page, r#"id="job-sync-gone""#), &["relay 00000000…, which is gone"]);

    let lists = async |query: &str| {
        let mut jobs = listed(&site.text(&format!("/jobs?{query}"), &cookie).await);
        jobs.sort();
        jobs
    };
    assert_eq!(lists("host=alp").await, ["events", "lane", "sync-alpha"], "a part of both hosts");
    assert_eq!(lists("host=alpha.zooid.test").await, ["sync-alpha"]);
    assert_eq!(lists("host=ws%3A%2F%2Falpha").await, ["events", "lane"]);
    assert!(lists("host=nothing.has.this").await.is_empty());
    let tenant = site.api.tenant.public_key();
    let own: String = sqlx::query_scalar("select tenant_pubkey::text from relay")
        .fetch_one(&site.api.world.db)
        .await
        .unwrap();
    assert_eq!(lists(&format!("tenant={own}")).await, ["sync-alpha"]);
    if own != tenant.to_hex() {
        assert!(lists(&format!("tenant={tenant}")).await.is_empty());
    }
    assert_eq!(lists("age=under-3600").await, ["events", "lane", "sync-alpha"]);
    assert_eq!(lists("age=over-3600").await, ["sync-gone"]);
    assert_eq!(lists("error=no+route&host=alpha").await, ["lane"]);
    assert_eq!(lists("state=done&age=under-300").await, Vec::<String>::new());
    let page = site.text("/jobs/sync-alpha", &cookie).await;
    shows(&page, &[&relay_link, &own, "?host=alpha.zooid.test\">its jobs</a>", ">Delete<"]);
}

#[tokio::test]
async fn jobs_that_wait_without_a_key_are_found_by_their_upstream() {
    let site = Site::new().await;
    let (cookie, _) = site.log_in(&site.api.admin).await;
    let world = &site.api.world;
    let upstream = uuid::Uuid::parse_str(&site.upstream_id).unwrap();
    let events = Work::ProcessEvents { upstream, lane: None, events: vec!["{}".to_owned()] };
    let order = Work::Orchestrate { mode: LaneKind::Full, upstream: Some(upstream), manual: true };
    let upload = Work::UploadEvents { upstream, events: vec!["00".repeat(32)] };
    let other = Work::UploadEvents { upstream: uuid::Uuid::nil(), events: Vec::new() };
    let jobs = [events, order, upload, other].map(|work| work.job());
    assert_eq!(queue::enqueue(&world.db, &jobs).await.unwrap().len(), 4);
    let of_upstream =
        "select id from apalis.jobs where strpos(encode(job, 'escape'), $1) > 0 order by id";
    let ids: Vec<String> =
        sqlx::query_scalar(of_upstream).bind(&site.upstream_id).fetch_all(&world.db).await.unwrap();
    assert_eq!(ids.len(), 3);
    let lists = async |query: &str| {
        let mut jobs = listed(&site.text(&format!("/jobs?{query}"), &cookie).await);
        jobs.sort();
        jobs
    };
    assert_eq!(lists("host=ws%3A%2F%2Falpha&state=waiting").await, ids);
    execute(
        &site,
        "update apalis.jobs set status = 'Failed', attempts = 1, max_attempts = 5 where idempotency_key is null",
    )
    .await;
    assert_eq!(lists("host=ws%3A%2F%2Falpha&state=retrying").await, ids);
    assert!(lists("host=ws%3A%2F%2Falpha&state=retrying&age=over-300").await.is_empty());
}

#[tokio::test]
async fn a_waiting_job_is_found_by_its_relay_and_its_page_lists_its_attempts() {
    let site = Site::new().await;
    let (cookie, _) = site.log_in(&site.api.admin).await;
    let world = &site.api.world;
    let page = site.text("/jobs?host=alpha&state=waiting", &cookie).await;
    assert_eq!(listed(&page), [site.job_id.as_str()]);
    assert!(listed(&site.text("/jobs?host=beta", &cookie).await).is_empty());
    world.zooid.plan(None, Fault::Status(500, None), Some(1));
    world.attempt().await;
    assert_eq!(listed(&site.text("/jobs?host=alpha&state=retrying", &cookie).await).len(), 1);
    let page = site.text(&format!("/jobs/{}", site.job_id), &cookie).await;
    shows(&page, &["Attempts</h2>", "status 500", "What it sent", "1 of "]);
}

#[tokio::test]
async fn all_that_match_are_steered_after_a_question_with_their_count() {
    let site = Site::new().await;
    let (cookie, token) = site.log_in(&site.api.admin).await;
    let world = &site.api.world;
    execute(
        &site,
        "insert into apalis.jobs (id, job_type, job, status, done_at, last_result)
         select 'killed-' || i, 'prune', '{}', 'Killed', now() - i * interval '1 s',
                case when i <= 600 then '{\"Err\": \"no disk\"}' else '{\"Err\": \"other\"}' end::jsonb
         from generate_series(1, 700) i",
    )
    .await;
    let form = |verb| {
        [
            ("form_token", token.as_str()),
            ("scope", "all"),
            ("queue", "prune"),
            ("error", "no disk"),
            ("verb", verb),
        ]
    };
    let page = site.text("/jobs?queue=prune&error=no+disk", &cookie).await;
    shows(&page, &["all that match (600)"]);
    let question = site.post("/jobs/steer", &cookie, &form("retry")).await;
    assert_eq!(question.status(), StatusCode::OK);
    let question = question.text().await.unwrap();
    shows(&question, &["Retry 600 jobs", r#"name="error" value="no disk""#]);
    assert_eq!(ids(&site).await.len(), 701, "nothing was done");
    let confirmed = |verb| [&form(verb)[..], &[("confirmed", "yes")]].concat();
    let done = site.post("/jobs/steer", &cookie, &confirmed("retry")).await;
    assert_eq!(done.status(), StatusCode::SEE_OTHER);
    let last = async || operator::last(&world.db, 1).await.unwrap().remove(0);
    let action = last().await;
    assert_eq!(
        (action.action.as_str(), action.result.as_str()),
        ("retry_jobs", "600 jobs requeued.")
    );
    assert_eq!(action.target, "queue prune, error no disk");
    // They wait now. The others are deleted, and the job of the relay, which waits, is not.
    let everything = [
        ("form_token", token.as_str()),
        ("scope", "all"),
        ("verb", "delete"),
        ("confirmed", "yes"),
    ];
    site.post("/jobs/steer", &cookie, &everything).await;
    assert_eq!(last().await.result, "100 jobs deleted.");
    assert_eq!(ids(&site).await.len(), 601);
}

#[tokio::test]
async fn selected_jobs_are_steered_and_what_must_not_be_lost_is_kept() {
    let site = Site::new().await;
    fill(&site).await;
    let (cookie, token) = site.log_in(&site.api.admin).await;
    let world = &site.api.world;
    let relay = world.relay("waits").await;
    let waiting: String =
        sqlx::query_scalar("select id from apalis.jobs where idempotency_key = $1")
            .bind(format!("relay:{}", relay.id))
            .fetch_one(&world.db)
            .await
            .unwrap();
    let token = token.as_str();
    let form = |verb, jobs: &[&'static str]| {
        let fixed =
            [("form_token", token), ("scope", "named"), ("verb", verb), ("confirmed", "yes")];
        let jobs: Vec<_> = jobs.iter().map(|id| ("job", *id)).collect();
        [&fixed[..], &jobs[..]].concat()
    };
    let mut delete = form("delete", &["sync-gone", "events", "sync-alpha"]);
    delete.push(("job", &waiting));
    site.post("/jobs/steer", &cookie, &delete).await;
    let last = async || operator::last(&world.db, 1).await.unwrap().remove(0).result;
    assert_eq!(last().await, "2 jobs deleted.");
    let mut kept = vec!["events".to_owned(), "lane".to_owned(), waiting.clone()];
    kept.sort();
    assert_eq!(ids(&site).await, kept, "a job that waits, and events that are stored nowhere else");
    // The relay whose killed job is deleted is as pending as before: reconcile gives it a job.
    assert!(world.reconcile().await >= 1);
    let found: bool =
        sqlx::query_scalar("select exists(select from apalis.jobs where idempotency_key = $1)")
            .bind(format!("relay:{}", site.relay_id))
            .fetch_one(&world.db)
            .await
            .unwrap();
    assert!(found);

    let mut cancel = form("cancel", &["lane"]);
    cancel.push(("job", &waiting));
    site.post("/jobs/steer", &cookie, &cancel).await;
    assert_eq!(last().await, "1 job cancelled.");
    let relay = world.reload(&relay).await;
    assert_eq!(relay.sync_state(), SyncState::GaveUp);
    let who = site.api.admin.public_key().to_hex();
    assert_eq!(relay.sync_error, format!("cancelled by {who}"));
}

#[tokio::test]
async fn more_jobs_than_the_question_named_are_asked_about_again() {
    let site = Site::new().await;
    let (cookie, token) = site.log_in(&site.api.admin).await;
    let more = "insert into apalis.jobs (id, job_type, job, status, done_at, last_result)
                select gen_random_uuid()::text, 'prune', '{}', 'Killed', now(), '{\"Err\": \"no disk\"}'
                from generate_series(1, 3)";
    execute(&site, more).await;
    let form =
        [("form_token", token.as_str()), ("scope", "all"), ("queue", "prune"), ("verb", "delete")];
    let question = site.post("/jobs/steer", &cookie, &form).await.text().await.unwrap();
    shows(&question, &["Delete 3 jobs", r#"action="/dashboard/jobs/steer?counted=3""#]);
    execute(&site, more).await;
    let confirmed = [&form[..], &[("confirmed", "yes")]].concat();
    let again = site.post("/jobs/steer?counted=3", &cookie, &confirmed).await;
    let again = again.text().await.unwrap();
    shows(&again, &["More jobs match now.", "Delete 6 jobs", "counted=6"]);
    assert_eq!(ids(&site).await.len(), 7, "nothing was done");
    let done = site.post("/jobs/steer?counted=6", &cookie, &confirmed).await;
    assert_eq!(done.status(), StatusCode::SEE_OTHER);
    assert_eq!(ids(&site).await.len(), 1);
}
