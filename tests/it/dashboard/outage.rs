//! An outage as an operator meets it: which relays wait, what helps, and what a probe finds.

use reqwest::Method;
use serde_json::json;
use tender::{demo::zooid::Fault, fleet::Fleet};
use tender_jobs::{console::operator, provision::instance};
use tender_workers::provision::sync_relay::{self, Outcome};
use tokio_util::sync::CancellationToken;

use super::Site;
use crate::support::{
    DOMAIN,
    process::{ROBOT_SECRET, run},
    run_workers,
};

/// The probe of the open breaker is not due by itself within a test.
const OPEN: &str =
    "update zooid_instance set opened_at = now(), retry_at = now() + interval '1 hour',
    failed_probes = 1, last_error = 'zooid answered 502 Bad Gateway: '";

/// A site whose zooid is out: `alpha` and six more relays wait for it.
async fn outage() -> (Site, String) {
    let site = Site::new().await;
    let world = &site.api.world;
    sqlx::raw_sql("update upstream set enabled = false").execute(&world.db).await.unwrap();
    let name = world.context.instances.default.clone();
    instance::register(&world.db, std::slice::from_ref(&name)).await.unwrap();
    sqlx::raw_sql(OPEN).execute(&world.db).await.unwrap();
    for number in 0..6 {
        world.relay(&format!("waits-{number}")).await;
    }
    while let Some(job) = world.try_fetch().await {
        assert_eq!(sync_relay::attempt(&world.context, &job).await, Outcome::Held);
    }
    (site, name)
}

#[tokio::test]
async fn an_outage_counts_the_relays_that_wait_and_leads_to_exactly_these() {
    let (site, name) = outage().await;
    // The job of this one has not met the breaker yet.
    site.api.world.relay("fresh").await;
    let fleet = Fleet::read(&site.api.world.db).await.unwrap();
    let item = fleet.attention().remove(0);
    let headline = format!("zooid at {name} is out: its breaker is open, and 7 relays wait");
    assert_eq!((item.headline.as_str(), item.is_grave), (headline.as_str(), true));
    assert!(item.advice.contains("Repair zooid"), "{}", item.advice);
    assert_eq!(item.command, format!("tender instance probe {name}"));

    let (cookie, _) = site.log_in(&site.api.admin).await;
    let page = site.get(&item.page, &cookie).await.text().await.unwrap();
    assert_eq!(page.matches("data-label=\"Host\"").count(), 7, "{page}");
    assert!(!page.contains("fresh.zooid.test"), "{page}");
    assert!(page.contains("Only relays that wait for zooid at"), "{page}");
    let fleet = site.get("", &cookie).await.text().await.unwrap();
    assert!(fleet.contains("Repair zooid, or the way to it; no attempt is spent. The relays go on when a probe succeeds"), "{fleet}");
    for other in ["?held_by=http%3A%2F%2Fother", "?held_by=%00"] {
        let page = site.get(&format!("/relays{other}"), &cookie).await.text().await.unwrap();
        assert!(page.contains("No relay matches."), "{page}");
    }

    // The API and the command have the same filter.
    let path = item.page.clone();
    let (_, list) = site.api.call_as(&site.api.admin, Method::GET, &path, None).await;
    assert_eq!(list["data"].as_array().unwrap().len(), 7, "{list}");
    let listed = tender(&site, &["relay", "list", "--held-by", &name, "--json"]).await;
    let listed: serde_json::Value = serde_json::from_str(&listed.1).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 7, "{listed}");
}

/// Runs a command on the site's database. Returns its exit code, its output and its errors.
async fn tender(site: &Site, arguments: &[&str]) -> (Option<i32>, String, String) {
    let (url, zooid) = (site.api.world.database.url(), site.api.world.zooid.url());
    let environment = [
        ("DATABASE_URL", url.as_str()),
        ("RELAY_DOMAIN", DOMAIN),
        ("ZOOID_API_URL", zooid.as_str()),
        ("ROBOT_SECRET", ROBOT_SECRET),
    ];
    let output = run(arguments, &environment).await;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_answers_what_it_found() {
    let (site, name) = outage().await;
    let (world, stop) = (&site.api.world, CancellationToken::new());
    world.zooid.plan(None, Fault::Proxy(401), None);
    let (workers, stopping) = (world.context.clone(), stop.clone());
    let workers = tokio::spawn(async move { run_workers(&workers, stopping).await });

    // In the page.
    let (cookie, token) = site.log_in(&site.api.admin).await;
    let form = [("form_token", &*token), ("confirmed", "yes"), ("instance", &*name)];
    site.post("/instances/probe", &cookie, &form).await;
    let told = operator::last(&world.db, 1).await.unwrap().remove(0).result;
    let head = format!("zooid at {name} failed: zooid answered 401 Unauthorized: ");
    assert!(told.starts_with(&head), "{told}");
    assert!(told.contains("refused the robot's key: check the proxy's rules"), "{told}");
    assert!(told.contains(". The next probe is at 2"), "{told}");

    // Over the API.
    let body = json!({ "instance": name });
    let probe =
        || site.api.call_as(&site.api.admin, Method::POST, "/instances/probe", Some(body.clone()));
    let (status, answer) = probe().await;
    let answer = &answer["data"];
    assert_eq!((status.as_u16(), &answer["found"]), (200, &json!("failed")), "{answer}");
    assert_eq!(answer["refuses_key"], false, "{answer}");
    assert!(answer["next_at"].is_string() && answer["error"].is_string(), "{answer}");
    assert!(answer["message"].as_str().unwrap().starts_with(&head), "{answer}");

    // By the command.
    let failed = tender(&site, &["instance", "probe", &name]).await;
    assert_eq!(failed.0, Some(1), "{failed:?}");
    assert!(failed.2.contains(&head), "{failed:?}");
    world.zooid.heal();
    let answered = tender(&site, &["instance", "probe", &name]).await;
    let words = format!("zooid at {name} answered: its breaker is closed, and its relays go on.\n");
    assert_eq!((answered.0, answered.1), (Some(0), words), "{}", answered.2);
    let (_, answer) = probe().await;
    assert_eq!(answer["data"]["found"], "not_open", "{answer}");
    let unknown = tender(&site, &["instance", "probe", "http://nowhere"]).await;
    assert_eq!(unknown.0, Some(1));
    assert!(unknown.2.contains("there is no zooid instance http://nowhere"), "{unknown:?}");
    stop.cancel();
    workers.await.unwrap();
}

#[tokio::test]
async fn a_probe_that_no_process_can_make_is_said_to_be_awaited() {
    let (site, name) = outage().await;
    let db = &site.api.world.db;
    let probe = instance::probe(db, &name, std::time::Duration::ZERO).await.unwrap();
    assert_eq!(probe, instance::Probe::Awaited { has_job: true });
    sqlx::raw_sql("delete from apalis.jobs").execute(db).await.unwrap();
    let probe = instance::probe(db, &name, std::time::Duration::ZERO).await.unwrap();
    assert_eq!(probe, instance::Probe::Awaited { has_job: false });
    let probe = instance::probe(db, "http://nowhere", std::time::Duration::ZERO).await.unwrap();
    assert_eq!(probe, instance::Probe::NotOpen);
}
