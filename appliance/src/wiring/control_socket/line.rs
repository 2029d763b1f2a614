//! Our own socket to a coordinator elsewhere, as a driver holds it.

use crate::steward::chain;
use crate::wiring::Coordinator;
use crate::wiring::coordinator::socket::join;
use crate::wiring::talk::{Heard, talk};
use fieldgate_compat::coordinator::Message;
use fieldgate_net::SocketCall;
use std::future::Future;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Messages that wait for the socket; a coordinator that takes none is closed.
const OUTBOX: usize = 64;
/// Messages that have come and wait for the driver.
const HEARD: usize = 16;

/// What a socket's task tells.
pub(in crate::wiring) enum Said {
    Open,
    Heard(Heard),
    Lost(String),
}

/// The socket, as long as it is wanted; dropped, it is closed.
pub(in crate::wiring) struct Line {
    outbox: mpsc::Sender<String>,
    said: mpsc::Receiver<Said>,
}

impl Line {
    /// One that is opened by the task that comes with it.
    pub(super) fn open(call: SocketCall) -> (Line, impl Future<Output = ()> + Send + 'static) {
        let (outbox, mut to_send) = mpsc::channel(OUTBOX);
        let (tell, said) = mpsc::channel(HEARD);
        let talking = async move {
            let why = match call.open().await {
                Err(error) => chain(&error),
                Ok(socket) => {
                    if tell.send(Said::Open).await.is_err() {
                        return socket.close().await;
                    }
                    match talk(socket, &mut to_send, &tell, Said::Heard).await {
                        Ok(()) => "it has closed the socket".to_owned(),
                        Err(error) => chain(&error),
                    }
                }
            };
            tell.send(Said::Lost(why)).await.ok();
        };
        (Line { outbox, said }, talking)
    }

    /// One to the gateway's own coordinator, kept by the task that comes with it.
    pub(super) fn inside(coordinator: Arc<Coordinator>) -> (Line, impl Future<Output = ()> + Send + 'static) {
        let (outbox, mut to_send) = mpsc::channel(OUTBOX);
        let (tell, said) = mpsc::channel(HEARD);
        let talking = async move {
            let why = join(&coordinator, &mut to_send, &tell).await;
            tell.send(Said::Lost(why)).await.ok();
        };
        (Line { outbox, said }, talking)
    }

    /// What comes next. Dropping the future loses nothing.
    pub(super) async fn hear(&mut self) -> Said {
        let said = self.said.recv().await;
        said.unwrap_or_else(|| Said::Lost("its task has ended".to_owned()))
    }

    /// Whether it takes one more message.
    pub(super) fn send(&self, message: &Message) -> bool {
        self.outbox.try_send(message.text()).is_ok()
    }

    /// One whose other end is the test.
    #[cfg(test)]
    pub(in crate::wiring) fn detached() -> (Line, mpsc::Receiver<String>, mpsc::Sender<Said>) {
        let (outbox, to_send) = mpsc::channel(OUTBOX);
        let (tell, said) = mpsc::channel(HEARD);
        (Line { outbox, said }, to_send, tell)
    }
}
