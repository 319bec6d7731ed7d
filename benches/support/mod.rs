//! Shared by the benchmarks: a private PostgreSQL, the stand-in for zooid, processes, reports.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "used in parts by each benchmark"
)]

use std::{
    collections::HashMap,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use nostr::{
    event::{EventBuilder, FinalizeEvent, Kind, Tag},
    key::Keys,
};
use sqlx::PgPool;
use tender::{config::DatabaseConfig, demo::zooid::ZooidStandIn, postgres::Database};
use tender_jobs::provision::relay::{self, By, Change, NewRelay, Relay};

pub mod dashboard;
pub mod relays;
pub mod statements;
pub mod steady;

pub const DOMAIN: &str = "zooid.bench";

pub struct Bench {
    pub database: Database,
    pub zooid: ZooidStandIn,
    pub robot: Keys,
    data_dir: String,
    tenant: String,
}

/// Runs the parts named on the command line, or all of them, each on a new database.
#[allow(clippy::needless_pass_by_value, reason = "a closure, named at its call")]
pub fn run(names: &[&'static str], part: impl AsyncFn(&Bench, &'static str)) {
    let _already = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for name in wanted(names) {
            let bench = Bench::new().await;
            part(&bench, name).await;
            bench.database.destroy().await;
        }
    });
}

/// Returns the parts named on the command line, or all of them.
pub fn wanted(names: &[&'static str]) -> Vec<&'static str> {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let is_wanted =
        |name: &&str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{cores} cores; PostgreSQL, zooid's stand-in and workers share them");
    names.iter().copied().filter(is_wanted).collect()
}

impl Bench {
    pub async fn new() -> Self {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        std::fs::create_dir_all(&target).unwrap();
        let data_dir = target.join(format!("run-{}", std::process::id()));
        let config = DatabaseConfig {
            url: None,
            data_dir: data_dir.clone(),
            pg_bin: None,
            max_connections: 24,
            migrate_on_start: false,
            is_pooled: false,
        };
        let database = statements::open(&config).await;
        tender_jobs::database::migrate(&database.pool).await.unwrap();
        let robot = Keys::generate();
        let zooid = ZooidStandIn::start(vec![robot.public_key()]).await.unwrap();
        let tenant = Keys::generate().public_key().to_hex();
        Self { database, zooid, robot, data_dir: data_dir.display().to_string(), tenant }
    }

    /// Waits until `count` workers of `sync-relay` have sent a heartbeat.
    pub async fn until_workers(&self, count: i64) {
        self.until("select count(*) from apalis.workers where worker_type = 'sync-relay' and last_seen > now() - interval '10 s'", count).await;
    }

    pub async fn until(&self, count_query: &'static str, at_least: i64) {
        self.until_looking(count_query, at_least, Duration::from_millis(20)).await;
    }

    /// Waits, and looks once in a while: to count many rows takes a part of the machine.
    pub async fn until_looking(&self, count_query: &'static str, at_least: i64, each: Duration) {
        let mut look = tokio::time::interval(each);
        loop {
            look.tick().await;
            let count: i64 = sqlx::query_scalar(count_query).fetch_one(self.db()).await.unwrap();
            if count >= at_least {
                return;
            }
        }
    }

    /// Times the metrics of an API process, measured anew each time.
    pub async fn time_metrics(&self) {
        let _service = self.spawn("serve");
        self.until_workers(1).await;
        let mut waits = Vec::new();
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_secs(11)).await; // the gauges are measured every 10 s
            let started = Instant::now();
            let answer = reqwest::get("http://127.0.0.1:4919/metrics").await.unwrap();
            answer.error_for_status().unwrap().text().await.unwrap();
            waits.push(started.elapsed());
        }
        report("metrics, all measured", waits);
    }

    /// Returns the number of transactions committed in the database. Each call adds its own.
    pub async fn transactions(&self) -> i64 {
        sqlx::query_scalar("select pg_stat_force_next_flush()::text")
            .fetch_one(self.db())
            .await
            .unwrap_or_else(|_| String::new());
        sqlx::query_scalar(
            "select xact_commit from pg_stat_database where datname = current_database()",
        )
        .fetch_one(self.db())
        .await
        .unwrap()
    }

    pub async fn make(&self, number: usize) -> Relay {
        let change = Change { subdomain: Some(format!("made-{number}")), ..Change::default() };
        let domains = [DOMAIN.to_owned()];
        let new = NewRelay::parse(self.tenant.clone(), &change, DOMAIN, &domains).unwrap();
        relay::create(self.db(), &new, &by()).await.unwrap()
    }

    /// Makes `count` relays, and waits until workers have brought them in step.
    pub async fn in_step(&self, count: usize) -> Vec<Relay> {
        let mut relays = Vec::new();
        for number in 0..count {
            relays.push(self.make(number).await);
        }
        let query = "select count(*) from relay where synced";
        self.until(query, i64::try_from(count).unwrap()).await;
        relays
    }

    /// Inserts `count` relays in one statement. The first `pending` of them have never been synced.
    pub async fn insert(&self, count: i64, pending: i64) {
        sqlx::query(
            "insert into relay (id, tenant_pubkey, subdomain, zooid_domain, schema, policy_public_read,
                 policy_public_write, policy_public_join, policy_strip_signatures, groups_enabled,
                 management_enabled, members_can_invite, blossom_enabled, livekit_enabled, push_enabled,
                 synced_generation, provisioned_at)
             select gen_random_uuid()::text, $1, 'r' || n, $2, 's' || n,
                 true, false, false, false, true, true, true, false, false, true,
                 case when n <= $4 then 0 else 1 end, case when n <= $4 then null else now() end
             from generate_series(1, $3) n",
        )
        .bind(&self.tenant)
        .bind(DOMAIN)
        .bind(count)
        .bind(pending)
        .execute(&self.bulk())
        .await
        .unwrap();
    }

    /// Returns a pool for statements that prepare a measurement: Tender's own sessions limit how long a
    /// statement lasts.
    pub fn bulk(&self) -> PgPool {
        PgPool::connect_lazy_with((*self.db().connect_options()).clone())
    }

    pub fn db(&self) -> &PgPool {
        &self.database.pool
    }

    pub fn environment(&self) -> HashMap<String, String> {
        let pairs = [
            ("TENDER_DATA_DIR", self.data_dir.clone()),
            ("ZOOID_API_URL", self.zooid.url()),
            ("RELAY_DOMAIN", DOMAIN.to_owned()),
            ("ROBOT_SECRET", self.robot.secret_key().to_secret_hex()),
            ("LOG_LEVEL", "warn".to_owned()),
            // The benchmarks trigger mirroring themselves.
            ("MIRROR_PROFILE", "off".to_owned()),
            ("ALLOW_PRIVATE_UPSTREAMS", "true".to_owned()),
            // Three minutes: pruning is part of the measurement.
            ("JOB_RETENTION_HOURS", "0.05".to_owned()),
            ("API_RATE_LIMIT", "100000".to_owned()),
            ("RELAYS_PER_TENANT", "100000".to_owned()),
            ("API_BIND", "127.0.0.1:4919".to_owned()),
            (
                "RELAY_SYNC_CONCURRENCY",
                std::env::var("RELAY_SYNC_CONCURRENCY").unwrap_or_else(|_| "16".to_owned()),
            ),
            (
                "ZOOID_MAX_IN_FLIGHT",
                std::env::var("ZOOID_MAX_IN_FLIGHT").unwrap_or_else(|_| "32".to_owned()),
            ),
            ("PATH", std::env::var("PATH").unwrap_or_default()),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    pub fn spawn(&self, role: &str) -> Process {
        self.spawn_with(role, &[])
    }

    pub fn spawn_with(&self, role: &str, more: &[(&str, &str)]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tender"));
        command.arg(role).env_clear().envs(self.environment()).stdout(Stdio::null());
        command.envs(more.iter().copied());
        Process(command.spawn().unwrap())
    }
}

/// Inserts a due job for every pending relay, as separate mutations would.
pub const ENQUEUE: &str =
    "insert into apalis.jobs (id, job_type, job, max_attempts, run_at, priority, idempotency_key)
    select apalis.generate_ulid(), 'sync-relay',
        convert_to(json_build_object('v', 1, 'relay_id', id, 'cause', 'create')::text, 'UTF8'),
        7, now() + interval '10 ms', 10, 'relay:' || id
    from relay where not synced";

pub fn by() -> By {
    By { who: "bench".to_owned(), trace: None }
}

pub fn session(keys: &Keys, base_url: &str) -> String {
    let tags = [Tag::custom("u", [base_url]), Tag::custom("method", ["GET"])];
    let event = EventBuilder::new(Kind::HttpAuth, "").tags(tags).finalize(keys).unwrap();
    format!("Nostr {}", STANDARD.encode(serde_json::to_string(&event).unwrap()))
}

pub fn report(what: &str, mut waits: Vec<Duration>) {
    waits.sort();
    let at = |percent: usize| {
        waits[(waits.len() * percent / 100).min(waits.len() - 1)].as_secs_f64() * 1000.0
    };
    println!(
        "{what}: p50 {:.1} ms, p95 {:.1} ms, p99 {:.1} ms (n = {})",
        at(50),
        at(95),
        at(99),
        waits.len()
    );
}

/// A child process. Dropping it sends SIGTERM and waits for its end.
pub struct Process(Child);

impl Process {
    pub fn of(child: Child) -> Self {
        Self(child)
    }

    pub fn rss_mb(&self) -> f64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS"));
        let kb = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
        kb.unwrap_or_default() / 1024.0
    }

    /// Returns the processor time that the process has used, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap_or_default();
        // User and system time are the 12th and 13th field after the name, in hundredths of a second.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let id = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        let _gone_already = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM);
        let _ended = self.0.wait();
    }
}
