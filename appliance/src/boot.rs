//! From the state folder and the command line to the config that runs first.

mod in_memory;

pub use in_memory::InMemory;

use crate::store::{Boot, Confirmed, DirFs, Meta, Store, StoreError, StoreFs};
use fieldgate_model::config::{AdminTls, Fleet, Problem, validate_on};
use fieldgate_model::status::Notice;
use fieldgate_model::{Config, Timestamp};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What `fieldgate run` was told.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The state folder.
    pub state: PathBuf,
    /// Where recordings and spools are: the state folder, also if its disk is read-only and `state` a copy.
    pub large: PathBuf,
    /// Where that copy is made, in memory.
    pub memory: PathBuf,
    /// The first config, for a folder that has none.
    pub config: Option<PathBuf>,
    /// Whether `config` takes the place of the one that the folder has.
    pub replace: bool,
    /// Listen addresses that stand in for those of the config.
    pub overrides: Overrides,
    /// How long a provisional change waits for its confirmation.
    pub confirm_within: Duration,
    /// Where a file stands that tells a gateway without a config whom to obey.
    pub provision_file: PathBuf,
    /// Where a file stands that removes users and tokens at the next start, once.
    pub reset_file: PathBuf,
    /// The socket of the system helper, which sets the machine's network and time.
    pub system_helper: PathBuf,
    /// Whether somebody starts the program again when it ends.
    pub is_supervised: bool,
}

/// Listen addresses from the command line. They are laid over whatever config runs and are never stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// In place of `rtmp.listen`, unless empty.
    pub rtmp_listen: Vec<SocketAddr>,
    /// In place of `admin.listen` and `admin.tls`, unless empty.
    pub admin_listen: Vec<SocketAddr>,
}

impl Overrides {
    /// The config as it shall run.
    pub fn apply(&self, config: &Config) -> Config {
        let mut config = config.clone();
        if !self.rtmp_listen.is_empty() {
            config.rtmp.listen.clone_from(&self.rtmp_listen);
        }
        if !self.admin_listen.is_empty() {
            config.admin.listen.clone_from(&self.admin_listen);
            config.admin.tls = None;
        }
        config
    }
}

/// Why the gateway cannot start with what it was given.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The state folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file of `--config`.
    #[error("cannot read {file}: {source}")]
    Read {
        /// The file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file of `--config`.
    #[error("{file} is no config that can be run:{}", listed(problems))]
    Invalid {
        /// The file.
        file: String,
        /// All that is wrong.
        problems: Vec<Problem>,
    },
    /// `--replace` alone.
    #[error("--replace needs --config FILE")]
    NothingToReplaceWith,
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

/// A config file that was named on the command line.
struct Named {
    file: String,
    text: String,
}

/// The opened store and what to run.
pub struct Booted {
    /// The config's files.
    pub store: Store,
    /// The config to run. Revision 0 means that none was ever stored: these are the defaults.
    pub confirmed: Confirmed,
    /// What somebody should know.
    pub notices: Vec<Notice>,
}

/// Opens the state folder and finds the config to run: the confirmed one; that of `--config` if there is none yet, or
/// with `--replace` in its place; else the defaults, which are not stored. Blocks on the disk.
pub fn boot(options: &RunOptions, memory_bytes: Option<u64>, now: Timestamp) -> Result<Booted, BootError> {
    let read = |path: &PathBuf| {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Named { file, text }),
            Err(source) => Err(BootError::Read { file, source }),
        }
    };
    let first = options.config.as_ref().map(read).transpose()?;
    boot_from(Box::new(DirFs::open(&options.state)?), first, options.replace, memory_bytes, now)
}

fn boot_from(
    fs: Box<dyn StoreFs>,
    first: Option<Named>,
    replace: bool,
    memory_bytes: Option<u64>,
    now: Timestamp,
) -> Result<Booted, BootError> {
    if replace && first.is_none() {
        return Err(BootError::NothingToReplaceWith);
    }
    let (mut store, Boot { confirmed, mut notices }) =
        if replace { Store::open_to_replace(fs)? } else { Store::open(fs)? };
    let confirmed = match (confirmed, first) {
        (Some(confirmed), None) => confirmed,
        (Some(confirmed), Some(first)) if !replace => {
            if Config::parse(&first.text).as_ref() != Ok(&confirmed.config) {
                let file = first.file;
                let text =
                    format!("{file} was not used: the state folder has a config; --replace takes the file");
                notices.push(Notice { code: "config_file_ignored".to_owned(), text });
            }
            confirmed
        }
        (before, Some(Named { file, text })) => {
            let mut config = match Config::parse(&text) {
                Ok(config) => config,
                Err(problems) => return Err(BootError::Invalid { file, problems }),
            };
            let mut problems = before.as_ref().map(|b| config.keep_secrets(&b.config)).unwrap_or_default();
            problems.extend(validate_on(&config, memory_bytes));
            if !problems.is_empty() {
                return Err(BootError::Invalid { file, problems });
            }
            match before {
                Some(before) if before.config == config => before,
                _ => {
                    store.write_candidate(&config, "command line", now)?;
                    let meta = store.promote()?;
                    Confirmed { config, meta }
                }
            }
        }
        (None, None) => {
            let config = first_config();
            let meta = Meta { schema: config.schema, revision: 0, by: "defaults".to_owned(), at: now };
            Confirmed { config, meta }
        }
    };
    for problem in validate_on(&confirmed.config, memory_bytes) {
        // It ran before: a gateway in the field is not stopped by a stricter build.
        notices.push(Notice { code: "config_problem".to_owned(), text: problem.to_string() });
    }
    Ok(Booted { store, confirmed, notices })
}

/// Gives a gateway that has no config yet its first one, with these ways to its fleet manager. Blocks on the disk.
pub fn provision(booted: &mut Booted, fleet: Fleet, now: Timestamp) -> Result<(), StoreError> {
    let config = Config { fleet, ..booted.confirmed.config.clone() };
    booted.store.write_candidate(&config, "provisioning file", now)?;
    let meta = booted.store.promote()?;
    booted.confirmed = Confirmed { config, meta };
    Ok(())
}

/// Of a gateway that was never told anything: it can be claimed over the network, and does nothing else.
fn first_config() -> Config {
    let mut config = Config::default();
    config.admin.tls = Some(AdminTls::on(SocketAddr::from(([0, 0, 0, 0], 8443))));
    config
}

/// The machine's memory, for the default budget of rings.
pub fn machine_memory_bytes() -> Option<u64> {
    let info = rustix::system::sysinfo();
    u64::from(info.mem_unit).checked_mul(info.totalram).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreFs;
    use std::collections::BTreeMap;
    use std::io;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Files(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

    impl StoreFs for Files {
        fn list(&self) -> io::Result<Vec<String>> {
            Ok(self.0.lock().unwrap().keys().cloned().collect())
        }
        fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
            Ok(self.0.lock().unwrap().get(name).cloned())
        }
        fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
            self.0.lock().unwrap().insert(name.to_owned(), bytes.to_vec());
            Ok(())
        }
        fn sync_file(&mut self, _: &str) -> io::Result<()> {
            Ok(())
        }
        fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
            let mut files = self.0.lock().unwrap();
            let bytes = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
            files.insert(to.to_owned(), bytes);
            Ok(())
        }
        fn remove(&mut self, name: &str) -> io::Result<()> {
            self.0.lock().unwrap().remove(name);
            Ok(())
        }
        fn sync_dir(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn file(text: &str) -> Option<Named> {
        Some(Named { file: "first.json".to_owned(), text: text.to_owned() })
    }

    fn start(files: &Files, first: Option<Named>, replace: bool) -> Result<Booted, BootError> {
        boot_from(Box::new(files.clone()), first, replace, Some(1 << 30), Timestamp::default())
    }

    const ONE: &str = r#"{"mountpoints": {"one": {"source": {"kind": "publish", "key": "k"}}}}"#;
    const TWO: &str = r#"{"mountpoints": {"two": {"source": {"kind": "test"}}}}"#;

    #[test]
    fn the_first_config_is_confirmed_at_once_and_later_ones_ignored() {
        let files = Files::default();
        let booted = start(&files, file(ONE), false).unwrap();
        assert_eq!(booted.confirmed.meta.revision, 1);
        drop(booted);
        let booted = start(&files, file(TWO), false).unwrap();
        assert!(booted.confirmed.config.mountpoints.contains_key("one"));
        assert_eq!(booted.notices[0].code, "config_file_ignored");
        let booted = start(&files, None, false).unwrap();
        assert!(booted.confirmed.config.mountpoints.contains_key("one") && booted.notices.is_empty());
    }

    #[test]
    fn replace_takes_the_file_and_twice_the_same_changes_nothing() {
        let files = Files::default();
        start(&files, file(ONE), true).unwrap();
        let booted = start(&files, file(TWO), true).unwrap();
        assert!(booted.confirmed.config.mountpoints.contains_key("two"));
        assert_eq!(booted.confirmed.meta.revision, 2);
        assert_eq!(start(&files, file(TWO), true).unwrap().confirmed.meta.revision, 2);
        assert!(matches!(start(&files, None, true), Err(BootError::NothingToReplaceWith)));
    }

    #[test]
    fn a_bad_first_config_is_refused_with_all_problems_and_not_stored() {
        let files = Files::default();
        let error = start(
            &files,
            file(r#"{"mountpoints": {"a b": {"source": {"kind": "test", "width": 17}}}}"#),
            false,
        );
        let text = error.err().expect("it is refused").to_string();
        assert!(
            text.contains("mountpoints[\"a b\"]: a name is") && text.contains("width: must be even"),
            "{text}"
        );
        assert!(files.0.lock().unwrap().is_empty());
        let booted = start(&files, None, false).unwrap();
        assert_eq!((booted.confirmed.meta.revision, booted.confirmed.config), (0, first_config()));
    }

    #[test]
    fn a_config_that_cannot_be_read_needs_an_explicit_new_one() {
        let files = Files::default();
        start(&files, file(ONE), false).unwrap();
        files.0.lock().unwrap().insert("confirmed.json".to_owned(), b"torn".to_vec());
        assert!(matches!(
            start(&files, file(TWO), false),
            Err(BootError::Store(StoreError::Unreadable { .. }))
        ));
        assert!(matches!(start(&files, None, false), Err(BootError::Store(StoreError::Unreadable { .. }))));
        let booted = start(&files, file(TWO), true).unwrap();
        assert_eq!(booted.notices[0].code, "config_unreadable");
        assert!(start(&files, None, false).unwrap().confirmed.config.mountpoints.contains_key("two"));
    }

    #[test]
    fn overrides_are_laid_over_and_never_stored() {
        let overrides =
            Overrides { rtmp_listen: vec!["127.0.0.1:0".parse().unwrap()], ..Overrides::default() };
        let config = Config::default();
        let laid = overrides.apply(&config);
        assert_eq!((laid.rtmp.listen.clone(), &laid.admin), (overrides.rtmp_listen, &config.admin));
    }

    #[test]
    fn the_machine_says_how_much_memory_it_has() {
        assert!(machine_memory_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
