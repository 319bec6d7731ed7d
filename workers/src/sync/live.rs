//! Live: a standing subscription per upstream that wants one, held by one process at a time. What comes
//! is put into the queue; polls stay as the safety net, and one runs whenever a subscription begins, so
//! that nothing falls between.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

use serde_json::json;
use sqlx::PgPool;
use tender_jobs::{
    event,
    lane::{self, LaneKind},
    queue::{self, Work},
    upstream::{self, Upstream, settings::Settings},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    connection::{Connection, Heard},
    error::StepError,
    intake::{BATCH, FLUSH_AFTER},
    orchestrate,
};
use crate::Context;

/// How often it is seen who holds what.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A holder that was silent for this long has lost its subscriptions.
const STALE: Duration = Duration::from_secs(35);
/// Rest after the last attempt to connect.
const REST: Duration = Duration::from_mins(5);
/// Bytes of one job's events.
const MAX_BYTES: usize = 1024 * 1024;

/// A subscription that this process holds.
struct Held {
    url: String,
    stop: CancellationToken,
}

/// Holds what it can get until `shutdown`.
pub(crate) async fn run(context: Context, shutdown: CancellationToken) {
    let process = format!("{} {}", context.settings.process, Uuid::new_v4().simple());
    let mut held: HashMap<Uuid, Held> = HashMap::new();
    loop {
        if let Err(error) = look(&context, &process, &mut held, &shutdown).await {
            tracing::warn!(%error, "could not see to the standing subscriptions; the next look does");
        }
        if tokio::time::timeout(LOOK_EVERY, shutdown.cancelled()).await.is_ok() {
            break;
        }
    }
    for lane in held.keys() {
        if let Err(error) = lane::release_live(&context.db, *lane, &process).await {
            tracing::debug!(%error, "a standing subscription is freed when its lease is over");
        }
    }
}

async fn look(
    context: &Context,
    process: &str,
    held: &mut HashMap<Uuid, Held>,
    shutdown: &CancellationToken,
) -> Result<(), sqlx::Error> {
    let mut wanted = Vec::new();
    for upstream in upstream::list(&context.db).await? {
        if upstream.live && upstream.enabled {
            let settings = upstream.settings(&context.settings.sync.settings);
            if upstream.direction.uploads() {
                // What is pushed at once needs its lane.
                lane::ensure(&context.db, &upstream, LaneKind::Upload, &settings).await?;
            }
            if LaneKind::Live.is_for(&upstream) {
                let lane = lane::ensure(&context.db, &upstream, LaneKind::Live, &settings).await?;
                wanted.push((lane.id, upstream, settings));
            }
        }
    }
    let is_wanted = |lane: &Uuid, one: &Held| {
        wanted.iter().any(|(id, upstream, _)| id == lane && upstream.url == one.url)
    };
    let gone: Vec<Uuid> =
        held.iter().filter(|(lane, one)| !is_wanted(lane, one)).map(|(lane, _)| *lane).collect();
    for lane in gone {
        if let Some(one) = held.remove(&lane) {
            one.stop.cancel();
        }
        lane::release_live(&context.db, lane, process).await?;
    }
    for (lane, upstream, settings) in wanted {
        let is_ours = lane::claim_live(&context.db, lane, process, STALE).await?.is_some();
        if !is_ours {
            if let Some(one) = held.remove(&lane) {
                one.stop.cancel();
            }
        } else if let Entry::Vacant(free) = held.entry(lane) {
            let stop = shutdown.child_token();
            free.insert(Held { url: upstream.url.clone(), stop: stop.clone() });
            let follow = follow(context.clone(), lane, upstream, settings);
            tokio::spawn(async move { stop.run_until_cancelled(follow).await });
        }
    }
    Ok(())
}

/// Subscribes, again and again.
async fn follow(context: Context, lane: Uuid, upstream: Upstream, settings: Settings) {
    let mut attempt = 0;
    loop {
        let begun = std::time::Instant::now();
        let error = match subscribe(&context, lane, &upstream, &settings).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        // A connection that held for a minute was a good one.
        attempt = if begun.elapsed() > Duration::from_mins(1) { 1 } else { attempt + 1 };
        let is_last = attempt > settings.max_reconnect_attempts;
        let wait = if is_last {
            attempt = 0;
            REST
        } else {
            Duration::from_secs(settings.reconnect_delay_seconds.saturating_mul(attempt))
        };
        tracing::warn!(url = upstream.url, %error, wait_secs = wait.as_secs(), "a standing subscription ended");
        let _time = tokio::time::timeout(wait, std::future::pending::<()>()).await;
    }
}

/// Nothing: a subscription ends only with an error.
enum Never {}

async fn subscribe(
    context: &Context,
    lane: Uuid,
    upstream: &Upstream,
    settings: &Settings,
) -> Result<Never, StepError> {
    let connection = context.connections.get(upstream).await?;
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
    let mut subscription = connection.subscribe("live");
    let mut filter = settings.download_filter().to_json();
    filter.insert("since".to_owned(), json!(queue::now(&context.db).await?.timestamp()));
    filter.insert("limit".to_owned(), json!(0));
    connection.send(&json!(["REQ", subscription.id(), filter])).await?;
    tracing::info!(url = upstream.url, "a standing subscription begins");
    // What came since the last poll, and until now.
    let realtime = LaneKind::Realtime;
    orchestrate::dispatch(
        &context.db,
        &context.settings.sync.settings,
        realtime,
        Some(upstream.id),
        true,
    )
    .await?;
    let mut batch = Batch::default();
    loop {
        let wait = if batch.texts.is_empty() { Duration::from_hours(1) } else { FLUSH_AFTER };
        match subscription.next(wait).await {
            Ok(Heard::Event(text)) => {
                batch.add(text);
                if !batch.is_full() {
                    continue;
                }
            }
            Ok(Heard::Closed(why)) => return Err(StepError::of_closed(&why)),
            Ok(_) => continue,
            Err(StepError::Silent(_)) => {}
            Err(error) => {
                batch.flush(&context.db, lane, upstream, settings).await?;
                return Err(error);
            }
        }
        batch.flush(&context.db, lane, upstream, settings).await?;
    }
}

/// Events that go into the queue together.
#[derive(Default)]
struct Batch {
    texts: Vec<String>,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, text: String) {
        self.bytes += text.len();
        self.texts.push(text);
    }

    fn is_full(&self) -> bool {
        self.texts.len() >= BATCH || self.bytes >= MAX_BYTES
    }

    /// Enqueues what is not known yet; our own uploads come back here too.
    async fn flush(
        &mut self,
        db: &PgPool,
        lane: Uuid,
        upstream: &Upstream,
        settings: &Settings,
    ) -> Result<(), StepError> {
        let texts = std::mem::take(&mut self.texts);
        self.bytes = 0;
        if texts.is_empty() {
            return Ok(());
        }
        let limits = settings.limits();
        let ids: Vec<_> = texts
            .iter()
            .map(|text| event::parse(text, limits).ok().map(|event| event.id))
            .collect();
        let parsed: Vec<_> = ids.iter().copied().flatten().collect();
        let known = event::known(db, upstream.id, &parsed).await?;
        let received = i64::try_from(texts.len()).unwrap_or(i64::MAX);
        let is_new = |id: &Option<_>| id.is_none_or(|id| !known.ids.contains(&id));
        let events: Vec<String> = texts
            .into_iter()
            .zip(&ids)
            .filter(|(_, id)| is_new(id))
            .map(|(text, _)| text)
            .collect();
        if !events.is_empty() {
            let mut connection = db.acquire().await?;
            let work = Work::ProcessEvents { upstream: upstream.id, events };
            queue::push(&mut connection, &work, Duration::ZERO).await?;
        }
        lane::note(db, lane, received).await?;
        Ok(())
    }
}
