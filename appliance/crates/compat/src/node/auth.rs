//! Asking the master about tokens, and what of its answers may be kept for how long.

use super::Key;
use super::after;
use super::key::is_stream_id;
use super::role::TokenType;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A "no" is kept for so long at most.
const DENIED_FOR: Duration = Duration::from_secs(5);
/// A "yes" is kept for so long at most, whatever the master says.
const TTL_MAX: u64 = 86_400;
/// Default for viewers; publishers are asked about each time.
const VIEW_TTL: u64 = 30;
/// Answers that are kept.
const KEPT_MAX: usize = 4096;

/// One token in a question to the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// What was shown.
    pub token: Key,
    /// What it is for.
    pub kind: TokenType,
    /// The stream, where the peer named one.
    pub stream_id: Option<String>,
    /// RTMP application, or `hls`.
    pub app: String,
    /// Who shows it.
    pub addr: String,
    /// Its connection's number.
    pub client_id: String,
}

/// What the master said of one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is good.
    Ok {
        /// For this stream.
        stream_id: String,
        /// So long it need not be asked about again.
        ttl: Duration,
    },
    /// It is not, or not any more.
    Denied,
}

/// Why a reply is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Neither a list nor one object.
    #[error("the master's answer about tokens is no JSON list")]
    NotAList,
    /// Not as many as were asked about.
    #[error("the master was asked about {asked} tokens and answered about {got}")]
    Count {
        /// Tokens in the question.
        asked: usize,
        /// Tokens in the answer.
        got: usize,
    },
    /// In another order, or about others.
    #[error("the master answered about another token")]
    OtherToken,
}

/// The question's body. `is_publish` is the action.
pub(super) fn question(items: &[Item]) -> Vec<u8> {
    let list: Vec<Value> = items
        .iter()
        .map(|item| {
            let is_view = item.kind == TokenType::Viewer;
            json!({
                "token": item.token.reveal(),
                "type": item.kind.word(),
                "stream_id": item.stream_id,
                "app": item.app,
                "addr": item.addr,
                "client_id": item.client_id,
                "action": if is_view { "play" } else { "publish" },
            })
        })
        .collect();
    Value::Array(list).to_string().into_bytes()
}

/// The answers, in the order of the question.
pub(super) fn answers(items: &[Item], body: &[u8]) -> Result<Vec<Answer>, AuthError> {
    let list = match serde_json::from_slice(body) {
        Ok(Value::Array(list)) => list,
        Ok(one @ Value::Object(_)) => vec![one],
        _ => return Err(AuthError::NotAList),
    };
    if list.len() != items.len() {
        return Err(AuthError::Count { asked: items.len(), got: list.len() });
    }
    items.iter().zip(&list).map(|(item, value)| answer(item, value)).collect()
}

fn answer(item: &Item, value: &Value) -> Result<Answer, AuthError> {
    if let Some(token) = value.get("token")
        && token.as_str() != Some(item.token.reveal())
    {
        return Err(AuthError::OtherToken);
    }
    let is_ok = match value.get("status") {
        Some(Value::String(text)) => text == "ok",
        Some(Value::Number(number)) => number.as_u64() == Some(200),
        Some(Value::Bool(yes)) => *yes,
        _ => false,
    };
    // Without a stream there is nothing that it could be good for.
    let stream_id = value.get("stream_id").and_then(Value::as_str).filter(|id| is_stream_id(id));
    let Some(stream_id) = stream_id.filter(|_| is_ok) else { return Ok(Answer::Denied) };
    let default = if item.kind == TokenType::Viewer { VIEW_TTL } else { 0 };
    let ttl = value.get("ttl").and_then(Value::as_u64).unwrap_or(default).min(TTL_MAX);
    Ok(Answer::Ok { stream_id: stream_id.to_owned(), ttl: Duration::from_secs(ttl) })
}

#[derive(Clone, Debug)]
struct Kept {
    answer: Answer,
    /// Good without asking until then.
    until: Instant,
    /// When the master said so.
    at: Instant,
}

/// A token, what it is for, and the stream that the peer named: the master may answer differently for each.
type Asked = (Key, TokenType, Option<String>);

fn asked(item: &Item) -> Asked {
    (item.token.clone(), item.kind, item.stream_id.clone())
}

/// Answers that are kept.
#[derive(Debug, Default)]
pub(super) struct Answers(BTreeMap<Asked, Kept>);

impl Answers {
    /// Keeps an answer.
    pub(super) fn keep(&mut self, item: &Item, answer: Answer, now: Instant) {
        let until = match &answer {
            Answer::Ok { ttl, .. } => after(now, *ttl),
            Answer::Denied => after(now, DENIED_FOR),
        };
        if self.0.len() >= KEPT_MAX {
            let oldest = self.0.iter().min_by_key(|(_, kept)| kept.at).map(|(key, _)| key.clone());
            oldest.map(|key| self.0.remove(&key));
        }
        self.0.insert(asked(item), Kept { answer, until, at: now });
    }

    /// What need not be asked.
    pub(super) fn fresh(&self, item: &Item, now: Instant) -> Option<&Answer> {
        let kept = self.0.get(&asked(item))?;
        (now < kept.until).then_some(&kept.answer)
    }

    /// The stream of a token that was good not longer than `grace` ago: for when the master cannot be asked.
    pub(super) fn within(&self, item: &Item, grace: Duration, now: Instant) -> Option<&str> {
        let kept = self.0.get(&asked(item))?;
        match &kept.answer {
            Answer::Ok { stream_id, .. } if now <= after(kept.at, grace) => Some(stream_id),
            _ => None,
        }
    }

    /// Forgets what no rule can use any more.
    pub(super) fn sweep(&mut self, grace: Duration, now: Instant) {
        self.0.retain(|_, kept| now < kept.until || now <= after(kept.at, grace));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(kind: TokenType) -> Item {
        Item {
            token: Key::new("a".repeat(33)),
            kind,
            stream_id: None,
            app: "live".into(),
            addr: "192.0.2.1".into(),
            client_id: "7".into(),
        }
    }

    fn start() -> Instant {
        #[allow(clippy::disallowed_methods, reason = "only differences matter")]
        Instant::now()
    }

    #[test]
    fn a_question_is_a_list_of_tokens_with_types() {
        let body: Value = serde_json::from_slice(&question(&[item(TokenType::Broadcaster)])).unwrap();
        assert_eq!(body[0]["token"], "a".repeat(33));
        assert_eq!(body[0]["type"], "BROADCASTER");
        assert_eq!(body[0]["action"], "publish");
        let view: Value = serde_json::from_slice(&question(&[item(TokenType::Viewer)])).unwrap();
        assert_eq!((&view[0]["type"], &view[0]["action"]), (&json!("VIEWER"), &json!("play")));
    }

    #[test]
    fn check_08_only_a_plain_yes_with_a_stream_is_a_yes() {
        let said = |text: &str| answers(&[item(TokenType::Viewer)], text.as_bytes());
        let ok = |ttl| Ok(vec![Answer::Ok { stream_id: "s1".into(), ttl: Duration::from_secs(ttl) }]);
        assert_eq!(said(r#"[{"status":"ok","stream_id":"s1","ttl":300}]"#), ok(300));
        assert_eq!(said(r#"{"status":200,"stream_id":"s1"}"#), ok(30));
        assert_eq!(said(r#"[{"status":true,"stream_id":"s1","ttl":99999999}]"#), ok(86_400));
        for no in [
            r#"[{"status":"denied"}]"#,
            r#"[{"status":"expired","stream_id":"s1"}]"#,
            r#"[{"status":"OK","stream_id":"s1"}]"#,
            r#"[{"status":1,"stream_id":"s1"}]"#,
            r#"[{"status":"ok"}]"#,
            r#"[{"status":"ok","stream_id":"../x"}]"#,
            r#"[{}]"#,
            "[null]",
        ] {
            assert_eq!(said(no), Ok(vec![Answer::Denied]), "{no}");
        }
        assert_eq!(said("garbage"), Err(AuthError::NotAList));
        assert_eq!(said("[]"), Err(AuthError::Count { asked: 1, got: 0 }));
        assert_eq!(said("[{},{}]"), Err(AuthError::Count { asked: 1, got: 2 }));
        let other = r#"[{"token":"b","status":"ok","stream_id":"s1"}]"#;
        assert_eq!(said(other), Err(AuthError::OtherToken));
        let publish = answers(&[item(TokenType::Relay)], br#"[{"status":"ok","stream_id":"s1"}]"#);
        assert_eq!(publish, ok(0), "publishers are asked about each time");
    }

    #[test]
    fn answers_are_kept_as_long_as_permitted() {
        let (mut answers, viewer, t) = (Answers::default(), item(TokenType::Viewer), start());
        let at = |secs| t + Duration::from_secs(secs);
        let yes = Answer::Ok { stream_id: "s1".into(), ttl: Duration::from_secs(30) };
        answers.keep(&viewer, yes.clone(), t);
        assert_eq!(answers.fresh(&viewer, at(29)), Some(&yes));
        assert_eq!(answers.fresh(&viewer, at(30)), None);
        assert_eq!(answers.fresh(&item(TokenType::Relay), t), None, "another type is another question");
        let other = Item { stream_id: Some("s2".into()), ..viewer.clone() };
        assert_eq!(answers.fresh(&other, t), None, "another stream, too");
        let grace = Duration::from_secs(300);
        assert_eq!(answers.within(&viewer, grace, at(300)), Some("s1"));
        assert_eq!(answers.within(&viewer, grace, at(301)), None);
        answers.keep(&viewer, Answer::Denied, at(310));
        assert_eq!(answers.fresh(&viewer, at(314)), Some(&Answer::Denied));
        assert_eq!(answers.fresh(&viewer, at(315)), None);
        assert_eq!(answers.within(&viewer, grace, at(316)), None, "the newest answer counts");
        answers.sweep(grace, at(1000));
        assert!(answers.0.is_empty());
    }

    #[test]
    fn kept_answers_are_bounded_and_the_oldest_goes() {
        let (mut answers, t) = (Answers::default(), start());
        for number in 0..=KEPT_MAX {
            let token = Key::new(format!("{number:033}"));
            let item = Item { token, ..item(TokenType::Viewer) };
            answers.keep(&item, Answer::Denied, t + Duration::from_millis(number as u64));
        }
        assert_eq!(answers.0.len(), KEPT_MAX);
        let first = Item { token: Key::new(format!("{:033}", 0)), ..item(TokenType::Viewer) };
        assert_eq!(answers.fresh(&first, t), None);
    }
}
