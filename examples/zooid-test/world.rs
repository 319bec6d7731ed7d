//! The processes of a run: zooid, a worker of Tender, and Tender's commands.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::TcpListener,
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use nostr::key::Keys;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    sync::Mutex,
    time::{MissedTickBehavior, interval, timeout},
};

/// The domain of every relay.
pub(crate) const DOMAIN: &str = "zooid.test";
/// How often a condition is read.
const LOOK: Duration = Duration::from_millis(250);
/// The longest time of one command.
const COMMAND: Duration = Duration::from_mins(1);
/// How much of a log is shown, in lines.
const SHOWN: usize = 20;

/// The running processes and their folder.
pub(crate) struct World {
    tender: PathBuf,
    zooid: PathBuf,
    folder: TempDir,
    port: u16,
    robot: Keys,
    environment: BTreeMap<String, String>,
    zooid_process: Mutex<Option<Child>>,
    worker: Option<Child>,
    /// The owner of every relay.
    pub(crate) tenant: Keys,
}

impl World {
    /// Starts zooid on a free port, migrates the database, and starts a worker.
    pub(crate) async fn start(
        tender: &str,
        zooid: &str,
        variables: BTreeMap<String, String>,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("zooid-test-").tempdir()?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut world = Self {
            tender: fs::canonicalize(tender).with_context(|| format!("there is no {tender}"))?,
            zooid: fs::canonicalize(zooid).with_context(|| format!("there is no {zooid}"))?,
            folder,
            port,
            robot: Keys::generate(),
            environment: BTreeMap::new(),
            zooid_process: Mutex::default(),
            worker: None,
            tenant: Keys::generate(),
        };
        world.environment = world.environment_of_tender(variables)?;
        for name in ["config", "data", "media"] {
            fs::create_dir(world.path(name))?;
        }
        world.start_zooid().await?;
        world.command(&["migrate"]).await?;
        world.command(&["doctor"]).await.context("`tender doctor` finds a fault")?;
        world.worker = Some(world.spawn_worker()?);
        Ok(world)
    }

    fn environment_of_tender(
        &self,
        variables: BTreeMap<String, String>,
    ) -> anyhow::Result<BTreeMap<String, String>> {
        ensure!(variables.contains_key("DATABASE_URL"), "DATABASE_URL is not set");
        let is_passed = |name: &str| {
            ["DATABASE_URL", "PATH"].contains(&name) || name.starts_with("BLOSSOM_S3_")
        };
        let mut environment: BTreeMap<_, _> =
            variables.into_iter().filter(|(name, _)| is_passed(name)).collect();
        for (name, value) in [
            ("ZOOID_API_URL", format!("http://{}", self.api_host())),
            ("RELAY_DOMAIN", DOMAIN.to_owned()),
            ("ROBOT_SECRET", self.robot.secret_key().to_secret_hex()),
            ("LIVEKIT_URL", "wss://livekit.test".to_owned()),
            ("LIVEKIT_API_KEY", "livekit-key".to_owned()),
            ("LIVEKIT_API_SECRET", "livekit-secret".to_owned()),
            // A short schedule: zooid is killed, and comes back at once.
            ("RELAY_SYNC_RETRY_BASE_SECS", "1".to_owned()),
            ("RELAY_SYNC_RETRY_CAP_SECS", "4".to_owned()),
            ("RECONCILE_SCHEDULE", "*/5 * * * * *".to_owned()),
            ("RECONCILE_EXHAUSTED_AFTER_SECS", "5".to_owned()),
        ] {
            environment.insert(name.to_owned(), value);
        }
        Ok(environment)
    }

    /// Starts zooid, and waits until its port is open.
    pub(crate) async fn start_zooid(&self) -> anyhow::Result<()> {
        let log = self.log("zooid.log")?;
        let mut command = Command::new(&self.zooid);
        command
            .env("PORT", self.port.to_string())
            .env("API_HOST", self.api_host())
            .env("API_WHITELIST", self.robot.public_key().to_hex())
            .env("CONFIG", self.path("config"))
            .env("DATA", self.path("data"))
            .env("MEDIA", self.path("media"))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        *self.zooid_process.lock().await =
            Some(command.spawn().context("zooid could not be started")?);
        let port = self.port;
        self.wait_for(Duration::from_secs(30), "zooid's port is open", async || {
            Ok(TcpStream::connect(("127.0.0.1", port)).await.is_ok())
        })
        .await
    }

    /// kill -9.
    pub(crate) async fn kill_zooid(&self) -> anyhow::Result<()> {
        match self.zooid_process.lock().await.take() {
            Some(mut process) => Ok(process.kill().await?),
            None => Ok(()),
        }
    }

    fn spawn_worker(&self) -> anyhow::Result<Child> {
        let log = self.log("tender.log")?;
        let mut command = Command::new(&self.tender);
        command.arg("work").env_clear().envs(&self.environment).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        command.spawn().context("`tender work` could not be started")
    }

    /// Runs a command of Tender, and returns what it prints.
    pub(crate) async fn command(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.tender);
        command.args(arguments).env_clear().envs(&self.environment).kill_on_drop(true);
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        let name = format!("`tender {}`", arguments.join(" "));
        let output = timeout(COMMAND, command.output())
            .await
            .with_context(|| format!("{name} did not end within {COMMAND:?}"))??;
        if !output.status.success() {
            let words = [output.stdout, output.stderr].concat();
            bail!("{name} failed: {}", String::from_utf8_lossy(&words).trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs a command of Tender, and returns the JSON that it prints.
    pub(crate) async fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let text = self.command(&[arguments, &["--json"]].concat()).await?;
        serde_json::from_str(&text).with_context(|| format!("{arguments:?} printed no JSON"))
    }

    /// Returns every relay of the ledger.
    pub(crate) async fn relays(&self) -> anyhow::Result<Vec<Value>> {
        let relays = self.json(&["relay", "list", "--limit", "100000"]).await?;
        relays.as_array().cloned().context("`tender relay list` printed no array")
    }

    /// Waits until every relay of the ledger is in step.
    pub(crate) async fn in_step(&self, bound: Duration) -> anyhow::Result<()> {
        self.wait_for(bound, "every relay is in step", async || {
            let relays = self.relays().await?;
            Ok(relays.iter().all(|relay| relay["sync_state"] == "synced"))
        })
        .await
    }

    /// Waits until a condition holds.
    pub(crate) async fn wait_for(
        &self,
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

    /// Returns the path of a relay's file.
    pub(crate) fn file(&self, relay_id: &str) -> PathBuf {
        self.path("config").join(format!("{relay_id}.toml"))
    }

    /// Returns the folder of the relays' files.
    pub(crate) fn files(&self) -> PathBuf {
        self.path("config")
    }

    /// The name of the bucket for media, if there is one.
    pub(crate) fn bucket(&self) -> Option<&str> {
        self.environment.get("BLOSSOM_S3_BUCKET").map(String::as_str)
    }

    /// Returns the ends of both logs.
    pub(crate) fn logs(&self) -> String {
        let end = |name: &str| {
            let text = fs::read_to_string(self.path(name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let shown = &lines[lines.len().saturating_sub(SHOWN)..];
            format!("--- end of {name}\n{}", shown.join("\n"))
        };
        [end("zooid.log"), end("tender.log")].join("\n")
    }

    /// Stops both processes.
    pub(crate) async fn stop(&mut self) {
        let zooid = self.zooid_process.lock().await.take();
        for mut process in [self.worker.take(), zooid].into_iter().flatten() {
            let _gone_already = process.kill().await;
        }
    }

    fn api_host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self, name: &str) -> anyhow::Result<File> {
        Ok(File::options().create(true).append(true).open(self.path(name))?)
    }
}
