//! `audit`: what operators did. Also records the commands that were refused or failed.

mod changes;

use clap::{Args, ValueEnum};
use sqlx::{PgPool, Postgres, Transaction};
use tender_jobs::{
    console::operator::{Action, Entry, Outcome, Search, list},
    queue,
};

use super::{
    load, operator,
    print::{self, Cell, Color, Column, Table},
    with_database,
};
use crate::{config::Needs, page::cut, search};
pub(super) use changes::changes;

tokio::task_local! {
    /// The action and the target of a command that changes something, as the audit log names them.
    pub(super) static CHANGES: Option<(&'static str, String)>;
}

const COLUMNS: [Column; 5] = [
    Column::whole("WHEN", Column::ALWAYS),
    Column::text("WHO", 8, 12),
    Column::whole("ACTION", 9),
    Column::text("TARGET", 7, 16),
    Column::text("RESULT", 6, 16),
];

#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// Only actions of those whose name contains this text: user, host, public key, name of an API key.
    #[arg(long, value_name = "TEXT")]
    who: Option<String>,
    /// Only actions whose kind contains this text, such as `relay_delete` or `queue`.
    #[arg(long, value_name = "TEXT")]
    action: Option<String>,
    /// Only actions whose target contains this text.
    #[arg(long, value_name = "TEXT")]
    target: Option<String>,
    /// Only actions that ended so.
    #[arg(long, value_enum)]
    outcome: Option<OutcomeArg>,
    /// Only actions that came by this way.
    #[arg(long, value_enum)]
    via: Option<ViaArg>,
    /// Only actions of the last so many hours.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=876_000))]
    hours: Option<u32>,
    /// Maximum number of actions to show.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Only actions before the one with this id; the end of the output names it.
    #[arg(long, value_name = "ID")]
    before: Option<i64>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OutcomeArg {
    Done,
    Refused,
    Failed,
}

impl From<OutcomeArg> for Outcome {
    fn from(outcome: OutcomeArg) -> Self {
        match outcome {
            OutcomeArg::Done => Self::Done,
            OutcomeArg::Refused => Self::Refused,
            OutcomeArg::Failed => Self::Failed,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ViaArg {
    Page,
    Command,
    Api,
}

impl ViaArg {
    fn as_str(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Command => "command",
            Self::Api => "api",
        }
    }
}

impl AuditArgs {
    fn search(&self) -> Search {
        Search {
            who: self.who.as_deref().and_then(search::normal),
            action: self.action.clone(),
            target: self.target.as_deref().and_then(search::normal),
            outcome: self.outcome.map(Outcome::from),
            via: self.via.map(|via| via.as_str().to_owned()),
            within_secs: self.hours.map(|hours| f64::from(hours) * 3600.0),
            before: self.before,
        }
    }
}

/// Records that the command that changes something did not do so. Without a database the error says so itself.
pub(super) async fn record(db: &PgPool, error: &anyhow::Error) {
    let Ok(Some((action, target))) = CHANGES.try_with(Clone::clone) else { return };
    let is_failed = error.chain().any(<dyn std::error::Error + 'static>::is::<sqlx::Error>);
    let outcome = if is_failed { Outcome::Failed } else { Outcome::Refused };
    let (who, words) = (operator().who, format!("{error:#}"));
    let entry = Entry::new(&who, action, &target, &words).ended(outcome);
    if let Err(error) = entry.record(db).await {
        tracing::warn!(action, target, %error, "could not record a command that was not done");
    }
}

/// Records what a command did in the transaction of the change, and commits both: a process that dies before leaves
/// neither.
pub(super) async fn commit(
    mut tx: Transaction<'_, Postgres>,
    action: &str,
    target: &str,
    result: &str,
) -> sqlx::Result<()> {
    Entry::new(&operator().who, action, target, result).record(&mut *tx).await?;
    tx.commit().await
}

/// Prints actions, newest first.
pub(super) async fn show(args: &AuditArgs, as_json: bool) -> anyhow::Result<()> {
    let config = load(Needs::Database, "warn")?;
    with_database(&config, async |database| {
        let limit = i64::from(args.limit);
        let actions = list(&database.pool, &args.search(), limit + 1).await?;
        let (actions, before) = cut(actions, limit, |action| action.id);
        if as_json {
            return print::json(&actions);
        }
        if actions.is_empty() {
            return print::line("no action of an operator matches");
        }
        let now = queue::now(&database.pool).await?;
        let mut table = Table::new(&COLUMNS);
        for one in &actions {
            table.add_row(vec![
                Cell::new(format!("{} ago", print::distance(one.created_at, now))),
                Cell::new(&one.who),
                Cell::new(&one.action),
                Cell::new(&one.target),
                result(one),
            ]);
        }
        table.print()?;
        before.map_or(Ok(()), |id| {
            print::note(&format!(
                "the newest {limit}; older ones: --before {id}, or more: --limit N"
            ))
        })
    })
    .await
}

fn result(one: &Action) -> Cell {
    let words = one.result.as_str();
    match one.outcome {
        Outcome::Done if words.is_empty() => Cell::new("done"),
        Outcome::Done => Cell::new(words),
        Outcome::Refused => Cell::new(format!("refused: {words}")).fg(Color::Yellow),
        Outcome::Failed => Cell::new(format!("failed: {words}")).fg(Color::Red),
    }
}
