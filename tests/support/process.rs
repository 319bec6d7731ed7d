//! The real executable, started, signalled and killed.

use std::{
    path::PathBuf,
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::PgPool;
use tender_jobs::queue;
use tokio::process::{Child, Command};

use super::{DOMAIN, World, eventually, mirror::MirrorWorld, patiently};

/// Connections of one process: many processes share the server of the tests.
const CONNECTIONS: (&str, &str) = ("DATABASE_MAX_CONNECTIONS", "8");
/// The relays of the tests are on this machine.
const PRIVATE: (&str, &str) = ("ALLOW_PRIVATE_UPSTREAMS", "true");

/// A `tender` process; killed when dropped. Its log is in a file.
pub struct Tender {
    child: Child,
    log: PathBuf,
}

pub const ROBOT_SECRET: &str = "7f7ff03d123792d6ac594bfa67bf6d0c0ab55b6b1fdb6249303fe861f1ccba9a";

/// The executable with an environment of its own.
pub fn command(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    command_of(env!("CARGO_BIN_EXE_tender"), arguments, environment)
}

fn command_of(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().current_dir(std::env::temp_dir()).kill_on_drop(true);
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin").envs(environment.iter().copied());
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = command(arguments, environment);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    tokio::time::timeout(Duration::from_mins(5), command.output()).await.expect("it ends").unwrap()
}

impl Tender {
    /// Starts `tender work` (or what `arguments` say) on the world's database and stand-in.
    pub fn start(
        world: &World,
        zooid_url: &str,
        arguments: &[&str],
        more: &[(&str, &str)],
    ) -> Self {
        let url = world.database.url();
        let mut environment = vec![
            ("DATABASE_URL", url.as_str()),
            ("ZOOID_API_URL", zooid_url),
            ("RELAY_DOMAIN", DOMAIN),
            ("ROBOT_SECRET", ROBOT_SECRET),
            CONNECTIONS,
        ];
        environment.extend(more);
        Self::start_with(arguments, &environment)
    }

    /// Starts `tender work` (or what `arguments` say) for the mirror alone.
    pub fn start_mirror(world: &MirrorWorld, arguments: &[&str], more: &[(&str, &str)]) -> Self {
        let url = world.database.url();
        let mut environment =
            vec![("DATABASE_URL", url.as_str()), ("MIRROR_PROFILE", "off"), PRIVATE, CONNECTIONS];
        environment.extend(more);
        Self::start_with(arguments, &environment)
    }

    pub fn start_with(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_program(env!("CARGO_BIN_EXE_tender"), arguments, environment)
    }

    /// Another release's executable.
    pub fn start_program(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let log = std::env::temp_dir().join(format!("tender-{}.log", uuid::Uuid::new_v4()));
        let file = std::fs::File::create(&log).unwrap();
        let mut command = command_of(program, arguments, environment);
        command.stdout(file.try_clone().unwrap()).stderr(file);
        Self { child: command.spawn().unwrap(), log }
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id()), signal).unwrap();
    }

    /// The process id; the process must not have been waited for.
    pub fn id(&self) -> i32 {
        i32::try_from(self.child.id().expect("it runs")).unwrap()
    }

    /// kill -9, if it still runs.
    pub async fn kill(&mut self) {
        if !self.has_ended() {
            self.child.kill().await.unwrap();
        }
    }

    pub async fn wait(&mut self) -> ExitStatus {
        patiently("the process ends", self.child.wait()).await.unwrap()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until it serves a queue. It then handles signals, too.
    pub async fn serves(&self, db: &PgPool, queue: &str) {
        let id = format!(":{}", self.id());
        eventually("the process serves the queue", async || {
            let workers = queue::workers(db).await.unwrap();
            workers.iter().any(|one| one.queue == queue && one.process.ends_with(&id))
        })
        .await;
    }

    /// Stops it by SIGSTOP at a moment at which none of its sessions has a statement or a transaction
    /// open: the frozen process then holds no locks. It must be the only process of its database.
    pub async fn freeze(&self, db: &PgPool) {
        eventually("the process is frozen outside of a transaction", async || {
            self.signal(Signal::SIGSTOP);
            let is_outside = sessions(db, "state <> 'idle'").await == 0;
            if !is_outside {
                self.signal(Signal::SIGCONT);
            }
            is_outside
        })
        .await;
    }
}

/// Counts the sessions of `tender` processes in this database for which a condition holds.
async fn sessions(db: &PgPool, condition: &'static str) -> i64 {
    let query = format!(
        "select count(*) from pg_stat_activity
         where datname = current_database() and application_name = 'tender' and {condition}"
    );
    sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(db).await.unwrap()
}

/// Kills the only process of a database, and waits until PostgreSQL has ended its sessions: until then a
/// statement that the process had sent may still commit.
async fn kill_with_sessions(db: &PgPool, process: &mut Tender) {
    process.kill().await;
    eventually("the sessions of the killed process end", async || sessions(db, "true").await == 0)
        .await;
}

impl World {
    /// Kills the only process of this world, if it still runs, and lets its leases and heartbeats
    /// expire.
    pub async fn bury(&self, process: &mut Tender) {
        kill_with_sessions(&self.db, process).await;
        self.expire_leases().await;
    }

    /// Kills one of several processes, and lets its heartbeats expire. Its leases do not: a call of it
    /// may still be under way.
    pub async fn kill_one(&self, process: &mut Tender) {
        let id = process.id();
        process.kill().await;
        sqlx::query(
            "update apalis.workers set last_seen = now() - interval '1 hour'
             where layers like '%:' || $1",
        )
        .bind(id.to_string())
        .execute(&self.db)
        .await
        .unwrap();
    }
}

impl MirrorWorld {
    /// Kills the only process of this world, if it still runs, and lets its heartbeats expire.
    pub async fn bury(&self, process: &mut Tender) {
        kill_with_sessions(&self.db, process).await;
        self.expire_workers().await;
    }

    /// Lets the heartbeats of every worker expire.
    pub async fn expire_workers(&self) {
        sqlx::query("update apalis.workers set last_seen = now() - interval '1 hour'")
            .execute(&self.db)
            .await
            .unwrap();
    }
}

impl Drop for Tender {
    fn drop(&mut self) {
        let _gone_already = std::fs::remove_file(&self.log);
    }
}
