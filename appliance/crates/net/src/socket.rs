//! A connection's byte stream: plain TCP on the fast path, anything else (TLS) behind one indirection.

use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Connections that may wait to be accepted.
const LISTEN_BACKLOG: i32 = 1024;

/// Binds an address for listening.
pub(crate) fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    if address.is_ipv6() {
        // "[::]" and "0.0.0.0" may then stand side by side in the config.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A byte stream that can be moved to another shard.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// One connection's byte stream.
pub(crate) enum Socket {
    /// Written to within the publisher's turn by one system call.
    Plain(TcpStream),
    /// Plain TCP whose input wakes nobody; its owner looks when it is time.
    Unwatched(std::net::TcpStream),
    /// TLS, or a pipe to the task that does TLS.
    Wrapped {
        /// The stream.
        stream: Pin<Box<dyn Duplex>>,
        /// Bytes wait inside it for a flush.
        unflushed: bool,
    },
    /// Between two of the others, or failed on the way.
    Gone,
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

/// What a call on a socket that is not watched means for a poll: nobody will be woken.
fn unwatched<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        other => Poll::Ready(other),
    }
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
            Socket::Unwatched(stream) => Ok(Detached::Plain(stream)),
            wrapped @ Socket::Wrapped { .. } => Ok(Detached::Wrapped(wrapped)),
            Socket::Gone => Err(gone()),
        }
    }

    /// From now on input wakes nobody. False: this kind of socket cannot do that.
    pub(crate) fn unwatch(&mut self) -> io::Result<bool> {
        match std::mem::replace(self, Socket::Gone) {
            Socket::Plain(stream) => *self = Socket::Unwatched(stream.into_std()?),
            other => *self = other,
        }
        Ok(matches!(self, Socket::Unwatched(_)))
    }

    /// From now on input wakes the connection's task again.
    pub(crate) fn watch(&mut self) -> io::Result<()> {
        match std::mem::replace(self, Socket::Gone) {
            Socket::Unwatched(stream) => *self = Socket::Plain(TcpStream::from_std(stream)?),
            other => *self = other,
        }
        Ok(())
    }

    /// One read; zero bytes at the end.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if let Socket::Unwatched(stream) = self {
            return unwatched(stream.read(buf));
        }
        let mut buf = ReadBuf::new(buf);
        let read = match self {
            // Not try_read: a short read here clears the readiness without another system call.
            Socket::Plain(stream) => Pin::new(stream).poll_read(cx, &mut buf),
            Socket::Wrapped { stream, .. } => stream.as_mut().poll_read(cx, &mut buf),
            Socket::Unwatched(_) | Socket::Gone => Poll::Ready(Err(gone())),
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
            Socket::Unwatched(stream) => stream.write_vectored(slices),
            Socket::Gone => Err(gone()),
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
            Socket::Unwatched(stream) => unwatched(stream.write_vectored(slices)),
            Socket::Gone => Poll::Ready(Err(gone())),
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
            Socket::Unwatched(stream) => Poll::Ready(stream.shutdown(std::net::Shutdown::Write)),
            Socket::Gone => Poll::Ready(Err(gone())),
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
