//! `grasp relays`, `relay`, `resync`: the commands on followed relays.

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use serde_json::json;
use sqlx::PgPool;
use tender_jobs::{
    console::operator as record,
    grasp::view::{self, RelayRow, RelaySearch, RelayState},
    queue,
};

use super::missing::{print_batches, print_gaps, print_missing};
use crate::{
    command::{
        operator,
        print::{self, Cell, Color, Column, Size, Table},
    },
    words::{counted, grasp as words},
};

/// Rows of each list of `grasp relay`.
const LISTED: i64 = 20;
const COLUMNS: [Column; 9] = [
    Column::text("URL", Column::ALWAYS, 24),
    Column::whole("STATE", 9),
    Column::whole("SINCE", 5),
    Column::whole("NEXT TRY", 6),
    Column::whole("COVERAGE", 8),
    Column::whole("OPEN SUBS", 3),
    Column::whole("NIP-77", 2),
    Column::whole("DRIFT", 2),
    Column::whole("HOLDER", 1),
];

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum StateArg {
    InStep,
    CatchingUp,
    Connecting,
    Waiting,
    Limited,
    Fault,
    Dead,
    NoRoom,
    Unwanted,
}

impl From<StateArg> for RelayState {
    fn from(state: StateArg) -> Self {
        match state {
            StateArg::InStep => Self::InStep,
            StateArg::CatchingUp => Self::CatchingUp,
            StateArg::Connecting => Self::Connecting,
            StateArg::Waiting => Self::Waiting,
            StateArg::Limited => Self::Limited,
            StateArg::Fault => Self::Fault,
            StateArg::Dead => Self::Dead,
            StateArg::NoRoom => Self::NoRoom,
            StateArg::Unwanted => Self::Unwanted,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only relays in this state.
    #[arg(long, value_enum)]
    state: Option<StateArg>,
    /// Only relays whose address contains this text.
    #[arg(long, value_name = "TEXT")]
    q: Option<String>,
    /// Only relays after this address: the last one of the page before.
    #[arg(long, value_name = "URL")]
    after: Option<String>,
    #[command(flatten)]
    size: Size,
}

pub(super) async fn list(db: &PgPool, list: List, as_json: bool) -> anyhow::Result<()> {
    let state = list.state.map(RelayState::from);
    let is_search = state.is_some() || list.q.is_some() || list.after.is_some();
    let search = RelaySearch {
        state,
        text: list.q.as_deref().and_then(crate::search::normal),
        after: list.after,
    };
    let rows = view::relays(db, &search, list.size.read()).await?;
    let (rows, cut) = list.size.cut(rows, |last| last.url.clone());
    if as_json {
        print::json(&rows)?;
        return cut.say();
    }
    if rows.is_empty() && is_search {
        return print::line("no followed relay matches; `tender grasp relays` lists all");
    }
    if rows.is_empty() {
        return print::line(
            "no followed relay: `tender grasp add URL` adds a service, and its repositories name the relays",
        );
    }
    print_table(&rows, queue::now(db).await?)?;
    cut.say()
}

fn print_table(rows: &[RelayRow], now: DateTime<Utc>) -> anyhow::Result<()> {
    let mut table = Table::new(&COLUMNS);
    for one in rows {
        table.add_row(cells(one, now));
    }
    table.print()
}

fn cells(one: &RelayRow, now: DateTime<Utc>) -> Vec<Cell> {
    vec![
        Cell::new(&one.url),
        Cell::new(words::state(one.state, one.fault.as_deref())).fg(relay_color(one.state)),
        print::distance(words::since(one), now).into(),
        words::next_try(one).map_or_else(|| "-".to_owned(), |at| soon(at, now)).into(),
        format!("{}/{}", one.confirmed, one.items()).into(),
        subscriptions(one).into(),
        one.nip77.as_str().into(),
        one.drift_total.into(),
        one.holder.as_deref().map_or("-", words::holder).into(),
    ]
}

/// Returns how long until a time that is due; `now` if it has passed.
fn soon(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    if at <= now { "now".to_owned() } else { print::distance(at, now) }
}

pub(super) fn relay_color(state: RelayState) -> Color {
    match words::grade(state) {
        "good" => Color::Green,
        "busy" => Color::Cyan,
        "bad" => Color::Red,
        "warn" => Color::Yellow,
        _ => Color::Reset,
    }
}

/// Returns the open subscriptions in short, such as `12, 3 closed`.
fn subscriptions(one: &RelayRow) -> String {
    let also = [(one.subscriptions_closed, "closed"), (one.overflow, "polled")];
    let also = also.into_iter().filter(|(number, _)| *number > 0);
    let also: Vec<_> = also.map(|(number, what)| format!(", {number} {what}")).collect();
    format!("{}{}", one.subscriptions, also.concat())
}

/// Returns the state with its time, such as `dead since 3 h 5 min ago`.
pub(super) fn told(one: &RelayRow, now: DateTime<Utc>) -> String {
    let told = words::told(one);
    match told.at {
        Some(at) => {
            format!("{} {} ({})", told.words, at.format("%F %T UTC"), print::relative(at, now))
        }
        None => told.words,
    }
}

/// Finds a followed relay by its address or id.
pub(super) async fn named(db: &PgPool, name: &str) -> anyhow::Result<RelayRow> {
    let found = view::relay(db, name).await?;
    found.with_context(|| format!("no relay {name} is followed; see `tender grasp relays`"))
}

pub(super) async fn show(db: &PgPool, name: &str, as_json: bool) -> anyhow::Result<()> {
    let one = named(db, name).await?;
    let (batches, gaps) =
        (view::batches(db, one.id, LISTED).await?, view::gaps(db, one.id, LISTED).await?);
    let missing = view::missing(db, one.id, words::READ).await?;
    if as_json {
        return print::json(
            &json!({ "relay": one, "batches": batches, "missing": missing, "gaps": gaps }),
        );
    }
    let now = queue::now(db).await?;
    print::pairs(&facts(&one, now))?;
    print_missing(&missing, one.missing + one.in_flight, now)?;
    print_batches(&batches, now)?;
    print_gaps(&gaps, one.gaps)
}

fn facts(one: &RelayRow, now: DateTime<Utc>) -> Vec<(&'static str, String)> {
    let at = |at: Option<DateTime<Utc>>| {
        at.map_or_else(|| "-".to_owned(), |at| print::relative(at, now))
    };
    let error = one.last_error.as_deref().map(print::visible);
    let error = error.map(|error| format!("{error} ({})", at(one.last_error_at)));
    let note = one.resync_note.as_deref().map(|note| format!("; {}", print::visible(note)));
    let note = note.unwrap_or_default();
    let named = if one.is_bootstrap { ", and a service starts from it" } else { "" };
    vec![
        ("url", one.url.clone()),
        ("id", one.id.to_string()),
        ("state", told(one, now)),
        ("since", print::relative(words::since(one), now)),
        ("next try", at(words::next_try(one))),
        ("holder", one.holder.clone().unwrap_or_else(|| "-".to_owned())),
        ("named by", format!("{}{named}", counted(one.repositories, "repository"))),
        (
            "coverage",
            format!(
                "{} delivered, {} in flight",
                words::delivered(one.confirmed, one.items()),
                one.in_flight
            ),
        ),
        ("oldest missing", at(one.oldest_missing_at)),
        ("subscriptions", words::subscriptions(one)),
        ("live", format!("{:.1} accepted events per minute", one.live_per_minute)),
        ("NIP-77", one.nip77.clone()),
        ("last good", at(one.last_good_at)),
        ("verified", format!("{}; next {}{note}", at(one.resynced_at), at(one.resync_due_at))),
        (
            "drift",
            format!(
                "{} at the last verification, {} in total",
                counted(one.drift_last, "event"),
                one.drift_total
            ),
        ),
        ("connections", format!("{} of {}", one.connects, counted(one.attempts, "attempt"))),
        ("failures", format!("{} in a row", one.failures)),
        ("last error", error.unwrap_or_else(|| "-".to_owned())),
        ("events", format!("{} received, {} stored", one.received, one.stored)),
    ]
}

pub(super) async fn resync(db: &PgPool, url: Option<&str>, as_json: bool) -> anyhow::Result<()> {
    let url = match url {
        Some(name) => Some(named(db, name).await?.url),
        None => None,
    };
    let relays = view::request_resync(db, url.as_deref()).await?;
    if relays == 0 {
        bail!("no relay is followed; see `tender grasp relays`");
    }
    let target = url.as_deref().unwrap_or("all");
    let number = i64::try_from(relays).unwrap_or(i64::MAX);
    let are = if number == 1 { "is" } else { "are" };
    let told = format!("{} {are} verified again from now on", counted(number, "relay"));
    record::record(db, &operator().who, "resync_grasp", target, &told).await?;
    print::done(as_json, &format!("{told}; `tender grasp relays` shows the progress"))
}
