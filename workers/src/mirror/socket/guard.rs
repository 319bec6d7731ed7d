//! The stream below the decoder of a websocket. It bounds the messages that the decoder sees, and
//! keeps the header of the HTTP response.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::Frames;

/// The bytes that are read at a time.
const READ: usize = 16 * 1024;

/// The header of the HTTP response; empty if the upstream accepted the upgrade.
pub(super) type Response = Arc<Mutex<Vec<u8>>>;

/// A stream whose messages are bounded.
#[derive(Debug)]
pub(super) struct Guard<S> {
    inner: S,
    frames: Frames,
    response: Response,
    read: Box<[u8]>,
    /// What passed and was not taken yet, from the position `taken`.
    passed: Vec<u8>,
    taken: usize,
}

impl<S> Guard<S> {
    /// A stream that passes messages of at most `limit` bytes.
    pub(super) fn new(inner: S, limit: usize) -> Self {
        Self {
            inner,
            frames: Frames::new(limit),
            response: Response::default(),
            read: vec![0; READ].into_boxed_slice(),
            passed: Vec::new(),
            taken: 0,
        }
    }

    /// Returns the header of the HTTP response, as it is filled.
    pub(super) fn response(&self) -> Response {
        self.response.clone()
    }

    /// Filters the bytes that were read.
    fn filter(&mut self, length: usize) -> io::Result<()> {
        (self.taken, self.passed) = (0, std::mem::take(&mut self.passed));
        self.passed.clear();
        self.frames.read(&self.read[..length], &mut self.passed).map_err(io::Error::other)?;
        let so_far = self.frames.response_so_far();
        if !so_far.is_empty() {
            let mut response = self.response.lock().unwrap_or_else(PoisonError::into_inner);
            so_far.clone_into(&mut response);
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.taken == this.passed.len() {
            let mut read = ReadBuf::new(&mut this.read);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut read))?;
            let length = read.filled().len();
            if length == 0 {
                return Poll::Ready(Ok(())); // the end of the stream
            }
            this.filter(length)?;
        }
        let rest = &this.passed[this.taken..];
        let length = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..length]);
        this.taken += length;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
