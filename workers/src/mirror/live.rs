//! Live: a standing subscription for each live upstream, held by one process at a time. Received
//! events are put into the queue. Polling continues as the safety net, and a poll runs whenever a
//! subscription begins, so that no event is missed in between.

mod batch;

use std::{
    collections::{HashMap, hash_map::Entry},
    time::{Duration, Instant},
};

use serde_json::json;
use sqlx::PgPool;
use tender_jobs::mirror::{
    deployment,
    lane::{self, LaneKind, LiveFailure},
    upstream::{self, Upstream, settings::Settings},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use batch::Batch;

use super::{
    Context,
    connection::{Connection, Heard, Subscription},
    error::StepError,
    intake::FLUSH_AFTER,
    orchestrate,
};
use crate::runtime::{Trouble, pause, pause_or_stop};

/// How often this process renews its subscriptions and looks for free ones.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A holder without a heartbeat for this long loses its subscriptions.
const STALE: Duration = Duration::from_secs(35);
/// The pause after the last attempt to connect.
const REST: Duration = Duration::from_mins(5);

/// A subscription that this process holds.
struct Held {
    url: String,
    stop: CancellationToken,
}

/// A live lane that should have a holder.
struct Wanted {
    lane: Uuid,
    upstream: Upstream,
    settings: Settings,
}

/// The subscriptions of this process, by lane.
type Subscriptions = HashMap<Uuid, Held>;

/// Holds the subscriptions that no other process holds, until the process stops.
pub(super) async fn run(context: Context) {
    let process = format!("{} {}", context.process, Uuid::new_v4().simple());
    let mut held = Subscriptions::new();
    loop {
        if let Err(error) = look(&context, &process, &mut held).await {
            tracing::warn!(%error, "could not renew the standing subscriptions; trying again in 10 s");
        }
        if pause_or_stop(LOOK_EVERY, &context.stopping).await {
            break;
        }
    }
    for lane in held.keys() {
        if let Err(error) = lane::release_live(&context.db, *lane, &process).await {
            tracing::debug!(%lane, %error, "could not release a live lane; it is free after 35 s");
        }
    }
}

/// Ends the subscriptions that are not wanted any more, renews the others, and begins those that
/// are free.
async fn look(
    context: &Context,
    process: &str,
    held: &mut Subscriptions,
) -> Result<(), sqlx::Error> {
    let wanted = wanted(context).await?;
    end_unwanted(context, process, held, &wanted).await?;
    for Wanted { lane, upstream, settings } in wanted {
        if lane::claim_live(&context.db, lane, process, STALE).await?.is_none() {
            end(held, lane);
        } else if let Entry::Vacant(free) = held.entry(lane) {
            free.insert(begin(context, lane, upstream, settings));
        }
    }
    Ok(())
}

/// Returns the live lanes that should have a holder. A live upstream that takes events gets its
/// upload lane here, because new events are sent at once only if the lane exists.
async fn wanted(context: &Context) -> Result<Vec<Wanted>, sqlx::Error> {
    let (mut wanted, mut upstreams) = (Vec::new(), upstream::list(&context.db).await?);
    upstreams.retain(|upstream| upstream.live);
    if upstreams.is_empty() {
        return Ok(wanted);
    }
    let deployment = deployment::settings(&context.db).await?;
    context.connections.learn(deployment.clone());
    for upstream in upstreams {
        let settings = upstream.settings(&deployment);
        if upstream.takes_part_in(LaneKind::Upload) {
            lane::ensure(&context.db, &upstream, LaneKind::Upload, &settings).await?;
        }
        if upstream.takes_part_in(LaneKind::Live) {
            let lane = lane::ensure(&context.db, &upstream, LaneKind::Live, &settings).await?;
            wanted.push(Wanted { lane: lane.id, upstream, settings });
        }
    }
    Ok(wanted)
}

/// Ends and releases the subscriptions whose upstream is not live any more, or has another URL.
async fn end_unwanted(
    context: &Context,
    process: &str,
    held: &mut Subscriptions,
    wanted: &[Wanted],
) -> Result<(), sqlx::Error> {
    let is_wanted = |lane: &Uuid, one: &Held| {
        wanted.iter().any(|other| other.lane == *lane && other.upstream.url == one.url)
    };
    let unwanted: Vec<Uuid> =
        held.iter().filter(|(lane, one)| !is_wanted(lane, one)).map(|(lane, _)| *lane).collect();
    for lane in unwanted {
        end(held, lane);
        lane::release_live(&context.db, lane, process).await?;
    }
    Ok(())
}

fn begin(context: &Context, lane: Uuid, upstream: Upstream, settings: Settings) -> Held {
    let held = Held { url: upstream.url.clone(), stop: context.stopping.child_token() };
    let (stop, follow) = (held.stop.clone(), follow(context.clone(), lane, upstream, settings));
    tokio::spawn(async move { stop.run_until_cancelled(Box::pin(follow)).await });
    held
}

fn end(held: &mut Subscriptions, lane: Uuid) {
    if let Some(one) = held.remove(&lane) {
        one.stop.cancel();
    }
}

/// Subscribes, and subscribes again whenever the subscription ends.
async fn follow(context: Context, lane: Uuid, upstream: Upstream, settings: Settings) {
    let (mut attempt, mut trouble) = (0, Trouble::default());
    loop {
        let begun = Instant::now();
        let error = match subscribe(&context, lane, &upstream, &settings).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        // After a connection that lasted for a minute, the attempts are counted anew.
        let has_lasted = begun.elapsed() > Duration::from_mins(1);
        if has_lasted {
            let _ended = trouble.ends();
        }
        attempt = if has_lasted { 1 } else { attempt + 1 };
        let allowed = settings.max_reconnect_attempts + 1;
        let wait = if attempt >= allowed {
            REST
        } else {
            Duration::from_secs(settings.reconnect_delay_seconds.saturating_mul(attempt))
        };
        let wait = wait.max(error.retry_after().unwrap_or_default());
        let (url, wait_secs) = (&upstream.url, wait.as_secs());
        if trouble.begins() {
            tracing::warn!(url, %error, wait_secs, "standing subscription lost; subscribing again");
        }
        note_failure(&context.db, lane, &error, (attempt, allowed), wait).await;
        if attempt >= allowed {
            attempt = 0;
        }
        pause(wait).await;
    }
}

/// Shows the failure on the lane. The next failure or the next confirmation corrects a lost note.
async fn note_failure(
    db: &PgPool,
    lane: Uuid,
    error: &StepError,
    attempt: (u64, u64),
    wait: Duration,
) {
    let error = error.to_string();
    let failure = LiveFailure { error: &error, attempt, wait };
    if let Err(error) = lane::live_failed(db, lane, failure).await {
        tracing::debug!(%lane, %error, "could not note the failure of a standing subscription");
    }
}

/// A type without values: a subscription ends only with an error.
enum Never {}

async fn subscribe(
    context: &Context,
    lane: Uuid,
    upstream: &Upstream,
    settings: &Settings,
) -> Result<Never, StepError> {
    let connection = context.connections.get_live(upstream).await?;
    match listen(context, &connection, lane, upstream, settings).await {
        Err(StepError::Auth(_)) => {
            connection.authenticated().await?;
            listen(context, &connection, lane, upstream, settings).await
        }
        ended => ended,
    }
}

async fn listen(
    context: &Context,
    connection: &Connection,
    lane: Uuid,
    upstream: &Upstream,
    settings: &Settings,
) -> Result<Never, StepError> {
    let mut subscription = open(context, connection, upstream, settings).await?;
    let filter = settings.download_filter();
    let mut batch = Batch::new(&filter, settings.limits(), context.gate_of(upstream));
    // Until the upstream answers. A subscription that it has confirmed may stay silent.
    let mut answer_by = Some(Instant::now() + settings.polling_timeout());
    loop {
        match subscription.next(patience(&batch, answer_by)).await {
            Ok(Heard::Event(event)) => {
                answer_by = None;
                batch.add(event);
                if !batch.is_full() {
                    continue;
                }
            }
            Ok(Heard::Closed(reason)) => return Err(StepError::of_closed(&reason)),
            Ok(Heard::Eose) => {
                answer_by = None;
                lane::live_confirmed(&context.db, lane).await?;
                continue;
            }
            Ok(_) => continue,
            Err(StepError::Silent(_)) if answer_by.is_some() && !subscription.is_over() => {
                return Err(unconfirmed(settings.polling_timeout()));
            }
            // No further event fills the batch.
            Err(StepError::Silent(_)) if !subscription.is_over() => {}
            Err(error) => {
                batch.flush(&context.db, upstream.id, lane).await?;
                return Err(error);
            }
        }
        batch.flush(&context.db, upstream.id, lane).await?;
    }
}

/// How long the next message is waited for.
fn patience(batch: &Batch, answer_by: Option<Instant>) -> Duration {
    match answer_by {
        Some(by) => by.saturating_duration_since(Instant::now()),
        None if batch.is_empty() => Duration::from_hours(1),
        None => FLUSH_AFTER,
    }
}

fn unconfirmed(within: Duration) -> StepError {
    let seconds = within.as_secs();
    StepError::Silent(format!(
        "the upstream has not confirmed the subscription within {seconds} s: it sent no EOSE and no event"
    ))
}

/// Subscribes to new events, and enqueues a poll for those that were published since the last one. The
/// filter has no `since`: a new event may claim any time.
async fn open(
    context: &Context,
    connection: &Connection,
    upstream: &Upstream,
    settings: &Settings,
) -> Result<Subscription, StepError> {
    let subscription = connection.subscribe("live");
    let mut filter = settings.download_filter().to_json();
    filter.insert("limit".to_owned(), json!(0));
    connection.send(&json!(["REQ", subscription.id(), filter])).await?;
    tracing::info!(url = upstream.url, "standing subscription begun");
    orchestrate::dispatch(&context.db, LaneKind::Realtime, Some(upstream.id), true).await?;
    Ok(subscription)
}
