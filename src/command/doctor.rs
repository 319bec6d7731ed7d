//! `doctor`: checks the configuration, the database, the workers and zooid, and names a remedy for
//! each problem.

mod ledger;
mod server;
mod zooid;

use std::process::ExitCode;

use serde::Serialize;
use serde_json::json;

use super::{
    failure::words,
    init_log,
    print::{self, Cell},
};
use crate::{
    config::{Config, DatabaseConfig, Needs},
    postgres::Database,
};

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

fn ok(what: &'static str, words: impl Into<String>) -> Finding {
    Finding { grade: Grade::Ok, what, words: words.into() }
}

fn warn(what: &'static str, words: impl Into<String>) -> Finding {
    Finding { grade: Grade::Warn, what, words: words.into() }
}

fn fail(what: &'static str, words: impl Into<String>) -> Finding {
    Finding { grade: Grade::Fail, what, words: words.into() }
}

pub(super) async fn run(as_json: bool) -> anyhow::Result<ExitCode> {
    let findings = examine().await;
    let failed = findings.iter().any(|finding| finding.grade == Grade::Fail);
    if as_json {
        print::json(&json!({ "ok": !failed, "findings": findings }))?;
    } else {
        print::prose(&findings.iter().map(cells).collect::<Vec<_>>())?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn cells(finding: &Finding) -> Vec<Cell> {
    let mark = match finding.grade {
        Grade::Ok => "ok",
        Grade::Warn => "warn",
        Grade::Fail => "FAIL",
    };
    vec![mark.into(), finding.what.into(), finding.words.as_str().into()]
}

async fn examine() -> Vec<Finding> {
    let (config, mut findings) = match Config::load(Needs::Wings) {
        Ok(config) => (config, vec![ok("configuration", "complete")]),
        Err(error) => {
            let each = error.0.iter();
            let each = each.map(|p| fail("configuration", format!("{}: {}", p.name, p.problem)));
            let findings = each.collect();
            match Config::load(Needs::Database) {
                Ok(config) => (config, findings),
                Err(_) => return findings, // the problems are already in the findings
            }
        }
    };
    init_log(&config, "error");
    examine_database(&config, &mut findings).await;
    zooid::examine(&config, &mut findings).await;
    findings
}

async fn examine_database(config: &Config, findings: &mut Vec<Finding>) {
    match Database::exists(&config.database) {
        Ok(true) => {}
        Ok(false) => return findings.push(ok("database", none_yet(&config.database))),
        Err(error) => return findings.push(fail("database", words(&error.into()))),
    }
    let database = match Database::open(&config.database).await {
        Ok(database) => database,
        Err(error) => return findings.push(fail("database", words(&error.into()))),
    };
    let is_private = database.socket_dir().is_some();
    let whose = if is_private { "private PostgreSQL" } else { "DATABASE_URL" };
    findings.push(ok("database", format!("{whose}: connected")));
    let examined = async {
        server::examine(&database, config, findings).await?;
        ledger::examine(&database, config, findings).await
    };
    if let Err(error) = examined.await {
        findings.push(fail("database", words(&error.into())));
    }
    database.close().await;
}

/// Nothing is wrong with a directory in which Tender was never started.
fn none_yet(config: &DatabaseConfig) -> String {
    let dir = config.data_dir.display();
    format!(
        "none yet: `tender serve` creates a private PostgreSQL under {dir}, or set DATABASE_URL"
    )
}
