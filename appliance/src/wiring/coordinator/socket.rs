//! One control socket: what comes goes to the driver, what the driver gives goes out.

use super::driver::Ask;
use super::{Coordinator, answer_of, whole};
use crate::wiring::talk::talk;
use fieldgate_compat::coordinator::SocketId;
use fieldgate_net::{HttpAnswer, HttpRequest, SocketTask, WebSocket};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info};

/// A socket that is open, as its task has it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) socket: SocketId,
    /// Its end closes the socket.
    pub(super) outbox: mpsc::Receiver<String>,
    /// Dropped with the rest, also when the task never began: the driver hears of it.
    pub(super) _alive: oneshot::Sender<()>,
}

/// Lets somebody open a control socket, or says why not.
pub(super) async fn open(coordinator: &Coordinator, request: HttpRequest) -> Result<SocketTask, HttpAnswer> {
    let Some(desk) = coordinator.desk() else { return Err(HttpAnswer::empty(503)) };
    let (peer, target) = (request.peer, request.target.clone());
    let (answer, answered) = oneshot::channel();
    desk.inbox.try_send(Ask::Upgrade(whole(request), answer)).map_err(|_| HttpAnswer::empty(503))?;
    let opened = answered.await.map_err(|_| HttpAnswer::empty(503))?;
    if desk.logs_requests {
        let status = opened.as_ref().map_or_else(|reply| reply.status, |_| 101);
        info!(%peer, method = "GET", target, status, "request to the coordinator");
    }
    let line = opened.map_err(answer_of)?;
    let inbox = desk.inbox;
    Ok(Box::new(move |socket| Box::pin(run(socket, line, inbox))))
}

async fn run(socket: WebSocket, mut line: Line, inbox: mpsc::Sender<Ask>) {
    let id = line.socket;
    if let Err(error) = talk(socket, &mut line.outbox, &inbox, |heard| Ask::Heard(id, heard)).await {
        debug!(socket = id.0, %error, "control socket is lost");
    }
}
