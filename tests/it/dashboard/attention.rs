//! What needs attention: worst first, one line per cause, nothing twice, and snoozed only with a reason.

use serde_json::Value;
use tender::fleet::Fleet;
use tender_jobs::{console::operator, queue};

use super::Site;
use crate::support::{DOMAIN, process::run, schedule};

/// Statements that make `relays` with this prefix give up with an error.
async fn give_up(site: &Site, prefix: &str, relays: usize, error: &str) {
    for number in 0..relays {
        let relay = site.api.world.relay(&format!("{prefix}-{number}")).await;
        let error = error.replace("HOST", &relay.host());
        sqlx::query(
            "with relay as (
                 update relay set sync_error = $1::text, failure_kind = 'permanent', exhausted_at = now(), attempts = 1
                 where id = $2)
             update apalis.jobs set status = 'Killed', attempts = 1, done_at = now(), lock_by = null,
                 metadata = hstore('key', idempotency_key), idempotency_key = null,
                 last_result = jsonb_build_object('Err', $1::text)
             where idempotency_key = 'relay:' || $2",
        )
        .bind(error)
        .bind(relay.id.as_str())
        .execute(&site.api.world.db)
        .await
        .unwrap();
    }
}

async fn headlines(site: &Site) -> Vec<String> {
    let fleet = Fleet::read(&site.api.world.db).await.unwrap();
    fleet.attention().into_iter().map(|item| item.headline).collect()
}

/// A site whose only relay is in step, with a worker for each wing.
async fn calm() -> Site {
    let site = Site::new().await;
    site.api.world.attempt().await;
    // The upstream of the site has no worker, and is none of this.
    sqlx::raw_sql("update upstream set enabled = false").execute(&site.api.world.db).await.unwrap();
    assert_eq!(headlines(&site).await, Vec::<String>::new());
    site
}

#[tokio::test]
async fn relays_that_gave_up_are_one_line_per_cause_and_reported_once() {
    let site = calm().await;
    give_up(&site, "keys", 5, "zooid refused the S3 keys of HOST after 12.5 s").await;
    give_up(&site, "name", 1, "zooid answered: HOST is taken").await;
    assert_eq!(headlines(&site).await, ["5 relays gave up", "name-0.zooid.test gave up"]);
    let fleet = Fleet::read(&site.api.world.db).await.unwrap();
    let items = fleet.attention();
    assert_eq!(items[0].error, "zooid refused the S3 keys of … after …");
    assert_eq!(items[1].error, "zooid answered: name-0.zooid.test is taken");
    // The six killed jobs are those of the relays: neither an item nor a metric counts them again.
    let status = queue::status(&site.api.world.db, &["sync-relay"]).await.unwrap().remove(0);
    assert_eq!((status.killed, status.killed_open), (6, 0));

    // The count links to exactly what it counts, and the action reaches exactly these.
    let (cookie, token) = site.log_in(&site.api.admin).await;
    let page = site.get(&items[0].page, &cookie).await.text().await.unwrap();
    assert_eq!(page.matches("data-label=\"Host\"").count(), 5, "{page}");
    let cause = items[0].key.strip_prefix("gave_up:").unwrap();
    let form = [("form_token", token.as_str()), ("confirmed", "yes"), ("key", cause)];
    site.post("/attention/sync", &cookie, &form).await;
    assert_eq!(headlines(&site).await, ["name-0.zooid.test gave up"]);
    let action = operator::last(&site.api.world.db, 1).await.unwrap().remove(0);
    assert_eq!(
        (action.action.as_str(), action.result.as_str()),
        ("sync_attention", "5 relays go to zooid next.")
    );
}

#[tokio::test]
async fn causes_that_are_not_listed_are_counted() {
    let site = calm().await;
    for cause in 0..12 {
        give_up(&site, &format!("c{cause}"), 1, &format!("cause {}", char::from(b'a' + cause)))
            .await;
    }
    let headlines = headlines(&site).await;
    assert_eq!(headlines.len(), 11, "{headlines:?}");
    assert_eq!(headlines[10], "2 more relays gave up, for causes that are not listed");
}

#[tokio::test]
async fn the_worst_comes_first_and_explains_what_follows_from_it() {
    let site = calm().await;
    let db = &site.api.world.db;
    give_up(&site, "bad", 1, "zooid refused it").await;
    let late = site.api.world.relay("late").await;
    let age = "update relay set updated_at = now() - interval '20 min' where id = $1";
    sqlx::query(age).bind(late.id.as_str()).execute(db).await.unwrap();
    assert_eq!(
        headlines(&site).await,
        ["bad-0.zooid.test gave up", "1 relay has waited for zooid for more than 5 minutes"]
    );
    queue::pause(db, "sync-relay", "me", None).await.unwrap();
    assert_eq!(headlines(&site).await, ["sync-relay is paused", "bad-0.zooid.test gave up"]);
    site.api.world.expire_leases().await;
    let headlines = headlines(&site).await;
    assert_eq!(headlines[0], "No worker serves sync-relay: changes of relays do not reach zooid");
    assert_eq!(headlines[1..], ["sync-relay is paused", "bad-0.zooid.test gave up"]);
}

#[tokio::test]
async fn an_item_is_snoozed_with_a_reason_and_an_end_and_listed_again_then() {
    let site = calm().await;
    let db = &site.api.world.db;
    queue::pause(db, "prune", "me", None).await.unwrap();
    let (cookie, token) = site.log_in(&site.api.admin).await;
    let snooze = async |reason: &str, hours: &str| {
        let form = [
            ("form_token", token.as_str()),
            ("confirmed", "yes"),
            ("key", "paused:prune"),
            ("reason", reason),
            ("hours", hours),
        ];
        site.post("/attention/snooze", &cookie, &form).await;
        operator::last(db, 1).await.unwrap().remove(0)
    };
    for (reason, hours) in
        [("", "4"), ("why", ""), ("why", "0"), ("why", "721"), (&*"x".repeat(301), "4")]
    {
        assert!(snooze(reason, hours).await.result.starts_with("Not done"), "{reason} {hours}");
    }
    assert_eq!(headlines(&site).await, ["prune is paused"]);
    let action = snooze("the disk is being replaced", "4").await;
    assert_eq!(
        (action.action.as_str(), action.target.as_str()),
        ("snooze_attention", "paused:prune")
    );
    assert_eq!(headlines(&site).await, Vec::<String>::new());
    let page = site.get("", &cookie).await.text().await.unwrap();
    assert!(page.contains("1 snoozed") && page.contains("the disk is being replaced"), "{page}");

    sqlx::raw_sql("update attention_snooze set created_at = now() - interval '2 h', ends_at = now() - interval '1 s'")
        .execute(db)
        .await
        .unwrap();
    assert_eq!(headlines(&site).await, ["prune is paused"]);
    snooze("once more", "1").await;
    let form = [("form_token", token.as_str()), ("confirmed", "yes"), ("key", "paused:prune")];
    site.post("/attention/wake", &cookie, &form).await;
    assert_eq!(headlines(&site).await, ["prune is paused"]);
}

#[tokio::test]
async fn a_snoozed_item_that_grows_is_listed_again() {
    let site = calm().await;
    let error = "zooid refused the S3 keys of HOST";
    give_up(&site, "two", 2, error).await;
    let (cookie, token) = site.log_in(&site.api.admin).await;
    let key = "gave_up:zooid refused the S3 keys of …";
    let snooze = async |size: &str| {
        let form = [
            ("form_token", token.as_str()),
            ("confirmed", "yes"),
            ("key", key),
            ("size", size),
            ("reason", "the keys are being renewed"),
            ("hours", "4"),
        ];
        site.post("/attention/snooze", &cookie, &form).await;
    };
    let page = site.get("", &cookie).await.text().await.unwrap();
    assert!(page.contains("name=\"size\" value=\"2\""), "the form says what was counted: {page}");
    snooze("2").await;
    assert_eq!(headlines(&site).await, Vec::<String>::new());

    give_up(&site, "third", 1, error).await;
    assert_eq!(headlines(&site).await, ["3 relays gave up"]);
    let page = site.get("", &cookie).await.text().await.unwrap();
    assert!(page.contains("Listed again: it was snoozed at 2."), "{page}");
    assert!(!page.contains(" snoozed</summary>"), "it is not also listed as snoozed: {page}");

    snooze("3").await;
    assert_eq!(headlines(&site).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_killed_run_needs_no_attention_once_a_later_run_succeeded() {
    let site = calm().await;
    let db = &site.api.world.db;
    schedule::plan(db, "upkeep", "prune", "30 * * * * *").await;
    schedule::run(db, "prune", Some("no disk")).await;
    assert_eq!(headlines(&site).await, ["1 job was killed in prune"]);
    schedule::run(db, "prune", None).await;
    assert_eq!(headlines(&site).await, Vec::<String>::new());
    // A later failure is one failure: the run from before the success stays settled.
    schedule::run(db, "prune", Some("no disk")).await;
    assert_eq!(headlines(&site).await, ["1 job was killed in prune"]);
    let (cookie, _) = site.log_in(&site.api.admin).await;
    let page = site.get("/jobs?queue=prune&state=open", &cookie).await.text().await.unwrap();
    assert_eq!(page.matches("data-label=\"Job\"").count(), 1, "{page}");
    // The action reaches exactly the job that is counted.
    let (cookie, token) = site.log_in(&site.api.admin).await;
    let form = [
        ("form_token", token.as_str()),
        ("confirmed", "yes"),
        ("queue", "prune"),
        ("state", "open"),
        ("scope", "all"),
        ("verb", "retry"),
    ];
    site.post("/jobs/steer", &cookie, &form).await;
    let action = operator::last(db, 1).await.unwrap().remove(0);
    assert_eq!(action.result, "1 job requeued.");
    assert_eq!(headlines(&site).await, Vec::<String>::new());
}

/// Runs a command on the site's database. Returns its exit code and its output.
async fn tender(site: &Site, arguments: &[&str]) -> (Option<i32>, String) {
    let (url, zooid) = (site.api.world.database.url(), site.api.world.zooid.url());
    let environment = [
        ("DATABASE_URL", url.as_str()),
        ("RELAY_DOMAIN", DOMAIN),
        ("ZOOID_API_URL", zooid.as_str()),
        ("ROBOT_SECRET", crate::support::process::ROBOT_SECRET),
    ];
    let output = run(arguments, &environment).await;
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn the_page_status_and_top_list_the_same() {
    let site = calm().await;
    let db = &site.api.world.db;
    assert_eq!(tender(&site, &["status"]).await.0, Some(0));

    give_up(&site, "keys", 3, "zooid refused the S3 keys of HOST").await;
    give_up(&site, "name", 1, "zooid answered: \u{1b}[2J HOST is taken").await;
    queue::pause(db, "mirror", "me", None).await.unwrap();
    queue::pause(db, "prune", "me", None).await.unwrap();
    let (cookie, token) = site.log_in(&site.api.admin).await;
    let form = [
        ("form_token", token.as_str()),
        ("confirmed", "yes"),
        ("key", "paused:prune"),
        ("size", "1"),
        ("reason", "the disk is being replaced"),
        ("hours", "4"),
    ];
    site.post("/attention/snooze", &cookie, &form).await;
    let expected = ["mirror is paused", "3 relays gave up", "name-0.zooid.test gave up"];
    assert_eq!(headlines(&site).await, expected);

    let page = site.get("", &cookie).await.text().await.unwrap();
    let places: Vec<_> = expected.iter().map(|headline| page.find(headline).unwrap()).collect();
    assert!(places.is_sorted() && page.contains("Needs attention (3)"), "{page}");
    assert!(page.contains("<title>(3) Fleet"), "{page}");

    let named = |list: &Value| {
        let items = list.as_array().unwrap().iter();
        items.map(|item| item["headline"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (code, status) = tender(&site, &["status", "--json"]).await;
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(
        (code, named(&status["attention"])),
        (Some(1), expected.map(str::to_owned).to_vec())
    );
    assert_eq!(named(&status["snoozed"]), ["prune is paused"]);
    assert_eq!(status["snoozed"][0]["snooze"]["reason"], "the disk is being replaced");
    let (code, top) = tender(&site, &["top", "--json"]).await;
    let top: Value = serde_json::from_str(&top).unwrap();
    assert_eq!((code, named(&top["attention"])), (Some(0), expected.map(str::to_owned).to_vec()));

    // In words: one line per item with the command that helps, and what zooid said cannot steer the terminal.
    let (code, text) = tender(&site, &["status"]).await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((code, lines.len()), (Some(1), 5), "{text}");
    assert!(lines[0].starts_with("5 relays: 1 synced"), "{text}");
    assert!(lines[1].contains("tender queue resume mirror"), "{text}");
    assert!(lines[2].contains("zooid refused the S3 keys of …"), "{text}");
    assert!(lines[3].contains("\\u{1b}[2J") && !text.contains('\u{1b}'), "{text}");
    assert!(lines[4].contains("prune is paused (snoozed by"), "{text}");
}
