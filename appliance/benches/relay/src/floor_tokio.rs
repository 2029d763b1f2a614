//! The floor once more, on a single-threaded tokio runtime: what any relay pays that waits by it, before it knows what a
//! message is. Same hello, same handing on of bytes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io::{ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::rc::Rc;

use tokio::io::{AsyncRead as _, AsyncReadExt as _, ReadBuf};
use tokio::net::unix::pipe;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};

use crate::error::{Attempt, BenchError};
use crate::floor::MAX_PENDING;

/// One that a stream is handed on to.
struct Subscriber {
    socket: TcpStream,
    pending: RefCell<Vec<u8>>,
    has_pending: Notify,
}

/// By number, with the buffer that all publishers are read into.
struct Streams {
    subscribers: RefCell<HashMap<u16, Vec<Rc<Subscriber>>>>,
    scratch: RefCell<Vec<u8>>,
}

/// Serves, reading at most `read_len` bytes at once, until standard input ends; the first line of standard output is the port.
pub(crate) fn serve(read_len: usize) -> Result<(), BenchError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().attempt("start tokio")?;
    LocalSet::new().block_on(&runtime, async {
        let stdin = std::io::stdin().as_fd().try_clone_to_owned().attempt("open stdin")?;
        let mut stdin = pipe::Receiver::from_owned_fd(stdin).attempt("watch stdin")?;
        let listener = TcpListener::bind("127.0.0.1:0").await.attempt("bind the floor")?;
        let port = listener.local_addr().attempt("ask for the floor's port")?.port();
        let mut stdout = std::io::stdout();
        writeln!(stdout, "{port}").and_then(|()| stdout.flush()).attempt("tell the floor's port")?;
        let streams =
            Rc::new(Streams { subscribers: RefCell::default(), scratch: RefCell::new(vec![0; read_len]) });
        loop {
            let mut said = [0; 64];
            tokio::select! {
                accepted = listener.accept() => {
                    let (socket, _) = accepted.attempt("accept")?;
                    socket.set_nodelay(true).attempt("set TCP_NODELAY")?;
                    spawn_local(serve_one(socket, streams.clone()));
                }
                read = stdin.read(&mut said) => if read.unwrap_or(0) == 0 {
                    return Ok(());
                },
            }
        }
    })
}

async fn serve_one(mut socket: TcpStream, streams: Rc<Streams>) {
    let mut hello = [0; 3];
    if socket.read_exact(&mut hello).await.is_err() {
        return;
    }
    let stream = u16::from_be_bytes([hello[1], hello[2]]);
    match hello[0] {
        b'P' => publish(socket, stream, &streams).await,
        _ => {
            let subscriber = Subscriber { socket, pending: RefCell::default(), has_pending: Notify::new() };
            let subscriber = Rc::new(subscriber);
            streams.subscribers.borrow_mut().entry(stream).or_default().push(subscriber.clone());
            subscriber.write_pending().await;
        }
    }
}

async fn publish(mut socket: TcpStream, stream: u16, streams: &Streams) {
    loop {
        let read = poll_fn(|cx| {
            let mut scratch = streams.scratch.borrow_mut();
            let mut buf = ReadBuf::new(&mut scratch);
            let read = Pin::new(&mut socket).poll_read(cx, &mut buf);
            read.map_ok(|()| {
                let bytes = buf.filled();
                if let Some(subscribers) = streams.subscribers.borrow_mut().get_mut(&stream) {
                    subscribers.retain(|subscriber| subscriber.send(bytes));
                }
                bytes.len()
            })
        });
        if !matches!(read.await, Ok(1..)) {
            return;
        }
    }
}

impl Subscriber {
    /// Whether it may stay.
    fn send(&self, bytes: &[u8]) -> bool {
        let mut pending = self.pending.borrow_mut();
        if !pending.is_empty() {
            pending.extend_from_slice(bytes);
            return pending.len() <= MAX_PENDING;
        }
        let sent = match self.socket.try_write(bytes) {
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => return false,
        };
        if let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            pending.extend_from_slice(rest);
            self.has_pending.notify_one();
        }
        true
    }

    /// Goes on where [`Subscriber::send`] was stopped, until the socket fails.
    async fn write_pending(&self) {
        loop {
            self.has_pending.notified().await;
            while !self.pending.borrow().is_empty() {
                if self.socket.writable().await.is_err() {
                    return;
                }
                let mut pending = self.pending.borrow_mut();
                match self.socket.try_write(&pending) {
                    Ok(sent) => drop(pending.drain(..sent)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        }
    }
}
