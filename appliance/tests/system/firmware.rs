//! The machine's firmware: the gateway, its root helper and a real RAUC, in a namespace of their own.

use crate::common::gateway::{Gateway, program};
use crate::common::process::Process;
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// A machine of version `$4` that was started from slot `$3`; `$1` is its folder, `$2` the program. Its slots are files.
const MACHINE: &str = r#"
mount -t tmpfs none /run
mount -t tmpfs none /var/lib
mkdir -p /run/dbus
ln -s "$1/state" /var/lib/fieldgate
printf 'NAME=test\nIMAGE_ID=fieldgate-test\nIMAGE_VERSION=%s\n' "$4" >/run/os-release
mount --bind /run/os-release /etc/os-release
cat >/run/dbus/bus.conf <<'BUS'
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_type="signal"/>
<allow send_requested_reply="true" send_type="method_return"/><allow send_requested_reply="true" send_type="error"/>
<allow receive_type="method_call"/><allow receive_type="signal"/><allow receive_type="method_return"/>
<allow receive_type="error"/></policy></busconfig>
BUS
setpriv --pdeathsig KILL -- dbus-daemon --config-file=/run/dbus/bus.conf --nofork --nopidfile &
while [ ! -S /run/dbus/system_bus_socket ]; do sleep 0.1; done
if [ "$3" != none ]; then
    setpriv --pdeathsig KILL -- rauc service --conf="$1/system.conf" --override-boot-slot="$3" &
    while ! busctl --system status de.pengutronix.rauc >/dev/null 2>&1; do sleep 0.1; done
fi
rm -f "$1/helper.sock"
setpriv --pdeathsig KILL -- systemd-socket-activate --accept --inetd --listen="$1/helper.sock" "$2" system-helper --user nobody &
while [ ! -S "$1/helper.sock" ]; do sleep 0.1; done
echo ready
wait
"#;

/// Keys of the image, a stranger's, two slots, and the boot loader's state as `scripts/image` keeps it.
const MAKE: &str = r#"
cd "$1"
for who in own stranger; do
    openssl req -x509 -newkey rsa:2048 -nodes -keyout $who.key -out $who.pem -days 2 -subj "/CN=$who" 2>/dev/null
done
truncate -s 1M root-a root-b
{ head -c 2560 /dev/zero; "$2/scripts/image/boot-state" empty; } >boot-state
printf '#!/bin/sh\nBOOT_STATE=%s exec %s "$@"\n' "$1/boot-state" "$2/scripts/image/boot-state" >backend
chmod +x backend
cat >system.conf <<CONF
[system]
compatible=fieldgate-test
bootloader=custom
bundle-formats=plain
statusfile=$1/status.raucs
mountprefix=$1/mounted
[handlers]
bootloader-custom-backend=$1/backend
[keyring]
path=$1/own.pem
[slot.rootfs.0]
device=$1/root-a
type=raw
bootname=A
[slot.rootfs.1]
device=$1/root-b
type=raw
bootname=B
CONF
bundle() { # NAME KEY COMPATIBLE VERSION
    mkdir "$1.content"
    head -c 300000 /dev/urandom >"$1.content/root.img"
    printf '[update]\ncompatible=%s\nversion=%s\n[bundle]\nformat=plain\n[image.rootfs]\nfilename=root.img\n' \
        "$3" "$4" >"$1.content/manifest.raucm"
    rauc bundle --cert=$2.pem --key=$2.key "$1.content" "$1.raucb" >bundle.log 2>&1 || { cat bundle.log >&2; exit 1; }
}
bundle good own fieldgate-test 2.0
bundle stranger stranger fieldgate-test 2.0
bundle other own fieldgate-other 2.0
bundle older own fieldgate-test 0.9
head -c 200000 good.raucb >truncated.raucb
"#;

pub(super) struct Machine {
    process: Process,
}

impl Machine {
    pub(super) fn start(scratch: &Scratch, slot: &str, version: &str) -> Machine {
        let folder = scratch.path().to_str().unwrap().to_owned();
        let args = ["-m", "sh", "-euc", MACHINE, "sh", &folder, &program(), slot, version];
        let mut process = Process::start_with("unshare", &args, |command| {
            command
                .env_remove("NOTIFY_SOCKET")
                .env_remove("INVOCATION_ID")
                .env("SYSTEMD_LOG_TARGET", "console");
        });
        wait::until_true("the machine", secs(120), || {
            process.assert_running();
            process.output().lines().any(|line| line == "ready")
        });
        Machine { process }
    }

    pub(super) fn is_to_restart(&self) -> bool {
        let inner = Path::new("/proc").join(self.process.pid().to_string());
        inner.join("root/run/fieldgate-helper/restart").exists()
    }
}

/// Whether this kernel lets this user have one.
pub(super) fn may() -> bool {
    let may = Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success());
    let is_there = Command::new("rauc").arg("--version").output().is_ok_and(|output| output.status.success());
    let has_loops = Path::new("/dev/loop-control").exists();
    if !rustix::process::geteuid().is_root() || !may || !has_loops || !is_there {
        println!("skipped: a machine with RAUC needs root, namespaces, loop devices and rauc");
        return false;
    }
    true
}

fn site() -> Option<Arc<Scratch>> {
    if !may() {
        return None;
    }
    let scratch = Arc::new(Scratch::new());
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let sources = std::fs::canonicalize(sources).unwrap();
    let args = ["-euc", MAKE, "sh", scratch.path().to_str().unwrap(), sources.to_str().unwrap()];
    Process::run("sh", &args, secs(120));
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
        let (status, said) = post(&gateway, "/api/v1/update/install", &json!({}));
        assert_eq!(status, 202, "{said}");
        until(&gateway, "it to be installed", |shown| shown["last"]["phase"] == "installed");
        wait::until_true("the machine to be started anew", secs(60), || machine.is_to_restart());
        let (slot, image) = (scratch.join("root-b"), scratch.join("good.content/root.img"));
        let (slot, image) = (std::fs::read(slot).unwrap(), std::fs::read(image).unwrap());
        assert!(slot.starts_with(&image), "slot B has what the bundle has");
        assert_eq!(post(&gateway, "/api/v1/update/upload", &json!({"size": 1})).0, 409, "one at a time");
        gateway.stop();
    }
    let state = || Process::run(scratch.join("backend").to_str().unwrap(), &["show"], secs(20));
    assert!(state().contains("primary B, tries left A 9 B 3"), "{}", state());
    let _machine = Machine::start(&scratch, "B", "2.0");
    let gateway = gateway(&scratch);
    let shown = until(&gateway, "it to be kept", |shown| shown["last"]["phase"] == "good");
    assert_eq!(shown["last"]["version"], "2.0", "{shown}");
    assert!(state().contains("B 9"), "the boot loader keeps it: {}", state());
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
