//! The pages of jobs show what their rows hold: lists by page, and one job.

use tender_jobs::queue::{self, JobFilter, JobState, Page};

use super::{
    Site,
    queue_pages::{execute, row, shows},
};

/// The address of a link to another page of the list, below the dashboard's.
fn link(page: &str, rel: &str) -> Option<String> {
    let (_, rest) = page.split_once(&format!(r#"rel="{rel}" href="/dashboard"#))?;
    Some(rest.split('"').next()?.replace("&amp;", "&"))
}

/// The jobs of a list, in order.
pub(super) fn listed(page: &str) -> Vec<String> {
    let rows = page.split(r#"data-label="Job"><div><a href="/dashboard/jobs/"#).skip(1);
    rows.map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn jobs_are_filtered_by_state_and_by_any_queue() {
    let site = Site::new().await;
    let (cookie, _) = site.log_in(&site.api.admin).await;
    let world = &site.api.world;
    execute(
        &site,
        "insert into apalis.jobs (id, job_type, job, status, priority, run_at, done_at) values
         ('foreign', 'mystery & co', '{}', 'Pending', 5, now(), null),
         ('old', 'prune', '{}', 'Done', 0, '2026-01-02 03:04:05+00', '2026-01-02 03:05:06+00')",
    )
    .await;
    let job = world.fetch().await;
    let lists = async |query: &str| listed(&site.text(&format!("/jobs{query}"), &cookie).await);
    assert_eq!(lists("?state=queued").await, [job.id.as_str()]);
    assert!(lists("?state=running").await.is_empty());
    queue::start(&world.db, &job).await.unwrap();
    assert!(lists("?state=queued").await.is_empty());
    assert_eq!(lists("?state=running&queue=sync-relay").await, [job.id.as_str()]);
    assert_eq!(lists("?queue=mystery+%26+co").await, ["foreign"]);
    assert!(lists("?queue=no-such-queue").await.is_empty());

    let page = site.text("/jobs", &cookie).await;
    assert_eq!(listed(&page).len(), 3);
    shows(&page, &[r#"<option value="mystery &amp; co">"#]);
    shows(row(&page, "/jobs/foreign"), &["mystery &amp; co", ">waiting<", "priority 5"]);
    shows(row(&page, "/jobs/old"), &["ended <time", "2026-01-02 03:05:06 UTC"]);
    let holder = format!(r#"href="/dashboard/workers?queue=sync-relay#worker-{}""#, world.worker);
    shows(row(&page, &format!("/jobs/{}", job.id)), &[&holder, " since <time", ">running<"]);
    let part = site.live("/live/jobs?queue=mystery+%26+co", &cookie).await;
    assert_eq!(listed(&part), ["foreign"]);
    let page = site.text("/jobs?error=nothing+has+this", &cookie).await;
    shows(&page, &["No job matches"]);
    assert!(!page.contains("are searched"), "every job was");
}

#[tokio::test]
async fn the_list_of_jobs_has_pages_that_new_jobs_do_not_shift() {
    let site = Site::new().await;
    let (cookie, _) = site.log_in(&site.api.admin).await;
    execute(
        &site,
        "insert into apalis.jobs (id, job_type, job, status, run_at, done_at)
         select 'job-' || i, 'paged', '{}', case when i % 2 = 0 then 'Done' else 'Pending' end,
                now() + i * interval '1 s', case when i % 2 = 0 then now() end
         from generate_series(1, 250) i",
    )
    .await;
    let mut pages = vec![("/jobs?queue=paged".to_owned(), vec![])];
    loop {
        let (address, jobs) = pages.last_mut().unwrap();
        let page = site.text(address, &cookie).await;
        *jobs = listed(&page);
        let Some(next) = link(&page, "next") else { break };
        pages.push((next, vec![]));
    }
    let sizes: Vec<_> = pages.iter().map(|(_, jobs)| jobs.len()).collect();
    assert_eq!(sizes, [100, 100, 50]);
    let mut jobs: Vec<_> = pages.iter().flat_map(|(_, jobs)| jobs.clone()).collect();
    assert_eq!(jobs[..2], ["job-1", "job-3"], "unfinished jobs by when they are due");
    jobs.sort();
    jobs.dedup();
    assert_eq!(jobs.len(), 250, "every job is on one page");

    let last = site.text(&pages[2].0, &cookie).await;
    let previous = site.text(&link(&last, "prev").unwrap(), &cookie).await;
    assert_eq!(listed(&previous), pages[1].1);
    let first = site.text(&link(&previous, "prev").unwrap(), &cookie).await;
    assert_eq!((listed(&first), link(&first, "prev")), (pages[0].1.clone(), None));

    execute(
        &site,
        "insert into apalis.jobs (id, job_type, job, run_at)
         select 'new-' || i, 'paged', '{}', now() - interval '1 hour' from generate_series(1, 5) i;
         delete from apalis.jobs where id = 'job-1'",
    )
    .await;
    assert_eq!(listed(&site.text(&pages[1].0, &cookie).await), pages[1].1);
    assert_eq!(listed(&site.live(&format!("/live{}", pages[1].0), &cookie).await), pages[1].1);
}

#[tokio::test]
async fn every_page_size_and_direction_gives_the_same_order() {
    let site = Site::new().await;
    let db = &site.api.world.db;
    // Many jobs share the instants at which they are due or ended.
    execute(
        &site,
        "delete from apalis.jobs;
         insert into apalis.jobs (id, job_type, job, status, priority, run_at, done_at)
         select chr(97 + i * 7 % 26) || i, (array['a', 'b', 'sync-relay'])[1 + i % 3], '{}', state,
                (array[10, 5, 0])[1 + i % 3], date_trunc('minute', now()) + i % 4 * interval '1 min',
                case when state in ('Done', 'Killed')
                     then date_trunc('minute', now()) - i % 3 * interval '1 min' end
         from generate_series(0, 59) i,
              lateral (select (array['Pending', 'Failed', 'Queued', 'Running', 'Done', 'Killed'])
                              [1 + (i * 5 + i / 6) % 6] as state) s",
    )
    .await;
    let ids = |jobs: &[queue::JobSummary]| jobs.iter().map(|j| j.id.clone()).collect::<Vec<_>>();
    let states = JobState::ALL.map(Some).into_iter().chain([None]);
    for state in states {
        let filter = JobFilter { state, ..JobFilter::default() };
        let read = async |page: &Page, limit| queue::jobs(db, &filter, page, limit).await.unwrap();
        let all = read(&Page::First, 100).await;
        assert_eq!(all.len(), if state.is_none() { 60 } else { 10 }, "{state:?}");
        for (place, job) in all.iter().enumerate() {
            assert_eq!(queue::Cursor::parse(&job.cursor().to_string()), Some(job.cursor()));
            let after = read(&Page::After(job.cursor()), 7).await;
            assert_eq!(ids(&after), ids(&all[place + 1..(place + 8).min(all.len())]));
            let before = read(&Page::Before(job.cursor()), 7).await;
            assert_eq!(ids(&before), ids(&all[place.saturating_sub(7)..place]));
        }
    }
    for text in ["", "due", "due-1", "due-x-a", "due--1-a", "ended-253402300800000000-a", "x-1-a"] {
        assert_eq!(queue::Cursor::parse(text), None, "{text}");
    }
}

#[tokio::test]
async fn a_job_is_shown_with_its_metadata_and_its_whole_payload() {
    let site = Site::new().await;
    let (cookie, _) = site.log_in(&site.api.admin).await;
    execute(
        &site,
        r#"insert into apalis.jobs
               (id, job_type, job, status, priority, idempotency_key, metadata, last_result)
           values ('one', 'prune', '{"b":1e400,"a":[],"c":"<i>"}', 'Pending', 10, 'key-1',
                   hstore(array['held_by', 'zooid.test', 'seen', 'yes']), '{"Err": "too late"}'),
                  ('long', 'prune', convert_to(repeat('x', 300000), 'UTF8'), 'Pending', 0, null, null, null)"#,
    )
    .await;
    let page = site.text("/jobs/one", &cookie).await;
    shows(
        &page,
        &[
            "{\n  &quot;b&quot;: 1e400,\n  &quot;a&quot;: [],\n  &quot;c&quot;: ",
            "&quot;&lt;i&gt;&quot;\n}",
            "<dt>Priority</dt><dd>10</dd>",
            "<dt>Key</dt><dd>key-1</dd>",
            r#"<code>held_by</code></td><td class="any" data-label="Value">zooid.test</td>"#,
            r#"<code>seen</code></td><td class="any" data-label="Value">yes</td>"#,
            "too late",
        ],
    );
    let page = site.text("/jobs/long", &cookie).await;
    shows(&page, &["Only the first 256 KiB are shown; 300.0 kB are stored."]);
    assert!(page.contains(&"x".repeat(256 * 1024)) && !page.contains(&"x".repeat(256 * 1024 + 1)));

    let job = site.api.world.fetch().await;
    let page = site.text(&format!("/jobs/{}", job.id), &cookie).await;
    let holder = format!(r#"href="/dashboard/workers?queue=sync-relay#worker-{}""#, job.worker);
    shows(&page, &[&holder, "queued", &format!("/dashboard/relays/{}", site.relay_id)]);
}
