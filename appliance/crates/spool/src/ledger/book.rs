//! The ledger in memory.

use super::{Answer, Cursor, Line, Query, State};
use fieldgate_hub::backlog::LossCause;
use fieldgate_hub::ledger::{Fate, LedgerKey, Stretch, Why};
use std::collections::BTreeMap;

/// Stretches of the same fate that are no further apart are one.
const JOIN_MICROS: i64 = 2_000_000;
/// How many of the newest stretches are looked through for one to join.
const LOOK_BACK: usize = 16;
/// Stretches in all.
pub(super) const MAX_LINES: usize = 8_192;
/// Upstreams' tracks in all.
pub(super) const MAX_PAGES: usize = 512;
/// Changes that wait to be saved; beyond, the whole is saved.
const MAX_UNSAVED: usize = 4_096;

/// One line: when, how much, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) fate: Fate,
    pub(super) stretch: Stretch,
}

#[derive(Default)]
pub(super) struct Page {
    /// By begin.
    pub(super) lines: Vec<Settled>,
    pub(super) pending: Option<Stretch>,
    pending_saved: Option<Stretch>,
    /// What was pending when the gateway stopped, until somebody says what is left of it.
    unresolved: Option<Stretch>,
    /// The gateway stopped without warning: nothing is known since then.
    unknown_since: Option<i64>,
    /// The same, written down at the start already, up to the start: it ends where the first new frame does. Survives
    /// further stops without warning, so that none of them can take it away.
    interrupted: Option<Stretch>,
    interrupted_saved: Option<Stretch>,
    /// When it was made, if nothing else is known of it.
    begun: Option<i64>,
}

/// What changed and is not on disk yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Settled(LedgerKey, Fate, Stretch),
    Pending(LedgerKey, Option<Stretch>),
    Interrupted(LedgerKey, Option<Stretch>),
    Begun(LedgerKey, i64),
}

/// The ledger in memory.
#[derive(Default)]
pub(crate) struct Book {
    pages: BTreeMap<LedgerKey, Page>,
    count: usize,
    forgotten_before: Option<i64>,
    unsaved: Vec<Change>,
    /// Too much has changed to save it piece by piece.
    pub(super) overflown: bool,
    /// A loss is among what is not saved.
    pub(super) urgent: bool,
    /// What must be saved before anything else is: a page's beginning, or what a stop without warning may have cost.
    pub(super) at_once: bool,
    /// The last stop was in order.
    clean: bool,
}

fn joined(one: &Stretch, other: &Stretch) -> Option<Stretch> {
    let apart = other.from_unix_micros > one.to_unix_micros.saturating_add(JOIN_MICROS)
        || one.from_unix_micros > other.to_unix_micros.saturating_add(JOIN_MICROS);
    (!apart).then(|| Stretch {
        from_unix_micros: one.from_unix_micros.min(other.from_unix_micros),
        to_unix_micros: one.to_unix_micros.max(other.to_unix_micros),
        frames: one.frames.saturating_add(other.frames),
        bytes: one.bytes.saturating_add(other.bytes),
    })
}

/// A stretch of which nothing is known, not even how many frames it had.
fn unknown(from_unix_micros: i64, to_unix_micros: i64) -> Stretch {
    let to_unix_micros = to_unix_micros.max(from_unix_micros);
    Stretch { from_unix_micros, to_unix_micros, frames: 0, bytes: 0 }
}

impl Page {
    /// Adds a line, or makes an earlier one longer. Returns how many lines more there are.
    fn add(&mut self, fate: Fate, stretch: Stretch) -> usize {
        let newest = self.lines.len().saturating_sub(LOOK_BACK);
        for at in (newest..self.lines.len()).rev() {
            let Some(line) = self.lines.get_mut(at).filter(|line| line.fate == fate) else { continue };
            if let Some(whole) = joined(&line.stretch, &stretch) {
                line.stretch = whole;
                // It may have grown towards the past.
                let line = self.lines.remove(at);
                self.insert(line);
                return 0;
            }
        }
        self.insert(Settled { fate, stretch });
        1
    }

    fn insert(&mut self, line: Settled) {
        let begin = line.stretch.from_unix_micros;
        let at = self.lines.partition_point(|other| other.stretch.from_unix_micros <= begin);
        self.lines.insert(at, line);
    }

    fn newest(&self) -> Option<i64> {
        self.newest_settled().max(self.pending.map(|pending| pending.to_unix_micros))
    }

    fn newest_settled(&self) -> Option<i64> {
        self.lines.iter().map(|line| line.stretch.to_unix_micros).max()
    }

    /// Up to when everything is settled.
    fn settled_until(&self) -> Option<i64> {
        self.pending.map(|pending| pending.from_unix_micros).or(self.newest_settled()).or(self.begun)
    }
}

impl Book {
    pub(super) fn settle(&mut self, key: &LedgerKey, fate: Fate, stretch: Stretch) {
        let begin = stretch.from_unix_micros;
        if let Some(page) = self.pages.get_mut(key) {
            let since = page.unknown_since.take();
            if let Some(since) = since.filter(|since| begin > *since) {
                self.note(key, Fate::Unknown, unknown(since, begin));
            } else if page.interrupted.is_some_and(|gap| begin > gap.from_unix_micros) {
                self.goes_on(key, begin);
            }
        }
        self.note(key, fate, stretch);
    }

    /// An upstream that keeps its frames on disk begins; `recovered`: what was found there. `interrupted`: it was not
    /// closed in order.
    pub(super) fn begin(
        &mut self,
        key: &LedgerKey,
        recovered: Option<Stretch>,
        interrupted: bool,
        unix_micros: i64,
    ) {
        let page = self.page(key);
        let settled_until = page.settled_until();
        // Its own files know better than the ledger whether it was closed in order.
        page.unknown_since = None;
        page.unresolved = None;
        page.pending = recovered;
        if settled_until.is_none() && recovered.is_none() {
            page.begun = Some(unix_micros);
            self.unsaved.push(Change::Begun(key.clone(), unix_micros));
            self.at_once = true;
        }
        if interrupted {
            self.interrupt(key, settled_until, recovered, unix_micros);
        }
    }

    fn interrupt(
        &mut self,
        key: &LedgerKey,
        settled_until: Option<i64>,
        recovered: Option<Stretch>,
        unix_micros: i64,
    ) {
        // It was let go of after the ledger was saved last.
        let gone = settled_until.zip(recovered).filter(|(until, found)| found.from_unix_micros > *until);
        let known_until = settled_until.max(recovered.map(|found| found.to_unix_micros));
        let since = known_until.unwrap_or(unix_micros);
        let page = self.page(key);
        let since = page.interrupted.map_or(since, |earlier| earlier.from_unix_micros.min(since));
        page.interrupted = Some(unknown(since, unix_micros));
        if let Some((until, found)) = gone {
            self.note(key, Fate::Unknown, unknown(until, found.from_unix_micros));
        }
        self.at_once = true;
    }

    /// The first frame after a stop without warning is there: what may be missing ends with it.
    pub(super) fn goes_on(&mut self, key: &LedgerKey, unix_micros: i64) {
        if let Some(gap) = self.pages.get_mut(key).and_then(|page| page.interrupted.take()) {
            self.note(key, Fate::Unknown, unknown(gap.from_unix_micros.min(unix_micros), unix_micros));
            self.at_once = true;
        }
    }

    /// No frame will come any more: what may be missing ends with the start.
    pub(super) fn ends(&mut self, key: &LedgerKey) {
        if let Some(gap) = self.pages.get_mut(key).and_then(|page| page.interrupted.take()) {
            self.note(key, Fate::Unknown, gap);
        }
    }

    /// The same for all pages.
    pub(super) fn end_all(&mut self) {
        let keys: Vec<LedgerKey> = self.pages.keys().cloned().collect();
        keys.iter().for_each(|key| self.ends(key));
    }

    fn note(&mut self, key: &LedgerKey, fate: Fate, stretch: Stretch) {
        // A page that was never saved could not say after a cut that something is missing from it.
        let begins = self.pages.get(key).is_none_or(|page| page.lines.is_empty());
        self.apply(key, fate, stretch);
        self.at_once |= begins;
        self.urgent |= matches!(fate, Fate::Lost(_) | Fate::Unconfirmed(_) | Fate::Unknown);
        let last = self.unsaved.iter_mut().rev().take(LOOK_BACK).find_map(|change| match change {
            Change::Settled(of, before, grown) if of == key && *before == fate => Some(grown),
            _ => None,
        });
        if let Some(last) = last
            && let Some(whole) = joined(last, &stretch)
        {
            *last = whole;
        } else if self.unsaved.len() < MAX_UNSAVED {
            self.unsaved.push(Change::Settled(key.clone(), fate, stretch));
        } else {
            self.overflown = true;
        }
    }

    /// Takes a change in without noting it for the disk.
    pub(super) fn apply(&mut self, key: &LedgerKey, fate: Fate, stretch: Stretch) {
        self.count += self.page(key).add(fate, stretch);
        while self.count > MAX_LINES {
            self.forget_one();
        }
    }

    pub(super) fn pending(&mut self, key: &LedgerKey, pending: Option<Stretch>) {
        if pending.is_some() || self.pages.contains_key(key) {
            let page = self.page(key);
            page.pending = pending;
            page.unresolved = None;
        }
    }

    pub(super) fn resume(&mut self, key: &LedgerKey, recovered: Option<Stretch>) {
        let clean = self.clean;
        let Some(page) = self.pages.get_mut(key) else { return self.pending(key, recovered) };
        page.pending = recovered;
        let Some(before) = page.unresolved.take() else { return };
        let found = recovered.unwrap_or_default();
        let frames = before.frames.saturating_sub(found.frames);
        if frames == 0 {
            return;
        }
        let from = recovered.map_or(before.from_unix_micros, |found| found.to_unix_micros);
        let stretch = Stretch {
            from_unix_micros: from.clamp(before.from_unix_micros, before.to_unix_micros),
            to_unix_micros: before.to_unix_micros,
            frames,
            bytes: before.bytes.saturating_sub(found.bytes),
        };
        let fate = if clean { Fate::Lost(Why::Backlog(LossCause::Restart)) } else { Fate::Unknown };
        self.note(key, fate, stretch);
    }

    fn page(&mut self, key: &LedgerKey) -> &mut Page {
        if !self.pages.contains_key(key) && self.pages.len() >= MAX_PAGES {
            let oldest = self.pages.iter().min_by_key(|(_, page)| page.newest()).map(|(key, _)| key.clone());
            if let Some(page) = oldest.and_then(|oldest| self.pages.remove(&oldest)) {
                self.count -= page.lines.len();
                self.forgotten_before = self.forgotten_before.max(page.newest());
            }
        }
        self.pages.entry(key.clone()).or_default()
    }

    /// Drops the oldest line of the longest page.
    fn forget_one(&mut self) {
        let Some(page) = self.pages.values_mut().max_by_key(|page| page.lines.len()) else { return };
        if !page.lines.is_empty() {
            let line = page.lines.remove(0);
            self.count -= 1;
            self.forgotten_before = self.forgotten_before.max(Some(line.stretch.to_unix_micros));
        }
    }

    pub(super) fn query(&self, query: &Query) -> Answer {
        let fits = |stretch: &Stretch| {
            query.from_unix_micros.is_none_or(|from| stretch.to_unix_micros >= from)
                && query.to_unix_micros.is_none_or(|to| stretch.from_unix_micros < to)
        };
        let pages = self
            .pages
            .iter()
            .filter(|(key, _)| query.mountpoint.as_ref().is_none_or(|wanted| *wanted == key.mountpoint));
        let mut found: Vec<(&LedgerKey, State, Stretch)> = Vec::new();
        for (key, page) in pages {
            let settled = page.lines.iter().map(|line| (key, State::Settled(line.fate), line.stretch));
            let pending = page.pending.iter().map(|pending| (key, State::Pending, *pending));
            let unknown = page.interrupted.iter().map(|gap| (key, State::Settled(Fate::Unknown), *gap));
            found.extend(settled.chain(pending).chain(unknown).filter(|(_, _, stretch)| fits(stretch)));
        }
        found.sort_by_key(|(_, _, stretch)| stretch.from_unix_micros);
        let start = query.cursor.map_or(0, |cursor| {
            let begin = |line: &(&LedgerKey, State, Stretch)| line.2.from_unix_micros;
            let first = found.partition_point(|line| begin(line) < cursor.from_unix_micros);
            let same = found.partition_point(|line| begin(line) <= cursor.from_unix_micros) - first;
            first + cursor.given.min(same)
        });
        let end = start.saturating_add(query.limit).min(found.len());
        let next =
            found.get(end).and_then(|_| end.checked_sub(1)).and_then(|last| found.get(last)).map(|last| {
                let from_unix_micros = last.2.from_unix_micros;
                let first = found.partition_point(|line| line.2.from_unix_micros < from_unix_micros);
                Cursor { from_unix_micros, given: end - first }
            });
        let lines = found.get(start..end).unwrap_or_default().iter();
        Answer {
            lines: lines
                .map(|(key, state, stretch)| Line { key: (*key).clone(), state: *state, stretch: *stretch })
                .collect(),
            next,
            forgotten_before_unix_micros: self.forgotten_before,
        }
    }

    /// Whether anything is not on disk yet.
    pub(super) fn is_unsaved(&self) -> bool {
        !self.unsaved.is_empty()
            || self.overflown
            || self
                .pages
                .values()
                .any(|page| page.pending != page.pending_saved || page.interrupted != page.interrupted_saved)
    }

    /// What is not on disk yet; from now on it is taken to be.
    pub(super) fn take_unsaved(&mut self) -> Vec<Change> {
        let settled = std::mem::take(&mut self.unsaved);
        (self.urgent, self.at_once, self.overflown) = (false, false, false);
        // A cut may leave the first of them alone: a gap is there before, and until, a line takes its place.
        let (mut changes, mut filled) = (Vec::new(), Vec::new());
        for (key, page) in &mut self.pages {
            if page.interrupted != page.interrupted_saved {
                page.interrupted_saved = page.interrupted;
                let place = if page.interrupted.is_some() { &mut changes } else { &mut filled };
                place.push(Change::Interrupted(key.clone(), page.interrupted));
            }
        }
        changes.extend(settled);
        for (key, page) in &mut self.pages {
            if page.pending != page.pending_saved {
                page.pending_saved = page.pending;
                changes.push(Change::Pending(key.clone(), page.pending));
            }
        }
        changes.extend(filled);
        changes
    }

    /// All there is, as changes to an empty book.
    pub(super) fn all(&mut self) -> Vec<Change> {
        self.take_unsaved();
        let mut changes = Vec::with_capacity(self.count);
        for (key, page) in &self.pages {
            let settled = page.lines.iter().map(|line| Change::Settled(key.clone(), line.fate, line.stretch));
            changes.extend(settled);
            if let Some(pending) = page.pending {
                changes.push(Change::Pending(key.clone(), Some(pending)));
            }
            if let Some(gap) = page.interrupted {
                changes.push(Change::Interrupted(key.clone(), Some(gap)));
            }
            if let Some(unix_micros) = page.begun.filter(|_| page.lines.is_empty()) {
                changes.push(Change::Begun(key.clone(), unix_micros));
            }
        }
        changes
    }

    /// Takes in what was on disk; `clean`: the gateway had stopped in order.
    pub(super) fn restore(&mut self, changes: Vec<Change>, clean: bool) {
        self.clean = clean;
        for change in changes {
            match change {
                Change::Settled(key, fate, stretch) => self.apply(&key, fate, stretch),
                Change::Pending(key, pending) => self.page(&key).pending = pending,
                Change::Interrupted(key, gap) => self.page(&key).interrupted = gap,
                Change::Begun(key, unix_micros) => self.page(&key).begun = Some(unix_micros),
            }
        }
        for page in self.pages.values_mut() {
            page.pending_saved = page.pending;
            page.interrupted_saved = page.interrupted;
            page.unresolved = page.pending;
            page.unknown_since = page.newest().filter(|_| !clean);
        }
    }

    pub(super) fn forgotten_before(&self) -> Option<i64> {
        self.forgotten_before
    }

    pub(super) fn set_forgotten_before(&mut self, unix_micros: i64) {
        self.forgotten_before = self.forgotten_before.max(Some(unix_micros));
    }
}
