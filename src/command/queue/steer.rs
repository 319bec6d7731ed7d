//! `queue retry`, `queue cancel` and `queue delete`: of one job, or of all that match.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;
use tender_jobs::{
    console::operator::{self as audit, Begun},
    queue::{COUNT_CAP, JobState},
    steer::{self, Bounds, Steered, Verb},
};

use crate::{
    command::{ask::Yes, failure::usage, operator, print, serve},
    postgres::Database,
    search,
    selection::{self, Selected, Selection, Wanted},
};

/// Which jobs a list shows, or an action concerns.
#[derive(Debug, Clone, Args)]
pub(crate) struct Filters {
    /// Only jobs of this queue.
    #[arg(long, value_name = "NAME", value_parser = serve::known_queue)]
    queue: Option<String>,
    /// Only jobs in this state; open: killed, and needs attention.
    #[arg(long, value_enum)]
    state: Option<StateArg>,
    /// Only jobs of relays whose host begins with this, and of upstreams whose address contains it.
    #[arg(long, value_name = "TEXT", value_parser = named)]
    host: Option<String>,
    /// Only jobs of this tenant's relays: its public key, in hex or as npub.
    #[arg(long, value_name = "KEY", value_parser = named)]
    tenant: Option<String>,
    /// Only jobs whose last error contains this. Case matters.
    #[arg(long, value_name = "TEXT", value_parser = filled)]
    error: Option<String>,
    /// Only jobs that ended, or were due, at most this long ago: 90s, 5min, 2h, 1d.
    #[arg(long, value_name = "TIME", value_parser = age)]
    younger: Option<Duration>,
    /// Only jobs that ended, or were due, at least this long ago.
    #[arg(long, value_name = "TIME", value_parser = age)]
    older: Option<Duration>,
}

/// The job, or the jobs, that an action concerns.
#[derive(Debug, Clone, Args)]
pub(crate) struct Which {
    /// Id of the job.
    #[arg(required_unless_present = "all", conflicts_with_all = ["all", "queue", "state", "host", "tenant", "error", "younger", "older"])]
    job: Option<String>,
    /// All jobs that match, at most 100,000. Asks for confirmation, with their count.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    yes: Yes,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum StateArg {
    Waiting,
    Retrying,
    Queued,
    Running,
    Done,
    Killed,
    Open,
}

impl From<StateArg> for Wanted {
    fn from(state: StateArg) -> Self {
        Self::In(match state {
            StateArg::Waiting => JobState::Waiting,
            StateArg::Retrying => JobState::Retrying,
            StateArg::Queued => JobState::Queued,
            StateArg::Running => JobState::Running,
            StateArg::Done => JobState::Done,
            StateArg::Killed => JobState::Killed,
            StateArg::Open => return Self::Open,
        })
    }
}

/// Reads a host or a key. An empty one is wrong: a script whose variable is unset would mean every job.
fn named(text: &str) -> Result<String, String> {
    let named = search::normal(text).map(|_| text.to_owned());
    named.ok_or_else(|| "it names nothing; leave the option out to mean every job".to_owned())
}

/// Reads a part of an error, which must not be empty either.
fn filled(text: &str) -> Result<String, String> {
    let filled = (!text.trim().is_empty()).then(|| text.to_owned());
    filled.ok_or_else(|| "it is empty; leave the option out to mean every job".to_owned())
}

/// Parses a time such as `5min`.
fn age(text: &str) -> Result<Duration, String> {
    let (digits, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    let secs = match unit.trim() {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("give a whole number and a unit: 90s, 5min, 2h, 1d".to_owned()),
    };
    let number: u32 = digits.parse().map_err(|_| "give a whole number and a unit, such as 5min")?;
    // A hundred years: PostgreSQL counts no further back than its calendar.
    let age = u64::from(number).saturating_mul(secs).min(100 * 365 * 86_400);
    Ok(Duration::from_secs(age))
}

impl Filters {
    pub(super) fn selection(&self) -> Selection {
        Selection {
            host: self.host.clone(),
            tenant: self.tenant.clone(),
            queue: self.queue.clone(),
            state: self.state.map(Wanted::from),
            error: self.error.clone(),
            younger: self.younger,
            older: self.older,
        }
    }

    /// The filters as they were typed.
    fn described(&self) -> String {
        let secs = |age: Option<Duration>| age.map(|age| format!("{} s", age.as_secs()));
        let state = self.state.and_then(|state| state.to_possible_value());
        let typed = [
            ("host", self.host.clone()),
            ("tenant", self.tenant.clone()),
            ("queue", self.queue.clone()),
            ("state", state.map(|state| state.get_name().to_owned())),
            ("error", self.error.clone()),
            ("younger than", secs(self.younger)),
            ("older than", secs(self.older)),
        ];
        selection::described(typed.into_iter().filter_map(|(name, value)| Some((name, value?))))
    }
}

impl Which {
    /// Returns the name and the target of the action in the audit log.
    pub(in crate::command) fn change(&self, verb: Verb) -> (&'static str, String) {
        match (&self.job, verb) {
            (Some(job), Verb::Retry) => ("retry_job", job.clone()),
            (Some(job), Verb::Cancel) => ("cancel_job", job.clone()),
            (Some(job), Verb::Delete) => ("delete_job", job.clone()),
            (None, Verb::Retry) => ("retry_jobs", self.filters.described()),
            (None, Verb::Cancel) => ("cancel_jobs", self.filters.described()),
            (None, Verb::Delete) => ("delete_jobs", self.filters.described()),
        }
    }

    pub(super) async fn run(
        self,
        database: &Database,
        verb: Verb,
        json: bool,
    ) -> anyhow::Result<()> {
        let (action, target) = self.change(verb);
        let result = match &self.job {
            Some(job) => self.one(database, verb, job).await?,
            None => return self.all(database, verb, action, &target, json).await,
        };
        audit::record(&database.pool, &operator().who, action, &target, &result).await?;
        print::done(json, &result)
    }

    async fn one(&self, database: &Database, verb: Verb, job: &str) -> anyhow::Result<String> {
        let (db, by) = (&database.pool, operator());
        Ok(words(&match verb {
            Verb::Retry => steer::retry(db, job, &by).await?,
            Verb::Cancel => steer::cancel(db, job, &by).await?,
            Verb::Delete => {
                self.yes.or_asks(&format!("Delete 1 job, {job}?")).await?;
                steer::delete(db, job, &by).await?
            }
        }))
    }

    async fn all(
        &self,
        database: &Database,
        verb: Verb,
        action: &str,
        target: &str,
        json: bool,
    ) -> anyhow::Result<()> {
        let (db, by) = (&database.pool, operator());
        let Selected { filter, is_cut } = self.filters.selection().find(db).await?;
        if filter.state.is_some_and(|state| !verb.states().contains(&state)) {
            let states = verb.states().iter().map(|state| state.as_str()).collect::<Vec<_>>();
            let (verb, states) = (verb.as_str(), states.join(" and "));
            return Err(usage(format!("{verb} concerns {states} jobs only: give another --state")));
        }
        let counted = steer::count_matching(db, verb, &filter, COUNT_CAP).await?;
        let question = selection::question(verb, counted, is_cut);
        self.yes.or_asks(&format!("{target}: {question}")).await?;
        let record = Begun::new(db, &by.who, action, target).await?;
        let bulk = steer::matching(db, verb, &filter, Bounds::COMMAND, &by, record).await?;
        let result = selection::done(verb, bulk, is_cut);
        record.end(db, &result).await?;
        if json {
            return print::json(&json!({ "jobs": bulk.done, "goes_on": bulk.goes_on || is_cut }));
        }
        print::line(&result)
    }
}

fn words(steered: &Steered) -> String {
    match steered {
        Steered::RelayRequeued(id) => format!("relay {id} has a new job, due now"),
        Steered::Requeued => "the job is due now".to_owned(),
        Steered::Deleted => "the job is deleted".to_owned(),
        Steered::Cancelled => {
            "the job is cancelled; its relay, if any, waits for a change or `tender relay sync`"
                .to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_a_unit() {
        let secs = |text| age(text).map(|age| age.as_secs());
        assert_eq!(secs("90s"), Ok(90));
        assert_eq!((secs("5min"), secs("5 m")), (Ok(300), Ok(300)));
        assert_eq!((secs("2h"), secs("1d")), (Ok(7200), Ok(86_400)));
        assert_eq!(secs("4000000000d"), Ok(100 * 365 * 86_400));
        for wrong in ["", "5", "min", "-5min", "1.5h", "5 weeks", "99999999999s"] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
    }
}
