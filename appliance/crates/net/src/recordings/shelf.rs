//! One mountpoint's recordings: a folder of whole segments, and what of it is known in memory.
//!
//! ```text
//!  write: temporary file, sync, rename; both tracks, then sync the folder -> known
//!  start: temporary files go (what a cut left), names are read, what is no name of ours is left alone
//! ```
//! All of this blocks on the disk.

use super::entry::{Entry, InitFile, TEMPORARY, hash};
use bytes::Bytes;
use fieldgate_media::{Track, TrackKind};
use fieldgate_proto::segment::{Init, Segment};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// The file that says for which masks the folder was made.
const MASKS: &str = "masks";

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes of all segments.
    pub bytes: u64,
    /// Age of a segment's end, microseconds.
    pub age_micros: i64,
}

/// What a shelf holds and has cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShelfReport {
    /// Whole segments, each track counted.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When the oldest begins, microseconds since 1970.
    pub oldest: Option<i64>,
    /// When the newest ends.
    pub newest: Option<i64>,
    /// Bytes written to disk since the start.
    pub written_bytes: u64,
    /// Segments that were not kept: the disk was too slow or refused them.
    pub lost: u64,
    /// Unfinished files that the start found and removed.
    pub mended: u64,
    /// Why the last segment was not kept, until one is.
    pub trouble: Option<String>,
}

#[derive(Debug, Default)]
struct Known {
    /// By number and track, pictures first.
    entries: BTreeMap<(u64, bool), Entry>,
    inits: BTreeMap<(u64, bool), InitFile>,
    bytes: u64,
    written_bytes: u64,
    lost: u64,
    mended: u64,
    trouble: Option<String>,
}

/// One mountpoint's recordings.
#[derive(Debug)]
pub struct Shelf {
    folder: PathBuf,
    known: Mutex<Known>,
    /// Cancelled when what there is may not be shown any more.
    valid: Mutex<CancellationToken>,
}

/// Part of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excerpt {
    /// In order; both tracks.
    pub entries: Vec<Entry>,
    /// Those that they need.
    pub inits: Vec<InitFile>,
    /// The newest segment of all is among them, so that more may follow.
    pub reaches_end: bool,
}

impl Shelf {
    /// Opens the folder, makes it if need be, and mends what a cut left.
    pub fn open(folder: &Path) -> io::Result<Shelf> {
        fs::create_dir_all(folder)?;
        let mut known = Known::default();
        for found in fs::read_dir(folder)? {
            let found = found?;
            let name = found.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with(TEMPORARY) {
                fs::remove_file(found.path())?;
                known.mended += 1;
            } else if let Some(mut entry) = Entry::parse(name) {
                entry.bytes = found.metadata()?.len();
                known.bytes += entry.bytes;
                known.entries.insert(key(entry.number, entry.kind), entry);
            } else if let Some(init) = InitFile::parse(name) {
                known.inits.insert(key(init.hash, init.kind), init);
            }
        }
        // A segment without what a player needs before it is of no use.
        let inits = &known.inits;
        let orphans = |entry: &Entry| !inits.contains_key(&key(entry.init, entry.kind));
        let orphans: Vec<Entry> = known.entries.values().filter(|entry| orphans(entry)).cloned().collect();
        for entry in orphans {
            fs::remove_file(folder.join(entry.name()))?;
            known.bytes = known.bytes.saturating_sub(entry.bytes);
            known.entries.remove(&key(entry.number, entry.kind));
            known.mended += 1;
        }
        Ok(Shelf { folder: folder.to_owned(), known: Mutex::new(known), valid: Mutex::default() })
    }

    /// Removes everything unless it was recorded under the masks that were last added at that time. To be called before
    /// anything is shown or written, and whenever a mask is added.
    pub fn keep_only_under(&self, tightened: Option<i64>) -> io::Result<()> {
        let mark = tightened.map_or_else(String::new, |at| at.to_string());
        let path = self.folder.join(MASKS);
        let before = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        if before == mark {
            return Ok(());
        }
        std::mem::take(&mut *self.valid.lock().unwrap_or_else(PoisonError::into_inner)).cancel();
        let all: BTreeSet<u64> = self.lock().entries.keys().map(|(number, _)| *number).collect();
        all.into_iter().try_for_each(|number| self.remove(number))?;
        self.put(MASKS, |file| file.write_all(mark.as_bytes()))?;
        self.sync()
    }

    /// Cancelled when what there is now may not be shown any more.
    pub fn valid(&self) -> CancellationToken {
        self.valid.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The number of the next segment must be at least this.
    pub fn next_number(&self) -> u64 {
        self.lock().entries.keys().next_back().map_or(0, |(number, _)| number.saturating_add(1))
    }

    /// Keeps a segment, both tracks of it; the oldest go for it, and when the disk is full a second time.
    pub fn write(&self, tracks: &[Option<std::sync::Arc<Segment>>; 2], budget: Budget) -> io::Result<()> {
        let mut outcome = self.try_write(tracks);
        if outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::StorageFull)
            && self.drop_oldest()?
        {
            outcome = self.try_write(tracks);
        }
        match &outcome {
            Ok(()) => self.lock().trouble = None,
            Err(error) => {
                let mut known = self.lock();
                known.lost += 1;
                known.trouble = Some(error.to_string());
            }
        }
        let newest = tracks.iter().flatten().map(|segment| segment.unix_micros).max();
        self.fit(budget, newest.unwrap_or(i64::MIN))?;
        outcome
    }

    /// A segment came too fast for the disk.
    pub fn count_lost(&self) {
        let mut known = self.lock();
        known.lost += 1;
        known.trouble = Some("the disk is too slow".to_owned());
    }

    fn try_write(&self, tracks: &[Option<std::sync::Arc<Segment>>; 2]) -> io::Result<()> {
        let mut written = Vec::new();
        for (kind, segment) in [TrackKind::Video, TrackKind::Audio].into_iter().zip(tracks) {
            // A track that was silent in this time has no file.
            let Some(segment) = segment.as_ref().filter(|segment| !segment.parts.is_empty()) else {
                continue;
            };
            let init = self.keep_init(kind, &segment.init)?;
            let mut entry = Entry {
                number: segment.number,
                kind,
                unix_micros: segment.unix_micros,
                duration: segment.duration,
                init,
                is_discontinuity: segment.is_discontinuity || segment.number == segment.origin.number,
                bytes: 0,
            };
            entry.bytes = self.put(&entry.name(), |file| {
                for part in &segment.parts {
                    file.write_all(&part.head)?;
                    part.samples.iter().try_for_each(|sample| file.write_all(&sample.payload))?;
                }
                Ok(())
            })?;
            written.push(entry);
        }
        self.sync()?;
        let mut known = self.lock();
        for entry in written {
            known.bytes += entry.bytes;
            known.entries.insert(key(entry.number, entry.kind), entry);
        }
        Ok(())
    }

    /// Makes sure that an initialisation segment is there.
    fn keep_init(&self, kind: TrackKind, init: &Init) -> io::Result<u64> {
        let hash = hash(&init.file);
        if !self.lock().inits.contains_key(&key(hash, kind)) {
            let Track { video, .. } = &init.track;
            let size = if kind == TrackKind::Video { (video.width, video.height) } else { (0, 0) };
            let file = InitFile { hash, kind, codecs: init.codecs.clone(), size };
            self.put(&file.name(), |out| out.write_all(&init.file))?;
            self.lock().inits.insert(key(hash, kind), file);
        }
        Ok(hash)
    }

    /// Writes a whole file under its name, or nothing.
    fn put(&self, name: &str, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<u64> {
        let temporary = self.folder.join(format!("{TEMPORARY}{name}"));
        let written = (|| {
            let mut file = BufWriter::with_capacity(256 << 10, File::create(&temporary)?);
            write(&mut file)?;
            let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.sync_all()?;
            let bytes = file.metadata()?.len();
            fs::rename(&temporary, self.folder.join(name))?;
            Ok(bytes)
        })();
        match &written {
            Ok(bytes) => self.lock().written_bytes += bytes,
            // What is left of it must not take room.
            Err(_) => drop(fs::remove_file(&temporary)),
        }
        written
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    /// Removes whole segments, the oldest first, until the budget holds.
    fn fit(&self, budget: Budget, now: i64) -> io::Result<()> {
        loop {
            let oldest = {
                let known = self.lock();
                let Some(oldest) = known.entries.values().next() else { return Ok(()) };
                let is_old = oldest.ends() < now.saturating_sub(budget.age_micros);
                if known.bytes <= budget.bytes && !is_old {
                    return Ok(());
                }
                oldest.number
            };
            self.remove(oldest)?;
        }
    }

    fn drop_oldest(&self) -> io::Result<bool> {
        let oldest = self.lock().entries.keys().next().map(|(number, _)| *number);
        oldest.map_or(Ok(false), |number| self.remove(number).map(|()| true))
    }

    /// Removes both tracks of a segment, and what nobody needs any more.
    fn remove(&self, number: u64) -> io::Result<()> {
        let gone: Vec<Entry> = {
            let known = self.lock();
            known.entries.range((number, false)..=(number, true)).map(|(_, entry)| entry.clone()).collect()
        };
        for entry in gone {
            match fs::remove_file(self.folder.join(entry.name())) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut known = self.lock();
            known.bytes = known.bytes.saturating_sub(entry.bytes);
            known.entries.remove(&key(entry.number, entry.kind));
            let needed =
                known.entries.values().any(|other| other.init == entry.init && other.kind == entry.kind);
            if !needed && let Some(init) = known.inits.remove(&key(entry.init, entry.kind)) {
                drop(known);
                drop(fs::remove_file(self.folder.join(init.name())));
            }
        }
        Ok(())
    }

    /// What was captured from `from` to `to`, as far as whole segments go.
    pub fn excerpt(&self, from: i64, to: i64) -> Excerpt {
        let known = self.lock();
        let within = |entry: &&Entry| entry.ends() > from && entry.unix_micros < to;
        let entries: Vec<Entry> = known.entries.values().filter(within).cloned().collect();
        Self::with_inits(&known, entries)
    }

    /// The segments with these numbers.
    pub fn numbered(&self, first: u64, last: u64) -> Excerpt {
        let known = self.lock();
        let range = (first, false)..=(last.max(first), true);
        let entries: Vec<Entry> = known.entries.range(range).map(|(_, entry)| entry.clone()).collect();
        Self::with_inits(&known, entries)
    }

    fn with_inits(known: &Known, entries: Vec<Entry>) -> Excerpt {
        let needed: BTreeSet<_> = entries.iter().map(|entry| key(entry.init, entry.kind)).collect();
        let inits = known.inits.iter().filter(|(key, _)| needed.contains(*key));
        let newest = known.entries.keys().next_back().map(|(number, _)| *number);
        let reaches_end = entries.last().map(|entry| entry.number) == newest;
        Excerpt { inits: inits.map(|(_, init)| init.clone()).collect(), entries, reaches_end }
    }

    /// Reads a file that is known; `None` for others.
    pub fn read(&self, name: &str) -> io::Result<Option<Bytes>> {
        let is_known = {
            let known = self.lock();
            let is_entry = Entry::parse(name)
                .is_some_and(|entry| known.entries.contains_key(&key(entry.number, entry.kind)));
            is_entry
                || InitFile::parse(name)
                    .is_some_and(|init| known.inits.contains_key(&key(init.hash, init.kind)))
        };
        if !is_known {
            return Ok(None);
        }
        match fs::read(self.folder.join(name)) {
            Ok(bytes) => Ok(Some(Bytes::from(bytes))),
            // It went just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What it holds and has cost.
    pub fn report(&self) -> ShelfReport {
        let known = self.lock();
        ShelfReport {
            segments: known.entries.len() as u64,
            bytes: known.bytes,
            oldest: known.entries.values().next().map(|entry| entry.unix_micros),
            newest: known.entries.values().next_back().map(Entry::ends),
            written_bytes: known.written_bytes,
            lost: known.lost,
            mended: known.mended,
            trouble: known.trouble.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pictures come before the sound of the same number.
fn key(number: u64, kind: TrackKind) -> (u64, bool) {
    (number, kind == TrackKind::Audio)
}

#[cfg(test)]
mod tests;
