//! Folders of upstreams that nobody has any more: what they hold is named as lost, then they go.

use crate::backlog::SpoolKey;
use crate::fs::SpoolFs;
use crate::ledger::{self, Ledger, Query};
use crate::meta::Meta;
use crate::segments::Segments;
use fieldgate_hub::backlog::{Budget, LossCause, Lost};
use fieldgate_hub::ledger::{LedgerKeeper, LedgerKey};
use std::io;
use std::time::Duration;

/// Nothing is dropped while a folder is read for the last time.
const NO_BUDGET: Budget = Budget { bytes: u64::MAX >> 1, age: Duration::from_secs(1 << 36) };

/// Whose folder it is; `None` if it is none of ours, or if its names were cut and the ledger does not know them.
pub(crate) fn owner(folder: &str, ledger: &Ledger) -> Option<SpoolKey> {
    SpoolKey::of_folder(folder).or_else(|| {
        let all = ledger.query(&Query { limit: usize::MAX, ..Query::default() });
        let keys = all.lines.into_iter().map(|line| {
            let LedgerKey { mountpoint, upstream, track } = line.key;
            SpoolKey { mountpoint, upstream, track }
        });
        keys.into_iter().find(|key| key.folder() == folder)
    })
}

/// Writes down what a folder holds as lost; how many frames that is.
pub(crate) fn name_losses(
    fs: Box<dyn SpoolFs>,
    key: &SpoolKey,
    ledger: &Ledger,
    unix_micros: i64,
) -> io::Result<u64> {
    let found = Meta::read(fs.as_ref())?;
    let meta = found.unwrap_or_default();
    let mut segments = Segments::open(fs, NO_BUDGET, meta.floor)?;
    let held = segments.held();
    let mut losses = segments.losses().take();
    if held.frames > 0 {
        losses.push(Lost {
            ids: held.ids,
            frames: Some(held.frames),
            from_unix_micros: held.oldest_unix_micros,
            to_unix_micros: held.newest_unix_micros,
            cause: LossCause::Abandoned,
        });
    }
    // What was pending when the gateway stopped and is not here any more is not known.
    let interrupted = !meta.clean && (found.is_some() || segments.end_id() > 0);
    ledger.begin(key, ledger::stretch(&segments.held()), interrupted, unix_micros);
    ledger.ends(key);
    ledger.settle_lost(key, losses);
    ledger.pending(&ledger::page(key), None);
    Ok(held.frames)
}

/// Removes all files, those that hold packets first: what is left after a power cut is named again, never forgotten.
pub(crate) fn clear(fs: &mut dyn SpoolFs) -> io::Result<()> {
    let mut names: Vec<String> = fs.list()?.into_iter().map(|(name, _)| name).collect();
    names.sort_by_key(|name| !name.ends_with(".seg"));
    for name in names {
        fs.remove(&name)?;
    }
    fs.sync_dir()
}
