//! `workers`, `schedule`, `dashboard-link`: who works, what runs when, and a way in.

use chrono::{DateTime, Utc};
use comfy_table::Cell;
use serde_json::json;
use tender_jobs::{operator, queue, recurring, session};

use super::{load, operator, print, with_database};
use crate::{
    config::Needs,
    dashboard::{self, LINK_MINUTES},
};

/// Who is alive, and what it runs.
pub(super) async fn workers(as_json: bool) -> anyhow::Result<()> {
    let config = load(Needs::Database, "warn")?;
    with_database(&config, async |database| {
        let mut workers = queue::workers(&database.pool).await?;
        workers.retain(|worker| worker.is_alive);
        if as_json {
            return print::json(&workers);
        }
        if workers.is_empty() {
            return print::line("nobody is alive: start `tender work` or `tender serve`");
        }
        let now = queue::now(&database.pool).await?;
        let mut table = print::table(&["QUEUE", "PROCESS", "STARTED", "HEARTBEAT", "RUNS", "JOBS"]);
        for worker in &workers {
            table.add_row(vec![
                Cell::new(&worker.queue),
                worker.process.as_str().into(),
                told(worker.started_at, now).into(),
                print::relative(worker.last_seen, now).into(),
                worker.running.into(),
                worker.jobs.iter().take(3).cloned().collect::<Vec<_>>().join(" ").into(),
            ]);
        }
        print::line(&table.trim_fmt())
    })
    .await
}

/// Each recurring job, its last run and its next.
pub(super) async fn schedule(as_json: bool) -> anyhow::Result<()> {
    let config = load(Needs::Database, "warn")?;
    with_database(&config, async |database| {
        let recurring = recurring::list(&database.pool).await?;
        if as_json {
            return print::json(&recurring);
        }
        if recurring.is_empty() {
            return print::line("nothing is planned yet: a worker plans when it starts");
        }
        let now = queue::now(&database.pool).await?;
        let mut table = print::table(&["JOB", "SCHEDULE", "LAST RUN", "NEXT RUN", "LAST ERROR"]);
        for job in &recurring {
            table.add_row(vec![
                Cell::new(&job.queue),
                job.expression.as_str().into(),
                told(job.last_ended_at, now).into(),
                told(job.next_at, now).into(),
                job.last_error.as_deref().unwrap_or_default().into(),
            ]);
        }
        print::line(&table.trim_fmt())
    })
    .await
}

fn told(at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| print::relative(at, now))
}

/// A link that lets in once.
pub(super) async fn dashboard_link(as_json: bool) -> anyhow::Result<()> {
    let config = load(Needs::Database, "warn")?;
    with_database(&config, async |database| {
        let link = dashboard::new_link(&database.pool).await?;
        let url = format!("{}{link}", config.api.base_url);
        let who = operator().who;
        operator::record(&database.pool, &who, "make_link", "", "a link into the dashboard")
            .await?;
        if as_json {
            return print::json(&json!({ "url": url, "minutes": LINK_MINUTES }));
        }
        print::line(&url)
    })
    .await
}

/// Whoever is in the dashboard is out.
pub(super) async fn end_sessions(as_json: bool) -> anyhow::Result<()> {
    let config = load(Needs::Database, "warn")?;
    with_database(&config, async |database| {
        let ended = session::revoke(&database.pool, None).await?;
        let words = format!("{ended} sessions ended");
        operator::record(&database.pool, &operator().who, "end_sessions", "", &words).await?;
        print::done(as_json, &words)
    })
    .await
}
