//! The scenarios, in the order in which they run. Each uses relays of its own.

use std::{fs, time::Duration};

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, future::LocalBoxFuture, stream};
use serde_json::Value;

use crate::{
    compare::{self, document, text},
    world::{DOMAIN, World},
};

/// The longest wait of a scenario with few relays.
const SHORT: Duration = Duration::from_mins(3);
/// The longest wait for many relays while zooid is killed.
const LONG: Duration = Duration::from_mins(20);
/// The relays that are created while zooid is killed.
const MANY: usize = 500;
/// How often zooid is killed meanwhile.
const KILLS: usize = 10;
/// The commands at the same time.
const COMMANDS: usize = 4;

type Scenario = for<'a> fn(&'a World) -> LocalBoxFuture<'a, anyhow::Result<()>>;

/// Returns the scenarios with their names.
pub(crate) fn all() -> Vec<(&'static str, Scenario)> {
    vec![
        ("create", |world| Box::pin(create(world))),
        ("update", |world| Box::pin(update(world))),
        ("rename", |world| Box::pin(rename(world))),
        ("swap of two names", |world| Box::pin(swap(world))),
        ("deactivate and activate", |world| Box::pin(deactivate(world))),
        ("media on and off", |world| Box::pin(flag(world, "media", "blossom_enabled"))),
        ("LiveKit on and off", |world| Box::pin(flag(world, "calls", "livekit_enabled"))),
        ("members", |world| Box::pin(members(world))),
        ("deletion", |world| Box::pin(delete(world))),
        ("loss of a file", |world| Box::pin(lose(world))),
        ("a broken file", |world| Box::pin(corrupt(world))),
        ("500 relays, zooid killed ten times", |world| Box::pin(many(world))),
        ("every file is as wanted", |world| Box::pin(last(world))),
    ]
}

fn host(subdomain: &str) -> String {
    format!("{subdomain}.{DOMAIN}")
}

async fn make(world: &World, subdomain: &str) -> anyhow::Result<Value> {
    let tenant = world.tenant.public_key().to_hex();
    world.json(&["relay", "create", subdomain, "--tenant", &tenant]).await
}

async fn change(world: &World, subdomain: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let host = host(subdomain);
    world.command(&[&["relay", "update", &host], arguments].concat()).await.map(drop)
}

/// Waits until zooid has everything, and compares.
async fn settled(world: &World) -> anyhow::Result<()> {
    world.in_step(SHORT).await?;
    compare::everything(world).await
}

async fn create(world: &World) -> anyhow::Result<()> {
    for number in 0..5 {
        make(world, &format!("create-{number}")).await?;
    }
    settled(world).await
}

async fn update(world: &World) -> anyhow::Result<()> {
    make(world, "update").await?;
    settled(world).await?;
    let texts = ["--name", "Näme", "--description", "two\nlines", "--icon", "https://a.test/i.png"];
    change(world, "update", &texts).await?;
    change(world, "update", &["--on", "policy_public_join", "--off", "groups_enabled"]).await?;
    settled(world).await?;
    change(world, "update", &["--name", "", "--description", "", "--icon", ""]).await?;
    settled(world).await
}

async fn rename(world: &World) -> anyhow::Result<()> {
    make(world, "before").await?;
    settled(world).await?;
    change(world, "before", &["--subdomain", "after"]).await?;
    settled(world).await
}

/// The ledger has each name once, so one relay gives its name up for a moment.
async fn swap(world: &World) -> anyhow::Result<()> {
    make(world, "left").await?;
    make(world, "right").await?;
    settled(world).await?;
    for (from, to) in [("left", "between"), ("right", "left"), ("between", "right")] {
        change(world, from, &["--subdomain", to]).await?;
    }
    settled(world).await
}

async fn deactivate(world: &World) -> anyhow::Result<()> {
    make(world, "sleeper").await?;
    settled(world).await?;
    for command in ["deactivate", "activate"] {
        world.command(&["relay", command, &host("sleeper")]).await?;
        settled(world).await?;
    }
    Ok(())
}

async fn flag(world: &World, subdomain: &str, flag: &str) -> anyhow::Result<()> {
    make(world, subdomain).await?;
    for switch in ["--on", "--off", "--on"] {
        change(world, subdomain, &[switch, flag]).await?;
        settled(world).await?;
    }
    change(world, subdomain, &["--off", flag]).await?;
    settled(world).await
}

async fn members(world: &World) -> anyhow::Result<()> {
    make(world, "members").await?;
    settled(world).await?;
    let answer = world.json(&["relay", "members", &host("members")]).await?;
    let owner = world.tenant.public_key().to_hex();
    let listed = answer["members"].as_array().context("no list of members")?;
    ensure!(listed.iter().any(|member| *member == owner.as_str()), "the owner is not in {answer}");
    Ok(())
}

async fn delete(world: &World) -> anyhow::Result<()> {
    let relay = make(world, "doomed").await?;
    settled(world).await?;
    world.command(&["relay", "delete", &host("doomed"), "--yes"]).await?;
    let file = world.file(&text(&relay["id"]));
    world
        .wait_for(SHORT, "the relay is gone on both sides", async || {
            let relays = world.relays().await?;
            Ok(!file.exists() && relays.iter().all(|other| other["id"] != relay["id"]))
        })
        .await?;
    make(world, "doomed").await.context("its host is free again")?;
    settled(world).await
}

async fn lose(world: &World) -> anyhow::Result<()> {
    let id = text(&make(world, "lost").await?["id"]);
    settled(world).await?;
    let before = document(world, &id)?["secret"].clone();
    fs::remove_file(world.file(&id))?;
    change(world, "lost", &["--name", "Found"]).await?;
    settled(world).await?;
    ensure!(document(world, &id)?["secret"] == before, "the relay has another identity");
    Ok(())
}

async fn corrupt(world: &World) -> anyhow::Result<()> {
    let id = text(&make(world, "broken").await?["id"]);
    settled(world).await?;
    let before = document(world, &id)?["secret"].clone();
    fs::write(world.file(&id), "host = \"cut off")?;
    change(world, "broken", &["--name", "Mended"]).await?;
    settled(world).await?;
    ensure!(document(world, &id)?["secret"] == before, "the relay has another identity");
    Ok(())
}

/// zooid is killed while relays are on their way, each time that so many more files are there.
async fn many(world: &World) -> anyhow::Result<()> {
    let before = files(world)?;
    let names = (0..MANY).map(|number| format!("many-{number}"));
    let made = stream::iter(names).map(|name| make_named(world, name));
    let creating = made.buffer_unordered(COMMANDS).try_collect::<Vec<_>>();
    let killing = async {
        for kill in 1..=KILLS {
            let enough = before + kill * MANY / (KILLS + 1);
            world.wait_for(LONG, "zooid goes on", async || Ok(files(world)? >= enough)).await?;
            world.kill_zooid().await?;
            world.start_zooid().await?;
        }
        Ok(())
    };
    tokio::try_join!(creating, killing)?;
    world.in_step(LONG).await?;
    compare::everything(world).await
}

fn files(world: &World) -> anyhow::Result<usize> {
    Ok(fs::read_dir(world.files())?.count())
}

async fn make_named(world: &World, name: String) -> anyhow::Result<()> {
    make(world, &name).await.map(drop)
}

async fn last(world: &World) -> anyhow::Result<()> {
    settled(world).await
}
