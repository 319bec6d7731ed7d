//! Event sync's commands, as an operator types them.

use nostr::key::Keys;
use serde_json::{Value, json};
use tender_jobs::lane::LaneKind;

use crate::support::{
    World, eventually,
    process::{ROBOT_SECRET, Tender, run},
    relays::{RealRelay, notes},
    sync::days,
};

struct Typed {
    code: i32,
    out: String,
    err: String,
}

async fn tender(world: &World, arguments: &[&str]) -> Typed {
    let url = world.database.url();
    let environment = [
        ("DATABASE_URL", url.as_str()),
        ("ROBOT_SECRET", ROBOT_SECRET),
        ("API_KEY_HMAC_SECRET", "a secret of the tests"),
    ];
    let output = run(arguments, &environment).await;
    Typed {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

async fn says(world: &World, arguments: &[&str], words: &[&str]) {
    let typed = tender(world, arguments).await;
    assert_eq!(typed.code, 0, "{arguments:?}: {}", typed.err);
    for word in words {
        assert!(typed.out.contains(word), "{arguments:?} says no {word}: {}", typed.out);
    }
}

async fn refuses(world: &World, arguments: &[&str], words: &str) {
    let typed = tender(world, arguments).await;
    assert_eq!(typed.code, 1, "{arguments:?}: {}", typed.out);
    assert!(typed.err.contains(words), "{arguments:?}: {}", typed.err);
}

async fn json_of(world: &World, arguments: &[&str]) -> Value {
    let typed = tender(world, &[arguments, &["--json"]].concat()).await;
    assert_eq!(typed.code, 0, "{}", typed.err);
    serde_json::from_str(&typed.out).unwrap()
}

#[tokio::test]
async fn upstreams_are_managed_from_the_command_line() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    says(&world, &["upstream", "list"], &["no upstreams yet"]).await;
    says(&world, &["upstream", "add", "WSS://A.test/", "--negentropy"], &["added wss://a.test"])
        .await;
    refuses(&world, &["upstream", "add", "wss://a.test"], "there already").await;
    refuses(&world, &["upstream", "add", "https://a.test"], "valid WebSocket URL").await;
    refuses(&world, &["upstream", "add", "wss://b.test", "--config", "{"], "not JSON").await;
    let hosted = ["upstream", "add", "--relay", &relay.host(), "--direction", "both"];
    says(&world, &hosted, &["added wss://alpha.zooid.test"]).await;
    let found = json_of(&world, &["upstream", "show", "wss://alpha.zooid.test"]).await;
    assert_eq!(found["upstream"]["relay_id"], relay.id.as_str());
    let set = [
        "upstream",
        "set",
        "wss://a.test",
        "--enabled",
        "false",
        "--config",
        r#"{"batch_size": 9}"#,
    ];
    says(&world, &set, &["changed"]).await;
    refuses(
        &world,
        &["upstream", "set", "wss://a.test", "--config", r#"{"batch_size": 0}"#],
        "1 to 500",
    )
    .await;
    says(&world, &["upstream", "list"], &["wss://a.test", "off", "both"]).await;
    says(&world, &["sync", "relays"], &["2 in all, 1 enabled", "1 upload"]).await;
    let config = json_of(&world, &["sync", "config", "wss://a.test"]).await;
    assert_eq!(
        (&config["settings"]["batch_size"], &config["overridden"]["batch_size"]),
        (&json!(9), &json!(9))
    );
    says(&world, &["sync", "config"], &["backfill_since_hours", "5.0 years", "event_kinds"]).await;

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        r#"[{"url": "wss://a.test"}, {"url": "wss://c.test", "direction": "up"}]"#,
    )
    .unwrap();
    let seed = ["upstream", "seed", file.path().to_str().unwrap()];
    says(&world, &seed, &["Exists   wss://a.test", "Created  wss://c.test", "3 relays"]).await;
    says(&world, &seed, &["Exists   wss://c.test", "3 relays"]).await;
    says(&world, &["upstream", "remove", "wss://c.test"], &["its events stay"]).await;
    refuses(&world, &["upstream", "show", "wss://c.test"], "no upstream").await;
}

#[tokio::test]
async fn keys_are_made_listed_and_revoked() {
    let world = World::new().await;
    says(&world, &["keys", "list"], &["No API keys found"]).await;
    let made = json_of(&world, &["keys", "create"]).await;
    assert_eq!(made["key"]["name"], "Admin Key");
    let prefix = made["key"]["key_prefix"].as_str().unwrap().to_owned();
    says(&world, &["keys", "create", "second"], &["rlk_", "not shown again"]).await;
    says(&world, &["keys", "list"], &[&prefix, "active", "never"]).await;
    refuses(&world, &["keys", "revoke", "rlk_"], "give more of it").await;
    refuses(&world, &["keys", "revoke", "nobody"], "no active key").await;
    says(&world, &["keys", "revoke", &prefix], &["revoked"]).await;
    refuses(&world, &["keys", "revoke", &prefix], "no active key").await;
    assert_eq!(tender(&world, &["keys", "revoke"]).await.code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_is_triggered_waited_for_and_looked_at() {
    let world = World::new().await;
    let relay = RealRelay::start().await;
    relay.add(&notes(&Keys::generate(), 50, world.db_now().await - 60, 600)).await;
    let fields = json!({"negentropy": true, "config": days(1)});
    let upstream = world.upstream(&relay.url, fields).await;
    let url = relay.url.as_str();
    says(&world, &["sync", "status"], &["nothing was synced yet", "[ON]", "not connected"]).await;
    says(&world, &["sync", "diff", url], &["of 0 known here", "50 are missing here"]).await;
    let diff = json_of(&world, &["sync", "diff", url]).await;
    assert_eq!(diff["missing_here"].as_array().unwrap().len(), 50);
    refuses(&world, &["sync", "trigger", "backfill", "ws://nobody.test"], "no upstream").await;
    assert_eq!(tender(&world, &["sync", "trigger", "sideways"]).await.code, 2);
    refuses(&world, &["sync", "trigger", "backfill", url, "--wait"], "nobody works").await;

    let more = [("SCHEDULE_PROFILE", "off")];
    let _worker = Tender::start(&world, "http://127.0.0.1:9", &["work", "--queue", "sync"], &more);
    eventually("a worker is there", async || {
        let workers = tender_jobs::queue::workers(&world.db).await.unwrap();
        workers.iter().any(|worker| worker.is_alive && worker.queue == "sync")
    })
    .await;
    let wait = ["sync", "trigger", "backfill", url, "--wait"];
    let typed = tender(&world, &wait).await;
    assert_eq!(typed.code, 0, "{}", typed.err);
    assert_eq!(world.stored().await.len(), 50);
    says(&world, &["sync", "trigger", "backfill", url], &["dispatched 0", "complete"]).await;
    says(&world, &["sync", "status"], &["[OK]", "100.0 %", "backfill", "events: 50 in all"]).await;
    says(&world, &["sync", "diff", url], &["0 are missing there; 0 are missing here"]).await;
    says(&world, &["sync", "recover"], &["Recovered: 0 stale, 0 errors"]).await;
    says(&world, &["sync", "boot"], &["dispatched 0"]).await;
    says(&world, &["schedule"], &["reconcile"]).await;

    says(&world, &["sync", "reset"], &["[y/N]", "cancelled"]).await;
    assert_eq!(world.lane(&upstream, LaneKind::Backfill).await.status, "completed");
    says(&world, &["sync", "reset", url], &["removed 1 sync states"]).await;
    says(&world, &["sync", "wipe"], &["cancelled"]).await;
    says(&world, &["sync", "wipe", "--yes"], &["deleted"]).await;
    assert!(world.stored().await.is_empty());
    says(&world, &["sync", "redelete"], &["enqueued 0 deletions"]).await;
}
