//! Gauges of provisioning.

use chrono::{DateTime, Utc};
use metrics::gauge;
use tender_jobs::provision::{instance, relay};

use super::Api;

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub(super) async fn measure(api: &Api, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    let summary = relay::summary(&api.db).await?;
    for (state, count) in [
        ("synced", summary.synced),
        ("pending", summary.pending),
        ("retrying", summary.retrying),
        ("gave_up", summary.gave_up),
    ] {
        gauge!("tender_relays", "state" => state).set(count as f64);
    }
    let oldest = summary.oldest_pending_at.map_or(0, |at| (now - at).num_milliseconds().max(0));
    gauge!("tender_oldest_pending_seconds").set(oldest as f64 / 1000.0);
    gauge!("tender_relays", "state" => "switched_off").set(summary.inactive as f64);
    for instance in instance::list(&api.db).await? {
        let open = f64::from(u8::from(instance.is_out()));
        let refused = f64::from(u8::from(instance.is_out() && instance.refuses_key));
        let name = instance.name;
        gauge!("tender_zooid_key_refused", "zooid" => name.clone()).set(refused);
        gauge!("tender_zooid_calls_allowed", "zooid" => name.clone())
            .set(instance.calls_allowed.unwrap_or_default().floor());
        gauge!("tender_breaker_open", "zooid" => name.clone()).set(open);
        gauge!("tender_zooid_in_flight", "zooid" => name).set(instance.in_flight as f64);
    }
    Ok(())
}
