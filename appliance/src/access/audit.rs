//! Who changed and who watched: a bounded log that survives a reboot.
//!
//! Kept as segments of [`SEGMENT_LEN`] entries; only the newest is rewritten, so that an entry costs a few KB of flash.
//! What repeats (somebody looks at a mountpoint again and again, a stranger guesses) is one entry an hour, or counted.

use crate::store::{StoreFs, write_whole};
use fieldgate_model::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::Duration;
use tokio::time::Instant;

/// Entries in one file.
const SEGMENT_LEN: u64 = 128;
/// Files that are kept; the oldest goes.
const SEGMENTS_MAX: u64 = 16;
/// How long somebody who goes on watching is one entry.
const WATCH_EVERY: Duration = Duration::from_secs(3_600);
/// Pairs of who and what that are remembered for it.
const WATCHED_MAX: usize = 1_024;
/// Refusals that are written in an hour; the others are counted.
const REFUSALS_AN_HOUR: u32 = 120;
const HOUR: Duration = Duration::from_secs(3_600);
const PREFIX: &str = "audit-";
const SUFFIX: &str = ".json";
/// Longest text of an entry, in bytes; what strangers send is cut.
const TEXT_MAX: usize = 200;

/// One thing that was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// Counts entries since the gateway is new.
    pub id: u64,
    /// When.
    pub at: Timestamp,
    /// By whom: a user, `token NAME (ID)`, `local`, `stranger`, `gateway`.
    pub who: String,
    /// From which address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// What: `claim`, `log_in`, `watch`, or method and path.
    pub what: String,
    /// `done`, or `refused` with the status.
    pub result: String,
    /// Refusals before this one that were not written.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// An entry before it has number and time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// See [`Entry::who`].
    pub who: String,
    /// See [`Entry::from`].
    pub from: String,
    /// See [`Entry::what`].
    pub what: String,
    /// See [`Entry::result`].
    pub result: String,
}

/// A part of the log, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Give this as `before` for those before; none at the end.
    pub next: Option<u64>,
}

pub(super) struct Audit {
    files: Box<dyn StoreFs>,
    entries: VecDeque<Entry>,
    next_id: u64,
    watched: BTreeMap<(String, String), Instant>,
    /// Since when refusals are counted, how many were written since, how many were not.
    refusals: (Option<Instant>, u32, u64),
}

impl Audit {
    /// Reads what there is. What cannot be read is left out, and told.
    pub(super) fn open(files: Box<dyn StoreFs>) -> io::Result<(Self, Option<String>)> {
        let mut names: Vec<(u64, String)> =
            files.list()?.into_iter().filter_map(|name| Some((segment_of(&name)?, name))).collect();
        names.sort_unstable();
        let (mut entries, mut unreadable, mut next_id) = (VecDeque::new(), None, 0);
        for (number, name) in &names {
            // A number is never given twice, also if the file that had it is lost.
            next_id = next_id.max(number * SEGMENT_LEN);
            match files
                .read(name)
                .map(|bytes| bytes.map(|bytes| serde_json::from_slice::<Vec<Entry>>(&bytes)))
            {
                Ok(Some(Ok(found))) => entries.extend(found),
                Ok(None) => {}
                _ => {
                    next_id = (number + 1) * SEGMENT_LEN;
                    unreadable = Some(name.clone());
                }
            }
        }
        next_id = entries.back().map_or(next_id, |last: &Entry| next_id.max(last.id + 1));
        let audit = Audit { files, entries, next_id, watched: BTreeMap::new(), refusals: (None, 0, 0) };
        Ok((audit, unreadable))
    }

    /// Writes an entry; it is durable when this returns.
    pub(super) fn add(&mut self, note: Note, at: Timestamp) -> io::Result<()> {
        self.write(note, at, 0)
    }

    /// As [`Audit::add`] for what strangers can cause as often as they like.
    pub(super) fn add_refusal(&mut self, note: Note, at: Timestamp, now: Instant) -> io::Result<()> {
        let (since, written, left_out) = &mut self.refusals;
        if since.is_none_or(|since| now.saturating_duration_since(since) >= HOUR) {
            (*since, *written) = (Some(now), 0);
        }
        if *written >= REFUSALS_AN_HOUR {
            *left_out += 1;
            return Ok(());
        }
        *written += 1;
        let left_out = std::mem::take(left_out);
        self.write(note, at, left_out)
    }

    /// As [`Audit::add`], once an hour for each who and what.
    pub(super) fn add_watch(&mut self, note: Note, at: Timestamp, now: Instant) -> io::Result<()> {
        self.watched.retain(|_, since| now.saturating_duration_since(*since) < WATCH_EVERY);
        let key = (note.who.clone(), note.what.clone());
        if self.watched.contains_key(&key) || self.watched.len() >= WATCHED_MAX {
            return Ok(());
        }
        self.watched.insert(key, now);
        self.write(note, at, 0)
    }

    /// Up to `limit` entries older than `before`, newest first.
    pub(super) fn page(&self, before: Option<u64>, limit: usize) -> Page {
        let older = self.entries.iter().rev().filter(|entry| before.is_none_or(|before| entry.id < before));
        let entries: Vec<Entry> = older.clone().take(limit).cloned().collect();
        let has_more = older.count() > limit;
        Page { next: entries.last().filter(|_| has_more).map(|entry| entry.id), entries }
    }

    fn write(&mut self, note: Note, at: Timestamp, left_out: u64) -> io::Result<()> {
        let Note { who, from, what, result } = note;
        let (id, what) = (self.next_id, cut(what));
        self.entries.push_back(Entry { id, at, who: cut(who), from, what, result, left_out });
        self.next_id += 1;
        let segment = id / SEGMENT_LEN;
        let begin = segment * SEGMENT_LEN;
        let of_segment: Vec<&Entry> = self.entries.iter().filter(|entry| entry.id >= begin).collect();
        let bytes = serde_json::to_vec(&of_segment)?;
        let oldest = segment.saturating_sub(SEGMENTS_MAX - 1);
        self.entries.retain(|entry| entry.id >= oldest * SEGMENT_LEN);
        write_whole(self.files.as_mut(), &name_of(segment), &bytes)?;
        if id == begin && oldest > 0 {
            self.files.remove(&name_of(oldest - 1))?;
        }
        Ok(())
    }
}

fn name_of(segment: u64) -> String {
    format!("{PREFIX}{segment}{SUFFIX}")
}

fn segment_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?
        .strip_suffix(SUFFIX)?
        .parse()
        .ok()
        .filter(|number| *number < u64::MAX / SEGMENT_LEN - 1)
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_MAX {
        text.truncate(text.floor_char_boundary(TEXT_MAX));
        text.push('\u{2026}');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sim::{Fail, SimFs};

    fn note(what: &str) -> Note {
        let text = |text: &str| text.to_owned();
        Note { who: text("ann"), from: text("10.0.0.1"), what: text(what), result: text("done") }
    }

    fn open(fs: &SimFs) -> Audit {
        Audit::open(Box::new(fs.clone())).unwrap().0
    }

    fn at() -> Timestamp {
        Timestamp::from_unix_millis(1_700_000_000_000)
    }

    fn whats(audit: &Audit) -> Vec<String> {
        audit.page(None, usize::MAX).entries.into_iter().map(|entry| entry.what).collect()
    }

    #[test]
    fn entries_survive_a_reboot_and_page_from_the_newest_on() {
        let fs = SimFs::default();
        let mut audit = open(&fs);
        for number in 0..300 {
            audit.add(note(&number.to_string()), at()).unwrap();
        }
        let audit = open(&fs);
        let first = audit.page(None, 100);
        assert_eq!((first.entries[0].what.as_str(), first.next), ("299", Some(200)));
        let rest = audit.page(first.next, 250);
        assert_eq!((rest.entries.len(), rest.entries[0].what.as_str(), rest.next), (200, "199", None));
    }

    #[test]
    fn the_log_is_bounded_on_disk_and_in_memory() {
        let fs = SimFs::default();
        let mut audit = open(&fs);
        let total = SEGMENT_LEN * (SEGMENTS_MAX + 3) + 5;
        for number in 0..total {
            audit.add(note(&number.to_string()), at()).unwrap();
        }
        assert!(audit.entries.len() as u64 <= SEGMENT_LEN * SEGMENTS_MAX);
        assert!(fs.list().unwrap().len() as u64 <= SEGMENTS_MAX);
        let again = open(&fs);
        assert_eq!(whats(&again), whats(&audit));
        assert_eq!(again.next_id, total);
        audit.add(note(&"\u{e4}".repeat(5_000)), at()).unwrap();
        assert!(whats(&audit)[0].len() < TEXT_MAX + 4);
    }

    #[test]
    fn a_cut_after_any_step_loses_at_most_the_entry_that_was_being_written() {
        for last in [3, SEGMENT_LEN, SEGMENT_LEN * SEGMENTS_MAX] {
            let fs = SimFs::default();
            let mut audit = open(&fs);
            (0..last).for_each(|number| audit.add(note(&number.to_string()), at()).unwrap());
            let before = whats(&audit);
            for cut in 0..6 {
                let fs = fs.after_cut().pop().unwrap();
                let mut audit = open(&fs);
                fs.failing(Fail::CutBefore(cut));
                let done = audit.add(note("new"), at()).is_ok();
                for after in fs.after_cut() {
                    let mut found = whats(&open(&after));
                    let is_new = found.first().is_some_and(|what| what == "new");
                    assert!(is_new || !done, "cut before {cut}");
                    if is_new {
                        found.remove(0);
                    }
                    assert!(found == before || before.starts_with(&found), "cut before {cut} of {last}");
                    assert!(found.len() as u64 >= last.saturating_sub(SEGMENT_LEN));
                }
            }
        }
    }

    #[test]
    fn a_damaged_segment_is_told_and_its_numbers_are_not_given_again() {
        let fs = SimFs::default();
        let mut audit = open(&fs);
        (0..SEGMENT_LEN + 3).for_each(|number| audit.add(note(&number.to_string()), at()).unwrap());
        fs.damage("audit-1.json", b"[{");
        let (mut audit, unreadable) = Audit::open(Box::new(fs.clone())).unwrap();
        assert_eq!(unreadable.as_deref(), Some("audit-1.json"));
        audit.add(note("new"), at()).unwrap();
        assert_eq!(audit.page(None, 1).entries[0].id, 2 * SEGMENT_LEN);
    }

    #[test]
    fn watching_is_one_entry_an_hour_and_refusals_do_not_push_out_the_rest() {
        let (fs, start) = (SimFs::default(), Instant::now());
        let mut audit = open(&fs);
        for minute in 0..120 {
            audit.add_watch(note("watch gate"), at(), start + Duration::from_secs(60 * minute)).unwrap();
        }
        audit.add_watch(note("watch yard"), at(), start).unwrap();
        assert_eq!(audit.entries.len(), 3);
        for _ in 0..1_000 {
            audit.add_refusal(note("log_in"), at(), start).unwrap();
        }
        assert_eq!(audit.entries.len(), 3 + REFUSALS_AN_HOUR as usize);
        audit.add_refusal(note("log_in"), at(), start + HOUR).unwrap();
        assert_eq!(audit.page(None, 1).entries[0].left_out, 1_000 - u64::from(REFUSALS_AN_HOUR));
    }
}
