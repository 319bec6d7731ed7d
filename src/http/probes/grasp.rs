//! The metrics of the GRASP wing. They are read from the ledger, so every process reports the same
//! values. Each look makes all of them anew, so a relay that is dropped leaves none behind.

use chrono::{DateTime, Utc};
use metrics::{counter, gauge, with_local_recorder};
use metrics_exporter_prometheus::PrometheusBuilder;
use tender_jobs::{
    grasp::{
        family::Source,
        policy::Reason,
        view::{
            self, BatchCount, Decision, Overview, ParkedGroup, RelayRow, RelaySearch, RelayState,
            ServiceRow,
        },
    },
    queue,
};

use super::Api;
use crate::telemetry::catalogue;

/// The most followed relays that are reported one by one.
const MOST_RELAYS: i64 = 10_000;

/// Returns the metrics in the text format of Prometheus.
pub(super) async fn measure(api: &Api) -> Result<String, sqlx::Error> {
    let db = &api.db;
    let overview = view::overview(db).await?;
    let relays = view::relays(db, &RelaySearch::default(), MOST_RELAYS).await?;
    let (services, parked) = (view::services(db).await?, view::parked_groups(db).await?);
    let (decisions, batches) = (view::decisions(db).await?, view::batch_counts(db).await?);
    let now = queue::now(db).await?;
    let recorder = PrometheusBuilder::new().build_recorder();
    with_local_recorder(&recorder, || {
        catalogue::describe();
        of_all(&overview, now);
        for one in &relays {
            of_relay(one, now);
        }
        for one in &services {
            of_service(one);
            begin_decisions(&one.url);
        }
        of_parked(&parked, now);
        for one in &decisions {
            of_decision(one);
        }
        for one in &batches {
            of_batches(one);
        }
    });
    Ok(recorder.handle().render())
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn number(count: i64) -> f64 {
    count as f64
}

/// Returns the seconds since a time; 0 without one.
fn age(at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> f64 {
    at.map_or(0.0, |at| number((now - at).num_milliseconds().max(0)) / 1000.0)
}

fn total(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn of_all(overview: &Overview, now: DateTime<Utc>) {
    for state in RelayState::ALL {
        gauge!("tender_grasp_relays", "state" => state.as_str())
            .set(number(overview.relays_in(state)));
    }
    for of in &overview.coverage {
        gauge!("tender_grasp_items", "family" => of.family.clone(), "state" => of.state.clone())
            .set(number(of.items));
    }
    gauge!("tender_grasp_services").set(number(overview.enabled));
    gauge!("tender_grasp_processes").set(number(overview.processes));
    gauge!("tender_grasp_batches_open").set(number(overview.open_batches));
    gauge!("tender_grasp_batch_oldest_seconds").set(age(overview.oldest_batch_at, now));
    gauge!("tender_grasp_outbox_relays").set(number(overview.outbox));
    gauge!("tender_grasp_outbox_lag_seconds").set(age(overview.outbox_due_at, now));
    gauge!("tender_grasp_releases_waiting").set(number(overview.releases));
}

/// A relay has the series of its present state only.
fn of_relay(one: &RelayRow, now: DateTime<Utc>) {
    let gauge =
        |name: &'static str, value: f64| gauge!(name, "relay" => one.url.clone()).set(value);
    let attempts = |result: &'static str, number: i64| {
        counter!("tender_grasp_connection_attempts_total", "relay" => one.url.clone(), "result" => result)
            .absolute(total(number));
    };
    gauge!("tender_grasp_relay_state", "relay" => one.url.clone(), "state" => one.state.as_str())
        .set(1.0);
    if let Some(holder) = &one.holder {
        gauge!("tender_grasp_relay_holder", "relay" => one.url.clone(), "process" => holder.clone())
            .set(1.0);
    }
    attempts("success", one.connects);
    attempts("failure", one.attempts - one.connects);
    for (state, items) in
        [("missing", one.missing), ("in_flight", one.in_flight), ("confirmed", one.confirmed)]
    {
        gauge!("tender_grasp_coverage", "relay" => one.url.clone(), "state" => state)
            .set(number(items));
    }
    gauge("tender_grasp_relay_failures", f64::from(one.failures));
    gauge("tender_grasp_oldest_missing_seconds", age(one.oldest_missing_at, now));
    gauge("tender_grasp_subscriptions", f64::from(one.subscriptions));
    gauge("tender_grasp_subscriptions_closed", f64::from(one.subscriptions_closed));
    gauge("tender_grasp_overflow_filters", f64::from(one.overflow));
    gauge("tender_grasp_gaps", number(one.gaps));
    of_events(one);
}

fn of_events(one: &RelayRow) {
    for (outcome, events) in [("received", one.received), ("stored", one.stored)] {
        counter!("tender_grasp_relay_events_total", "relay" => one.url.clone(), "outcome" => outcome)
            .absolute(total(events));
    }
    counter!("tender_grasp_drift_events_total", "relay" => one.url.clone())
        .absolute(total(one.drift_total));
}

fn of_service(one: &ServiceRow) {
    let gauge =
        |name: &'static str, value: f64| gauge!(name, "service" => one.url.clone()).set(value);
    gauge("tender_grasp_repositories", number(one.repositories));
    gauge("tender_grasp_relays_over_limit", f64::from(one.relays_over_limit));
    gauge("tender_grasp_refuses_others", f64::from(u8::from(one.refuses_others.is_some())));
}

fn of_parked(groups: &[ParkedGroup], now: DateTime<Utc>) {
    for one in groups {
        gauge!("tender_grasp_parked", "service" => one.service.clone(), "reason" => one.reason.clone())
            .set(number(one.events));
    }
    let oldest = groups.iter().map(|one| one.oldest_at).min();
    gauge!("tender_grasp_parked_oldest_seconds").set(age(oldest, now));
}

/// Begins the decisions of a service at 0, so that the first one is seen as an increase.
fn begin_decisions(service: &str) {
    for source in Source::ALL {
        counter!("tender_grasp_events_total", "service" => service.to_owned(), "source" => source.as_str())
            .absolute(0);
    }
    for reason in Reason::ALL {
        counter!("tender_grasp_refused_total", "service" => service.to_owned(), "reason" => reason.as_str())
            .absolute(0);
    }
}

fn of_decision(one: &Decision) {
    let (service, name) = (one.service.clone(), one.name.clone());
    let counter = if one.outcome == "accepted" {
        counter!("tender_grasp_events_total", "service" => service, "source" => name)
    } else {
        counter!("tender_grasp_refused_total", "service" => service, "reason" => name)
    };
    counter.absolute(total(one.events));
}

fn of_batches(one: &BatchCount) {
    counter!("tender_grasp_batches_total", "relay" => one.url.clone(), "purpose" => one.purpose.clone(),
        "method" => one.method.clone(), "outcome" => one.outcome.clone())
    .absolute(total(one.batches));
    counter!("tender_grasp_pages_total", "relay" => one.url.clone(), "purpose" => one.purpose.clone(),
        "method" => one.method.clone(), "outcome" => one.outcome.clone())
    .absolute(total(one.pages));
}
