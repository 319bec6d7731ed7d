//! The secret of a relay, derived from the robot's key and the relay's id. Source:
//! `docs/adr/0015-derived-identities.md`.

use hmac::{Hmac, Mac};
use nostr::key::{Keys, SecretKey};
use sha2::Sha256;
use tender_jobs::provision::relay::RelayId;

/// Separates this use of the robot's key from every other. A different text gives every relay that is
/// created from then on another identity.
const DOMAIN: &[u8] = b"tender relay identity v1";

/// Returns the keys of a relay. The same robot and the same id give the same keys.
pub(super) fn keys(robot: &Keys, relay_id: &RelayId) -> Keys {
    Keys::new(secret(robot, relay_id))
}

/// Returns the secret key of a relay.
pub(super) fn secret(robot: &Keys, relay_id: &RelayId) -> SecretKey {
    let mut counter: u8 = 0;
    loop {
        // Nearly every hash is a valid key: the second turn comes once in 2^127 relays.
        if let Ok(secret) = SecretKey::from_slice(&hash(robot, relay_id, counter)) {
            return secret;
        }
        counter = counter.wrapping_add(1);
    }
}

fn hash(robot: &Keys, relay_id: &RelayId, counter: u8) -> [u8; 32] {
    let key = robot.secret_key().as_secret_bytes();
    #[expect(clippy::expect_used, reason = "HMAC accepts a key of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC accepts any key");
    for part in [DOMAIN, &[0], relay_id.as_str().as_bytes(), &[0, counter]] {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn robot(byte: &str) -> Keys {
        Keys::parse(&byte.repeat(32)).unwrap()
    }

    #[test]
    fn a_relay_has_one_identity_and_no_two_relays_share_one() {
        let (one, other) = (RelayId::random(), RelayId::random());
        assert_eq!(keys(&robot("01"), &one), keys(&robot("01"), &one));
        assert_ne!(keys(&robot("01"), &one), keys(&robot("01"), &other));
        assert_ne!(keys(&robot("01"), &one), keys(&robot("02"), &one));
    }

    /// A change of the derivation would give relays a new identity when they are created again.
    #[test]
    fn the_derivation_does_not_change() {
        let id = "0b6d9f0e-5b1c-4c7e-9b43-1c1f6b8f2a10".parse().unwrap();
        let public = keys(&robot("01"), &id).public_key().to_hex();
        assert_eq!(public, "75026da7646d7fc0d9ec51cac2c61093d772ae5838b1e13feaf26a89f6e440b3");
    }
}
