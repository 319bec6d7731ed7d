//! What the client makes of zooid's answers: believed only in zooid's own words, and named with the
//! remedy.

use std::time::Duration;

use nostr::key::Keys;
use secrecy::SecretString;
use serde_json::json;
use tender::demo::zooid::{Fault, Gate};
use tender_jobs::provision::{
    Verdict,
    relay::{FailureKind, Relay},
};
use tender_workers::provision::{
    sync_relay::Outcome,
    zooid::{Livekit, ZooidError},
};

use crate::support::{World, settings};

/// A world with a relay that zooid has, whose name has changed.
async fn renamed() -> (World, Relay) {
    let world = World::new().await;
    let relay = world.synced_relay("alpha").await;
    let relay = world.rename(&relay, "newer").await;
    (world, relay)
}

fn secret(world: &World, relay: &Relay) -> serde_json::Value {
    world.zooid.documents()[relay.id.as_str()]["secret"].clone()
}

/// The error that a relay shows after a failed attempt.
async fn error_of(world: &World, relay: &Relay) -> String {
    assert!(matches!(world.attempt().await, Outcome::Failed(Verdict::RetryAt(_))));
    let relay = world.reload(relay).await;
    assert_eq!(relay.failure_kind, Some(FailureKind::Transient));
    relay.sync_error
}

#[tokio::test]
async fn a_404_of_another_host_is_not_taken_for_a_lost_relay() {
    let (world, relay) = renamed().await;
    let before = secret(&world, &relay);
    world.zooid.tune(|rules| rules.host = Some("api.zooid.test".to_owned()));
    let error = error_of(&world, &relay).await;
    let expected = format!(
        "zooid's API is not at {}: it answered 404 Not Found: Not Found",
        world.zooid.url()
    );
    assert!(error.starts_with(&expected) && error.contains("API_HOST"), "{error}");
    world.zooid.tune(|rules| rules.host = Some(world.zooid.url()[7..].to_owned()));
    world.make_due().await;
    assert_eq!(world.attempt().await, Outcome::Synced);
    assert_eq!(secret(&world, &relay), before, "it was not created again");
}

#[tokio::test]
async fn a_404_of_a_proxy_is_not_taken_for_a_lost_relay() {
    let (world, relay) = renamed().await;
    world.zooid.plan(None, Fault::Proxy(404), Some(1));
    let error = error_of(&world, &relay).await;
    assert!(error.contains("API_HOST"), "{error}");
    assert_eq!(world.zooid.calls().len(), 2, "no POST");
}

#[tokio::test]
async fn an_older_zooid_that_lost_a_relay_is_understood() {
    let (world, relay) = renamed().await;
    world.zooid.tune(|rules| rules.is_older = true);
    world.zooid.lose(relay.id.as_str());
    assert_eq!(world.attempt().await, Outcome::Synced);
    assert_eq!(world.zooid.documents()[relay.id.as_str()]["info"]["name"], "newer");
}

#[tokio::test]
async fn clocks_that_differ_are_named_with_the_difference() {
    for (ahead, words) in [(3_600, "s ahead of ours"), (-3_600, "s behind ours")] {
        let (world, relay) = renamed().await;
        world.zooid.tune(|rules| rules.clock_ahead_secs = ahead);
        let error = error_of(&world, &relay).await;
        let head = "zooid answered 401 Unauthorized: event is outside the allowed time window; zooid refused our signature: zooid's clock is 3";
        assert!(error.starts_with(head) && error.contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_signature_for_another_address_is_named_with_ours() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    // A proxy in front of zooid adds TLS: zooid then expects a signature for https.
    world.zooid.tune(|rules| rules.is_behind_tls = true);
    let client = &world.context.zooid;
    let error = client.create(&relay).await.unwrap_err();
    assert!(matches!(error, ZooidError::KeyRefused { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("event missing or invalid u tag"), "{text}");
    assert!(text.contains(&world.zooid.url()) && text.contains("X-Forwarded-Proto"), "{text}");
}

#[tokio::test]
async fn errors_say_whether_the_request_may_still_be_applied() {
    let world = World::with(settings(), |zooid| zooid.timeout = Duration::from_millis(400)).await;
    let relay = world.relay("alpha").await;
    let create = async |fault| {
        world.zooid.plan(None, fault, Some(1));
        world.context.zooid.create(&relay).await.unwrap_err()
    };
    let unanswered = create(Fault::Hold(Gate::default())).await;
    assert!(
        matches!(unanswered, ZooidError::Unanswered { is_timeout: true, .. }),
        "{unanswered:?}"
    );
    for (fault, may_be_applied) in [
        (Fault::DropBefore, true),
        (Fault::Late(Gate::default()), true),
        (Fault::Proxy(504), true),
        (Fault::Proxy(502), true),
        (Fault::Proxy(408), true),
        (Fault::Proxy(400), false),
        (Fault::Status(500, None), false),
        (Fault::Status(422, None), false),
        (Fault::Garbage, true),
        (Fault::HalfAnswer, true),
    ] {
        world.zooid.lose(relay.id.as_str());
        let text = format!("{fault:?}");
        let error = create(fault).await;
        assert_eq!(error.may_be_applied_later(), may_be_applied, "{text}: {error:?}");
    }
    world.zooid.refuse(true);
    let error = world.context.zooid.create(&relay).await.unwrap_err();
    assert!(matches!(error, ZooidError::Unreachable(_)), "{error:?}");
    assert!(!error.may_be_applied_later());
}

#[tokio::test]
async fn a_relay_keeps_its_derived_identity_through_create_replace_and_loss() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    let zooid = &world.context.zooid;
    let identity = |world: &World| {
        let secret = secret(world, &relay);
        Keys::parse(secret.as_str().unwrap()).unwrap().public_key().to_hex()
    };
    zooid.create(&relay).await.unwrap();
    assert_eq!(identity(&world), zooid.identity(&relay.id));
    world.zooid.break_file(relay.id.as_str());
    zooid.replace(&relay).await.unwrap();
    assert_eq!(identity(&world), zooid.identity(&relay.id));
    zooid.delete(&relay).await.unwrap();
    assert!(world.zooid.is_empty());
    for gone in [zooid.delete(&relay).await, zooid.replace(&relay).await, zooid.patch(&relay).await]
    {
        assert!(matches!(gone, Err(ZooidError::NotFound)), "{gone:?}");
    }
    zooid.create(&relay).await.unwrap();
    assert_eq!(identity(&world), zooid.identity(&relay.id));
}

#[tokio::test]
async fn an_echo_of_the_request_leaves_no_signature_and_no_secret() {
    let (world, relay) = renamed().await;
    world.zooid.plan(None, Fault::Echo(500), Some(1));
    let error = error_of(&world, &relay).await;
    assert!(error.contains("[authorization]") && !error.contains("eyJ"), "{error}");
    let secret = secret(&world, &relay);
    world.zooid.lose(relay.id.as_str());
    world.zooid.plan(None, Fault::Echo(400), Some(1));
    let error = world.context.zooid.create(&relay).await.unwrap_err().to_string();
    assert!(!error.contains(secret.as_str().unwrap()), "{error}");
}

#[tokio::test]
async fn a_secret_that_occurs_in_zooids_words_does_not_change_their_meaning() {
    let world = World::with(settings(), |zooid| {
        zooid.livekit = Some(Livekit {
            server_url: String::new(),
            api_key: SecretString::from("relay"),
            api_secret: SecretString::from("found"),
        });
    })
    .await;
    let relay = world.synced_relay("alpha").await;
    world.zooid.lose(relay.id.as_str());
    world.rename(&relay, "again").await;
    assert_eq!(world.attempt().await, Outcome::Synced);
}

#[tokio::test]
async fn a_name_changed_behind_our_back_is_put_right_by_the_next_change() {
    let world = World::new().await;
    let relay = world.synced_relay("alpha").await;
    world.zooid.edit(relay.id.as_str(), |document| document["info"]["name"] = json!("theirs"));
    world.rename(&relay, "ours").await;
    assert_eq!(world.attempt().await, Outcome::Synced);
    assert_eq!(world.zooid.documents()[relay.id.as_str()]["info"]["name"], "ours");
}
