//! The pages of queues and workers show what their rows hold.

use tender_jobs::queue;

use super::Site;

/// Runs statements against the site's database.
pub(super) async fn execute(site: &Site, statements: &'static str) {
    sqlx::raw_sql(statements).execute(&site.api.world.db).await.unwrap();
}

impl Site {
    pub(super) async fn text(&self, path: &str, cookie: &str) -> String {
        let response = self.get(path, cookie).await;
        assert_eq!(response.status(), reqwest::StatusCode::OK, "{path}");
        response.text().await.unwrap()
    }

    /// The first event of a live part.
    pub(super) async fn live(&self, path: &str, cookie: &str) -> String {
        let mut response = self.get(path, cookie).await;
        let mut event = Vec::new();
        while !event.ends_with(b"\n\n") {
            event.extend(response.chunk().await.unwrap().expect("the stream goes on"));
        }
        String::from_utf8(event).unwrap()
    }
}

pub(super) fn shows(page: &str, texts: &[&str]) {
    for text in texts {
        assert!(page.contains(text), "{text} is not on the page:\n{page}");
    }
}

/// The table row that has this text.
pub(super) fn row<'a>(page: &'a str, text: &str) -> &'a str {
    let at = page.find(text).unwrap_or_else(|| panic!("{text} is not on the page:\n{page}"));
    let start = page[..at].rfind("<tr").unwrap();
    let end = page[at..].find("</tr>").unwrap();
    &page[start..at + end]
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
