//! An answer before it is HTTP, and its form on the wire.

use fieldgate_model::config::Problem;
use serde_json::json;

/// What the gateway answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// HTTP status.
    pub(super) status: u16,
    /// Media type of the body; empty where there is none.
    pub(super) content_type: &'static str,
    /// Further headers.
    pub(super) headers: Vec<(&'static str, String)>,
    /// The body.
    pub(super) body: Vec<u8>,
}

/// Headers of every answer: nothing of this plane belongs in another site's page, a frame or a cache.
const SECURITY_HEADERS: &str = "x-content-type-options: nosniff\r\n\
    x-frame-options: DENY\r\n\
    referrer-policy: no-referrer\r\n\
    cross-origin-resource-policy: same-origin\r\n\
    cross-origin-opener-policy: same-origin\r\n\
    content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; \
    form-action 'self'; frame-ancestors 'none'\r\n\
    cache-control: no-store\r\n\
    connection: close\r\n";

impl Reply {
    /// A body of some type.
    pub(super) fn new(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Reply { status, content_type, headers: Vec::new(), body: body.into() }
    }

    /// JSON.
    pub(super) fn json(status: u16, value: &serde_json::Value) -> Self {
        Self::new(status, "application/json", value.to_string())
    }

    /// An error as RFC 9457 wants it, with each problem and its remedy.
    pub(super) fn problem(status: u16, detail: &str, problems: &[Problem]) -> Self {
        let mut value = json!({
            "type": "about:blank",
            "title": reason(status),
            "status": status,
            "detail": detail,
        });
        if !problems.is_empty()
            && let Some(object) = value.as_object_mut()
        {
            object.insert("problems".to_owned(), json!(problems));
        }
        Self::new(status, "application/problem+json", value.to_string())
    }

    /// No body.
    pub(super) fn empty(status: u16) -> Self {
        Self::new(status, "", Vec::new())
    }

    /// The same with one more header.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// As it is sent by the front itself.
    pub(super) fn to_wire(&self, without_body: bool) -> Vec<u8> {
        let mut headers: Vec<(&str, &str)> =
            self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        if !self.content_type.is_empty() {
            headers.push(("content-type", self.content_type));
        }
        let mut wire = head_to_wire(self.status, &headers, self.body.len());
        if !without_body {
            wire.extend_from_slice(&self.body);
        }
        wire
    }
}

/// Status line and headers of an answer that goes on until the connection ends.
pub(super) fn stream_head(content_type: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 {}\r\n{SECURITY_HEADERS}content-type: {content_type}\r\n\r\n", reason(200))
        .into_bytes()
}

/// Status line and headers, the ones of every answer included.
pub(super) fn head_to_wire(status: u16, headers: &[(&str, &str)], body_len: usize) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} {}\r\n{SECURITY_HEADERS}", reason(status));
    for (name, value) in headers {
        text.extend([name, ": ", value, "\r\n"]);
    }
    if !matches!(status, 204 | 304) {
        text.push_str(&format!("content-length: {body_len}\r\n"));
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// The words that go with a status.
pub(super) fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_tells_path_cause_and_remedy() {
        let path = fieldgate_model::config::Path::root().field("rtmp").field("listen").item(0);
        let problem = Problem::new(&path, "port is taken").got("127.0.0.1:1935");
        let reply = Reply::problem(422, "this config cannot be applied", &[problem]);
        let value: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(reply.content_type, "application/problem+json");
        assert_eq!(value["status"], 422);
        assert_eq!(value["title"], "Unprocessable Content");
        assert_eq!(
            value["problems"],
            json!([{"path": "rtmp.listen[0]", "problem": "port is taken", "got": "127.0.0.1:1935"}])
        );
    }

    #[test]
    fn every_answer_carries_the_headers_that_keep_other_sites_out() {
        let wire = String::from_utf8(Reply::empty(204).with("allow", "GET").to_wire(false)).unwrap();
        assert!(wire.starts_with("HTTP/1.1 204 No Content\r\n"));
        for header in
            ["x-frame-options: DENY", "nosniff", "default-src 'none'", "connection: close", "allow: GET"]
        {
            assert!(wire.contains(header), "{header} in {wire}");
        }
        assert!(!wire.contains("content-length"), "RFC 9110: none with 204");
        let head = Reply::new(200, "text/plain", "four").to_wire(true);
        assert!(head.ends_with(b"content-length: 4\r\n\r\n"));
    }
}
