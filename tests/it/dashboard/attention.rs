//! What needs attention: worst first, one line per cause, nothing twice, and snoozed only with a reason.

use tender::fleet::Fleet;
use tender_jobs::{console::operator, queue};

use super::Site;

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
        ("sync_attention", "5 relays go to zooid now.")
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
    assert_eq!(headlines[10], "2 relays gave up for other causes that are not listed");
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
    queue::pause(db, "sync-relay", "me").await.unwrap();
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
    queue::pause(db, "prune", "me").await.unwrap();
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
