//! An update on a disk whose writes are logged: the bundle is sent, RAUC writes the other slot, the boot loader takes a try,
//! and the gateway keeps what runs then.

use super::block::{Clock, Cuts, Dice, Disk, Loop, Mounted, format_data, part};
use super::judge::mounted;
use crate::common::gateway::Gateway;
use crate::common::process::Process;
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use crate::firmware;
use crate::rauc::{self, Machine, Parts};
use serde_json::json;
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Two versions of a slot, and the boot loader's state in its partition as `scripts/build-image` makes it. `$1` is the folder,
/// `$2` the sources.
const MAKE: &str = r#"
cd "$1"
mkdir content good
for version in 1 2; do
    head -c 2000000 /dev/urandom >squashfs
    head -c 300000 /dev/urandom >kernel
    "$2/yocto/meta-fieldgate/scripts/make-slot" squashfs kernel content/root$version.img content/boot$version.img 1 1700000000
done
"$2/scripts/image/boot-state" empty >state-file
truncate -s 1M boot-state.img
mkfs.vfat -F 12 -S 512 -s 2 -R 1 -f 1 -r 16 -n STATE boot-state.img >/dev/null
mcopy -i boot-state.img state-file ::state
mv content/root2.img good/root.img
mv content/boot2.img good/boot.img
"#;

const DEVICES: [&str; 5] = ["boot-state", "boot-a", "root-a", "boot-b", "root-b"];
/// Where the state's sector is in its partition, as `boot-state` knows.
const STATE_AT: u64 = 5 * 512;

/// The boot loader's state, as `grub.cfg` reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Loader {
    primary: usize,
    left: [u8; 2],
}

impl Loader {
    fn read(disk: &Path) -> Loader {
        let mut sector = [0; 512];
        let (at, _) = part("boot-state");
        OpenOptions::new().read(true).open(disk).unwrap().read_exact_at(&mut sector, at + STATE_AT).unwrap();
        let text = String::from_utf8_lossy(&sector);
        let of = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let left = |name: &str| of(name).and_then(|text| text.parse().ok()).filter(|left| *left <= 9);
        let primary = of("primary").and_then(|slot| ["A", "B"].iter().position(|name| *name == slot));
        assert_eq!(text.lines().next(), Some("# GRUB Environment Block"), "{text}");
        match (primary, left("a_left"), left("b_left")) {
            (Some(primary), Some(a), Some(b)) => Loader { primary, left: [a, b] },
            _ => panic!("the boot loader's state cannot be read: {text}"),
        }
    }

    /// A start: which slot, its try taken.
    fn start(&mut self) -> usize {
        if self.left == [0, 0] {
            self.left = [3, 3];
        }
        let slot = if self.left[self.primary] > 0 { self.primary } else { 1 - self.primary };
        self.left[slot] -= 1;
        slot
    }
}

/// What was promised by when.
pub(super) struct Update {
    scratch: Arc<Scratch>,
    /// The bundle was there as a whole.
    sent: u64,
    /// It was said to be installed.
    installed: u64,
    /// The boot loader had started it.
    started: u64,
    /// It was said to be good.
    good: u64,
}

fn write_partition(disk: &Path, name: &str, image: &Path) {
    let bytes = std::fs::read(image).unwrap();
    let (at, len) = part(name);
    assert!(bytes.len() as u64 <= len, "{name}");
    OpenOptions::new().write(true).open(disk).unwrap().write_all_at(&bytes, at).unwrap();
}

fn fill(scratch: &Scratch, disk: &Path) {
    format_data(disk);
    write_partition(disk, "boot-state", &scratch.join("boot-state.img"));
    for slot in ["a", "b"] {
        write_partition(disk, &format!("boot-{slot}"), &scratch.join("content/boot1.img"));
        write_partition(disk, &format!("root-{slot}"), &scratch.join("content/root1.img"));
    }
}

impl Update {
    /// Records one from its first byte to the verdict.
    pub(super) fn record() -> Update {
        let scratch = Arc::new(Scratch::new());
        let folder = scratch.path().to_str().unwrap().to_owned();
        Process::run("sh", &["-euc", MAKE, "sh", &folder, &rauc::sources()], secs(120));
        rauc::make_key(&scratch, "own");
        rauc::make_bundle(&scratch, "good", "own", "fieldgate-test", "2.0");
        let disk = Disk::record(&scratch, |disk| fill(&scratch, disk));
        let device = Loop::of(disk.shown(), "data");
        let _data = Mounted::at(&device, &scratch.join("data"));
        std::fs::create_dir(scratch.join("data/fieldgate")).unwrap();
        symlink("data/fieldgate", scratch.join("state")).unwrap();
        let devices = DEVICES.map(|name| Loop::of(disk.shown(), name));
        let [state, slots @ ..] = devices.each_ref().map(|device| device.0.clone());
        let [boot_a, root_a, boot_b, root_b] = slots;
        let slots = [(root_a, boot_a), (root_b, boot_b)].map(|(root, boot)| Parts { root, boot: Some(boot) });
        rauc::configure(&scratch, &scratch.join("data"), &state, slots);
        let clock = disk.clock();
        let (sent, installed) = Update::install(&scratch, &clock);
        let mut loader = Loader::read(disk.shown());
        assert_eq!(loader, Loader { primary: 1, left: [9, 3] });
        assert_eq!(loader.start(), 1);
        take_try(&devices[0].0, loader);
        let started = clock.now();
        let good = Update::keep(&scratch, &clock);
        Update { scratch, sent, installed, started, good }
    }

    fn install(scratch: &Arc<Scratch>, clock: &Clock) -> (u64, u64) {
        let machine = Machine::start(scratch, "A", "1.0");
        let mut gateway = firmware::gateway(scratch);
        firmware::until(&gateway, "RAUC", |shown| shown["available"] == true);
        firmware::send(&gateway, &scratch.join("good.raucb"));
        let sent = clock.now();
        let (status, said) = firmware::post(&gateway, "/api/v1/update/install", &json!({}));
        assert_eq!(status, 202, "{said}");
        firmware::until(&gateway, "it to be installed", |shown| shown["last"]["phase"] == "installed");
        let installed = clock.now();
        wait::until_true("the machine to be started anew", secs(60), || machine.is_to_restart());
        gateway.stop();
        (sent, installed)
    }

    /// It runs, all that delivered delivers, it is kept.
    fn keep(scratch: &Arc<Scratch>, clock: &Clock) -> u64 {
        let _machine = Machine::start(scratch, "B", "2.0");
        let mut gateway = firmware::gateway(scratch);
        firmware::until(&gateway, "it to be kept", |shown| shown["last"]["phase"] == "good");
        let good = clock.now();
        gateway.process().kill();
        good
    }

    /// Cuts the power so many times and judges what is left.
    pub(super) fn cut(&self, states: u64, seed: u64) {
        let mut cuts = Cuts::of(&self.scratch);
        println!("seed {seed}: {} writes and flushes of an update", cuts.count());
        let mut dice = Dice(seed);
        let disk = self.scratch.join("after");
        for cut in cuts.draw(states, &mut dice) {
            let made = cuts.make(cut, &mut dice, &disk);
            let found = self.judge(&disk, cuts.end(cut));
            println!("seed {seed}: {made}: {found}");
        }
    }

    fn judge(&self, disk: &Path, end: u64) -> String {
        let loader = Loader::read(disk);
        let whole = [self.version_of(disk, "a"), self.version_of(disk, "b")];
        let told = format!("{loader:?}, slots {whole:?}");
        assert_eq!(whole[0], Some(1), "nothing writes to the slot that runs: {told}");
        // What is tried first is whole, so that no start is in vain.
        assert!(whole[loader.clone().start()].is_some(), "{told}");
        let mut later = loader;
        let starts = (1..=20).find(|_| whole[later.start()] == Some(1));
        assert!(starts.is_some_and(|starts| starts <= 10), "the slot from before is in reach: {told}");
        if self.installed <= end {
            assert_eq!((loader.primary, whole[1]), (1, Some(2)), "{told}");
        }
        if self.started <= end && end < self.good {
            assert!(loader.left[1] == 2 || loader.left[1] == 9, "{told}");
        }
        if self.good <= end {
            assert_eq!(loader, Loader { primary: 1, left: [9, 9] });
        }
        self.judge_data(disk, end);
        told
    }

    /// The version that a slot has, if it is whole.
    fn version_of(&self, disk: &Path, slot: &str) -> Option<u8> {
        let of = |name: &str| {
            let (at, len) = part(&format!("{name}-{slot}"));
            let mut bytes = vec![0; len as usize];
            OpenOptions::new().read(true).open(disk).unwrap().read_exact_at(&mut bytes, at).unwrap();
            bytes
        };
        let (root, boot) = (of("root"), of("boot"));
        let images = [(1, "content/root1.img", "content/boot1.img"), (2, "good/root.img", "good/boot.img")];
        let starts_with =
            |bytes: &[u8], name: &str| bytes.starts_with(&std::fs::read(self.scratch.join(name)).unwrap());
        let same = images
            .iter()
            .find(|(_, of_root, of_boot)| starts_with(&root, of_root) && starts_with(&boot, of_boot));
        let version = same.map(|(version, _, _)| *version);
        // What the kernel does with the figures of the slot's own boot partition.
        assert!(version.is_none() || self.verifies(&root, &boot), "slot {slot}");
        version
    }

    fn verifies(&self, root: &[u8], boot: &[u8]) -> bool {
        let file = |name: &str, bytes: &[u8]| -> PathBuf {
            let path = self.scratch.join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let (root, boot) = (file("root", root), file("boot", boot));
        let text = Process::run("mtype", &["-i", boot.to_str().unwrap(), "::slot.env"], secs(30));
        let of = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).expect("a figure")
        };
        let blocks: u64 = of("data_blocks").parse().unwrap();
        let status = Command::new("/sbin/veritysetup")
            .arg("verify")
            .args([&root, &root])
            .args([of("root_hash"), "--no-superblock", "--hash=sha256", "--data-block-size=4096"])
            .args(["--hash-block-size=4096", &format!("--salt={}", of("salt"))])
            .args([format!("--data-blocks={blocks}"), format!("--hash-offset={}", blocks * 4096)])
            .status();
        status.unwrap().success()
    }

    /// The gateway starts, and what it says to have of a bundle is what was sent.
    fn judge_data(&self, disk: &Path, end: u64) {
        let scratch = Arc::new(Scratch::new());
        let _data = mounted(disk, &scratch.join("data"));
        std::fs::create_dir_all(scratch.join("data/fieldgate")).unwrap();
        symlink("data/fieldgate", scratch.join("state")).unwrap();
        let mut gateway = Gateway::start_in(scratch.clone(), json!({}), |_| {});
        let shown = firmware::update(&gateway);
        let (upload, phase) = (&shown["upload"], shown["last"]["phase"].as_str());
        if let Some(received) = upload["received"].as_u64() {
            let bundle = std::fs::read(self.scratch.join("good.raucb")).unwrap();
            let name = if upload["complete"] == true { "bundle.raucb" } else { "bundle.part" };
            let has = std::fs::read(scratch.join("state/update").join(name)).unwrap_or_default();
            assert_eq!(has.len() as u64, received, "{shown}");
            assert!(bundle.starts_with(&has), "what it has is not what was sent: {shown}");
        }
        if self.sent <= end && phase.is_none() {
            assert_eq!(upload["complete"], true, "{shown}");
        }
        if self.installed <= end {
            assert!(matches!(phase, Some("installed" | "trial" | "good")), "{shown}");
        }
        if self.good <= end {
            assert_eq!(phase, Some("good"), "{shown}");
        }
        let marker = scratch.join("state/update/trial").exists();
        let is_open = matches!(phase, Some("installing" | "installed" | "trial"));
        assert!(marker || !is_open, "without its marker the image would judge by itself: {shown}");
        // RAUC writes its notes without a flush and takes zeros for none; half of them is what must not be.
        let status = std::fs::read_to_string(scratch.join("data/status.raucs")).unwrap_or_default();
        let status = status.trim_matches('\0');
        assert!(status.is_empty() || status.starts_with('['), "RAUC's own notes: {status}");
        gateway.process().kill();
    }
}

/// As GRUB's `save_env`: both sectors of the block, in place.
fn take_try(device: &Path, loader: Loader) {
    let text = format!(
        "# GRUB Environment Block\nprimary={}\na_left={}\nb_left={}\n",
        ["A", "B"][loader.primary],
        loader.left[0],
        loader.left[1]
    );
    let mut block = text.into_bytes();
    block.resize(1024, b'#');
    let device = OpenOptions::new().write(true).open(device).unwrap();
    device.write_all_at(&block, STATE_AT).unwrap();
    device.sync_all().unwrap();
}
