//! An empty directory: what only reads creates nothing, and the first start says where it is.

use std::path::Path;

use nix::sys::signal::Signal;

use crate::support::{
    eventually, install_tls,
    process::{Tender, run},
    terminal::Terminal,
};

/// A data directory that PostgreSQL's user can reach when the tests run as root.
fn data_dir() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}

#[tokio::test]
async fn what_only_reads_creates_no_postgresql_and_says_how_to_start() {
    let dir = data_dir();
    let path = dir.path().display().to_string();
    let environment = [("TENDER_DATA_DIR", path.as_str()), ("RELAY_DOMAIN", "zooid.test")];
    for arguments in [
        &["relay", "list"][..],
        &["relay", "delete", "a.zooid.test", "--yes"],
        &["status"],
        &["top", "--json"],
        &["queue", "status"],
        &["queue", "pause", "mirror"],
        &["workers"],
        &["schedule"],
        &["instance", "list"],
        &["mirror", "list"],
        &["mirror", "config"],
        &["grasp", "status"],
        &["keys", "list"],
        &["dashboard-link"],
        &["reconcile"],
    ] {
        let output = run(arguments, &environment).await;
        let words = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {words}");
        assert!(words.contains("there is no database yet"), "{arguments:?}: {words}");
        assert!(words.contains("`tender serve` creates one"), "{arguments:?}: {words}");
        assert!(is_empty(dir.path()), "{arguments:?} created something");
    }
    let doctor = run(&["doctor"], &environment).await;
    let words = String::from_utf8(doctor.stdout).unwrap();
    assert!(doctor.status.success() && words.contains("none yet: `tender serve`"), "{words}");
    assert!(!words.contains("warn") || words.contains("provisioning"), "{words}");
    assert!(is_empty(dir.path()), "doctor created something");
}

/// Returns the address at which a process says that it listens.
fn address(log: &str) -> Option<String> {
    let (_, rest) = log.split_once("listening address=")?;
    Some(rest.split_whitespace().next()?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_says_its_address_and_the_way_into_the_dashboard() {
    let dir = data_dir();
    let path = dir.path().display().to_string();
    let environment = [("TENDER_DATA_DIR", path.as_str()), ("API_BIND", "127.0.0.1:0")];
    let mut first = Tender::start_with(&["serve"], &environment);
    eventually("it says where it is", async || first.log().contains("dashboard-link")).await;
    assert!(address(&first.log()).is_some(), "{}", first.log());
    assert!(!first.log().contains("token="), "a log is kept: {}", first.log());
    let doctor = run(&["doctor", "--json"], &environment).await;
    let findings: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let findings = findings["findings"].as_array().unwrap();
    assert!(findings.iter().all(|one| one["grade"] == "ok"), "a healthy first run: {findings:?}");
    first.signal(Signal::SIGTERM);
    assert!(first.wait().await.success(), "{}", first.log());

    let mut second = Terminal::start(80, &["serve"], &environment);
    eventually("it shows a link", async || second.screen().contains("The link works once")).await;
    let screen = second.screen();
    let address = address(&screen).expect(&screen);
    let (_, link) = screen.split_once("/dashboard/link?token=").expect(&screen);
    let token = link.split_whitespace().next().unwrap();
    install_tls();
    let http =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let mut ways = Vec::new();
    for _ in 0..2 {
        let url = format!("http://{address}/dashboard/link");
        let entered = http.post(url).form(&[("token", token)]).send().await.unwrap();
        ways.push(entered.headers().contains_key("set-cookie"));
    }
    assert_eq!(ways, [true, false], "the link works once");
    second.types("\u{3}");
    let ended = second.ends().await;
    assert_eq!(ended.code, 0, "{}", ended.screen);
}
