//! A machine with RAUC: a namespace with a real one, the gateway's root helper, slots, keys and bundles.

use crate::common::gateway::program;
use crate::common::process::Process;
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

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

    /// Runs a shell script in it, to its end; how that was, and what it said.
    pub(super) fn run(&self, script: &str, args: &[&str]) -> (bool, String) {
        let pid = self.process.pid().to_string();
        let into = ["--mount", "--target", &pid, "sh", "-euc", script, "sh"];
        let mut process = Process::start("nsenter", &[&into[..], args].concat());
        let status = process.end_within(secs(120));
        (status.success(), process.log())
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

/// The checkout.
pub(super) fn sources() -> String {
    std::fs::canonicalize(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).unwrap().display().to_string()
}

/// Where a slot's parts are: the root and, if it has one, what boots it.
pub(super) struct Parts {
    pub(super) root: PathBuf,
    pub(super) boot: Option<PathBuf>,
}

/// RAUC's settings as `scripts/image/rauc.conf` has them, for slots A and B, with the image's own backend. `notes` is the folder
/// of its status file, `state` what the boot loader reads.
pub(super) fn configure(scratch: &Scratch, notes: &Path, state: &Path, slots: [Parts; 2]) {
    let folder = scratch.path().display();
    let backend = scratch.join("backend");
    let script = format!(
        "#!/bin/sh\ncase $1 in set-*) while [ -e {} ]; do sleep 0.1; done ;; esac\n\
         BOOT_STATE={} exec {}/scripts/image/boot-state \"$@\"\n",
        hold(scratch).display(),
        state.display(),
        sources()
    );
    std::fs::write(&backend, script).unwrap();
    std::fs::set_permissions(&backend, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut settings = format!(
        "[system]\ncompatible=fieldgate-test\nbootloader=custom\nbundle-formats=plain\n\
         statusfile={}/status.raucs\nmountprefix={folder}/mounted\n\
         [handlers]\nbootloader-custom-backend={}\n[keyring]\npath={folder}/own.pem\n",
        notes.display(),
        backend.display()
    );
    for (index, (slot, name)) in slots.iter().zip(["A", "B"]).enumerate() {
        let root = slot.root.display();
        settings.push_str(&format!("[slot.rootfs.{index}]\ndevice={root}\ntype=raw\nbootname={name}\n"));
        if let Some(boot) = &slot.boot {
            let boot = boot.display();
            settings
                .push_str(&format!("[slot.boot.{index}]\ndevice={boot}\ntype=raw\nparent=rootfs.{index}\n"));
        }
    }
    std::fs::write(scratch.join("system.conf"), settings).unwrap();
}

/// While this file is there, RAUC waits before it changes what the boot loader reads: in an installation before it writes.
pub(super) fn hold(scratch: &Scratch) -> PathBuf {
    scratch.join("hold")
}

/// What the boot loader would do now.
pub(super) fn boot_state(scratch: &Scratch) -> String {
    Process::run(scratch.join("backend").to_str().unwrap(), &["show"], secs(20))
}

/// A key `WHO.key` and its certificate `WHO.pem`. RAUC believes `own`.
pub(super) fn make_key(scratch: &Scratch, who: &str) {
    let path = |ending: &str| scratch.join(&format!("{who}.{ending}")).display().to_string();
    let (key, certificate, name) = (path("key"), path("pem"), format!("/CN={who}"));
    let args = [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-keyout",
        &key,
        "-out",
        &certificate,
    ];
    Process::run("openssl", &[&args[..], &["-subj", &name]].concat(), secs(60));
}

/// A bundle `NAME.raucb` of the images in the folder `NAME`: `root.img` and, if it is there, `boot.img`.
pub(super) fn make_bundle(
    scratch: &Scratch,
    name: &str,
    key: &str,
    compatible: &str,
    version: &str,
) -> PathBuf {
    let folder = scratch.join(name);
    let mut manifest = format!(
        "[update]\ncompatible={compatible}\nversion={version}\n[bundle]\nformat=plain\n\
         [image.rootfs]\nfilename=root.img\n"
    );
    if folder.join("boot.img").exists() {
        manifest.push_str("[image.boot]\nfilename=boot.img\n");
    }
    std::fs::write(folder.join("manifest.raucm"), manifest).unwrap();
    let path = |file: String| scratch.join(&file).display().to_string();
    let bundle = path(format!("{name}.raucb"));
    let (cert, key) =
        (format!("--cert={}", path(format!("{key}.pem"))), format!("--key={}", path(format!("{key}.key"))));
    Process::run("rauc", &["bundle", &cert, &key, folder.to_str().unwrap(), &bundle], secs(60));
    bundle.into()
}
