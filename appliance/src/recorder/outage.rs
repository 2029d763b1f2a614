//! A time in which something did not deliver: what was learned meanwhile, and what it is put down to.

use super::probe::Reach;
use fieldgate_model::{Cause, Timestamp};

/// Different notes that are kept of one outage.
const NOTES: usize = 6;
/// Longest note, in bytes.
const NOTE_MAX: usize = 120;

/// What was learned while something did not deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outage {
    /// When the last of it came.
    pub(super) since: Timestamp,
    /// What was seen, and how often.
    notes: Vec<(String, u32)>,
    pub(super) reach: Option<Reach>,
}

impl Outage {
    pub(super) fn new(since: Timestamp) -> Self {
        Outage { since, notes: Vec::new(), reach: None }
    }

    /// Adds what was seen; whether that is new.
    pub(super) fn note(&mut self, text: &str) -> bool {
        let text = short(text);
        if let Some((_, times)) = self.notes.iter_mut().find(|(known, _)| *known == text) {
            *times += 1;
            return false;
        }
        if self.notes.len() < NOTES {
            self.notes.push((text, 1));
            return true;
        }
        false
    }

    /// Whole seconds that it lasted, at least one.
    pub(super) fn seconds(&self, until: Timestamp) -> u64 {
        let millis = until.unix_millis().saturating_sub(self.since.unix_millis());
        u64::try_from(millis).unwrap_or(0).div_ceil(1_000).max(1)
    }

    /// All that was seen, in its order, each with how often.
    pub(super) fn told(&self) -> Vec<String> {
        let reach = self.reach.iter().map(Reach::text);
        let notes = self.notes.iter().map(|(text, times)| match times {
            1 => text.clone(),
            _ => format!("{text} ({times} times)"),
        });
        reach.chain(notes).collect()
    }

    /// What it is put down to: a password or a lack of room says so itself, the network comes next, then `otherwise`.
    pub(super) fn cause(&self, otherwise: Cause) -> Cause {
        let words = self.notes.iter().find_map(|(text, _)| cause_in(text));
        let reach = self.reach.as_ref().and_then(Reach::cause);
        words.or(reach).unwrap_or(otherwise)
    }
}

/// A note in one line of bounded length.
fn short(text: &str) -> String {
    let mut text = text.trim().replace(['\n', '\r'], " ");
    if text.len() > NOTE_MAX {
        text.truncate(text.floor_char_boundary(NOTE_MAX));
        text.push('\u{2026}');
    }
    text
}

/// What the words of an error give away.
fn cause_in(text: &str) -> Option<Cause> {
    let text = text.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&["password", "401", "403", "refused the login", "authentication", "wants a login"]) {
        return Some(Cause::Password);
    }
    if has(&["no room", "capacity", "left out", "too hot"]) {
        return Some(Cause::Capacity);
    }
    if has(&[
        "pipeline",
        "cannot encode here",
        "cannot decode here",
        "worker hangs",
        "worker exited",
        "signal",
    ]) {
        return Some(Cause::Gateway);
    }
    if has(&["settings", "masks changed"]) {
        return Some(Cause::Settings);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_unix_millis(secs * 1_000)
    }

    #[test]
    fn what_is_seen_again_is_counted_and_the_number_of_notes_is_bounded() {
        let mut outage = Outage::new(at(100));
        assert!(outage.note("SETUP refused: 454"));
        assert!(!outage.note("SETUP refused: 454"));
        for number in 0..20 {
            outage.note(&format!("{number}{}", "\u{e4}".repeat(200)));
        }
        let told = outage.told();
        assert_eq!((told.len(), told[0].as_str()), (NOTES, "SETUP refused: 454 (2 times)"));
        assert!(told.iter().all(|text| text.len() < NOTE_MAX + 16));
        assert_eq!((outage.seconds(at(141)), outage.seconds(at(90))), (41, 1));
    }

    #[test]
    fn the_cause_is_what_is_known_best() {
        let mut outage = Outage::new(at(0));
        assert_eq!(outage.cause(Cause::Camera), Cause::Camera);
        outage.reach = Some(Reach { has_link: true, answers: Some(("10.0.0.7:554".to_owned(), false)) });
        assert_eq!(outage.cause(Cause::Camera), Cause::Unreachable);
        outage.note("the camera refused the password (401)");
        assert_eq!(outage.cause(Cause::Camera), Cause::Password);
    }
}
