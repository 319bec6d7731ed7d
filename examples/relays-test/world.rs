//! Tender's processes, over a database of their own.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use serde_json::Value;
use sqlx::{PgPool, postgres::PgConnectOptions};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{MissedTickBehavior, interval, timeout},
};

/// How often a condition is read.
const LOOK: Duration = Duration::from_millis(250);
/// The longest time of one command.
const COMMAND: Duration = Duration::from_mins(15);
/// How much of the worker's log is shown, in lines.
const SHOWN: usize = 20;
/// The queues of the mirror.
const QUEUES: [&str; 4] = ["mirror", "mirror-events", "mirror-uploads", "mirror-deletions"];

/// A worker and its database.
pub(crate) struct World {
    tender: PathBuf,
    folder: TempDir,
    environment: BTreeMap<String, String>,
    pub(crate) db: PgPool,
    /// Kept running until the world is dropped.
    worker: Option<Child>,
}

impl World {
    /// Creates a database, migrates it, and starts a worker.
    pub(crate) async fn start(tender: &str, server: &str) -> anyhow::Result<Self> {
        let name = format!("relays_test_{}", uuid::Uuid::new_v4().simple());
        let server: PgConnectOptions = server.parse()?;
        let admin = PgPool::connect_with(server.clone()).await?;
        sqlx::query(sqlx::AssertSqlSafe(format!("create database {name}"))).execute(&admin).await?;
        admin.close().await;
        let options = server.database(&name);
        let url = sqlx::ConnectOptions::to_url_lossy(&options).to_string();
        let environment = [
            ("DATABASE_URL", url),
            // The relays of the run listen on the loopback interface.
            ("ALLOW_PRIVATE_UPSTREAMS", "true".to_owned()),
        ];
        let environment =
            environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let mut world = Self {
            tender: fs::canonicalize(tender).with_context(|| format!("there is no {tender}"))?,
            folder: tempfile::Builder::new().prefix("relays-test-").tempdir()?,
            environment,
            db: PgPool::connect_with(options).await?,
            worker: None,
        };
        world.command(&["migrate"]).await?;
        world.worker = Some(world.spawn_worker()?);
        Ok(world)
    }

    fn spawn_worker(&self) -> anyhow::Result<Child> {
        let log = File::create(self.log_path())?;
        let queues = QUEUES.iter().flat_map(|queue| ["--queue", queue]);
        let mut command = self.tender(&["work"]);
        command.args(queues).stdout(log.try_clone()?).stderr(log);
        command.spawn().context("`tender work` could not be started")
    }

    fn tender(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.tender);
        command.args(arguments).env_clear().envs(&self.environment).kill_on_drop(true);
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// Runs a command of Tender, and returns what it prints.
    pub(crate) async fn command(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let name = format!("`tender {}`", arguments.join(" "));
        let output = timeout(COMMAND, self.tender(arguments).output())
            .await
            .with_context(|| format!("{name} did not end within {COMMAND:?}"))??;
        if !output.status.success() {
            let words = [output.stdout, output.stderr].concat();
            bail!("{name} failed: {}", String::from_utf8_lossy(&words).trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Starts a mode of an upstream, and waits for its end. A lane in error is no failure here: the
    /// verdict reads the lanes.
    pub(crate) async fn mirror(&self, mode: &str, url: &str) {
        let arguments = ["mirror", "trigger", mode, url, "--wait", "--json"];
        let _lane_in_error = self.command(&arguments).await;
    }

    /// Returns the lanes of an upstream.
    pub(crate) async fn lanes(&self, url: &str) -> anyhow::Result<Vec<Value>> {
        let shown: Value =
            serde_json::from_str(&self.command(&["mirror", "show", url, "--json"]).await?)?;
        let lanes = shown["lanes"].as_array().or_else(|| shown["sync"].as_array());
        lanes.cloned().context("`tender mirror show` printed no lanes")
    }

    /// Returns the ids of the events that Tender stores or has refused for good.
    pub(crate) async fn known(&self) -> anyhow::Result<HashSet<String>> {
        self.ids("select encode(id, 'hex') from event union select encode(event_id, 'hex') from known_id").await
    }

    /// Returns the ids of the live events.
    pub(crate) async fn live(&self) -> anyhow::Result<HashSet<String>> {
        self.ids("select encode(id, 'hex') from event where deleted_at is null").await
    }

    async fn ids(&self, sql: &'static str) -> anyhow::Result<HashSet<String>> {
        let ids: Vec<(String,)> = sqlx::query_as(sql).fetch_all(&self.db).await?;
        Ok(ids.into_iter().map(|(id,)| id).collect())
    }

    /// Returns the kinds of stored events: the number of events by kind.
    pub(crate) async fn kinds(&self, ids: &HashSet<String>) -> anyhow::Result<BTreeMap<i32, i64>> {
        let ids: Vec<&String> = ids.iter().collect();
        let rows: Vec<(i32, i64)> = sqlx::query_as(
            "select kind, count(*) from event where encode(id, 'hex') = any($1) group by 1",
        )
        .bind(ids)
        .fetch_all(&self.db)
        .await?;
        Ok(rows.into_iter().collect())
    }

    /// Returns the uploads without an acceptance: ids by the relay's words.
    pub(crate) async fn refused_uploads(
        &self,
    ) -> anyhow::Result<BTreeMap<String, HashSet<String>>> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "select verdict || ': ' || message, encode(event_id, 'hex') from upload_verdict",
        )
        .fetch_all(&self.db)
        .await?;
        let mut refused = BTreeMap::<String, HashSet<String>>::new();
        for (words, id) in rows {
            refused.entry(words).or_default().insert(id);
        }
        Ok(refused)
    }

    /// Returns the end of the worker's log.
    pub(crate) fn log(&self) -> String {
        let text = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(SHOWN)..].join("\n")
    }

    fn log_path(&self) -> PathBuf {
        Path::new(self.folder.path()).join("tender.log")
    }
}

/// Waits until a condition holds.
pub(crate) async fn wait_for(
    bound: Duration,
    what: &str,
    mut holds: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let waited = timeout(bound, async {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            if holds().await? {
                return anyhow::Ok(());
            }
        }
    });
    waited.await.with_context(|| format!("not within {bound:?}: {what}"))?
}
