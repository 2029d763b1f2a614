//! The hooks by which an old node's media server asks about its peers: `/private/publish` and `/private/play`. An old node
//! looked at the token's form alone and had no hook for players; here the same is asked as of our own peers.

use super::admission::{Question, Refused, Verdict, Wish};
use super::{Key, api};
use crate::{Reply, Request, percent};

/// Longest call: fixed fields, and what the peer put behind its stream's name.
const CALL_MAX: usize = 8 << 10;
/// Longest field.
const FIELD_MAX: usize = 256;

/// What a call asks; `None`: it is no such call, or a field is missing. `call` is `publish` or `play`.
pub(super) fn question(call: &str, query: &str, request: &Request) -> Option<Question> {
    let body = std::str::from_utf8(&request.body).ok()?;
    let form = if body.is_empty() { query } else { body };
    // The first of a name counts: what the peer gave stands behind what the media server says.
    let field = |name: &str| {
        let mut pairs = form.split('&').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(known, _)| *known == name)?;
        Some(percent::of_field(value)).filter(|value| !value.is_empty() && value.len() <= FIELD_MAX)
    };
    if form.len() > CALL_MAX || field("call")? != call {
        return None;
    }
    let (name, app, addr, client_id) = (field("name")?, field("app")?, field("addr")?, field("clientid")?);
    let (wish, key) = match (call, app.as_str()) {
        ("publish", "live") => (Wish::Broadcast, "key"),
        ("publish", "relay") => (Wish::Relay, "key"),
        ("play", "live") => (Wish::View, "token"),
        _ => return None,
    };
    Some(Question { wish, name: Key::new(name), key: field(key).map(Key::new), app, addr, client_id })
}

/// The answer: 200 lets the peer in, all others refuse it.
pub fn judged(verdict: &Verdict) -> Reply {
    match verdict {
        Verdict::Allow { .. } => api::plain(200, ""),
        Verdict::NotMine | Verdict::Refuse(Refused::Malformed) => refused(),
        Verdict::Refuse(why) => api::plain(403, &why.to_string()),
    }
}

/// The answer to what is no call.
pub(super) fn refused() -> Reply {
    api::plain(400, "Bad Request")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    const TOKEN: &str = "abcdefghijklmnopqrstuvwxyz0123456";

    fn asked(call: &str, query: &str, body: &str) -> Option<Question> {
        let request = Request {
            method: "POST".into(),
            target: format!("/private/{call}?{query}"),
            headers: Vec::new(),
            body: body.into(),
            peer: IpAddr::from([127, 0, 0, 1]),
        };
        question(call, query, &request)
    }

    #[test]
    fn a_call_is_read_from_its_form_or_its_query() {
        let form =
            format!("app=live&flashver=&addr=192.0.2.9&clientid=7&call=publish&name={TOKEN}&type=live");
        let question = asked("publish", "", &form).unwrap();
        assert_eq!(
            (question.wish, question.name.reveal(), question.app.as_str()),
            (Wish::Broadcast, TOKEN, "live")
        );
        assert_eq!((question.addr.as_str(), question.client_id.as_str()), ("192.0.2.9", "7"));
        assert_eq!(asked("publish", &form, ""), Some(question));
        // What the peer adds overrides nothing.
        let injected = format!("{form}&name=other&app=relay&key=k%2d1");
        let question = asked("publish", "", &injected).unwrap();
        assert_eq!((question.name.reveal(), question.wish), (TOKEN, Wish::Broadcast));
        let relayed = form.replace("live", "relay") + "&key=K%2d1";
        let question = asked("publish", "", &relayed).unwrap();
        assert_eq!((question.wish, question.key.unwrap().reveal()), (Wish::Relay, "K-1"));
        let play = "app=live&addr=192.0.2.9&clientid=8&call=play&name=s1&token=t";
        let question = asked("play", "", play).unwrap();
        assert_eq!((question.wish, question.key.unwrap().reveal()), (Wish::View, "t"));
    }

    #[test]
    fn what_is_no_call_is_none() {
        let form = format!("app=live&addr=192.0.2.9&clientid=7&call=publish&name={TOKEN}");
        for missing in ["app=live", "addr=192.0.2.9", "clientid=7", "call=publish", &format!("name={TOKEN}")]
        {
            assert_eq!(asked("publish", "", &form.replace(missing, "x=y")), None, "{missing}");
        }
        assert_eq!(asked("play", "", &form), None, "another call");
        assert_eq!(
            asked("publish", "", &form.replace("live", "vod")),
            None,
            "an application that there is not"
        );
        assert_eq!(asked("publish", "", &format!("{form}{}", "a".repeat(CALL_MAX))), None);
        assert_eq!(asked("publish", "", &format!("addr={}&{form}", "a".repeat(FIELD_MAX + 1))), None);
        for (verdict, status) in [
            (Verdict::Allow { stream_id: "s1".into(), peer: super::super::PeerKind::Broadcaster }, 200),
            (Verdict::NotMine, 400),
            (Verdict::Refuse(Refused::Malformed), 400),
            (Verdict::Refuse(Refused::Denied), 403),
            (Verdict::Refuse(Refused::Unreachable), 403),
        ] {
            assert_eq!(judged(&verdict).status, status, "{verdict:?}");
        }
    }
}
