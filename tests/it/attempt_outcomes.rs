//! The outcome table: what each failure leaves on the relay, in activity and on the job's row.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tender::demo::zooid::{Fault, Gate};
use tender_jobs::{
    provision::{
        Verdict,
        backoff::Backoff,
        instance::{self, Instances},
        relay::{self, Change, FailureKind, Relay, Search, SyncState},
    },
    queue::{self, JobState},
};
use tender_workers::provision::{
    sync_relay::{self, Outcome},
    zooid::ZooidSettings,
};

use crate::support::{World, by, settings};

/// The delay of the retry that the last failure scheduled. The failure's record has the time of the
/// transaction that stored the retry, so the delay is exact.
async fn delay_of(world: &World, relay: &Relay) -> Duration {
    let failed_at = world.records(relay).await.pop().unwrap().created_at;
    (relay.retry_at.unwrap() - failed_at).to_std().unwrap()
}

/// One attempt at a new relay, whose first call fails.
async fn first_attempt(fault: Fault) -> (World, Outcome) {
    first_attempt_in(World::new().await, fault).await
}

async fn first_attempt_in(world: World, fault: Fault) -> (World, Outcome) {
    world.relay("alpha").await;
    world.zooid.plan(None, fault, Some(1));
    let outcome = world.attempt().await;
    (world, outcome)
}

async fn check_transient(fault: Fault, words: &str) {
    check_transient_in(World::new().await, fault, words).await;
}

async fn check_transient_in(world: World, fault: Fault, words: &str) {
    let text = format!("{fault:?}");
    let (world, outcome) = first_attempt_in(world, fault).await;
    assert!(matches!(outcome, Outcome::Failed(Verdict::RetryAt(_))), "{text}: {outcome:?}");
    let relay = relay_of(&world).await;
    assert_eq!(relay.sync_state(), SyncState::Failing, "{text}");
    assert_eq!(relay.failure_kind, Some(FailureKind::Transient), "{text}");
    assert!(relay.sync_error.contains(words), "{text}: {}", relay.sync_error);
    assert_eq!(delay_of(&world, &relay).await, Duration::from_secs(30), "{text}");
    let job = world.job().await;
    assert_eq!((job.summary.state, job.summary.attempts), (JobState::Retrying, 1), "{text}");
    assert_eq!(job.key, Some(format!("relay:{}", relay.id)), "{text}");
    assert_eq!(job.summary.lock_by, None, "{text}");
}

async fn check_permanent(fault: Fault, words: &str) {
    let text = format!("{fault:?}");
    let (world, outcome) = first_attempt(fault).await;
    assert_eq!(outcome, Outcome::Failed(Verdict::GaveUp), "{text}");
    let relay = relay_of(&world).await;
    assert_eq!(relay.sync_state(), SyncState::GaveUp, "{text}");
    assert_eq!(relay.failure_kind, Some(FailureKind::Permanent), "{text}");
    assert!(relay.sync_error.contains(words) && relay.retry_at.is_none(), "{text}: {relay:?}");
    let job = world.job().await;
    assert_eq!((job.summary.state, job.key), (JobState::Killed, None), "{text}");
    let detail = world.records(&relay).await.pop().unwrap().detail;
    assert_eq!(
        (&detail["kind"], &detail["retry_at"]),
        (&json!("permanent"), &Value::Null),
        "{text}"
    );
    assert_eq!(world.reconcile().await, 0, "{text}: reconcile leaves it alone");
}

async fn relay_of(world: &World) -> Relay {
    relay::list(&world.db, &Search::default(), 1).await.unwrap().remove(0)
}

#[tokio::test]
async fn statuses_that_may_pass_are_retried() {
    for status in [401, 402, 403, 406, 408, 410, 418, 425, 429, 500, 501, 502, 503, 504, 302] {
        check_transient(Fault::Status(status, None), &format!("zooid answered {status}")).await;
    }
}

#[tokio::test]
async fn statuses_that_will_not_pass_end_it() {
    for status in [400, 405, 413, 422] {
        check_permanent(Fault::Status(status, None), &format!("zooid answered {status}")).await;
    }
}

#[tokio::test]
async fn what_is_no_answer_is_retried() {
    check_transient(Fault::Garbage, "no JSON object").await;
    check_transient(Fault::HalfAnswer, "broke off").await;
    check_transient(Fault::DropBefore, "broke off").await;
    check_transient(Fault::DropAfter, "broke off").await;
}

#[tokio::test]
async fn an_answer_after_the_timeout_is_none() {
    let short = |zooid: &mut ZooidSettings| zooid.timeout = Duration::from_millis(200);
    let world = World::with(settings(), short).await;
    // The gate stays shut: the answer never comes.
    let never = Fault::Hold(Gate::default());
    check_transient_in(world, never, "zooid did not answer within 0.2 s").await;
}

#[tokio::test]
async fn no_request_starts_that_could_end_after_its_lease() {
    let long = |zooid: &mut ZooidSettings| zooid.timeout = Duration::from_secs(40);
    let mut world = World::with(settings(), long).await;
    // The lease of a process with a shorter time-out: 30 s.
    let instances = world.context.instances.as_ref().clone();
    world.context.instances = Arc::new(Instances { timeout: Duration::ZERO, ..instances });
    world.relay("alpha").await;
    assert!(matches!(world.attempt().await, Outcome::Failed(Verdict::RetryAt(_))));
    let error = relay_of(&world).await.sync_error;
    assert_eq!(error, "the attempt took longer than its lease allows");
    assert!(world.zooid.calls().is_empty());
}

#[tokio::test]
async fn a_closed_port_is_retried() {
    let world = World::new().await;
    world.relay("alpha").await;
    world.zooid.refuse(true);
    let outcome = world.attempt().await;
    assert!(matches!(outcome, Outcome::Failed(Verdict::RetryAt(_))));
    assert!(relay_of(&world).await.sync_error.contains("could not connect to zooid"));
}

#[tokio::test]
async fn an_unknown_key_is_named_as_the_operators_mistake() {
    let world = World::with(settings(), |zooid| zooid.robot = nostr::key::Keys::generate()).await;
    world.relay("alpha").await;
    assert!(matches!(world.attempt().await, Outcome::Failed(Verdict::Held(_))));
    let error = instance::list(&world.db).await.unwrap().remove(0).last_error;
    let npub = world.context.zooid.robot_npub();
    let hex = nostr::key::PublicKey::parse(&npub).unwrap().to_hex();
    let expected = format!(
        "zooid answered 403 Forbidden: pubkey not in whitelist; zooid refused our key: add {hex} ({npub}), in hex, to API_WHITELIST"
    );
    assert_eq!(error, expected);
}

#[tokio::test]
async fn a_conflict_about_the_host_of_another_relay_is_permanent() {
    let world = World::new().await;
    let other = json!({ "host": "alpha.zooid.test", "schema": "someone_else" });
    world.zooid.put("another-id", other);
    let relay = world.relay("alpha").await;
    assert_eq!(world.attempt().await, Outcome::Failed(Verdict::GaveUp));
    let error = world.reload(&relay).await.sync_error;
    assert_eq!(
        error,
        "zooid answered 409 Conflict: host \"alpha.zooid.test\" is already in use; zooid has it for a relay that Tender does not manage"
    );
    let methods: Vec<_> = world.zooid.calls().into_iter().map(|call| call.method).collect();
    assert_eq!(methods, ["POST", "PATCH", "POST", "PATCH"], "asked twice: it might have moved");
}

#[tokio::test]
async fn a_conflict_on_a_change_is_permanent() {
    let world = World::new().await;
    let relay = world.synced_relay("alpha").await;
    world.zooid.put("another-id", json!({ "host": "beta.zooid.test", "schema": "someone_else" }));
    let change = Change { subdomain: Some("beta".into()), ..Change::default() };
    relay::update(&world.db, &relay.id, &change, &by()).await.unwrap();
    assert_eq!(world.attempt().await, Outcome::Failed(Verdict::GaveUp));
}

#[tokio::test]
async fn retries_follow_the_schedule_and_the_seventh_attempt_is_the_last() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    world.zooid.plan(None, Fault::Status(500, None), None);
    for (attempt, delay) in [(1, 30), (2, 60), (3, 120), (4, 240), (5, 480), (6, 900)] {
        world.make_due().await;
        let job = world.fetch().await;
        assert_eq!(job.attempt, attempt);
        sync_relay::attempt(&world.context, &job).await;
        let relay = world.reload(&relay).await;
        let wait = delay_of(&world, &relay).await;
        assert_eq!(wait, Duration::from_secs(delay), "attempt {attempt}");
        assert_eq!((relay.attempts, relay.exhausted_at), (attempt, None));
        assert_eq!(world.job().await.summary.run_at, relay.retry_at.unwrap());
    }
    world.make_due().await;
    assert_eq!(world.attempt().await, Outcome::Failed(Verdict::GaveUp));
    let relay = world.reload(&relay).await;
    assert_eq!((relay.attempts, relay.retry_at), (7, None));
    assert!(relay.exhausted_at.is_some());
    assert_eq!(relay.failure_kind, Some(FailureKind::Transient));
    let job = world.job().await;
    assert_eq!((job.summary.state, job.summary.attempts), (JobState::Killed, 7));
    assert!(world.try_fetch().await.is_none());
    let failures = world.history(&relay).await.iter().filter(|t| **t == "fail_relay_sync").count();
    assert_eq!(failures, 7);
    let last = world.records(&relay).await.pop().unwrap().detail;
    assert_eq!(
        (&last["attempt"], &last["retry_at"], &last["status"]),
        (&json!(7), &Value::Null, &json!(500))
    );
}

#[tokio::test]
async fn jitter_spreads_the_delay_by_a_tenth() {
    let mut settings = settings();
    settings.backoff = Backoff::default();
    let world = World::with(settings, |_| {}).await;
    world.zooid.plan(None, Fault::Status(408, None), None);
    let mut waits = Vec::new();
    for number in 0..12 {
        let relay = world.relay(&format!("relay-{number}")).await;
        world.attempt().await;
        waits.push(delay_of(&world, &world.reload(&relay).await).await.as_millis());
    }
    assert!(waits.iter().all(|wait| (27_000..=33_000).contains(wait)), "{waits:?}");
    // Twelve delays within 200 ms of the middle: once in 10¹⁴ runs.
    assert!(waits.iter().any(|wait| wait.abs_diff(30_000) > 200), "{waits:?}");
}

#[tokio::test]
async fn retry_after_raises_the_delay_up_to_the_cap_for_429_and_503_only() {
    for (status, retry_after, expected) in
        [(429, 100, 100), (503, 5, 30), (503, 100_000, 900), (500, 100, 30)]
    {
        let (world, _) = first_attempt(Fault::Status(status, Some(retry_after))).await;
        let relay = relay_of(&world).await;
        let wait = delay_of(&world, &relay).await;
        assert_eq!(wait, Duration::from_secs(expected), "{status} {retry_after}");
    }
}

#[tokio::test]
async fn a_success_after_failures_leaves_no_trace_of_them_on_the_relay() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    world.zooid.plan(None, Fault::Status(500, None), Some(1));
    world.attempt().await;
    world.make_due().await;
    assert_eq!(world.attempt().await, Outcome::Synced);
    let relay = world.reload(&relay).await;
    assert_eq!((relay.sync_error.as_str(), relay.attempts), ("", 0));
    assert_eq!((relay.failure_kind, relay.retry_at), (None, None));
    assert_eq!(world.records(&relay).await.pop().unwrap().detail["attempt"], 2);
}

#[tokio::test]
async fn unreadable_payloads_are_killed_with_the_reason_and_the_worker_goes_on() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    let payloads: [(&[u8], &str); 5] = [
        (b"\xff\xfe", "unreadable"),
        (b"", "unreadable"),
        (b"[1]", "unreadable"),
        (br#"{"v":1,"relay_id":"nonsense","cause":"create"}"#, "unreadable"),
        (
            br#"{"v":2,"relay_id":"0b6d9f0e-5b1c-4c7e-9b43-1c1f6b8f2a10","cause":"create"}"#,
            "version 2",
        ),
    ];
    for (payload, words) in payloads {
        sqlx::query("update apalis.jobs set job = $1 where status = 'Pending'")
            .bind(payload)
            .execute(&world.db)
            .await
            .unwrap();
        let job = world.fetch().await;
        assert_eq!(sync_relay::attempt(&world.context, &job).await, Outcome::Unreadable);
        let row = world.job_by_id(&job.id).await;
        assert_eq!((row.summary.state, row.key), (JobState::Killed, None));
        assert!(row.summary.error.unwrap().contains(words));
        // The relay lost its job; reconcile gives it another.
        assert_eq!(world.reconcile().await, 1);
        world.make_due().await;
    }
    assert_eq!(world.attempt().await, Outcome::Synced);
    assert!(world.reload(&relay).await.synced);
}

#[tokio::test]
async fn what_zooid_says_is_bounded_and_on_one_line() {
    let text = "line one\nline two\u{7}\t".repeat(500);
    let line = queue::one_line(&text);
    assert_eq!(line.chars().count(), queue::MAX_ERROR_CHARS);
    assert!(!line.contains(char::is_control));
}
