//! A connection's byte stream: plain TCP on the fast path, anything else (TLS) behind one indirection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A byte stream that can be moved to another shard.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// One connection's byte stream.
pub(crate) enum Socket {
    /// Written to within the publisher's turn by one system call.
    Plain(TcpStream),
    /// TLS, or a pipe to the task that does TLS.
    Wrapped {
        /// The stream.
        stream: Pin<Box<dyn Duplex>>,
        /// Bytes wait inside it for a flush.
        unflushed: bool,
    },
}

impl Socket {
    /// Wraps a stream that is no plain TCP.
    pub(crate) fn wrapped(stream: impl Duplex + 'static) -> Socket {
        Socket::Wrapped { stream: Box::pin(stream), unflushed: false }
    }

    /// Detaches a TCP socket from its runtime and attaches it to the one that is running now.
    pub(crate) fn rehome(self) -> io::Result<Detached> {
        match self {
            Socket::Plain(stream) => Ok(Detached::Plain(stream.into_std()?)),
            wrapped @ Socket::Wrapped { .. } => Ok(Detached::Wrapped(wrapped)),
        }
    }

    /// One read; zero bytes at the end.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(buf);
        let read = match self {
            // Not try_read: a short read here clears the readiness without another system call.
            Socket::Plain(stream) => Pin::new(stream).poll_read(cx, &mut buf),
            Socket::Wrapped { stream, .. } => stream.as_mut().poll_read(cx, &mut buf),
        };
        read.map_ok(|()| buf.filled().len())
    }

    /// Writes what it takes at once; `WouldBlock` if that is nothing.
    pub(crate) fn write_now(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            // One slice is the rule, and plain write is the cheaper call.
            Socket::Plain(stream) => match slices {
                [one] => stream.try_write(one),
                several => stream.try_write_vectored(several),
            },
            Socket::Wrapped { .. } => {
                // The connection's own task registers its waker when it finds itself blocked.
                match self.poll_write(&mut Context::from_waker(Waker::noop()), slices) {
                    Poll::Ready(result) => result,
                    Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
                }
            }
        }
    }

    /// Writes, or registers for when it can.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Socket::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Socket::Wrapped { stream, unflushed } => {
                let written = stream.as_mut().poll_write_vectored(cx, slices);
                *unflushed |= matches!(written, Poll::Ready(Ok(1..)));
                written
            }
        }
    }

    /// Hands everything written to the system. Plain TCP has nothing to hand on.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Wrapped { stream, unflushed } if *unflushed => {
                let flushed = stream.as_mut().poll_flush(cx);
                *unflushed = flushed.is_pending();
                flushed
            }
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Ends the sending side, so that the peer reads our last words before the close.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Wrapped { stream, .. } => stream.as_mut().poll_shutdown(cx),
        }
    }
}

/// A socket between two runtimes.
pub(crate) enum Detached {
    /// Plain TCP.
    Plain(std::net::TcpStream),
    /// Knows no runtime of its own.
    Wrapped(Socket),
}

impl Detached {
    /// Attaches it to the runtime that is running now.
    pub(crate) fn attach(self) -> io::Result<Socket> {
        match self {
            Detached::Plain(stream) => Ok(Socket::Plain(TcpStream::from_std(stream)?)),
            Detached::Wrapped(socket) => Ok(socket),
        }
    }
}
