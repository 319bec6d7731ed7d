//! The relays of a run, each started with an empty folder.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use crate::world::wait_for;

/// A relay to test against.
pub(crate) enum Target {
    NostrRsRelay(PathBuf),
    NostrRelay(PathBuf),
    Running(String),
}

/// The longest wait for a relay to end.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// A running relay.
pub(crate) struct Relay {
    pub(crate) url: String,
    process: Option<Child>,
    _folder: Option<TempDir>,
}

impl Relay {
    /// Stops the relay. Some relays have further processes, which end only if the first one is asked to.
    pub(crate) async fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        if let Some(id) = process.id() {
            let _gone_already =
                Command::new("kill").args(["-TERM", &id.to_string()]).status().await;
        }
        let _else_it_is_killed = tokio::time::timeout(STOP_WITHIN, process.wait()).await;
    }
}

impl Target {
    /// Parses an argument.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        match text.split_once('=') {
            Some(("nostr-rs-relay", path)) => Ok(Self::NostrRsRelay(executable(path)?)),
            Some(("nostr-relay", path)) => Ok(Self::NostrRelay(executable(path)?)),
            _ if text.starts_with("ws://") || text.starts_with("wss://") => {
                Ok(Self::Running(text.to_owned()))
            }
            _ => bail!("{text} is neither a relay's executable nor a ws:// or wss:// URL"),
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::NostrRsRelay(_) => "nostr-rs-relay",
            Self::NostrRelay(_) => "nostr-relay",
            Self::Running(url) => url,
        }
    }

    /// Whether the relay may hold events of others.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Running(_))
    }

    /// Starts the relay with an empty database.
    pub(crate) async fn start(&self) -> anyhow::Result<Relay> {
        if let Self::Running(url) = self {
            return Ok(Relay { url: url.clone(), process: None, _folder: None });
        }
        let folder = tempfile::Builder::new().prefix("relays-test-").tempdir()?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut command = match self {
            Self::NostrRsRelay(path) => nostr_rs_relay(path, folder.path(), port)?,
            Self::NostrRelay(path) => nostr_relay(path, folder.path(), port)?,
            Self::Running(_) => bail!("a running relay is not started"),
        };
        let log = fs::File::create(folder.path().join("log"))?;
        command.current_dir(folder.path()).stdin(Stdio::null()).kill_on_drop(true);
        command.stdout(log.try_clone()?).stderr(log);
        let process = command.spawn().with_context(|| format!("{} did not start", self.name()))?;
        wait_for(Duration::from_mins(1), "the relay's port is open", async || {
            Ok(TcpStream::connect(("127.0.0.1", port)).await.is_ok())
        })
        .await?;
        let url = format!("ws://127.0.0.1:{port}");
        Ok(Relay { url, process: Some(process), _folder: Some(folder) })
    }
}

fn executable(path: &str) -> anyhow::Result<PathBuf> {
    fs::canonicalize(path).with_context(|| format!("there is no {path}"))
}

fn nostr_rs_relay(path: &Path, folder: &Path, port: u16) -> anyhow::Result<Command> {
    let config = format!("[network]\naddress = \"127.0.0.1\"\nport = {port}\n");
    fs::write(folder.join("config.toml"), config)?;
    let mut command = Command::new(path);
    command.arg("--config").arg(folder.join("config.toml")).arg("--db").arg(folder);
    Ok(command)
}

/// The relay of Python. It refuses events that are older than a year, or have more than 100 tags `p`.
fn nostr_relay(path: &Path, folder: &Path, port: u16) -> anyhow::Result<Command> {
    let config = format!(
        "DEBUG: false\nrelay_name: test\nstorage:\n  sqlalchemy.url: sqlite+aiosqlite:///{}\n  \
         num_concurrent_reqs: 10\n  num_concurrent_adds: 2\n  validators:\n    \
         - nostr_relay.validators.is_signed\nverification:\n  nip05_verification: disabled\n\
         gunicorn:\n  bind: 127.0.0.1:{port}\n  workers: 1\n  loglevel: warning\n\
         authentication:\n  enabled: false\nsubscription_limit: 32\nmax_limit: 6000\n",
        folder.join("nostr.sqlite3").display(),
    );
    fs::write(folder.join("config.yaml"), config)?;
    let mut command = Command::new(path);
    // Without this path gunicorn is not found, because the environment is not activated.
    command.arg("-c").arg(folder.join("config.yaml")).arg("serve");
    Ok(command)
}
