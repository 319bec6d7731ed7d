//! Downloads of the mix of a real relay, with nostr-sdk's own sync beside them.

use std::{collections::HashSet, sync::Arc, time::Instant};

use nostr_database::NostrDatabase;
use serde_json::{Value, json};
use tender_jobs::mirror::{
    event,
    lane::LaneKind,
    upstream::{self, Change, Upstream},
};

use super::{
    DAYS, ROUNDS,
    archive::Archive,
    mix::{self, Mix},
    now,
    rates::Rates,
    run,
    support::Bench,
    until_workers,
};

/// The number of events of a download.
const MIXED: usize = 100_000;

/// Downloads the mix into an empty store, in rounds: by negentropy at the defaults and with a first window of a week, by
/// polling, and by nostr-sdk.
pub(crate) async fn download(bench: &Bench) {
    let mix = mix::mix(MIXED, now(bench).await - 60, DAYS * 86_400);
    let archive = Archive::of(&mix.events);
    println!(
        "mix: {} events of {} B on average; a store ends with {} of them",
        mix.events.len(),
        mix.bytes / mix.events.len(),
        mix.live.len()
    );
    let worker = bench.spawn("work");
    until_workers(bench).await;
    let upstream = super::upstream(bench, &archive.serve().await, json!({}), "down").await;
    let mut rates = Rates::default();
    for _ in 0..ROUNDS {
        for (what, fields) in ways() {
            let url = archive.serve().await;
            let rate = match &fields {
                Some(fields) => mirrored(bench, (&upstream, &url), fields, &mix).await,
                None => peer(&url, &mix).await,
            };
            rates.add(what, rate, worker.rss_mb());
        }
    }
    rates.print();
}

/// The ways to download, with the fields of the upstream; `None` for nostr-sdk.
fn ways() -> [(&'static str, Option<Value>); 4] {
    let hours = 24 * (DAYS + 1);
    let week = json!({"negentropy_chunk_hours": 168, "backfill_since_hours": hours});
    let defaults = json!({ "backfill_since_hours": hours });
    [
        ("negentropy, defaults", Some(json!({"negentropy": true, "config": &defaults}))),
        ("negentropy, first window a week", Some(json!({"negentropy": true, "config": week}))),
        ("polling, defaults", Some(json!({"negentropy": false, "config": defaults}))),
        ("nostr-sdk (LMDB)", None),
    ]
}

/// Mirrors the mix from an address where it was never mirrored from. Returns the events per second; the store must end
/// with exactly the live ones.
async fn mirrored(
    bench: &Bench,
    (upstream, url): (&Upstream, &str),
    fields: &Value,
    mix: &Mix,
) -> f64 {
    event::wipe(bench.db()).await.unwrap();
    let change: Change = serde_json::from_value(fields.clone()).unwrap();
    let change = Change { url: Some(url.to_owned()), ..change };
    let upstream = upstream::update(bench.db(), upstream.id, &change).await.unwrap();
    let (state, seconds) = run(bench, &upstream, LaneKind::Backfill).await;
    assert_eq!((state.status.as_str(), state.gaps()), ("completed", 0));
    let stored: Vec<String> =
        sqlx::query_scalar("select encode(id, 'hex') from event where deleted_at is null")
            .fetch_all(bench.db())
            .await
            .unwrap();
    let stored: HashSet<String> = stored.into_iter().collect();
    assert_eq!(stored.len(), mix.live.len());
    assert!(stored == mix.live, "other events are live than should be");
    mix.events.len() as f64 / seconds
}

/// Runs nostr-sdk's sync into its store on disk. Returns the events per second, and says how the store differs.
async fn peer(url: &str, mix: &Mix) -> f64 {
    use nostr_sdk::prelude::{Client, Filter, SyncDirection, SyncOptions};
    let folder = tempfile::tempdir().unwrap();
    let database = Arc::new(nostr_lmdb::NostrLMDB::open(folder.path()).unwrap());
    let client = Client::builder().database(database.clone()).build();
    client.add_relay(url).await.unwrap();
    client.connect().await;
    let begun = Instant::now();
    let options = SyncOptions::default().direction(SyncDirection::Down);
    if let Err(error) = client.sync(Filter::new(), &options).await {
        println!("nostr-sdk's sync failed: {error}");
    }
    let seconds = begun.elapsed().as_secs_f64();
    let stored = database.query(Filter::new()).await.unwrap();
    let stored: HashSet<String> = stored.iter().map(|event| event.id.to_hex()).collect();
    let (missing, surplus) =
        (mix.live.difference(&stored).count(), stored.difference(&mix.live).count());
    println!("nostr-sdk: {} events live, {missing} missing, {surplus} too many", stored.len());
    client.disconnect().await;
    mix.events.len() as f64 / seconds
}
