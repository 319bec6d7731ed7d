//! Every change of settings, through zooid's real merge rule: what a PATCH leaves equals what a POST of
//! the same settings makes.

use nostr::key::Keys;
use secrecy::SecretString;
use serde_json::Value;
use tender_jobs::provision::relay::{Flags, Relay, Status};
use tender_workers::provision::zooid::{Blossom, Livekit, Zooid, ZooidSettings};

use crate::support::{World, zooid_settings};

/// Where media go, as the operator configures it.
#[derive(Debug, Clone, Copy)]
enum Media {
    Disk,
    Bucket(&'static str),
}

/// What zooid is to have: the operator's configuration and the relay.
struct Wanted {
    label: String,
    client: Zooid,
    relay: Relay,
}

fn client(url: &str, robot: &Keys, media: Media, has_calls: bool) -> Zooid {
    let blossom = match media {
        Media::Disk => None,
        Media::Bucket(name) => Some(Blossom {
            endpoint: if name == "one" { String::new() } else { "https://s3.test".into() },
            region: "eu".into(),
            bucket: name.into(),
            access_key: SecretString::from(format!("access-{name}")),
            secret_key: SecretString::from(format!("secret-{name}")),
        }),
    };
    let livekit = has_calls.then(|| Livekit {
        server_url: "wss://livekit.test".into(),
        api_key: SecretString::from("key"),
        api_secret: SecretString::from("lksecret"),
    });
    Zooid::new(ZooidSettings { blossom, livekit, ..zooid_settings(url, robot.clone()) }).unwrap()
}

/// The relay's flags: all off, all on, or only one on.
fn flags(index: usize) -> Flags {
    let is_on = |flag: usize| index == 1 || index == flag + 2;
    Flags {
        policy_public_read: is_on(0),
        policy_public_write: is_on(1),
        policy_public_join: is_on(2),
        policy_strip_signatures: is_on(3),
        groups_enabled: is_on(4),
        management_enabled: is_on(5),
        members_can_invite: is_on(6),
        push_enabled: is_on(7),
        blossom_enabled: is_on(8),
        livekit_enabled: is_on(9),
    }
}

fn every_setting(url: &str, robot: &Keys, relay: &Relay) -> Vec<Wanted> {
    let mut every = Vec::new();
    for media in [Media::Disk, Media::Bucket("one"), Media::Bucket("two")] {
        for has_calls in [false, true] {
            // Single flags, except for media and calls, do not depend on the operator's configuration.
            let is_plain = matches!(media, Media::Disk) && !has_calls;
            for index in (0..12).filter(|index| is_plain || !(2..10).contains(index)) {
                let mut relay = Relay { flags: flags(index), ..relay.clone() };
                if index % 2 == 1 {
                    relay.status = Status::Inactive;
                    relay.info_name = String::new();
                    relay.info_description = "Words".into();
                }
                let label = format!("{media:?}, calls {has_calls}, flags {index}");
                every.push(Wanted { label, client: client(url, robot, media, has_calls), relay });
            }
        }
    }
    every
}

#[tokio::test]
async fn a_patch_from_any_settings_to_any_others_equals_a_post() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    let robot = Keys::generate();
    world.zooid.tune(|rules| rules.whitelist = vec![robot.public_key().to_hex()]);
    let every = every_setting(&world.zooid.url(), &robot, &relay);
    let mut posted: Vec<Value> = Vec::new();
    for wanted in &every {
        wanted.client.create(&wanted.relay).await.unwrap();
        posted.push(world.zooid.documents().remove(relay.id.as_str()).unwrap());
        world.zooid.lose(relay.id.as_str());
    }
    for (before, document) in every.iter().zip(&posted) {
        for (after, expected) in every.iter().zip(&posted) {
            world.zooid.put(relay.id.as_str(), document.clone());
            after.client.patch(&after.relay).await.unwrap();
            let merged = world.zooid.documents().remove(relay.id.as_str()).unwrap();
            assert_eq!(merged, *expected, "from {} to {}", before.label, after.label);
        }
    }
}
