//! `doctor`: checks the configuration, the database, the workers and zooid, and names a remedy for
//! each problem.

use std::process::ExitCode;

use serde::Serialize;
use serde_json::json;
use sqlx::PgPool;
use tender_jobs::{
    database,
    grasp::{service, view},
    mirror::deployment,
    provision::{SYNC_RELAY, relay},
    queue,
};
use tender_workers::provision::zooid::Zooid;

use super::print;
use crate::{
    config::{Config, Needs},
    postgres::Database,
    telemetry,
    words::{counted, grasp as words},
};

/// The age at which an open transaction is reported, in seconds: it keeps vacuum from removing dead
/// rows of the queue.
const LONG_TRANSACTION_SECS: f64 = 60.0;

/// The number of parked events that is reported. A service parks at most 200,000.
const MANY_PARKED: i64 = 100_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    Ok,
    Warn,
    Fail,
}

#[derive(Debug, Serialize)]
struct Finding {
    grade: Grade,
    what: &'static str,
    words: String,
}

fn finding(grade: Grade, what: &'static str, words: impl Into<String>) -> Finding {
    Finding { grade, what, words: words.into() }
}

pub(super) async fn run(as_json: bool) -> anyhow::Result<ExitCode> {
    let findings = examine().await;
    let failed = findings.iter().any(|finding| finding.grade == Grade::Fail);
    if as_json {
        print::json(&json!({ "ok": !failed, "findings": findings }))?;
    } else {
        for finding in &findings {
            let mark = match finding.grade {
                Grade::Ok => "ok  ",
                Grade::Warn => "warn",
                Grade::Fail => "FAIL",
            };
            print::line(&format!("{mark}  {:<14} {}", finding.what, finding.words))?;
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn examine() -> Vec<Finding> {
    let mut findings = Vec::new();
    let config = match Config::load(Needs::Wings) {
        Ok(config) => {
            findings.push(finding(Grade::Ok, "configuration", "complete"));
            config
        }
        Err(error) => {
            let each = error.0.iter().map(|p| {
                finding(Grade::Fail, "configuration", format!("{}: {}", p.name, p.problem))
            });
            findings.extend(each);
            match Config::load(Needs::Database) {
                Ok(config) => config,
                Err(_) => return findings, // the problems are already in the findings
            }
        }
    };
    telemetry::init(&config.log, "error");
    match Database::open(&config.database).await {
        Ok(database) => {
            let private = database.socket_dir().is_some();
            let whose = if private { "private cluster" } else { "DATABASE_URL" };
            findings.push(finding(Grade::Ok, "database", format!("{whose}: connected")));
            if let Err(error) = examine_ledger(&database, &config, &mut findings).await {
                findings.push(finding(Grade::Fail, "database", error.to_string()));
            }
            database.close().await;
        }
        Err(error) => {
            findings.push(finding(
                Grade::Fail,
                "database",
                format!("{:#}", anyhow::Error::new(error)),
            ));
        }
    }
    examine_zooid(&config, &mut findings).await;
    findings
}

async fn examine_ledger(
    database: &Database,
    config: &Config,
    findings: &mut Vec<Finding>,
) -> Result<(), sqlx::Error> {
    let db = &database.pool;
    if !database::is_migrated(db).await? {
        findings.push(match database.socket_dir() {
            Some(_) => {
                finding(Grade::Warn, "schema", "not up to date: the next command migrates it")
            }
            None => finding(Grade::Fail, "schema", "not up to date: run `tender migrate`"),
        });
        return Ok(());
    }
    findings.push(finding(Grade::Ok, "schema", "up to date"));
    let oldest = database::oldest_transaction_secs(db).await?;
    if oldest > LONG_TRANSACTION_SECS {
        let words = format!(
            "a transaction has been open for {oldest:.0} s: the queue slows down until it ends; \
             find it in pg_stat_activity"
        );
        findings.push(finding(Grade::Warn, "transactions", words));
    }
    for paused in queue::paused(db).await? {
        let words = format!("{} is paused by {}: its jobs wait", paused.queue, paused.paused_by);
        findings.push(finding(Grade::Warn, "queue", words));
    }
    let deployment = deployment::find(db).await?;
    for words in config.mirror_environment.contradictions(&deployment) {
        findings.push(finding(Grade::Warn, "mirror", words));
    }
    examine_grasp(db, findings).await?;
    let relays = relay::summary(db).await?;
    let mut workers = queue::workers(db).await?;
    workers.retain(|worker| worker.is_alive);
    let is_provisioned = workers.iter().any(|worker| worker.queue == SYNC_RELAY);
    findings.push(match workers.len() {
        0 => finding(
            Grade::Warn,
            "workers",
            "no worker is running: start `tender work` or `tender serve`",
        ),
        alive if relays.total > 0 && !is_provisioned => finding(
            Grade::Warn,
            "workers",
            format!(
                "{alive} running, none of them of the queue {SYNC_RELAY}: relays are not synced"
            ),
        ),
        alive => finding(Grade::Ok, "workers", format!("{alive} running")),
    });
    let waiting = relays.pending + relays.retrying;
    findings.push(match (relays.gave_up, waiting) {
        (0, 0) => finding(Grade::Ok, "relays", format!("all {} synced", relays.synced)),
        (0, waiting) => finding(
            Grade::Ok,
            "relays",
            format!("{} synced, {waiting} pending or retrying", relays.synced),
        ),
        (gave_up, _) => finding(
            Grade::Warn,
            "relays",
            format!("{gave_up} gave up: see `tender relay list --sync gave_up`"),
        ),
    });
    Ok(())
}

/// Adds what is to be said of the GRASP wing; nothing without a service.
async fn examine_grasp(db: &PgPool, findings: &mut Vec<Finding>) -> Result<(), sqlx::Error> {
    let services = service::list(db).await?;
    if services.is_empty() {
        return Ok(());
    }
    let enabled = services.iter().filter(|service| service.enabled).count();
    findings.push(match view::processes(db).await? {
        0 if enabled > 0 => finding(
            Grade::Warn,
            "grasp",
            "no process follows relays: start `tender work` or `tender serve`",
        ),
        processes => finding(
            Grade::Ok,
            "grasp",
            following(i64::try_from(enabled).unwrap_or(i64::MAX), processes),
        ),
    });
    for one in &services {
        let refuses = words::refuses_others(&one.url, one.authors_only_reason.as_deref());
        let is_over = one.relays_over_limit > 0;
        let over =
            is_over.then(|| words::over_limit(&one.url, one.max_relays, one.relays_over_limit));
        let is_kept = one.removing_at.is_none();
        let stopped = words::stopped(&one.url, one.has_feed, one.has_uploads).filter(|_| is_kept);
        let told = stopped.into_iter().chain(refuses).chain(over);
        findings.extend(told.map(|words| finding(Grade::Warn, "grasp", words)));
    }
    for trouble in view::troubles(db).await? {
        let words = format!("{}: {}", words::trouble(&trouble), trouble.urls.join(", "));
        findings.push(finding(Grade::Warn, "grasp", words));
    }
    let parked: i64 = view::parked_groups(db).await?.iter().map(|group| group.events).sum();
    if parked > MANY_PARKED {
        let words = format!("{parked} events are parked: see `tender grasp parked`");
        findings.push(finding(Grade::Warn, "grasp", words));
    }
    Ok(())
}

/// Returns how many services and processes there are.
fn following(enabled: i64, processes: i64) -> String {
    let follow = if processes == 1 { "follows" } else { "follow" };
    let (services, processes) = (counted(enabled, "service"), counted(processes, "process"));
    format!("{services} enabled; {processes} {follow} relays")
}

async fn examine_zooid(config: &Config, findings: &mut Vec<Finding>) {
    let Some(settings) = config.zooid.clone() else {
        // An incomplete configuration is reported already.
        if findings.iter().all(|finding| finding.grade != Grade::Fail) {
            let is_forgotten = !config.api.domains.is_empty();
            let grade = if is_forgotten { Grade::Warn } else { Grade::Ok };
            findings.push(finding(grade, "provisioning", "off: ZOOID_API_URL is not set"));
        }
        return;
    };
    let zooid = match Zooid::new(settings) {
        Ok(zooid) => zooid,
        Err(error) => return findings.push(finding(Grade::Fail, "zooid", error.to_string())),
    };
    for (url, result) in zooid.check().await {
        findings.push(match result {
            Ok(()) => finding(Grade::Ok, "zooid", format!("{url} answers and accepts our key")),
            Err(error) => finding(Grade::Fail, "zooid", format!("{url}: {error}")),
        });
    }
}
