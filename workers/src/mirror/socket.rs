//! A websocket to an upstream. One task reads and routes messages, and one task writes; neither
//! parses events, computes hashes or uses the database.
//!
//! - `dial`: TCP to a checked address, and TLS. `upgrade`: the refusal of an upgrade.
//! - `guard`, `frames`: bound the messages before they are decoded.

mod dial;
mod frames;
mod guard;
mod upgrade;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    Sink, SinkExt, Stream, StreamExt,
    stream::{SplitSink, SplitStream},
};
use reqwest::Url;
use rustls::ClientConfig;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use yawc::{
    CompressionLevel, Frame, HttpRequestBuilder, OpCode, Options, WebSocket, WebSocketError,
    close::CloseCode,
};

use super::error::StepError;
pub(super) use dial::tls;
use guard::Guard;

/// The longest duration of a connect: name lookup, TCP, TLS and upgrade.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);

/// How long a connection waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// The silence after which a ping is sent, and after which an unanswered ping ends the
    /// connection.
    pub(super) ping: Duration,
    /// The longest duration of a write; after that the upstream accepts no messages.
    pub(super) write: Duration,
    /// The longest that a message may stop the socket from being read; then its subscription ends.
    pub(super) route: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let usual = Duration::from_secs(30);
        Self { ping: usual, write: usual, route: usual }
    }
}

/// A websocket whose stream yields errors instead of hiding them.
pub(super) struct Socket(WebSocket<Guard<dial::Stream>>);

impl Stream for Socket {
    type Item = Result<Frame, WebSocketError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_frame(cx).map(Some)
    }
}

impl Sink<Frame> for Socket {
    type Error = WebSocketError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Pin::new(&mut self.0).poll_ready(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, frame: Frame) -> Result<(), Self::Error> {
        Pin::new(&mut self.0).start_send(frame)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

/// A message to the upstream. A text holds its bytes of the connection's budget until it is
/// written.
#[derive(Debug)]
pub(super) enum Outgoing {
    Text(String, Option<OwnedSemaphorePermit>),
    Ping,
    Close,
}

/// The reading half of a websocket.
pub(super) type Reader = SplitStream<Socket>;
/// The writing half of a websocket.
pub(super) type Writer = SplitSink<Socket, Frame>;

/// Where a websocket leads, and its limits.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) url: String,
    /// Whether the host may have an address that is not public.
    pub(super) allow_private: bool,
    /// The longest message that is received, in bytes.
    pub(super) max_message: usize,
    /// Whether compression is offered.
    pub(super) compress: bool,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) patience: Patience,
}

/// Connects and upgrades.
///
/// # Errors
/// [`StepError::RetryAfter`] or [`StepError::RateLimited`] if the upstream limits our connections,
/// else [`StepError::Connection`].
pub(super) async fn connect(target: &Target) -> Result<(Writer, Reader), StepError> {
    match tokio::time::timeout(CONNECT_WITHIN, try_connect(target)).await {
        Ok(connected) => connected.map(StreamExt::split),
        Err(_) => Err(StepError::Connection(format!(
            "{} did not answer within {} s",
            target.url,
            CONNECT_WITHIN.as_secs()
        ))),
    }
}

async fn try_connect(target: &Target) -> Result<Socket, StepError> {
    let url: Url = target
        .url
        .parse()
        .map_err(|_| StepError::Connection(format!("{} is not a valid URL", target.url)))?;
    let stream = dial::dial(&url, target.allow_private, &target.tls).await?;
    let guard = Guard::new(stream, target.max_message);
    let response = guard.response();
    let agent = concat!("tender/", env!("CARGO_PKG_VERSION"));
    let request = HttpRequestBuilder::new().header("user-agent", agent);
    let options = options(target);
    let upgraded = WebSocket::handshake_with_request(url, guard, options, request).await;
    upgraded.map(Socket).map_err(|error| upgrade::refused(&target.url, error, &response))
}

fn options(target: &Target) -> Options {
    // A message over the limit that passed in part is a little longer than the limit.
    let most = target.max_message + frames::REPLACEMENT + 1;
    let options = Options::default().with_limits(most, most).with_no_delay();
    if target.compress {
        options.with_compression_level(CompressionLevel::fast())
    } else {
        options.without_compression()
    }
}

/// Writes the messages of `outgoing` until its senders are dropped or the connection is closed. An
/// error is the reason why the connection is lost.
pub(super) async fn write(
    mut writer: Writer,
    mut outgoing: mpsc::Receiver<Outgoing>,
    within: Duration,
) -> Result<(), String> {
    let mut batch = Vec::new();
    while outgoing.recv_many(&mut batch, 64).await > 0 {
        match tokio::time::timeout(within, write_all(&mut writer, &mut batch)).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return Ok(()),
            Ok(Err(error)) => return Err(format!("the connection broke: {error}")),
            Err(_) => {
                let seconds = within.as_secs_f32();
                return Err(format!("the upstream accepted no messages for {seconds} s"));
            }
        }
    }
    Ok(())
}

/// Writes a batch. Returns false after a close.
async fn write_all(writer: &mut Writer, batch: &mut Vec<Outgoing>) -> Result<bool, WebSocketError> {
    for message in batch.drain(..) {
        match message {
            Outgoing::Text(text, _budget) => writer.feed(Frame::text(text)).await?,
            Outgoing::Ping => writer.feed(Frame::ping("")).await?,
            Outgoing::Close => {
                writer.send(Frame::close(CloseCode::Normal, "")).await?;
                return Ok(false);
            }
        }
    }
    writer.flush().await.map(|()| true)
}

/// A message from the upstream, or the lack of one.
pub(super) enum Incoming {
    Text(Bytes),
    /// A message over the limit: its first and last bytes, and its size.
    TooLarge {
        start: Bytes,
        end: Bytes,
        size: usize,
    },
    /// No message for [`Patience::ping`]; a ping is due.
    Quiet,
    /// A control frame without content, such as a pong.
    Alive,
}

/// The reason why a connection is lost.
pub(super) struct Broken {
    pub(super) why: String,
    /// Whether a connection without compression would have survived.
    pub(super) is_compression: bool,
}

impl From<String> for Broken {
    fn from(why: String) -> Self {
        Self { why, is_compression: false }
    }
}

impl From<&str> for Broken {
    fn from(why: &str) -> Self {
        why.to_owned().into()
    }
}

/// Reads the next message.
pub(super) async fn read(reader: &mut Reader, target: &Target) -> Result<Incoming, Broken> {
    let Ok(frame) = tokio::time::timeout(target.patience.ping, reader.next()).await else {
        return Ok(Incoming::Quiet);
    };
    let frame = frame.ok_or("the upstream closed the connection")?;
    let frame = frame.map_err(|error| broken(&error, target.max_message))?;
    match frame.opcode() {
        OpCode::Text => Ok(text(frame.into_payload())),
        OpCode::Close => Err("the upstream closed the connection".into()),
        OpCode::Binary => Err("the upstream sent a binary message".into()),
        _ => Ok(Incoming::Alive),
    }
}

fn text(payload: Bytes) -> Incoming {
    let last = payload.len().saturating_sub(frames::REPLACEMENT - frames::KEPT);
    let mut cuts = (last..payload.len()).filter(|at| payload[*at] == frames::CUT);
    let (Some(cut), Some(end)) = (cuts.next(), cuts.next()) else {
        return Incoming::Text(payload);
    };
    let size = std::str::from_utf8(&payload[cut + 1..end]).ok().and_then(|size| size.parse().ok());
    let start = payload.slice(..cut.min(frames::KEPT));
    Incoming::TooLarge { start, end: payload.slice(end + 1..), size: size.unwrap_or(usize::MAX) }
}

fn broken(error: &WebSocketError, limit: usize) -> Broken {
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    match error {
        // The guard bounds messages that are not compressed.
        WebSocketError::FrameTooLarge => {
            Broken { why: frames::too_large(limit), is_compression: true }
        }
        WebSocketError::IoError(error) if error.kind() == std::io::ErrorKind::Other => {
            let why = error.to_string();
            Broken { is_compression: why == frames::too_large(limit), why }
        }
        WebSocketError::ConnectionClosed => "the upstream closed the connection".into(),
        error => Broken { why: format!("the connection broke: {error}"), is_compression: false },
    }
}
