//! The tokens of the API `/api/v1`. A token is shown once, when it is created. The database stores
//! only its HMAC under `API_KEY_HMAC_SECRET`, from which the token cannot be recovered.

use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use sqlx::PgExecutor;
use tender_jobs::console::api_key::{self, ApiKey};

use crate::random;

const PREFIX: &str = "rlk_";
/// The length of the part of a token that is stored in plain text, to tell keys apart.
const SHOWN: usize = 8;
/// The length of a token in characters: the prefix, and 32 bytes in URL-safe base64.
pub const LENGTH: usize = 47;

/// A new key with its token. The token is not stored.
#[derive(Debug)]
pub struct NewKey {
    /// The key as stored.
    pub key: ApiKey,
    /// The bearer token, for the `Authorization` header.
    pub token: String,
}

/// Creates a key with a random token.
pub async fn create(
    db: impl PgExecutor<'_>,
    secret: &SecretString,
    name: &str,
) -> Result<NewKey, sqlx::Error> {
    let token = format!("{PREFIX}{}", random::token());
    let key = api_key::create(db, name, &token[..SHOWN], &digest(secret, &token)).await?;
    Ok(NewKey { key, token })
}

/// Returns the digest under which a token's key is stored; `None` if the token is malformed. A
/// lookup compares HMACs, so its duration does not reveal anything about the token.
pub(crate) fn digest_of(secret: &SecretString, token: &str) -> Option<[u8; 32]> {
    (token.len() == LENGTH && token.starts_with(PREFIX)).then(|| digest(secret, token))
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn digest(secret: &SecretString, token: &str) -> [u8; 32] {
    let mut hmac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes())
        .expect("HMAC takes keys of any length");
    hmac.update(token.as_bytes());
    hmac.finalize().into_bytes().into()
}
