//! The bodies that zooid gets.

use secrecy::SecretString;
use serde_json::{Value, json};
use tender_jobs::provision::relay::{self, Change, Status};
use tender_workers::provision::zooid::{Blossom, Livekit};

use crate::support::{World, by, change, settings};

/// The stand-in's document of the only relay.
fn document(world: &World) -> Value {
    world.zooid.documents().into_values().next().expect("a relay")
}

fn flags(flags: &[(&'static str, bool)]) -> Change {
    Change { flags: flags.to_vec(), ..change() }
}

async fn set(world: &World, relay: &relay::Relay, change: &Change) {
    relay::update(&world.db, &relay.id, change, &by()).await.unwrap();
    world.attempt().await;
}

async fn world_with_s3_and_livekit() -> World {
    World::with(settings(), |zooid| {
        zooid.blossom = Some(Blossom {
            endpoint: "https://s3.test".into(),
            region: "eu".into(),
            bucket: "media".into(),
            access_key: SecretString::from("access"),
            secret_key: SecretString::from("s3cret"),
        });
        zooid.livekit = Some(Livekit {
            server_url: "wss://livekit.test".into(),
            api_key: SecretString::from("key"),
            api_secret: SecretString::from("lksecret"),
        });
    })
    .await
}

#[tokio::test]
async fn a_document_has_every_field_of_the_relay() {
    let world = World::new().await;
    let change = Change {
        info_name: Some("Name".into()),
        info_icon: Some("https://example.com/i.png".into()),
        info_description: Some("Words".into()),
        flags: vec![
            ("policy_public_join", true),
            ("members_can_invite", false),
            ("push_enabled", false),
        ],
        ..change()
    };
    let relay = world.relay_with("my-relay", change).await;
    world.attempt().await;
    let mut document = document(&world);
    let secret = document.as_object_mut().unwrap().remove("secret").unwrap();
    assert_eq!(secret.as_str().unwrap().len(), 64);
    let s3 = json!({ "endpoint": "", "region": "", "bucket": "", "access_key": "", "secret_key": "",
                     "key_prefix": "" });
    let expected = json!({
        "host": "my-relay.zooid.test",
        "schema": format!("my_relay_{}", &relay.id.as_str()[..8]),
        "inactive": false,
        "info": { "name": "Name", "icon": "https://example.com/i.png", "description": "Words",
                  "pubkey": relay.tenant_pubkey },
        "policy": { "public_read": true, "public_write": false, "public_join": true,
                    "strip_signatures": false },
        "groups": { "enabled": true },
        "management": { "enabled": true },
        "push": { "enabled": false },
        "blossom": { "enabled": false, "authenticated_read": false, "adapter": "", "s3": s3 },
        "livekit": { "server_url": "", "api_key": "", "api_secret": "" },
        "roles": { "admin": { "pubkeys": [], "can_invite": true, "can_manage": true },
                   "member": { "pubkeys": [], "can_invite": false, "can_manage": false } },
    });
    assert_eq!(document, expected);
}

#[tokio::test]
async fn inactive_and_delinquent_relays_are_inactive_on_zooid() {
    let world = World::new().await;
    let relay = world.synced_relay("alpha").await;
    for (status, inactive) in
        [(Status::Inactive, true), (Status::Active, false), (Status::Delinquent, true)]
    {
        relay::set_status(&world.db, &relay.id, status, &by()).await.unwrap();
        world.attempt().await;
        assert_eq!(document(&world)["inactive"], inactive, "{status:?}");
    }
}

#[tokio::test]
async fn media_go_to_s3_when_it_is_configured_and_to_the_disk_otherwise() {
    let world = world_with_s3_and_livekit().await;
    let relay = world.relay_with("alpha", flags(&[("blossom_enabled", true)])).await;
    world.attempt().await;
    let s3 = json!({ "endpoint": "https://s3.test", "region": "eu", "bucket": "media",
        "access_key": "access", "secret_key": "s3cret", "key_prefix": relay.schema });
    let on = json!({ "enabled": true, "authenticated_read": false, "adapter": "s3", "s3": s3 });
    assert_eq!(document(&world)["blossom"], on);
    set(&world, &relay, &flags(&[("blossom_enabled", false)])).await;
    let off = &document(&world)["blossom"];
    assert_eq!((&off["enabled"], &off["adapter"]), (&json!(false), &json!("")));
    assert_eq!(off["s3"]["secret_key"], "", "no old credentials stay");

    let world = World::new().await;
    world.relay_with("alpha", flags(&[("blossom_enabled", true)])).await;
    world.attempt().await;
    let local = &document(&world)["blossom"];
    assert_eq!((&local["enabled"], &local["adapter"]), (&json!(true), &json!("")));
}

#[tokio::test]
async fn calls_are_off_only_when_their_keys_are_gone() {
    let world = world_with_s3_and_livekit().await;
    let relay = world.relay_with("alpha", flags(&[("livekit_enabled", true)])).await;
    world.attempt().await;
    let on =
        json!({ "server_url": "wss://livekit.test", "api_key": "key", "api_secret": "lksecret" });
    assert_eq!(document(&world)["livekit"], on);
    set(&world, &relay, &flags(&[("livekit_enabled", false)])).await;
    let off = json!({ "server_url": "", "api_key": "", "api_secret": "" });
    assert_eq!(document(&world)["livekit"], off);
}

#[tokio::test]
async fn a_domain_with_an_instance_of_its_own_is_sent_there() {
    let other = tender::demo::zooid::ZooidStandIn::start(vec![]).await.unwrap();
    let url = other.url();
    let world = World::with(settings(), |zooid| {
        zooid.instances.insert("zooid.test".into(), url.parse().unwrap());
    })
    .await;
    world.relay("alpha").await;
    world.attempt().await;
    assert!(world.zooid.calls().is_empty());
    // The other instance knows nobody's key, which shows that it was asked.
    let instances = tender_jobs::provision::instance::list(&world.db).await.unwrap();
    assert!(instances.iter().any(|one| one.last_error.contains("pubkey not in whitelist")));
}

#[tokio::test]
async fn secrets_that_zooid_repeats_are_not_stored() {
    let world = World::with(settings(), |zooid| {
        zooid.blossom = Some(Blossom {
            endpoint: String::new(),
            region: "eu".into(),
            bucket: "media".into(),
            // A key that is found in the stand-in's own words.
            access_key: SecretString::from("fault"),
            secret_key: SecretString::from("s3cret"),
        });
    })
    .await;
    let relay = world.relay("alpha").await;
    world.zooid.plan(None, tender::demo::zooid::Fault::Status(400, None), None);
    world.attempt().await;
    let error = world.reload(&relay).await.sync_error;
    assert_eq!(error, "zooid answered 400 Bad Request: stand-in [secret] 400");
}
