//! A websocket to a relay: one task reads and routes, one writes. Whoever waits is told at once when it
//! is lost. Nothing is parsed beyond its route here, nothing is hashed, no database is asked.

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

/// Longest wait for a connection: name, TCP, TLS, upgrade.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);
/// Longest message, decompressed.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// Silence after which we ask whether the relay lives.
const PING_AFTER: Duration = Duration::from_secs(30);
/// Longest wait for one message to be taken by the relay.
const WRITE_WITHIN: Duration = Duration::from_secs(30);

/// A connection, with errors in its stream.
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

/// What goes out.
#[derive(Debug)]
pub(super) enum Outgoing {
    Text(String),
    Ping,
    Close,
}

/// The half that reads.
pub(super) type Reader = SplitStream<Socket>;
/// The half that writes.
pub(super) type Writer = SplitSink<Socket, Frame>;

/// Connects, offering compression.
pub(super) async fn connect(url: &str) -> Result<(Writer, Reader), StepError> {
    let parsed: Url =
        url.parse().map_err(|_| StepError::Connection(format!("{url} is no address")))?;
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

/// Writes what comes out of `outgoing` until it ends or the relay takes no more.
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
            _ => return, // the reader finds out
        }
    }
}

/// What came in.
pub(super) enum Incoming {
    Text(String),
    /// Nothing for a while: time to ask.
    Quiet,
    /// A sign of life without content.
    Alive,
}

/// The next message.
pub(super) async fn read(reader: &mut Reader) -> Result<Incoming, String> {
    let Ok(frame) = tokio::time::timeout(PING_AFTER, reader.next()).await else {
        return Ok(Incoming::Quiet);
    };
    let frame = frame.ok_or("the relay closed the connection")?;
    let frame = frame.map_err(|error| match error {
        WebSocketError::FrameTooLarge => format!("a message is longer than {MAX_MESSAGE} bytes"),
        error => format!("the connection broke: {error}"),
    })?;
    match frame.opcode() {
        OpCode::Text => String::from_utf8(frame.into_payload().into())
            .map(Incoming::Text)
            .map_err(|_| "a message is not UTF-8".to_owned()),
        OpCode::Close => Err("the relay closed the connection".to_owned()),
        OpCode::Binary => Err("the relay sent a binary message".to_owned()),
        _ => Ok(Incoming::Alive),
    }
}
