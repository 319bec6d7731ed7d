//! A worker of apalis-postgres, and nothing around it.

use std::{collections::HashMap, process::Command, sync::Arc, time::Duration};

use apalis_core::worker::{builder::WorkerBuilder, ext::parallelize::ParallelizeExt};
use apalis_postgres::{Config, PostgresStorage};
use nostr::key::Keys;
use sqlx::{ConnectOptions, PgPool, postgres::PgPoolOptions};
use tender_jobs::provision::relay::{self, RelayId};
use tender_workers::provision::zooid::{DEFAULT_TIMEOUT, Zooid, ZooidSettings};
use tokio::signal::unix::{SignalKind, signal};
use tower::limit::ConcurrencyLimitLayer;

use crate::{
    JOBS, drained,
    stub::Stub,
    support::{Bench, Process, statements},
};

/// As the peers were measured by others.
const BATCH: usize = 100;

/// Turns the database into one as apalis leaves it: without the indexes and the triggers of Tender on its table.
const BARE: &str = "
    drop trigger mend_job on apalis.jobs;
    drop trigger note_waiting on apalis.jobs;
    create trigger notify_workers after insert on apalis.jobs
        for each row execute function apalis.notify_new_jobs();
    do $$ declare extra text; begin
        for extra in select indexrelid::regclass::text from pg_index
                     where indrelid = 'apalis.jobs'::regclass and not indisprimary
                       and indexrelid::regclass::text not like '%idx\\_apalis\\_%'
                       and indexrelid::regclass::text not like '%idx\\_jobs\\_idempotency\\_key' loop
            execute 'drop index ' || extra;
        end loop;
    end $$";

/// Carries the relays by one process, and returns the jobs per second.
pub(crate) async fn carry(bench: Bench, at_a_time: &str) -> f64 {
    sqlx::raw_sql(BARE).execute(bench.db()).await.unwrap();
    bench.insert(JOBS, JOBS).await;
    let enqueue = "insert into apalis.jobs (id, job_type, job)
                   select apalis.generate_ulid(), 'bare', convert_to(to_json(id)::text, 'UTF8') from relay";
    let zooid = Stub::start().await;
    statements::reset(bench.db()).await;
    sqlx::query(enqueue).execute(bench.db()).await.unwrap();
    let worker = Command::new(std::env::current_exe().unwrap())
        .args(["bare", bench.db().connect_options().to_url_lossy().as_str(), &zooid.url])
        .args([&bench.robot.secret_key().to_secret_hex(), at_a_time])
        .spawn();
    let worker = Process::of(worker.unwrap());
    let rate = drained(&bench, &zooid).await;
    statements::print(bench.db()).await;
    drop(worker);
    bench.database.destroy().await;
    rate
}

/// The process of the bare worker: the database, zooid, the robot's key, and how many jobs at a time.
pub(crate) fn worker(arguments: &[String]) {
    let [database, zooid, robot, at_a_time] = arguments else { panic!("four arguments") };
    let _already = rustls::crypto::ring::default_provider().install_default();
    let zooid = ZooidSettings {
        default_url: zooid.parse().unwrap(),
        instances: HashMap::new(),
        robot: Keys::parse(robot).unwrap(),
        blossom: None,
        livekit: None,
        timeout: DEFAULT_TIMEOUT,
    };
    let (zooid, at_a_time) = (Arc::new(Zooid::new(zooid).unwrap()), at_a_time.parse().unwrap());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        // As many connections as `tender work` opens.
        let db = PgPoolOptions::new().max_connections(24).connect(database).await.unwrap();
        let config = Config::default().queue("bare").batch_size(BATCH);
        let storage = PostgresStorage::<String>::new(&db).with_config(config).with_pubsub();
        let worker = WorkerBuilder::new("bare")
            .backend(storage)
            .layer(ConcurrencyLimitLayer::new(at_a_time))
            .parallelize(tokio::spawn)
            .build(move |id: String| one(db.clone(), zooid.clone(), id));
        let mut stop = signal(SignalKind::terminate()).unwrap();
        tokio::select! {
            ended = worker.run() => ended.unwrap(),
            _ = stop.recv() => {}
        }
    });
}

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Carries one relay to zooid, and stores that.
async fn one(db: PgPool, zooid: Arc<Zooid>, id: String) -> Result<(), Error> {
    let id: RelayId = id.parse().map_err(|_| "not an id")?;
    let relay = relay::find(&db, &id).await?.ok_or("no relay")?;
    let began = std::time::Instant::now();
    zooid.create(&relay).await?;
    let mut tx = db.begin().await?;
    sqlx::query(
        "update relay set synced_generation = generation, sent = $2, provisioned_at = now(), sync_error = ''
         where id = $1",
    )
    .bind(id.as_str())
    .bind(zooid.preview(&relay))
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "insert into activity (tenant_pubkey, activity_type, resource_id, detail)
         values ($1, 'complete_relay_sync', $2, $3)",
    )
    .bind(&relay.tenant_pubkey)
    .bind(id.as_str())
    .bind(serde_json::json!({ "method": "POST", "duration_ms": millis(began.elapsed()) }))
    .execute(&mut *tx)
    .await?;
    Ok(tx.commit().await?)
}

fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}
