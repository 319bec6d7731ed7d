//! The connection to the database, and the private PostgreSQL: a cluster under the data directory.
//! Tender creates and starts the cluster. Its processes share it, and the last one stops it.
//!
//! ```text
//! <data dir>/postgres/data        the cluster
//! <data dir>/postgres/password    the password of the role `tender`
//! <data dir>/postgres/users.lock  locked, shared, by every process that uses the cluster
//! <data dir>/postgres/start.lock  locked by the process that starts or stops the cluster
//! ```
//!
//! The cluster listens on a Unix socket only. Its durability settings are PostgreSQL's defaults: a
//! crash of the machine loses no committed transaction.

mod binaries;
mod error;
mod owner;
mod refusal;

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use nostr::key::SecretKey;
use sqlx::{PgPool, postgres::PgConnectOptions};
use tender_jobs::database::{self, Path as Way};
use tokio::{task::AbortHandle, time::timeout};

use crate::config::DatabaseConfig;
use binaries::Binaries;
pub use error::PostgresError;
use error::file;
use owner::Owner;

/// The role of the private cluster, and the name under which our connections appear.
const NAME: &str = "tender";
/// The longest directory of the socket, in bytes. The path of a Unix socket has at most 107 bytes,
/// including the name of its file.
const LONGEST_SOCKET_DIR: usize = 80;
/// The longest wait for connections that are in use at the end.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);
/// Settings of the private cluster that differ from PostgreSQL's defaults.
const SETTINGS: &str = "\n# Tender\nlisten_addresses = ''\nunix_socket_permissions = 0700\n\
    max_connections = 200\nshared_buffers = 128MB\nmax_wal_size = 2GB\n\
    log_min_messages = warning\nlog_checkpoints = off\n";

/// A connection to the database. It keeps the private cluster running, if that is used.
#[derive(Debug)]
pub struct Database {
    /// The connections to the database.
    pub pool: PgPool,
    cluster: Option<Cluster>,
    /// Shuts the connections down when the database is silent.
    watch: AbortHandle,
}

impl Database {
    /// Connects to `DATABASE_URL` if it is set. Otherwise creates and starts the private cluster if
    /// necessary, and connects to it.
    ///
    /// # Errors
    /// [`PostgresError`], whose message tells the operator how to proceed.
    pub async fn open(config: &DatabaseConfig) -> Result<Self, PostgresError> {
        let (options, cluster) = if let Some(url) = &config.url {
            (options_of(url).map_err(PostgresError::Url)?, None)
        } else {
            let config = config.clone();
            let cluster = blocking(move || Cluster::start(&config)).await?;
            (cluster.options()?, Some(cluster))
        };
        let options = options.application_name(NAME);
        let path = if config.is_pooled { Way::Pooled } else { Way::Direct };
        let pool = database::pool(&options, path, "").max_connections(config.max_connections);
        let pool = match pool.connect_with(options.clone()).await {
            Ok(pool) => pool,
            Err(error) => {
                let error = refusal::explained(&options, error).await;
                release(cluster).await;
                return Err(error);
            }
        };
        let watched = pool.clone();
        let watch = tokio::spawn(async move { database::watch(&watched).await }).abort_handle();
        Ok(Self { pool, cluster, watch })
    }

    /// Whether there is a database to open: `DATABASE_URL` is set, or the private cluster was created before.
    ///
    /// # Errors
    /// [`PostgresError`], if the place of the private cluster cannot be found out.
    pub fn exists(config: &DatabaseConfig) -> Result<bool, PostgresError> {
        if config.url.is_some() {
            return Ok(true);
        }
        let dir = Owner::choose()?.reachable(&config.data_dir)?;
        Ok(dir.join("postgres/data/PG_VERSION").exists())
    }

    /// Closes the connections. Stops the private cluster if no other process uses it.
    pub async fn close(self) {
        self.watch.abort();
        if timeout(CLOSE_WITHIN, self.pool.close()).await.is_err() {
            tracing::warn!("the database did not answer at the end; its connections are dropped");
            database::hang_up(&self.pool.connect_options());
        }
        release(self.cluster).await;
    }

    /// Closes the connections, stops the private cluster and deletes it with all its data.
    pub async fn destroy(self) {
        let dir = self.cluster.as_ref().map(|cluster| cluster.dir.clone());
        self.close().await;
        if let Some(dir) = dir
            && let Err(error) = fs::remove_dir_all(&dir)
        {
            tracing::warn!(dir = %dir.display(), %error, "could not delete the private PostgreSQL");
        }
    }

    /// Returns the directory of the private cluster's socket, for `psql -h`; `None` for
    /// `DATABASE_URL`.
    pub fn socket_dir(&self) -> Option<&Path> {
        self.cluster.as_ref().map(|cluster| cluster.socket_dir.as_path())
    }
}

/// Stops the private cluster, if it is used and no other process uses it.
async fn release(cluster: Option<Cluster>) {
    let Some(cluster) = cluster else { return };
    if let Err(error) = blocking(move || cluster.stop()).await {
        tracing::warn!(%error, "could not stop the private PostgreSQL");
    }
}

fn options_of(url: &secrecy::SecretString) -> Result<PgConnectOptions, sqlx::Error> {
    use secrecy::ExposeSecret;
    url.expose_secret().parse()
}

/// Runs `work` on a thread that may block. A panic in `work` is a bug and is propagated.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// A running private cluster that this process uses.
#[derive(Debug)]
struct Cluster {
    dir: PathBuf,
    socket_dir: PathBuf,
    binaries: Binaries,
    owner: Owner,
    /// A shared lock for as long as this process uses the cluster. The kernel releases it even if
    /// the process is killed.
    users: File,
}

impl Cluster {
    fn start(config: &DatabaseConfig) -> Result<Self, PostgresError> {
        let owner = Owner::choose()?;
        let dir = owner.reachable(&config.data_dir)?.join("postgres");
        owner.create_dir(&dir)?;
        let _starting = exclusive(&dir.join("start.lock"))?;
        let users = open(&dir.join("users.lock"))?;
        users.lock_shared().map_err(|source| file("lock", &dir.join("users.lock"), source))?;
        let data = dir.join("data");
        let binaries = Binaries::find(config.pg_bin.as_deref(), &data)?;
        let socket_dir = owner.socket_dir(&dir)?;
        let cluster = Self { dir, socket_dir, binaries, owner, users };
        if !data.join("PG_VERSION").exists() {
            cluster.init()?;
        }
        if !cluster.is_running() {
            cluster.launch()?;
        }
        Ok(cluster)
    }

    /// Creates the cluster in a temporary directory and then renames it, so that a crash leaves no
    /// incomplete cluster.
    fn init(&self) -> Result<(), PostgresError> {
        tracing::info!(dir = %self.dir.display(), "creating a private PostgreSQL cluster");
        let (new, data) = (self.dir.join("data.new"), self.dir.join("data"));
        if new.exists() {
            fs::remove_dir_all(&new).map_err(|source| file("remove", &new, source))?;
        }
        let password_file = self.dir.join("password");
        let password = SecretKey::generate().to_secret_hex();
        self.owner.write_secret(&password_file, &password)?;
        let mut initdb = self.command("initdb");
        initdb.arg("-D").arg(&new).args(["-U", NAME, "-E", "UTF8", "--locale=C"]);
        initdb.args(["-A", "scram-sha-256", "--pwfile"]).arg(&password_file);
        run("initdb", initdb, &self.dir.join("command.log"))?;
        let settings = new.join("postgresql.conf");
        let text =
            fs::read_to_string(&settings).map_err(|source| file("read", &settings, source))?;
        fs::write(&settings, text + SETTINGS).map_err(|source| file("write", &settings, source))?;
        fs::rename(&new, &data).map_err(|source| file("rename", &new, source))
    }

    fn is_running(&self) -> bool {
        let mut status = self.command("pg_ctl");
        status.arg("-D").arg(self.dir.join("data")).arg("status");
        status.stdout(Stdio::null()).stderr(Stdio::null());
        status.status().is_ok_and(|status| status.success())
    }

    fn launch(&self) -> Result<(), PostgresError> {
        let mut start = self.command("pg_ctl");
        start.arg("-D").arg(self.dir.join("data")).args(["-w", "-t", "60", "-l"]);
        start.arg(self.dir.join("postgresql.log"));
        start.arg("-o").arg(format!("-k '{}'", self.socket_dir.display())).arg("start");
        run("pg_ctl", start, &self.dir.join("command.log"))
    }

    /// Releases this process's lock. The last process that uses the cluster stops it.
    fn stop(self) -> Result<(), PostgresError> {
        let _stopping = exclusive(&self.dir.join("start.lock"))?;
        self.users
            .unlock()
            .map_err(|source| file("unlock", &self.dir.join("users.lock"), source))?;
        match self.users.try_lock() {
            Ok(()) => {
                let mut stop = self.command("pg_ctl");
                stop.arg("-D").arg(self.dir.join("data")).args(["-m", "fast", "-w", "stop"]);
                run("pg_ctl", stop, &self.dir.join("command.log"))
            }
            Err(TryLockError::WouldBlock) => Ok(()), // another process uses it
            Err(TryLockError::Error(source)) => {
                Err(file("lock", &self.dir.join("users.lock"), source))
            }
        }
    }

    fn options(&self) -> Result<PgConnectOptions, PostgresError> {
        let path = self.dir.join("password");
        let password = fs::read_to_string(&path).map_err(|source| file("read", &path, source))?;
        Ok(PgConnectOptions::new_without_pgpass()
            .socket(&self.socket_dir)
            .username(NAME)
            .password(password.trim())
            .database("postgres"))
    }

    fn command(&self, program: &'static str) -> Command {
        let mut command = self.binaries.command(program);
        self.owner.run_as(&mut command);
        // The owner may have no access to the directory in which Tender was started.
        command.current_dir(&self.dir);
        command
    }
}

/// Runs a program and waits for its end. Its output goes to a file, from which an error quotes it.
/// A pipe would not work, because the server that `pg_ctl` starts would keep it open.
fn run(program: &'static str, mut command: Command, log: &Path) -> Result<(), PostgresError> {
    let output = File::create(log).map_err(|source| file("create", log, source))?;
    let errors = output.try_clone().map_err(|source| file("open", log, source))?;
    let status = command.stdin(Stdio::null()).stdout(output).stderr(errors).status();
    let words = match status {
        Ok(status) if status.success() => return Ok(()),
        Ok(_) => last_words(&fs::read_to_string(log).unwrap_or_default()),
        Err(error) => error.to_string(),
    };
    Err(PostgresError::Program { program, words })
}

/// Returns the last three lines that are not empty, joined on one line.
fn last_words(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}

fn exclusive(path: &Path) -> Result<File, PostgresError> {
    let lock = open(path)?;
    lock.lock().map_err(|source| file("lock", path, source))?;
    Ok(lock)
}

fn open(path: &Path) -> Result<File, PostgresError> {
    let opened = File::options().create(true).truncate(false).write(true).open(path);
    opened.map_err(|source| file("open", path, source))
}
