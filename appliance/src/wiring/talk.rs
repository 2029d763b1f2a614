//! Talk over a control socket: what comes is passed on, what is given goes out.

use fieldgate_compat::coordinator::MessageError;
use fieldgate_net::{SocketMessage, WebSocket, WebSocketError};
use tokio::sync::mpsc;

/// What has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A message.
    Text(String),
    /// A message of bytes.
    Binary,
    /// It is no message.
    Broken(MessageError),
}

/// Talks until the other side closes, the outbox ends or nobody listens. Who listens slowly makes the other side wait.
pub(super) async fn talk<T>(
    mut socket: WebSocket,
    outbox: &mut mpsc::Receiver<String>,
    listener: &mpsc::Sender<T>,
    of: impl Fn(Heard) -> T,
) -> Result<(), WebSocketError> {
    loop {
        // What is to be sent comes first: a peer that floods is told why it is closed.
        let message = tokio::select! {
            biased;
            text = outbox.recv() => {
                let Some(text) = text else { break };
                socket.send(text).await?;
                continue;
            }
            message = socket.next() => message?,
        };
        let heard = match message {
            Some(SocketMessage::Text(text)) => Heard::Text(text),
            Some(SocketMessage::Binary(_)) => Heard::Binary,
            Some(SocketMessage::TooLong) => {
                listener.send(of(Heard::Broken(MessageError::TooLong))).await.ok();
                // The last words; nothing can be read any more.
                while let Some(text) = outbox.recv().await {
                    socket.send(text).await?;
                }
                break;
            }
            None => break,
        };
        if listener.send(of(heard)).await.is_err() {
            break;
        }
    }
    socket.close().await;
    Ok(())
}
