//! A websocket to an upstream. One task reads and routes messages, and one task writes; neither
//! parses events, computes hashes or uses the database.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{
    Sink, SinkExt, Stream, StreamExt,
    stream::{SplitSink, SplitStream},
};
use reqwest::Url;
use tokio::{net::TcpStream, sync::mpsc};
use yawc::{
    CompressionLevel, Frame, HttpRequestBuilder, MaybeTlsStream, OpCode, Options, WebSocket,
    WebSocketError, close::CloseCode,
};

use super::error::StepError;

/// The longest duration of a connect: name lookup, TCP, TLS and upgrade.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);
/// The longest message after decompression, in bytes.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// The silence after which a ping is sent.
const PING_AFTER: Duration = Duration::from_secs(30);
/// The longest duration of a write; after that the upstream accepts no messages.
const WRITE_WITHIN: Duration = Duration::from_secs(30);

/// A websocket whose stream yields errors instead of hiding them.
pub(super) struct Socket(WebSocket<MaybeTlsStream<TcpStream>>);

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

/// A message to the upstream.
#[derive(Debug)]
pub(super) enum Outgoing {
    Text(String),
    Ping,
    Close,
}

/// The reading half of a websocket.
pub(super) type Reader = SplitStream<Socket>;
/// The writing half of a websocket.
pub(super) type Writer = SplitSink<Socket, Frame>;

/// Connects and offers compression.
///
/// # Errors
/// [`StepError::RateLimited`] if the upstream answers 429, else [`StepError::Connection`].
pub(super) async fn connect(url: &str) -> Result<(Writer, Reader), StepError> {
    let parsed: Url =
        url.parse().map_err(|_| StepError::Connection(format!("{url} is not a valid URL")))?;
    let options = Options::default()
        .with_limits(MAX_MESSAGE, MAX_MESSAGE)
        .with_compression_level(CompressionLevel::fast())
        .with_no_delay()
        .with_utf8();
    let agent = concat!("tender/", env!("CARGO_PKG_VERSION"));
    let request = HttpRequestBuilder::new().header("user-agent", agent);
    let connecting = WebSocket::connect(parsed).with_options(options).with_request(request);
    match tokio::time::timeout(CONNECT_WITHIN, connecting).await {
        Ok(Ok(socket)) => Ok(Socket(socket).split()),
        Ok(Err(WebSocketError::InvalidStatusCode(429))) => {
            Err(StepError::RateLimited(format!("{url} answered 429 Too Many Requests")))
        }
        Ok(Err(WebSocketError::InvalidStatusCode(status))) => {
            Err(StepError::Connection(format!("{url} answered {status} instead of a websocket")))
        }
        Ok(Err(error)) => {
            Err(StepError::Connection(format!("failed to connect to {url}: {error}")))
        }
        Err(_) => Err(StepError::Connection(format!(
            "{url} did not answer within {} s",
            CONNECT_WITHIN.as_secs()
        ))),
    }
}

/// Writes the messages of `outgoing` until its senders are dropped, a write fails or the connection
/// is closed.
pub(super) async fn write(mut writer: Writer, mut outgoing: mpsc::Receiver<Outgoing>) {
    let mut batch = Vec::new();
    while outgoing.recv_many(&mut batch, 64).await > 0 {
        let sending = async {
            for message in batch.drain(..) {
                match message {
                    Outgoing::Text(text) => writer.feed(Frame::text(text)).await?,
                    Outgoing::Ping => writer.feed(Frame::ping("")).await?,
                    Outgoing::Close => {
                        writer.send(Frame::close(CloseCode::Normal, "")).await?;
                        return Ok(false);
                    }
                }
            }
            writer.flush().await.map(|()| true)
        };
        match tokio::time::timeout(WRITE_WITHIN, sending).await {
            Ok(Ok::<bool, WebSocketError>(true)) => {}
            _ => return, // the reading task detects and reports the loss
        }
    }
}

/// A message from the upstream, or the lack of one.
pub(super) enum Incoming {
    Text(String),
    /// No message for [`PING_AFTER`]; a ping is due.
    Quiet,
    /// A control frame without content, such as a pong.
    Alive,
}

/// Reads the next message. An error is the reason why the connection is lost.
pub(super) async fn read(reader: &mut Reader) -> Result<Incoming, String> {
    let Ok(frame) = tokio::time::timeout(PING_AFTER, reader.next()).await else {
        return Ok(Incoming::Quiet);
    };
    let frame = frame.ok_or("the upstream closed the connection")?;
    let frame = frame.map_err(|error| match error {
        WebSocketError::FrameTooLarge => format!("a message is longer than {MAX_MESSAGE} bytes"),
        error => format!("the connection broke: {error}"),
    })?;
    match frame.opcode() {
        OpCode::Text => String::from_utf8(frame.into_payload().into())
            .map(Incoming::Text)
            .map_err(|_| "a message is not UTF-8".to_owned()),
        OpCode::Close => Err("the upstream closed the connection".to_owned()),
        OpCode::Binary => Err("the upstream sent a binary message".to_owned()),
        _ => Ok(Incoming::Alive),
    }
}
