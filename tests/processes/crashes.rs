//! Crashes with real processes: workers killed, PostgreSQL stopped, zooid away.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use nostr::key::Keys;
use tender::demo::zooid::{Fault, ZooidStandIn};
use tokio::process::Command;

use crate::support::{
    World, eventually,
    process::{ROBOT_SECRET, Tender},
    within,
};

/// Long enough for leases and heartbeats (30 s) to run out twice over.
const RECOVERY: Duration = Duration::from_mins(3);

/// A stand-in that knows the key of real processes.
async fn stand_in() -> ZooidStandIn {
    ZooidStandIn::start(vec![Keys::parse(ROBOT_SECRET).unwrap().public_key()]).await.unwrap()
}

async fn synced(world: &World) -> i64 {
    let counted =
        sqlx::query_scalar("select count(*) from relay where synced").fetch_one(&world.db);
    counted.await.unwrap_or(-1)
}

/// Every relay's document is what is wanted, made once, and no relay had two calls at once.
async fn assert_in_step(world: &World, zooid: &ZooidStandIn) {
    let relays: Vec<(String, String, String)> =
        sqlx::query_as("select id, subdomain, info_name from relay")
            .fetch_all(&world.db)
            .await
            .unwrap();
    let documents = zooid.documents();
    assert_eq!(documents.len(), relays.len());
    for (id, subdomain, name) in &relays {
        assert_eq!(documents[id]["host"], format!("{subdomain}.zooid.test"));
        assert_eq!(documents[id]["info"]["name"], name.as_str());
    }
    assert_eq!(zooid.calls().iter().filter(|call| call.created).count(), relays.len());
    assert_eq!(zooid.overlaps(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_killed_again_and_again_lose_nothing() {
    let (world, zooid) = (World::new().await, stand_in().await);
    zooid.plan(None, Fault::Delay(Duration::from_millis(40)), None);
    let start =
        || Tender::start(&world, &zooid.url(), &["work"], &[("RELAY_SYNC_CONCURRENCY", "4")]);
    let mut workers = [start(), start(), start()];
    for number in 0..300 {
        world.relay(&format!("relay-{number}")).await;
    }
    for (round, enough) in [(0, 40), (1, 110), (2, 180)] {
        eventually("some are synced", async || synced(&world).await >= enough).await;
        workers[round].kill().await;
        workers[round] = start();
    }
    // What the killed held comes back when their heartbeats have been missed.
    within(RECOVERY, "all are synced", async || synced(&world).await == 300).await;
    assert_in_step(&world, &zooid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_told_to_stop_finishes_what_runs_and_exits_with_success() {
    let (world, zooid) = (World::new().await, stand_in().await);
    zooid.plan(None, Fault::Delay(Duration::from_secs(1)), None);
    let mut worker = Tender::start(&world, &zooid.url(), &["work", "--concurrency", "2"], &[]);
    for number in 0..8 {
        world.relay(&format!("relay-{number}")).await;
    }
    eventually("two calls run", async || {
        let running: i64 =
            sqlx::query_scalar("select count(*) from relay where lease_until is not null")
                .fetch_one(&world.db)
                .await
                .unwrap();
        running == 2
    })
    .await;
    worker.signal(Signal::SIGTERM);
    assert!(worker.wait().await.success(), "{}", worker.log());
    let held: i64 =
        sqlx::query_scalar("select count(*) from apalis.jobs where lock_by is not null")
            .fetch_one(&world.db)
            .await
            .unwrap();
    let leased: i64 =
        sqlx::query_scalar("select count(*) from relay where lease_until is not null")
            .fetch_one(&world.db)
            .await
            .unwrap();
    assert_eq!((held, leased), (0, 0));
    assert!(synced(&world).await >= 2);
    let mut next = Tender::start(&world, &zooid.url(), &["work"], &[]);
    eventually("the next process does the rest", async || synced(&world).await == 8).await;
    assert_in_step(&world, &zooid).await;
    next.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_process_at_once() {
    let (world, zooid) = (World::new().await, stand_in().await);
    zooid.plan(None, Fault::Delay(Duration::from_secs(4)), None);
    let mut worker = Tender::start(&world, &zooid.url(), &["work"], &[]);
    world.relay("alpha").await;
    eventually("the call runs", async || {
        let running: i64 =
            sqlx::query_scalar("select count(*) from relay where lease_until is not null")
                .fetch_one(&world.db)
                .await
                .unwrap();
        running == 1
    })
    .await;
    worker.signal(Signal::SIGINT);
    eventually("it says that it stops", async || worker.log().contains("stopping")).await;
    assert!(!worker.has_ended());
    let asked = Instant::now();
    worker.signal(Signal::SIGINT);
    assert_eq!(worker.wait().await.code(), Some(130));
    assert!(asked.elapsed() < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_stopped_past_its_lease_changes_nothing_when_it_goes_on() {
    let (world, zooid) = (World::new().await, stand_in().await);
    let relay = world.relay("alpha").await;
    zooid.plan(None, Fault::Delay(Duration::from_secs(2)), Some(1));
    let mut frozen = Tender::start(&world, &zooid.url(), &["work"], &[]);
    eventually("zooid has the call", async || zooid.in_flight() == 1).await;
    frozen.signal(Signal::SIGSTOP);
    world.rename(&relay, "newer").await;
    world.expire_leases().await;
    let mut other = Tender::start(&world, &zooid.url(), &["work"], &[]);
    eventually("another worker is through", async || world.reload(&relay).await.synced).await;
    let settled = world.reload(&relay).await;
    let records = world.records(&relay).await.len();
    frozen.signal(Signal::SIGCONT);
    eventually("the late one notices", async || frozen.log().contains("lease lost")).await;
    let after = world.reload(&relay).await;
    assert_eq!((after.synced, after.synced_generation), (true, settled.synced_generation));
    assert_eq!(world.records(&relay).await.len(), records, "nothing was recorded by the late one");
    assert_eq!(zooid.documents()[relay.id.as_str()]["info"]["name"], "newer");
    frozen.kill().await;
    other.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zooid_away_for_longer_than_the_schedule_is_made_up_for() {
    let (world, zooid) = (World::new().await, stand_in().await);
    zooid.refuse(true);
    // The schedule takes 1 + 1 + … s here; the rest of those that gave up is short as well.
    let schedule = [
        ("RELAY_SYNC_RETRY_BASE_SECS", "1"),
        ("RELAY_SYNC_RETRY_CAP_SECS", "1"),
        ("RECONCILE_SCHEDULE", "* * * * * *"),
        ("RECONCILE_EXHAUSTED_AFTER_SECS", "2"),
    ];
    let mut worker = Tender::start(&world, &zooid.url(), &["work"], &schedule);
    // Too few for the breaker, which would spare them.
    for number in 0..4 {
        world.relay(&format!("relay-{number}")).await;
    }
    eventually("all gave up at least once", async || {
        let gave_up: i64 = sqlx::query_scalar(
            "select count(distinct resource_id) from activity where detail->>'retry_at' is null and activity_type = 'fail_relay_sync'",
        )
        .fetch_one(&world.db).await.unwrap();
        gave_up == 4
    })
    .await;
    zooid.refuse(false);
    within(RECOVERY, "all are synced", async || synced(&world).await == 4).await;
    assert_in_step(&world, &zooid).await;
    let overspent: i64 =
        sqlx::query_scalar("select count(*) from activity where (detail->>'attempt')::int > 7")
            .fetch_one(&world.db)
            .await
            .unwrap();
    assert_eq!(overspent, 0);
    worker.kill().await;
}

/// A PostgreSQL of this test's own, which may be stopped.
struct Server {
    bin: String,
    dir: tempfile::TempDir,
    port: u16,
}

impl Server {
    async fn start() -> Self {
        let output = Command::new("sh")
            .args(["-c", "ls -d \"$(pg_config --bindir)\" /usr/lib/postgresql/*/bin 2>/dev/null | while read d; do [ -x $d/initdb ] && echo $d && break; done"])
            .output()
            .await
            .unwrap();
        let bin = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        let dir = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let server = Self { bin, dir, port };
        server.hand_over();
        server
            .run(
                "initdb",
                &["-D", &server.data(), "-U", "tender", "-A", "trust", "-E", "UTF8", "--locale=C"],
            )
            .await;
        server.ctl(&["start"]).await;
        server
    }

    /// PostgreSQL refuses root; as root the tests give the directory to its usual user.
    fn hand_over(&self) {
        if nix::unistd::Uid::effective().is_root() {
            let user = nix::unistd::User::from_name("postgres")
                .unwrap()
                .expect("there is a user postgres");
            nix::unistd::chown(self.dir.path(), Some(user.uid), Some(user.gid)).unwrap();
        }
    }

    fn data(&self) -> String {
        self.dir.path().join("data").display().to_string()
    }

    async fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(format!("{}/{program}", self.bin));
        if nix::unistd::Uid::effective().is_root() {
            let user = nix::unistd::User::from_name("postgres").unwrap().unwrap();
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        assert!(command.status().await.unwrap().success(), "{program} {arguments:?}");
    }

    async fn ctl(&self, verb: &[&str]) {
        let dir = self.dir.path().display().to_string();
        let options = format!("-p {} -k {dir} -c listen_addresses=127.0.0.1", self.port);
        let (data, log) = (self.data(), format!("{dir}/log"));
        let base = ["-D", data.as_str(), "-w", "-l", log.as_str(), "-o", options.as_str()];
        self.run("pg_ctl", &[&base[..], verb].concat()).await;
    }

    fn url(&self) -> String {
        format!("postgres://tender@127.0.0.1:{}/postgres", self.port)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_stopped_for_ten_seconds_in_the_middle_loses_nothing() {
    let (server, zooid) = (Server::start().await, stand_in().await);
    let pool = sqlx::PgPool::connect_lazy(&server.url()).unwrap();
    tender_jobs::database::migrate(&pool).await.unwrap();
    zooid.plan(None, Fault::Delay(Duration::from_millis(40)), None);
    let url = server.url();
    let zooid_url = zooid.url();
    let environment = [
        ("DATABASE_URL", url.as_str()),
        ("ZOOID_API_URL", zooid_url.as_str()),
        ("RELAY_DOMAIN", "zooid.test"),
        ("ROBOT_SECRET", ROBOT_SECRET),
        ("RELAY_SYNC_CONCURRENCY", "4"),
    ];
    let mut workers =
        [Tender::start_with(&["work"], &environment), Tender::start_with(&["work"], &environment)];
    for number in 0..300 {
        create(&pool, number).await;
    }
    let synced = async || {
        let counted = sqlx::query_scalar::<_, i64>("select count(*) from relay where synced")
            .fetch_one(&pool);
        counted.await.unwrap_or(-1)
    };
    eventually("some are synced", async || synced().await >= 60).await;
    server.ctl(&["-m", "fast", "stop"]).await;
    let down = Instant::now();
    let _ten_seconds_without_a_database =
        tokio::time::timeout(Duration::from_secs(10), std::future::pending::<()>()).await;
    assert!(down.elapsed() >= Duration::from_secs(10));
    for worker in &mut workers {
        assert!(!worker.has_ended(), "a worker ended with its database: {}", worker.log());
    }
    server.ctl(&["start"]).await;
    within(RECOVERY, "all are synced", async || synced().await == 300).await;
    assert_eq!(zooid.len(), 300);
    assert_eq!(zooid.calls().iter().filter(|call| call.created).count(), 300);
    assert_eq!(zooid.overlaps(), Vec::<String>::new());
    for worker in &mut workers {
        worker.kill().await;
    }
    server.ctl(&["-m", "immediate", "stop"]).await;
}

async fn create(pool: &sqlx::PgPool, number: usize) {
    let subdomain = Some(format!("relay-{number}"));
    let change = tender_jobs::relay::Change { subdomain, ..Default::default() };
    let tenant = Keys::generate().public_key().to_hex();
    let domains = ["zooid.test".to_owned()];
    let new = tender_jobs::relay::NewRelay::parse(tenant, &change, "zooid.test", &domains).unwrap();
    tender_jobs::relay::create(pool, &new, &crate::support::by()).await.unwrap();
}
