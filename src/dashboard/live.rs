//! Live parts: each open page has a stream. The server reads the part once a second; the stream sends it
//! when it has changed, and otherwise says that it was read.

pub(super) mod pages;

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse,
        sse::{Event, Sse},
    },
};
use futures_util::stream;
use pages::{Answer, Part};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Interval, MissedTickBehavior, interval},
};

use super::{Dashboard, fleet, parts::Problem, session, session::Viewer};

/// The most streams that a process serves at the same time.
pub(super) const MOST_STREAMS: usize = 200;
/// The interval between two reads of a page.
const INTERVAL: Duration = Duration::from_secs(1);
/// Reads between two checks that the session is still valid.
const SESSION_READS: u32 = 10;

/// Returns the number of items that need attention, for the title of a hidden tab. It has no stream.
pub(super) async fn attention(State(dashboard): State<Dashboard>) -> Result<String, Problem> {
    Ok(fleet::read(&dashboard).await?.attention().len().to_string())
}

/// The state of a stream.
struct Stream {
    dashboard: Dashboard,
    viewer: Viewer,
    headers: HeaderMap,
    part: Part,
    ticks: Interval,
    reads: u32,
    /// The markup that was sent last.
    last: String,
    /// The number of items that need attention that was sent last.
    attention: Option<usize>,
    /// Messages that are not sent yet, the first last.
    waiting: Vec<Message>,
    is_over: bool,
    _permit: OwnedSemaphorePermit,
}

/// A message to a page.
enum Message {
    /// The part, which has changed.
    Part(String),
    /// The part was read and is as it was. Sent after every read, so the page knows the age of what it shows.
    Read,
    /// The number of items that need attention, which has changed.
    Attention(usize),
    /// The database did not answer; the stream tries again.
    Failed,
    /// The session has ended, and so does the stream.
    Ended,
    /// The thing on the page does not exist any more; the stream ends.
    Gone,
}

impl Message {
    fn event(self) -> Event {
        match self {
            Self::Part(markup) => Event::default().data(markup),
            Self::Read => Event::default().event("read").data(""),
            Self::Attention(items) => Event::default().event("attention").data(items.to_string()),
            Self::Failed => Event::default().event("failed").data(""),
            Self::Ended => Event::default().event("ended").data(""),
            Self::Gone => Event::default().event("gone").data(""),
        }
    }
}

/// Starts a stream. It ends when the session ends, the process stops, or the page is closed.
fn open(dashboard: Dashboard, viewer: Viewer, headers: HeaderMap, part: Part) -> Answer {
    let permit = dashboard.streams.clone().try_acquire_owned().map_err(|_| Problem::Busy)?;
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stream = Stream {
        dashboard,
        viewer,
        headers,
        part,
        ticks,
        reads: 0,
        last: String::new(),
        attention: None,
        waiting: Vec::new(),
        is_over: false,
        _permit: permit,
    };
    let events = stream::unfold(stream, |mut stream| async move {
        let message = stream.next().await?;
        Some((Ok::<_, Infallible>(message.event()), stream))
    });
    Ok(Sse::new(events).into_response())
}

impl Stream {
    /// Returns the next message, after the next read if none waits. Returns `None` at the end.
    async fn next(&mut self) -> Option<Message> {
        let shutdown = self.dashboard.shutdown.clone();
        while self.waiting.is_empty() {
            if self.is_over {
                return None;
            }
            shutdown.run_until_cancelled(self.ticks.tick()).await?;
            self.read().await;
        }
        self.waiting.pop()
    }

    /// Reads the page once. At least one message waits then.
    async fn read(&mut self) {
        self.reads += 1;
        if self.reads.is_multiple_of(SESSION_READS) && !self.is_valid().await {
            return self.end(Message::Ended);
        }
        match self.part.render(&self.dashboard, &self.viewer).await {
            Ok(markup) => self.rendered(markup.0).await,
            // The next read tries again.
            Err(Problem::Database) => self.waiting.push(Message::Failed),
            Err(_) => self.end(Message::Gone),
        }
    }

    async fn rendered(&mut self, markup: String) {
        if let Ok(fleet) = fleet::read(&self.dashboard).await {
            let attention = fleet.attention().len();
            if self.attention.replace(attention) != Some(attention) {
                self.waiting.push(Message::Attention(attention));
            }
        }
        if markup == self.last {
            self.waiting.push(Message::Read);
        } else {
            self.last.clone_from(&markup);
            self.waiting.push(Message::Part(markup));
        }
    }

    fn end(&mut self, message: Message) {
        self.waiting.push(message);
        self.is_over = true;
    }

    /// Whether the session is still valid. A database error does not end the stream.
    async fn is_valid(&self) -> bool {
        match session::viewer(&self.dashboard, &self.headers).await {
            Ok(viewer) => viewer.is_some(),
            Err(_) => true,
        }
    }
}
