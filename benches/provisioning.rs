//! How fast provisioning is, on a private PostgreSQL with its usual, durable settings, against the
//! in-process stand-in for zooid. Workers are real processes.
//!
//! `cargo bench` runs all; `cargo bench -- drain` only the parts whose name contains `drain`.
//! Figures of a run are in `docs/PERFORMANCE.md`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a benchmark prints, and may fail"
)]

use std::{
    collections::HashMap,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use nostr::{
    event::{EventBuilder, FinalizeEvent, Kind, Tag},
    key::Keys,
};
use sqlx::PgPool;
use tender::{
    config::{Config, DatabaseConfig, Env, Needs},
    demo::zooid::ZooidStandIn,
    postgres::Database,
};
use tender_jobs::relay::{self, By, Change, NewRelay, Relay};
use tender_workers::zooid::{Zooid, ZooidSettings};
use tokio_util::sync::CancellationToken;

const DOMAIN: &str = "zooid.bench";

struct Bench {
    database: Database,
    zooid: ZooidStandIn,
    robot: Keys,
    data_dir: String,
    tenant: String,
}

fn main() {
    let _already = rustls::crypto::ring::default_provider().install_default();
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let is_wanted =
        |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{cores} cores; PostgreSQL, zooid's stand-in and workers share them");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for name in ["latency", "drain-1", "drain-2", "create", "reconcile", "idle"] {
            if !is_wanted(name) {
                continue;
            }
            let bench = Bench::new().await;
            match name {
                "latency" => bench.latency().await,
                "drain-1" => bench.drain(1).await,
                "drain-2" => bench.drain(2).await,
                "create" => bench.create().await,
                "reconcile" => bench.reconcile().await,
                _ => bench.idle().await,
            }
            bench.database.destroy().await;
        }
    });
}

impl Bench {
    async fn new() -> Self {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        std::fs::create_dir_all(&target).unwrap();
        let data_dir = target.join(format!("run-{}", std::process::id()));
        let config = DatabaseConfig {
            url: None,
            data_dir: data_dir.clone(),
            pg_bin: None,
            max_connections: 24,
        };
        let database = Database::open(&config).await.unwrap();
        tender_jobs::database::migrate(&database.pool).await.unwrap();
        let robot = Keys::generate();
        let zooid = ZooidStandIn::start(vec![robot.public_key()]).await.unwrap();
        let tenant = Keys::generate().public_key().to_hex();
        Self { database, zooid, robot, data_dir: data_dir.display().to_string(), tenant }
    }

    fn db(&self) -> &PgPool {
        &self.database.pool
    }

    fn environment(&self) -> HashMap<String, String> {
        let pairs = [
            ("TENDER_DATA_DIR", self.data_dir.clone()),
            ("ZOOID_API_URL", self.zooid.url()),
            ("RELAY_DOMAIN", DOMAIN.to_owned()),
            ("ROBOT_SECRET", self.robot.secret_key().to_secret_hex()),
            ("LOG_LEVEL", "warn".to_owned()),
            ("API_RATE_LIMIT", "100000".to_owned()),
            ("API_BIND", "127.0.0.1:4919".to_owned()),
            (
                "RELAY_SYNC_CONCURRENCY",
                std::env::var("RELAY_SYNC_CONCURRENCY").unwrap_or_else(|_| "16".to_owned()),
            ),
            ("PATH", std::env::var("PATH").unwrap_or_default()),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn spawn(&self, role: &str) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tender"));
        command.arg(role).env_clear().envs(self.environment()).stdout(Stdio::null());
        Process(command.spawn().unwrap())
    }

    /// Waits until `count` workers of `sync-relay` beat.
    async fn until_workers(&self, count: i64) {
        self.until("select count(*) from apalis.workers where worker_type = 'sync-relay' and last_seen > now() - interval '10 s'", count).await;
    }

    async fn until(&self, count_query: &'static str, at_least: i64) {
        let mut look = tokio::time::interval(Duration::from_millis(20));
        loop {
            look.tick().await;
            let count: i64 = sqlx::query_scalar(count_query).fetch_one(self.db()).await.unwrap();
            if count >= at_least {
                return;
            }
        }
    }

    /// Mutation committed → the stand-in has it, one at a time.
    async fn latency(&self) {
        let config = Config::read(&mut Env::of(self.environment()), Needs::Zooid).unwrap();
        let zooid = Zooid::new(ZooidSettings {
            default_url: self.zooid.url().parse().unwrap(),
            instances: HashMap::new(),
            robot: self.robot.clone(),
            blossom: None,
            livekit: None,
        });
        let settings = config.work.clone();
        let zooid = Arc::new(zooid.unwrap());
        let context = tender_workers::Context::new(self.db().clone(), zooid, settings);
        let stop = CancellationToken::new();
        let workers = tokio::spawn(tender_workers::run(context, stop.clone()));
        self.until_workers(1).await;
        let relay = self.make(0).await;
        self.until("select count(*) from relay where synced", 1).await;
        let mut waits = Vec::new();
        for number in 0..500 {
            let before = self.zooid.calls().len();
            let change = Change { info_name: Some(format!("name {number}")), ..Change::default() };
            relay::update(self.db(), &relay.id, &change, &by()).await.unwrap();
            let committed = Instant::now();
            while self.zooid.calls().len() == before {
                tokio::task::yield_now().await;
            }
            waits.push(committed.elapsed());
            self.until("select count(*) from relay where synced", 1).await;
        }
        report("committed change → zooid has it, idle", waits);
        stop.cancel();
        workers.await.unwrap();
    }

    /// Ten thousand new relays, by so many worker processes.
    async fn drain(&self, processes: i64) {
        let count = 10_000;
        let workers: Vec<_> = (0..processes).map(|_| self.spawn("work")).collect();
        self.until_workers(processes).await;
        self.insert(count, count).await;
        let enqueued = sqlx::query(ENQUEUE).execute(self.db()).await.unwrap();
        assert_eq!(enqueued.rows_affected(), count as u64);
        self.until("select count(*) from relay where synced", count).await;
        // From the first call, so that neither the bulk insert nor the poll that finds it counts.
        let took = self.zooid.calls()[0].at.elapsed();
        let rate = count as f64 / took.as_secs_f64();
        println!(
            "drain of {count} pending relays by {processes} process(es): {:.2} s, {rate:.0} syncs/s",
            took.as_secs_f64()
        );
        assert_eq!(self.zooid.len(), count as usize);
        assert!(self.zooid.overlaps().is_empty());
        drop(workers);
    }

    /// A create over HTTP, one at a time, with workers running.
    async fn create(&self) {
        let service = self.spawn("serve");
        self.until_workers(1).await;
        let http = reqwest::Client::new();
        let keys = Keys::generate();
        let session = session(&keys, "http://127.0.0.1:4919");
        let mut waits = Vec::new();
        for number in 0..500 {
            let body = format!(r#"{{"subdomain": "relay-{number}"}}"#);
            let request = http
                .post("http://127.0.0.1:4919/relays")
                .header("authorization", &session)
                .body(body);
            let started = Instant::now();
            let response = request.send().await.unwrap();
            waits.push(started.elapsed());
            assert_eq!(response.status(), 201);
        }
        report("create over HTTP, workers running", waits);
        drop(service);
    }

    /// A million relays, of which a thousand are pending and have no job.
    async fn reconcile(&self) {
        self.insert(1_000_000, 1000).await;
        sqlx::query("vacuum analyze relay").execute(self.db()).await.unwrap();
        let mut waits = Vec::new();
        for _ in 0..5 {
            sqlx::query("delete from apalis.jobs").execute(self.db()).await.unwrap();
            let started = Instant::now();
            let rest = Duration::from_hours(6);
            let enqueued = tender_workers::reconcile::reconcile(self.db(), rest).await.unwrap();
            waits.push(started.elapsed());
            assert_eq!(enqueued, 1000);
        }
        report("reconcile, 1,000 pending of 1,000,000", waits);
        let started = Instant::now();
        relay::list(self.db(), &relay::Filter::default(), 100).await.unwrap();
        println!("first page of 100 of 1,000,000 relays: {:?}", started.elapsed());
    }

    /// What a worker process costs while nothing happens.
    async fn idle(&self) {
        let worker = self.spawn("work");
        self.until_workers(1).await;
        let quiet = tokio::time::sleep(Duration::from_secs(5));
        quiet.await;
        // A transaction per statement: nothing of the idle worker runs in a larger one.
        let before = self.transactions().await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        let after = self.transactions().await;
        println!(
            "idle worker: {:.2} statements/s, {:.1} MB RSS",
            (after - before) as f64 / 30.0,
            worker.rss_mb()
        );
    }

    /// Committed by others than this bench, which itself looks once per call.
    async fn transactions(&self) -> i64 {
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

    async fn make(&self, number: usize) -> Relay {
        let change = Change { subdomain: Some(format!("made-{number}")), ..Change::default() };
        let domains = [DOMAIN.to_owned()];
        let new = NewRelay::parse(self.tenant.clone(), &change, DOMAIN, &domains).unwrap();
        relay::create(self.db(), &new, &by()).await.unwrap()
    }

    /// Relays in bulk, the first `pending` of which zooid has not seen.
    async fn insert(&self, count: i64, pending: i64) {
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
        .execute(self.db())
        .await
        .unwrap();
    }
}

/// A due job for every pending relay, as so many mutations would leave.
const ENQUEUE: &str =
    "insert into apalis.jobs (id, job_type, job, max_attempts, run_at, priority, idempotency_key)
    select apalis.generate_ulid(), 'sync-relay',
        convert_to(json_build_object('v', 1, 'relay_id', id, 'cause', 'create')::text, 'UTF8'),
        7, now() + interval '10 ms', 10, 'relay:' || id
    from relay where not synced";

fn by() -> By {
    By { who: "bench".to_owned(), trace: None }
}

fn session(keys: &Keys, base_url: &str) -> String {
    let tags = [Tag::custom("u", [base_url]), Tag::custom("method", ["GET"])];
    let event = EventBuilder::new(Kind::HttpAuth, "").tags(tags).finalize(keys).unwrap();
    format!("Nostr {}", STANDARD.encode(serde_json::to_string(&event).unwrap()))
}

fn report(what: &str, mut waits: Vec<Duration>) {
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

/// A child that ends with its owner.
struct Process(Child);

impl Process {
    fn rss_mb(&self) -> f64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS"));
        let kb = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
        kb.unwrap_or_default() / 1024.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let id = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        let _gone_already = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM);
        let _ended = self.0.wait();
    }
}
