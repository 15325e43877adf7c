//! Time limits of a connection that neither HTTP nor the routes keep: its first bytes, and bytes that nobody takes.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::limits;

/// What a connection of HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream with these limits.
pub(crate) struct Timed<S> {
    stream: S,
    /// Until the first bytes show which HTTP is spoken: only then does somebody else look at the clock.
    opening: Option<Opening>,
    /// While the other side takes nothing.
    stuck: Option<Pin<Box<Sleep>>>,
}

struct Opening {
    deadline: Pin<Box<Sleep>>,
    /// Bytes of the preface that have come.
    seen: usize,
}

impl<S> Timed<S> {
    /// A stream that begins now.
    pub(crate) fn new(stream: S) -> Self {
        let opening = Opening { deadline: Box::pin(sleep(limits::HEAD_TIME)), seen: 0 };
        Self { stream, opening: Some(opening), stuck: None }
    }

    /// These bytes have come.
    fn saw(&mut self, bytes: &[u8]) {
        let Some(opening) = &mut self.opening else { return };
        let expected = PREFACE[opening.seen..].iter();
        let same = bytes.iter().zip(expected).take_while(|(byte, expected)| byte == expected).count();
        opening.seen += same;
        if same < bytes.len() || opening.seen == PREFACE.len() {
            self.opening = None;
        }
    }

    /// What came of a write; an error if nothing has been taken for too long.
    fn unless_stuck<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(limits::WRITE_TIME)));
        stuck.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.saw(&buffer.filled()[before..]);
            return read;
        }
        match &mut self.opening {
            Some(opening) => {
                opening.deadline.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
            None => read,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.unless_stuck(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.unless_stuck(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.unless_stuck(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.unless_stuck(context, shut)
    }
}
