//! One line for each wing.

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use sqlx::PgPool;
use tender_jobs::provision::relay::{self, Search};

use crate::relays::Relay;

/// How often the ledger is read.
const LOOK: Duration = Duration::from_millis(200);

/// The state that ends the demo.
pub(crate) struct Wanted<'a> {
    /// Relays in step with the stand-in for zooid.
    pub(crate) relays: usize,
    /// Events on the relay that gets the mirrored ones, at least.
    pub(crate) mirrored: usize,
    /// Events that the service accepts.
    pub(crate) accepted: usize,
    pub(crate) to: &'a Relay,
    pub(crate) own: &'a Relay,
}

/// Shows the three wings until all have what is wanted.
pub(crate) async fn until_done(db: &PgPool, wanted: &Wanted<'_>) -> anyhow::Result<()> {
    let (all, begun) = (MultiProgress::new(), Instant::now());
    let line = |name: &'static str, total: usize, unit: &str| -> anyhow::Result<ProgressBar> {
        let style = format!("{{prefix:<10}}{{bar:30}} {{pos:>6}} of {{len}} {unit}");
        let bar = ProgressBar::new(u64::try_from(total)?);
        bar.set_style(ProgressStyle::with_template(&style)?);
        bar.set_prefix(name);
        Ok(all.add(bar))
    };
    let provision = line("provision", wanted.relays, "relays in step with zooid")?;
    let mirror = line("mirror", wanted.mirrored, "events on the second relay")?;
    let grasp = line("grasp", wanted.accepted, "events on the service's relay")?;
    loop {
        let relays = relay::list(db, &Search::default(), 100).await?;
        let synced = relays.iter().filter(|relay| relay.synced).count();
        let (copied, held) = (wanted.to.ids().await?.len(), wanted.own.ids().await?.len());
        for (bar, count) in [(&provision, synced), (&mirror, copied), (&grasp, held)] {
            bar.set_position(u64::try_from(count)?);
        }
        if synced >= wanted.relays && copied >= wanted.mirrored && held >= wanted.accepted {
            break;
        }
        tender_workers::runtime::pause(LOOK).await;
    }
    for bar in [provision, mirror, grasp] {
        bar.abandon();
    }
    println!(
        "After {:.1} s, {} relays are in step with zooid, {} events are mirrored, and the service holds \
         the {} events of its repositories.",
        begun.elapsed().as_secs_f64(),
        wanted.relays,
        wanted.mirrored,
        wanted.accepted,
    );
    Ok(())
}
