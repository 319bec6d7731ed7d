//! Random tokens.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use nostr::key::SecretKey;

/// Returns 32 random bytes in URL-safe base64, from the generator that makes keys.
pub(crate) fn token() -> String {
    URL_SAFE_NO_PAD.encode(SecretKey::generate().to_secret_bytes())
}
