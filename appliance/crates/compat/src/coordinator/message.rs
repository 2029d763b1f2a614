//! Messages of the control sockets: a type, then `Name:value` lines.

use std::fmt;

/// Longest message, in bytes.
pub const MESSAGE_MAX: usize = 64 << 10;
/// What of words about errors is shown, in characters.
pub(crate) const WORDS_MAX: usize = 200;
/// Most parameters of one.
const PARAMETERS_MAX: usize = 64;

/// Why a text is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Far longer than any real one.
    #[error("a message has at most {} bytes", MESSAGE_MAX)]
    TooLong,
    /// Far more than any real one.
    #[error("a message has at most {} parameters", PARAMETERS_MAX)]
    TooMany,
}

impl MessageError {
    /// As `Error-Code` says it.
    pub fn code(self) -> &'static str {
        match self {
            MessageError::TooLong => "MESSAGE_TOO_LONG",
            MessageError::TooMany => "TOO_MANY_PARAMETERS",
        }
    }
}

/// One message. Its values may hold secrets: there is no `Debug` of them.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    kind: String,
    parameters: Vec<(String, String)>,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} parameters)", self.kind, self.parameters.len())
    }
}

impl Message {
    /// One without parameters.
    pub fn new(kind: &str) -> Message {
        Message { kind: kind.to_owned(), parameters: Vec::new() }
    }

    /// With one parameter more. What would break the line is left out of the value.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Message {
        let value: String = value.chars().filter(|c| !c.is_control()).collect();
        self.parameters.push((name.to_owned(), value.trim().to_owned()));
        self
    }

    /// Reads what a peer sent. A body is left out.
    pub fn parse(text: &str) -> Result<Message, MessageError> {
        if text.len() > MESSAGE_MAX {
            return Err(MessageError::TooLong);
        }
        let mut lines = text.split('\n').map(str::trim).peekable();
        let mut message = Message::new(&lines.next().unwrap_or_default().to_ascii_uppercase());
        // The manual's examples have a blank line behind the type, and what follows is meant as parameters.
        if lines.peek().is_some_and(|line| line.is_empty()) {
            lines.next();
            if !lines.peek().is_some_and(|line| is_parameter(line)) {
                return Ok(message);
            }
        }
        for line in lines.take_while(|line| !line.is_empty()) {
            let Some((name, value)) = line.split_once(':') else { continue };
            if message.parameters.len() >= PARAMETERS_MAX {
                return Err(MessageError::TooMany);
            }
            message.parameters.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        Ok(message)
    }

    /// The type, in capitals.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// A parameter's value, of two with one name the last; empty where there is none.
    pub fn get(&self, name: &str) -> &str {
        let mut same = self.parameters.iter().rev().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        same.next().map_or("", |(_, value)| value)
    }

    /// As peers want it: no blank behind a colon (some cannot read numbers then), no blank line.
    pub fn text(&self) -> String {
        let mut text = self.kind.clone();
        for (name, value) in &self.parameters {
            text.push('\n');
            text.push_str(name);
            text.push(':');
            text.push_str(value);
        }
        text
    }

    /// What an `ERROR` says, for the log.
    pub(crate) fn error_words(&self) -> String {
        let words = format!("{} {}", self.get("Error-Code"), self.get("Error-Message"));
        words.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect()
    }
}

fn is_parameter(line: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    line.split_once(':').is_some_and(|(name, _)| !name.is_empty() && name.trim().bytes().all(is_plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_02_no_blank_follows_a_colon_and_no_line_is_empty() {
        let message = Message::new("PUBLISH-ACCEPT").with("Request-ID", " 7 ").with("Stream-ID", "a\nb: c");
        assert_eq!(message.text(), "PUBLISH-ACCEPT\nRequest-ID:7\nStream-ID:ab: c");
    }

    #[test]
    fn what_peers_send_is_read_with_all_its_habits() {
        let read = |text: &str| {
            let message = Message::parse(text).unwrap();
            (message.kind().to_owned(), message.get("stream-id").to_owned())
        };
        for text in [
            "publish-end\nStream-ID:x",
            "PUBLISH-END\r\nStream-ID: x \r\n",
            "Publish-End \nSTREAM-ID : a\nstream-id:x\n\nStream-ID:body",
            "PUBLISH-END\n\nStream-ID:x",
            "PUBLISH-END\nnonsense\nStream-ID:x",
        ] {
            assert_eq!(read(text), ("PUBLISH-END".to_owned(), "x".to_owned()), "{text:?}");
        }
        assert_eq!(read("PUBLISH-END\n\n{\"Stream-ID\": 1}"), ("PUBLISH-END".to_owned(), String::new()));
        assert_eq!(read("A\nStream-ID:rtmp://[::1]:1/a").1, "rtmp://[::1]:1/a");
        assert_eq!(read("HEARTBEAT").0, "HEARTBEAT");
        assert_eq!(read("").0, "");
    }

    #[test]
    fn what_is_too_much_is_refused() {
        assert!(Message::parse(&"a".repeat(MESSAGE_MAX)).is_ok());
        assert_eq!(Message::parse(&"a".repeat(MESSAGE_MAX + 1)), Err(MessageError::TooLong));
        let many = |count| format!("A{}", "\nN:v".repeat(count));
        assert!(Message::parse(&many(PARAMETERS_MAX)).is_ok());
        assert_eq!(Message::parse(&many(PARAMETERS_MAX + 1)), Err(MessageError::TooMany));
        assert!(!format!("{:?}", Message::new("A").with("Stream-Key", "s3cret")).contains("s3cret"));
    }
}
