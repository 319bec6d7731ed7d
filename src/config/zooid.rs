//! zooid, and where its relays keep media and hold calls.

use std::collections::HashMap;

use nostr::key::Keys;
use reqwest::Url;
use secrecy::SecretString;
use tender_workers::zooid::{Blossom, Livekit, ZooidSettings};

use super::{Env, Needs, http_url};

/// Who we are: signs requests to zooid and, unless it has a key of its own, event sync's answers.
pub(super) fn robot(env: &mut Env) -> Option<Keys> {
    env.parse("ROBOT_SECRET", "nsec1… or 64 hex digits", |text| Keys::parse(text).ok())
}

pub(super) fn zooid(
    env: &mut Env,
    needs: Needs,
    instances: HashMap<String, Url>,
    robot: Option<Keys>,
) -> Option<ZooidSettings> {
    let url = env.parse("ZOOID_API_URL", "http://localhost:3334", http_url);
    if needs == Needs::Zooid {
        for (name, is_missing, example) in [
            ("ZOOID_API_URL", url.is_none(), "http://localhost:3334"),
            ("ROBOT_SECRET", robot.is_none(), "what `tender keygen` prints"),
        ] {
            if is_missing {
                env.missing(name, example);
            }
        }
    }
    let (blossom, livekit) = (blossom(env), livekit(env));
    Some(ZooidSettings { default_url: url?, instances, robot: robot?, blossom, livekit })
}

/// Media go to S3 only when all four of region, bucket and keys are there.
pub(super) fn blossom(env: &mut Env) -> Option<Blossom> {
    let endpoint = env.text("BLOSSOM_S3_ENDPOINT").unwrap_or_default();
    let region = env.text("BLOSSOM_S3_REGION");
    let bucket = env.text("BLOSSOM_S3_BUCKET");
    let access_key = env.text("BLOSSOM_S3_ACCESS_KEY").map(SecretString::from);
    let secret_key = env.text("BLOSSOM_S3_SECRET_KEY").map(SecretString::from);
    Some(Blossom {
        endpoint,
        region: region?,
        bucket: bucket?,
        access_key: access_key?,
        secret_key: secret_key?,
    })
}

fn livekit(env: &mut Env) -> Option<Livekit> {
    let server_url = env.text("LIVEKIT_URL");
    let api_key = env.text("LIVEKIT_API_KEY").map(SecretString::from);
    let api_secret = env.text("LIVEKIT_API_SECRET").map(SecretString::from);
    Some(Livekit { server_url: server_url?, api_key: api_key?, api_secret: api_secret? })
}
