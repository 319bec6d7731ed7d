//! Live parts: each open page has a stream that sends its part again when it is different.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::{Path, Query, State},
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use maud::Markup;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Interval, MissedTickBehavior, interval},
};

use super::{
    Dashboard, events, fleet, jobs, parts::Problem, queues, relay, relays, session,
    session::Viewer, upstreams,
};

/// Streams of this process at the same time.
pub(super) const MOST_STREAMS: usize = 200;
/// A change is on the page within this time and that of reading it.
const LOOK: Duration = Duration::from_secs(1);
/// Looks between two checks that the session still holds.
const SESSION_LOOKS: u32 = 10;

/// The part of a page that changes by itself.
enum Part {
    Fleet,
    Relays(relays::Shown),
    Relay(String),
    Queues,
    Job(String),
    Upstreams,
    Upstream(String),
    Events,
}

impl Part {
    async fn render(&self, dashboard: &Dashboard, viewer: &Viewer) -> Result<Markup, Problem> {
        Ok(match self {
            Self::Fleet => fleet::live(&*fleet::look(dashboard).await?, viewer),
            Self::Relays(shown) => relays::table(dashboard, shown).await?,
            Self::Relay(id) => {
                relay::live(dashboard, &relay::find(dashboard, id).await?, viewer).await?
            }
            Self::Queues => queues::live(dashboard, viewer).await?,
            Self::Job(id) => jobs::live(&jobs::find(dashboard, id).await?, viewer),
            Self::Upstreams => upstreams::table(dashboard).await?,
            Self::Upstream(id) => {
                let upstream = upstreams::find(dashboard, id).await?;
                upstreams::live(dashboard, &upstream, viewer).await?
            }
            Self::Events => events::live(dashboard).await?,
        })
    }
}

type Answer = Result<Response, Problem>;

pub(super) async fn fleet(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
) -> Answer {
    open(dashboard, viewer, headers, Part::Fleet)
}

pub(super) async fn relays(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
    Query(shown): Query<relays::Shown>,
) -> Answer {
    open(dashboard, viewer, headers, Part::Relays(shown))
}

pub(super) async fn relay(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Answer {
    relay::find(&dashboard, &id).await?;
    open(dashboard, viewer, headers, Part::Relay(id))
}

pub(super) async fn queues(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
) -> Answer {
    open(dashboard, viewer, headers, Part::Queues)
}

pub(super) async fn job(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Answer {
    jobs::find(&dashboard, &id).await?;
    open(dashboard, viewer, headers, Part::Job(id))
}

pub(super) async fn upstreams(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
) -> Answer {
    open(dashboard, viewer, headers, Part::Upstreams)
}

pub(super) async fn upstream(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Answer {
    upstreams::find(&dashboard, &id).await?;
    open(dashboard, viewer, headers, Part::Upstream(id))
}

pub(super) async fn events(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
) -> Answer {
    open(dashboard, viewer, headers, Part::Events)
}

/// What a stream carries from look to look.
struct Looking {
    dashboard: Dashboard,
    viewer: Viewer,
    headers: HeaderMap,
    part: Part,
    ticks: Interval,
    looks: u32,
    last: String,
    _permit: OwnedSemaphorePermit,
}

/// Starts a stream. It ends with its session, with the process, and with the page.
fn open(dashboard: Dashboard, viewer: Viewer, headers: HeaderMap, part: Part) -> Answer {
    let permit = dashboard.streams.clone().try_acquire_owned().map_err(|_| Problem::Busy)?;
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let last = String::new();
    let looking =
        Looking { dashboard, viewer, headers, part, ticks, looks: 0, last, _permit: permit };
    let stream = stream::unfold(looking, |mut looking| async move {
        let text = looking.next().await?;
        Some((Ok::<_, Infallible>(Event::default().data(text)), looking))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()).into_response())
}

impl Looking {
    /// The part, when it is different from what was sent last; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        let shutdown = self.dashboard.shutdown.clone();
        loop {
            shutdown.run_until_cancelled(self.ticks.tick()).await?;
            self.looks += 1;
            if self.looks.is_multiple_of(SESSION_LOOKS) && !self.holds().await {
                return None;
            }
            // A database that does not answer is the next look's business; what is gone ends it.
            match self.part.render(&self.dashboard, &self.viewer).await {
                Ok(markup) if markup.0 != self.last => {
                    self.last.clone_from(&markup.0);
                    return Some(markup.0);
                }
                Ok(_) | Err(Problem::Database) => {}
                Err(_) => return None,
            }
        }
    }

    async fn holds(&self) -> bool {
        match session::viewer(&self.dashboard, &self.headers).await {
            Ok(viewer) => viewer.is_some(),
            Err(_) => true,
        }
    }
}
