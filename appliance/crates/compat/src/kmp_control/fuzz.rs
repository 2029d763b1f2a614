//! Fuzz targets: plain functions that take any bytes and must return. `cargo test` runs them over recorded replies and a
//! fixed seed of mutations; a fuzzer may call them too.

use super::api::{Exchange, Outcome, Snapshot, Step};
use super::json::{Json, Writer, pretty};
use super::reply::Reader;
use super::upstream::UpstreamUrl;
use crate::{Reply, Request};
use fieldgate_model::config::KmpControlApi;
use std::net::IpAddr;

/// A controller's reply to each callback. What the connector's own rules take, ours take too, and what is taken keeps to
/// KMP's limits.
pub fn callback_reply(data: &[u8]) {
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    let reply = Reply { status: 200, headers, body: data.to_vec() };
    let [strict, ours] = [true, false].map(|strict| Reader { buffer_bytes: 1 << 20, strict });
    assert_eq!(strict.connect(&reply), ours.connect(&reply));
    if let Ok(published) = strict.publish(&reply) {
        assert!(published.channel_id.len() <= 32 && published.track_id.len() <= 32);
        let same = ours.publish(&reply).expect("ours takes what strict takes");
        assert!(published.upstreams.is_err() || same == published);
        for upstream in published.upstreams.into_iter().flatten() {
            assert!(upstream.url.ip().is_some() && !upstream.url.tls);
        }
    }
    if let Ok(upstream) = ours.republish(&reply) {
        let shown = upstream.url.to_string();
        assert_eq!(UpstreamUrl::parse(&shown, false).as_ref(), Ok(&upstream.url), "{shown}");
    }
}

/// Text from anywhere, written as JSON, reads back; also with line breaks.
pub fn json_round_trip(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let json = Writer::document(|w| {
        w.text(&text, &text);
        w.list("list", text.split(' '), |w, word| w.quoted(word));
    });
    let words = text.split(' ').map(|word| Json::Text(word.to_owned())).collect();
    let list = ("list".to_owned(), Json::List(words));
    let expected = Json::Object(vec![(text.to_string(), Json::Text(text.to_string())), list]);
    for json in [&json, &pretty(&json)] {
        assert!(Json::parse(json.as_bytes()).is_ok_and(|read| read == expected), "{json}");
    }
}

/// A request to the APIs: method and target in the first line, the body behind it. It ends with a reply, after no more
/// actions than one request may ask for, and what is answered is JSON.
pub fn api_request(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (line, body) = text.split_once('\n').unwrap_or((&text, ""));
    let (method, target) = line.split_once(' ').unwrap_or(("GET", line));
    let request = Request {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: body.into(),
        peer: IpAddr::from([127, 0, 0, 1]),
    };
    let settings = KmpControlApi { write: true, ..KmpControlApi::default() };
    let mut exchange = Exchange::new(&request, &settings);
    for _ in 0..=64 {
        match exchange.step(&Snapshot::default()) {
            Step::Act(_) => exchange.handle_outcome(Outcome::Done),
            Step::Reply(reply) => {
                assert!((200..=500).contains(&reply.status));
                assert!(reply.body.is_empty() || Json::parse(&reply.body).is_ok());
                return;
            }
        }
    }
    panic!("no reply to {line:?}");
}

/// A function that takes any bytes and must return.
pub type Target = fn(&[u8]);

/// All targets by name, for runners.
pub const TARGETS: [(&str, Target); 3] =
    [("callback_reply", callback_reply), ("json_round_trip", json_round_trip), ("api_request", api_request)];

#[cfg(test)]
mod tests;
