//! A folder of bounded size: the streams that ended first make room for what is encoded now.

use super::StoreError;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// The kinds of files, each a folder.
const KINDS: [&str; 2] = ["hls", "img-preview"];
/// Ends the name of a file that is being written.
const UNFINISHED: &str = ".part";

/// The folder.
pub(in crate::wiring) struct Folder {
    root: PathBuf,
    most: u64,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    used: u64,
    /// By `CHANNEL/STREAM-ID`.
    streams: BTreeMap<String, Stream>,
    turns: u64,
}

#[derive(Default)]
struct Stream {
    bytes: u64,
    /// Tasks that make its files.
    makers: u32,
    /// Streams that ended go in this order.
    turn: u64,
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> StoreError + '_ {
    move |error| StoreError::Io { path: path.display().to_string(), error }
}

fn len(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |metadata| metadata.len())
}

fn folders(path: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))).collect()
}

impl Folder {
    /// Opens it, with what is there from before; files that were never finished are removed.
    pub(super) fn open(root: PathBuf, most: u64) -> Result<Folder, StoreError> {
        fs::create_dir_all(&root).map_err(failed(&root))?;
        let mut found: BTreeMap<String, (u64, SystemTime)> = BTreeMap::new();
        for kind in KINDS {
            for (channel, of_channel) in folders(&root.join(kind)) {
                for (stream, of_stream) in folders(&of_channel) {
                    let found =
                        found.entry(format!("{channel}/{stream}")).or_insert((0, SystemTime::UNIX_EPOCH));
                    for (_, rendition) in folders(&of_stream) {
                        let files = fs::read_dir(&rendition).map_err(failed(&rendition))?;
                        for file in files.flatten() {
                            if file.path().extension().is_some_and(|it| it == "part") {
                                fs::remove_file(file.path()).map_err(failed(&file.path()))?;
                                continue;
                            }
                            let Ok(metadata) = file.metadata() else { continue };
                            found.0 = found.0.saturating_add(metadata.len());
                            found.1 = found.1.max(metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH));
                        }
                    }
                }
            }
        }
        let mut by_age: Vec<(SystemTime, String, u64)> =
            found.into_iter().map(|(stream, (bytes, at))| (at, stream, bytes)).collect();
        by_age.sort();
        let mut books = Books::default();
        for (_, stream, bytes) in by_age {
            books.turns += 1;
            books.used = books.used.saturating_add(bytes);
            books.streams.insert(stream, Stream { bytes, makers: 0, turn: books.turns });
        }
        Ok(Folder { root, most, books: Mutex::new(books) })
    }

    pub(super) fn begin(&self, stream: &str) {
        self.books().streams.entry(stream.to_owned()).or_default().makers += 1;
    }

    pub(super) fn end(&self, stream: &str) {
        let mut books = self.books();
        books.turns += 1;
        let turn = books.turns;
        if let Some(stream) = books.streams.get_mut(stream) {
            (stream.makers, stream.turn) = (stream.makers.saturating_sub(1), turn);
        }
        books.streams.retain(|_, stream| stream.makers > 0 || stream.bytes > 0);
    }

    /// Writes a file under another name first, so that nobody ever reads half of one.
    pub(super) fn put(&self, path: &str, file: &[u8]) -> Result<(), StoreError> {
        let (at, stream) = (self.root.join(path), stream_of(path));
        let wanted = u64::try_from(file.len()).unwrap_or(u64::MAX);
        let mut books = self.books();
        let before = len(&at);
        while books.used.saturating_sub(before).saturating_add(wanted) > self.most {
            let over =
                books.streams.iter().filter(|(name, stream)| stream.makers == 0 && **name != stream_of(path));
            let Some(oldest) = over.min_by_key(|(_, stream)| stream.turn).map(|(name, _)| name.clone())
            else {
                return Err(StoreError::Full { used: books.used, most: self.most, len: wanted });
            };
            self.remove(&mut books, &oldest)?;
        }
        let parent = at.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent).map_err(failed(parent))?;
        let mut name = at.file_name().unwrap_or_default().to_owned();
        name.push(UNFINISHED);
        let unfinished = at.with_file_name(name);
        let written = fs::write(&unfinished, file).and_then(|()| fs::rename(&unfinished, &at));
        if let Err(error) = written {
            // What is left of it counts for nothing; the next attempt writes over it.
            fs::remove_file(&unfinished).ok();
            return Err(failed(&at)(error));
        }
        books.change(&stream, before, wanted);
        Ok(())
    }

    pub(super) fn delete(&self, path: &str) -> Result<(), StoreError> {
        let at = self.root.join(path);
        let mut books = self.books();
        let before = len(&at);
        match fs::remove_file(&at) {
            Ok(()) => books.change(&stream_of(path), before, 0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&at)(error)),
        }
        Ok(())
    }

    fn remove(&self, books: &mut Books, stream: &str) -> Result<(), StoreError> {
        for kind in KINDS {
            let folder = self.root.join(kind).join(stream);
            match fs::remove_dir_all(&folder) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(&folder)(error)),
            }
            // The channel's, if that was its last.
            folder.parent().map(fs::remove_dir);
        }
        let bytes = books.streams.remove(stream).map_or(0, |stream| stream.bytes);
        books.used = books.used.saturating_sub(bytes);
        tracing::info!(stream, bytes, "the files of a stream that is over make room");
        Ok(())
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn change(&mut self, stream: &str, before: u64, after: u64) {
        self.used = self.used.saturating_sub(before).saturating_add(after);
        let stream = self.streams.entry(stream.to_owned()).or_default();
        stream.bytes = stream.bytes.saturating_sub(before).saturating_add(after);
    }
}

/// `KIND/CHANNEL/STREAM-ID/...`
fn stream_of(path: &str) -> String {
    path.split('/').skip(1).take(2).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    fn scratch(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("fieldgate-encoder-{name}-{}", std::process::id()));
        fs::remove_dir_all(&path).ok();
        Scratch(path)
    }

    #[test]
    fn streams_that_ended_first_make_room_and_those_that_are_made_stay() {
        let scratch = scratch("budget");
        let folder = Folder::open(scratch.0.clone(), 100).unwrap();
        let there = |path: &str| scratch.0.join(path).exists();
        for (stream, file) in
            [("c/1", "hls/c/1/r/0.ts"), ("c/2", "hls/c/2/r/0.ts"), ("d/3", "img-preview/d/3/p/0.jpg")]
        {
            folder.begin(stream);
            folder.put(file, &[0; 30]).unwrap();
        }
        // None is over yet.
        let full = folder.put("hls/d/3/r/0.ts", &[0; 30]).unwrap_err();
        assert!(
            full.to_string().contains("90 of 100 bytes") && full.to_string().contains("folder_bytes"),
            "{full}"
        );
        folder.end("c/2");
        folder.end("c/1");
        folder.put("hls/d/3/r/0.ts", &[0; 30]).unwrap();
        assert!(there("hls/c/1/r/0.ts") && !there("hls/c/2") && there("hls/d/3/r/0.ts"));
        folder.put("hls/d/3/r/1.ts", &[0; 30]).unwrap();
        assert!(
            !there("hls/c") && there("img-preview/d/3/p/0.jpg"),
            "the channel's folder goes with its last stream"
        );
        assert!(folder.put("hls/d/3/r/2.ts", &[0; 30]).is_err());
    }

    #[test]
    fn a_file_that_is_written_again_or_deleted_counts_once() {
        let scratch = scratch("again");
        let folder = Folder::open(scratch.0.clone(), 100).unwrap();
        folder.begin("c/1");
        (0..10).for_each(|nth| folder.put("hls/c/1/r/live.m3u8", &vec![b'x'; 60 + nth]).unwrap());
        assert_eq!(fs::read(scratch.0.join("hls/c/1/r/live.m3u8")).unwrap().len(), 69);
        folder.delete("hls/c/1/r/live.m3u8").unwrap();
        folder.delete("hls/c/1/r/live.m3u8").unwrap();
        folder.put("hls/c/1/r/0.ts", &[0; 100]).unwrap();
        assert!(folder.put("hls/c/1/r/1.ts", &[0; 1]).is_err());
    }

    #[test]
    fn what_was_there_before_counts_and_what_was_never_finished_goes() {
        let scratch = scratch("before");
        let old = scratch.0.join("hls/c/1/r");
        fs::create_dir_all(&old).unwrap();
        fs::write(old.join("0.ts"), [0; 60]).unwrap();
        fs::write(old.join("1.ts.part"), [0; 60]).unwrap();
        let folder = Folder::open(scratch.0.clone(), 100).unwrap();
        assert!(old.join("0.ts").exists() && !old.join("1.ts.part").exists());
        folder.begin("c/2");
        folder.put("hls/c/2/r/0.ts", &[0; 40]).unwrap();
        assert!(old.join("0.ts").exists());
        folder.put("hls/c/2/r/1.ts", &[0; 1]).unwrap();
        assert!(!old.exists());
    }
}
