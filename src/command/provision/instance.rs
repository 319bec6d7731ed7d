//! `instance …`: the zooid instances that are known, and the end of those that nobody uses any more.

use std::time::Duration;

use anyhow::bail;
use clap::Subcommand;
use tender_jobs::{
    console::operator as actions,
    provision::{
        instance::{self, Probe},
        relay::COUNT_CAP,
    },
};

use crate::{
    command::{
        load, operator,
        print::{self, Cell, Column, Table},
        with_database,
    },
    config::Needs,
    words,
};

#[derive(Debug, Subcommand)]
pub(crate) enum InstanceCommand {
    /// List the zooid instances with their breakers and their calls in flight.
    List,
    /// Probe an instance whose breaker is open now, and say what the probe found. Exit code 1 if it is still out.
    Probe {
        /// Name of the instance, as `instance list` shows it.
        name: String,
    },
    /// Forget an instance that no process has in its configuration any more.
    Forget {
        /// Name of the instance, as `instance list` shows it.
        name: String,
    },
}

impl InstanceCommand {
    pub(in crate::command) async fn run(self, json: bool) -> anyhow::Result<()> {
        let config = load(Needs::Database, "warn")?;
        with_database(&config, async |database| match self {
            Self::List => list(&database.pool, json).await,
            Self::Probe { name } => probe(&database.pool, &name, json).await,
            Self::Forget { name } => {
                instance::forget(&database.pool, &name).await?;
                let words = format!(
                    "{name} is forgotten; its waiting jobs go where their domains are served now"
                );
                let who = operator().who;
                actions::record(&database.pool, &who, "forget_instance", &name, &words).await?;
                print::done(json, &words)
            }
        })
        .await
    }
}

/// How long the command waits for what a probe finds: longer than a call to zooid may take.
const PROBED_WITHIN: Duration = Duration::from_secs(30);

async fn probe(db: &sqlx::PgPool, name: &str, json: bool) -> anyhow::Result<()> {
    if !instance::list(db).await?.iter().any(|one| one.name == name) {
        bail!("there is no zooid instance {name}: see `tender instance list`");
    }
    let probe = instance::probe(db, name, PROBED_WITHIN).await?;
    let words = words::probe::found(name, &probe);
    // An error is recorded with its words.
    if matches!(probe, Probe::Failed { .. } | Probe::Awaited { .. }) {
        bail!(words);
    }
    actions::record(db, &operator().who, "probe_instance", name, &words).await?;
    if json { print::json(&probe) } else { print::line(&words) }
}

const COLUMNS: [Column; 7] = [
    Column::text("INSTANCE", Column::ALWAYS, 24),
    Column::whole("BREAKER", 9),
    Column::whole("IN FLIGHT", 5),
    Column::whole("LIMIT", 4),
    Column::whole("WAITING", 7),
    Column::whole("CONFIGURED", 3),
    Column::text("LAST ERROR", 6, 20),
];

async fn list(db: &sqlx::PgPool, json: bool) -> anyhow::Result<()> {
    let instances = instance::list(db).await?;
    if json {
        return print::json(&instances);
    }
    if instances.is_empty() {
        return print::line("no worker has called zooid yet");
    }
    let now = tender_jobs::queue::now(db).await?;
    let mut table = Table::new(&COLUMNS);
    for one in &instances {
        let limit =
            one.calls_allowed.map_or_else(|| "-".to_owned(), |n| format!("{:.0}", n.floor()));
        let configured = if one.is_forgotten {
            format!("no, last {}", print::relative(one.seen_at, now))
        } else {
            "yes".to_owned()
        };
        table.add_row(vec![
            Cell::new(&one.name),
            one.breaker.as_str().into(),
            one.in_flight.into(),
            limit.into(),
            format!("{}{}", one.waiting, if one.waiting >= COUNT_CAP { "+" } else { "" }).into(),
            configured.into(),
            one.last_error.as_str().into(),
        ]);
    }
    table.print()
}
