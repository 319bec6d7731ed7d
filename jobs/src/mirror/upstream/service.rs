//! Upstreams that are the relay of a GRASP service: the mirror keeps their own feed and their uploads.

use super::{Change, Upstream};

/// Returns what a change stops of the service whose relay the upstream is; `None` if it stops nothing. A relay
/// that we host on zooid never has uploads.
pub(super) fn stops(change: &Change, updated: &Upstream) -> Option<&'static str> {
    let direction = updated.direction;
    let is_fed = updated.enabled && (updated.live || updated.backfill) && direction.downloads();
    let is_filled = updated.enabled && (direction.uploads() || updated.relay_id.is_some());
    let asks = [change.enabled, change.live, change.backfill].contains(&Some(false));
    let turns = change.direction.is_some();
    match (is_fed, is_filled) {
        _ if !updated.admission => None,
        (false, _) if asks || turns => Some("its own feed"),
        (_, false) if change.enabled == Some(false) || turns => Some("the uploads to its relay"),
        _ => None,
    }
}
