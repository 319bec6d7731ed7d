//! The private PostgreSQL, as somebody without a database meets it.

use std::path::Path;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tender::demo::zooid::ZooidStandIn;
use tokio::process::Command;

use crate::support::{
    eventually,
    process::{ROBOT_SECRET, Tender, run},
};

const TENANT: &str = "npub1xtscya34g58tk0z605fvr788k263gsu6cy9x0mhnm87echrgufzsevkk5s";

/// A data directory that PostgreSQL's user can reach when the tests run as root.
fn data_dir() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn postmaster(dir: &Path) -> Option<i32> {
    let pid = std::fs::read_to_string(dir.join("postgres/data/postmaster.pid")).ok()?;
    pid.lines().next()?.parse().ok()
}

/// The processes that this one started.
async fn children(parent: i32) -> Vec<i32> {
    let listed = Command::new("ps").args(["-A", "-o", "pid=", "-o", "ppid="]).output().await;
    let listed = String::from_utf8(listed.expect("ps is installed").stdout).unwrap();
    let pairs = listed.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map_while(|word| word.parse::<i32>().ok());
        Some((numbers.next()?, numbers.next()?))
    });
    pairs.filter(|(_, of)| *of == parent).map(|(id, _)| id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_made_shared_stopped_with_the_last_and_survives_a_crash() {
    let dir = data_dir();
    let zooid = ZooidStandIn::start(vec![]).await.unwrap();
    let (path, url) = (dir.path().display().to_string(), zooid.url());
    let environment = [
        ("TENDER_DATA_DIR", path.as_str()),
        ("RELAY_DOMAIN", "zooid.test"),
        ("ZOOID_API_URL", url.as_str()),
        ("ROBOT_SECRET", ROBOT_SECRET),
        ("API_BIND", "127.0.0.1:0"),
    ];
    let tender = async |arguments: &[&str]| {
        let output = run(arguments, &environment).await;
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    tender(&["relay", "create", "alpha", "--tenant", TENANT]).await;
    assert_eq!(postmaster(dir.path()), None, "the last user stopped it");

    let mut service = Tender::start_with(&["serve"], &environment);
    eventually("it serves", async || service.log().contains("listening")).await;
    let running = postmaster(dir.path()).expect("it runs");
    let list: Value = serde_json::from_str(&tender(&["relay", "list", "--json"]).await).unwrap();
    assert_eq!(list[0]["host"], "alpha.zooid.test");
    assert_eq!(postmaster(dir.path()), Some(running), "a command beside it leaves it running");

    // Everything dies at once: the service by -9, then the database by -9. PostgreSQL refuses to start
    // while a child of the killed server uses its shared memory.
    service.kill().await;
    let server = [vec![running], children(running).await].concat();
    kill(Pid::from_raw(running), Signal::SIGKILL).unwrap();
    eventually("the server and its children are gone", async || {
        server.iter().all(|id| kill(Pid::from_raw(*id), None).is_err())
    })
    .await;
    let list: Value = serde_json::from_str(&tender(&["relay", "list", "--json"]).await).unwrap();
    assert_eq!(list[0]["host"], "alpha.zooid.test", "what was committed is there");
    assert_eq!(postmaster(dir.path()), None);
    let settings =
        std::fs::read_to_string(dir.path().join("postgres/data/postgresql.conf")).unwrap();
    assert!(settings.contains("listen_addresses = ''"), "no port is open");
    assert!(
        !settings.lines().any(|line| line.trim_start().starts_with("fsync")),
        "durable by default"
    );
}

#[tokio::test]
async fn without_binaries_one_sentence_names_the_package() {
    let dir = data_dir();
    let path = dir.path().display().to_string();
    let output =
        run(&["migrate"], &[("TENDER_DATA_DIR", &path), ("TENDER_PG_BIN", "/nonexistent")]).await;
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(words.lines().count(), 1, "{words}");
    assert!(words.starts_with("tender: PostgreSQL is not installed: "), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_commands_at_once_make_one_cluster() {
    let dir = data_dir();
    let path = dir.path().display().to_string();
    let environment = [("TENDER_DATA_DIR", path.as_str()), ("RELAY_DOMAIN", "zooid.test")];
    let (first, second, third) = tokio::join!(
        run(&["migrate"], &environment),
        run(&["relay", "create", "alpha", "--tenant", TENANT], &environment),
        run(&["relay", "create", "beta", "--tenant", TENANT], &environment),
    );
    for output in [first, second, third] {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let list = run(&["relay", "list", "--json"], &environment).await;
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(postmaster(dir.path()), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_ends_with_every_relay_in_step_and_leaves_nothing() {
    let dir = data_dir();
    let path = dir.path().display().to_string();
    let output =
        run(&["demo", "--once"], &[("TENDER_DATA_DIR", &path), ("API_BIND", "127.0.0.1:0")]).await;
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{words}");
    for part in [
        "pending",
        "failing",
        "synced",
        "12 relays in step",
        "12 relays created, each once; 0 calls beside",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
