//! `workers`, `schedule`, `dashboard-link`: the workers, the recurring jobs, and access to the
//! dashboard.

use std::io::IsTerminal;

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgPool;
use tender_jobs::{
    console::{operator, session},
    queue::{self, schedule},
};

use super::{
    ask::Yes,
    flags::Flags,
    load, operator,
    print::{self, Cell, Column, Table},
    with_database,
};
use crate::{
    config::{Config, Needs},
    dashboard::{self, LINK_MINUTES},
    words::{counted, schedule::schedule as in_words},
};

const WORKERS: [Column; 6] = [
    Column::whole("QUEUE", Column::ALWAYS),
    Column::text("PROCESS", 9, 20),
    Column::whole("UP FOR", 4),
    Column::whole("HEARTBEAT", 7),
    Column::whole("RUNS", 6),
    Column::whole("JOBS", 1),
];

const SCHEDULE: [Column; 5] = [
    Column::whole("JOB", Column::ALWAYS),
    Column::whole("SCHEDULE", 5),
    Column::whole("LAST RUN", 6),
    Column::whole("NEXT RUN", 7),
    Column::text("LAST ERROR", 4, 16),
];

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
        let mut table = Table::new(&WORKERS);
        for worker in &workers {
            table.add_row(vec![
                Cell::new(&worker.queue),
                worker.process.as_str().into(),
                worker.started_at.map_or("-".to_owned(), |at| print::distance(at, now)).into(),
                print::distance(worker.last_seen, now).into(),
                worker.running.into(),
                worker.jobs.iter().take(3).cloned().collect::<Vec<_>>().join(" ").into(),
            ]);
        }
        table.print()
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
        let mut table = Table::new(&SCHEDULE);
        for job in &recurring {
            table.add_row(vec![
                Cell::new(&job.name),
                in_words(&job.expression).into(),
                told(job.last_ended_at, now).into(),
                told(job.next_at, now).into(),
                job.last_error.as_deref().unwrap_or_default().into(),
            ]);
        }
        table.print()
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
        let url = login_link(&config, &database.pool).await?;
        if as_json {
            return print::json(&json!({ "url": url, "minutes": LINK_MINUTES }));
        }
        print::line(&url)
    })
    .await
}

/// Creates a login link and records that.
async fn login_link(config: &Config, db: &PgPool) -> anyhow::Result<String> {
    let link = dashboard::new_link(db).await?;
    let (who, result) = (operator().who, "a login link for the dashboard");
    operator::record(db, &who, "make_link", "", result).await?;
    Ok(format!("{}{link}", config.api.base_url))
}

/// Says how to get into the dashboard of a process that has just started. At a terminal it is a link that works
/// once; a log is kept and read by others, so it gets only the name of the command.
pub(super) async fn say_entry(config: &Config, db: &PgPool) -> anyhow::Result<()> {
    if !std::io::stderr().is_terminal() || Flags::get().quiet {
        let url = format!("{}/dashboard", config.api.base_url);
        tracing::info!(url, "`tender dashboard-link` prints a login link for the dashboard");
        return Ok(());
    }
    let link = login_link(config, db).await?;
    print::note(&format!(
        "\n  Dashboard: {link}\n  The link works once, within {LINK_MINUTES} minutes; `tender dashboard-link` \
         prints another.\n"
    ))
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
