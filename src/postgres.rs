//! The private PostgreSQL: a cluster under the data directory that Tender makes, starts, shares
//! between its processes, and stops with the last of them.
//!
//! ```text
//! <data dir>/postgres/data      the cluster            <data dir>/postgres/users.lock   shared: in use
//! <data dir>/postgres/password  of the role `tender`   <data dir>/postgres/start.lock   start or stop
//! ```
//!
//! It listens on a Unix socket only. Durability settings are PostgreSQL's defaults: a crash of the
//! machine loses nothing that was committed.

mod binaries;
mod owner;

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use nostr::key::SecretKey;
use sqlx::{
    Connection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::config::DatabaseConfig;
use binaries::Binaries;
use owner::Owner;

/// Role and database of a private cluster.
const NAME: &str = "tender";
/// A Unix socket's path holds 107 bytes, its file's name included.
const LONGEST_SOCKET_DIR: usize = 80;
/// A connection idle for longer is tried before it is used.
const TRUSTED_IDLE: Duration = Duration::from_secs(2);
/// What differs from PostgreSQL's defaults.
const SETTINGS: &str = "\n# Tender\nlisten_addresses = ''\nunix_socket_permissions = 0700\n\
    max_connections = 200\nshared_buffers = 128MB\nmax_wal_size = 2GB\n\
    log_min_messages = warning\nlog_checkpoints = off\n";

/// Why there is no database to work with.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No programs of PostgreSQL on this machine.
    #[error("PostgreSQL is not installed: {0}, or set DATABASE_URL to a server that runs already")]
    NoBinaries(String),
    /// Programs of another version than the cluster's.
    #[error(
        "the private cluster was made by PostgreSQL {cluster}, and only {found} is installed: \
         install PostgreSQL {cluster}, or set TENDER_PG_BIN to its programs"
    )]
    OtherVersion {
        /// The cluster's major version.
        cluster: String,
        /// What is installed.
        found: String,
    },
    /// Too old.
    #[error("PostgreSQL {0} is too old: Tender needs 14 or newer")]
    TooOld(String),
    /// We are root, and there is no other user to run PostgreSQL as.
    #[error("PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody`")]
    NoUser,
    /// A file or directory could not be made or read.
    #[error("failed to {what} {path}")]
    File {
        /// What was tried.
        what: &'static str,
        /// With which path.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// One of PostgreSQL's programs failed.
    #[error("{program} failed: {words}")]
    Program {
        /// Which.
        program: &'static str,
        /// Its last words.
        words: String,
    },
    /// The database did not answer.
    #[error("failed to connect to PostgreSQL")]
    Connect(#[from] sqlx::Error),
}

/// A database, and the private cluster that it is in, if it is ours.
#[derive(Debug)]
pub struct Database {
    /// Connections to it.
    pub pool: PgPool,
    cluster: Option<Cluster>,
}

impl Database {
    /// Connects to `DATABASE_URL`, or to the private cluster, which is made and started if need be.
    ///
    /// # Errors
    /// [`PostgresError`] says what to do.
    pub async fn open(config: &DatabaseConfig) -> Result<Self, PostgresError> {
        let (options, cluster) = if let Some(url) = &config.url {
            (options_of(url)?, None)
        } else {
            let config = config.clone();
            let cluster = blocking(move || Cluster::start(&config)).await?;
            (cluster.options()?, Some(cluster))
        };
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections)
            .acquire_timeout(Duration::from_secs(5))
            // A ping before every statement would double the round trips; one after a pause is
            // enough to notice that the server was restarted.
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    Ok(meta.idle_for < TRUSTED_IDLE || connection.ping().await.is_ok())
                })
            })
            .connect_with(options.application_name(NAME))
            .await?;
        Ok(Self { pool, cluster })
    }

    /// Closes the connections; stops the private cluster if nobody else uses it.
    pub async fn close(self) {
        self.pool.close().await;
        if let Some(cluster) = self.cluster
            && let Err(error) = blocking(move || cluster.stop()).await
        {
            tracing::warn!(%error, "the private PostgreSQL could not be stopped");
        }
    }

    /// Closes the connections, stops the private cluster and removes all that is in it.
    pub async fn destroy(self) {
        let dir = self.cluster.as_ref().map(|cluster| cluster.dir.clone());
        self.close().await;
        if let Some(dir) = dir
            && let Err(error) = fs::remove_dir_all(&dir)
        {
            tracing::warn!(dir = %dir.display(), %error, "the private cluster could not be removed");
        }
    }

    /// Where the private cluster's socket is, for `psql -h`.
    pub fn socket_dir(&self) -> Option<&Path> {
        self.cluster.as_ref().map(|cluster| cluster.socket_dir.as_path())
    }
}

fn options_of(url: &secrecy::SecretString) -> Result<PgConnectOptions, sqlx::Error> {
    use secrecy::ExposeSecret;
    url.expose_secret().parse()
}

/// A panic in the closure is a bug; it is passed on.
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
    /// Held shared for as long as we use the cluster; the kernel drops it should we be killed.
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

    /// Makes the cluster beside its place and moves it there, so that a crash leaves no half of one.
    fn init(&self) -> Result<(), PostgresError> {
        tracing::info!(dir = %self.dir.display(), "making a private PostgreSQL cluster");
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

    /// Gives up our use; the last user stops the cluster.
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
            Err(TryLockError::WouldBlock) => Ok(()), // somebody else uses it
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
        // The owner may not enter the directory that we were started in.
        command.current_dir(&self.dir);
        command
    }
}

/// Runs a program to its end. Its output goes to a file and from there into the error: a pipe would
/// be held open by the server that `pg_ctl` leaves behind.
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

/// The last lines that say something, in one.
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

fn file(what: &'static str, path: &Path, source: io::Error) -> PostgresError {
    PostgresError::File { what, path: path.to_owned(), source }
}
