//! Jobs are found by their error, however many there are.

use tender_jobs::queue::{self, JobFilter, Page, SEARCHED, WithError};

use super::{Site, job_pages::listed, queue_pages::shows};

/// Killed jobs of two queues, more than a list searches: every one of the queue `many` has a common error, and the
/// oldest has a rare one too. Jobs in each other state have the rare error.
async fn fill(site: &Site) {
    let many = format!(
        r"delete from apalis.jobs;
           insert into apalis.jobs (id, job_type, job, status, attempts, run_at, done_at, last_result)
           select 'many-' || i, 'many', '{{}}', 'Killed', 1, now(), now() - i * interval '1 s',
                  jsonb_build_object('Err', 'zooid answered 422' || case i when {most} then ': 100%_\ gone' else '' end)
           from generate_series(1, {most}) i;
           insert into apalis.jobs (id, job_type, job, status, attempts, run_at, done_at, last_result)
           select lower(state), 'few', '{{}}', state, 1, now() - interval '2 min',
                  case when state in ('Done', 'Killed') then now() - interval '1 day' end,
                  jsonb_build_object(case state when 'Done' then 'Ok' else 'Err' end, 'is 100%_\ gone')
           from unnest(array['Pending', 'Failed', 'Queued', 'Running', 'Killed', 'Done']) state",
        most = SEARCHED + 50
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(many)).execute(&site.api.world.db).await.unwrap();
}

#[tokio::test]
async fn a_rare_error_is_found_behind_any_number_of_others() {
    let site = Site::new().await;
    fill(&site).await;
    let (cookie, _) = site.log_in(&site.api.admin).await;
    let lists = async |query: &str| {
        let page = site.text(&format!("/jobs?{query}"), &cookie).await;
        assert!(!page.contains("jobs are searched"), "{page}");
        listed(&page)
    };
    let oldest = format!("many-{}", SEARCHED + 50);
    let rare = "error=100%25_%5C+gone";
    let mut all = lists(rare).await;
    let ended = all.split_off(4);
    all.sort();
    assert_eq!(all, ["failed", "pending", "queued", "running"]);
    assert_eq!(ended, [oldest.as_str(), "killed"], "the last that ended first");
    assert_eq!(lists(&format!("{rare}&queue=many")).await, [oldest.as_str()]);
    assert_eq!(lists(&format!("{rare}&state=retrying")).await, ["failed"]);
    assert_eq!(lists(&format!("{rare}&age=over-3600")).await, ["killed"]);
    assert!(lists(&format!("{rare}&state=done")).await.is_empty());
    assert!(lists("error=100x_%5C+gone").await.is_empty(), "no character stands for others");
    let page = site.text(&format!("/jobs?{rare}"), &cookie).await;
    shows(&page, &["all that match (6)"]);
}

#[tokio::test]
async fn of_a_common_error_the_first_jobs_are_listed_and_the_page_says_so() {
    let site = Site::new().await;
    fill(&site).await;
    let (cookie, _) = site.log_in(&site.api.admin).await;
    let page = site.text("/jobs?error=422", &cookie).await;
    shows(&page, &["More than 1000 failed jobs have this error", "all that match (1,000+)"]);
    assert_eq!(listed(&page)[..2], ["many-1", "many-2"]);
    let page = site.text("/jobs?error=42", &cookie).await;
    shows(&page, &["too short for the index"]);
}

#[tokio::test]
async fn pages_of_an_error_follow_each_other_in_both_directions() {
    let site = Site::new().await;
    fill(&site).await;
    let db = &site.api.world.db;
    let error = WithError::find(db, "gone").await.unwrap();
    let filter = JobFilter { error: Some(error), ..JobFilter::default() };
    let ids = async |page: &Page, limit| {
        let jobs = queue::jobs(db, &filter, page, limit).await.unwrap();
        jobs.into_iter().map(|job| (job.id.clone(), job.cursor())).collect::<Vec<_>>()
    };
    let all = ids(&Page::First, 100).await;
    assert_eq!(all.len(), 6);
    for (place, (_, cursor)) in all.iter().enumerate() {
        assert_eq!(ids(&Page::After(cursor.clone()), 2).await, all[place + 1..(place + 3).min(6)]);
        assert_eq!(
            ids(&Page::Before(cursor.clone()), 2).await,
            all[place.saturating_sub(2)..place]
        );
    }
}
