//! The ledger: its schema, its workers, and what needs attention.

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tender_jobs::{
    database,
    grasp::view,
    mirror::deployment,
    provision::relay::Summary,
    queue::{
        self, KEPT_TIMES, Retention,
        process::{self, Process},
    },
};

use super::{Finding, fail, ok, warn};
use crate::{
    command::{print, status},
    config::Config,
    fleet::Fleet,
    postgres::Database,
    words::counted,
};

/// The number of parked events that is reported. A service parks at most 200,000.
const MANY_PARKED: i64 = 100_000;
/// The item of the overview that [`super::server`] reports earlier and with more.
const TRANSACTION: &str = "database:transaction";

pub(super) async fn examine(
    database: &Database,
    config: &Config,
    findings: &mut Vec<Finding>,
) -> Result<(), sqlx::Error> {
    let db = &database.pool;
    let schema = schema(database).await?;
    let is_usable = schema.grade == super::Grade::Ok;
    findings.push(schema);
    if !is_usable {
        return Ok(());
    }
    let deployment = deployment::find(db).await?;
    let contradictions = config.mirror_environment.contradictions(&deployment);
    findings.extend(contradictions.into_iter().map(|words| warn("mirror", words)));
    let fleet = Fleet::read(db).await?;
    findings.push(workers(&fleet));
    findings.extend(drained(db, fleet.now).await?);
    findings.push(ok("relays", relays(&fleet.summary)));
    findings.extend(kept(db, config.retention).await?);
    findings.extend(grasp(&fleet));
    findings.extend(parked(db).await?);
    let items = fleet.attention();
    let items = items.iter().filter(|item| item.key != TRANSACTION);
    findings.extend(items.map(|item| warn("attention", status::line(item, fleet.now))));
    Ok(())
}

async fn schema(database: &Database) -> Result<Finding, sqlx::Error> {
    let schema = database::schema(&database.pool).await?;
    Ok(match (schema.missing, schema.newer, database.socket_dir()) {
        (0, 0, _) => ok("schema", "up to date"),
        (0, newer, _) => ok(
            "schema",
            format!("of a newer release ({}): this one works with it", counted(newer, "migration")),
        ),
        (missing, _, Some(_)) => warn(
            "schema",
            format!("{} missing: the next command applies them", counted(missing, "migration")),
        ),
        (missing, _, None) => fail(
            "schema",
            format!("{} missing: run `tender migrate`", counted(missing, "migration")),
        ),
    })
}

/// Work without a worker is among what needs attention. A ledger without work needs none.
fn workers(fleet: &Fleet) -> Finding {
    match fleet.workers.len() {
        0 => ok("workers", "no worker is running: start `tender work` or `tender serve`"),
        alive => ok("workers", format!("{alive} running")),
    }
}

/// Returns the running processes that an operator has drained: they take no job until that ends.
async fn drained(db: &PgPool, now: DateTime<Utc>) -> Result<Vec<Finding>, sqlx::Error> {
    let processes = process::processes(db).await?.into_iter();
    let drained = processes.filter(|process| process.is_alive);
    Ok(drained.filter_map(|process| Some(warn("process", drain(&process, now)?))).collect())
}

/// `None` if the process takes jobs.
fn drain(process: &Process, now: DateTime<Utc>) -> Option<String> {
    let (name, since) = (process.place(), print::relative(process.drain_at?, now));
    let by = process.drain_by.as_deref().unwrap_or("an operator");
    let why =
        process.drain_reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
    Some(format!(
        "{name} was drained by {by} {since}{why} and takes no jobs: `tender process undrain {name}` \
         or a restart ends it"
    ))
}

/// Failures that no operator has seen outlive the retention. They are among what needs attention.
async fn kept(db: &PgPool, keep: Retention) -> Result<Option<Finding>, sqlx::Error> {
    let kept = queue::kept(db, keep).await?.len();
    let jobs = counted(i64::try_from(kept).unwrap_or(i64::MAX), "killed job");
    let words = format!(
        "{jobs} older than FAILED_JOB_RETENTION_HOURS kept, because no operator has seen the failure, \
         {KEPT_TIMES} times as long at most: `tender queue list --state open`"
    );
    Ok((kept > 0).then(|| ok("retention", words)))
}

fn relays(summary: &Summary) -> String {
    let waiting = summary.pending + summary.retrying;
    format!("{} synced, {waiting} pending or failing, {} gave up", summary.synced, summary.gave_up)
}

/// Returns how many services and processes there are; nothing without a service.
fn grasp(fleet: &Fleet) -> Option<Finding> {
    let grasp = &fleet.grasp;
    let enabled = grasp.services.iter().filter(|service| service.enabled).count();
    let follow = if grasp.processes == 1 { "follows" } else { "follow" };
    let enabled = counted(i64::try_from(enabled).unwrap_or(i64::MAX), "service");
    let processes = counted(grasp.processes, "process");
    let words = format!("{enabled} enabled; {processes} {follow} relays");
    (!grasp.services.is_empty()).then(|| ok("grasp", words))
}

async fn parked(db: &PgPool) -> Result<Option<Finding>, sqlx::Error> {
    let parked: i64 = view::parked_groups(db).await?.iter().map(|group| group.events).sum();
    let words = format!("{parked} events are parked: see `tender grasp parked`");
    Ok((parked > MANY_PARKED).then(|| warn("grasp", words)))
}
