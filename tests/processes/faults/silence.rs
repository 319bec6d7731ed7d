//! A path to PostgreSQL that goes silent: connections stay open, nothing is answered, nothing is reset.

use std::time::Duration;

use nix::sys::signal::Signal;
use tender::demo::zooid::{Fault, Gate, ZooidStandIn};
use tender_jobs::provision::SYNC_RELAY;

use super::{assert_in_step, create_relays, reached, synced};
use crate::{
    stand_in,
    support::{
        World, database::server, eventually, path::Path, process::Tender, server::free_port, within,
    },
};

/// Work goes on this long after a new path exists.
const BACK: Duration = Duration::from_secs(30);
/// A process that was told to stop ends within this time.
const END: Duration = Duration::from_secs(25);

/// A process whose connections to the database lead over a path.
struct Remote {
    world: World,
    zooid: ZooidStandIn,
    path: Path,
    process: Tender,
    /// Where it tells how it is.
    probes: u16,
}

impl Remote {
    async fn start(arguments: &[&str]) -> Self {
        let (world, zooid, probes) = (World::new().await, stand_in().await, free_port());
        let path = Path::to(server().get_host(), server().get_port()).await;
        let url = format!("postgres://tender@127.0.0.1:{}/{}", path.port, world.database.name);
        let bind = format!("127.0.0.1:{probes}");
        let more = [
            ("DATABASE_URL", url.as_str()),
            ("RELAY_SYNC_CONCURRENCY", "4"),
            ("METRICS_BIND", bind.as_str()),
            ("API_BIND", bind.as_str()),
        ];
        let process = Tender::start(&world, &zooid.url(), arguments, &more);
        Self { world, zooid, path, process, probes }
    }

    async fn works(&self) {
        self.process.serves(&self.world.db, SYNC_RELAY).await;
        create_relays(&self.world, "first", 8).await;
        eventually("it works", async || synced(&self.world).await == 8).await;
    }

    /// The status with which the process answers.
    async fn asks(&self, probe: &str) -> u16 {
        let answer = reqwest::get(format!("http://127.0.0.1:{}/{probe}", self.probes)).await;
        answer.map_or(0, |answer| answer.status().as_u16())
    }

    async fn ends(&mut self) {
        self.process.signal(Signal::SIGTERM);
        let ended = tokio::time::timeout(END, self.process.wait()).await;
        assert!(ended.is_ok(), "it did not end within {END:?}: {}", self.process.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_goes_on_30_s_after_an_idle_process_has_lost_a_silent_path() {
    let mut remote = Remote::start(&["work"]).await;
    remote.works().await;
    remote.path.go_silent();
    eventually("it is not ready", async || remote.asks("readyz").await == 503).await;
    eventually("it notices", async || remote.process.log().contains("a worker ended")).await;
    remote.path.reopen();
    create_relays(&remote.world, "second", 8).await;
    within(BACK, "work goes on", async || synced(&remote.world).await == 16).await;
    within(BACK, "it is ready", async || remote.asks("readyz").await == 200).await;
    assert_in_step(&remote.world, &remote.zooid).await;
    remote.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_goes_on_30_s_after_a_busy_process_has_lost_a_silent_path() {
    let mut remote = Remote::start(&["work"]).await;
    remote.works().await;
    // Calls are under way when the path goes silent, and end before the process notices; behind them
    // claims, settles and fetches hang. New connections work at once.
    for round in 0..3 {
        let gate = Gate::default();
        remote.zooid.plan(None, Fault::Hold(gate.clone()), Some(4));
        create_relays(&remote.world, &format!("round-{round}"), 40).await;
        reached(&gate, 4).await;
        gate.open();
        remote.path.go_silent();
        remote.path.reopen();
        let all = 8 + 40 * (round + 1);
        within(BACK, "work goes on", async || synced(&remote.world).await == all).await;
    }
    remote.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_told_to_stop_ends_within_25_s_of_a_silence() {
    let mut remote = Remote::start(&["serve"]).await;
    remote.works().await;
    let gate = Gate::default();
    remote.zooid.plan(None, Fault::Hold(gate.clone()), None);
    create_relays(&remote.world, "held", 8).await;
    reached(&gate, 4).await;
    remote.path.go_silent();
    gate.open();
    remote.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_ends_within_25_s_also_after_a_long_silence() {
    let mut remote = Remote::start(&["work"]).await;
    remote.works().await;
    remote.path.go_silent();
    eventually("it is not alive", async || remote.asks("healthz").await == 503).await;
    remote.ends().await;
}

/// Nothing waits for a database that does not answer from the start.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_starts_in_a_silence_fails() {
    let (world, zooid) = (World::new().await, stand_in().await);
    let path = Path::to(server().get_host(), server().get_port()).await;
    path.go_silent();
    let url = format!("postgres://tender@127.0.0.1:{}/{}", path.port, world.database.name);
    let mut process =
        Tender::start(&world, &zooid.url(), &["work"], &[("DATABASE_URL", url.as_str())]);
    let ended = tokio::time::timeout(END, process.wait()).await.expect("it ends");
    assert_eq!(ended.code(), Some(1), "{}", process.log());
}
