//! Processes that serve some of the wings only, and a wing that is not ours.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;
use nostr::key::Keys;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tender_jobs::{
    mirror::lane::LaneKind,
    queue::{self, NewJob},
};
use tender_workers::runtime;
use tokio_util::sync::CancellationToken;

use crate::support::{
    TestDatabase,
    api::{answer, header, strict},
    eventually, install_tls,
    mirror::{MirrorWorld, days},
    process::{ROBOT_SECRET, Tender, run},
    relays::{RealRelay, ids, notes},
    server::free_port,
};

#[allow(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    reason = "an example: its main function is not used here"
)]
#[path = "../../examples/wing.rs"]
mod example;

#[tokio::test(flavor = "multi_thread")]
async fn the_mirror_alone_asks_for_nothing_of_zooid() {
    let (world, relay) = (MirrorWorld::new().await, RealRelay::start().await);
    let events = notes(&Keys::generate(), 20, world.db_now().await - 60, 600);
    relay.add(&events).await;
    let upstream = world.upstream(&relay.url, json!({"config": days(1)})).await;
    let key = Keys::generate().secret_key().to_secret_hex();
    let settings = [
        ("RELAY_PRIVATE_KEY", key.as_str()),
        ("MIRROR_DEFAULTS", r#"{"poll_page_limit": 300}"#),
        ("API_KEY_HMAC_SECRET", "a secret of the tests"),
    ];
    let mut worker = Tender::start_mirror(&world, &["work"], &settings);
    worker.serves(&world.db, "mirror").await;
    let queues =
        ["grasp", "mirror", "mirror-deletions", "mirror-events", "mirror-uploads", "prune"];
    let expected = queues.map(str::to_owned);
    eventually(
        "exactly the queues of the mirror, of GRASP and of the upkeep are served",
        async || {
            let workers = queue::workers(&world.db).await.unwrap();
            let queues: BTreeSet<String> = workers.into_iter().map(|one| one.queue).collect();
            assert!(queues.iter().all(|queue| expected.contains(queue)), "{queues:?}");
            queues == BTreeSet::from(expected.clone())
        },
    )
    .await;
    world.trigger(&upstream, LaneKind::Backfill).await;
    eventually("history is done", async || {
        world.lane(&upstream, LaneKind::Backfill).await.status == "completed"
    })
    .await;
    assert_eq!(world.stored().await, ids(&events));
    worker.signal(Signal::SIGTERM);
    assert!(worker.wait().await.success(), "{}", worker.log());
    let log = worker.log();
    assert!(log.contains("provisioning is off: ZOOID_API_URL is not set"), "{log}");
    assert!(log.contains("GRASP runs"), "{log}");
    assert!(!log.contains("ROBOT_SECRET") && !log.contains("RELAY_DOMAIN"), "{log}");
}

/// Runs a command that must fail because of its configuration; what it says.
async fn refused(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = run(arguments, environment).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    assert!(said.starts_with("tender: "), "{said}");
    said
}

#[tokio::test]
async fn a_queue_of_provisioning_is_refused_without_zooid() {
    let world = MirrorWorld::new().await;
    let url = world.database.url();
    let environment = [("DATABASE_URL", url.as_str())];
    let said = refused(&["work", "--queue", "sync-relay"], &environment).await;
    assert!(said.contains("queue sync-relay") && said.contains("ZOOID_API_URL"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[tokio::test]
async fn zooid_is_refused_without_its_key_and_its_domain() {
    let zooid = ("ZOOID_API_URL", "http://127.0.0.1:1");
    for command in ["work", "serve", "api"] {
        let said = refused(&[command], &[zooid]).await;
        assert!(
            said.contains("ROBOT_SECRET") && said.contains("RELAY_DOMAIN"),
            "{command}: {said}"
        );
        let said = refused(&[command], &[zooid, ("ROBOT_SECRET", ROBOT_SECRET)]).await;
        assert!(
            !said.contains("ROBOT_SECRET") && said.contains("RELAY_DOMAIN"),
            "{command}: {said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_without_zooid_serves_the_mirror_and_says_why_relays_are_off() {
    let world = MirrorWorld::new().await;
    let upstream = world.upstream("wss://a.test", json!({})).await;
    let (url, bind) = (world.database.url(), format!("127.0.0.1:{}", free_port()));
    let secret = ("API_KEY_HMAC_SECRET", "a secret of the tests");
    let created =
        run(&["keys", "create", "--json"], &[("DATABASE_URL", url.as_str()), secret]).await;
    let created: Value = serde_json::from_slice(&created.stdout).unwrap();
    let token = created["token"].as_str().unwrap();
    let mut service = Tender::start_mirror(&world, &["serve"], &[("API_BIND", &bind), secret]);
    eventually("it listens", async || service.log().contains("listening")).await;

    let (http, base) = (reqwest::Client::new(), format!("http://{bind}"));
    let upstreams = http.get(format!("{base}/api/v1/relays")).bearer_auth(token).send().await;
    let (status, upstreams) = answer(upstreams.unwrap()).await;
    assert_eq!(status, StatusCode::OK, "{upstreams}");
    assert_eq!(upstreams[0]["id"], upstream.id.to_string());

    let relays = format!("{base}/relays");
    let event = strict(&Keys::generate(), &relays, "POST", 0);
    let request = http.post(&relays).header("authorization", header(&event));
    let created = request.body(r#"{"subdomain": "alpha"}"#).send().await;
    let (status, words) = answer(created.unwrap()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let words = words["error"].as_str().unwrap();
    assert!(words.starts_with("relays are not provisioned here: "), "{words}");
    service.signal(Signal::SIGTERM);
    assert!(service.wait().await.success(), "{}", service.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wing_of_the_example_greets_ada() {
    install_tls();
    let database = TestDatabase::new().await;
    let db = &database.pool;
    let ada = NewJob::new("greet", &json!({ "v": 1, "name": "Ada" })).key("greet:ada");
    let nameless = NewJob::new("greet", &json!({ "v": 1 }));
    let jobs = queue::enqueue(db, &[ada, nameless]).await.unwrap();
    let stop = CancellationToken::new();
    let settings = runtime::Settings::default();
    let wings = vec![example::wing(db).unwrap()];
    let running = {
        let (db, stop) = (db.clone(), stop.clone());
        tokio::spawn(async move { runtime::run(&db, settings, wings, stop).await })
    };
    let result = async |id: &str| queue::job(db, id).await.unwrap().unwrap().result;
    eventually("both jobs end", async || {
        result(&jobs[0]).await.is_some() && result(&jobs[1]).await.is_some()
    })
    .await;
    assert_eq!(result(&jobs[0]).await, Some(json!({ "Ok": { "greeted": "Ada" } })));
    assert_eq!(result(&jobs[1]).await, Some(json!({ "Err": "the payload has no name" })));
    eventually("its recurring job is planned", async || {
        let schedule = queue::schedule::list(db).await.unwrap();
        schedule.iter().any(|row| row.name == "greet-everyone" && row.wing == "greetings")
    })
    .await;
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_process_without_the_mirrors_profile_leaves_its_schedule_to_others() {
    let world = MirrorWorld::new().await;
    sqlx::query(
        "insert into recurring_job (name, wing, expression) values ('mirror-full', 'mirror', '* * * * * *')",
    )
    .execute(&world.db)
    .await
    .unwrap();
    let worker = Tender::start_mirror(&world, &["work"], &[("MIRROR_PROFILE", "off")]);
    worker.serves(&world.db, "mirror").await;
    eventually("the process has planned its own jobs", async || {
        let planned = queue::schedule::list(&world.db).await.unwrap();
        planned.iter().any(|row| row.name == "prune")
    })
    .await;
    let planned = queue::schedule::list(&world.db).await.unwrap();
    assert!(planned.iter().any(|row| row.name == "mirror-full"), "{planned:?}");
}
