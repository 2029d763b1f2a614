//! What new firmware must show, and why an old one runs again. Pure.

use super::book::Last;
use fieldgate_model::status::State;
use fieldgate_model::{Config, Status};
use std::cmp::Ordering;
use std::collections::BTreeSet;

/// Most parts that are remembered as having delivered, and that a reason names.
const MAX_PARTS: usize = 2048;
const MAX_NAMED: usize = 8;

/// What delivers: `NAME` for a mountpoint's stream, `NAME, push ID` for one that is sent on. At most 2,048.
pub(super) fn delivering(status: &Status) -> Vec<String> {
    let mut all = Vec::new();
    for (name, mountpoint) in &status.mountpoints {
        if mountpoint.stream.is_some() {
            all.push(name.clone());
        }
        let pushes = mountpoint.pushes.iter().filter(|(_, push)| push.activity.state == State::Running);
        all.extend(pushes.map(|(id, _)| format!("{name}, push {id}")));
    }
    all.truncate(MAX_PARTS);
    all
}

/// Those of `before` that do not deliver, as far as the config has them still.
pub(super) fn missing(before: &[String], status: &Status, config: &Config) -> Vec<String> {
    let now: BTreeSet<String> = delivering(status).into_iter().collect();
    let is_wanted = |part: &&String| {
        let (name, push) = part.split_once(", push ").map_or((part.as_str(), None), |(n, p)| (n, Some(p)));
        let Some((_, mountpoint)) = config.mountpoint_for(name) else { return false };
        push.is_none_or(|id| mountpoint.push.iter().any(|push| push.enabled && push.effective_id() == id))
    };
    before.iter().filter(|part| !now.contains(*part)).filter(is_wanted).cloned().collect()
}

/// Names, shortened.
pub(super) fn named(parts: &[String]) -> String {
    let mut text = parts.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join("; ");
    if parts.len() > MAX_NAMED {
        text.push_str(&format!("; and {} more", parts.len() - MAX_NAMED));
    }
    text
}

/// Why the firmware from before runs again.
pub(super) fn why_back(last: &Last) -> String {
    if let Some(verdict) = &last.verdict {
        return verdict.clone();
    }
    if last.starts.is_empty() {
        return "it did not get as far as starting the gateway".to_owned();
    }
    let machines: BTreeSet<&str> = last.starts.iter().map(|start| start.boot.as_str()).collect();
    let ended = last.starts.len() - machines.len();
    let mut text = if ended > 0 {
        format!("the gateway ended by itself {ended} times in it")
    } else {
        // Each start of the machine saw one start of the gateway, and no end of it.
        format!(
            "the machine lost power or was reset {} times before it had been judged; nothing was found wrong with it",
            machines.len()
        )
    };
    if !last.missing.is_empty() {
        text.push_str(&format!("; at last these did not deliver: {}", named(&last.missing)));
    }
    text
}

/// Which of two versions is newer: numbers by their value, all else as text; `~` comes before nothing, as in Debian's.
pub(super) fn compare(one: &str, other: &str) -> Ordering {
    let (one, other) = (parts(one), parts(other));
    let end = (false, 0, String::new());
    for index in 0..one.len().max(other.len()) {
        let order = one.get(index).unwrap_or(&end).cmp(other.get(index).unwrap_or(&end));
        let is_before_the_end = |parts: &[(bool, u128, String)]| {
            parts.get(index).is_some_and(|(_, _, text)| text.starts_with('~'))
        };
        match (is_before_the_end(&one), is_before_the_end(&other)) {
            (true, false) => return Ordering::Less,
            (false, true) => return Ordering::Greater,
            _ if order != Ordering::Equal => return order,
            _ => {}
        }
    }
    Ordering::Equal
}

/// Digits and all else, by turns: whether it is a number, its value, its text.
fn parts(version: &str) -> Vec<(bool, u128, String)> {
    let mut all: Vec<(bool, u128, String)> = Vec::new();
    for letter in version.chars() {
        let digit = letter.to_digit(10).map(u128::from);
        match (all.last_mut(), digit) {
            (Some((true, value, _)), Some(digit)) => *value = value.saturating_mul(10).saturating_add(digit),
            (Some((false, _, text)), None) => text.push(letter),
            (_, Some(digit)) => all.push((true, digit, String::new())),
            (_, None) => all.push((false, 0, letter.to_string())),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::book::Start;
    use super::*;
    use fieldgate_model::status::{MountpointStatus, PushStatus, StreamStatus};
    use serde_json::json;

    #[test]
    fn versions_are_ordered_as_people_read_them() {
        for (older, newer) in [
            ("1.9", "1.10"),
            ("2026.11.3", "2026.12"),
            ("1.0", "1.0.1"),
            ("1.0~rc1", "1.0"),
            ("1.0-1", "1.0-2"),
            ("0.1.0+a", "0.1.0+b"),
            ("009", "10"),
        ] {
            assert_eq!(compare(older, newer), Ordering::Less, "{older} {newer}");
            assert_eq!(compare(newer, older), Ordering::Greater, "{newer} {older}");
            assert_eq!(compare(older, older), Ordering::Equal);
        }
        let long = "9".repeat(64);
        assert_eq!(compare(&long, &long), Ordering::Equal);
    }

    fn status(live: &[&str], pushing: bool) -> Status {
        let mut status = Status::default();
        for name in ["gate", "yard"] {
            let stream = live.contains(&name).then(StreamStatus::default);
            let mut mountpoint = MountpointStatus { stream, ..Default::default() };
            let mut push = PushStatus::default();
            push.activity.state = if pushing { State::Running } else { State::Retrying };
            mountpoint.pushes.insert("up".to_owned(), push);
            status.mountpoints.insert(name.to_owned(), mountpoint);
        }
        status
    }

    #[test]
    fn only_what_delivered_before_and_is_still_wanted_must_deliver_again() {
        let config = json!({"mountpoints": {
            "gate": {"source": {"kind": "publish"}, "push": [{"id": "up", "url": "rtmp://h/a/b"}]},
            "yard": {"source": {"kind": "publish"}, "push": [{"id": "other", "url": "rtmp://h/a/c"}]},
        }});
        let config = Config::from_value(config).unwrap();
        let before = delivering(&status(&["gate"], true));
        assert_eq!(before, ["gate", "gate, push up", "yard, push up"]);
        assert_eq!(missing(&before, &status(&[], false), &config), ["gate", "gate, push up"]);
        assert_eq!(missing(&before, &status(&["gate", "yard"], true), &config), [] as [&str; 0]);
        assert_eq!(missing(&before, &status(&[], false), &Config::default()), [] as [&str; 0]);
    }

    #[test]
    fn a_power_cut_is_told_apart_from_a_crash_and_from_a_picture_that_is_missing() {
        let start = |boot: &str| Start { boot: boot.to_owned(), orderly: false };
        let back = |starts: Vec<Start>, missing: &[&str]| {
            let missing = missing.iter().map(|it| (*it).to_owned()).collect();
            why_back(&Last { starts, missing, ..Last::default() })
        };
        assert!(back(vec![], &[]).contains("did not get as far"));
        assert!(back(vec![start("a"), start("b")], &[]).contains("lost power or was reset 2 times"));
        assert!(back(vec![start("a"), start("a"), start("a")], &[]).contains("ended by itself 2 times"));
        assert!(back(vec![start("a")], &["gate"]).ends_with("these did not deliver: gate"));
        let many: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        assert!(named(&many).ends_with("; 7; and 12 more"));
    }
}
