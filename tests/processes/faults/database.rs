//! PostgreSQL stopped, full, and read-only.

use std::time::Duration;

use nostr::key::Keys;
use sqlx::{AssertSqlSafe, Executor};
use tender::demo::zooid::{Fault, Gate, ZooidStandIn};
use tender_jobs::provision::SYNC_RELAY;
use tokio::process::Command;

use super::{RECOVERY, reached};
use crate::{
    stand_in,
    support::{
        api::{header, strict},
        eventually,
        process::{ROBOT_SECRET, Tender},
        server::{Server, free_port},
        within,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_stopped_in_the_middle_loses_nothing() {
    outage(Duration::ZERO).await;
}

/// Longer than a heartbeat may be late, than a lease, and than all attempts to store an outcome.
#[tokio::test(flavor = "multi_thread")]
async fn postgresql_stopped_for_45_s_loses_nothing() {
    outage(Duration::from_secs(45)).await;
}

/// Stops PostgreSQL under two busy processes, for at least this long.
async fn outage(lasts: Duration) {
    let (server, zooid) = (Server::start().await, stand_in().await);
    let pool = sqlx::PgPool::connect_lazy(&server.url()).unwrap();
    tender_jobs::database::migrate(&pool).await.unwrap();
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
    for worker in &workers {
        worker.serves(&pool, SYNC_RELAY).await;
    }
    for number in 0..60 {
        create(&pool, number).await;
    }
    let synced = async || count(&pool, "select count(*) from relay where synced").await;
    eventually("some are synced", async || synced().await == 60).await;

    // Each process has four calls under way when the database stops; they end while it is away.
    let gate = Gate::default();
    zooid.plan(None, Fault::Hold(gate.clone()), Some(8));
    for number in 60..300 {
        create(&pool, number).await;
    }
    reached(&gate, 8).await;
    server.ctl(&["-m", "fast", "stop"]).await;
    gate.open();
    for worker in &mut workers {
        eventually("its workers end with the database", async || {
            worker.log().contains("a worker ended")
        })
        .await;
        assert!(!worker.has_ended(), "the process ended with its database: {}", worker.log());
    }
    let _nothing_happens = tokio::time::timeout(lasts, std::future::pending::<()>()).await;
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
    let change = tender_jobs::provision::relay::Change { subdomain, ..Default::default() };
    let tenant = Keys::generate().public_key().to_hex();
    let domains = ["zooid.test".to_owned()];
    let new =
        tender_jobs::provision::relay::NewRelay::parse(tenant, &change, "zooid.test", &domains)
            .unwrap();
    tender_jobs::provision::relay::create(pool, &new, &crate::support::by()).await.unwrap();
}

/// A tenant that calls the API.
struct Tenant {
    http: reqwest::Client,
    keys: Keys,
    url: String,
}

impl Tenant {
    /// Creates a relay; the status and the text of the answer.
    async fn create(&self, number: usize) -> (u16, String) {
        let event = strict(&self.keys, &self.url, "POST", 0);
        let request = self.http.post(&self.url).header("authorization", header(&event));
        let answer = request.body(format!(r#"{{"subdomain": "http-{number}"}}"#)).send().await;
        let answer = answer.expect("the API answers, whatever it says");
        (answer.status().as_u16(), answer.text().await.unwrap())
    }
}

/// `tender serve` on this server, and a tenant of it.
fn serve(server: &Server, zooid: &ZooidStandIn) -> (Tender, Tenant) {
    let (url, zooid_url) = (server.url(), zooid.url());
    let bind = format!("127.0.0.1:{}", free_port());
    let environment = [
        ("DATABASE_URL", url.as_str()),
        ("ZOOID_API_URL", zooid_url.as_str()),
        ("RELAY_DOMAIN", "zooid.test"),
        ("ROBOT_SECRET", ROBOT_SECRET),
        ("API_BIND", bind.as_str()),
        ("API_RATE_LIMIT", "10000"),
    ];
    let (http, keys) = (reqwest::Client::new(), Keys::generate());
    let tenant = Tenant { http, keys, url: format!("http://{bind}/relays") };
    (Tender::start_with(&["serve"], &environment), tenant)
}

/// A server on a disk of its own, 160 MB.
struct SmallDisk {
    server: Option<Server>,
    dir: std::path::PathBuf,
}

impl SmallDisk {
    async fn start() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("disk");
        std::fs::create_dir(&dir).unwrap();
        mount(&["-t", "tmpfs", "-o", "size=160m", "tmpfs", dir.to_str().unwrap()]).await;
        Self { server: Some(Server::start_in(dir.clone(), temporary).await), dir }
    }

    fn filler(&self) -> std::path::PathBuf {
        self.dir.join("filler")
    }

    /// Writes until nothing more fits.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.filler()).unwrap();
        while std::io::Write::write_all(&mut file, &[1; 65_536]).is_ok() {}
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The server first: it holds the disk.
        let server = self.server.take();
        let dir = self.dir.clone();
        let _temporary_goes_last = server.map(|server| {
            let temporary = server.stop_now();
            let mut unmount = std::process::Command::new("umount");
            let _left_for_the_system = unmount.arg("-l").arg(&dir).status();
            temporary
        });
    }
}

/// Needs the right to mount, as root or by sudo.
async fn mount(arguments: &[&str]) {
    let is_root = nix::unistd::Uid::effective().is_root();
    let mut command = Command::new(if is_root { "mount" } else { "sudo" });
    if !is_root {
        command.args(["-n", "mount"]);
    }
    assert!(command.args(arguments).status().await.unwrap().success(), "mount {arguments:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_gives_clear_errors_and_loses_nothing() {
    let (disk, zooid) = (SmallDisk::start().await, stand_in().await);
    let server = disk.server.as_ref().unwrap();
    let pool = sqlx::PgPool::connect_lazy(&server.url()).unwrap();
    tender_jobs::database::migrate(&pool).await.unwrap();
    let (mut service, tenant) = serve(server, &zooid);
    for number in 0..50 {
        create(&pool, number).await;
    }
    let synced = async || count(&pool, "select count(*) from relay where synced").await;
    eventually("all are synced", async || synced().await == 50).await;

    disk.fill();
    let (mut refused, mut made, mut number) = (None, 50, 50);
    while refused.is_none() && number < 5000 {
        number += 1;
        let (status, body) = tenant.create(number).await;
        match status {
            201 => made += 1,
            503 => refused = Some(body),
            other => panic!("{other}: {body}"),
        }
    }
    let words = refused.expect("the disk is full at some time");
    assert!(words.contains("disk is full") || words.contains("does not answer"), "{words}");
    assert!(!service.has_ended());

    std::fs::remove_file(disk.filler()).unwrap();
    // PostgreSQL may have gone down for the lack of room for its log; then it is started again.
    if count(&pool, "select 1::bigint").await != 1 {
        server.restart().await;
    }
    within(RECOVERY, "all that was accepted is synced", async || synced().await >= made).await;
    let relays = count(&pool, "select count(*) from relay").await;
    // A creation whose commit was not answered may have been made; none that was answered is lost.
    assert!(relays >= made, "{relays} of {made}");
    within(RECOVERY, "and all that there is", async || synced().await == relays).await;
    assert_eq!(i64::try_from(zooid.len()).unwrap(), relays);
    // The first answer may be of a connection that the restart cut.
    within(RECOVERY, "relays are created again", async || tenant.create(9999).await.0 == 201).await;
    service.kill().await;
    drop(pool);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_database_gives_clear_errors_and_loses_nothing() {
    let (server, zooid) = (Server::start().await, stand_in().await);
    let pool = sqlx::PgPool::connect_lazy(&server.url()).unwrap();
    tender_jobs::database::migrate(&pool).await.unwrap();
    let (mut service, tenant) = serve(&server, &zooid);
    for number in 0..30 {
        create(&pool, number).await;
    }
    let synced = async || count(&pool, "select count(*) from relay where synced").await;
    eventually("all are synced", async || synced().await == 30).await;
    // As after a failover to a replica: every connection is cut, and the next one cannot write.
    set_read_only(&server, true).await;
    // The first answers may be of connections that were cut.
    eventually("it says what is wrong", async || {
        let (status, body) = tenant.create(100).await;
        assert_eq!(status, 503, "{body}");
        body.contains("read-only")
    })
    .await;
    let log = async || service.log();
    eventually("the log says it", async || log().await.contains("read-only")).await;
    set_read_only(&server, false).await;
    within(RECOVERY, "changes are taken again", async || tenant.create(101).await.0 == 201).await;
    within(RECOVERY, "and carried out", async || synced().await == 31).await;
    assert!(!service.has_ended());
    service.kill().await;
}

async fn set_read_only(server: &Server, is_read_only: bool) {
    let admin = sqlx::PgPool::connect(&server.url()).await.unwrap();
    let setting = if is_read_only { "on" } else { "off" };
    for statement in [
        "set default_transaction_read_only = off".to_owned(),
        format!("alter system set default_transaction_read_only = {setting}"),
        "select pg_reload_conf()".to_owned(),
        "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and backend_type = 'client backend'".to_owned(),
    ] {
        let mut connection = admin.acquire().await.unwrap();
        connection.execute("set default_transaction_read_only = off").await.unwrap();
        connection.execute(AssertSqlSafe(statement)).await.unwrap();
    }
}

async fn count(pool: &sqlx::PgPool, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap_or(-1)
}
