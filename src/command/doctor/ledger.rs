//! The ledger: its schema, its workers, and what needs attention.

use sqlx::PgPool;
use tender_jobs::{database, grasp::view, mirror::deployment, provision::relay::Summary};

use super::{Finding, fail, ok, warn};
use crate::{command::status, config::Config, fleet::Fleet, postgres::Database, words::counted};

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
    findings.push(ok("relays", relays(&fleet.summary)));
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
