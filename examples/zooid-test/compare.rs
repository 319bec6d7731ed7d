//! The files that zooid wrote, compared with what the ledger wants. A field that a file does not have
//! counts as empty or false.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::world::World;

/// Compares every file with the ledger, and the set of files with the set of relays.
pub(crate) async fn everything(world: &World) -> anyhow::Result<()> {
    let relays = world.relays().await?;
    let wanted: BTreeSet<String> = relays.iter().map(|relay| text(&relay["id"])).collect();
    let found = file_names(&world.files())?;
    let (lost, extra) = (wanted.difference(&found).count(), found.difference(&wanted).count());
    ensure!(lost == 0 && extra == 0, "{lost} relays have no file, {extra} files have no relay");
    let mut differences = Vec::new();
    for relay in &relays {
        differences.extend(differences_of(world, relay)?);
    }
    let shown = differences.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
    ensure!(differences.is_empty(), "{} differences: {shown}", differences.len());
    Ok(())
}

fn file_names(folder: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            names.extend(path.file_stem().and_then(|name| name.to_str()).map(str::to_owned));
        }
    }
    Ok(names)
}

/// Returns a relay's document as zooid stores it.
pub(crate) fn document(world: &World, relay_id: &str) -> anyhow::Result<Value> {
    let path = world.file(relay_id);
    let text = fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is no TOML", path.display()))
}

fn differences_of(world: &World, relay: &Value) -> anyhow::Result<Vec<String>> {
    let document = document(world, &text(&relay["id"]))?;
    let host = text(&relay["host"]);
    let mut differences = Vec::new();
    for (pointer, wanted) in wanted(relay, world.bucket()) {
        let found = document.pointer(pointer).cloned().unwrap_or_else(|| empty(&wanted));
        // zooid's own disk is the adapter `local` and also no adapter.
        let is_disk = pointer == "/blossom/adapter" && wanted == "" && found == "local";
        if found != wanted && !is_disk {
            differences.push(format!("{host}{pointer}: {found} instead of {wanted}"));
        }
    }
    let secret = document["secret"].as_str().unwrap_or_default();
    if secret.len() != 64 {
        differences.push(format!("{host}: the secret has {} characters", secret.len()));
    }
    Ok(differences)
}

/// Returns what a relay's file must hold, by the JSON pointer.
fn wanted(relay: &Value, bucket: Option<&str>) -> Vec<(&'static str, Value)> {
    let flag = |name: &str| json!(relay[name] == true || relay[name] == 1);
    let has_bucket = bucket.is_some() && flag("blossom_enabled") == true;
    let has_calls = flag("livekit_enabled") == true;
    let if_so = |holds: bool, text: &str| json!(if holds { text } else { "" });
    vec![
        ("/host", relay["host"].clone()),
        ("/schema", relay["schema"].clone()),
        ("/inactive", json!(relay["status"] != "active")),
        ("/info/name", relay["info_name"].clone()),
        ("/info/icon", relay["info_icon"].clone()),
        ("/info/description", relay["info_description"].clone()),
        ("/info/pubkey", relay["tenant_pubkey"].clone()),
        ("/policy/public_read", flag("policy_public_read")),
        ("/policy/public_write", flag("policy_public_write")),
        ("/policy/public_join", flag("policy_public_join")),
        ("/policy/strip_signatures", flag("policy_strip_signatures")),
        ("/groups/enabled", flag("groups_enabled")),
        ("/management/enabled", flag("management_enabled")),
        ("/push/enabled", flag("push_enabled")),
        ("/roles/member/can_invite", flag("members_can_invite")),
        ("/blossom/enabled", flag("blossom_enabled")),
        ("/blossom/adapter", if_so(has_bucket, "s3")),
        ("/blossom/s3/bucket", if_so(has_bucket, bucket.unwrap_or_default())),
        ("/livekit/server_url", if_so(has_calls, "wss://livekit.test")),
        ("/livekit/api_key", if_so(has_calls, "livekit-key")),
        ("/livekit/api_secret", if_so(has_calls, "livekit-secret")),
    ]
}

fn empty(like: &Value) -> Value {
    if like.is_boolean() { json!(false) } else { json!("") }
}

/// Returns a JSON string without its quotation marks.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
