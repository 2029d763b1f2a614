//! A server that takes files by HTTP: `PUT` and `DELETE` below its address.

use super::StoreError;
use fieldgate_compat::coordinator::CallAuth;
use fieldgate_model::config::{CoordinatorCall, UrlParts};
use fieldgate_net::{ClientTls, HttpCall};
use std::time::Duration;
use tokio::time::sleep;

/// For each of sending and being answered.
const CALL_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of an answer, whose body means nothing.
const ANSWER_MAX: usize = 64 << 10;
/// Before the attempts after the first: what takes longer is given up, as the next segment waits.
const WAITS: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

/// The server.
pub(in crate::wiring) struct Server {
    host: String,
    port: u16,
    tls: Option<ClientTls>,
    /// Ends with `/`.
    base: String,
    auth: CallAuth,
}

impl Server {
    /// `None` for an address that no valid config has.
    pub(super) fn new(call: &CoordinatorCall, tls: Option<ClientTls>) -> Option<Server> {
        let UrlParts { scheme, host, port, path, .. } = call.url.parts().ok()?;
        let is_tls = scheme.eq_ignore_ascii_case("https");
        Some(Server {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: port.unwrap_or(if is_tls { 443 } else { 80 }),
            tls: tls.filter(|_| is_tls),
            base: format!("{}/", path.trim_end_matches('/')),
            auth: crate::wiring::coordinator::applications::auth_of(call),
        })
    }

    fn call(&self, method: &'static str, path: &str, kind: &str, file: &[u8]) -> HttpCall {
        let mut headers = vec![("Content-Type".to_owned(), kind.to_owned())];
        headers
            .extend(self.auth.header().map(|value| ("Authorization".to_owned(), value.reveal().to_owned())));
        HttpCall {
            method,
            host: self.host.clone(),
            port: self.port,
            tls: self.tls.clone(),
            target: format!("{}{path}", self.base),
            headers,
            body: file.to_vec(),
            send_timeout: CALL_WITHIN,
            read_timeout: CALL_WITHIN,
            reply_max_bytes: ANSWER_MAX,
            until_close: false,
        }
    }

    /// Tries a few times; exactly 200 is a yes.
    pub(super) async fn put(&self, path: &str, kind: &str, file: &[u8]) -> Result<(), StoreError> {
        let call = self.call("PUT", path, kind, file);
        let mut waits = WAITS.into_iter();
        loop {
            let error = match call.send().await {
                Ok(reply) if reply.status == 200 => return Ok(()),
                Ok(reply) => StoreError::Status(reply.status),
                Err(error) => StoreError::Call(error),
            };
            match waits.next() {
                Some(wait) => sleep(wait).await,
                None => return Err(error),
            }
        }
    }

    /// Once: what stays there hurts nobody but the server. What is gone is gone.
    pub(super) async fn delete(&self, path: &str) -> Result<(), StoreError> {
        match self.call("DELETE", path, "application/octet-stream", &[]).send().await?.status {
            200 | 404 => Ok(()),
            status => Err(StoreError::Status(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "the server of a test is nobody's")]

    use super::*;
    use serde_json::json;
    use std::sync::{Arc, Mutex};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers each call with the next of these; what was asked.
    async fn serve(answers: &'static [u16]) -> (u16, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = asked.clone();
        tokio::spawn(async move {
            for answer in answers {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut bytes = vec![0; 4_096];
                let mut len = 0;
                while !String::from_utf8_lossy(&bytes[..len]).contains("\r\n\r\n") {
                    len += socket.read(&mut bytes[len..]).await.unwrap();
                }
                heard.lock().unwrap().push(String::from_utf8_lossy(&bytes[..len]).into_owned());
                let reply = format!("HTTP/1.1 {answer} X\r\nContent-Length: 0\r\n\r\n");
                socket.write_all(reply.as_bytes()).await.unwrap();
            }
        });
        (port, asked)
    }

    fn server(port: u16) -> Server {
        let url = format!("http://127.0.0.1:{port}/base");
        let call = serde_json::from_value(json!({"url": url, "user": "u", "password": "p"})).unwrap();
        Server::new(&call, None).unwrap()
    }

    #[tokio::test]
    async fn check_25_files_are_put_until_the_answer_is_200_with_their_kind_and_who_we_are() {
        let (port, asked) = serve(&[500, 201, 200]).await;
        server(port).put("hls/c/1/r/0.ts", "video/mp2t", b"segment").await.unwrap();
        let asked = asked.lock().unwrap().clone();
        assert_eq!(asked.len(), 3);
        for part in [
            "PUT /base/hls/c/1/r/0.ts HTTP/1.0\r\n",
            "\r\nContent-Type: video/mp2t\r\n",
            "\r\nAuthorization: Basic dTpw\r\n",
        ] {
            assert!(asked[2].contains(part), "{part}: {}", asked[2]);
        }
        assert!(!asked[2].contains("json") && asked[2].contains("Content-Length: 7\r\n"));
    }

    #[tokio::test]
    async fn a_server_that_never_says_yes_is_given_up() {
        let (port, asked) = serve(&[503; 4]).await;
        let error = server(port).put("hls/c/1/r/0.ts", "video/mp2t", b"x").await.unwrap_err();
        assert!(error.to_string().contains("answered 503"), "{error}");
        assert_eq!(asked.lock().unwrap().len(), 4);
    }

    #[tokio::test]
    async fn check_25_files_are_deleted_once_and_may_be_gone() {
        let (port, asked) = serve(&[404, 500]).await;
        let server = server(port);
        server.delete("hls/c/1/r/0.ts").await.unwrap();
        assert!(matches!(server.delete("hls/c/1/r/1.ts").await, Err(StoreError::Status(500))));
        assert!(asked.lock().unwrap()[0].starts_with("DELETE /base/hls/c/1/r/0.ts "));
    }
}
