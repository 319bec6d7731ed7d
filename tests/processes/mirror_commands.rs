//! The mirror's commands, as an operator types them.

use nostr::key::Keys;
use serde_json::{Value, json};
use tender::demo::zooid::Gate;
use tender_jobs::{mirror::lane::LaneKind, queue};

use crate::support::{
    DOMAIN, eventually,
    mirror::{MirrorWorld, days},
    process::{ROBOT_SECRET, Tender, run},
    relays::{FakeRelay, RealRelay, gated, notes},
};

const TENANT: &str = "npub1xtscya34g58tk0z605fvr788k263gsu6cy9x0mhnm87echrgufzsevkk5s";

struct Typed {
    code: i32,
    out: String,
    err: String,
}

async fn tender(world: &MirrorWorld, arguments: &[&str]) -> Typed {
    tender_with(world, arguments, &[]).await
}

async fn tender_with(world: &MirrorWorld, arguments: &[&str], more: &[(&str, &str)]) -> Typed {
    let url = world.database.url();
    let mut environment = vec![
        ("DATABASE_URL", url.as_str()),
        ("ROBOT_SECRET", ROBOT_SECRET),
        ("API_KEY_HMAC_SECRET", "a secret of the tests"),
        ("ALLOW_PRIVATE_UPSTREAMS", "true"),
    ];
    environment.extend(more);
    let output = run(arguments, &environment).await;
    Typed {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

async fn says(world: &MirrorWorld, arguments: &[&str], words: &[&str]) {
    let typed = tender(world, arguments).await;
    assert_eq!(typed.code, 0, "{arguments:?}: {}", typed.err);
    for word in words {
        assert!(typed.out.contains(word), "{arguments:?} says no {word}: {}", typed.out);
    }
}

async fn refuses(world: &MirrorWorld, arguments: &[&str], words: &str) {
    let typed = tender(world, arguments).await;
    assert_eq!(typed.code, 1, "{arguments:?}: {}", typed.out);
    assert!(typed.err.contains(words), "{arguments:?}: {}", typed.err);
}

async fn json_of(world: &MirrorWorld, arguments: &[&str]) -> Value {
    let typed = tender(world, &[arguments, &["--json"]].concat()).await;
    assert_eq!(typed.code, 0, "{}", typed.err);
    serde_json::from_str(&typed.out).unwrap()
}

#[tokio::test]
async fn upstreams_are_managed_from_the_command_line() {
    let world = MirrorWorld::new().await;
    let environment = [("DATABASE_URL", &*world.database.url()), ("RELAY_DOMAIN", DOMAIN)];
    let created =
        run(&["relay", "create", "alpha", "--tenant", TENANT, "--json"], &environment).await;
    let relay: Value = serde_json::from_slice(&created.stdout).unwrap();
    says(&world, &["mirror", "list"], &["no upstreams yet"]).await;
    says(&world, &["mirror", "add", "WSS://A.test/", "--negentropy"], &["added wss://a.test"])
        .await;
    refuses(&world, &["mirror", "add", "wss://a.test"], "already exists").await;
    let hosted = ["mirror", "add", "--relay", "alpha.zooid.test"];
    let both = [hosted.as_slice(), &["--direction", "both"]].concat();
    let wrong = tender(&world, &both).await;
    assert_eq!(wrong.code, 2);
    assert!(
        wrong.err.contains("--direction of a relay that we host must be down"),
        "{}",
        wrong.err
    );
    says(&world, &hosted, &["added wss://alpha.zooid.test"]).await;
    let found = json_of(&world, &["mirror", "show", "wss://alpha.zooid.test"]).await;
    assert_eq!(found["upstream"]["relay_id"], relay["id"]);
    let set = [
        "mirror",
        "update",
        "wss://a.test",
        "--enabled",
        "false",
        "--config",
        r#"{"batch_size": 9}"#,
    ];
    says(&world, &set, &["changed"]).await;
    says(&world, &["mirror", "list"], &["wss://a.test", "off", "down"]).await;
    let config = json_of(&world, &["mirror", "config", "wss://a.test"]).await;
    assert_eq!(
        (&config["settings"]["batch_size"], &config["overridden"]["batch_size"]),
        (&json!(9), &json!(9))
    );
    says(&world, &["mirror", "config"], &["backfill_since_hours", "5.0 years", "event_kinds"])
        .await;

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        r#"[{"url": "wss://a.test"}, {"url": "wss://c.test", "direction": "up"}]"#,
    )
    .unwrap();
    let seed = ["mirror", "seed", file.path().to_str().unwrap()];
    says(&world, &seed, &["Exists   wss://a.test", "Created  wss://c.test", "3 upstreams"]).await;
    says(&world, &seed, &["Exists   wss://c.test", "3 upstreams"]).await;
    let up = ["mirror", "add", "wss://d.test", "--direction", "up"];
    says(&world, &up, &["`tender mirror trigger upload` starts it now"]).await;
    says(&world, &["mirror", "remove", "wss://c.test", "--yes"], &["its events are kept"]).await;
    refuses(&world, &["mirror", "show", "wss://c.test"], "no upstream").await;
}

#[tokio::test]
async fn keys_are_made_listed_and_revoked() {
    let world = MirrorWorld::new().await;
    says(&world, &["keys", "list"], &["No API keys found"]).await;
    let made = json_of(&world, &["keys", "create"]).await;
    assert_eq!(made["key"]["name"], "Admin Key");
    let prefix = made["key"]["key_prefix"].as_str().unwrap().to_owned();
    says(&world, &["keys", "create", "second"], &["rlk_", "not shown again"]).await;
    says(&world, &["keys", "list"], &[&prefix, "active", "never"]).await;
    refuses(&world, &["keys", "revoke", "rlk_", "--yes"], "give a longer prefix").await;
    refuses(&world, &["keys", "revoke", "nobody", "--yes"], "no active key").await;
    says(&world, &["keys", "revoke", &prefix, "--yes"], &["revoked"]).await;
    refuses(&world, &["keys", "revoke", &prefix, "--yes"], "no active key").await;
    assert_eq!(tender(&world, &["keys", "revoke"]).await.code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_is_triggered_waited_for_and_looked_at() {
    let world = MirrorWorld::new().await;
    let relay = RealRelay::start().await;
    relay.add(&notes(&Keys::generate(), 50, world.db_now().await - 60, 600)).await;
    let fields = json!({"negentropy": true, "config": days(1)});
    let upstream = world.upstream(&relay.url, fields).await;
    let url = relay.url.as_str();
    says(&world, &["mirror", "status"], &["no lanes yet", "[ON]", "not connected"]).await;
    says(&world, &["mirror", "diff", url], &["of 0 known here", "50 are missing here"]).await;
    let diff = json_of(&world, &["mirror", "diff", url]).await;
    assert_eq!(diff["missing_here"].as_array().unwrap().len(), 50);
    refuses(&world, &["mirror", "trigger", "backfill", "ws://nobody.test"], "no upstream").await;
    assert_eq!(tender(&world, &["mirror", "trigger", "sideways"]).await.code, 2);
    refuses(
        &world,
        &["mirror", "trigger", "backfill", url, "--wait"],
        "no worker of the queue mirror is running",
    )
    .await;

    let worker = Tender::start_mirror(&world, &["work", "--queue", "mirror"], &[]);
    worker.serves(&world.db, "mirror").await;
    let wait = ["mirror", "trigger", "backfill", url, "--wait"];
    let typed = tender(&world, &wait).await;
    assert_eq!(typed.code, 0, "{}", typed.err);
    assert_eq!(world.stored().await.len(), 50);
    says(&world, &["mirror", "trigger", "backfill", url], &["dispatched 0", "complete"]).await;
    says(&world, &["mirror", "status"], &["[OK]", "100.0 %", "backfill", "events: 50 in total"])
        .await;
    let status = json_of(&world, &["mirror", "status"]).await;
    for name in ["last_synced_at", "backfill_started_at", "backfill_target"] {
        let at = status["lanes"][0][name].as_str().unwrap_or_else(|| panic!("{name}: {status}"));
        assert!(chrono::DateTime::parse_from_rfc3339(at).is_ok(), "{name}: {at}");
    }
    says(&world, &["mirror", "diff", url], &["0 are missing there; 0 are missing here"]).await;
    says(&world, &["mirror", "recover"], &["Recovered: 0 stale, 0 errors"]).await;
    eventually("the schedule is planned", async || {
        let schedule = queue::schedule::list(&world.db).await.unwrap();
        schedule.iter().any(|row| row.name == "prune")
    })
    .await;
    says(&world, &["schedule"], &["prune"]).await;

    // Without a terminal and without --yes, nothing is done.
    for asks in [&["mirror", "reset"][..], &["mirror", "reset", url], &["mirror", "wipe"]] {
        assert_eq!(tender(&world, asks).await.code, 2, "{asks:?}");
    }
    assert_eq!(world.lane(&upstream, LaneKind::Backfill).await.status, "completed");
    let reset = ["mirror", "reset", url, "--yes"];
    says(&world, &reset, &["removed the progress of 1 lanes"]).await;
    says(&world, &["mirror", "wipe", "--yes"], &["deleted"]).await;
    assert!(world.stored().await.is_empty());
    says(&world, &["mirror", "redelete"], &["enqueued 0 deletions"]).await;
}

/// No worker runs: the command would fail if it waited.
#[tokio::test(flavor = "multi_thread")]
async fn a_wait_does_not_last_for_a_lane_that_needs_nothing_and_failed_before() {
    let (world, relay) = (MirrorWorld::new().await, RealRelay::start().await);
    let upstream = world.upstream(&relay.url, json!({"config": days(1)})).await;
    assert_eq!(world.mirror(&upstream, LaneKind::Backfill).await.status, "completed");
    let fails = "update lane set status = 'error', error_message = 'a gap', retry_at = now() + interval '1 hour'";
    sqlx::query(fails).execute(&world.db).await.unwrap();
    let wait = ["mirror", "trigger", "backfill", relay.url.as_str(), "--wait"];
    says(&world, &wait, &["dispatched 0", "complete"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_the_deployments_and_not_those_of_a_shell() {
    let world = MirrorWorld::new().await;
    let set = ["mirror", "config", "set", "batch_size=7", "event_kinds=[1]"];
    says(&world, &set, &["changed the deployment's settings"]).await;
    let wanted =
        ["batch_size                   7 (set for the deployment)", "event_kinds", "production"];
    says(&world, &["mirror", "config"], &wanted).await;
    let config = json_of(&world, &["mirror", "config"]).await;
    assert_eq!(config["origin"]["batch_size"], "deployment");
    assert_eq!(config["origin"]["poll_page_limit"], "default");
    says(&world, &["mirror", "config", "unset", "batch_size"], &["changed"]).await;

    let upstream = world.upstream("ws://127.0.0.1:1", json!({})).await;
    world.trigger(&upstream, LaneKind::Backfill).await;
    let before = world.lane(&upstream, LaneKind::Backfill).await;
    let other = [("MIRROR_DEFAULTS", r#"{"event_kinds": [7], "backfill_since_hours": 9}"#)];
    let trigger = ["mirror", "trigger", "backfill", "ws://127.0.0.1:1"];
    assert_eq!(tender_with(&world, &trigger, &other).await.code, 0);
    let after = world.lane(&upstream, LaneKind::Backfill).await;
    assert_eq!(
        (after.id, after.filter_hash, after.backfill_target),
        (before.id, before.filter_hash, before.backfill_target)
    );
    let doctor = tender_with(&world, &["doctor"], &other).await;
    let words = "MIRROR_DEFAULTS differs from the settings in the database (backfill_since_hours, event_kinds)";
    assert!(doctor.out.contains(words), "{}", doctor.out);
}

/// A relay that refuses every request.
async fn refusing() -> FakeRelay {
    FakeRelay::start(|client, message| async move {
        if message[0] == "REQ" {
            client.send(json!(["CLOSED", message[1], "restricted: members only"])).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_lasts_until_running_lanes_end_and_names_every_failure() {
    let (world, gate) = (MirrorWorld::new().await, Gate::default());
    let relay = RealRelay::start().await;
    let proxy = gated(&relay.url, &gate, |text| text.starts_with(r#"["REQ""#)).await;
    let upstream = world.upstream(&proxy.url, json!({"config": days(1)})).await;
    let worker = Tender::start_mirror(&world, &["work", "--queue", "mirror"], &[]);
    worker.serves(&world.db, "mirror").await;
    world.trigger(&upstream, LaneKind::Backfill).await;
    eventually("the lane runs", async || gate.count() == 1).await;
    let wait = ["mirror", "trigger", "backfill", proxy.url.as_str(), "--wait"];
    let opened = async {
        eventually("the command has dispatched", async || {
            let actions: i64 = sqlx::query_scalar("select count(*) from operator_action")
                .fetch_one(&world.db)
                .await
                .unwrap();
            actions == 1
        })
        .await;
        gate.open();
    };
    let (typed, ()) = tokio::join!(tender(&world, &wait), opened);
    assert_eq!(typed.code, 0, "{}", typed.err);
    assert!(typed.out.contains("already syncing"), "{}", typed.out);
    assert_eq!(world.lane(&upstream, LaneKind::Backfill).await.status, "completed");

    let (one, other) = (refusing().await, refusing().await);
    for fake in [&one, &other] {
        world.upstream(&fake.url, json!({})).await;
    }
    let typed = tender(&world, &["mirror", "trigger", "realtime", "--wait"]).await;
    assert_eq!(typed.code, 1, "{}", typed.out);
    for url in [&one.url, &other.url] {
        assert!(typed.err.contains(&format!("mirroring of {url} failed")), "{}", typed.err);
    }
    says(&world, &["mirror", "status"], &["[!!]", "members only", "next attempt in"]).await;
}
