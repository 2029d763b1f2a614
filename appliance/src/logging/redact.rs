//! Takes secrets out of a text that somebody else may see.

use fieldgate_model::config::SecretUrl;

/// What stands for a secret.
const MASK: &str = "***";
/// Shorter texts are not taken for secrets: too much would be masked that is none.
const SHORTEST: usize = 4;
/// What the gateway's own tokens begin with.
const TOKENS: [&str; 2] = ["fgt_", "fgl_"];

/// The text without the passwords and keys of URLs in it, without tokens of the gateway, and without these secrets.
pub fn redact(text: &str, secrets: &[String]) -> String {
    let mut text = without_url_secrets(text);
    for token in TOKENS {
        text = without_tokens(&text, token);
    }
    for secret in secrets.iter().filter(|secret| secret.len() >= SHORTEST) {
        if text.contains(secret.as_str()) {
            text = text.replace(secret.as_str(), MASK);
        }
    }
    text
}

fn without_url_secrets(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let before = rest.get(..at).unwrap_or_default();
        let is_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        let begin = before.rfind(|c: char| !is_scheme(c)).map_or(0, |end| {
            end + before.get(end..).and_then(|it| it.chars().next()).map_or(1, char::len_utf8)
        });
        let (lead, url_on) = rest.split_at(begin);
        let ends = |c: char| c.is_whitespace() || "\"'<>`,;".contains(c);
        let (url, after) = url_on.split_at(url_on.find(ends).unwrap_or(url_on.len()));
        clean.push_str(lead);
        clean.push_str(&SecretUrl::new(url).redacted());
        rest = after;
    }
    clean + rest
}

fn without_tokens(text: &str, prefix: &str) -> String {
    let mut parts = text.split(prefix);
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_token = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        let after = part.trim_start_matches(is_token);
        clean.extend([prefix, MASK, after]);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_taken_out_wherever_they_stand() {
        let clean = |text: &str| redact(text, &["hunter22".to_owned(), "abc".to_owned()]);
        assert_eq!(
            clean("pull \"rtmp://u:p@h/a?key=k&x=1\", then"),
            "pull \"rtmp://u:***@h/a?key=***&x=1\", then"
        );
        assert_eq!(clean("a:rtsp://u:p@h b http://h/?token=t"), "a:rtsp://u:***@h b http://h/?token=***");
        assert_eq!(clean("Bearer fgt_AbC-9_x, fgl_y"), "Bearer fgt_***, fgl_***");
        assert_eq!(clean("key hunter22hunter22 abc"), "key ****** abc", "what is short is no secret");
        for odd in ["", "://", "\u{e4}://x", "://://", "fgt_", "a://\u{e4}:\u{e4}@"] {
            clean(odd);
        }
    }
}
