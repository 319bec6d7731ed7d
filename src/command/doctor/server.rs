//! The server of the database: its clock, its connections, its transactions, and the disk of a private one.

use std::{collections::HashSet, path::Path};

use nix::sys::statvfs::statvfs;
use nostr::types::Timestamp;
use tender_jobs::{
    database::{self, Server},
    queue,
};

use super::{Finding, ok, warn};
use crate::{config::Config, postgres::Database, words::counted};

/// The age at which an open transaction is reported, in seconds: it keeps vacuum from removing dead
/// rows of the queue.
const LONG_TRANSACTION_SECS: f64 = 60.0;
/// The difference between the database's clock and ours that is reported, in seconds.
const SKEW_SECS: f64 = 5.0;
/// The free space of the disk below which it is reported, in bytes.
const LITTLE_SPACE: u64 = 1 << 30;
/// Connections of a process beside those of its pool: its batches, and the one that listens.
const BESIDE_POOL: u32 = 5;

pub(super) async fn examine(
    database: &Database,
    config: &Config,
    findings: &mut Vec<Finding>,
) -> Result<(), sqlx::Error> {
    let db = &database.pool;
    let server = database::server(db).await?;
    findings.extend(clock(&server));
    let is_migrated = database::is_migrated(db).await?;
    let workers = if is_migrated { queue::workers(db).await? } else { Vec::new() };
    let alive = workers.iter().filter(|worker| worker.serves());
    let processes: HashSet<&str> = alive.map(|worker| worker.process.as_str()).collect();
    findings.push(connections(&server, config, processes.len()));
    let oldest = database::oldest_transaction_secs(db).await?;
    if oldest > LONG_TRANSACTION_SECS {
        let words = format!(
            "one has been open for {oldest:.0} s: the queue slows down until it ends; find it in \
             pg_stat_activity"
        );
        findings.push(warn("transactions", words));
    }
    findings.extend(database.socket_dir().and_then(disk));
    Ok(())
}

/// Compares the clocks to within a second, because ours is read in whole seconds.
fn clock(server: &Server) -> Option<Finding> {
    #[expect(clippy::cast_precision_loss, reason = "a time of this century")]
    let ahead = server.now - Timestamp::now().as_secs() as f64;
    let direction = if ahead > 0.0 { "ahead of" } else { "behind" };
    (ahead.abs() > SKEW_SECS).then(|| {
        let words = format!(
            "the database's is {:.0} s {direction} this machine's: set both by NTP",
            ahead.abs()
        );
        warn("clock", words)
    })
}

fn connections(server: &Server, config: &Config, processes: usize) -> Finding {
    let Server { connections, max_connections, .. } = server;
    let of_one = i64::from(config.database.max_connections + BESIDE_POOL);
    let wanted = of_one * i64::try_from(processes).unwrap_or(i64::MAX);
    let used = format!("{connections} of {max_connections} in use");
    if 10 * connections >= 9 * max_connections {
        return warn("connections", format!("{used}: raise max_connections of PostgreSQL"));
    }
    if wanted > *max_connections && !config.database.is_pooled {
        let processes = counted(i64::try_from(processes).unwrap_or(i64::MAX), "process");
        let words = format!(
            "{processes} may open {wanted}, PostgreSQL takes {max_connections}: raise its \
             max_connections, or lower DATABASE_MAX_CONNECTIONS"
        );
        return warn("connections", words);
    }
    ok("connections", used)
}

/// The disk of a private PostgreSQL. That of another server cannot be seen from here.
fn disk(dir: &Path) -> Option<Finding> {
    let found = statvfs(dir).ok()?;
    #[allow(clippy::useless_conversion, reason = "the types of the fields differ between systems")]
    let free = u64::from(found.blocks_available()) * u64::from(found.fragment_size());
    #[expect(clippy::cast_precision_loss, reason = "a size to show")]
    let words = format!("{:.1} GiB free for {}", free as f64 / f64::from(1 << 30), dir.display());
    let advice = "PostgreSQL stops when the disk is full";
    let is_little = free < LITTLE_SPACE;
    Some(if is_little { warn("disk", format!("{words}: {advice}")) } else { ok("disk", words) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::doctor::Grade;

    fn server(now: f64, connections: i64) -> Server {
        Server { now, connections, max_connections: 100 }
    }

    #[test]
    fn a_clock_that_differs_is_reported_with_its_direction() {
        #[expect(clippy::cast_precision_loss, reason = "a time of this century")]
        let now = Timestamp::now().as_secs() as f64;
        assert!(clock(&server(now + 1.0, 1)).is_none());
        let words = |by: f64| clock(&server(now + by, 1)).expect("a finding").words;
        assert!(words(70.0).contains("ahead of this machine's"), "{}", words(70.0));
        assert!(words(-70.0).contains("behind this machine's"), "{}", words(-70.0));
    }

    #[test]
    fn connections_are_reported_before_they_run_out() {
        let mut config =
            Config::read(&mut crate::config::Env::of([]), crate::config::Needs::Database)
                .expect("defaults");
        let graded = |config: &Config, used, processes| {
            let finding = connections(&server(0.0, used), config, processes);
            (finding.grade, finding.words)
        };
        assert_eq!(graded(&config, 10, 3).0, Grade::Ok);
        assert_eq!(graded(&config, 90, 1).0, Grade::Warn);
        let (grade, words) = graded(&config, 10, 4);
        assert!(grade == Grade::Warn && words.starts_with("4 processes may open 116"), "{words}");
        config.database.is_pooled = true;
        assert_eq!(graded(&config, 10, 4).0, Grade::Ok);
    }
}
