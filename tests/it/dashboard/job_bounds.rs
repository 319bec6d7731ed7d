//! What an action on all jobs that match must not do: reach more than was asked for, or end unrecorded.

use reqwest::{StatusCode, header};
use tender_jobs::console::operator::{self, Outcome};

use super::{
    Site,
    queue_pages::{execute, shows},
};
use crate::support::eventually;

const KILLED: &str = "insert into apalis.jobs (id, job_type, job, status, done_at)
     select 'killed' || n, 'prune', '{}', 'Killed', now() from generate_series(1, 3) n";

async fn killed(site: &Site) -> i64 {
    let killed = sqlx::query_scalar("select count(*) from apalis.jobs where status = 'Killed'");
    killed.fetch_one(&site.api.world.db).await.unwrap()
}

#[tokio::test]
async fn a_filter_that_means_nothing_selects_nothing() {
    let site = Site::new().await;
    execute(&site, KILLED).await;
    let (cookie, token) = site.log_in(&site.api.admin).await;
    let form = |name, value| {
        [
            ("form_token", &*token),
            ("scope", "all"),
            ("verb", "delete"),
            ("confirmed", "yes"),
            (name, value),
        ]
    };
    for (name, value) in [
        ("tenant", "wss://"),
        ("tenant", "\0"),
        ("host", "wss://"),
        ("queue", "\0"),
        ("error", "\0"),
    ] {
        let answer = site.post("/jobs/steer", &cookie, &form(name, value)).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{name}");
        assert_eq!(killed(&site).await, 3, "{name}");
    }
    for (name, value) in [("state", "broken"), ("age", "over-1")] {
        let answer = site.post("/jobs/steer", &cookie, &form(name, value)).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{name}");
        assert_eq!(killed(&site).await, 3, "{name}");
    }
    // An empty field of the form is no filter.
    site.post("/jobs/steer", &cookie, &form("tenant", " ")).await;
    assert_eq!(killed(&site).await, 0);
}

#[tokio::test]
async fn an_action_that_reaches_some_of_the_upstreams_says_so() {
    let site = Site::new().await;
    let more = "insert into upstream (url) select 'wss://many' || n || '.test' from generate_series(1, 201) n";
    execute(&site, more).await;
    let (cookie, token) = site.log_in(&site.api.admin).await;
    let form = [("form_token", &*token), ("scope", "all"), ("verb", "delete"), ("host", "many")];
    let limit = "More than 200 relays or upstreams match, and only the first 200 are reached";
    let question = site.post("/jobs/steer", &cookie, &form).await.text().await.unwrap();
    shows(&question, &["Delete 0 jobs", limit]);
    let confirmed = [&form[..], &[("confirmed", "yes")]].concat();
    site.post("/jobs/steer", &cookie, &confirmed).await;
    let action = operator::last(&site.api.world.db, 1).await.unwrap().remove(0);
    shows(&action.result, &["0 jobs deleted.", limit]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_who_leaves_the_page_does_not_end_the_action() {
    let site = Site::new().await;
    execute(&site, KILLED).await;
    let (cookie, token) = site.log_in(&site.api.admin).await;
    let db = &site.api.world.db;
    let mut held = tender_jobs::database::begin(db).await.unwrap();
    sqlx::query("select from apalis.jobs where id = 'killed2' for update")
        .execute(&mut *held)
        .await
        .unwrap();
    let form =
        [("form_token", &*token), ("scope", "all"), ("verb", "delete"), ("confirmed", "yes")];
    let request = site.http.post(site.url("/jobs/steer")).header(header::COOKIE, &cookie);
    let request = tokio::spawn(request.form(&form).send());
    let last = async || operator::last(db, 1).await.unwrap().remove(0);
    eventually("the action began", async || {
        operator::last(db, 1).await.unwrap().first().is_some_and(|one| one.action == "delete_jobs")
    })
    .await;
    let began = last().await;
    assert_eq!((began.outcome, &*began.result), (Outcome::Failed, "began; nothing done yet"));
    request.abort();
    request.await.unwrap_err();
    held.rollback().await.unwrap();
    eventually("the action ended", async || last().await.outcome == Outcome::Done).await;
    assert_eq!((last().await.result.as_str(), killed(&site).await), ("3 jobs deleted.", 0));
}
