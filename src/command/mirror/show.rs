//! `mirror show`: one upstream with its lanes.

use serde_json::{Value, json};
use sqlx::PgPool;
use tender_jobs::{
    mirror::{
        deployment,
        event::{self, ReasonCount},
        lane,
        upstream::{self, Upstream},
    },
    provision::relay::{self, RelayId},
    queue,
};

use super::{
    gaps,
    status::{lanes_json, print_lanes},
    upstream::{named, negentropy_of, yes},
};
use crate::command::print;

/// Returns what is known of the uploads that the upstream takes.
pub(super) fn uploads_of(upstream: &Upstream) -> String {
    match (&upstream.authors_only_reason, upstream.direction.uploads()) {
        (Some(reason), _) => {
            format!("only events of our own key, since it refused others: {reason}")
        }
        (None, true) if upstream.admission => "accepted events only".to_owned(),
        (None, true) => "all events".to_owned(),
        (None, false) => "none".to_owned(),
    }
}

/// Returns the counts of rejected events, such as `3 malformed, 1 too-large`.
fn counts(rejected: &[ReasonCount]) -> String {
    let counts = rejected.iter().map(|one| format!("{} {}", one.events, one.reason));
    let counts = counts.collect::<Vec<_>>().join(", ");
    if counts.is_empty() { "none".to_owned() } else { counts }
}

pub(super) async fn show(db: &PgPool, name: &str, json: bool) -> anyhow::Result<()> {
    let upstream = named(db, name).await?;
    let stale = 60 * deployment::settings(db).await?.stale_threshold_minutes;
    let lanes = lane::states_of(db, upstream.id, stale).await?;
    let gaps = gaps::of(db, &lanes).await?;
    let learned = upstream::learned(db, upstream.id).await?;
    let rejected = event::rejected_of(db, upstream.id).await?;
    if json {
        let lanes = lanes_json(&lanes)?;
        return print::json(&json!({
            "upstream": upstream, "learned": learned, "lanes": lanes, "gaps": gaps, "rejected": rejected,
        }));
    }
    let now = queue::now(db).await?;
    let hosted = match upstream.relay_id.as_deref().and_then(|id| id.parse::<RelayId>().ok()) {
        Some(id) => relay::find(db, &id).await?.map(|relay| relay.host()).unwrap_or_default(),
        None => "-".to_owned(),
    };
    print::pairs(&[
        ("url", upstream.url.clone()),
        ("id", upstream.id.to_string()),
        ("enabled", yes(upstream.enabled).to_owned()),
        ("direction", upstream.direction.to_string()),
        ("backfill", yes(upstream.backfill).to_owned()),
        ("negentropy", negentropy_of(&upstream)),
        ("live", yes(upstream.live).to_owned()),
        ("hosted relay", hosted),
        ("private addresses", yes(upstream.allow_private).to_owned()),
        ("config", upstream.config.to_string()),
        ("uploads", uploads_of(&upstream)),
        ("rejected events", counts(&rejected)),
        (
            "NIP-11 document",
            upstream.information.as_ref().map_or_else(|| "-".to_owned(), Value::to_string),
        ),
        ("learned", learned.sentences().join("; ")),
        ("notes", print::visible(upstream.notes.as_deref().unwrap_or_default())),
    ])?;
    print::line("")?;
    print_lanes(&lanes, now)?;
    gaps::print(&lanes, &gaps, now)
}
