//! The task that reads a connection's socket.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{Connection, add, cut};
use crate::mirror::{
    message::{self, Message},
    socket::{self, Broken, Incoming, Outgoing, Reader},
};

/// A connection that has not been used for this long is closed.
const IDLE_FOR: Duration = Duration::from_mins(5);
/// More unreadable messages than this in a minute end the connection.
const MAX_MALFORMED: u32 = 100;

/// Unreadable messages in the current minute.
struct Malformed {
    since: Instant,
    messages: u32,
}

impl Malformed {
    /// Counts one. An error says why the connection must end.
    fn count(&mut self) -> Result<(), String> {
        if self.since.elapsed() > Duration::from_mins(1) {
            *self = Self { since: Instant::now(), messages: 0 };
        }
        self.messages += 1;
        if self.messages > MAX_MALFORMED {
            return Err(format!(
                "the upstream sent more than {MAX_MALFORMED} unreadable messages in a minute"
            ));
        }
        Ok(())
    }
}

impl Connection {
    /// Reads until the connection is lost.
    pub(super) async fn read_all(self, mut reader: Reader) {
        let mut lost = self.0.lost.subscribe();
        let broken = tokio::select! {
            Err(broken) = self.read(&mut reader) => broken,
            _ = lost.wait_for(Option::is_some) => return,
        };
        self.0.lost_by_compression.store(broken.is_compression, Ordering::Relaxed);
        self.lose(&broken.why);
    }

    async fn read(&self, reader: &mut Reader) -> Result<Never, Broken> {
        let mut malformed = Malformed { since: Instant::now(), messages: 0 };
        let mut is_asked = false;
        loop {
            match socket::read(reader, &self.0.target).await? {
                Incoming::Quiet if is_asked => {
                    return Err("the upstream did not answer a ping in time".into());
                }
                Incoming::Quiet if self.is_idle() => {
                    self.close("closed by us: not used for 5 min");
                }
                Incoming::Quiet => {
                    is_asked = true;
                    let _full_means_busy = self.0.outgoing.try_send(Outgoing::Ping);
                }
                Incoming::Alive => is_asked = false,
                Incoming::Text(text) => {
                    is_asked = false;
                    self.take(text, &mut malformed).await.map_err(Broken::from)?;
                }
                Incoming::TooLarge { start, end, size } => {
                    is_asked = false;
                    add(&self.0.bytes_in, size);
                    let message = message::large(&start, &end, size);
                    drop((start, end));
                    self.take_parsed(message, &mut malformed).await.map_err(Broken::from)?;
                }
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.unused_since().is_some_and(|since| since.elapsed() > IDLE_FOR)
    }

    /// Parses and routes a message. The text is dropped before the message waits for its consumer.
    /// An error says why the connection must end.
    async fn take(&self, text: Bytes, malformed: &mut Malformed) -> Result<(), String> {
        add(&self.0.bytes_in, text.len());
        let message = std::str::from_utf8(&text).ok().and_then(message::parse);
        if message.is_none() {
            let message = cut(&String::from_utf8_lossy(&text[..text.len().min(4096)]));
            let url = &self.0.target.url;
            tracing::debug!(url, message, "message unreadable; ignored");
        }
        drop(text);
        self.take_parsed(message, malformed).await
    }

    async fn take_parsed(
        &self,
        message: Option<Message>,
        malformed: &mut Malformed,
    ) -> Result<(), String> {
        match message {
            // An event over its limit is not queued.
            Some(Message::Event(id, event)) if event.len() > self.0.max_event => {
                let unusable = message::too_large(&event);
                drop(event);
                self.route(Message::TooLarge(id, unusable)).await
            }
            Some(message) => self.route(message).await,
            None => malformed.count(),
        }
    }
}

/// A type without values: reading ends only with an error.
enum Never {}
