//! One control socket: what comes goes to the driver, what the driver gives goes out.

use super::driver::Ask;
use super::{Coordinator, answer_of, whole};
use crate::wiring::control_socket::line::Said;
use crate::wiring::talk::Heard;
use crate::wiring::talk::talk;
use fieldgate_compat::Request;
use fieldgate_compat::control_socket::socket_token;
use fieldgate_compat::coordinator::SocketId;
use fieldgate_net::{HttpAnswer, HttpRequest, SocketTask, WebSocket};
use std::net::{IpAddr, Ipv4Addr};
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

/// A control socket of our own encoder, without a network: what is to be sent goes to the coordinator, what it says to
/// `tell`. Until either ends; why.
pub(in crate::wiring) async fn join(
    coordinator: &Coordinator,
    to_send: &mut mpsc::Receiver<String>,
    tell: &mpsc::Sender<Said>,
) -> String {
    let is_off = || "the coordinator of this gateway does not run".to_owned();
    let Some(desk) = coordinator.desk() else { return is_off() };
    let token = socket_token(desk.control_secret.as_ref(), "hls-control", None);
    let headers = token.map(|token| ("x-control-auth-token".to_owned(), token.reveal().to_owned()));
    let request = Request {
        method: "GET".to_owned(),
        target: "/ws/control/hls".to_owned(),
        headers: headers.into_iter().collect(),
        body: Vec::new(),
        peer: IpAddr::from(Ipv4Addr::LOCALHOST),
    };
    let (answer, answered) = oneshot::channel();
    if desk.inbox.send(Ask::Upgrade(request, answer)).await.is_err() {
        return is_off();
    }
    let mut line = match answered.await {
        Ok(Ok(line)) => line,
        Ok(Err(reply)) => return format!("the coordinator of this gateway answers {}", reply.status),
        Err(_) => return is_off(),
    };
    if tell.send(Said::Open).await.is_err() {
        return is_off();
    }
    let id = line.socket;
    loop {
        tokio::select! {
            text = to_send.recv() => {
                let Some(text) = text else { break };
                if desk.inbox.send(Ask::Heard(id, Heard::Text(text))).await.is_err() {
                    break;
                }
            }
            text = line.outbox.recv() => {
                let Some(text) = text else { break };
                if tell.send(Said::Heard(Heard::Text(text))).await.is_err() {
                    break;
                }
            }
        }
    }
    "the coordinator of this gateway has ended it".to_owned()
}

async fn run(socket: WebSocket, mut line: Line, inbox: mpsc::Sender<Ask>) {
    let id = line.socket;
    if let Err(error) = talk(socket, &mut line.outbox, &inbox, |heard| Ask::Heard(id, heard)).await {
        debug!(socket = id.0, %error, "control socket is lost");
    }
}
