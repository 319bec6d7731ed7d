//! The pages of the queue show what its rows hold: workers, jobs by page, one job, figures.

use tender_jobs::queue::{self, JobFilter, JobState, Page};

use super::Site;

/// Runs statements against the site's database.
async fn execute(site: &Site, statements: &'static str) {
    sqlx::raw_sql(statements).execute(&site.api.world.db).await.unwrap();
}

impl Site {
    async fn text(&self, path: &str, cookie: &str) -> String {
        let response = self.get(path, cookie).await;
        assert_eq!(response.status(), reqwest::StatusCode::OK, "{path}");
        response.text().await.unwrap()
    }

    /// The first event of a live part.
    async fn live(&self, path: &str, cookie: &str) -> String {
        let mut response = self.get(path, cookie).await;
        let mut event = Vec::new();
        while !event.ends_with(b"\n\n") {
            event.extend(response.chunk().await.unwrap().expect("the stream goes on"));
        }
        String::from_utf8(event).unwrap()
    }
}

fn shows(page: &str, texts: &[&str]) {
    for text in texts {
        assert!(page.contains(text), "{text} is not on the page:\n{page}");
    }
}

/// The table row that has this text.
fn row<'a>(page: &'a str, text: &str) -> &'a str {
    let at = page.find(text).unwrap_or_else(|| panic!("{text} is not on the page:\n{page}"));
    let start = page[..at].rfind("<tr").unwrap();
    let end = page[at..].find("</tr>").unwrap();
    &page[start..at + end]
}

/// The jobs of a list, in order.
fn listed(page: &str) -> Vec<String> {
    let rows = page.split(r#"data-label="Job"><a href="/dashboard/jobs/"#).skip(1);
    rows.map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

/// The address of a link to another page of the list, below the dashboard's.
fn link(page: &str, rel: &str) -> Option<String> {
    let (_, rest) = page.split_once(&format!(r#"rel="{rel}" href="/dashboard"#))?;
    Some(rest.split('"').next()?.replace("&amp;", "&"))
}

#[tokio::test]
async fn workers_are_listed_with_their_jobs_and_the_dead_are_marked() {
    let site = Site::new().await;
    let (cookie, _) = site.log_in(&site.api.admin).await;
    let world = &site.api.world;
    let job = world.fetch().await;
    for name in ["mirror-dead", "mirror-ancient"] {
        queue::register(&world.db, name, "mirror", "an old host").await.unwrap();
    }
    execute(
        &site,
        "update apalis.workers set last_seen = now() + interval '10 min' where worker_type = 'sync-relay';
         update apalis.workers set last_seen = now() - interval '1 hour' where id = 'mirror-dead';
         update apalis.workers set last_seen = now() - interval '2 days' where id = 'mirror-ancient'",
    )
    .await;

    let page = site.text("/workers", &cookie).await;
    let anchor = format!(r#"id="worker-{}""#, world.worker);
    let alive = row(&page, &anchor);
    let held = format!(r#"href="/dashboard/jobs/{}""#, job.id);
    shows(alive, &[&held, "1 job", ">alive<", "sync-relay", "test", "<time"]);
    shows(row(&page, "worker-mirror-dead"), &[">dead<", "an old host", "0 jobs"]);
    assert!(page.find(&anchor) < page.find("worker-mirror-dead"), "living workers come first");
    assert!(!page.contains("mirror-ancient"), "{page}");

    let page = site.text("/workers?queue=mirror", &cookie).await;
    assert!(page.contains("mirror-dead") && !page.contains(&anchor), "{page}");
    let part = site.live("/live/workers?queue=mirror", &cookie).await;
    assert!(part.contains("mirror-dead") && !part.contains(&anchor), "{part}");
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
    shows(
        row(&page, "/jobs/foreign"),
        &["mystery &amp; co", ">waiting<", r#"data-label="Priority">5</td>"#],
    );
    shows(row(&page, "/jobs/old"), &["2026-01-02 03:04:05 UTC", "2026-01-02 03:05:06 UTC"]);
    let holder = format!(r#"href="/dashboard/workers?queue=sync-relay#worker-{}""#, world.worker);
    shows(row(&page, &format!("/jobs/{}", job.id)), &[&holder, " since <time", ">running<"]);
    let part = site.live("/live/jobs?queue=mystery+%26+co", &cookie).await;
    assert_eq!(listed(&part), ["foreign"]);
    let page = site.text("/jobs?error=nothing+has+this", &cookie).await;
    assert!(page.contains("No job matches"), "{page}");
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
            "<code>held_by</code></td><td class=\"any\" data-label=\"Value\">zooid.test</td>",
            "<code>seen</code></td><td class=\"any\" data-label=\"Value\">yes</td>",
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

#[tokio::test]
async fn queues_show_the_figures_of_their_rows() {
    let site = Site::new().await;
    let (cookie, _) = site.log_in(&site.api.admin).await;
    execute(
        &site,
        "insert into apalis.jobs (id, job_type, job, status, run_at, done_at)
         select 'done-' || i, 'prune', '{}', 'Done', at - interval '2 s', at
         from generate_series(1, 5) i,
              lateral (select now() - case when i <= 3 then interval '10 min'
                                           else interval '330 min' end as at) a;
         insert into apalis.jobs (id, job_type, job, status, done_at) values
             ('killed-1', 'prune', '{}', 'Killed', now() - interval '2 hours'),
             ('killed-2', 'prune', '{}', 'Killed', now() - interval '3 days');
         insert into apalis.jobs (id, job_type, job, status, lock_by, lock_at)
         select 'running-' || i, 'prune', '{}', case when i = 3 then 'Queued' else 'Running' end,
                (select min(id) from apalis.workers), now() - i * interval '1 min'
         from generate_series(1, 3) i;
         insert into apalis.jobs (id, job_type, job) values ('foreign', 'mystery', '{}');
         update apalis.workers set last_seen = now() + interval '10 min'",
    )
    .await;
    let page = site.text("/queues", &cookie).await;
    let (now, lately) = page.split_once("The last day").unwrap();
    shows(row(now, r#"data-label="Queue">mystery<"#), &["unknown", ">1</a>"]);
    let states = row(now, r#"data-label="Queue">prune<"#);
    shows(
        states,
        &[
            "/jobs?queue=prune&amp;state=running\">2</a>",
            "/jobs?queue=prune&amp;state=queued\">1</a>",
            "/jobs?queue=prune&amp;state=killed\">2</a>",
            "/jobs?queue=prune&amp;state=done\">5</a>",
        ],
    );
    let figures = row(lately, r#"data-label="Queue">prune<"#);
    shows(
        figures,
        &[
            r#"href="/dashboard/jobs/running-2""#,
            r#"data-label="Ended, 1 h">3<"#,
            r#"data-label="Ended, 24 h">6<"#,
            r#"data-label="Killed, 24 h">1<"#,
            r#"data-label="Killed, 7 days">2<"#,
            r#"data-label="Kill rate, 24 h">16.7 %<"#,
            r#"data-label="Mean time">2.0 s<"#,
            "<title>3, 0 h ago</title>",
            "<title>2, 5 h ago</title>",
            "/dashboard/workers?queue=prune&amp;state=alive\">0 alive</a>",
        ],
    );
    assert_eq!(figures.matches("<rect").count(), 24);
    shows(row(lately, r#"data-label="Queue">sync-relay<"#), &["1 alive</a>"]);
}
