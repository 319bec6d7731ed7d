//! Wrong usage, questions before something is destroyed, and what is said of a failure.

use serde_json::json;

use crate::support::{
    DOMAIN, World,
    mirror::MirrorWorld,
    process::{ROBOT_SECRET, run},
    terminal::{Ended, Terminal},
};

const TENANT: &str = "npub1xtscya34g58tk0z605fvr788k263gsu6cy9x0mhnm87echrgufzsevkk5s";

/// Runs a command without a terminal: its exit code, and what it wrote to standard error.
async fn piped(url: &str, arguments: &[&str]) -> (i32, String) {
    let environment = [
        ("DATABASE_URL", url),
        ("RELAY_DOMAIN", DOMAIN),
        ("ROBOT_SECRET", ROBOT_SECRET),
        ("ALLOW_PRIVATE_UPSTREAMS", "true"),
    ];
    let output = run(arguments, &environment).await;
    (output.status.code().unwrap_or(-1), String::from_utf8(output.stderr).unwrap())
}

/// Runs a command at a terminal, and types an answer.
async fn answered(url: &str, arguments: &[&str], answer: &str) -> Ended {
    let environment = [("DATABASE_URL", url), ("ALLOW_PRIVATE_UPSTREAMS", "true")];
    let mut terminal = Terminal::start(80, arguments, &environment);
    terminal.types(answer);
    terminal.ends().await
}

#[tokio::test]
async fn wrong_usage_ends_with_2_and_names_what_was_typed() {
    let world = World::new().await;
    let url = world.database.url();
    let no_point = "f".repeat(64);
    for (arguments, words) in [
        (&["relay", "list", "--sync", "perhaps"][..], "--sync"),
        (&["nonsense"], "nonsense"),
        (&[], "Usage"),
        (&["relay", "create"], "--tenant"),
        (&["relay", "create", "UPPER", "--tenant", TENANT], "SUBDOMAIN must be 1 to 63"),
        (&["relay", "create", "a", "--tenant", TENANT, "--icon", "x"], "--icon must"),
        (&["relay", "create", "a", "--tenant", "nobody"], "'--tenant <TENANT>': not a public key"),
        (&["relay", "create", "a", "--tenant", &no_point], "no secret key has it"),
        (
            &[
                "relay",
                "create",
                "a",
                "--tenant",
                TENANT,
                "--on",
                "push_enabled",
                "--off",
                "push_enabled",
            ],
            "--on push_enabled and --off push_enabled contradict each other",
        ),
        (&["work", "--queue", "nothing"], "there is no queue nothing; there are sync-relay"),
        (&["work", "--queue", "sync-relay=0"], "1 to 1000"),
        (&["queue", "pause", "nets"], "there is no queue nets"),
        (&["queue", "list", "--queue", "nets"], "there is no queue nets"),
        (&["queue", "retry", "--all", "--older", "5 weeks"], "a whole number and a unit"),
        (&["queue", "retry", "--state", "killed"], "<JOB>"),
        (&["queue", "delete", "--all", "--yes", "--tenant", ""], "--tenant"),
        (&["queue", "delete", "--all", "--yes", "--tenant", "wss://"], "--tenant"),
        (&["queue", "cancel", "--all", "--yes", "--host", " wss:// "], "--host"),
        (&["queue", "delete", "--all", "--yes", "--error", " "], "--error"),
        (&["queue", "list", "--host", ""], "--host"),
        (&["queue", "cancel", "some-id", "--queue", "prune"], "cannot be used with"),
        (&["top"], "needs a terminal"),
        (&["mirror", "add", "https://a.test"], "valid WebSocket URL"),
        (&["mirror", "add", "wss://b.test", "--config", "{"], "'--config <JSON>': not JSON"),
        (&["mirror", "add", "wss://b.test", "--config", r#"{"batch_size": 0}"#], "--config"),
        (&["mirror", "config", "set", "batch_size"], "NAME=VALUE"),
        (&["mirror", "config", "set", "nonsense=1"], "unknown setting"),
        (&["grasp", "repos", "--after", "nonsense"], "not the mark of a page"),
        (&["grasp", "parked", "--reason", "weather"], "--reason"),
        (&["grasp", "explain", ""], "EVENT is empty"),
    ] {
        let (code, err) = piped(&url, arguments).await;
        assert_eq!(code, 2, "{arguments:?}: {err}");
        assert!(err.contains(words), "{arguments:?}: {err}");
    }
    for (arguments, words) in [
        (&["relay", "show", "nowhere.zooid.test"][..], "there is no relay nowhere.zooid.test"),
        (&["queue", "show", "nothing"], "there is no job nothing"),
        (&["mirror", "show", "wss://nowhere.test"], "there is no upstream wss://nowhere.test"),
    ] {
        let (code, err) = piped(&url, arguments).await;
        assert_eq!(code, 1, "{arguments:?}: {err}");
        assert!(err.starts_with("tender: ") && err.contains(words), "{err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_destroys_asks_and_names_the_thing_with_its_count() {
    let world = MirrorWorld::new().await;
    let url = world.database.url();
    let (code, err) = piped(&url, &["relay", "create", "alpha", "--tenant", TENANT]).await;
    assert_eq!(code, 0, "{err}");
    world.upstream("ws://127.0.0.1:1", json!({})).await;
    let service = ["grasp", "add", "ws://127.0.0.1:2", "--name", "git.example.com"];
    assert_eq!(piped(&url, &service).await.0, 0);
    let key = tender::tokens::create(&world.db, &"secret".to_owned().into(), "robot").await;
    let prefix = key.unwrap().key.prefix;
    for (arguments, question) in [
        (
            &["relay", "delete", "alpha.zooid.test"][..],
            "Delete 1 relay, alpha.zooid.test, for good?",
        ),
        (
            &["mirror", "reset"],
            "Forget everything believed of all upstreams, the progress of 0 lanes?",
        ),
        (&["mirror", "reset", "ws://127.0.0.1:1"], "of ws://127.0.0.1:1, the progress of 0 lanes?"),
        (
            &["mirror", "remove", "ws://127.0.0.1:1"],
            "Remove ws://127.0.0.1:1 with the progress of 0 lanes?",
        ),
        (
            &["mirror", "wipe"],
            "Delete all of 0 stored events, and the progress of 0 lanes, for good?",
        ),
        (&["grasp", "remove", "ws://127.0.0.1:2"], "with the coverage of 0 repositories?"),
        (&["keys", "revoke", &prefix], "(robot)?"),
        (&["dashboard-link", "--end-sessions"], "End 0 sessions of the dashboard?"),
    ] {
        let (code, err) = piped(&url, arguments).await;
        assert_eq!(code, 2, "{arguments:?}: {err}");
        assert!(
            err.contains(question) && err.contains("--yes confirms it"),
            "{arguments:?}: {err}"
        );
        for answer in ["n\n", "\n", "\u{4}"] {
            let no = answered(&url, arguments, answer).await;
            assert_eq!(no.code, 1, "{arguments:?} {answer:?}: {}", no.screen);
            assert!(no.screen.contains(question), "{arguments:?}: {}", no.screen);
            assert!(no.screen.contains("nothing was done"), "{arguments:?}: {}", no.screen);
        }
        let yes = answered(&url, arguments, "y\n").await;
        assert_eq!(yes.code, 0, "{arguments:?}: {}", yes.screen);
    }
}

#[tokio::test]
async fn an_unreachable_postgresql_is_named_with_what_to_do() {
    with_closed_port(async |port| {
        let url = format!("postgres://tender:hunter2@127.0.0.1:{port}/tender");
        let (code, err) = piped(&url, &["relay", "list"]).await;
        assert_eq!(code, 1, "{err}");
        let words =
            format!("PostgreSQL at 127.0.0.1:{port} refused the connection; is it running?");
        assert!(err.contains(&words) && !err.contains("hunter2"), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    })
    .await;
    let world = World::new().await;
    let url = world.database.url();
    let (code, err) = piped(&format!("{url}_not"), &["relay", "list"]).await;
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("has no database") && err.contains("createdb"), "{err}");
}

/// Calls `test` with a port of this machine at which nothing listens, and which nothing else takes
/// meanwhile.
async fn with_closed_port(test: impl AsyncFnOnce(u16)) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    test(socket.local_addr().unwrap().port()).await;
    drop(socket);
}
