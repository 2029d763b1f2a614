//! A disk whose writes are logged, and the states that a power cut may leave of it.
//!
//! ```text
//!  file system -- loop device -- FUSE -- QEMU's block layer (blklogwrites) --+-- disk
//!                                                                            +-- log: each write, each flush, in order
//! ```
//!
//! What was written before the last flush is on the medium. Of what came after it, up to the cut, each write may be
//! there, gone, or torn between sectors.

use crate::common::process::Process;
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const SECTOR: u64 = 512;
const MIB: u64 = 1 << 20;
/// Where partitions are: name, first MiB, MiB. The order of the image.
const PARTS: [(&str, u64, u64); 6] = [
    ("boot-state", 1, 1),
    ("boot-a", 2, 1),
    ("root-a", 3, 4),
    ("boot-b", 7, 1),
    ("root-b", 8, 4),
    ("data", 12, 148),
];
const DISK_BYTES: u64 = 160 * MIB;
/// As `data.mount` of the image says.
const OPTIONS: &str = "rw,nosuid,nodev,noexec,noatime,errors=remount-ro,commit=30";

/// Byte offset and length of a partition.
pub(super) fn part(name: &str) -> (u64, u64) {
    let (_, at, len) = PARTS.iter().find(|part| part.0 == name).expect("a partition of the disk");
    (at * MIB, len * MIB)
}

/// Whether this machine lets us do so; says why not.
pub(super) fn may() -> bool {
    let missing = ["/dev/fuse", "/dev/loop-control"].iter().find(|file| !Path::new(file).exists());
    if !rustix::process::geteuid().is_root() || missing.is_some() {
        println!("skipped: disks of our own need root, FUSE and loop devices");
        return false;
    }
    true
}

/// Small, seeded.
#[derive(Clone, Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }
}

/// A block device that shows a part of a file.
pub(super) struct Loop(pub(super) PathBuf);

impl Loop {
    pub(super) fn of(file: &Path, name: &str) -> Loop {
        let (at, len) = part(name);
        let (at, len) = (at.to_string(), len.to_string());
        let args = ["--find", "--show", "--offset", &at, "--sizelimit", &len, file.to_str().unwrap()];
        Loop(Process::run("losetup", &args, secs(30)).trim().into())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        Command::new("losetup").arg("--detach").arg(&self.0).status().ok();
    }
}

/// The data partition, mounted as in the image.
pub(super) struct Mounted(PathBuf);

impl Mounted {
    pub(super) fn at(device: &Loop, folder: &Path) -> Mounted {
        std::fs::create_dir_all(folder).unwrap();
        let (device, folder) = (device.0.to_str().unwrap(), folder.to_str().unwrap());
        Process::run("mount", &["-t", "ext4", "-o", OPTIONS, device, folder], secs(60));
        Mounted(folder.into())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let gone = |flags: &[&str]| {
            Command::new("umount").args(flags).arg(&self.0).status().is_ok_and(|status| status.success())
        };
        // Where a test has failed its programs may still be at work there.
        let _ = gone(&[]) || gone(&["--lazy"]);
    }
}

/// Makes the file system of the data partition.
pub(super) fn format_data(disk: &Path) {
    let (at, len) = part("data");
    // As systemd-repart does in the image.
    let (offset, len) = (format!("offset={at}"), format!("{}k", len >> 10));
    let args = ["-q", "-t", "ext4", "-b", "4096", "-E", &offset, disk.to_str().unwrap(), &len];
    Process::run("mke2fs", &args, secs(60));
}

/// A disk that is being written, and its log.
pub(super) struct Disk {
    shown: PathBuf,
    log: PathBuf,
    daemon: Process,
}

impl Disk {
    /// A new disk; `fill` writes what is on it before anything is logged.
    pub(super) fn record(scratch: &Scratch, fill: impl FnOnce(&Path)) -> Disk {
        let file = scratch.join("disk");
        File::create(&file).unwrap().set_len(DISK_BYTES).unwrap();
        fill(&file);
        copy(&file, &scratch.join("before"));
        let (shown, log) = (scratch.join("shown"), scratch.join("log"));
        File::create(&shown).unwrap();
        File::create(&log).unwrap();
        // What this machine itself would lose in a power cut is of no matter.
        let node = |name: &str, file: &Path| {
            format!("driver=file,node-name={name},filename={},cache.no-flush=on", file.display())
        };
        let args = [
            "--blockdev",
            &node("medium", &file),
            "--blockdev",
            &node("notes", &log),
            "--blockdev",
            "driver=blklogwrites,node-name=disk,file=medium,log=notes,log-sector-size=512",
            "--export",
            &format!("type=fuse,id=shown,node-name=disk,mountpoint={},writable=on", shown.display()),
        ];
        let mut daemon = Process::start("qemu-storage-daemon", &args);
        wait::until_true("the disk", secs(60), || {
            daemon.assert_running();
            shown.metadata().is_ok_and(|shown| shown.len() == DISK_BYTES)
        });
        Disk { shown, log, daemon }
    }

    /// The file that shows it.
    pub(super) fn shown(&self) -> &Path {
        &self.shown
    }

    /// A clock for what happens beside: how long the log is now.
    pub(super) fn clock(&self) -> Clock {
        Clock(self.log.clone())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.daemon.signal(rustix::process::Signal::TERM);
        self.daemon.finish(secs(20));
    }
}

/// How much has been written, as the length of the log.
#[derive(Clone, Debug)]
pub(super) struct Clock(PathBuf);

impl Clock {
    pub(super) fn now(&self) -> u64 {
        self.0.metadata().unwrap().len()
    }
}

/// One entry of the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Where it goes on the disk, in bytes.
    at: u64,
    len: u64,
    /// Where its bytes are in the log; none if they are zeros.
    from: Option<u64>,
    /// All before it is on the medium.
    is_flush: bool,
    /// It is on the medium itself when it is done.
    is_lasting: bool,
    /// Where the log goes on behind it: what a [`Clock`] said by then had happened before the cut.
    end: u64,
}

const FLUSH: u64 = 1;
const LASTING: u64 = 2;
const DISCARD: u64 = 4;

/// All entries. The format is that of Linux' dm-log-writes.
fn entries(log: &File) -> Vec<Entry> {
    let number = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let len = log.metadata().unwrap().len();
    let mut head = [0; SECTOR as usize];
    log.read_exact_at(&mut head, 0).unwrap();
    assert_eq!((number(&head, 0), number(&head, 8)), (0x006a_7366_7773_6872, 1), "dm-log-writes, version 1");
    assert_eq!(u64::from(u32::from_le_bytes(head[24..28].try_into().unwrap())), SECTOR);
    let (mut all, mut at) = (Vec::new(), SECTOR);
    while at < len {
        log.read_exact_at(&mut head, at).unwrap();
        let (flags, bytes) = (number(&head, 16), number(&head, 8) * SECTOR);
        let is_discard = flags & DISCARD != 0;
        let end = at + SECTOR + if is_discard { 0 } else { bytes };
        all.push(Entry {
            at: number(&head, 0) * SECTOR,
            len: bytes,
            from: (!is_discard).then_some(at + SECTOR),
            is_flush: flags & FLUSH != 0,
            is_lasting: flags & LASTING != 0,
            end,
        });
        at = end;
    }
    all
}

/// What was logged, and the disk as far as it lasted.
pub(super) struct Cuts {
    entries: Vec<Entry>,
    log: File,
    /// The disk with everything up to `upto` on it.
    lasting: PathBuf,
    upto: usize,
}

impl Cuts {
    /// Of a recording that is over.
    pub(super) fn of(scratch: &Scratch) -> Cuts {
        let log = File::open(scratch.join("log")).unwrap();
        let entries = entries(&log);
        let cuts = Cuts { entries, log, lasting: scratch.join("before"), upto: 0 };
        cuts.assert_whole(scratch);
        cuts
    }

    /// How many writes and flushes there are.
    pub(super) fn count(&self) -> usize {
        self.entries.len()
    }

    /// What a [`Clock`] said by then had happened before this cut.
    pub(super) fn end(&self, cut: usize) -> u64 {
        self.entries[cut - 1].end
    }

    /// Nothing reached the disk that is not in the log.
    fn assert_whole(&self, scratch: &Scratch) {
        let again = scratch.join("again");
        copy(&self.lasting, &again);
        let disk = OpenOptions::new().write(true).open(&again).unwrap();
        self.entries.iter().for_each(|entry| self.apply(entry, &disk, |_| true));
        Process::run("cmp", &[again.to_str().unwrap(), scratch.join("disk").to_str().unwrap()], secs(120));
        std::fs::remove_file(&again).unwrap();
    }

    /// Writes those of its sectors for which `keeps` says so.
    fn apply(&self, entry: &Entry, disk: &File, mut keeps: impl FnMut(u64) -> bool) {
        let mut bytes = vec![0; entry.len as usize];
        if let Some(from) = entry.from {
            self.log.read_exact_at(&mut bytes, from).unwrap();
        }
        let sectors = bytes.chunks(SECTOR as usize).zip(0..);
        let kept: Vec<(&[u8], u64)> = sectors.filter(|(_, sector)| keeps(*sector)).collect();
        if kept.len() as u64 * SECTOR == entry.len {
            disk.write_all_at(&bytes, entry.at).unwrap();
        } else {
            kept.iter().for_each(|(bytes, n)| disk.write_all_at(bytes, entry.at + n * SECTOR).unwrap());
        }
    }

    /// So many places to cut at, in order: behind a write, which may fall itself.
    pub(super) fn draw(&self, count: u64, dice: &mut Dice) -> Vec<usize> {
        let writes = self.entries.iter().zip(1..).filter(|(entry, _)| !entry.is_flush).map(|(_, cut)| cut);
        let writes: Vec<usize> = writes.collect();
        let mut cuts: Vec<usize> =
            (0..count).map(|_| writes[dice.below(writes.len() as u64) as usize]).collect();
        cuts.sort_unstable();
        cuts
    }

    /// Makes `into` the disk as it may be when the power goes after so many entries; cuts never go back. Says how it was
    /// made.
    pub(super) fn make(&mut self, cut: usize, dice: &mut Dice, into: &Path) -> String {
        let flushed = self.entries[..cut].iter().rposition(|entry| entry.is_flush).map_or(0, |at| at + 1);
        let disk = OpenOptions::new().write(true).open(&self.lasting).unwrap();
        let upto = std::mem::replace(&mut self.upto, flushed);
        assert!(upto <= flushed, "cuts come in order");
        self.entries[upto..flushed].iter().for_each(|entry| self.apply(entry, &disk, |_| true));
        drop(disk);
        copy(&self.lasting, into);
        let disk = OpenOptions::new().write(true).open(into).unwrap();
        let after = &self.entries[flushed..cut];
        let way = dice.below(4);
        let mut text =
            format!("after {cut} of {} entries, {} since the flush: ", self.entries.len(), after.len());
        for (number, entry) in after.iter().enumerate() {
            let is_last = number + 1 == after.len();
            // 0: gone, 1: there, 2: torn between sectors.
            let fate = match way {
                _ if entry.is_lasting && !is_last => 1,
                0 => 1,
                1 => dice.below(2),
                2 => 1 + u64::from(is_last),
                _ => dice.below(3),
            };
            match fate {
                0 => {}
                1 => self.apply(entry, &disk, |_| true),
                _ => self.apply(entry, &disk, |_| dice.below(2) == 0),
            }
            text.push(['-', '+', '~'][fate as usize]);
        }
        text
    }
}

/// A copy that leaves out what is empty.
pub(super) fn copy(from: &Path, to: &Path) {
    let args = ["--sparse=always", from.to_str().unwrap(), to.to_str().unwrap()];
    Process::run("cp", &args, secs(120));
}
