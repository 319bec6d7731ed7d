//! `grasp status`: sums over the wing.

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgPool;
use tender_jobs::{
    grasp::view::{self, Overview, ParkedGroup},
    queue,
};

use crate::{
    command::print,
    words::{counted, grasp as words},
};

pub(super) async fn print(db: &PgPool, as_json: bool) -> anyhow::Result<()> {
    let (overview, parked) = (view::overview(db).await?, view::parked_groups(db).await?);
    if as_json {
        return print::json(&json!({ "overview": overview, "parked": parked }));
    }
    print::pairs(&facts(&overview, &parked, queue::now(db).await?))
}

fn facts(
    overview: &Overview,
    parked: &[ParkedGroup],
    now: DateTime<Utc>,
) -> Vec<(&'static str, String)> {
    let ago = |at: Option<DateTime<Utc>>, what: &str| {
        at.map(|at| format!(", {what} {}", print::relative(at, now))).unwrap_or_default()
    };
    let relays = overview.relays.iter().map(|(state, of)| format!("{of} {}", words::name(*state)));
    let by_reason = parked.iter().map(|group| format!("{} {}", group.events, group.reason));
    let total: i64 = parked.iter().map(|group| group.events).sum();
    vec![
        ("services", format!("{} ({} enabled)", overview.services, overview.enabled)),
        ("processes", overview.processes.to_string()),
        ("followed relays", listed(overview.relays_total(), relays)),
        (
            "coverage",
            format!(
                "{} delivered, {} in flight, {} missing",
                counted(overview.items_in("confirmed"), "item"),
                overview.items_in("in_flight"),
                overview.items_in("missing"),
            ),
        ),
        (
            "open batches",
            format!(
                "{}{}",
                overview.open_batches,
                ago(overview.oldest_batch_at, "the oldest begun")
            ),
        ),
        (
            "waiting for a plan",
            format!("{}{}", overview.outbox, ago(overview.outbox_due_at, "due since")),
        ),
        ("gaps", overview.gaps.to_string()),
        ("parked events", listed(total, by_reason)),
        ("to be judged again", overview.releases.to_string()),
    ]
}

/// Returns a total with its parts, such as `3 (2 in step, 1 dead)`.
fn listed(total: i64, parts: impl Iterator<Item = String>) -> String {
    match total {
        0 => "0".to_owned(),
        total => format!("{total} ({})", parts.collect::<Vec<_>>().join(", ")),
    }
}
