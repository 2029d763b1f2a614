//! Fuzz targets: plain functions that take any bytes and must return. `cargo test` runs them over a fixed seed of
//! mutations; a fuzzer may call them too.

use super::Key;
use super::auth::{self, Item};
use super::beat::Beat;
use super::key::is_stream_id;
use super::role::{Role, Roles, TokenType};
use super::tables::{Own, Tables};
use super::{announce, events};
use std::time::{Duration, Instant};

/// Relay tables: what is taken keeps to its limits, and sends nothing to ourselves.
pub fn tables(data: &[u8]) {
    let Ok(tables) = Tables::parse(data) else { return };
    let own = Own { ids: ["me".to_owned()].into(), addresses: ["me:1935".to_owned()].into() };
    for role in [Role::Ingest, Role::RootRelay, Role::Relay] {
        for id in tables.pushes(&Roles::one(role), ["s1", "s2"].into_iter(), &own).keys() {
            assert!(is_stream_id(&id.stream_id) && id.node_id != "me");
            assert!(super::tables::address(&id.node_url).is_some_and(|at| at != "me:1935"));
        }
    }
    assert!(tables.accepts("s1", "").is_none());
}

/// A reply to a heartbeat: whatever it says, the next beat is neither at once nor never.
pub fn heartbeat_reply(data: &[u8], now: Instant) {
    let Some((first, body)) = data.split_first() else { return };
    let status = [200, 200, 200, 401, 403, 404, 409, 410, 500].get(usize::from(*first % 9)).copied();
    let mut beat = Beat::new(Duration::from_secs(5));
    beat.begin(now);
    beat.poll(now);
    beat.handle_reply(200, body, now);
    let Some(due) = beat.due() else { return };
    assert!(due >= now && due <= super::after(now, Duration::from_secs(301)));
    if beat.poll(due).is_some() {
        beat.handle_reply(status.unwrap_or(200), body, due);
        assert!(beat.due().is_none_or(|next| next >= due));
    }
}

/// A reply about tokens, to an announcement, and to an event: a yes names a stream.
pub fn master_reply(data: &[u8]) {
    let item = |kind| Item {
        token: Key::new("t"),
        kind,
        stream_id: None,
        app: String::new(),
        addr: String::new(),
        client_id: String::new(),
    };
    for items in [vec![item(TokenType::Viewer)], vec![item(TokenType::RootRelay), item(TokenType::Relay)]] {
        let Ok(answers) = auth::answers(&items, data) else { continue };
        assert_eq!(answers.len(), items.len());
        for answer in answers {
            if let auth::Answer::Ok { stream_id, ttl } = answer {
                assert!(is_stream_id(&stream_id) && ttl <= Duration::from_secs(86_400));
            }
        }
    }
    if let Ok(announced) = announce::reply(data) {
        assert!(!announced.secret.is_empty() && !announced.id.contains('\n'));
    }
    events::heard(200, data);
}

#[cfg(test)]
mod tests;
