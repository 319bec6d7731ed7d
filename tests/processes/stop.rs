//! SIGTERM ends a process also while clients hold connections open.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::support::{database::TestDatabase, eventually, process::Tender, server::free_port};

/// The 10 s that running requests have, and the time of a busy machine.
const SOON: Duration = Duration::from_secs(25);

async fn ends_beside_a_half_sent_head(command: &str, variable: &str) {
    let (database, port) = (TestDatabase::new().await, free_port());
    let (url, bind) = (database.url(), format!("127.0.0.1:{port}"));
    let environment = [("DATABASE_URL", url.as_str()), (variable, bind.as_str())];
    let mut process = Tender::start_with(&[command], &environment);
    let mut half = None;
    eventually("the process listens", async || {
        half = TcpStream::connect(&bind).await.ok();
        half.is_some()
    })
    .await;
    let mut half = half.unwrap();
    half.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\nx-").await.unwrap();
    let started = Instant::now();
    process.signal(Signal::SIGTERM);
    assert!(process.wait().await.success(), "{}", process.log());
    assert!(started.elapsed() < SOON, "{command} took {:?}", started.elapsed());
}

#[tokio::test]
async fn relays_that_are_not_provisioned_here_are_no_error_of_the_log() {
    crate::support::install_tls();
    let (database, port) = (TestDatabase::new().await, free_port());
    let (url, bind) = (database.url(), format!("127.0.0.1:{port}"));
    let environment = [("DATABASE_URL", url.as_str()), ("API_BIND", bind.as_str())];
    let api = Tender::start_with(&["api"], &environment);
    let asked = format!("http://{bind}/relays");
    for _ in 0..3 {
        eventually("the request is answered", async || {
            reqwest::get(&asked).await.is_ok_and(|answer| answer.status().as_u16() == 503)
        })
        .await;
    }
    let log = api.log();
    assert!(!log.contains("ERROR"), "{log}");
    assert_eq!(log.matches("RELAY_DOMAIN is not set on this server").count(), 1, "{log}");
}

#[tokio::test]
async fn a_half_sent_head_keeps_no_process_from_ending() {
    tokio::join!(
        ends_beside_a_half_sent_head("api", "API_BIND"),
        ends_beside_a_half_sent_head("serve", "API_BIND"),
        ends_beside_a_half_sent_head("work", "METRICS_BIND"),
    );
}
