//! `workers`, `schedule`, `dashboard-link`: the workers, the recurring jobs, and access to the
//! dashboard.

use chrono::{DateTime, Utc};
use comfy_table::Cell;
use serde_json::json;
use tender_jobs::{
    console::{operator, session},
    queue::{self, schedule},
};

use super::{ask::Yes, load, operator, print, with_database};
use crate::{
    config::Needs,
    dashboard::{self, LINK_MINUTES},
    words::counted,
};

/// Prints the workers that are alive and their running jobs.
pub(super) async fn workers(as_json: bool) -> anyhow::Result<()> {
    let config = load(Needs::Database, "warn")?;
    with_database(&config, async |database| {
        let mut workers = queue::workers(&database.pool).await?;
        workers.retain(|worker| worker.is_alive);
        if as_json {
            return print::json(&workers);
        }
        if workers.is_empty() {
            return print::line("no worker is running: start `tender work` or `tender serve`");
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

/// Prints each recurring job with its last and its next run.
pub(super) async fn schedule(as_json: bool) -> anyhow::Result<()> {
    let config = load(Needs::Database, "warn")?;
    with_database(&config, async |database| {
        let recurring = schedule::list(&database.pool).await?;
        if as_json {
            return print::json(&recurring);
        }
        if recurring.is_empty() {
            return print::line(
                "no recurring jobs yet: a worker records them when it starts; start `tender work`",
            );
        }
        let now = queue::now(&database.pool).await?;
        let mut table = print::table(&["JOB", "SCHEDULE", "LAST RUN", "NEXT RUN", "LAST ERROR"]);
        for job in &recurring {
            table.add_row(vec![
                Cell::new(&job.name),
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

/// Prints a login link for the dashboard. It works once, within [`LINK_MINUTES`].
pub(super) async fn dashboard_link(as_json: bool) -> anyhow::Result<()> {
    let config = load(Needs::Database, "warn")?;
    with_database(&config, async |database| {
        let link = dashboard::new_link(&database.pool).await?;
        let url = format!("{}{link}", config.api.base_url);
        let who = operator().who;
        operator::record(&database.pool, &who, "make_link", "", "a login link for the dashboard")
            .await?;
        if as_json {
            return print::json(&json!({ "url": url, "minutes": LINK_MINUTES }));
        }
        print::line(&url)
    })
    .await
}

/// Ends every session of the dashboard.
pub(super) async fn end_sessions(yes: Yes, as_json: bool) -> anyhow::Result<()> {
    let config = load(Needs::Database, "warn")?;
    with_database(&config, async |database| {
        let sessions = counted(session::count(&database.pool).await?, "session");
        yes.or_asks(&format!("End {sessions} of the dashboard? All operators log in again."))
            .await?;
        let ended = session::revoke(&database.pool, None).await?;
        let words = format!("{ended} sessions ended");
        operator::record(&database.pool, &operator().who, "end_sessions", "", &words).await?;
        print::done(as_json, &words)
    })
    .await
}
