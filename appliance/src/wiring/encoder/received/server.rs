//! The socket to a streaming server: what it sends, and how long it may send nothing.

use crate::steward::chain;
use crate::wiring::control_socket::address::Address;
use bytes::Bytes;
use fieldgate_net::{ClientTls, SocketCall, SocketMessage, WebSocket};
use std::time::Duration;
use tokio::time::{Instant, Interval, interval_at, sleep_until};

/// The connection that gets what was kept since the publisher began, and then what comes.
const KIND: &str = "receive-clear-cache";
/// Both sides say that they are there.
const BEAT: Duration = Duration::from_secs(20);
/// Who says nothing for so long is given up.
pub(super) const SILENT: Duration = Duration::from_secs(60);
/// What of a server's words is shown.
const WORDS_MAX: usize = 100;

/// The streaming server's side of the socket.
pub(super) struct Server {
    socket: WebSocket,
    message_bytes: usize,
    name: String,
    /// Never shown, whatever it says.
    key: String,
    beat: Interval,
}

impl Server {
    /// With the first bytes. It may send `message_bytes` at once.
    pub(super) async fn open(
        uri: &str,
        tls: Option<ClientTls>,
        message_bytes: usize,
    ) -> Result<(Server, Bytes), String> {
        let address = Address::new(&format!("{uri}/"), tls).ok_or("its address is none")?;
        let call = SocketCall { message_bytes, ..address.call(KIND, Vec::new()) };
        let socket = call.open().await;
        let socket = socket.map_err(|error| format!("the source cannot be played: {}", chain(&error)))?;
        let now = Instant::now();
        let mut server = Server {
            socket,
            message_bytes,
            name: format!("{}:{}", call.server.host, call.server.port),
            key: uri.rsplit('/').next().unwrap_or_default().to_owned(),
            beat: interval_at(now + BEAT, BEAT),
        };
        let first = server.next().await?.ok_or("its server closed the socket before it sent anything")?;
        Ok((server, first))
    }

    /// Its name and port.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What comes next; nothing: it is over.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, String> {
        // Not from the last message on: what it sends while nobody reads here waits.
        let mut silent_at = Instant::now() + SILENT;
        loop {
            let message = tokio::select! {
                biased;
                _ = self.beat.tick() => {
                    self.socket.send("h".to_owned()).await.map_err(|error| chain(&error))?;
                    continue;
                }
                message = self.socket.next() => message.map_err(|error| chain(&error))?,
                () = sleep_until(silent_at) => {
                    return Err(format!("its server has been silent for {SILENT:?}"));
                }
            };
            silent_at = Instant::now() + SILENT;
            match message {
                None => return Ok(None),
                Some(SocketMessage::Binary(bytes)) => return Ok(Some(bytes)),
                Some(SocketMessage::Text(text)) => {
                    if let Some(words) = text.strip_prefix("ERROR:") {
                        let words = words.trim().replace(&self.key, "***");
                        let words: String =
                            words.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect();
                        return Err(format!("its server says: {words}"));
                    }
                }
                Some(SocketMessage::TooLong) => {
                    return Err(format!("its server sends more than {} bytes at once", self.message_bytes));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::MESSAGE_BYTES;
    use super::*;
    use futures_util::{SinkExt, StreamExt};
    use std::future::Future;
    use tokio::net::{TcpListener, TcpStream};
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
    use tokio_tungstenite::{WebSocketStream, accept_async};

    type Peer = WebSocketStream<TcpStream>;

    /// Opens a source whose server has sent one byte and goes on by this script.
    async fn open<F>(
        message_bytes: usize,
        script: impl FnOnce(Peer) -> F,
    ) -> (Server, impl Future<Output = ()>)
    where
        F: Future<Output = ()>,
    {
        let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("ws://{}/c1/channel-key-0001", door.local_addr().unwrap());
        let accept = async {
            let mut peer = accept_async(door.accept().await.unwrap().0).await.unwrap();
            peer.send(Message::binary(vec![1])).await.unwrap();
            peer
        };
        let (opened, peer) = tokio::join!(Server::open(&uri, None, message_bytes), accept);
        let (server, first) = opened.unwrap();
        assert_eq!(first, Bytes::from_static(&[1]));
        (server, script(peer))
    }

    /// What came before the end, and the end, with how long it all took.
    async fn all(server: &mut Server) -> (Vec<usize>, Result<(), String>, Duration) {
        let (began, mut lens) = (Instant::now(), Vec::new());
        let end = loop {
            match server.next().await {
                Ok(Some(bytes)) => lens.push(bytes.len()),
                Ok(None) => break Ok(()),
                Err(why) => break Err(why),
            }
        };
        (lens, end, began.elapsed())
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_for_a_minute_is_given_up() {
        let (mut server, script) = open(1_000, |mut peer| async move {
            let mut told = 0;
            while let Some(Ok(message)) = peer.next().await {
                if message == Message::text("h") {
                    told += 1;
                    // A computer does that, whatever its program does.
                    peer.send(Message::Ping(Bytes::new())).await.ok();
                }
            }
            assert!((2..=3).contains(&told), "after 20 s, 40 s, and perhaps before the end: {told}");
        })
        .await;
        tokio::time::pause();
        let ended = async {
            let ended = all(&mut server).await;
            drop(server);
            ended
        };
        let ((lens, end, took), ()) = tokio::join!(ended, script);
        assert_eq!((lens, end), (vec![], Err("its server has been silent for 60s".to_owned())));
        assert!(took.abs_diff(SILENT) < Duration::from_secs(1), "{took:?}");
    }

    #[tokio::test]
    async fn a_server_that_says_that_it_is_there_may_take_its_time() {
        let (mut server, script) = open(1_000, |peer| async move {
            let (mut out, mut heard) = peer.split();
            let saying = async {
                for _ in 0..40 {
                    tokio::time::sleep(Duration::from_secs(25)).await;
                    out.send(Message::text("h")).await.unwrap();
                }
                out.send(Message::binary(vec![2; 7])).await.unwrap();
                out.send(Message::Close(None)).await.unwrap();
            };
            tokio::join!(saying, async { while let Some(Ok(_)) = heard.next().await {} });
        })
        .await;
        tokio::time::pause();
        let ended = async {
            let ended = all(&mut server).await;
            drop(server);
            ended
        };
        let ((lens, end, took), ()) = tokio::join!(ended, script);
        assert_eq!((lens, end), (vec![7], Ok(())));
        assert!(took >= 40 * Duration::from_secs(25), "{took:?}");
    }

    #[tokio::test]
    async fn what_came_while_nobody_read_is_no_silence() {
        let (mut server, script) = open(1_000, |mut peer| async move {
            peer.send(Message::binary(vec![2; 7])).await.unwrap();
            while let Some(Ok(_)) = peer.next().await {}
        })
        .await;
        tokio::time::pause();
        let late = async {
            // A worker that is slow with the piece before.
            tokio::time::sleep(2 * SILENT).await;
            let next = server.next().await;
            drop(server);
            next
        };
        let (next, ()) = tokio::join!(late, script);
        assert_eq!(next, Ok(Some(Bytes::from_static(&[2; 7]))));
    }

    #[tokio::test]
    async fn a_message_has_its_bound_in_one_piece_or_in_many() {
        for (bound, pieces) in [(1_000, 1), (1_000, 100), (MESSAGE_BYTES, 1)] {
            let (mut server, script) = open(bound, |mut peer| async move {
                for len in [bound, bound + 1] {
                    let piece = |number| {
                        let part = len * (number + 1) / pieces - len * number / pieces;
                        let code = if number == 0 { Data::Binary } else { Data::Continue };
                        Message::Frame(Frame::message(
                            vec![0; part],
                            OpCode::Data(code),
                            number + 1 == pieces,
                        ))
                    };
                    for number in 0..pieces {
                        // It may hang up before the last.
                        peer.send(piece(number)).await.ok();
                    }
                }
                peer.next().await;
            })
            .await;
            let ended = async {
                let ended = all(&mut server).await;
                drop(server);
                ended
            };
            let ((lens, end, _), ()) = tokio::join!(ended, script);
            assert_eq!(lens, [bound], "in {pieces}");
            assert_eq!(end, Err(format!("its server sends more than {bound} bytes at once")), "in {pieces}");
        }
    }

    #[tokio::test]
    async fn a_servers_error_is_its_end_and_shows_no_key() {
        let (mut server, script) = open(1_000, |mut peer| async move {
            let words = format!("ERROR: key channel-key-0001 {}\u{7}", "x".repeat(500));
            peer.send(Message::text(words)).await.unwrap();
        })
        .await;
        let ((_, end, _), ()) = tokio::join!(all(&mut server), script);
        let end = end.unwrap_err();
        assert!(end.starts_with("its server says: key *** xxx") && end.len() < 130, "{end}");
    }
}
