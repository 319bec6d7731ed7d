//! `process …`: the processes that run workers; lets one finish what it runs and take no other job.

use anyhow::{Context as _, bail};
use clap::Subcommand;
use sqlx::{PgPool, Postgres, Transaction};
use tender_jobs::queue::{
    self,
    process::{self, Process},
};

use super::{
    audit, load, operator,
    print::{self, Cell, Color, Column, Table},
    queue::reason,
    with_database,
};
use crate::{config::Needs, postgres::Database};

#[derive(Debug, Subcommand)]
pub(crate) enum ProcessCommand {
    /// List the processes that run workers.
    List,
    /// Let a process finish what it runs and take no other job, until it is undrained or started anew.
    Drain {
        /// Id of the process, or its host and process id, such as web-1:4711.
        process: String,
        /// Why, for other operators; at most 300 characters.
        #[arg(long, value_parser = reason)]
        reason: Option<String>,
    },
    /// Let a drained process take jobs again.
    Undrain {
        /// Id of the process, or its host and process id.
        process: String,
    },
}

impl ProcessCommand {
    pub(super) async fn run(self, json: bool) -> anyhow::Result<()> {
        let config = load(Needs::Database, "warn")?;
        with_database(&config, async |database| match self {
            Self::List => list(database, json).await,
            Self::Drain { process, reason } => {
                let one = find(&database.pool, &process).await?;
                let who = operator().who;
                let mut tx = tender_jobs::database::begin(&database.pool).await?;
                let changed = process::drain(&mut *tx, one.id, &who, reason.as_deref()).await?;
                let words =
                    if changed { "takes no more jobs, within 5 s" } else { "drained before" };
                done(tx, "drain_process", &one, words, json).await
            }
            Self::Undrain { process } => {
                let one = find(&database.pool, &process).await?;
                let mut tx = tender_jobs::database::begin(&database.pool).await?;
                let changed = process::undrain(&mut *tx, one.id).await?;
                let words = if changed { "takes jobs again, within 5 s" } else { "did not drain" };
                done(tx, "undrain_process", &one, words, json).await
            }
        })
        .await
    }
}

async fn find(db: &PgPool, named: &str) -> anyhow::Result<Process> {
    let processes = process::processes(db).await?.into_iter().filter(|process| process.is_alive);
    let is_meant = |process: &Process| process.id.to_string() == named || process.place() == named;
    let mut found: Vec<Process> = processes.filter(is_meant).collect();
    if found.len() > 1 {
        bail!(
            "{} processes are named {named}: give the id that `tender process list --json` shows",
            found.len()
        );
    }
    found
        .pop()
        .with_context(|| format!("there is no running process {named}; see `tender process list`"))
}

async fn done(
    tx: Transaction<'_, Postgres>,
    action: &str,
    process: &Process,
    words: &str,
    json: bool,
) -> anyhow::Result<()> {
    let result = format!("{} {words}", process.place());
    audit::commit(tx, action, &process.name, &result).await?;
    print::done(json, &result)
}

const COLUMNS: [Column; 5] = [
    Column::text("PROCESS", Column::ALWAYS, 30),
    Column::whole("STATE", 9),
    Column::whole("STARTED", 5),
    Column::whole("MEMORY", 6),
    Column::text("WINGS", 3, 12),
];

async fn list(database: &Database, json: bool) -> anyhow::Result<()> {
    let processes = process::processes(&database.pool).await?;
    if json {
        return print::json(&processes);
    }
    if processes.is_empty() {
        return print::line("no process runs workers: start `tender work` or `tender serve`");
    }
    let now = queue::now(&database.pool).await?;
    let mut table = Table::new(&COLUMNS);
    for process in &processes {
        table.add_row(vec![
            Cell::new(process.place()),
            state(process),
            print::relative(process.started_at, now).into(),
            process.memory_bytes.map_or_else(|| "-".to_owned(), mebibytes).into(),
            process.wings.join(" ").into(),
        ]);
    }
    table.print()
}

fn state(process: &Process) -> Cell {
    match (process.is_alive, process.drain_at) {
        (false, _) => Cell::new("dead").fg(Color::Red),
        (true, Some(_)) => Cell::new("drains").fg(Color::Yellow),
        (true, None) => Cell::new("takes jobs").fg(Color::Green),
    }
}

fn mebibytes(bytes: i64) -> String {
    format!("{} MiB", bytes / 1_048_576)
}
