//! The machine's firmware: the gateway, its root helper and a real RAUC, in a namespace of their own.

use crate::common::gateway::{Gateway, program};
use crate::common::process::Process;
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use crate::rauc::{self, Machine, Parts, boot_state};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Keys of the image and a stranger's, two slots, the boot loader's state as `scripts/image` keeps it, and bundles.
fn site() -> Option<Arc<Scratch>> {
    if !rauc::may() {
        return None;
    }
    let scratch = Arc::new(Scratch::new());
    for who in ["own", "stranger"] {
        rauc::make_key(&scratch, who);
    }
    let boot_state = scratch.join("boot-state");
    let empty = format!("{}/scripts/image/boot-state", rauc::sources());
    let empty = Command::new(empty).arg("empty").output().unwrap().stdout;
    std::fs::write(&boot_state, [vec![0; 2560], empty].concat()).unwrap();
    let slot = |name: &str| {
        let root = scratch.join(name);
        File::create(&root).unwrap().set_len(1 << 20).unwrap();
        Parts { root, boot: None }
    };
    rauc::configure(&scratch, scratch.path(), &boot_state, [slot("root-a"), slot("root-b")]);
    let bundles = [
        ("good", "own", "fieldgate-test", "2.0"),
        ("stranger", "stranger", "fieldgate-test", "2.0"),
        ("other", "own", "fieldgate-other", "2.0"),
        ("older", "own", "fieldgate-test", "0.9"),
    ];
    for (name, key, compatible, version) in bundles {
        std::fs::create_dir(scratch.join(name)).unwrap();
        let mut noise = vec![0; 300_000];
        File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
        std::fs::write(scratch.join(&format!("{name}/root.img")), noise).unwrap();
        rauc::make_bundle(&scratch, name, key, compatible, version);
    }
    let good = std::fs::read(scratch.join("good.raucb")).unwrap();
    std::fs::write(scratch.join("truncated.raucb"), &good[..200_000]).unwrap();
    Some(scratch)
}

pub(super) fn gateway(scratch: &Arc<Scratch>) -> Gateway {
    let config = json!({"update": {"hold": "5s"}});
    Gateway::start_in(scratch.clone(), config, |command| {
        command.arg("--system-helper").arg(scratch.join("helper.sock"));
    })
}

pub(super) fn update(gateway: &Gateway) -> Value {
    gateway.get("/api/v1/update").json()
}

pub(super) fn until(gateway: &Gateway, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    wait::until_true(what, secs(120), || fits(&update(gateway)));
    update(gateway)
}

pub(super) fn post(gateway: &Gateway, path: &str, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    let answer = gateway.request("POST", path, &[("Content-Type", "application/json")], body.as_bytes());
    (answer.status, answer.json())
}

fn put(gateway: &Gateway, offset: usize, piece: &[u8]) -> (u16, Value) {
    let path = format!("/api/v1/update/upload?offset={offset}");
    let answer = gateway.request("PUT", &path, &[("Content-Type", "application/octet-stream")], piece);
    (answer.status, answer.json())
}

pub(super) fn send(gateway: &Gateway, bundle: &Path) {
    let bytes = std::fs::read(bundle).unwrap();
    let (status, said) = post(gateway, "/api/v1/update/upload", &json!({"size": bytes.len(), "label": "x"}));
    assert_eq!(status, 201, "{said}");
    let mut offset = 0;
    for piece in bytes.chunks(100_000) {
        let (status, said) = put(gateway, offset, piece);
        assert_eq!(status, 200, "{said}");
        offset += piece.len();
        assert_eq!(said["received"], offset);
    }
    assert_eq!(update(gateway)["upload"]["complete"], true);
}

#[test]
fn a_bundle_is_sent_installed_by_rauc_started_and_kept_and_what_is_wrong_is_refused() {
    let Some(scratch) = site() else { return };
    {
        let machine = Machine::start(&scratch, "A", "1.0");
        let mut gateway = gateway(&scratch);
        let shown = until(&gateway, "RAUC", |shown| shown["available"] == true);
        let firmware = &shown["firmware"];
        assert_eq!((&firmware["version"], &firmware["booted"]), (&json!("1.0"), &json!("A")), "{shown}");
        assert_eq!(firmware["slots"].as_array().map(Vec::len), Some(2), "{shown}");
        for (bundle, told) in [
            ("truncated", "cut short, changed, or not signed"),
            ("stranger", "cut short, changed, or not signed"),
            ("other", "is for fieldgate-other, and this machine is fieldgate-test"),
            ("older", "version 0.9 is not newer than 1.0"),
        ] {
            send(&gateway, &scratch.join(&format!("{bundle}.raucb")));
            let (status, said) = post(&gateway, "/api/v1/update/install", &json!({}));
            assert!(
                status == 409 && said["detail"].as_str().unwrap().contains(told),
                "{bundle}: {status} {said}"
            );
        }
        assert_eq!(update(&gateway)["last"], Value::Null, "nothing was begun");
        send(&gateway, &scratch.join("good.raucb"));
        assert_eq!(put(&gateway, 5, b"x").0, 409);
        File::create(rauc::hold(&scratch)).unwrap();
        let (status, said) = post(&gateway, "/api/v1/update/install", &json!({}));
        assert_eq!(status, 202, "{said}");
        let shown = until(&gateway, "RAUC to say that it installs", |shown| {
            shown["firmware"]["operation"] == "installing" && shown["last"]["phase"] == "installing"
        });
        assert_eq!((&shown["available"], &shown["cause"]), (&json!(true), &Value::Null), "{shown}");
        assert!(shown["firmware"]["percent"].as_u64().unwrap() < 100, "{shown}");
        assert_eq!(
            shown["firmware"]["slots"].as_array().map(Vec::len),
            Some(2),
            "those from before: {shown}"
        );
        std::fs::remove_file(rauc::hold(&scratch)).unwrap();
        until(&gateway, "it to be installed", |shown| shown["last"]["phase"] == "installed");
        wait::until_true("the machine to be started anew", secs(60), || machine.is_to_restart());
        let (slot, image) = (scratch.join("root-b"), scratch.join("good/root.img"));
        let (slot, image) = (std::fs::read(slot).unwrap(), std::fs::read(image).unwrap());
        assert!(slot.starts_with(&image), "slot B has what the bundle has");
        assert_eq!(post(&gateway, "/api/v1/update/upload", &json!({"size": 1})).0, 409, "one at a time");
        gateway.stop();
    }
    let state = boot_state(&scratch);
    assert!(state.contains("primary B, tries left A 9 B 3"), "{state}");
    let _machine = Machine::start(&scratch, "B", "2.0");
    let gateway = gateway(&scratch);
    let shown = until(&gateway, "it to be kept", |shown| shown["last"]["phase"] == "good");
    assert_eq!(shown["last"]["version"], "2.0", "{shown}");
    let state = boot_state(&scratch);
    assert!(state.contains("B 9"), "the boot loader keeps it: {state}");
    assert_eq!(gateway.status()["update"]["phase"], "good");
}

#[test]
fn a_machine_without_rauc_says_so() {
    let Some(scratch) = site() else { return };
    let _machine = Machine::start(&scratch, "none", "1.0");
    let gateway = gateway(&scratch);
    let shown = until(&gateway, "an answer", |shown| !shown["cause"].is_null());
    assert_eq!(shown["available"], false, "{shown}");
    assert!(shown["cause"].as_str().unwrap().contains("this machine has no RAUC"), "{shown}");
    send(&gateway, &scratch.join("good.raucb"));
    let (status, said) = post(&gateway, "/api/v1/update/install", &json!({}));
    assert!(status == 409 && said["detail"].as_str().unwrap().contains("no RAUC"), "{status} {said}");
}

/// A USB stick with that bundle, as the kernel shows it; `update-from-medium` gets its name.
struct Stick(PathBuf);

impl Stick {
    fn with(scratch: &Scratch, bundle: Option<&Path>) -> Stick {
        let (image, content) = (scratch.join("stick.img"), scratch.join("stick"));
        File::create(&image).unwrap().set_len(8 << 20).unwrap();
        std::fs::remove_dir_all(&content).ok();
        std::fs::create_dir(&content).unwrap();
        if let Some(bundle) = bundle {
            std::fs::copy(bundle, content.join("fieldgate.raucb")).unwrap();
        }
        // Not every kernel has FAT.
        let (path, content) = (image.to_str().unwrap(), content.to_str().unwrap());
        Process::run("mkfs.ext4", &["-q", "-F", "-L", "FIELDGATE", "-d", content, path], secs(30));
        Stick(Process::run("losetup", &["--find", "--show", "--read-only", path], secs(30)).trim().into())
    }

    /// What the unit does; whether it ended well, and what the console said. `systemctl` notes what it is told, and the slot
    /// that runs is good or not.
    fn plug(&self, machine: &Machine, scratch: &Scratch, is_good: bool) -> (bool, String) {
        let tools = scratch.join("tools");
        std::fs::create_dir_all(&tools).unwrap();
        let systemctl = format!(
            "echo \"$@\" >>{}\ncase $* in *is-active*) exit {} ;; esac",
            scratch.join("systemctl.log").display(),
            i32::from(!is_good)
        );
        let gateway = format!("exec {} \"$@\" --within 0s", program());
        // As if RAUC had its settings where an image has them.
        let rauc = format!(
            "called=$1; shift; exec /usr/bin/rauc $called --conf={} \"$@\"",
            scratch.join("system.conf").display()
        );
        for (name, script) in [("systemctl", systemctl), ("fieldgate", gateway), ("rauc", rauc)] {
            let file = tools.join(name);
            std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let console = scratch.join("console");
        std::fs::remove_file(&console).ok();
        let script = "PATH=$1:$PATH; export CONSOLE=$2; exec $3/scripts/image/update-from-medium $4";
        let name = self.0.strip_prefix("/dev").unwrap().to_str().unwrap();
        let (tools, shown, sources) = (tools.to_str().unwrap(), console.to_str().unwrap(), rauc::sources());
        let (is_well, said) = machine.run(script, &[tools, shown, &sources, name]);
        let console = std::fs::read_to_string(&console).unwrap_or_default();
        assert!(said.contains(console.trim()), "the journal has it too: {said}");
        assert!(!console.is_empty(), "{said}");
        (is_well, console)
    }
}

impl Drop for Stick {
    fn drop(&mut self) {
        Command::new("losetup").arg("--detach").arg(&self.0).status().ok();
    }
}

fn restarts(scratch: &Scratch) -> usize {
    let told = std::fs::read_to_string(scratch.join("systemctl.log")).unwrap_or_default();
    told.lines().filter(|line| *line == "reboot").count()
}

#[test]
fn a_stick_goes_through_the_gateway_and_past_one_that_does_not_answer() {
    let Some(scratch) = site() else { return };
    let bundle = |name: &str| scratch.join(&format!("{name}.raucb"));
    {
        let machine = Machine::start(&scratch, "A", "1.0");
        let mut gateway = gateway(&scratch);
        until(&gateway, "RAUC", |shown| shown["available"] == true);
        let empty = Stick::with(&scratch, None);
        let (is_well, said) = empty.plug(&machine, &scratch, true);
        assert!(!is_well && said.contains("there is no fieldgate.raucb on the medium"), "{said}");
        for (name, told) in [
            ("truncated", "cut short, changed, or not signed"),
            ("stranger", "cut short, changed, or not signed"),
            ("other", "is for fieldgate-other, and this machine is fieldgate-test"),
            ("older", "version 0.9 is not newer than 1.0"),
        ] {
            let stick = Stick::with(&scratch, Some(&bundle(name)));
            let (is_well, said) = stick.plug(&machine, &scratch, true);
            assert!(!is_well && said.contains("update: refused: ") && said.contains(told), "{name}: {said}");
            let last = &update(&gateway)["last"];
            assert_eq!((&last["phase"], &last["by"]), (&json!("refused"), &json!("a USB stick")), "{last}");
        }
        let stick = Stick::with(&scratch, Some(&bundle("good")));
        let (is_well, said) = stick.plug(&machine, &scratch, true);
        assert!(is_well && said.contains("update: version 2.0 is installed"), "{said}");
        assert!(scratch.join("state/update/trial").exists());
        wait::until_true("the machine to be started anew", secs(60), || machine.is_to_restart());
        assert_eq!(restarts(&scratch), 0, "the gateway has the machine started anew");
        gateway.stop();
    }
    let state = boot_state(&scratch);
    assert!(state.contains("primary B, tries left A 9 B 3"), "{state}");
    let stick = Stick::with(&scratch, Some(&bundle("good")));
    {
        let machine = Machine::start(&scratch, "B", "2.0");
        let mut gateway = gateway(&scratch);
        let (is_well, said) = stick.plug(&machine, &scratch, true);
        assert!(is_well && said.contains("update: version 2.0 runs already"), "{said}");
        until(&gateway, "it to be kept", |shown| shown["last"]["phase"] == "good");
        gateway.stop();
        // Nobody answers. What runs is good, so the other slot can be given up; but not while it is not known to be.
        let older = Stick::with(&scratch, Some(&bundle("older")));
        let (is_well, said) = older.plug(&machine, &scratch, false);
        assert!(!is_well && said.contains("refused: what runs is not known to be good"), "{said}");
        std::fs::write(scratch.join("state/update/trial"), b"").unwrap();
        let (is_well, said) = older.plug(&machine, &scratch, true);
        assert!(!is_well && said.contains("refused: another update is under way"), "{said}");
        std::fs::remove_file(scratch.join("state/update/trial")).unwrap();
        let (is_well, said) = older.plug(&machine, &scratch, true);
        assert!(is_well && said.contains("installing it without the gateway"), "{said}");
        assert!(said.contains("version 0.9 is installed; starting it"), "{said}");
        assert_eq!(restarts(&scratch), 1);
        let state = boot_state(&scratch);
        assert!(state.contains("primary A, tries left A 3 B 9"), "{state}");
        // The machine came back to B, whose gateway does not start either: this medium was tried, another one is taken.
        let (is_well, said) = older.plug(&machine, &scratch, false);
        assert!(!is_well && said.contains("version 0.9 was tried already"), "{said}");
    }
}
