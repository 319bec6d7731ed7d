//! The commands as an operator types them.

use serde_json::Value;
use tender::demo::zooid::Fault;

use crate::{
    stand_in,
    support::{
        DOMAIN, World,
        process::{ROBOT_SECRET, run},
    },
};

pub(super) struct Typed {
    pub(super) code: i32,
    pub(super) out: String,
    pub(super) err: String,
}

pub(super) async fn tender(world: &World, arguments: &[&str]) -> Typed {
    let (url, zooid) = (world.database.url(), world.zooid.url());
    let environment = [
        ("DATABASE_URL", url.as_str()),
        ("RELAY_DOMAIN", DOMAIN),
        ("ZOOID_API_URL", zooid.as_str()),
        ("ROBOT_SECRET", ROBOT_SECRET),
    ];
    typed(arguments, &environment).await
}

async fn typed(arguments: &[&str], environment: &[(&str, &str)]) -> Typed {
    let output = run(arguments, environment).await;
    Typed {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

async fn json(world: &World, arguments: &[&str]) -> Value {
    let typed = tender(world, &[arguments, &["--json"]].concat()).await;
    assert_eq!(typed.code, 0, "{}", typed.err);
    serde_json::from_str(&typed.out).unwrap()
}

const TENANT: &str = "npub1xtscya34g58tk0z605fvr788k263gsu6cy9x0mhnm87echrgufzsevkk5s";

#[tokio::test]
async fn a_relay_is_managed_from_the_command_line() {
    let world = World::new().await;
    let created =
        json(&world, &["relay", "create", "alpha", "--tenant", TENANT, "--on", "blossom_enabled"])
            .await;
    assert_eq!(created["host"], "alpha.zooid.test");
    assert_eq!(
        (&created["sync_state"], &created["blossom_enabled"]),
        (&"pending".into(), &true.into())
    );
    let id = created["id"].as_str().unwrap();

    world.zooid.plan(None, Fault::Status(503, None), Some(1));
    world.attempt().await;
    let list = tender(&world, &["relay", "list"]).await;
    let line = list.out.lines().nth(1).unwrap();
    for part in ["alpha.zooid.test", "active", "failing", "1 of 7", "in ", "503"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(!list.out.contains('\u{1b}'), "no colour where there is no terminal");

    let updated =
        json(&world, &["relay", "update", id, "--name", "Alpha", "--off", "push_enabled"]).await;
    assert_eq!((&updated["info_name"], &updated["generation"]), (&"Alpha".into(), &2.into()));
    let switched = json(&world, &["relay", "deactivate", "alpha.zooid.test", "--delinquent"]).await;
    assert_eq!(switched["status"], "delinquent");
    json(&world, &["relay", "activate", id]).await;
    world.attempt().await;
    json(&world, &["relay", "sync", id]).await;
    let shown = json(&world, &["relay", "show", id]).await;
    assert_eq!((&shown["sync_state"], &shown["status"]), (&"pending".into(), &"active".into()));
    assert_eq!(shown["activity"][0]["detail"]["cause"], "operator");
    let activity = tender(&world, &["relay", "activity", id]).await;
    for part in ["create relay", "fail relay sync", "deactivate relay", "complete relay sync"] {
        assert!(activity.out.contains(part), "{part}: {}", activity.out);
    }
}

#[tokio::test]
async fn the_queue_is_looked_at_and_steered() {
    let world = World::new().await;
    world.relay("alpha").await;
    world.zooid.plan(None, Fault::Status(422, None), Some(1));
    world.attempt().await;
    let status = tender(&world, &["queue", "status"]).await;
    assert!(
        status.out.contains("sync-relay") && status.out.contains("1 gave up"),
        "{}",
        status.out
    );
    let status = json(&world, &["queue", "status"]).await;
    assert_eq!(status["queues"][0]["killed"], 1);
    let jobs = json(&world, &["queue", "list", "--state", "killed"]).await;
    let id = jobs[0]["id"].as_str().unwrap().to_owned();
    let shown = tender(&world, &["queue", "show", &id]).await;
    assert!(
        shown.out.contains("zooid answered 422") && shown.out.contains("relay_id"),
        "{}",
        shown.out
    );
    assert_eq!(tender(&world, &["queue", "retry", &id]).await.code, 0);
    let waiting = json(&world, &["queue", "list", "--state", "waiting"]).await;
    let id = waiting[0]["id"].as_str().unwrap();
    assert_eq!(tender(&world, &["queue", "cancel", id]).await.code, 0);
    let refused = tender(&world, &["queue", "cancel", id]).await;
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("is killed; only a waiting or retrying job"), "{}", refused.err);
}

#[tokio::test]
async fn reconcile_says_what_it_did() {
    let world = World::new().await;
    world.relay("alpha").await;
    sqlx::query("delete from apalis.jobs").execute(&world.db).await.unwrap();
    assert_eq!(json(&world, &["reconcile"]).await["enqueued"], 1);
    assert!(tender(&world, &["reconcile"]).await.out.contains("enqueued 0"));
}

#[tokio::test]
async fn a_bad_configuration_is_refused_with_every_mistake() {
    let environment = [
        ("DATABASE_URL", "nonsense"),
        ("API_BIND", "nowhere"),
        ("RELAY_SYNC_RETRY_JITTER", "9"),
        ("MIRROR_DEFAULTS", "nonsense"),
        ("ZOOID_API_URL", "http://127.0.0.1:1"),
    ];
    let refused = typed(&["serve"], &environment).await;
    assert_eq!(refused.code, 1);
    let wrong = ["DATABASE_URL", "API_BIND", "RELAY_SYNC_RETRY_JITTER", "MIRROR_DEFAULTS"];
    for name in [&wrong[..], &["ROBOT_SECRET", "RELAY_DOMAIN"]].concat() {
        assert!(refused.err.contains(name), "{name}: {}", refused.err);
    }
}

#[tokio::test]
async fn members_are_listed() {
    let (world, zooid) = (World::new().await, stand_in().await);
    let relay = world.relay("alpha").await;
    zooid.put(relay.id.as_str(), serde_json::json!({ "host": "alpha.zooid.test", "schema": "a" }));
    zooid.set_members(relay.id.as_str(), vec!["cd".repeat(32)]);
    let environment = [
        ("DATABASE_URL", world.database.url()),
        ("RELAY_DOMAIN", DOMAIN.to_owned()),
        ("ZOOID_API_URL", zooid.url()),
        ("ROBOT_SECRET", ROBOT_SECRET.to_owned()),
    ];
    let environment: Vec<_> =
        environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let members = typed(&["relay", "members", "alpha.zooid.test"], &environment).await;
    assert_eq!(
        (members.code, members.out.trim()),
        (0, "cd".repeat(32).as_str()),
        "{}",
        members.err
    );
    world.beat().await; // the world's worker, which the test registered some time ago
    let healthy = typed(&["doctor"], &environment).await;
    assert_eq!(healthy.code, 0, "{}", healthy.out);
}

#[tokio::test]
async fn the_openapi_document_is_printed() {
    let printed = typed(&["openapi"], &[]).await;
    let document: Value = serde_json::from_str(&printed.out).unwrap();
    assert!(document["paths"]["/relays"]["post"].is_object());
}

#[tokio::test]
async fn a_robot_key_is_made_with_its_public_half() {
    let printed = typed(&["keygen"], &[]).await;
    let value = |name: &str| printed.out.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let keys = nostr::key::Keys::parse(value("ROBOT_SECRET=")).unwrap();
    assert_eq!(keys.public_key().to_hex(), value("ROBOT_PUBKEY="));
}

#[tokio::test]
async fn a_host_is_found_by_its_columns() {
    let world = World::new().await;
    let relay = world.relay("a").await;
    // More newer relays than a search returns contain the text of the host.
    sqlx::query(
        "insert into relay (id, tenant_pubkey, subdomain, zooid_domain, schema, policy_public_read,
             policy_public_write, policy_public_join, policy_strip_signatures, groups_enabled,
             management_enabled, members_can_invite, blossom_enabled, livekit_enabled, push_enabled)
         select gen_random_uuid(), repeat('a', 64), n || 'a', 'zooid.test', 's' || n, true, true,
             true, true, true, true, true, true, true, true
         from generate_series(1, 1100) n",
    )
    .execute(&world.db)
    .await
    .unwrap();
    for command in ["show", "sync"] {
        let found = json(&world, &["relay", command, "a.zooid.test"]).await;
        assert_eq!(found["id"], relay.id.as_str(), "{command}");
    }
    assert_eq!(tender(&world, &["relay", "show", ".zooid.test"]).await.code, 1);
}

#[tokio::test]
async fn changes_on_the_command_line_are_recorded_as_actions() {
    let world = World::new().await;
    for arguments in [
        &["relay", "create", "alpha", "--tenant", TENANT][..],
        &["relay", "update", "alpha.zooid.test", "--name", "A"],
        &["relay", "deactivate", "alpha.zooid.test", "--delinquent"],
        &["relay", "activate", "alpha.zooid.test"],
        &["relay", "sync", "alpha.zooid.test"],
        &["relay", "show", "alpha.zooid.test"],
        &["reconcile"],
    ] {
        let typed = tender(&world, arguments).await;
        assert_eq!(typed.code, 0, "{arguments:?}: {}", typed.err);
    }
    let actions = tender_jobs::console::operator::last(&world.db, 20).await.unwrap();
    let named: Vec<_> =
        actions.iter().rev().map(|one| (one.action.as_str(), one.target.as_str())).collect();
    let host = "alpha.zooid.test";
    let expected = [
        ("relay_create", host),
        ("relay_update", host),
        ("relay_delinquent", host),
        ("relay_activate", host),
        ("relay_sync", host),
        ("reconcile", ""),
    ];
    assert_eq!(named, expected);
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let is_named = |who: &str| who.ends_with(&format!("@{host}")) && !who.starts_with('@');
    assert!(actions.iter().all(|one| is_named(&one.who) && one.via == "command"), "{actions:?}");
}

#[tokio::test]
async fn both_spellings_of_a_state_are_known() {
    let world = World::new().await;
    for spelling in ["gave_up", "gave-up"] {
        assert_eq!(tender(&world, &["relay", "list", "--sync", spelling]).await.code, 0);
    }
    let help = tender(&world, &["relay", "list", "--help"]).await;
    assert!(help.out.contains("gave_up") && !help.out.contains("gave-up"), "{}", help.out);
}

#[tokio::test]
async fn a_resync_that_no_worker_will_do_says_so() {
    let world = World::new().await;
    let typed = tender(&world, &["relay", "sync", "--all"]).await;
    assert_eq!(typed.code, 0, "{}", typed.err);
    assert!(typed.out.contains("no worker of the queue resync is running"), "{}", typed.out);
}

#[tokio::test]
async fn an_unreadable_line_of_the_env_file_is_refused_with_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let text = "LOG_LEVEL=info\nROBOT_SECRET=one hunter2\nLIVEKIT_URL=ws://livekit\nhunter3\n";
    std::fs::write(dir.path().join(".env"), text).unwrap();
    let mut command = crate::support::process::command(&["queue", "status"], &[]);
    let output = command.current_dir(dir.path()).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8(output.stderr).unwrap();
    for part in
        [".env: line 2 (ROBOT_SECRET)", ".env: line 4", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"]
    {
        assert!(words.contains(part), "{part}: {words}");
    }
    assert!(!words.contains("hunter"), "{words}");
}

#[tokio::test]
async fn the_log_names_an_env_file_above_the_working_directory() {
    let (world, dir) = (World::new().await, tempfile::tempdir().unwrap());
    let (file, url) = (dir.path().join(".env"), world.database.url());
    std::fs::write(&file, format!("LOG_LEVEL=info\nDATABASE_URL={url}\n")).unwrap();
    let below = dir.path().join("below");
    std::fs::create_dir(&below).unwrap();
    let mut command = crate::support::process::command(&["queue", "status"], &[]);
    let output = command.current_dir(below).output().await.unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{words}");
    assert!(words.contains(&file.display().to_string()), "{words}");
}
