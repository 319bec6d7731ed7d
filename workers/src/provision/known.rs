//! Makes the zooid instances of this process known: people see them, and one that no process knows is forgotten
//! after ten minutes.

use std::time::Duration;

use tender_jobs::provision::instance;
use tokio_util::sync::CancellationToken;

use super::Context;
use crate::runtime::{Trouble, pause_or_stop};

/// The time between two notes; a note younger than a minute is not repeated.
const EVERY: Duration = Duration::from_secs(30);

/// Notes the instances now, and again until `shutdown`. A claim needs no note: it adds the row that it needs.
pub(super) async fn run(context: Context, shutdown: CancellationToken) {
    let (names, mut trouble) = (context.instances.names(), Trouble::default());
    loop {
        match instance::register(&context.db, &names).await {
            Ok(()) => {
                let _ended = trouble.ends();
            }
            Err(error) => {
                if trouble.begins() {
                    tracing::warn!(%error, "could not note the zooid instances; trying again in 30 s");
                }
            }
        }
        if pause_or_stop(EVERY, &shutdown).await {
            return;
        }
    }
}
