//! What the demo prints.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::ensure;
use indicatif::{ProgressBar, ProgressStyle};
use sqlx::PgPool;

use crate::{Chain, events::Events, relays::Relay, tender};

/// How often the ledger is read.
const LOOK: Duration = Duration::from_millis(200);

pub(crate) fn beginning(chain: &Chain, silent: &str, liar: &str) {
    println!("The service's relay is {}; it has 100 announcements, which name A.", chain.own.url);
    println!("A is {}; it has 100 announcements that name B.", chain.a.url);
    println!("B is {}, behind a line; it has 100 announcements that name C.", chain.line.url);
    println!("C is {}.", chain.c.url);
    println!("Ten repositories also name {silent}, which never answers, and {liar}, which lies.");
    println!("Only the service's relay is configured.\n");
}

/// Accepted events, as a bar.
pub(crate) struct Progress {
    bar: ProgressBar,
    begun: Instant,
    chain: Vec<String>,
}

impl Progress {
    pub(crate) fn new(total: usize, hosts: &[(String, String)]) -> Self {
        let bar = ProgressBar::new(u64::try_from(total).unwrap_or_default());
        let style = ProgressStyle::with_template("accepted {bar:30} {pos:>6} of {len}  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let chain = hosts.iter().take(3).map(|(url, _)| url.clone()).collect();
        Self { bar, begun: Instant::now(), chain }
    }

    /// Waits until so many events are accepted.
    pub(crate) async fn until(&self, db: &PgPool, accepted: usize) -> anyhow::Result<()> {
        while self.look(db).await? < accepted {
            tender_workers::runtime::pause(LOOK).await;
        }
        Ok(())
    }

    /// Waits until everything wanted from A, B and C is confirmed.
    pub(crate) async fn until_covered(&self, db: &PgPool) -> anyhow::Result<()> {
        loop {
            let (open, relays): (i64, i64) = sqlx::query_as(
                "select count(*) filter (where state <> 'confirmed'), count(distinct url)
                 from grasp_coverage join grasp_relay r on r.id = relay_id where url = any($1)",
            )
            .bind(&self.chain)
            .fetch_one(db)
            .await?;
            self.look(db).await?;
            if open == 0 && relays == 3 {
                return Ok(());
            }
            tender_workers::runtime::pause(LOOK).await;
        }
    }

    async fn look(&self, db: &PgPool) -> anyhow::Result<usize> {
        let accepted: i64 =
            sqlx::query_scalar("select count(*) from admission").fetch_one(db).await?;
        self.bar.set_position(u64::try_from(accepted)?);
        Ok(usize::try_from(accepted)?)
    }

    pub(crate) fn say(&self, text: &str) {
        if self.bar.is_hidden() {
            println!("{text}");
        } else {
            self.bar.println(text);
        }
    }

    pub(crate) fn finish(self) -> Duration {
        self.bar.abandon();
        self.begun.elapsed()
    }
}

/// Waits until the service's relay holds every event.
pub(crate) async fn until_uploaded(own: &Relay, events: &Events) -> anyhow::Result<()> {
    let wanted = events.ids();
    while !wanted.is_subset(&own.ids().await?) {
        tender_workers::runtime::pause(LOOK).await;
    }
    Ok(())
}

/// Prints the coverage by relay, and the figures.
pub(crate) async fn end(
    db: &PgPool,
    data_dir: &Path,
    events: &Events,
    took: Duration,
) -> anyhow::Result<()> {
    println!();
    for (url, name) in events.hosts() {
        println!("{name:>8}  {url}");
    }
    println!();
    tender(data_dir)?.args(["grasp", "relays"]).status().await?;
    let accepted: i64 = sqlx::query_scalar("select count(*) from admission").fetch_one(db).await?;
    let (batches, failed): (i64, i64) = sqlx::query_as(
        "select count(*), count(*) filter (where status = 'failed') from grasp_batch",
    )
    .fetch_one(db)
    .await?;
    println!(
        "\n{accepted} events accepted and on the service's relay after {:.1} s, with a cut line and a \
         killed worker; {batches} batches, of which {failed} failed and were repeated.",
        took.as_secs_f64(),
    );
    ensure!(
        usize::try_from(accepted)? == events.total(),
        "not every event was accepted, or too many"
    );
    println!("The service holds everything that belongs to its repositories.");
    Ok(())
}

/// Says how to look around while everything runs.
pub(crate) fn suggest(data_dir: &Path, chain: &Chain, link: &str) {
    let (data_dir, c) = (data_dir.display(), &chain.c.url);
    println!(
        "\nDashboard (the link is valid once, for ten minutes): {link}\n\n\
         The demo keeps running. In another terminal, in this directory:\n\
         \x20 export TENDER_DATA_DIR={data_dir}\n\
         \x20 tender grasp status                services, relays by state, coverage\n\
         \x20 tender grasp repos --missing       what the silent relay and the liar owe\n\
         \x20 tender grasp relays                state, next try, coverage, subscriptions\n\
         \x20 tender grasp relay {c}\n\
         \x20 tender grasp parked                events that are refused for now, by reason\n\
         (`tender` is target/debug/tender.) Ctrl-C ends the demo and removes its database."
    );
}
